from __future__ import annotations

from harness.records import Score
from harness.samples import Sample, effect, samples, sums, won


def score(*values: float | None) -> Score:
    return Score(
        name="m",
        signature="m",
        direction="higher",
        unit="share",
        floor=0.0,
        ceiling=1.0,
        reducer="mean",
        ids=tuple(str(i) for i in range(len(values))),
        statistics=tuple(None if value is None else (value,) for value in values),
    )


def test_examples_are_averaged_over_seeds_and_silent_ones_left_out() -> None:
    (one, two), groups = samples([[score(1, None, 0), score(0, None, 0)], [score(1, None, 0)]], ["a", "b", "c"])
    assert one == Sample([0.5, 0], [0.5, 0]) and two == Sample([1, 0]) and groups == ["a", "c"]
    assert samples([], ["a"]) == ([], [])


def test_seeds_that_gave_the_same_count_as_one() -> None:
    (one,), _ = samples([[score(1, 0), score(1, 0)]], ["a", "b"])
    assert one == Sample([1, 0])


def test_wins_follow_the_direction_of_the_metric() -> None:
    ours, theirs = Sample([1, 0.5, 0.2, 0.2]), Sample([0, 0.5, 0.1, 0.3])
    assert won(ours, theirs, True) == (2, 1) and won(ours, theirs, False) == (1, 2)


def test_sums_are_by_group_in_the_order_of_names() -> None:
    assert sums([Sample([1.0, 2.0, 4.0])], ["b", "a", "b"]) == [[2.0, 5.0]]


def test_effect_sizes_are_none_where_nothing_differs() -> None:
    same = Sample([1.0, 0.0])
    assert effect(same, same, binary=True, higher=True)[1] is None
    assert effect(same, same, binary=False, higher=True)[1] is None
    assert effect(Sample([1.0, 1.0]), Sample([0.5, 0.5]), binary=False, higher=True)[1] is None
