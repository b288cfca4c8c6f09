"""The Pareto front of quality against a cost, with how sure each variant's place on it is.

A variant is on the front if no other is both cheaper and at least as good. Costs are taken as measured; quality is
known up to the examples that were drawn. So a variant counts as dominated only where the evidence says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness import comparisons, margins
from harness.comparisons import Comparison
from harness.results import Results, Variant

SEED = 20
RESAMPLES = 2000
_AT_ONCE = 4_000_000
"""Weights that are held in memory together."""

Place = Literal["front", "open", "dominated", "n/a"]

NOTE = (
    "A variant is dominated where another one costs less and is better by the adjusted paired test{margin}; it is open "
    "where only the measured values say that. Costs are held as measured."
)
SHARE = (
    f"The percentage is how sure a place on the front is: the share of {RESAMPLES:,} bootstrap resamples of the groups "
    f"(seed {SEED}) in which no cheaper variant is at least as good."
)


@dataclass(frozen=True, slots=True)
class Point:
    """One variant's place. `by` names the variant that dominates it, or seems to; `share` is that of resamples in which
    it is on the front, None where there is nothing to resample."""

    variant: str
    cost: float | None
    quality: float | None
    place: Place
    by: str | None
    share: float | None


def front(
    results: Results,
    variants: Sequence[Variant],
    costs: Mapping[str, float | None],
    paired: Mapping[tuple[str, str], tuple[Comparison, float | None]],
    margin: float | None,
) -> list[Point]:
    """Return the places of `variants`, cheapest first.

    `costs` are of one device and lower is better; `paired[one, other]` is the comparison on the primary metric with its
    adjusted p; `margin` is how much worse counts as no worse (None: only what is better dominates).
    """
    name = results.primary
    sign = 1.0 if results.metrics[name].direction == "higher" else -1.0
    known = [v for v in variants if costs.get(v.name) is not None and v.value(name) is not None]
    quality = {v.name: sign * (v.value(name) or 0.0) for v in known}
    price = {v.name: costs[v.name] or 0.0 for v in known}
    shares = _shares(results, known, price, sign)
    points = []
    for variant in variants:
        one = variant.name
        if one not in price:
            points.append(Point(one, costs.get(one), variant.value(name), "n/a", None, None))
            continue
        cheaper = sorted((n for n in price if price[n] < price[one]), key=lambda n: (-quality[n], price[n]))
        proven = next((n for n in cheaper if _no_worse(paired.get((n, one)), margin)), None)
        rivals = [n for n in cheaper if quality[n] >= quality[one]]
        rivals += [n for n in price if price[n] == price[one] and quality[n] > quality[one]]
        place: Place = "dominated" if proven else "open" if rivals else "front"
        by = proven or next(iter(rivals), None)
        points.append(Point(one, price[one], variant.value(name), place, by, shares.get(one)))
    return sorted(points, key=lambda p: (p.cost is None, p.cost or 0.0, p.variant))


def _no_worse(found: tuple[Comparison, float | None] | None, margin: float | None) -> bool:
    """Whether the first of a pair is shown to be better, or not worse by more than the margin."""
    if found is None:
        return False
    comparison, adjusted = found
    if comparisons.verdict(comparison, adjusted) == "better":
        return True
    return margin is not None and margins.non_inferior(comparison, margin).holds is True


def _shares(results: Results, variants: Sequence[Variant], price: Mapping[str, float], sign: float) -> dict[str, float]:
    """The share of resamples of whole groups in which each variant is on the front; empty where there is one group or
    the metric is no mean over examples."""
    import numpy as np

    if results.metrics[results.primary].reducer != "mean" or len(variants) < 1:
        return {}
    columns = [variant.values(results.primary) or [] for variant in variants]
    kept = [place for place, value in enumerate(columns[0]) if value is not None]
    names, place_of = np.unique(np.array([results.groups[place] for place in kept], dtype=object), return_inverse=True)
    if len(names) < 2:
        return {}
    values = np.array([[column[place] for place in kept] for column in columns], dtype=float)
    sums = np.stack([np.bincount(place_of, weights=sign * row, minlength=len(names)) for row in values])
    sizes = np.bincount(place_of, minlength=len(names)).astype(float)
    prices = np.array([price[variant.name] for variant in variants])
    cheaper = prices[:, None] < prices[None, :]  # [i, j]: i costs less than j
    alike = prices[:, None] == prices[None, :]
    draw = np.random.default_rng(SEED)
    counts, done = np.zeros(len(variants)), 0
    while done < RESAMPLES:
        size = min(RESAMPLES - done, max(1, _AT_ONCE // len(names)))
        weights = draw.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size).astype(float)
        # Rounding must not part equal scores: sums of the same numbers in another order.
        means = np.round(weights @ sums.T / (weights @ sizes)[:, None], 12)
        ahead, level = means[:, :, None] > means[:, None, :], means[:, :, None] == means[:, None, :]
        beaten = ((ahead | level) & cheaper) | (ahead & alike)
        counts += (~beaten.any(axis=1)).sum(axis=0)
        done += size
    return {variant.name: float(count / RESAMPLES) for variant, count in zip(variants, counts, strict=True)}
