"""Places on the leaderboard that the data bear out: variants that cannot be told apart share one.

All pairs of variants are tested on the same examples (`harness.comparisons`), and the p-values adjusted by Holm over
all pairs. A variant is *proven* better than another where its adjusted p is at most 0.05. Then

- `low`, the best rank that a variant may have, is 1 + the number of variants proven better than it;
- `high`, the worst, is the number of variants - the number proven worse than it;
- `place` is `low`, or that of a variant with a better value where this is higher, so that places never fall down the
  table.

No pair is wrongly told apart with a chance of at least 95 %, and then every interval of ranks from `low` to `high`
holds the true rank (Mohamad, Goeman and van Zwet 2019, arXiv 1901.00346; Klein, Wright and Wieczorek 2020, J. R. Stat.
Soc. A 183:589). "Cannot be told apart" is no chain: A may be proven better than C while B can be told from neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from harness import comparisons
from harness.comparisons import Comparison
from harness.results import Results, Variant


@dataclass(frozen=True, slots=True)
class Place:
    place: int
    low: int
    high: int


@dataclass(frozen=True)
class Places:
    """The place of each variant by name, and the comparisons of all pairs behind them with their adjusted p."""

    places: Mapping[str, Place]
    pairs: Sequence[tuple[str, str, Comparison, float | None]]


def places(results: Results, metric: str, variants: Sequence[Variant]) -> Places:
    """Return the places of `variants`, which are sorted from the best value of `metric` to the worst."""
    pairs = list(combinations(variants, 2))
    made = comparisons.pairwise(results, metric, pairs)
    adjusted = comparisons.holm([one.p for one in made])
    above = {variant.name: 0 for variant in variants}
    below = dict(above)
    told = []
    for (one, other), comparison, p in zip(pairs, made, adjusted, strict=True):
        said = comparisons.verdict(comparison, p)
        if said != "cannot tell":
            winner, loser = (one.name, other.name) if said == "better" else (other.name, one.name)
            above[loser] += 1
            below[winner] += 1
        told.append((one.name, other.name, comparison, p))
    found: dict[str, Place] = {}
    place = 1
    for variant in variants:
        low, high = 1 + above[variant.name], len(variants) - below[variant.name]
        place = max(place, low)
        found[variant.name] = Place(place, low, high)
    return Places(found, told)
