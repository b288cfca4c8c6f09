"""bleu, chrf and ter, pinned to sacrebleu's corpus scores."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import TEXTS, measured, value
from pydantic import ValidationError

from harness.errors import ModelError
from harness.metrics._sacrebleu import Corpus
from harness.metrics.bleu import Bleu
from harness.metrics.chrf import Chrf
from harness.metrics.ter import Ter

# The example of sacrebleu's README: three sentences, two references each.
ANSWERS = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
REFERENCES = [
    ("The dog bit the man.", "The dog had bit the man."),
    ("It was not unexpected.", "No one was surprised."),
    ("The man bit him first.", "The man had bitten the dog."),
]
README = list(zip(ANSWERS, REFERENCES, strict=True))
SETTINGS: list[Corpus] = [
    Bleu(),
    Bleu(effective_order=True, lowercase=True, tokenize="intl"),
    Bleu(smooth_method="floor"),
    Bleu(smooth_method="floor", smooth_value=0.4, effective_order=True),
    Bleu(smooth_method="add-k", max_ngram_order=2),
    Bleu(smooth_method="none", tokenize="char"),
    Chrf(),
    Chrf(word_order=2, lowercase=True),
    Chrf(beta=1, char_order=3, whitespace=True),
    Chrf(eps_smoothing=True),
    Ter(),
    Ter(normalized=True, no_punct=True, asian_support=True, case_sensitive=True),
]


def theirs(metric: Corpus, cases: Any) -> float:
    width = max(len(targets) for _, targets in cases)
    streams = [[targets[i] if i < len(targets) else None for _, targets in cases] for i in range(width)]
    return float(metric.opened().corpus_score([answer for answer, _ in cases], streams).score)


def test_the_example_of_sacrebleus_readme_has_the_numbers_that_stand_there() -> None:
    assert value(Bleu(), README) == pytest.approx(48.530827, abs=1e-6)
    assert value(Chrf(), README) == pytest.approx(theirs(Chrf(), README), abs=1e-9)
    assert value(Chrf(word_order=2), README) == pytest.approx(theirs(Chrf(word_order=2), README), abs=1e-9)


@pytest.mark.parametrize("metric", SETTINGS, ids=lambda metric: metric.name)
@settings(max_examples=40, deadline=None)
@given(cases=st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=6))
def test_a_corpus_has_sacrebleus_score_with_any_texts_and_numbers_of_references(metric: Corpus, cases: Any) -> None:
    assert value(metric, cases) == pytest.approx(theirs(metric, cases), abs=1e-9)


@pytest.mark.parametrize("metric", [Bleu(), Chrf(), Ter()], ids=["bleu", "chrf", "ter"])
@pytest.mark.parametrize(
    "cases",
    [
        [("", [""])],
        [("", ["x"])],
        [("x", [""])],
        [("x", ["y"])],
        [("one two three four five", ["one two three four five"])],
        [("", ["x y z w v"]), ("a b c d e", ["a b c d e", "a"])],
        [("我们喜欢猫。 ﬁne", ["我们喜欢狗。 fine", ""])],
        [("\ud800", ["\ud800"])],
    ],
    ids=["both empty", "no answer", "empty target", "no match", "the same", "mixed", "Unicode", "half a pair"],
)
def test_edges_have_sacrebleus_score_too(metric: Corpus, cases: Any) -> None:
    assert value(metric, cases) == pytest.approx(theirs(metric, cases), abs=1e-9)


def test_a_corpus_figure_is_not_the_mean_of_its_sentences() -> None:
    alone = [value(Chrf(), [case]) or 0.0 for case in README]
    assert value(Chrf(), README) != pytest.approx(sum(alone) / 3, abs=0.01)


def test_an_example_without_accepted_answers_is_not_spoken_of() -> None:
    for metric in SETTINGS:
        assert measured(metric, "anything") is None


def test_a_missing_answer_counts_as_an_empty_one() -> None:
    for metric in SETTINGS:
        assert measured(metric, None, "the cat") == measured(metric, "", "the cat")


def test_short_answers_have_a_bleu_with_effective_order_alone() -> None:
    assert value(Bleu(), [("red", ["red"]), ("blue", ["blue"])]) == 0
    assert value(Bleu(effective_order=True), [("red", ["red"]), ("blue", ["blue"])]) == pytest.approx(100)


def test_the_signature_holds_sacrebleus_own_with_its_version() -> None:
    version = metadata.version("sacrebleu")
    assert f'sacrebleu:"case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"' in Bleu().signature
    assert f'"case:lc|eff:yes|nc:6|nw:2|space:no|version:{version}"' in Chrf(word_order=2, lowercase=True).signature
    assert f'"case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:{version}"' in Ter().signature
    assert len({metric.signature for metric in SETTINGS}) == len(SETTINGS)
    assert Bleu().signature == Bleu(primary=True, label="x").signature


def test_another_version_of_sacrebleu_names_another_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from sacrebleu.metrics import base

    before = Bleu().identity(built=True)
    monkeypatch.setattr(base, "__version__", "99.0")
    assert Bleu().identity(built=True) != before


def test_names_units_and_directions() -> None:
    assert [metric.name for metric in (Bleu(), Chrf(), Chrf(word_order=2), Chrf(beta=1), Ter())] == [
        "bleu",
        "chrF2",
        "chrF2++",
        "chrF1",
        "ter",
    ]
    assert {metric.unit for metric in SETTINGS} == {"points"}
    assert (Bleu().direction, Ter().direction, Ter().ceiling) == ("higher", "lower", None)


def test_settings_that_sacrebleu_does_not_know_are_refused() -> None:
    for settings_ in ({"tokenize": "13b"}, {"smooth_value": 0}, {"max_ngram_order": 0}):
        with pytest.raises(ValidationError):
            Bleu.model_validate(settings_)


def test_without_sacrebleu_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sacrebleu")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModelError, match=r"the package sacrebleu, which is not installed.*\[metrics\]"):
        measured(Bleu(), "x", "y")
    with pytest.raises(ModelError, match="sacrebleu"):
        Chrf().identity()
