from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize
from scipy import stats as reference

from harness import comparisons, margins
from harness.comparisons import Comparison
from harness.errors import HarnessError
from harness.records import Score

SHARE = (0.0, 1.0)


def right_wrong(n: int, wins: int, losses: int, size: int = 1, higher: bool = True) -> Comparison:
    """`n` examples in groups of `size`; ours alone is right on the first `wins`, theirs on the next `losses`."""
    ours = [1.0] * wins + [0.0] * losses + [1.0] * (n - wins - losses)
    theirs = [0.0] * wins + [1.0] * losses + [1.0] * (n - wins - losses)
    groups = [str(i // size) for i in range(n)]
    return comparisons.compare(ours, theirs, groups, bounds=SHARE, binary=True, higher=higher)


def likeliest_error(n: int, above: int, below: int, limit: float) -> float:
    """The standard error of the difference under p10 - p01 = limit, by maximising the likelihood with scipy."""

    def against(p01: float) -> float:
        p10 = p01 + limit
        shares = [(above, p10), (below, p01), (n - above - below, 1 - p10 - p01)]
        return -sum(count * math.log(max(p, 1e-300)) for count, p in shares if count)

    low, high = max(0.0, -limit), (1 - limit) / 2
    found = optimize.minimize_scalar(against, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    return math.sqrt((2 * found.x + limit - limit**2) / n)


# ------------------------------------------------------------------------------------------------- right and wrong


def test_the_score_test_gives_the_published_statistic() -> None:
    """Tango 1998, table 5: 44 patients, one for whom only the standard worked, a margin of a tenth: z = 1.709."""
    found = margins.non_inferior(right_wrong(44, 0, 1), 0.1)
    assert found.test == "non-inferiority: score test of paired shares"
    assert found.p == pytest.approx(reference.t.sf(1.7086, 43), abs=1e-5)


@pytest.mark.parametrize(("n", "wins", "losses"), [(44, 0, 1), (200, 12, 9), (500, 1, 0), (60, 20, 21), (80, 3, 11)])
@pytest.mark.parametrize("margin", [0.01, 0.02, 0.1, 0.3])
def test_its_variance_is_the_likeliest_where_variants_differ_by_the_margin(
    n: int, wins: int, losses: int, margin: float
) -> None:
    made = right_wrong(n, wins, losses)
    value = (wins - losses) / n
    down, up = (likeliest_error(n, wins, losses, limit) for limit in (-margin, margin))
    expected = reference.t.sf((value + margin) / down, n - 1), reference.t.sf((margin - value) / up, n - 1)
    assert margins.non_inferior(made, margin).p == pytest.approx(expected[0], rel=1e-4)
    found = margins.equivalent(made, margin)
    assert found.p == pytest.approx(max(expected), rel=1e-4)
    assert found.test == "equivalence: two one-sided score tests of paired shares"


def test_a_margin_holds_just_where_its_bound_lies_inside() -> None:
    for wins, losses, size in ((0, 1, 1), (5, 9, 1), (30, 20, 1), (8, 16, 4), (1, 3, 8)):
        made = right_wrong(400, wins, losses, size)
        low, high = (getattr(margins.equivalent(made, 0.02), end) for end in ("low", "high"))
        assert low < made.difference.value < high
        for margin in (0.005, 0.02, 0.05, 0.1):
            assert margins.non_inferior(made, margin).holds == (low >= -margin)
            assert margins.equivalent(made, margin).holds == (low >= -margin and high <= margin)


def test_one_lost_example_of_200_is_no_proof_that_fewer_than_two_of_100_are_lost() -> None:
    """The t test would have it so: its variance of one differing pair is next to none."""
    assert margins.non_inferior(right_wrong(200, 0, 1), 0.02).holds is False
    assert margins.non_inferior(right_wrong(500, 0, 1), 0.02).holds is True


def test_groups_count_for_less_than_their_examples() -> None:
    alone, grouped = right_wrong(800, 40, 40), right_wrong(800, 40, 40, size=8)
    found = margins.non_inferior(grouped, 0.05)
    assert found.test == "non-inferiority: score test of paired shares, clustered by group"
    assert found.p is not None and found.p > (margins.non_inferior(alone, 0.05).p or 0)
    # Eight examples of one group are one piece of evidence, however few groups differ.
    assert (margins.non_inferior(right_wrong(400, 0, 8, 8), 0.05).p or 0) > 5 * (
        margins.non_inferior(right_wrong(400, 0, 8), 0.05).p or 1
    )


def test_where_lower_is_better_worse_is_more() -> None:
    made = right_wrong(300, 9, 4)
    turned = comparisons.compare(
        [1.0] * 4 + [0.0] * 9 + [1.0] * 287, [0.0] * 4 + [1.0] * 9 + [1.0] * 287, [str(i) for i in range(300)],
        bounds=SHARE, binary=True, higher=False,
    )  # fmt: skip
    assert (turned.wins, turned.losses) == (9, 4)
    assert margins.non_inferior(turned, 0.03).p == pytest.approx(margins.non_inferior(made, 0.03).p)
    assert margins.needed(turned, 0.03) == margins.needed(made, 0.03)


def test_false_claims_of_non_inferiority_stay_near_one_in_twenty() -> None:
    """Variants that lose exactly the margin: all of it on examples that only the other one gets right."""
    for n in (150, 250, 300, 500):
        losses = np.arange(0, 40)
        claimed = [bool(margins.non_inferior(right_wrong(n, 0, int(k)), 0.02).holds) for k in losses]
        assert reference.binom.pmf(losses, n, 0.02)[claimed].sum() <= 0.055


# --------------------------------------------------------------------------------------------------- other scores


def test_non_inferiority_is_the_shifted_one_sided_t_test() -> None:
    generator = np.random.default_rng(4)
    ours, theirs = generator.normal(0, 1, 40), generator.normal(0, 1, 40)
    made = comparisons.compare(
        ours.tolist(), theirs.tolist(), [str(i) for i in range(40)], bounds=(None, None), binary=False
    )
    for margin in (0.0, 0.2, 0.8):
        found = margins.non_inferior(made, margin)
        expected = reference.ttest_1samp(ours - theirs, -margin, alternative="greater")
        assert found.p == pytest.approx(expected.pvalue)
        assert found.holds == (expected.pvalue <= 0.05)
        assert found.low is not None and found.holds == (found.low >= -margin)
        assert found.test == "non-inferiority: one-sided t"
        lower = margins.non_inferior(replace(made, higher=False), margin)
        assert lower.p == pytest.approx(reference.ttest_1samp(ours - theirs, margin, alternative="less").pvalue)


def test_equivalence_is_two_one_sided_t_tests() -> None:
    from statsmodels.stats.weightstats import ttost_paired

    generator = np.random.default_rng(5)
    ours = generator.normal(0, 1, 60)
    theirs = ours + generator.normal(0.05, 0.3, 60)
    made = comparisons.compare(
        ours.tolist(), theirs.tolist(), [str(i) for i in range(60)], bounds=(None, None), binary=False
    )
    for margin in (0.02, 0.12, 0.3):
        found = margins.equivalent(made, margin)
        assert found.p == pytest.approx(ttost_paired(ours, theirs, -margin, margin)[0])
        assert found.low is not None and found.high is not None
        assert found.holds == (-margin <= found.low and found.high <= margin)


def test_variants_that_agree_everywhere_are_equivalent_only_where_there_are_examples_enough() -> None:
    few = comparisons.compare([1.0] * 20, [1.0] * 20, [str(i) for i in range(20)], bounds=SHARE, binary=True)
    many = comparisons.compare([1.0] * 400, [1.0] * 400, [str(i) for i in range(400)], bounds=SHARE, binary=True)
    assert margins.equivalent(few, 0.02).holds is False
    found = margins.equivalent(many, 0.02)
    assert found.holds and found.p == pytest.approx(0.98**400)


@pytest.mark.parametrize("margin", [-0.1, math.nan, math.inf])
def test_a_margin_must_be_a_number_that_is_not_negative(margin: float) -> None:
    with pytest.raises(HarnessError, match="a margin must be a number of at least 0"):
        margins.non_inferior(right_wrong(20, 3, 2), margin)


# ------------------------------------------------------------------------------------------- families and numbers


def test_many_claims_are_adjusted_together() -> None:
    made = [right_wrong(500, 0, k) for k in (1, 4, 5)]
    alone = [margins.non_inferior(one, 0.02).p or 0.0 for one in made]
    told = margins.families(made, 0.02)
    adjusted = [row["non_inferiority"]["p_adjusted"] for row in told]
    assert adjusted == comparisons.holm(alone) and adjusted[0] == pytest.approx(3 * alone[0])
    for row in told:
        for found in row.values():
            assert found["holds"] == (found["p_adjusted"] <= 0.05)
    assert margins.families(made, None) == [{"non_inferiority": None, "equivalence": None}] * 3


def test_the_usual_margin_is_two_hundredths_of_the_range() -> None:
    about = Score(
        name="m", signature="m", direction="higher", unit="points", floor=0, ceiling=100, reducer="mean", ids=(),
        statistics=(),
    )  # fmt: skip
    assert margins.usual(about) == 2 and margins.usual(replace(about, floor=0.0, ceiling=1.0)) == 0.02
    assert margins.usual(replace(about, ceiling=None)) is None and margins.usual(None) is None


def test_the_examples_that_are_needed_show_it_in_four_of_five_cases() -> None:
    made = right_wrong(200, 10, 10)
    n = margins.needed(made, 0.02)
    assert n is not None and n > 200
    generator = np.random.default_rng(7)
    drawn = generator.multinomial(n, [0.05, 0.05, 0.9], size=300)
    shown = [margins.non_inferior(right_wrong(n, int(w), int(x)), 0.02).holds for w, x, _ in drawn]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.08)
    assert (margins.needed(made, 0.02, family=5) or 0) > n
    assert margins.needed(right_wrong(200, 0, 10), 0.02) is None, "it was worse by more than the margin"
    assert margins.needed(right_wrong(200, 0, 0), 0.02) is None, "nothing is known of the variation"
