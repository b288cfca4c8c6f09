"""exact_match, token_f1, contains and regex, pinned to the SQuAD scripts."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import example as case
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.metrics.contains import Contains
from harness.metrics.exact_match import ExactMatch
from harness.metrics.regex import Regex
from harness.metrics.token_f1 import TokenF1
from harness.plugins import Metric
from harness.records import Example, Prediction

# (answer, accepted answers, exact match, F1 by v1.1, F1 by v2.0)
# Exact match and F1 v1.1: `metrics/squad/compute_score.py` of huggingface/evaluate (b6e7c3b), SQuAD's own script.
# F1 v2.0: `get_raw_scores` of transformers 4.57.1, `data/metrics/squad_metrics.py`.
GOLDEN = [
    ("Denver Broncos", ["Denver Broncos"], 1, 1.0, 1.0),
    ("the Denver Broncos!", ["Denver Broncos", "Broncos"], 1, 1.0, 1.0),
    ("Broncos", ["Denver Broncos"], 0, 0.6666666666666666, 0.6666666666666666),
    ("24 months [KB-017]", ["24 months [KB-017]"], 1, 1.0, 1.0),
    ("24 months", ["24 months [KB-017]"], 0, 0.8, 0.8),
    ("It is 24 months, says KB-017.", ["24 months [KB-017]"], 0, 0.6666666666666666, 0.6666666666666666),
    ("", [""], 1, 0, 1),
    ("", ["x"], 0, 0, 0),
    ("x", [""], 0, 0, 0),
    ("the", ["a"], 1, 0, 1),
    ("the", ["The Who", "an"], 1, 0, 0),
    ("an apple a day", ["apple day"], 1, 1.0, 1.0),
    ("U.S.A.", ["USA"], 1, 1.0, 1.0),
    ("it's", ["its"], 1, 1.0, 1.0),
    ("a b a b", ["a b b c"], 0, 0.8, 0.8),
    ("to be or not to be", ["to be"], 0, 0.5, 0.5),
    ("Straße", ["strasse"], 0, 0, 0),
    ("ÉCOLE", ["école"], 1, 1.0, 1.0),
    ("the–end", ["end"], 0, 0, 0),
    ("“quoted”", ["quoted"], 0, 0, 0),
    ("one\ttwo\n three", ["one two three"], 1, 1.0, 1.0),
    ("theatre", ["atre"], 0, 0, 0),
    ("5.5", ["55"], 1, 1.0, 1.0),
    ("yes", ["no", "Yes."], 1, 1.0, 1.0),
    ("café au lait", ["cafe au lait"], 0, 0.6666666666666666, 0.6666666666666666),
]


def value(metric: Metric, answer: str | None, *targets: str) -> float:
    measured = metric.measure(Example(id="q", input="?", targets=targets), Prediction(id="q", text=answer))
    assert isinstance(measured, float)
    return measured


@pytest.mark.parametrize(("answer", "targets", "exact", "f1", "f1_v2"), GOLDEN)
def test_the_numbers_are_those_of_the_squad_scripts(
    answer: str, targets: list[str], exact: int, f1: float, f1_v2: float
) -> None:
    assert value(ExactMatch(), answer, *targets) == exact
    assert value(TokenF1(), answer, *targets) == f1
    assert value(TokenF1(rules="v2.0"), answer, *targets) == f1_v2


@pytest.mark.parametrize(("answer", "targets", "exact", "f1", "f1_v2"), GOLDEN)
def test_exact_match_by_the_second_script_differs_only_where_folding_leaves_nothing(
    answer: str, targets: list[str], exact: int, f1: float, f1_v2: float
) -> None:
    # `get_raw_scores` of transformers 4.57.1 leaves "an" out of the accepted answers, as "The Who" is there.
    expected = 0 if (answer, targets) == ("the", ["The Who", "an"]) else exact
    assert value(ExactMatch(normalise="squad-v2"), answer, *targets) == expected


def test_by_the_second_script_saying_nothing_is_right_where_nothing_is_accepted() -> None:
    second = ExactMatch(normalise="squad-v2")
    assert (value(second, ""), value(second, "the."), value(second, "x")) == (1, 1, 0)
    nobody = Example(id="q", input="?", targets=())
    assert ExactMatch().measure(nobody, Prediction(id="q", text="")) is None


def words(text: str) -> list[str]:
    """SQuAD's folding again, in another way: runs of word characters are looked at one by one."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\w+", lambda run: " " if run[0] in ("a", "an", "the") else run[0], kept).split()


