from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from harness import stats

SHARE = (0.0, 1.0)

grouped = st.lists(
    st.tuples(st.floats(0, 1, allow_nan=False), st.sampled_from("abcdefgh")), min_size=1, max_size=60
).map(lambda rows: ([value for value, _ in rows], [group for _, group in rows]))


def test_clustered_error_equals_the_published_golden_values() -> None:
    # Clusters [1,1,0], [0,0], [1,0,1,1], as in Inspect's tests of its clustered standard error.
    values = [1.0, 1, 0, 0, 0, 1, 0, 1, 1]
    clustered = stats.clustered_mean(values, list("aaabbcccc"))
    alone = stats.clustered_mean(values, list("abcdefghi"))
    assert (clustered.mean, clustered.error) == pytest.approx((0.5555556, 0.1900593), abs=5e-8)
    assert alone.error == pytest.approx(0.1756821, abs=5e-8)
    assert alone.error == pytest.approx(reference.sem(values))


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (7, 20), (0, 30), (300, 300), (251, 1000)])
def test_wilson_equals_scipy(right: int, n: int) -> None:
    expected = reference.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert stats.wilson(right / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_unbounded_scores_of_single_examples_get_the_classic_t_interval() -> None:
    values = [1.0, 4.0, 2.5, 7.0, -3.0]
    made = stats.interval(values, list("abcde"), binary=False, bounds=(None, None))
    expected = reference.t.interval(0.95, 4, loc=np.mean(values), scale=reference.sem(values))
    assert (made.low, made.high) == pytest.approx(expected)
    assert made.method == "t"


def test_the_paired_difference_of_single_examples_equals_scipys_paired_t() -> None:
    ours, theirs = [1.0, 0.2, 0.7, 1.0, 0.0, 0.9], [0.0, 0.3, 0.1, 1.0, 0.2, 0.4]
    made = stats.difference(ours, theirs, list("abcdef"), bounds=SHARE)
    expected = reference.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert (made.low, made.high) == pytest.approx((expected.low, expected.high))


def test_wilson_is_used_only_where_every_group_has_one_example() -> None:
    values = [1.0, 0, 1, 1, 0, 1]
    alone = stats.interval(values, list("abcdef"), binary=True, bounds=SHARE)
    pairs = stats.interval(values, list("aabbcc"), binary=True, bounds=SHARE)
    assert alone.method == "Wilson"
    assert (alone.low, alone.high) == pytest.approx(stats.wilson(4 / 6, 6))
    assert pairs.method == "Wilson at effective n, clustered by group"
    assert (alone.groups, pairs.groups) == (6, 3)


def test_the_effective_size_gives_t_quantile_times_clustered_error_where_the_score_is_a_half() -> None:
    # At p = 1/2 the score interval is t*SE/sqrt(1 + t^2/n'), n' = p(1-p)/SE^2: worked out by hand. Of six groups t has
    # 1.5 * 5 degrees of freedom.
    values, groups = [1.0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1], list("aabbccddeeff")
    values[4:8] = [1.0, 1, 0, 0]
    estimate = stats.clustered_mean(values, groups)
    made = stats.interval(values, groups, binary=True, bounds=SHARE)
    t = reference.t.ppf(0.975, 7.5)
    expected = t * estimate.error / math.sqrt(1 + t**2 * estimate.error**2 / 0.25)
    assert made.low is not None
    assert 0.5 - made.low == pytest.approx(expected)


def test_one_group_one_example_and_no_example_give_no_interval() -> None:
    one_group = stats.interval([1.0, 0, 1], list("aaa"), binary=True, bounds=SHARE)
    one_example = stats.interval([1.0], ["a"], binary=True, bounds=SHARE)
    nothing = stats.interval([], [], binary=True, bounds=SHARE)
    assert [made.method for made in (one_group, one_example, nothing)] == [
        "n/a (one group)",
        "n/a (one example)",
        "n/a (no examples)",
    ]
    assert all(made.low is None and made.high is None for made in (one_group, one_example, nothing))
    assert one_group.value == pytest.approx(2 / 3) and nothing.value is None
    assert stats.difference([1.0, 1], [0.0, 1], list("aa"), bounds=SHARE).low is None
    assert stats.difference([], [], [], bounds=SHARE).value is None


def test_equal_scores_never_look_certain() -> None:
    every_group = [f"g{i // 5}" for i in range(100)]
    made = stats.interval([1.0] * 100, every_group, binary=True, bounds=SHARE)
    assert (made.low, made.high) == pytest.approx(stats.wilson(1.0, 100 / 3)), "groups of 5, worth 1 + 4/2 times less"
    assert stats.interval([3.0] * 100, every_group, binary=False, bounds=(0.0, None)).low is None


def test_groups_that_balance_out_inside_never_look_certain() -> None:
    # Every group is half right: the clustered error is zero although the scores vary.
    values, groups = [1.0, 0] * 10, [f"g{i // 2}" for i in range(20)]
    made = stats.interval(values, groups, binary=True, bounds=SHARE)
    assert (made.low, made.high) == pytest.approx(stats.wilson(0.5, 20 / 1.5))
    paired = stats.difference(values, values[::-1], groups, bounds=SHARE)
    assert paired.low is not None and paired.high is not None and paired.low < 0 < paired.high


def test_a_difference_nobody_has_seen_is_bounded_by_the_rule_of_three() -> None:
    groups = [f"g{i // 4}" for i in range(120)]
    same = stats.difference([1.0, 0] * 60, [1.0, 0] * 60, groups, bounds=SHARE)
    bound = 1 - 0.05 ** (1 / 30)
    assert (same.low, same.value, same.high) == pytest.approx((-bound, 0, bound))
    assert bound == pytest.approx(3 / 30, rel=0.06)
    all_won = stats.difference([1.0] * 120, [0.0] * 120, groups, bounds=SHARE)
    assert (all_won.low, all_won.high) == pytest.approx((1 - 2 * bound, 1))
    assert stats.difference([2.0] * 120, [2.0] * 120, groups, bounds=(0.0, None)).low is None


def test_rounding_is_not_taken_for_variation() -> None:
    ours, theirs = [0.1 + 0.2] * 8, [0.3] * 8
    ours[0] = 0.3
    assert "no variation" in stats.difference(ours, theirs, list("abcdefgh"), bounds=SHARE).method


def test_groups_that_nearly_balance_out_claim_no_more_than_four_times_as_many_examples_would() -> None:
    # Nine groups are half right, one is wholly right: p(1-p)/SE^2 is far above the 20 examples that there are.
    values, groups = [1.0, 0] * 9 + [1.0, 1], [f"g{i // 2}" for i in range(20)]
    made = stats.interval(values, groups, binary=True, bounds=SHARE)
    assert (made.low, made.high) == pytest.approx(stats.wilson(11 / 20, 4 * 19))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcdefgh")), min_size=2, max_size=60))
def test_clustered_intervals_are_never_narrower_than_four_times_as_many_examples_give(
    rows: list[tuple[bool, str]],
) -> None:
    values, groups = [float(right) for right, _ in rows], [group for _, group in rows]
    made = stats.interval(values, groups, binary=True, bounds=SHARE)
    if made.low is not None and made.high is not None:
        low, high = stats.wilson(sum(values) / len(values), 4 * len(values))
        assert made.high - made.low >= high - low - 1e-12


def test_seeds_add_their_variation_to_that_of_examples() -> None:
    # By hand: two parts of the variance, Satterthwaite's degrees of freedom between 2 and 5.
    rows = [[0.1, 0.5, 0.3, 0.9, 0.4, 0.6], [0.3, 0.8, 0.5, 1.0, 0.6, 0.9], [0.2, 0.4, 0.2, 0.8, 0.5, 0.5]]
    values, means = np.mean(rows, axis=0).tolist(), np.mean(rows, axis=1).tolist()
    made = stats.estimate(values, list("abcdef"), [means])
    examples, seeds = np.var(values, ddof=1) / 6, np.var(means, ddof=1) / 3
    assert made.error == pytest.approx(math.sqrt(examples + seeds))
    assert made.degrees == pytest.approx((examples + seeds) ** 2 / (examples**2 / 5 + seeds**2 / 2))
    one = stats.interval(values, list("abcdef"), binary=False, bounds=(None, None))
    over = stats.interval(values, list("abcdef"), binary=False, bounds=(None, None), seeds=means)
    assert one.low is not None and over.low is not None and over.low < one.low
    assert (one.method, over.method) == ("t", "t, over seeds and examples")
    assert stats.estimate(values, list("abcdef"), [means[:1]]) == stats.estimate(values, list("abcdef"))


def test_seeds_alone_give_the_classic_t_interval_of_their_means() -> None:
    # Where examples do not differ, all variation is between seeds.
    means = [0.2, 0.5, 0.4, 0.7]
    made = stats.interval([0.45] * 50, [str(i) for i in range(50)], binary=False, bounds=(None, None), seeds=means)
    expected = reference.t.interval(0.95, 3, loc=0.45, scale=reference.sem(means))
    assert (made.low, made.high) == pytest.approx(expected)


@given(grouped)
@example(([0.0, 5e-324, 5e-324, 5e-324], ["a", "a", "a", "b"]))
def test_an_interval_holds_its_estimate_inside_the_bounds(rows: tuple[list[float], list[str]]) -> None:
    values, groups = rows
    made = stats.interval(values, groups, binary=False, bounds=SHARE)
    assert made.value is not None
    if made.low is None or made.high is None:
        assert len(set(groups)) == 1
    else:
        assert 0 <= made.low < made.high <= 1
        assert made.low - 1e-9 <= made.value <= made.high + 1e-9


@given(grouped, st.randoms(use_true_random=False))
def test_the_order_of_examples_and_the_names_of_groups_change_no_digit(
    rows: tuple[list[float], list[str]], rng: random.Random
) -> None:
    values, groups = rows
    order = list(range(len(values)))
    rng.shuffle(order)
    shuffled = stats.interval([values[i] for i in order], [groups[i] + "'" for i in order], binary=False, bounds=SHARE)
    assert shuffled == stats.interval(values, groups, binary=False, bounds=SHARE)


@given(grouped, st.floats(0.1, 50), st.floats(-20, 20))
def test_a_score_on_another_scale_gives_the_same_interval_on_that_scale(
    rows: tuple[list[float], list[str]], factor: float, shift: float
) -> None:
    values = [round(value, 3) for value in rows[0]]
    plain = stats.interval(values, rows[1], binary=False, bounds=SHARE)
    scaled = stats.interval(
        [shift + factor * value for value in values], rows[1], binary=False, bounds=(shift, shift + factor)
    )
    if plain.low is not None and plain.high is not None and plain.method == scaled.method:
        expected = [shift + factor * end for end in (plain.low, plain.high)]
        assert [scaled.low, scaled.high] == pytest.approx(expected, abs=1e-6 * (factor + abs(shift)))


@given(grouped, st.data())
def test_a_difference_changes_sign_with_its_sides(rows: tuple[list[float], list[str]], data: st.DataObject) -> None:
    ours, groups = rows
    theirs = data.draw(st.lists(st.floats(0, 1, allow_nan=False), min_size=len(ours), max_size=len(ours)))
    made = stats.difference(ours, theirs, groups, bounds=SHARE)
    mirrored = stats.difference(theirs, ours, groups, bounds=SHARE)
    assert made.value is not None and mirrored.value is not None
    assert made.value == pytest.approx(-mirrored.value, abs=1e-12)
    if made.low is not None and made.high is not None and mirrored.low is not None and mirrored.high is not None:
        assert (made.low, made.high) == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-9)
        assert -1 <= made.low < made.high <= 1


