from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference
from statsmodels.stats.contingency_tables import mcnemar

from harness import randomisation

counts = st.integers(0, 400)


def against_zero(row: list[float], seed: int = 0) -> tuple[float, str]:
    (p,), way = randomisation.sign_flips([row, [0.0] * len(row)], [(0, 1)], seed=seed)
    return p, way


def all_flips(row: list[float]) -> float:
    """The definition: the share of all flips whose sum is as far from zero, counted one by one."""
    sums = [
        abs(sum(s * x for s, x in zip(signs, row, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(row))
    ]
    return sum(found >= abs(sum(row)) - 1e-12 for found in sums) / len(sums)


@given(counts, counts)
def test_mcnemar_equals_statsmodels(wins: int, losses: int) -> None:
    expected = mcnemar([[3, wins], [losses, 5]], exact=True).pvalue if wins + losses else 1.0
    assert randomisation.mcnemar(wins, losses) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize(("wins", "losses"), [(6, 0), (9, 1), (15, 5), (33, 17), (61, 39)])
def test_these_are_the_fewest_wins_that_reach_five_percent(wins: int, losses: int) -> None:
    assert randomisation.mcnemar(wins, losses) <= 0.05 < randomisation.mcnemar(wins - 1, losses + 1)


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=12))
def test_flips_of_whole_numbers_equal_counting_them_one_by_one(row: list[int]) -> None:
    p, way = against_zero([float(x) for x in row])
    assert way == "all flips"
    assert p == pytest.approx(all_flips([float(x) for x in row]), abs=1e-12)


@given(counts, counts)
def test_flips_of_single_right_and_wrong_answers_are_mcnemars_test(wins: int, losses: int) -> None:
    p, _ = against_zero([1.0] * wins + [-1.0] * losses + [0.0])
    assert p == pytest.approx(randomisation.mcnemar(wins, losses), rel=1e-6, abs=1e-12)


@settings(max_examples=40)
@given(st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=1, max_size=10))
def test_flips_of_few_groups_equal_counting_them_one_by_one(row: list[float]) -> None:
    row = [*row, 0.125]  # no row of whole numbers
    assert against_zero(row)[0] == pytest.approx(all_flips(row), abs=1e-12)


def test_few_groups_equal_scipys_permutation_test() -> None:
    generator = np.random.default_rng(5)
    ours, theirs = generator.random(12), generator.random(12) - 0.2
    expected = reference.permutation_test(
        (ours, theirs), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    )
    (p,), way = randomisation.sign_flips([ours.tolist(), theirs.tolist()], [(0, 1)])
    assert (p, way) == (pytest.approx(expected.pvalue), "all flips")


def test_random_flips_come_close_to_the_exact_p_and_repeat_to_the_digit() -> None:
    generator = np.random.default_rng(6)
    whole = generator.integers(-6, 8, 60).astype(float)
    exact, _ = against_zero(whole.tolist())
    drawn, way = against_zero((whole * 0.37).tolist())
    assert way == "9,999 random flips"
    assert drawn == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 9_999) ** 0.5)
    assert against_zero((whole * 0.37).tolist()) == (drawn, way)
    assert against_zero((whole * 0.37).tolist(), seed=1)[0] != drawn


def test_the_smallest_p_leaves_room_for_holm_to_reach_one_percent() -> None:
    for family in (1, 9, 45, 190, 1000):
        assert family / (randomisation.draws(family) + 1) <= 0.01
    p, _ = against_zero([1.5] * 30)
    assert p == 1 / 10_000, "never zero: the flip that was seen counts"


def test_many_pairs_share_their_flips_and_each_gets_what_it_gets_alone() -> None:
    generator = np.random.default_rng(7)
    table = generator.random((3, 40)).tolist()
    pairs = [(0, 1), (0, 2), (1, 2)]
    together, _ = randomisation.sign_flips(table, pairs)
    alone = [randomisation.sign_flips(table, [pair])[0][0] for pair in pairs]
    assert together == alone


def test_thousands_of_groups_do_not_overflow() -> None:
    p, _ = against_zero([3.0] * 5_000 + [-2.0] * 5_000)
    assert 0 <= p < 1e-10
    p, _ = against_zero([3.0] * 5_000 + [-3.0] * 5_000)
    assert p == pytest.approx(1.0)