def f1_again(answer: str, target: str) -> float:
    left, shared = words(target), 0
    for word in words(answer):
        if word in left:
            left.remove(word)
            shared += 1
    total = len(words(answer)) + len(words(target))
    return 2 * shared / total if total else 0.0


_ANSWERS = st.lists(
    st.sampled_from(["a", "an", "The", "brio", "Brio.", "é", "–", "24", "mo-nths", " ", "\n", "!"])
).map(" ".join) | st.text(max_size=12)


@given(answer=_ANSWERS, targets=st.lists(_ANSWERS, min_size=1, max_size=3))
@case(answer="the-a", targets=["thea"])
def test_an_independent_implementation_agrees(answer: str, targets: list[str]) -> None:
    assert value(ExactMatch(), answer, *targets) == any(words(answer) == words(target) for target in targets)
    expected = max(f1_again(answer, target) for target in targets)
    assert value(TokenF1(), answer, *targets) == pytest.approx(expected, abs=1e-12)


@given(answer=_ANSWERS, target=_ANSWERS)
def test_f1_is_symmetric_bounded_and_one_where_the_match_is_exact(answer: str, target: str) -> None:
    metric = TokenF1(rules="v2.0")
    assert 0 <= value(metric, answer, target) <= 1
    assert value(metric, answer, target) == pytest.approx(value(metric, target, answer))
    if value(ExactMatch(), answer, target):
        assert value(metric, answer, target) == 1


def test_an_example_without_accepted_answers_is_not_spoken_of() -> None:
    for metric in (ExactMatch(), TokenF1(), Contains()):
        assert metric.measure(Example(id="q", input="?"), Prediction(id="q", text="something")) is None
    assert value(TokenF1(rules="v2.0"), "") == 1, "v2.0 takes no accepted answer for the empty one"


def test_without_normalising_only_outer_white_space_is_folded() -> None:
    metric = ExactMatch(normalise="none")
    assert value(metric, " The box\n", "The box") == 1
    assert value(metric, "the box", "The box") == 0


@pytest.mark.parametrize(
    ("answer", "targets", "expected"),
    [
        ("It is covered for 24 months, see [KB-017].", ["24 months"], 1),
        ("It is covered for 240 months.", ["24 months"], 0),
        ("124", ["24"], 0),
        ("The Denver Broncos won", ["denver  broncos!"], 1),
        ("Broncos of Denver", ["Denver Broncos"], 0),
        ("yes or no", ["maybe", "no"], 1),
        ("anything", ["the"], 0),
        ("", [""], 0),
    ],
)
def test_contains_looks_for_whole_words_in_a_row(answer: str, targets: list[str], expected: float) -> None:
    assert value(Contains(), answer, *targets) == expected


@given(before=_ANSWERS, after=_ANSWERS, target=st.from_regex(r"[b-z]{2,8}( [b-z]{2,8})?", fullmatch=True))
def test_an_answer_contains_what_stands_in_it_between_spaces(before: str, after: str, target: str) -> None:
    if words(target):
        assert value(Contains(), f"{before} {target} {after}", target) == 1


def test_regex_searches_anywhere_unless_anchored() -> None:
    assert value(Regex(pattern=r"\[KB-\d{3}\]"), "24 months [KB-017]") == 1
    assert value(Regex(pattern=r"^\[KB-\d{3}\]$"), "24 months [KB-017]") == 0
    assert value(Regex(pattern="x"), None) == 0
    assert Regex(pattern="x", label="cites").name == "cites"
    assert Regex(pattern="x").name == "regex"
    with pytest.raises(ValidationError, match="no regular expression: missing \\), unterminated"):
        Regex(pattern="(")


def test_names_kinds_and_settings_are_those_of_the_files() -> None:
    assert [metric.name for metric in (ExactMatch(), TokenF1(), Contains())] == ["exact_match", "token_f1", "contains"]
    assert TokenF1(rules="v2.0").settings() == {
        "kind": "token_f1",
        "version": 1,
        "primary": False,
        "label": None,
        "rules": "v2.0",
    }