@settings(max_examples=30)
@given(st.booleans(), st.integers(2, 30))
def test_more_groups_with_the_same_answer_narrow_the_interval(binary: bool, more: int) -> None:
    widths = []
    for groups in (2, 2 + more):
        made = stats.interval([1.0] * groups, [str(i) for i in range(groups)], binary=binary, bounds=SHARE)
        assert made.low is not None
        widths.append(1 - made.low)
    assert all(wide > narrow for wide, narrow in pairwise(widths))


def _draw(rng: np.random.Generator, share: float, correlation: float, groups: int) -> tuple[list[float], list[str]]:
    """Right or wrong answers in groups of 4 to 8 that share a beta-distributed chance (intra-class correlation)."""
    values: list[float] = []
    names: list[str] = []
    for group in range(groups):
        spread = (1 - correlation) / correlation if correlation else 0
        chance = rng.beta(share * spread, (1 - share) * spread) if correlation else share
        size = int(rng.integers(4, 9))
        values += [float(right) for right in rng.random(size) < chance]
        names += [str(group)] * size
    return values, names


SHARES = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.5])
def test_intervals_cover_the_truth_on_grouped_examples(correlation: float) -> None:
    rng = np.random.default_rng(7)
    ours = theirs = total = 0
    for share in SHARES:
        for _ in range(250):
            values, groups = _draw(rng, share, correlation, 25)
            made = stats.interval(values, groups, binary=True, bounds=SHARE)
            assert made.low is not None and made.high is not None
            low, high = stats.wilson(sum(values) / len(values), len(values))
            ours += made.low <= share <= made.high
            theirs += low <= share <= high
            total += 1
    assert 0.92 <= ours / total <= 0.975, "4 standard errors of this simulation around 0.935 to 0.965"
    if correlation == 0.5:  # What would be claimed if the examples of a group were taken for independent.
        assert theirs / total < 0.75


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_intervals_of_a_difference_cover_the_truth_on_grouped_examples(correlation: float) -> None:
    rng = np.random.default_rng(8)
    covered = total = 0
    for first, second in ((0.3, 0.3), (0.5, 0.7), (0.8, 0.6)):
        for _ in range(300):
            ours, groups = _draw(rng, first, correlation, 25)
            theirs = [
                float(other)
                for group in dict.fromkeys(groups)
                for other in rng.random(groups.count(group))
                < (
                    rng.beta(second * (1 / correlation - 1), (1 - second) * (1 / correlation - 1))
                    if correlation
                    else second
                )
            ]
            made = stats.difference(ours, theirs, groups, bounds=SHARE)
            assert made.low is not None and made.high is not None
            covered += made.low <= first - second <= made.high
            total += 1
    assert 0.93 <= covered / total <= 0.975


def test_intervals_cover_the_truth_for_overlap_scores_that_pile_up_at_both_ends() -> None:
    # A share of 0, a share of 1 and the rest between, as token F1 has; the middle shifts with the group.
    rng = np.random.default_rng(9)
    covered = total = 0
    for zero, one in ((0.6, 0.1), (0.3, 0.3), (0.05, 0.8)):
        truth = one + (1 - zero - one) * 0.5
        for _ in range(400):
            values: list[float] = []
            groups: list[str] = []
            for group in range(25):
                tilt = rng.uniform(-0.04, 0.04)
                for _ in range(int(rng.integers(4, 9))):
                    kind = rng.random()
                    values.append(0.0 if kind < zero + tilt else 1.0 if kind > 1 - one + tilt else float(rng.random()))
                    groups.append(str(group))
            made = stats.interval(values, groups, binary=False, bounds=SHARE)
            assert made.low is not None and made.high is not None
            covered += made.low <= truth <= made.high
            total += 1
    assert 0.93 <= covered / total <= 0.975
