"""Uncertainty of values that are no mean over examples, such as BLEU or a class's F1: whole groups are drawn anew.

A `Corpus` is one variant's statistics on one metric, with its groups; several seeds are averaged, as everywhere. The
bootstrap draws as many groups as there are, with replacement, and has the reducer make a value of each draw; a
difference draws the same groups for both sides. The test swaps the two variants' answers on whole groups at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from harness import stats
from harness.reducers import REDUCERS, SUMS
from harness.stats import Bounds, Estimate, Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

RESAMPLES = 2_000
FEW = 30
"""Below so many groups the bootstrap's intervals are too narrow; the jackknife's with t take their place."""
_BLOCKS = 200
"""The jackknife leaves out one group at a time, or one of so many blocks of groups where there are more."""
_ROWS = 20_000_000
"""The most rows that one interval or test reads where a reducer must see them all: draws are fewer then."""
_CELLS = 2_000_000
"""The most numbers of draws that stand in memory at once."""

Row = Sequence[float]


@dataclass(frozen=True)
class Corpus:
    """One variant on one metric. `seeds[s][i]` is the row of statistics of example `i` under seed `s`; `groups` names
    each example's group."""

    reducer: str
    labels: Sequence[str]
    seeds: Sequence[Sequence[Row]]
    groups: Sequence[str]

    @cached_property
    def places(self) -> list[list[int]]:
        """The examples of each group, groups in the order of their names: the order of examples changes no draw."""
        found: dict[str, list[int]] = {}
        for place, name in enumerate(self.groups):
            found.setdefault(name, []).append(place)
        return [found[name] for name in sorted(found)]

    @cached_property
    def sums(self) -> list[tuple[Row, Numbers]] | None:
        """For each seed the leading settings and each group's sums, where the reducer needs no more than sums."""
        import numpy as np

        if self.reducer not in SUMS:
            return None
        settings = SUMS[self.reducer]
        made: list[tuple[Row, Numbers]] = []
        for rows in self.seeds:
            table = np.asarray(rows, dtype=np.float64)
            made.append((list(rows[0][:settings]), np.array([table[at, settings:].sum(axis=0) for at in self.places])))
        return made

    def value(self) -> float | None:
        return self._mean(self.each_seed())

    def each_seed(self) -> list[float | None]:
        return [self._reduced(rows) for rows in self.seeds]

    def drawn(self, counts: NDArray[np.int64]) -> list[float | None]:
        """Return the value of each row of `counts`: how often each group stands in it."""
        if self.sums is not None:
            tables = [(settings, counts @ table) for settings, table in self.sums]
            return [
                self._mean([self._of_sums(settings, table[i]) for settings, table in tables])
                for i in range(len(counts))
            ]
        return [self._mean([self._reduced(self._chosen(rows, row)) for rows in self.seeds]) for row in counts]

    def resampled(self, resamples: int, seed: int) -> list[float | None]:
        """Return the values of so many draws of as many groups as there are, with replacement; corpora of the same
        groups get the same draws. Kept, as each of many comparisons asks for them."""
        import numpy as np

        if (resamples, seed) not in self._kept:
            generator, count = np.random.default_rng(seed), len(self.places)
            made: list[float | None] = []
            step = max(1, _CELLS // count)
            for start in range(0, resamples, step):
                size = min(step, resamples - start)
                made += self.drawn(generator.multinomial(count, np.full(count, 1 / count), size=size))
            self._kept[resamples, seed] = made
        return self._kept[resamples, seed]

    @cached_property
    def _kept(self) -> dict[tuple[int, int], list[float | None]]:
        return {}

    @cached_property
    def left_out(self) -> list[float | None]:
        """The value without each group, or without each of 200 blocks of groups."""
        import numpy as np

        count = len(self.places)
        blocks = min(count, _BLOCKS)
        kept = np.ones((blocks, count), dtype=np.int64)
        kept[np.arange(count) % blocks, np.arange(count)] = 0
        return self.drawn(kept)

    def _chosen(self, rows: Sequence[Row], counts: NDArray[np.int64]) -> list[Row]:
        return [
            rows[place]
            for at, count in zip(self.places, counts.tolist(), strict=True)
            for _ in range(count)
            for place in at
        ]

    def _of_sums(self, settings: Row, sums: Numbers) -> float | None:
        return self._reduced([[*settings, *sums.tolist()]])

    def _reduced(self, rows: Sequence[Row]) -> float | None:
        return REDUCERS[self.reducer](rows, self.labels) if rows else None

    @staticmethod
    def _mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return stats.mean(known) if known else None

    @property
    def size(self) -> int:
        """Rows that one value reads."""
        return len(self.places) if self.reducer in SUMS else len(self.groups) * len(self.seeds)


def interval(corpus: Corpus, *, bounds: Bounds, seed: int = 0) -> tuple[Interval, Estimate | None]:
    """Return the value of `corpus` with its 95 % interval, and the estimate behind it (None where there is none)."""
    return _interval(corpus.value(), [corpus], bounds, seed)


def difference(ours: Corpus, theirs: Corpus, *, bounds: Bounds, seed: int = 0) -> tuple[Interval, Estimate | None]:
    """Return the difference of two values, ours - theirs, from the same draws of groups for both."""
    low, high = bounds
    limits: Bounds = (None, None) if low is None or high is None else (low - high, high - low)
    (value,) = _together([[ours.value()], [theirs.value()]])
    return _interval(value, [ours, theirs], limits, seed)


def _together(sides: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The values of the one side, or the differences of the two."""
    if len(sides) == 1:
        return list(sides[0])
    return [None if a is None or b is None else a - b for a, b in zip(*sides, strict=True)]


def _interval(
    value: float | None, sides: Sequence[Corpus], bounds: Bounds, seed: int
) -> tuple[Interval, Estimate | None]:
    """The interval of the value of one side, or of the difference of two.

    - One seed, 30 groups or more: bias-corrected and accelerated bootstrap of groups (BCa; Efron 1987, JASA 82:171),
      seeded; the acceleration is the jackknife's.
    - Fewer groups: value ± t * SE of the jackknife over groups, C - 1 degrees of freedom.
    - Several seeds: that SE, with the variation between seeds added as in `stats.estimate`.
    """
    n, count = len(sides[0].groups), len(sides[0].places)

    def none(why: str) -> tuple[Interval, None]:
        return Interval(value, None, None, n, count, f"n/a ({why})"), None

    if not n or value is None:
        return none("no examples" if not n else "no value")
    if count < 2:
        return none("one group" if n > 1 else "one example")
    without = _together([side.left_out for side in sides])
    left_out, blocks = [one for one in without if one is not None], len(without)
    if len(left_out) < blocks:
        return none("no value without some group")
    centre = stats.mean(left_out)
    squares = math.fsum((one - centre) ** 2 for one in left_out)
    if math.sqrt(squares) <= 1e-9 * max(1e-9, abs(value), *map(abs, left_out)):
        return none("no variation")
    parts = [((blocks - 1) / blocks * squares, blocks - 1)]
    parts += [_between_seeds(side) for side in sides if len(side.seeds) > 1]
    made = _estimate(value, parts, n, count)
    several = len(parts) > 1
    if several or count < FEW:
        low, high = _clip(stats.around(made), bounds)
        over = ", over seeds and examples" if several else ""
        return Interval(value, low, high, n, count, f"t of the jackknife over groups{over}"), made
    resamples = max(200, min(RESAMPLES, _ROWS // sum(side.size for side in sides)))
    ends = _bca(value, _together([side.resampled(resamples, seed) for side in sides]), left_out)
    if ends is None:
        return none("no value in some draws")
    low, high = _clip(ends, bounds)
    clustered = " of groups" if count < n else ""
    return Interval(value, low, high, n, count, f"BCa bootstrap{clustered} ({resamples:,} draws)"), made


def _clip(ends: tuple[float, float], bounds: Bounds) -> tuple[float, float]:
    low, high = bounds
    return (
        ends[0] if low is None else max(low, ends[0]),
        ends[1] if high is None else min(high, ends[1]),
    )


def _estimate(value: float, parts: Sequence[tuple[float, int]], n: int, groups: int) -> Estimate:
    total = math.fsum(part for part, _ in parts)
    degrees = total * total / math.fsum(part * part / below for part, below in parts)
    return Estimate(value, math.sqrt(total), degrees, n, groups)


def _between_seeds(side: Corpus) -> tuple[float, int]:
    values = [value for value in side.each_seed() if value is not None]
    centre = stats.mean(values)
    squares = math.fsum((value - centre) ** 2 for value in values)
    return squares / max(1, len(values) - 1) / len(values), max(1, len(values) - 1)


def _bca(value: float, found: Sequence[float | None], left_out: Sequence[float]) -> tuple[float, float] | None:
    """The ends of the BCa interval; None where more than 1 in 20 draws have no value.

        alpha' = Phi( z0 + (z0 + z) / (1 - a (z0 + z)) ),  z0 = Phi^-1(share of draws below the value),
        a = sum(d^3) / (6 sum(d^2)^1.5),  d = mean of the jackknife's values - each of them

    `scipy.stats.bootstrap(method="BCa")` is the reference.
    """
    from statistics import NormalDist

    import numpy as np

    known = np.sort(np.array([one for one in found if one is not None]))
    if len(known) < 0.95 * len(found):
        return None
    below = (np.count_nonzero(known < value) + np.count_nonzero(known <= value)) / 2 / len(known)
    normal = NormalDist()
    centre = stats.mean(left_out)
    deviations = [centre - one for one in left_out]
    squares = math.fsum(d * d for d in deviations)
    acceleration = math.fsum(d**3 for d in deviations) / (6 * squares**1.5)
    bias = normal.inv_cdf(min(max(below, 1 / (2 * len(known))), 1 - 1 / (2 * len(known))))

    def at(z: float) -> float:
        level = normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
        return float(np.quantile(known, level))

    return at(-stats.Z), at(stats.Z)


# -------------------------------------------------------------------------------------------------------- the test


def randomise(ours: Corpus, theirs: Corpus, *, seed: int = 0, family: int = 1) -> tuple[float | None, str]:
    """Return the p of approximate randomisation, and the way taken: the answers of whole groups are swapped at random.

        p = (1 + #{|ours* - theirs*| >= |ours - theirs|}) / (draws + 1)

    Noreen 1989, Computer-Intensive Methods for Testing Hypotheses; Riezler and Maxwell 2005 (W05-0908). All swaps are
    tried where they are no more than the draws. Both sides have one seed.
    """
    import numpy as np

    count = len(ours.places)
    a, b = ours.value(), theirs.value()
    if a is None or b is None or count < 2:
        return None, ""
    draws = max(1_000, 100 * family) - 1
    draws = max(199, min(draws, _ROWS // (ours.size + theirs.size)))
    if 2 ** (count - 1) <= draws + 1:
        codes = np.arange(2 ** (count - 1))
        swaps = (codes[:, None] >> np.arange(count) & 1).astype(np.int8)
    else:
        swaps = np.random.default_rng(seed).integers(0, 2, size=(draws, count), dtype=np.int8)
    pairs = zip(_mixed(ours, theirs, swaps), _mixed(theirs, ours, swaps), strict=True)
    seen = abs(a - b) - 1e-9 * max(abs(a), abs(b))
    hits = sum(one is None or other is None or abs(one - other) >= seen for one, other in pairs)
    if 2 ** (count - 1) <= draws + 1:
        return hits / len(swaps), "all swaps"
    return (1 + hits) / (draws + 1), f"{draws:,} random swaps"


def _mixed(ours: Corpus, theirs: Corpus, swaps: NDArray[np.int8]) -> list[float | None]:
    """The value of `ours` where each row of `swaps` says 1 for a group whose answers come from `theirs`."""
    if ours.sums is not None and theirs.sums is not None:
        (settings, mine), (_, other) = ours.sums[0], theirs.sums[0]
        step = max(1, _CELLS // len(ours.places))
        return [
            ours._of_sums(settings, row)
            for start in range(0, len(swaps), step)
            for row in mine.sum(axis=0) + swaps[start : start + step] @ (other - mine)
        ]
    made = []
    for swap in swaps.tolist():
        rows = list(ours.seeds[0])
        for at, swapped in zip(ours.places, swap, strict=True):
            if swapped:
                for place in at:
                    rows[place] = theirs.seeds[0][place]
        made.append(ours._reduced(rows))
    return made
