"""Scoring: every held-out example counts, whatever went wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from means import NO_MEANS

from harness.errors import HarnessError
from harness.metrics.exact_match import ExactMatch
from harness.plugins import Metric, find
from harness.records import Choice, Example, Prediction
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
        ("text", "it gave 'x', which is no number"),
        ("two", "it gave (0.5, 2.0); a mean takes one number an example"),
    ],
)
def test_an_example_on_which_the_metric_fails_counts_at_the_floor_with_one_note(text: str, said: str) -> None:
    made, (note,) = score(Odd(), EXAMPLES, predictions("fine", text, text, "fine"), NO_MEANS)
    assert made.statistics == ((1.0,), (0.0,), (0.0,), (1.0,))
    assert made.errors == 2
    assert note.startswith("Odd failed on 2 of 4 examples; the first, b: ")
    assert said in note


@pytest.mark.parametrize(
    ("answers", "count", "first"),
    [
        (("bad", "bad", "bad", "bad"), 4, "a"),
        (("none", "bad", "bad", "none"), 2, "b"),  # what it does not speak of is no success
        ((None, "bad", "bad", "bad"), 3, "b"),  # nor is an answer that failed
    ],
)
def test_a_metric_that_fails_on_every_answer_gives_a_message_and_no_number(
    answers: tuple[str | None, ...], count: int, first: str
) -> None:
    told = (
        rf"^Odd failed on all {count} answers that it speaks of; the first, {first}: ValueError: bad \(test_scoring\.py"
    )
    with pytest.raises(HarnessError, match=told) as raised:
        score(Odd(), EXAMPLES, predictions(*answers), NO_MEANS)
    assert isinstance(raised.value.__cause__, ValueError)


def test_where_every_answer_failed_a_metric_that_fails_on_them_too_counts_the_worst() -> None:
    class Strict(Odd):
        def measure(self, example: Example, prediction: Prediction) -> Any:
            return float(len(prediction.text))  # type: ignore[arg-type]

    made, _ = score(Strict(), EXAMPLES, predictions(None, None, None, None), NO_MEANS)
    assert (made.statistics, made.errors) == (((0.0,),) * 4, 4)


def test_a_fault_of_a_metric_of_the_harness_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ExactMatch, text: str) -> str:
        raise KeyError("bug")

    monkeypatch.setattr(ExactMatch, "_folded", broken)
    with pytest.raises(KeyError, match="bug"):
        score(ExactMatch(), EXAMPLES, predictions("so", "so", "so", "so"), NO_MEANS)


class Whole(Odd):
    """Looks at all answers at once, and gives what `gives` makes of them."""

    gives: ClassVar[Callable[[int], Any]]

    def measure_all(self, examples: Any, predictions: Any, means: Any) -> Any:
        return type(self).gives(len(examples))


def _raises(count: int) -> Any:
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("gives", "told"),
    [
        (_raises, r"^Whole failed: KeyError: 'lost' \(test_scoring\.py:\d+\)$"),
        (lambda count: [1.0] * (count - 1), "^Whole gave 3 values for 4 examples: it must give one each"),
        (lambda count: None, r"^Whole failed: TypeError: "),
    ],
)
def test_a_users_metric_that_cannot_be_used_at_all_is_told_in_one_message(
    gives: Callable[[int], Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Whole, "gives", staticmethod(gives), raising=False)
    with pytest.raises(HarnessError, match=told):
        score(Whole(), EXAMPLES, predictions("so", "so", "so", "so"), NO_MEANS)


def test_statistics_that_no_reader_could_use_are_refused_before_they_are_kept() -> None:
    class Unknown(Odd):
        reducer = "chrff"

    class Narrow(Odd):
        reducer = "ter"

    answers = predictions("so", "so", "so", "so")
    with pytest.raises(HarnessError, match=r"names the reducer 'chrff', and there is none\. Did you mean 'chrf'\?"):
        score(Unknown(), EXAMPLES, answers, NO_MEANS)
    with pytest.raises(HarnessError, match=r"the statistics of .*Narrow do not fit its reducer 'ter': ValueError"):
        score(Narrow(), EXAMPLES, answers, NO_MEANS)


def test_where_lower_is_better_a_failure_counts_at_the_ceiling() -> None:
    made, (note,) = score(Cost(), EXAMPLES, predictions("fine", None, "bad", "fine"), NO_MEANS)
    assert made.statistics == ((1.0,), (1.0,), (1.0,), (1.0,))
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


@pytest.mark.parametrize("kind", ["exact_match", "contains", "token_f1", "rouge", "bleu", "accuracy", "brier", "ece"])
def test_without_an_accepted_answer_there_is_no_number_to_give(kind: str) -> None:
    metric = find("metrics", kind)()
    assert isinstance(metric, Metric)
    choices = tuple(Choice(text=text, logprob=-1.0, tokens=1, bytes=2) for text in ("so", "no"))
    asked = [Example(id="a", input="?"), Example(id="b", input="?", targets=("so",))]
    answers = [Prediction(id=example.id, text="so", choices=choices) for example in asked]
    made, _ = score(metric, asked, answers, NO_MEANS)
    assert made.statistics[0] is None and made.statistics[1] is not None


def test_several_numbers_an_example_are_kept_together() -> None:
    class Pairs(Odd):
        reducer = "ter"

    made, _ = score(Pairs(), EXAMPLES, predictions("two", "two", "two", "two"), NO_MEANS)
    assert made.statistics == ((0.5, 2.0),) * 4


def test_a_failed_example_counts_as_an_empty_answer_where_there_is_no_mean() -> None:
    class Lengths(Odd):
        reducer = "ter"

        def measure(self, example: Example, prediction: Prediction) -> Any:
            if prediction.text == "bad":
                raise ValueError("bad")
            return (float(len(prediction.text or "")), 1.0)

    made, (note,) = score(Lengths(), EXAMPLES, predictions("four", None, "bad", "so"), NO_MEANS)
    assert made.statistics == ((4.0, 1.0), (0.0, 1.0), (0.0, 1.0), (2.0, 1.0))
    assert made.errors == 2 and "failed on 1 of 4 examples; the first, c: ValueError: bad" in note


def test_a_metric_that_fails_on_an_empty_answer_too_says_so() -> None:
    class Broken(Odd):
        reducer = "ter"

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
