"""Krippendorff's alpha and Cohen's kappa, pinned to the packages `krippendorff` and scikit-learn."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import pytest

from harness.agreement import Level, Weights, alpha, kappa

krippendorff = pytest.importorskip("krippendorff")
metrics = pytest.importorskip("sklearn.metrics")

# Krippendorff 2011, section C: four observers, twelve units, missing data.
PAPER: list[list[float | None]] = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(("level", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_that_of_krippendorffs_own_example(level: Level, expected: float) -> None:
    assert alpha(PAPER, level) == pytest.approx(expected, abs=5e-4)


def test_alpha_is_that_of_the_reference_on_10_000_generated_tables() -> None:
    rng, seen = random.Random(1), 0
    for number in range(10_000):
        values = [None, *rng.choice([[0, 1], [0, 0.5, 1], [1, 2, 3, 4, 5], [-3, 1, 10]])]
        rows, items = rng.randint(2, 4), rng.randint(1, 8)
        table = [[rng.choice(values) for _ in range(items)] for _ in range(rows)]
        level: Level = ("nominal", "ordinal", "interval")[number % 3]  # type: ignore[assignment]
        ours = alpha(table, level)
        if ours is None:
            assert _reference_alpha(table, level) is None
        else:
            assert ours == pytest.approx(_reference_alpha(table, level), abs=1e-12)
            seen += 1
    assert seen > 7_000


def _reference_alpha(table: list[list[Any]], level: str) -> float | None:
    array = np.array([[np.nan if value is None else value for value in row] for row in table], dtype=float)
    # The package counts a value that only unpaired ratings have; it refuses tables with a single value.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = float(krippendorff.alpha(reliability_data=array, level_of_measurement=level))
        except ValueError:
            return None
    return None if np.isnan(made) else made


@pytest.mark.parametrize("pairs", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_kappa_is_that_of_the_reference_on_generated_pairs(pairs: int) -> None:
    rng, seen = random.Random(2), 0
    for number in range(pairs):
        scale = list(range(1, rng.randint(3, 6)))
        n = rng.randint(1, 12)
        ours, theirs = ([float(rng.choice(scale)) for _ in range(n)] for _ in range(2))
        weights: Weights = ("none", "linear", "quadratic")[number % 3]  # type: ignore[assignment]
        given = None if number % 2 else [float(mark) for mark in scale]
        made = kappa(ours, theirs, weights=weights, categories=given)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = metrics.cohen_kappa_score(
                ours, theirs, labels=given, weights=None if weights == "none" else weights
            )
        if made is None:
            assert np.isnan(expected)
        else:
            assert made == pytest.approx(float(expected), abs=1e-12)
            seen += 1
    assert seen > 0.9 * pairs


def test_kappa_by_hand() -> None:
    # Two raters, 50 items: 20 yes-yes, 15 no-no, 5 yes-no, 10 no-yes. p_o = 0.7, p_e = 0.5, kappa = 0.4.
    ours = [1.0] * 25 + [0.0] * 25
    theirs = [1.0] * 20 + [0.0] * 5 + [1.0] * 10 + [0.0] * 15
    assert kappa(ours, theirs) == pytest.approx(0.4)
    assert kappa(ours, ours) == 1


def test_what_only_one_rater_rated_is_left_out() -> None:
    assert kappa([1, None, 0, 1], [1, 0, None, 0]) == kappa([1, 1], [1, 0])


def test_a_value_that_may_occur_and_does_not_keeps_its_place_on_the_scale() -> None:
    ours, theirs = [1.0, 5.0, 4.0, 1.0], [1.0, 4.0, 5.0, 5.0]
    assert kappa(ours, theirs, weights="linear", categories=[1, 2, 3, 4, 5]) != kappa(ours, theirs, weights="linear")


@pytest.mark.parametrize(
    "table",
    [
        [],
        [[1.0, 2.0, 3.0]],
        [[1.0, None], [None, 2.0]],
        [[3.0, 3.0], [3.0, 3.0]],
        [[None, None], [None, None]],
        [[], []],
    ],
    ids=["nobody", "one rater", "nothing twice", "no variation", "no ratings", "no items"],
)
def test_where_agreement_cannot_be_known_there_is_no_number(table: list[list[float | None]]) -> None:
    for level in ("nominal", "ordinal", "interval"):
        assert alpha(table, level) is None
    if len(table) == 2:
        assert kappa(table[0], table[1]) is None


def test_constant_raters_who_differ_agree_no_better_than_chance() -> None:
    assert kappa([1, 1, 1], [0, 0, 0]) == 0
    assert kappa([1, 1, 1], [1, 0, 1]) == 0
