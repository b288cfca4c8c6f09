"""Margins: whether a variant is shown to be no worse than another by more than so much, or to differ by less.

"Cannot tell" is no proof that two variants are alike: with few examples nothing can be told apart. These tests turn the
question round, and hold only where the data rule out a difference as large as the margin:

- right or wrong answers, one seed: Tango's score test (1998, Stat. Med. 17:891), whose variance is that of answers that
  do differ by the margin. The t test takes the variance that was seen, which is next to none where few pairs differ: it
  was seen to claim falsely in 21 of 100 cases, not in 5 (`bench/simulations.py`). Groups count by the design effect
  that was seen (Rao and Scott 1992, Biometrics 48:577), and the least variance that a loss of the margin can have by
  that of an intra-class correlation of 1/2: few differing pairs cannot tell their own;
- other scores, several seeds, values that are no mean: t of the difference against the margin;
- variants that never differ: the rule of three over groups, so that agreeing on 20 examples proves little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness import comparisons, power, stats
from harness.comparisons import Comparison
from harness.errors import HarnessError
from harness.power import ALPHA
from harness.records import Score
from harness.stats import Estimate

SHARE = 0.02
"""How much of a metric's range counts as no worse unless something else is said: 2 points of a share."""
_CORRELATION = 0.5
_STEPS = 60


@dataclass(frozen=True, slots=True)
class Margin:
    """Whether a difference stays within a margin: `holds` is None where the data cannot say. `low` and `high` are the
    one-sided 95 % bounds of ours - theirs (the ends of its 90 % interval)."""

    margin: float
    holds: bool | None
    p: float | None
    test: str
    low: float | None
    high: float | None


def usual(about: Score | None) -> float | None:
    """Return 2 % of the metric's range, in its own unit; None for a metric whose range has no end."""
    if about is None or about.floor is None or about.ceiling is None:
        return None
    return SHARE * (about.ceiling - about.floor)


def non_inferior(comparison: Comparison, margin: float) -> Margin:
    """Whether ours is worse than theirs by less than `margin` (in the metric's unit), one-sided at alpha 0.05.

    It holds where the one-sided 95 % bound of the difference stays on the right side of the margin (CONSORT extension
    for non-inferiority: Piaggio et al. 2012, JAMA 308:2594). Raises HarnessError for a negative margin.
    """
    return _tested(comparison, margin, "non-inferiority", [1 if comparison.higher else -1])


def equivalent(comparison: Comparison, margin: float) -> Margin:
    """Whether ours and theirs differ by less than `margin` either way: two one-sided tests at alpha 0.05, p being the
    larger of the two (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657). Raises HarnessError for a negative margin.
    """
    return _tested(comparison, margin, "equivalence", [1, -1])


def families(made: Sequence[Comparison], margin: float | None) -> list[dict[str, Any]]:
    """Return `non_inferiority` and `equivalence` of each comparison as plain values, both None without a margin; p is
    adjusted by Holm over these comparisons, and `holds` goes by the adjusted one."""
    if margin is None:
        return [{"non_inferiority": None, "equivalence": None} for _ in made]
    told: list[dict[str, Any]] = [{} for _ in made]
    for name, test in (("non_inferiority", non_inferior), ("equivalence", equivalent)):
        found = [test(one, margin) for one in made]
        for row, one, p in zip(told, found, comparisons.holm([each.p for each in found]), strict=True):
            row[name] = {**asdict(one), "holds": None if p is None else p <= ALPHA, "p_adjusted": p}
    return told


def needed(comparison: Comparison, margin: float, family: int = 1) -> int | None:
    """Return the examples, in all, that would show with 80 % power that ours is no worse by more than `margin`, if the
    difference and its variation are what was seen, at alpha 0.05 shared equally by a `family`; None where ours was
    worse by as much as the margin, or where nothing is known of the variation."""
    value = comparison.difference.value
    if value is None or comparison.error is None or comparison.degrees is None:
        return None
    side = 1 if comparison.higher else -1
    room = side * value + margin
    if room <= 0:
        return None
    quantiles = stats.t_quantile(math.inf, 1 - ALPHA / max(1, family)) + stats.t_quantile(math.inf, power.POWER)
    return max(comparison.n + 1, math.ceil(comparison.n * (quantiles * _error(comparison, -side * margin) / room) ** 2))


