"""Estimates with their uncertainty: means, 95 % intervals that respect groups, and paired differences.

Examples about one article (or one user, one paragraph) tend to be right or wrong together. Counting each as fresh
evidence gives intervals that are far too narrow, so every function takes the group of each example and measures
variation between groups; where the data has no groups, each example is its own.

With several seeds the leaderboard first averages each example over its seeds. The interval then speaks of other
examples like these, answered by these very seeds; it does not yet count the seeds as a second source of variation.

Pure functions of plain numbers. Sums are exact (`math.fsum`), so the order of examples changes no digit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_FLAT = 1e-12
"""A standard error below this share of the largest score is rounding, not variation."""

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate, its 95 % interval (None where the data cannot give one) and how the interval was made."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    groups: int
    method: str


@dataclass(frozen=True, slots=True)
class ClusteredMean:
    mean: float
    error: float
    """Standard error; NaN for a single group."""
    groups: int


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def clustered_mean(values: Sequence[float], groups: Sequence[str]) -> ClusteredMean:
    """Return the mean of `values` and its standard error robust to correlation within groups.

        SE = sqrt( C/(C-1) * sum_c ( sum_{i in c} (s_i - mean) )^2 ) / n        with C groups

    Miller, "Adding Error Bars to Evals" (arXiv 2411.00640), appendix A, with the small-sample factor C/(C-1) that
    Inspect's `stderr(cluster=...)` applies. Where each example is its own group it is sd(ddof=1)/sqrt(n).
    """
    centre = mean(values)
    residuals: dict[str, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        residuals[group].append(value - centre)
    count = len(residuals)
    if count < 2:
        return ClusteredMean(centre, math.nan, count)
    squares = math.fsum(math.fsum(group) ** 2 for group in residuals.values())
    return ClusteredMean(centre, math.sqrt(count / (count - 1) * squares) / len(values), count)


def wilson(share: float, n: float, critical: float = Z) -> tuple[float, float]:
    """Return Wilson's score interval of a `share` (0 to 1) seen in `n` independent trials.

        ( p + z^2/2n ± z * sqrt( p(1-p)/n + z^2/4n^2 ) ) / ( 1 + z^2/n )

    Wilson 1927, JASA 22:209. `n` may be an effective size and `critical` a quantile of t (Korn and Graubard 1998,
    Survey Methodology 24:193; Franco et al. 2019, J. Surv. Stat. Methodol. 7:334).
    """
    square = critical * critical / n
    centre = share + square / 2
    width = critical * math.sqrt(share * (1 - share) / n + square / n / 4)
    low, high = (centre - width) / (1 + square), (centre + width) / (1 + square)
    return (low if share > 0 else 0.0), (high if share < 1 else 1.0)


def t_quantile(degrees: int) -> float:
    """The two-sided 95 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def interval(values: Sequence[float], groups: Sequence[str], *, binary: bool, bounds: Bounds) -> Interval:
    """Return the mean of `values` with the 95 % interval that fits them.

    `groups` names each value's group; `binary` says that every value is 0 or 1 (and was seen with one seed);
    `bounds` are the smallest and largest value that a score can have, None where there is none.

    - Right or wrong, one example a group: Wilson's interval.
    - Any other score with two bounds: Wilson's interval at the effective size p(1-p)/SE^2, with the clustered SE
      and t with C-1 degrees of freedom. Of right or wrong examples it is at most n, as Korn and Graubard have it
      (Survey Methodology 24:193): that groups seem to balance out is mostly chance, and no ground to claim more
      than n independent trials would. On average over p from 0.05 to 0.95, with groups of 4 to 8 examples and
      intra-class correlations of 0 to 0.5, it covers 93 to 98 % at 10 to 60 groups and 97 to 99.7 % at 5, where
      mean ± t * SE covers 84 to 95 % and 72 to 90 %.
    - Unbounded scores: mean ± t * SE with the clustered SE, cut at the one bound there may be.
    - No variation between groups: a width of zero would be a false claim. Wilson with one trial a group where the
      score has two bounds, else none.
    - One group: none.
    """
    if not values:
        return Interval(None, None, None, 0, 0, "n/a (no examples)")
    estimate = clustered_mean(values, groups)
    centre, count, n = estimate.mean, estimate.groups, len(values)
    low, high = bounds
    if count < 2:
        return Interval(centre, None, None, n, count, "n/a (one group)" if n > 1 else "n/a (one example)")
    alone = count == n
    flat = _is_flat(estimate.error, values)
    if low is None or high is None:
        if flat:
            return Interval(centre, None, None, n, count, "n/a (no variation)")
        ends = _clip(*_t_interval(estimate), bounds)
        return Interval(centre, *ends, n, count, "t" if alone else "t, clustered by group")
    share = min(1.0, max(0.0, (centre - low) / (high - low)))
    if binary and alone:
        ends, method = wilson(share, n), "Wilson"
    elif flat or not 0 < share < 1:
        ends, method = wilson(share, count), "Wilson, one trial a group (no variation)"
    else:
        effective = share * (1 - share) / (estimate.error / (high - low)) ** 2
        if binary:  # other scores may well vary less than a proportion does
            effective = min(effective, n)
        ends = wilson(share, effective, t_quantile(count - 1))
        method = "Wilson at effective n" if alone else "Wilson at effective n, clustered by group"
    return Interval(centre, low + ends[0] * (high - low), low + ends[1] * (high - low), n, count, method)


def difference(ours: Sequence[float], theirs: Sequence[float], groups: Sequence[str], *, bounds: Bounds) -> Interval:
    """Return the mean of ours - theirs, paired example by example, with its 95 % interval.

    `bounds` are those of a single score. The interval is mean ± t * SE of the differences, clustered as in
    `clustered_mean`, cut at what a difference can be. Where no group differs from another, all that is known is that
    fewer than 1 - 0.05^(1/C) of all groups would (the exact form of the rule of three: Hanley and Lippman-Hand 1983,
    JAMA 249:1743); the interval lets those groups differ as far as the bounds permit, for groups of like size.
    """
    if not ours:
        return Interval(None, None, None, 0, 0, "n/a (no examples)")
    low, high = bounds
    reach = high - low if low is not None and high is not None else None
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    estimate = clustered_mean(differences, groups)
    centre, count, n = estimate.mean, estimate.groups, len(differences)
    if count < 2:
        return Interval(centre, None, None, n, count, "n/a (one group)" if n > 1 else "n/a (one example)")
    limits = (None, None) if reach is None else (-reach, reach)
    if not _is_flat(estimate.error, [*ours, *theirs]):
        ends = _clip(*_t_interval(estimate), limits)
        return Interval(centre, *ends, n, count, "paired t" if count == n else "paired t, clustered by group")
    if reach is None:
        return Interval(centre, None, None, n, count, "n/a (no variation)")
    unseen = 1 - (1 - LEVEL) ** (1 / count)
    ends = _clip(centre - unseen * (reach + centre), centre + unseen * (reach - centre), limits)
    return Interval(centre, *ends, n, count, "rule of three over groups (no variation)")


def _t_interval(estimate: ClusteredMean) -> tuple[float, float]:
    width = t_quantile(estimate.groups - 1) * estimate.error
    return estimate.mean - width, estimate.mean + width


def _clip(low: float, high: float, bounds: Bounds) -> tuple[float, float]:
    bottom, top = bounds
    return (low if bottom is None else max(low, bottom)), (high if top is None else min(high, top))


def _is_flat(error: float, values: Sequence[float]) -> bool:
    return error <= _FLAT * max(abs(value) for value in values)
