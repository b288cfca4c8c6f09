"""Pairwise results: win rates and their test with one seed and with several."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as reference

from harness import pairwise
from harness.pairwise import Bout


def bouts(*seeds: list[float]) -> list[Bout]:
    """One bout an example, each in a group of its own; a list holds the outcomes of all examples under one seed."""
    rows = list(zip(*seeds, strict=True))
    return [Bout("ours", "theirs", f"q{i}", f"q{i}", sum(row) / len(row), row) for i, row in enumerate(rows)]


ONE = [1.0, 1.0, 1.0, 0.5, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.5]
TWO = [1.0, 0.0, 1.0, 0.5, 0.0, 0.0, 1.0, 0.0, 0.5, 1.0, 0.0, 0.5]
THREE = [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5]


def test_seeds_and_examples_are_both_sources_of_variation() -> None:
    (row,) = pairwise.compared(bouts(ONE, TWO, THREE))
    wins = 2 * np.array([ONE, TWO, THREE]) - 1  # a win less a loss
    parts = [(wins.mean(axis=0).var(ddof=1) / 12, 11), (wins.mean(axis=1).var(ddof=1) / 3, 2)]
    error = math.sqrt(sum(part for part, _ in parts))
    degrees = error**4 / sum(part**2 / df for part, df in parts)
    assert row["win_rate"] == pytest.approx((wins.mean() + 1) / 2)
    assert row["p"] == pytest.approx(2 * reference.t.sf(wins.mean() / error, degrees))
    assert row["test"] == "paired t over seeds and examples"
    assert row["method"] == "Wilson at effective n, over seeds and examples"


def test_seeds_that_differ_leave_more_doubt_than_one_seed_of_the_same_mean() -> None:
    (over,) = pairwise.compared(bouts(ONE, TWO, THREE))
    (alone,) = pairwise.compared(
        [Bout(b.ours, b.theirs, b.example, b.group, b.outcome) for b in bouts(ONE, TWO, THREE)]
    )
    assert over["win_rate"] == alone["win_rate"]
    assert over["ci_high"] - over["ci_low"] > alone["ci_high"] - alone["ci_low"]
    assert over["p"] > alone["p"]
    assert over["minimum_detectable"] is None or over["minimum_detectable"] > alone["minimum_detectable"]


def test_seeds_with_the_same_verdicts_are_as_good_as_one() -> None:
    assert pairwise.compared(bouts(ONE, ONE)) == pairwise.compared(bouts(ONE))


def test_a_ranking_over_seeds_says_so_and_is_less_sure() -> None:
    (first, _) = pairwise.ranked(bouts(ONE, THREE))["rows"]
    (alone, _) = pairwise.ranked([Bout(b.ours, b.theirs, b.example, b.group, b.outcome) for b in bouts(ONE, THREE)])[
        "rows"
    ]
    assert first["rating"] == alone["rating"]
    assert first["ci_low"] < alone["ci_low"] < first["rating"] < alone["ci_high"] < first["ci_high"]
    assert first["method"].endswith("and over 2 seeds")