# ------------------------------------------------------------------------------------------------------------ the tests


def _tested(comparison: Comparison, margin: float, name: str, sides: Sequence[int]) -> Margin:
    """Test the difference against each limit: side 1 is -margin, to stay above; side -1 is +margin, to stay below."""
    if not (math.isfinite(margin) and margin >= 0):
        raise HarnessError(f"a margin must be a number of at least 0, in the metric's unit, not {margin}.")
    interval, value = comparison.difference, comparison.difference.value
    if value is None or interval.low is None or interval.high is None:
        return Margin(margin, None, None, interval.method, None, None)
    inside = [side * value + margin for side in sides]  # how far the value is on the right side of each limit
    if comparison.error is None or comparison.degrees is None:
        # Nothing varied: the interval's ends are one-sided bounds by the rule of three, which can be turned round.
        low, high = interval.low, interval.high
        unseen = 1 - (1 - stats.LEVEL) ** (1 / comparison.groups)
        reaches = [(value - low if side > 0 else high - value) / unseen for side in sides]
        ps = [
            max(0.0, 1 - far / reach) ** comparison.groups if far > 0 and reach > 0 else float(far <= 0)
            for far, reach in zip(inside, reaches, strict=True)
        ]
        test = f"{name}: rule of three over groups"
    else:
        degrees, grouped = comparison.degrees, comparison.groups < comparison.n
        ps = [
            stats.t_tail(far / _error(comparison, -side * margin), degrees)
            for far, side in zip(inside, sides, strict=True)
        ]
        if comparison.binary:
            low, high = _bound(comparison, value, degrees, -1), _bound(comparison, value, degrees, 1)
            kind = "score test of paired shares" if len(sides) == 1 else "two one-sided score tests of paired shares"
        else:
            made = Estimate(value, comparison.error, degrees, comparison.n, comparison.groups)
            low, high = stats.around(made, stats.LEVEL)
            kind = "one-sided t" if len(sides) == 1 else "two one-sided t tests"
        test = f"{name}: {kind}{', clustered by group' if grouped else ''}"
    p = max(ps)
    return Margin(margin, p <= ALPHA, p, test, low, high)


def _error(comparison: Comparison, limit: float) -> float:
    """Return the standard error of the difference if it truly were `limit`; what was seen, for scores that are graded.

    Of right and wrong answers the variance is (p10 + p01 - limit^2) / n, p10 - p01 being `limit` and p01 its most
    likely value under that (Tango 1998, equation 4).
    """
    assert comparison.error is not None
    if not comparison.binary or not -1 < limit < 1:
        return comparison.error
    n = comparison.n
    # Wins are those of ours in the metric's direction; here they are where ours is the larger number.
    above, below = comparison.wins, comparison.losses
    if not comparison.higher:
        above, below = below, above
    half = -above - below + (2 * n - above + below) * limit
    p01 = (math.sqrt(max(0.0, half * half + 8 * n * below * limit * (1 - limit))) - half) / (4 * n)
    variance = (2 * p01 + limit * (1 - limit)) / n
    if comparison.groups == n:
        return math.sqrt(variance)
    share = (above - below) / n
    alone = (above + below - n * share * share) / (n * (n - 1))  # the squared error of as many independent examples
    seen = max(1.0, comparison.error**2 / alone) if alone > 0 else 1.0
    least = abs(limit) * (1 - abs(limit)) / n * (1 + (comparison.group_size - 1) * _CORRELATION)
    return math.sqrt(max(variance * seen, least))


def _bound(comparison: Comparison, value: float, degrees: float, side: int) -> float:
    """Return the one-sided 95 % bound of a difference of shares: the limit at which the score test turns, above the
    value for side 1, below it for side -1."""
    critical = stats.t_quantile(degrees, stats.LEVEL)
    near, far = value, float(side)
    for _ in range(_STEPS):
        middle = (near + far) / 2
        if abs(value - middle) < critical * _error(comparison, middle):
            near = middle
        else:
            far = middle
    return far
