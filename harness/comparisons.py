"""Comparisons of two variants on the same examples: the difference, a test of it, and what it takes to settle it.

Which test is used when (docs/statistics.md says why):

- right or wrong, every group one example: exact McNemar;
- any other score: sign flips by group (`harness.randomisation`);
- a value that is no mean over examples (BLEU, macro-F1): approximate randomisation by group (`harness.bootstrap`);
- several seeds that differ: t with examples and seeds as sources of variation (`harness.stats.estimate`).

With one seed a comparison speaks of that seed only. Nothing is claimed where there is nothing to go by: one example,
one group, or two variants alike on every example have no p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness import bootstrap, power, randomisation, stats
from harness.bootstrap import Corpus
from harness.power import ALPHA
from harness.records import Score
from harness.results import Results, Variant
from harness.samples import Sample, effect, samples, sums, won
from harness.stats import Bounds, Estimate, Interval

Verdict = Literal["better", "worse", "cannot tell"]

_SEEDS_TEST = "paired t over seeds and examples"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is known of ours - theirs on one metric, paired by example."""

    difference: Interval
    test: str
    """The test's name, or "n/a (why)"."""
    p: float | None
    """Two-sided, of this comparison alone: `holm` adjusts for a family of them."""
    effect: str
    effect_size: float | None
    wins: int
    """Examples on which ours is better, in the metric's direction. Wins, ties and losses are 0 where no example has a
    value of its own (a corpus figure)."""
    ties: int
    losses: int
    minimum_detectable: float | None
    """The smallest true difference, in the metric's unit, that this many examples find with 80 % power at alpha 0.05,
    two-sided, if they vary as these did; None where none would be found."""
    n: int
    groups: int
    higher: bool
    error: float | None = None
    """Standard error of the difference, with `degrees` of freedom; None where nothing varied."""
    degrees: float | None = None
    binary: bool = False
    """Whether both sides are wholly right or wrong on each example, so that wins and losses are all that varies."""
    group_size: float = 1.0
    """The size of the group that an example stands in, on average: sum m^2 / sum m."""


# ------------------------------------------------------------------------------------------------------- comparing


def between(results: Results, metric: str, one: Variant, other: Variant) -> Comparison:
    """Compare two variants on `metric`, one - other, paired by example id, over their seeds."""
    return pairwise(results, metric, [(one, other)])[0]


def pairwise(
    results: Results, metric: str, pairs: Sequence[tuple[Variant, Variant]], *, seed: int = 0
) -> list[Comparison]:
    """Compare each of `pairs`, one - other, on `metric`: a family. Random tests take as many draws as Holm's adjusted
    p needs to reach 0.01, and share them among all pairs."""
    if not pairs:
        return []
    about = results.metrics[metric]
    bounds, higher = (about.floor, about.ceiling), about.direction == "higher"
    # Two sides may bear one name: variants of different experiments.
    scores = {id(one): one.scores[metric] for pair in pairs for one in pair if metric in one.scores}
    order = list(scores)
    known = [(id(one), id(other)) for one, other in pairs if id(one) in scores and id(other) in scores]
    places = [(order.index(a), order.index(b)) for a, b in known]
    if about.reducer != "mean":
        corpora = [_corpus(found, results.groups) for found in scores.values()]
        made = [
            _of_corpora(corpora[i], corpora[j], bounds=bounds, higher=higher, seed=seed, family=len(places))
            for i, j in places
        ]
    else:
        sides, groups = samples(list(scores.values()), results.groups)
        binary = bounds == (0, 1) and all(value in (0, 1) for side in sides if not side.seeds for value in side.values)
        made = _of_means(sides, places, groups, bounds=bounds, binary=binary, higher=higher, seed=seed)
    compared = dict(zip(known, made, strict=True))
    nothing = _without(Interval(None, None, None, 0, 0, "n/a (not measured)"), "not measured", higher)
    return [compared.get((id(one), id(other)), nothing) for one, other in pairs]


def compare(
    ours: Sequence[float | None],
    theirs: Sequence[float | None],
    groups: Sequence[str],
    *,
    bounds: Bounds,
    binary: bool,
    higher: bool = True,
    seed: int = 0,
) -> Comparison:
    """Compare plain numbers, one an example (None: not spoken of), seen with one seed. `groups`, `binary` and `bounds`
    as in `stats.interval`; `seed` is that of the random flips."""
    kept = [(a, b, g) for a, b, g in zip(ours, theirs, groups, strict=True) if a is not None and b is not None]
    sides = [Sample([a for a, _, _ in kept]), Sample([b for _, b, _ in kept])]
    names = [group for _, _, group in kept]
    return _of_means(sides, [(0, 1)], names, bounds=bounds, binary=binary, higher=higher, seed=seed)[0]


def _of_means(
    sides: Sequence[Sample],
    pairs: Sequence[tuple[int, int]],
    groups: Sequence[str],
    *,
    bounds: Bounds,
    binary: bool,
    higher: bool,
    seed: int,
) -> list[Comparison]:
    count, n = len(set(groups)), len(groups)
    tests: dict[tuple[int, int], tuple[str, float | None]] = {}
    flipped = []
    for pair in pairs:
        ours, theirs = sides[pair[0]], sides[pair[1]]
        if count < 2:
            why = "no examples" if not n else "one example" if n == 1 else "one group"
            tests[pair] = f"n/a ({why})", None
        elif list(ours.values) == list(theirs.values):
            tests[pair] = "n/a (equal on every example)", None
        elif binary and count == n and not ours.seeds and not theirs.seeds:
            wins, losses = won(ours, theirs, higher)
            tests[pair] = "exact McNemar", randomisation.mcnemar(wins, losses)
        elif not ours.seeds and not theirs.seeds:
            flipped.append(pair)
    if flipped:
        ps, way = randomisation.sign_flips(sums(sides, groups), flipped, family=len(pairs), seed=seed)
        name = f"sign-flip permutation{' by group' if count < n else ''} ({way})"
        tests |= {pair: (name, p) for pair, p in zip(flipped, ps, strict=True)}
    size = stats.design_effect(groups, 1.0) if n else 1.0
    made = [
        _of_pair(sides[i], sides[j], groups, tests.get((i, j)), bounds=bounds, binary=binary, higher=higher)
        for i, j in pairs
    ]
    return [replace(one, group_size=size) for one in made]


