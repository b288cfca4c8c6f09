"""Estimates with their uncertainty: means, 95 % intervals that respect groups, and paired differences.

Examples about one article (or one user, one paragraph) tend to be right or wrong together. Counting each as fresh
evidence gives intervals that are far too narrow, so every function takes the group of each example and measures
variation between groups; where the data has no groups, each example is its own.

With one seed an estimate speaks of other examples like these, answered by this very seed. With several, each example
is averaged over its seeds, and the variation between seeds is added to that between groups (`estimate`).

Pure functions of plain numbers. Sums are exact (`math.fsum`), so the order of examples changes no digit.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

LEVEL = 0.95
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_FLAT = 1e-12
"""A standard error, or a difference, below this share of the largest score is rounding, not variation."""
_LOOSER = 1.5
"""Degrees of freedom of bounded scores, in C - 1; and `_MOST`, the most that groups may seem to balance out: chosen by
simulated coverage (`bench/simulations.py`)."""
_MOST = 4.0

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
class Estimate:
    """A mean with its standard error (NaN for a single group) and the degrees of freedom of its t."""

    value: float
    error: float
    degrees: float
    n: int
    groups: int


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
    return (max(low, 0.0) if share > 0 else 0.0), (min(high, 1.0) if share < 1 else 1.0)  # rounding may lead outside


def design_effect(groups: Sequence[str], correlation: float) -> float:
    """Return how many times larger the variance of a mean is than that of as many independent examples.

        1 + (sum m^2 / sum m - 1) * correlation        m: examples of each group

    Kish 1965, Survey Sampling, section 5.4; with groups of one size m it is 1 + (m - 1) * correlation.
    """
    sizes = Counter(groups).values()
    return 1 + (sum(size * size for size in sizes) / sum(sizes) - 1) * correlation


def estimate(values: Sequence[float], groups: Sequence[str], seeds: Sequence[Sequence[float]] = ()) -> Estimate:
    """Return the mean of `values`, each averaged over its seeds, with examples and seeds as sources of variation.

    `seeds` holds, for each side of a difference (or for the one side of a mean), the mean of all examples under each
    seed; a side of one seed adds nothing, as how seeds vary cannot be known from it.

        SE^2 = SE_groups^2 + sum over sides of var(means of the seeds, ddof=1) / number of seeds

    `SE_groups` is that of `clustered_mean`. Degrees of freedom are Satterthwaite's (1946, Biometrics Bulletin 2:110),
    sum(V)^2 / sum(V_k^2 / df_k), from C - 1 for groups and S - 1 for the seeds of a side. What varies with both the
    seed and the example is counted in both parts, so that the error is rather too large than too small (Owen and
    Eckles 2012, Ann. Appl. Stat. 6:895, show the same of the bootstrap over two factors).
    """
    clustered = clustered_mean(values, groups)
    if math.isnan(clustered.error):
        return Estimate(clustered.mean, math.nan, 0, len(values), clustered.groups)
    parts = [(clustered.error**2, clustered.groups - 1)]
    for means in seeds:
        if len(means) > 1:
            centre = mean(means)
            squares = math.fsum((value - centre) ** 2 for value in means)
            parts.append((squares / (len(means) - 1) / len(means), len(means) - 1))
    total = math.fsum(part for part, _ in parts)
    below = math.fsum(part * part / degrees for part, degrees in parts)
    degrees = total * total / below if below > 0 else clustered.groups - 1
    return Estimate(clustered.mean, math.sqrt(total), degrees, len(values), clustered.groups)


def t_quantile(degrees: float, share: float = (1 + LEVEL) / 2) -> float:
    """A quantile of Student's t; as it stands, the one of a two-sided 95 % interval."""
    if math.isinf(degrees):
        return NormalDist().inv_cdf(share)
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def t_tail(t: float, degrees: float) -> float:
    """The chance that Student's t exceeds `t`."""
    from scipy.special import stdtr

    return float(stdtr(degrees, -t))


