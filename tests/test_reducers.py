"""Reducers: from the statistics of all examples to one value."""

from __future__ import annotations

import math

import pytest

from harness.reducers import REDUCERS


def test_the_mean_takes_one_number_an_example() -> None:
    assert REDUCERS["mean"]([(1.0,), (0.0,), (0.5,)], ()) == 0.5


def test_bleu_is_made_of_the_sums_of_its_counts() -> None:
    # (exp smoothing, -, whole order, words, reference words, matches of order 1 and 2, n-grams of order 1 and 2)
    rows = [(0.0, 0.0, 0.0, 3.0, 4.0, 2.0, 1.0, 3.0, 2.0), (0.0, 0.0, 0.0, 2.0, 2.0, 1.0, 0.0, 2.0, 1.0)]
    expected = 100 * math.exp(1 - 6 / 5) * math.sqrt(3 / 5 * 1 / 3)
    assert REDUCERS["bleu"](rows, ()) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("smoothing", "extra", "expected"),
    [(0, 0.0, math.sqrt(0.5 * 0.5 / 3)), (1, 0.1, math.sqrt(0.5 * 0.1 / 3)), (2, 1.0, math.sqrt(0.5 / 4)), (3, 0.0, 0)],
)
def test_an_order_without_a_match_counts_what_the_smoothing_gives_it(
    smoothing: int, extra: float, expected: float
) -> None:
    row = (float(smoothing), extra, 0.0, 4.0, 4.0, 2.0, 0.0, 4.0, 3.0)
    assert REDUCERS["bleu"]([row], ()) == pytest.approx(100 * expected, abs=1e-9)


def test_a_bleu_without_words_matches_or_long_ngrams_is_zero() -> None:
    assert REDUCERS["bleu"]([(0.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0)], ()) == 0
    assert REDUCERS["bleu"]([(2.0, 1.0, 0.0, 2.0, 2.0, 0.0, 0.0, 2.0, 1.0)], ()) == 0
    one_word = (0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0)
    assert REDUCERS["bleu"]([one_word], ()) == 0
    assert REDUCERS["bleu"]([(0.0, 0.0, 1.0, *one_word[3:])], ()) == 100


def test_chrf_averages_precision_and_recall_over_the_orders_that_both_sides_have() -> None:
    rows = [(2.0, 0.0, 4.0, 5.0, 2.0, 0.0, 4.0, 0.0), (2.0, 0.0, 4.0, 5.0, 2.0, 0.0, 0.0, 0.0)]
    precision, recall = 4 / 8, 4 / 10
    assert REDUCERS["chrf"](rows, ()) == pytest.approx(100 * 5 * precision * recall / (4 * precision + recall))
    assert REDUCERS["chrf"]([(2.0, 0.0, 0.0, 3.0, 0.0)], ()) == 0
    with_epsilon = REDUCERS["chrf"]([(2.0, 1.0, *row[2:]) for row in rows], ())
    assert with_epsilon == pytest.approx(100 * 5 * precision * recall / (4 * precision + recall) / 2)


def test_ter_is_edits_in_percent_of_words_and_may_exceed_100() -> None:
    assert REDUCERS["ter"]([(3.0, 2.0), (1.0, 0.5)], ()) == 160
    assert REDUCERS["ter"]([(3.0, 0.0)], ()) == 100
    assert REDUCERS["ter"]([(0.0, 0.0)], ()) == 0
