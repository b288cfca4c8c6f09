"""Scoring: every held-out example counts, whatever went wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from means import NO_MEANS

from harness.errors import HarnessError
from harness.metrics.exact_match import ExactMatch
from harness.plugins import Metric
from harness.records import Example, Prediction
from harness.scoring import score

EXAMPLES = [Example(id=id, input="?", targets=("so",)) for id in "abcd"]


def predictions(*texts: str | None) -> list[Prediction]:
    return [
        Prediction(id=example.id, text=text, error=None if text is not None else "too long")
        for example, text in zip(EXAMPLES, texts, strict=True)
    ]


class Odd(Metric):
    """Gives what `values` says of the answer; a fault is raised."""

    values: ClassVar[dict[str, Any]] = {
        "none": None, "bad": ValueError("bad"), "nan": float("nan"), "much": 2.0, "text": "x", "two": (0.5, 2.0),
    }  # fmt: skip

    def measure(self, example: Example, prediction: Prediction) -> Any:
        value = self.values.get(prediction.text or "", 1.0)
        if isinstance(value, Exception):
            raise value
        return value


class Open(Odd):
    floor = ceiling = None


class Cost(Odd):
    direction = "lower"


def test_each_answer_is_measured() -> None:
    made, notes = score(ExactMatch(), EXAMPLES, predictions("so", "no", "so", "So"), NO_MEANS)
    assert made.statistics == ((1.0,), (0.0,), (1.0,), (1.0,))
    assert (made.ids, made.errors, notes) == (("a", "b", "c", "d"), 0, [])
    assert (made.name, made.unit, made.direction, made.reducer) == ("exact_match", "share", "higher", "mean")


def test_a_failed_example_counts_at_the_floor_and_as_an_error() -> None:
    made, notes = score(ExactMatch(), EXAMPLES, predictions("so", None, None, "so"), NO_MEANS)
    assert made.statistics == ((1.0,), (0.0,), (0.0,), (1.0,))
    assert (made.errors, notes) == (2, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bad", "ValueError: bad"),
        ("nan", "it gave nan; allowed are finite numbers from 0 to 1"),
        ("much", "it gave 2.0; allowed"),
        ("text", "could not convert string to float"),
    ],
)
def test_an_example_on_which_the_metric_fails_counts_at_the_floor_with_one_note(text: str, said: str) -> None:
    made, (note,) = score(Odd(), EXAMPLES, predictions("fine", text, text, "fine"), NO_MEANS)
    assert made.statistics == ((1.0,), (0.0,), (0.0,), (1.0,))
    assert made.errors == 2
    assert note.startswith("Odd failed on 2 of 4 examples; the first, b: ")
    assert said in note


def test_a_metric_that_fails_on_every_example_is_a_fault() -> None:
    with pytest.raises(ValueError, match="bad"):
        score(Odd(), EXAMPLES, predictions("bad", "bad", "bad", "bad"), NO_MEANS)


def test_where_lower_is_better_a_failure_counts_at_the_ceiling() -> None:
    made, (note,) = score(Cost(), EXAMPLES, predictions("two", None, "bad", "fine"), NO_MEANS)
    assert made.statistics == ((0.5, 2.0), (1.0,), (1.0,), (1.0,))
    assert made.errors == 2
    assert "failed on 1 of 4" in note


@pytest.mark.parametrize("answers", [("fine", "bad", "fine", "fine"), ("much", None, "fine", "fine")])
def test_a_metric_without_a_worst_value_cannot_count_a_failure(answers: tuple[str | None, ...]) -> None:
    class Endless(Cost):
        ceiling = None

    for metric, lacks in ((Open(), "floor"), (Endless(), "ceiling")):
        with pytest.raises(HarnessError, match=f"has no {lacks}, so the failed example 'b'.*(bad|too long)"):
            score(metric, EXAMPLES, predictions(*answers), NO_MEANS)


def test_what_a_metric_does_not_speak_of_is_no_part_of_its_score() -> None:
    made, notes = score(Odd(), EXAMPLES, predictions("none", "fine", "none", "fine"), NO_MEANS)
    assert made.statistics == (None, (1.0,), None, (1.0,))
    assert (made.errors, notes) == (0, [])


def test_several_numbers_an_example_are_kept_together() -> None:
    class Pairs(Odd):
        reducer = "of pairs"

    made, _ = score(Pairs(), EXAMPLES, predictions("two", "two", "two", "two"), NO_MEANS)
    assert made.statistics == ((0.5, 2.0),) * 4


def test_a_failed_example_counts_as_an_empty_answer_where_there_is_no_mean() -> None:
    class Lengths(Odd):
        reducer = "of lengths"

        def measure(self, example: Example, prediction: Prediction) -> Any:
            if prediction.text == "bad":
                raise ValueError("bad")
            return (float(len(prediction.text or "")), 1.0)

    made, (note,) = score(Lengths(), EXAMPLES, predictions("four", None, "bad", "so"), NO_MEANS)
    assert made.statistics == ((4.0, 1.0), (0.0, 1.0), (0.0, 1.0), (2.0, 1.0))
    assert made.errors == 2 and "failed on 1 of 4 examples; the first, c: ValueError: bad" in note


def test_a_metric_that_fails_on_an_empty_answer_too_says_so() -> None:
    class Broken(Odd):
        reducer = "of pairs"

        def measure(self, example: Example, prediction: Prediction) -> Any:
            if prediction.text != "fine":
                raise ValueError("bad")
            return (1.0, 1.0)

    with pytest.raises(HarnessError, match=r"'b', and on an empty answer in its place: .*: ValueError: bad"):
        score(Broken(), EXAMPLES, predictions("fine", "bad", "fine", "fine"), NO_MEANS)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda: ExactMatch(primary=True), True),
        (lambda: ExactMatch(normalise="none"), False),
        (Odd, False),
    ],
)
def test_the_signature_tells_settings_apart_and_nothing_else(change: Callable[[], Metric], same: bool) -> None:
    answers = predictions("so", "so", "so", "so")
    one, two = score(ExactMatch(), EXAMPLES, answers, NO_MEANS)[0], score(change(), EXAMPLES, answers, NO_MEANS)[0]
    assert (one.signature == two.signature) is same
