"""Tests of a paired difference that assume nothing but the pairing: exact McNemar and sign flips by group.

If two variants were the same, then swapping their answers on all examples of a group would change nothing but the sign
of that group's difference. Among all ways of flipping signs, the test counts those whose sum is at least as far from
zero as the sum that was seen: its p is exact for any number of groups, any scores and any correlation within groups
(Fisher 1935, The Design of Experiments, section 21; Good 2005, Permutation, Parametric and Bootstrap Tests, 3.7).

Everything here is two-sided and takes the sum of the differences of each group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

ENUMERATED = 16
"""With at most so many groups that differ, every one of the 2^C flips is tried."""
_LATTICE = 2_000_000
"""The most cells that the exact distribution of sums of whole numbers may have."""
_CHUNK = 2_000_000
_SLACK = 1e-9
"""Sums closer than this share of the largest possible one are equal but for rounding, and count as reached."""


def mcnemar(wins: int, losses: int) -> float:
    """Return the p of McNemar's exact test of `wins` against `losses` among discordant pairs.

        p = min(1, 2 * P(X <= min(wins, losses)))      X ~ Binomial(wins + losses, 1/2)

    McNemar 1947, Psychometrika 12:153; `statsmodels.stats.contingency_tables.mcnemar(exact=True)` gives the same.
    """
    from scipy.special import bdtr

    if not wins + losses:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(wins, losses), wins + losses, 0.5)))


def draws(family: int) -> int:
    """Return how many random flips are drawn for each of `family` comparisons.

    The smallest p is 1/(draws + 1); Holm multiplies it by the size of the family at most, and must reach 0.01.
    """
    return max(10_000, 200 * family) - 1


def sign_flips(
    sums: Sequence[Sequence[float]], pairs: Sequence[tuple[int, int]], *, family: int = 1, seed: int = 0
) -> tuple[list[float], str]:
    """Return the p of each pair of variants, and the way taken. `sums[v][c]` is the sum of variant `v` over group `c`;
    `family` is how many comparisons Holm will adjust for, if more than these.

    - Whole numbers (right or wrong answers): the exact distribution of all 2^C sums, by convolution.
    - At most 16 groups that differ: all 2^C flips, one by one.
    - Else `draws(family)` seeded flips, the same for every pair: p = (1 + #{|T*| >= |T|}) / (draws + 1), which
      keeps the level exactly (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39).
    """
    import numpy as np

    table = np.asarray(sums, dtype=np.float64)
    if not pairs:
        return [], "all flips"
    compared = table[sorted({place for pair in pairs for place in pair})]
    if np.all(compared == np.rint(compared)) and np.max(np.abs(compared).sum(axis=1)) <= _LATTICE / 2:
        return [_lattice(table[one] - table[other]) for one, other in pairs], "all flips"
    table = table[:, np.any(compared != compared[0], axis=0)]
    if table.shape[1] <= ENUMERATED:
        return [_enumerated(table[one] - table[other]) for one, other in pairs], "all flips"
    count = draws(max(family, len(pairs)))
    return _drawn(table, pairs, count, seed), f"{count:,} random flips"


@lru_cache(256)
def _halves(count: int) -> Numbers:
    """The chances of 0 to `count` heads among `count` tosses."""
    import numpy as np

    ways, every, chances = 1, 2**count, []
    for heads in range(count + 1):
        chances.append(ways / every)
        ways = ways * (count - heads) // (heads + 1)
    return np.array(chances)


def _lattice(row: Numbers) -> float:
    """The share of all flips whose sum of whole numbers is at least as far from zero as the one seen."""
    import numpy as np
    from scipy.signal import fftconvolve

    sizes, counts = np.unique(np.abs(row[row != 0]).astype(np.int64), return_counts=True)
    chance: Any = np.ones(1)  # of the sum of the parts that lose, in units of one
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        one = np.zeros(size * count + 1)
        one[::size] = _halves(count)
        chance = np.convolve(chance, one) if min(len(chance), len(one)) < 500 else fftconvolve(chance, one)
    total = int(np.abs(row).sum())
    reached = np.abs(total - 2 * np.arange(len(chance))) >= abs(int(row.sum()))
    least = 2.0 ** (1 - int(counts.sum()))  # what rounding may take from the share of two flips among all
    return min(1.0, max(least, math.fsum(chance[reached].tolist())))


def _enumerated(row: Numbers) -> float:
    import numpy as np

    moving = row[row != 0]
    count = len(moving)
    if not count:
        return 1.0
    # Flipping all signs changes no distance from zero: the first sign may stay.
    codes = np.arange(2 ** (count - 1))
    signs = 1.0 - 2.0 * (codes[:, None] >> np.arange(count) & 1)
    slack = _SLACK * np.abs(moving).sum()
    return float(np.mean(np.abs(signs @ moving) >= abs(moving.sum()) - slack))


def _drawn(table: Numbers, pairs: Sequence[tuple[int, int]], count: int, seed: int) -> list[float]:
    """p of each pair by `count` flips. A flip's sum for a pair is the difference of the two variants' own flipped
    sums, so that many pairs cost no more than their variants."""
    import numpy as np

    groups = table.shape[1]
    one, other = np.array([i for i, _ in pairs]), np.array([j for _, j in pairs])
    changes = [table[i] - table[j] for i, j in pairs]
    seen = np.array([abs(math.fsum(row)) - _SLACK * math.fsum(np.abs(row)) for row in changes])
    generator = np.random.default_rng(seed)
    hits = np.zeros(len(pairs), dtype=np.int64)
    step = max(8, _CHUNK // max(groups, len(pairs)))
    for start in range(0, count, step):
        size = min(step, count - start)
        bits = np.unpackbits(np.frombuffer(generator.bytes((groups * size + 7) // 8), dtype=np.uint8))
        flipped = table @ (1.0 - 2.0 * bits[: groups * size].reshape(groups, size))
        hits += np.count_nonzero(np.abs(flipped[one] - flipped[other]) >= seen[:, None], axis=1)
    return [float(hit + 1) / (count + 1) for hit in hits]
