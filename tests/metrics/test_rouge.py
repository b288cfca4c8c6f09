"""rouge, pinned to rouge-score."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import TEXTS, measured
from pydantic import ValidationError

from harness.errors import ModelError
from harness.metrics.rouge import Rouge

TYPES: Any = ("rouge1", "rouge2", "rougeL", "rougeLsum")

# F1 = 2PR / (P + R), counted by hand.
GOLDEN = [
    ("rouge1", "the cat sat", "the cat ran home", 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)),
    ("rouge2", "the cat sat", "the cat ran home", 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)),
    ("rougeL", "home the cat", "the cat ran home", 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)),
    ("rougeL", "x", "", 0.0),
    ("rougeL", "", "", 0.0),
    ("rougeL", "猫", "猫", 0.0),
    # Two sentences in another order: as a whole only one of them is in order, line by line both are.
    ("rougeL", "one two\nthree four", "three four\none two", 0.5),
    ("rougeLsum", "one two\nthree four", "three four\none two", 1.0),
]


@pytest.mark.parametrize(("kind", "answer", "target", "expected"), GOLDEN)
def test_numbers_counted_by_hand(kind: Any, answer: str, target: str, expected: float) -> None:
    assert measured(Rouge(type=kind), answer, target) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("stemmer", [False, True])
@settings(max_examples=40, deadline=None)
@given(answer=TEXTS, targets=st.lists(TEXTS, min_size=1, max_size=3))
def test_the_best_accepted_answer_counts_as_rouge_score_has_it(
    kind: Any, stemmer: bool, answer: str, targets: list[str]
) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([kind], use_stemmer=stemmer)
    expected = max(scorer.score(target, answer)[kind].fmeasure for target in targets)
    assert measured(Rouge(type=kind, stemmer=stemmer), answer, *targets) == pytest.approx(expected, abs=1e-9)


def test_the_stemmer_makes_forms_of_a_word_equal() -> None:
    assert measured(Rouge(type="rouge1"), "running dogs", "run dog") == 0
    assert measured(Rouge(type="rouge1", stemmer=True), "running dogs", "run dog") == 1
    assert measured(Rouge(type="rouge1", stemmer=True), "its", "it") == 0, "only words of more than three letters"


def test_an_example_without_accepted_answers_is_not_spoken_of() -> None:
    assert measured(Rouge(), "a fox") is None
    assert measured(Rouge(), None, "a fox") == 0


def test_the_name_is_the_type_and_the_signature_holds_the_packages_version() -> None:
    assert [Rouge(type=kind).name for kind in TYPES] == list(TYPES)
    assert f'rouge-score:"{metadata.version("rouge-score")}"' in Rouge().signature
    assert Rouge().signature != Rouge(stemmer=True).signature
    with pytest.raises(ValidationError):
        Rouge.model_validate({"type": "rougeW"})


def test_without_the_package_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(ModelError, match=r"the package rouge-score, which is not installed.*\[metrics\]"):
        Rouge().identity()
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(ModelError, match="the package rouge_score, which is not installed"):
        measured(Rouge(), "x", "y")
