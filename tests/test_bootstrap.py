from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as reference

from harness import bootstrap
from harness.bootstrap import Corpus
from harness.reducers import REDUCERS, SUMS


def ter(count: int, seed: int, rate: float = 0.3, size: int = 1) -> Corpus:
    """A corpus of `count` groups: edits and words."""
    generator = np.random.default_rng(seed)
    words = generator.integers(3, 12, (count, size))
    edits = generator.binomial(words, np.clip(generator.normal(rate, 0.1, (count, 1)), 0, 1))
    rows = [(float(a), float(b)) for a, b in zip(edits.ravel(), words.ravel(), strict=True)]
    return Corpus("ter", (), [rows], [f"g{group:03}" for group in range(count) for _ in range(size)])


def test_the_interval_equals_scipys_bca_up_to_the_draws() -> None:
    corpus = ter(60, 1)
    made, _ = bootstrap.interval(corpus, bounds=(0, None))
    table = np.array(corpus.seeds[0])
    expected = reference.bootstrap(
        (table[:, 0], table[:, 1]),
        lambda a, b, axis=-1: 100 * a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = expected.high - expected.low
    assert made.value == pytest.approx(100 * table[:, 0].sum() / table[:, 1].sum())
    assert (made.low, made.high) == pytest.approx((expected.low, expected.high), abs=0.06 * width)
    assert made.method == "BCa bootstrap (2,000 draws)"


def test_groups_are_drawn_whole_and_the_interval_is_wider_for_it() -> None:
    corpus = ter(30, 2, size=6)
    grouped, _ = bootstrap.interval(corpus, bounds=(0, None))
    alone, _ = bootstrap.interval(Corpus("ter", (), corpus.seeds, [str(i) for i in range(180)]), bounds=(0, None))
    assert grouped.method.startswith("BCa bootstrap of groups")
    assert None not in (grouped.low, grouped.high, alone.low, alone.high)
    assert grouped.high - grouped.low > 1.1 * (alone.high - alone.low)  # type: ignore[operator]


def test_sums_and_rows_give_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = ter(25, 3, size=3), ter(25, 4, 0.4, size=3)
    quick = bootstrap.difference(ours, theirs, bounds=(0, None)), bootstrap.randomise(ours, theirs)
    monkeypatch.delitem(SUMS, "ter")
    ours, theirs = ter(25, 3, size=3), ter(25, 4, 0.4, size=3)
    slow = bootstrap.difference(ours, theirs, bounds=(0, None)), bootstrap.randomise(ours, theirs)
    assert quick[0][0].low == pytest.approx(slow[0][0].low) and quick[0][0].high == pytest.approx(slow[0][0].high)
    assert quick[1] == slow[1]


def test_each_reducer_of_sums_needs_no_more_than_sums() -> None:
    generator = np.random.default_rng(5)
    for name, settings in SUMS.items():
        lead = {"bleu": [0, 0.0, 0], "chrf": [2.0, 0]}.get(name, [])
        assert len(lead) == settings
        width = {"bleu": 10, "chrf": 18, "ter": 2}.get(name, 3)
        rows = [[*lead, *sorted(generator.integers(1, 30, width).tolist())] for _ in range(9)]
        summed = [*lead, *np.sum([row[settings:] for row in rows], axis=0).tolist()]
        assert REDUCERS[name](rows, ()) == pytest.approx(REDUCERS[name]([summed], ()))


def test_the_order_of_examples_changes_nothing_and_neither_does_a_second_time() -> None:
    ours, theirs = ter(30, 6), ter(30, 7)
    order = np.random.default_rng(8).permutation(30).tolist()
    turned = [
        Corpus("ter", (), [[side.seeds[0][i] for i in order]], [side.groups[i] for i in order])
        for side in (ours, theirs)
    ]
    made, again = bootstrap.difference(ours, theirs, bounds=(0, None)), bootstrap.difference(*turned, bounds=(0, None))
    assert made[0] == again[0]
    assert bootstrap.randomise(ours, theirs) == bootstrap.randomise(*turned)


def test_randomisation_of_few_groups_counts_every_swap() -> None:
    ours, theirs = ter(6, 9), ter(6, 10, 0.6)
    found = []
    for swap in itertools.product((0, 1), repeat=6):
        sides = [ours.seeds[0], theirs.seeds[0]]
        a = [sides[s][i] for i, s in enumerate(swap)]
        b = [sides[1 - s][i] for i, s in enumerate(swap)]
        found.append(abs(REDUCERS["ter"](a, ()) - REDUCERS["ter"](b, ())))  # type: ignore[operator]
    expected = sum(one >= found[0] - 1e-9 for one in found) / 64
    assert bootstrap.randomise(ours, theirs) == (pytest.approx(expected), "all swaps")


def test_a_large_difference_reaches_the_smallest_p_and_leaves_room_for_holm() -> None:
    p, way = bootstrap.randomise(ter(80, 11, 0.1), ter(80, 12, 0.8), family=45)
    assert p == 1 / 4_500 and 45 * p <= 0.01
    assert way == "4,499 random swaps"


def test_few_groups_get_the_jackknife_with_t() -> None:
    corpus = ter(8, 13)
    made, estimate = bootstrap.interval(corpus, bounds=(0, None))
    table = np.array(corpus.seeds[0])
    kept = [np.delete(table, i, axis=0).sum(axis=0) for i in range(8)]
    values = np.array([100 * a / b for a, b in kept])
    error = np.sqrt(7 / 8 * ((values - values.mean()) ** 2).sum())
    assert estimate is not None and estimate.error == pytest.approx(error) and estimate.degrees == pytest.approx(7)
    assert made.high == pytest.approx(made.value + reference.t.ppf(0.975, 7) * error)
    assert made.method == "t of the jackknife over groups"


def test_seeds_widen_the_interval() -> None:
    one = ter(40, 14)
    many = Corpus(
        "ter", (), [ter(40, seed, rate).seeds[0] for seed, rate in ((14, 0.2), (15, 0.3), (16, 0.5))], one.groups
    )
    alone, _ = bootstrap.interval(one, bounds=(0, None))
    made, _ = bootstrap.interval(many, bounds=(0, None))
    assert made.method == "t of the jackknife over groups, over seeds and examples"
    assert None not in (made.low, made.high, alone.low, alone.high)
    assert made.high - made.low > alone.high - alone.low  # type: ignore[operator]


@pytest.mark.parametrize(
    ("rows", "groups", "method"),
    [
        ([], "", "n/a (no examples)"),
        ([(1.0, 4.0)], "a", "n/a (one example)"),
        ([(1.0, 4.0), (2.0, 4.0)], "aa", "n/a (one group)"),
        ([(0.0, 4.0)] * 3, "abc", "n/a (no variation)"),
    ],
)
def test_where_nothing_varies_there_is_no_interval(rows: list[tuple[float, float]], groups: str, method: str) -> None:
    made, estimate = bootstrap.interval(Corpus("ter", (), [rows], list(groups)), bounds=(0, None))
    assert (made.low, made.high, made.method, estimate) == (None, None, method, None)