def interval(
    values: Sequence[float], groups: Sequence[str], *, binary: bool, bounds: Bounds, seeds: Sequence[float] = ()
) -> Interval:
    """Return the mean of `values` with the 95 % interval that fits them.

    `groups` names each value's group; `binary` says that every value is 0 or 1 (and was seen with one seed);
    `bounds` are the smallest and largest value that a score can have, None where there is none; `seeds` are the means
    of all examples under each seed, where there are several.

    - Right or wrong, one example a group: Wilson's interval.
    - Any other score with two bounds: Wilson's interval at the effective size p(1-p)/SE^2 * (z/t)^2, with the SE of
      `estimate` and Student's t, as Korn and Graubard have it (1998, Survey Methodology 24:193). The variance of such
      a score is known but for what its groups do to it, so t has 1.5 (C-1) degrees of freedom: that, and no fewer, is
      what covers 95 %. The effective size is at most four times that of independent examples, as groups that seem to
      balance out mostly do so by chance. docs/statistics.md holds the coverage; mean ± t * SE covers 70 to 90 % where
      there are few groups.
    - Unbounded scores: mean ± t * SE, C-1 degrees of freedom, cut at the one bound there may be.
    - No variation between groups: a width of zero would be a false claim. Wilson with the trials that these groups
      are worth at an intra-class correlation of 1/2 where the score has two bounds, else none.
    - One group: none.
    """
    if not values:
        return Interval(None, None, None, 0, 0, "n/a (no examples)")
    made = estimate(values, groups, [seeds])
    centre, count, n = made.value, made.groups, made.n
    low, high = bounds
    if count < 2:
        return Interval(centre, None, None, n, count, "n/a (one group)" if n > 1 else "n/a (one example)")
    alone = count == n
    flat = _is_flat(made.error, values)
    if low is None or high is None:
        if flat:
            return Interval(centre, None, None, n, count, "n/a (no variation)")
        ends = _clip(*around(made), bounds)
        return Interval(centre, *ends, n, count, _named("t", made, seeds))
    share = min(1.0, max(0.0, (centre - low) / (high - low)))
    if binary and alone and not seeds:
        ends, method = wilson(share, n), "Wilson"
    elif flat or not 0 < share < 1:
        ends, method = wilson(share, n / design_effect(groups, 0.5)), "Wilson at design effect (no variation)"
    else:
        degrees = made.degrees if seeds else _LOOSER * made.degrees
        effective = _effective(share, made.error / (high - low), degrees)
        if not alone:
            independent = estimate(values, [str(i) for i in range(n)])
            most = _effective(share, independent.error / (high - low), math.inf if binary else n - 1)
            effective = min(effective, _MOST * most)
        ends, method = wilson(share, effective), _named("Wilson at effective n", made, seeds)
    return Interval(centre, low + ends[0] * (high - low), low + ends[1] * (high - low), n, count, method)


def difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    groups: Sequence[str],
    *,
    bounds: Bounds,
    seeds: Sequence[Sequence[float]] = (),
) -> Interval:
    """Return the mean of ours - theirs, paired example by example, with its 95 % interval.

    `bounds` are those of a single score; `seeds` as in `estimate`, one list for each side. The interval is mean ± t *
    SE of the differences, cut at what a difference can be. Where no group differs from another, all that is known is
    that fewer than 1 - 0.05^(1/C) of all groups would (the exact form of the rule of three: Hanley and Lippman-Hand
    1983, JAMA 249:1743); the interval lets those groups differ as far as the bounds permit, for groups of like size.
    """
    return paired(ours, theirs, groups, bounds=bounds, seeds=seeds)[0]


def paired(
    ours: Sequence[float],
    theirs: Sequence[float],
    groups: Sequence[str],
    *,
    bounds: Bounds,
    seeds: Sequence[Sequence[float]] = (),
) -> tuple[Interval, Estimate | None]:
    """Return what `difference` does, and the estimate behind it: None where nothing varies."""
    if not ours:
        return Interval(None, None, None, 0, 0, "n/a (no examples)"), None
    low, high = bounds
    reach = high - low if low is not None and high is not None else None
    made = estimate([a - b for a, b in zip(ours, theirs, strict=True)], groups, seeds)
    rounding = _FLAT * max(map(abs, (*ours, *theirs)))
    if abs(made.value) <= rounding:
        made = replace(made, value=0.0)  # thirds of three seeds do not sum to zero
    centre, count, n = made.value, made.groups, made.n
    if count < 2:
        return Interval(centre, None, None, n, count, "n/a (one group)" if n > 1 else "n/a (one example)"), None
    limits = (None, None) if reach is None else (-reach, reach)
    if made.error > rounding:
        return Interval(centre, *_clip(*around(made), limits), n, count, _named("paired t", made, seeds)), made
    if reach is None:
        return Interval(centre, None, None, n, count, "n/a (no variation)"), None
    unseen = 1 - (1 - LEVEL) ** (1 / count)
    ends = _clip(centre - unseen * (reach + centre), centre + unseen * (reach - centre), limits)
    return Interval(centre, *ends, n, count, "rule of three over groups (no variation)"), None


def around(made: Estimate, share: float = (1 + LEVEL) / 2) -> tuple[float, float]:
    """Return value ± t * error, t being the quantile of `share`."""
    width = t_quantile(made.degrees, share) * made.error
    return made.value - width, made.value + width


def _named(method: str, made: Estimate, seeds: Sequence[object]) -> str:
    clustered = "" if made.groups == made.n else ", clustered by group"
    return f"{method}{clustered}{', over seeds and examples' if seeds else ''}"


def _effective(share: float, error: float, degrees: float) -> float:
    return share * (1 - share) / error**2 * (Z / t_quantile(degrees)) ** 2


def _clip(low: float, high: float, bounds: Bounds) -> tuple[float, float]:
    bottom, top = bounds
    return (low if bottom is None else max(low, bottom)), (high if top is None else min(high, top))


def _is_flat(error: float, values: Sequence[float]) -> bool:
    return error <= _FLAT * max(abs(value) for value in values)
