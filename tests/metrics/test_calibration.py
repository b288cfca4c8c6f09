"""Calibration: the values of torchmetrics and lm-evaluation-harness, and nothing where nothing was weighed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from means import NO_MEANS

from harness.choices import probabilities, ranked
from harness.errors import HarnessError
from harness.metrics.brier import Brier
from harness.metrics.ece import Ece
from harness.records import Choice, Example, Normalise, Prediction
from harness.reducers import CALIBRATION_EDGES, REDUCERS, calibration_bins
from harness.scoring import score


def choices(logprobs: Sequence[float], names: str = "abcdefgh") -> tuple[Choice, ...]:
    return tuple(
        Choice(text=name, logprob=logprob, tokens=1, bytes=1) for name, logprob in zip(names, logprobs, strict=False)
    )


def weighed(id: str, logprobs: Sequence[float], normalise: Normalise = "none") -> Prediction:
    text, scored = ranked(choices(logprobs), normalise)
    return Prediction(id=id, text=text, choices=scored)


def example(id: str, *targets: str) -> Example:
    return Example(id=id, input="?", targets=targets)


# ------------------------------------------------------------------------------------------------------------- ranking


def test_the_likeliest_choice_wins_and_of_equal_ones_the_first() -> None:
    assert ranked(choices([-2, -1, -3]), "none")[0] == "b"
    assert ranked(choices([-2, -1, -1]), "none")[0] == "b"


def test_normalising_divides_by_tokens_or_by_bytes() -> None:
    given = (
        Choice(text="short", logprob=-4, tokens=1, bytes=5),
        Choice(text="überlang", logprob=-6, tokens=2, bytes=9),
        Choice(text="none at all", logprob=-8, tokens=4, bytes=11),
    )
    for normalise, winner, scores in (
        ("none", "short", [-4, -6, -8]),
        ("tokens", "none at all", [-4, -3, -2]),
        ("bytes", "überlang", [-4 / 5, -6 / 9, -8 / 11]),
    ):
        best, scored = ranked(given, normalise)  # type: ignore[arg-type]
        assert (best, [choice.score for choice in scored]) == (winner, scores)


def test_probabilities_are_the_softmax_of_the_scores_however_small_they_are() -> None:
    assert probabilities(choices([-1000, -1000 + math.log(3)])) == pytest.approx((0.25, 0.75))
    _, scored = ranked(choices([-2, -4]), "tokens")
    assert sum(probabilities(scored)) == pytest.approx(1)
    assert probabilities(()) == ()


# ----------------------------------------------------------------------------------------------------------------- ECE


def test_the_error_is_that_of_torchmetrics_on_ten_thousand_generated_cases() -> None:
    torch = pytest.importorskip("torch")
    reference = pytest.importorskip("torchmetrics.functional.classification.calibration_error")
    rng = np.random.default_rng(5)
    # torch.linspace rounds its last digit differently on different processors, so confidences that lie on an inner edge
    # are compared with the edges handed in.
    given = torch.tensor(CALIBRATION_EDGES, dtype=torch.float64)
    worst = 0.0
    for case in range(10_000):
        size = int(rng.integers(1, 30))
        sure = rng.beta(*rng.uniform(0.2, 4, 2), size)
        if case % 3:  # confidences on the edges of bins
            edges = CALIBRATION_EDGES if case % 3 == 1 else (0.0, 1.0)
            sure = np.where(rng.random(size) < 0.5, rng.choice(edges, size), sure)
        right = (rng.random(size) < sure).astype(float)
        theirs = reference._ce_compute(
            torch.from_numpy(sure), torch.from_numpy(right), given if case % 3 == 1 else 15, "l1"
        )
        ours = REDUCERS["ece"](list(zip(sure.tolist(), right.tolist(), strict=True)), ())
        assert ours is not None
        worst = max(worst, abs(ours - float(theirs)))
    assert worst < 1e-9


def test_confidences_of_0_and_1_have_their_bins() -> None:
    assert calibration_bins([(0.0, 1.0)]) == [(0.0, pytest.approx(1 / 15), 1, 0.0, 1.0)]
    assert calibration_bins([(1.0, 1.0), (0.99, 0.0)]) == [
        (pytest.approx(14 / 15), 1.0, 1, 0.99, 0.0),
        (1.0, 1.0, 1, 1.0, 1.0),
    ]
    assert REDUCERS["ece"]([(1.0, 1.0)], ()) == 0
    assert REDUCERS["ece"]([], ()) is None


def test_confidence_is_the_share_of_the_winner_and_failures_are_wrong_and_sure() -> None:
    metric = Ece()
    given = [weighed("0", [math.log(3), 0.0]), Prediction(id="1", text=None, error="too long")]
    made, _ = score(metric, [example("0", "b"), example("1", "a")], given, NO_MEANS)
    assert made.statistics == ((pytest.approx(0.75), 0.0), (1.0, 0.0))
    assert (made.errors, made.reducer, made.direction) == (1, "ece", "lower")


# --------------------------------------------------------------------------------------------------------------- Brier


def test_the_score_is_that_of_lm_evaluation_harness() -> None:
    """Its `brier_score`: mean over items of the sum over classes of (p - one-hot)^2."""
    rng = np.random.default_rng(7)
    given, examples, logprobs, truth = [], [], rng.normal(-5, 3, (500, 5)), rng.integers(0, 5, 500)
    for place, (row, right) in enumerate(zip(logprobs, truth, strict=True)):
        given.append(weighed(str(place), row.tolist()))
        examples.append(example(str(place), "abcde"[right]))
    made, _ = score(Brier(), examples, given, NO_MEANS)
    shares = np.exp(logprobs) / np.exp(logprobs).sum(1, keepdims=True)
    expected = np.mean(np.sum((shares - np.eye(5)[truth]) ** 2, axis=1))
    assert np.mean([row[0] for row in made.statistics if row]) == pytest.approx(expected, abs=1e-12)


def test_the_worst_is_2_and_an_answer_that_failed_counts_it() -> None:
    given = [weighed("0", [0.0, -1000.0]), weighed("1", [0.0, -1000.0]), Prediction(id="2", text=None, error="long")]
    made, notes = score(Brier(), [example("0", "a"), example("1", "b"), example("2", "a")], given, NO_MEANS)
    assert made.statistics == ((0.0,), (2.0,), (2.0,))
    assert (made.errors, notes) == (1, [])


def test_an_accepted_answer_that_is_no_choice_had_probability_0() -> None:
    made, _ = score(Brier(), [example("0", "elsewhere")], [weighed("0", [0.0, 0.0])], NO_MEANS)
    assert made.statistics == ((pytest.approx(1.5),),)


@pytest.mark.parametrize("metric", [Ece(), Brier()])
def test_an_answer_that_was_written_has_no_confidence(metric: Ece | Brier) -> None:
    with pytest.raises(HarnessError, match=r'it needs decode = \{ kind = "choices" \}'):
        score(metric, [example("0", "a")], [Prediction(id="0", text="a")], NO_MEANS)