def _of_pair(
    ours: Sample,
    theirs: Sample,
    groups: Sequence[str],
    test: tuple[str, float | None] | None,
    *,
    bounds: Bounds,
    binary: bool,
    higher: bool,
) -> Comparison:
    seeds = [ours.seeds, theirs.seeds] if ours.seeds or theirs.seeds else []
    interval, made = stats.paired(ours.values, theirs.values, groups, bounds=bounds, seeds=seeds)
    if test is None:
        test = _t_test(interval, made)
    wins, losses = won(ours, theirs, higher)
    name, size = effect(ours, theirs, binary=binary and not seeds, higher=higher)
    n = len(groups)
    size = size if interval.groups > 1 else None
    if test[0] == "exact McNemar":
        share = (wins + losses) / n
        detectable = power.minimum_detectable(groups, share)
    else:
        detectable = _detectable(made, bounds)
    return Comparison(
        difference=interval,
        test=test[0],
        p=test[1],
        effect=name,
        effect_size=size,
        wins=wins,
        ties=n - wins - losses,
        losses=losses,
        minimum_detectable=detectable,
        n=n,
        groups=interval.groups,
        higher=higher,
        error=made.error if made else None,
        degrees=made.degrees if made else None,
        binary=binary and not seeds,
    )


def _t_test(interval: Interval, made: Estimate | None) -> tuple[str, float | None]:
    if made is None or interval.value is None:
        return "n/a (no variation)", None
    return _SEEDS_TEST, min(1.0, 2 * stats.t_tail(abs(interval.value) / made.error, made.degrees))


# ----------------------------------------------------------------------------------- values that are no mean


def _corpus(scores: Sequence[Score], groups: Sequence[str]) -> Corpus:
    kept = [i for i, row in enumerate(scores[0].statistics) if row is not None]
    seeds = [tuple(row for i in kept if (row := score.statistics[i]) is not None) for score in scores]
    seeds = seeds[:1] if all(rows == seeds[0] for rows in seeds) else seeds
    return Corpus(scores[0].reducer, scores[0].labels, seeds, [groups[i] for i in kept])


def _of_corpora(ours: Corpus, theirs: Corpus, *, bounds: Bounds, higher: bool, seed: int, family: int) -> Comparison:
    interval, made = bootstrap.difference(ours, theirs, bounds=bounds, seed=seed)
    if interval.groups < 2 or interval.value is None:
        return _without(interval, interval.method.removeprefix("n/a (").removesuffix(")"), higher)
    if ours.seeds == theirs.seeds:
        return _without(interval, "equal on every example", higher)
    if len(ours.seeds) > 1 or len(theirs.seeds) > 1:
        test, p = _t_test(interval, made)
    else:
        p, way = bootstrap.randomise(ours, theirs, seed=seed, family=family)
        test = f"approximate randomisation{' by group' if interval.groups < interval.n else ''} ({way})"
    return Comparison(
        difference=interval,
        test=test,
        p=p,
        effect="n/a (no value of single examples)",
        effect_size=None,
        wins=0,
        ties=0,
        losses=0,
        minimum_detectable=_detectable(made, bounds),
        n=interval.n,
        groups=interval.groups,
        higher=higher,
        error=made.error if made else None,
        degrees=made.degrees if made else None,
    )


def _without(interval: Interval, why: str, higher: bool) -> Comparison:
    test = f"n/a ({why})"
    return Comparison(interval, test, None, test, None, 0, 0, 0, None, interval.n, interval.groups, higher)


# ------------------------------------------------------------------------------------------------ what it takes


def _detectable(made: Estimate | None, bounds: Bounds) -> float | None:
    if made is None:
        return None
    found = power.multiplier(made.degrees) * made.error
    low, high = bounds
    return None if low is not None and high is not None and found > high - low else found


def needed(comparison: Comparison, p_adjusted: float | None, family: int = 1) -> int | None:
    """Return the examples, in all, that would settle a comparison of a `family` of them with 80 % power if the
    difference is what was seen, at alpha 0.05 shared equally; None where its adjusted p settles it already."""
    value, error = comparison.difference.value, comparison.error
    if value is None or error is None or (p_adjusted is not None and p_adjusted <= ALPHA):
        return None
    return power.needed(comparison.n, comparison.groups, value, error, ALPHA / max(1, family))


# -------------------------------------------------------------------------------------------------- what is said


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Return the p-values adjusted for their number, None kept (and not counted).

        adjusted p_(i) = max_{j <= i} min(1, (m - j + 1) * p_(j))

    The chance of any false alarm among all m then stays at alpha, however the tests hang together (Holm 1979, Scand.
    J. Stat. 6:65; `statsmodels.stats.multitest.multipletests(method="holm")` gives the same).
    """
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for done, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - done) * p))
        adjusted[place] = highest
    return adjusted


def verdict(comparison: Comparison, p_adjusted: float | None, alpha: float = ALPHA) -> Verdict:
    """Return what may be said of ours against theirs, in the metric's direction."""
    value = comparison.difference.value
    if not value or p_adjusted is None or p_adjusted > alpha:
        return "cannot tell"
    return "better" if (value > 0) == comparison.higher else "worse"
