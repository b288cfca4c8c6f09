"""Which variant to ship: why, how sure that is, what it costs, what the others failed, what would change the answer.

`build` makes the decision from the store alone, as JSON-able values; `harness.advice` says it in sentences. The rule:

1. A variant must have completed with all its seeds and meet every constraint by its measured values. Where an interval
   reaches over a bound, the measured value decides and the decision says that it cannot be sure.
2. Of those, take the one with the best value of the primary metric.
3. Every pair of complete variants is compared on it, and Holm's method adjusts all these tests together: the best one
   is picked after the fact, so it could have been any. A variant that the adjusted test cannot tell from the best one
   is tied with it. That a difference was not shown does not make it small, so a tied variant is as good only where it
   scored the same, or is shown to be worse by less than 2 % of the metric's range (non-inferior, Holm over all that
   meet the constraints). A variant that is told apart from the best one is worse, however little: cost never outweighs
   a difference that was shown. Where that is shown to be a small one, the decision says so.
4. Of the best one and those as good ship the cheapest per answer where `[cost]` has prices (costs within 10 % of the
   lowest count as equal: time is measured once), then the one with the fewest moving parts, then the better one.
5. Where others are tied with the best one and none is as good, it is shipped as the best guess, and the decision says
   that the evidence is not enough, and how many more examples would settle it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from harness import comparisons, heldout_use, limits, margins, money, pareto, results
from harness.comparisons import Comparison
from harness.errors import UsageError
from harness.limits import Judged
from harness.measures import Measure, Measures
from harness.money import Spending
from harness.power import ALPHA
from harness.results import Results, Variant
from harness.store import Snapshot, Store
from harness.terms import Known, Scale, Terms, faults
from harness.terms import of as terms_of

SAME_COST = 1.1
"""Costs up to this many times the lowest count as equal."""

Pairs = Mapping[tuple[str, str], tuple[Comparison, float | None]]


@dataclass(frozen=True)
class Case:
    """All that a decision, or a gate, is made from."""

    results: Results
    store: Store
    terms: Terms
    known: Known
    measures: Measures
    spent: Mapping[str, Spending]
    judged: Mapping[str, Sequence[Judged]]

    @cached_property
    def compared(self) -> tuple[Pairs, int]:
        """Every pair of complete variants with its adjusted p, and how many of them were adjusted together."""
        return _compared(self.results, self.complete)

    @property
    def pairs(self) -> Pairs:
        return self.compared[0]

    @property
    def family(self) -> int:
        return self.compared[1]

    @property
    def complete(self) -> list[Variant]:
        """The variants that can be decided on, the best value of the primary metric first."""
        name, metrics = self.results.primary, self.results.metrics
        sign = -1.0 if name in metrics and metrics[name].direction == "higher" else 1.0
        found = [(v.value(name), v) for v in self.results.variants if v.name in self.judged]
        return [v for value, v in sorted(found, key=lambda pair: sign * (pair[0] or 0.0)) if value is not None]

    def meets(self, variant: Variant) -> bool:
        return all(judged.status == "met" for judged in self.judged[variant.name])

    def parts(self, variant: Variant) -> int:
        return _parts(variant, self.results.snapshot.spec)

    @property
    def warnings(self) -> list[str]:
        """What was allowed or noticed of the data, and how often the held-out set was used."""
        snapshot = self.results.snapshot
        use = heldout_use.of(self.store, snapshot.name, self.results.fingerprint, snapshot.number).note
        return [*self.results.data_notes, *([use] if use else [])]

    def priced(self, variants: Sequence[Variant]) -> bool:
        """Whether all of `variants` have a cost of an answer in money, and these can be ranked."""
        return (
            self.terms.prices.any
            and money.comparable([self.spent[variant.name] for variant in variants])
            and all(self.each(variant) is not None for variant in variants)
        )

    def each(self, variant: Variant) -> float | None:
        return money.each(self.spent[variant.name], self.terms.prices)


def build(snapshot: Snapshot, store: Store, terms: Terms | None = None) -> dict[str, Any]:
    """Return the decision on `snapshot`, under its own terms or under `terms`.

    Raises HarnessError where its runs cannot be compared, UsageError where the terms do not fit what was measured.
    """
    return of(case(snapshot, store, terms))


def case(snapshot: Snapshot, store: Store, terms: Terms | None = None) -> Case:
    """Read, compare and judge all that a decision needs."""
    terms = terms_of(snapshot.spec) if terms is None else terms
    found = results.read(snapshot, store)
    known = _known(found)
    if wrong := list(faults(terms, known)):
        raise UsageError("\n".join(f"{'.'.join(map(str, place))}: {message}" for place, message in wrong))
    spent = money.spending(found, store, terms.prices)
    measures = Measures(found, store, spent, terms.prices.currency)
    complete = [v for v in found.variants if v.status == "complete" and v.value(found.primary) is not None]
    judged = {v.name: limits.judge(v, snapshot.spec, terms.constraints, known, measures) for v in complete}
    return Case(found, store, terms, known, measures, spent, judged)


def of(one: Case) -> dict[str, Any]:
    """Return the decision as JSON-able values."""
    found, complete, chosen = one.results, one.complete, choose(one)
    shipped, best = chosen.shipped, chosen.best
    settles = {v.name: _settled_by(one, best, v) for v in chosen.tied if best is not None}
    return {
        "experiment": found.snapshot.name,
        "snapshot": found.snapshot.number,
        "question": str(found.snapshot.spec.get("question", "")),
        "heldout": {"n": len(found.examples), "groups": len(set(found.groups)) if found.grouped else None},
        "primary": _about(found),
        "baseline": found.baseline,
        "terms": {
            "cost": one.terms.prices.model_dump(mode="json"),
            "constraints": one.terms.constraints.model_dump(mode="json"),
        },
        "recommended": shipped.name if shipped else None,
        "reason": chosen.why,
        "fit_for_use": _fit(one),
        "best": best.name if best else None,
        "tied": [variant.name for variant in chosen.tied],
        "as_good": [variant.name for variant in chosen.as_good],
        "margin": _margin(one),
        "ranked_by": "cost" if best and one.priced([best, *(chosen.as_good or chosen.tied)]) else "parts",
        "examples_to_settle": settles,
        "examples_to_accept": {v.name: _accepted_by(one, chosen, v) for v in chosen.tied},
        "variants": [_row(one, variant, chosen) for variant in _ordered(one)],
        "comparisons": {
            "alpha": ALPHA,
            "family": one.family,
            "adjustment": "Holm",
            "pairs": [_pair(one, a, b) for a, b in itertools.combinations([v.name for v in complete], 2)],
        },
        "nearest": _nearest(one),
        "break_even": _break_even(one),
        "fronts": _fronts(one),
        "notes": _notes(one),
    }


@dataclass(frozen=True)
class Chosen:
    """The variant to ship (None where there is none) and why; the best by its measured value; those that cannot be told
    from it; of these, those that are as good. `near` says of each other that meets the constraints whether it is no
    worse than the best one by more than the margin, None without a margin."""

    shipped: Variant | None
    why: str
    best: Variant | None = None
    tied: Sequence[Variant] = ()
    as_good: Sequence[Variant] = ()
    near: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)


def choose(one: Case) -> Chosen:
    complete = one.complete
    eligible = [variant for variant in complete if one.meets(variant)]
    if not complete:
        return Chosen(None, "nothing completed")
    if not eligible:
        return Chosen(None, "no variant meets every constraint")
    best, *others = eligible
    tied = [other for other in others if _verdict(one.pairs, best.name, other.name) == "cannot tell"]
    if not others:
        return Chosen(best, "the only one that completed" if len(complete) == 1 else "the only one left", best)
    compared = {other.name: one.pairs[other.name, best.name][0] for other in others}
    shown = margins.families(list(compared.values()), _margin(one))
    near = {name: told["non_inferiority"] for name, told in zip(compared, shown, strict=True)}
    if not tied:
        return Chosen(best, "the best", best, near=near)
    good = [other for other in tied if compared[other.name].difference.value == 0 or holds(near[other.name])]
    if not good:
        return Chosen(best, "the best so far", best, tied, near=near)
    shipped, why = _cheapest(one, [best, *good])
    return Chosen(shipped, why, best, tied, good, near)


def holds(shown: Mapping[str, Any] | None) -> bool:
    """Whether a margin is shown to be kept."""
    return shown is not None and shown["holds"] is True


def _cheapest(one: Case, candidates: Sequence[Variant]) -> tuple[Variant, str]:
    """Return the cheapest of `candidates` where all have a price, else the simplest, and which of it was decisive."""
    if one.priced(candidates):
        costs = [one.each(variant) or 0.0 for variant in candidates]
        cheap = [v for v, cost in zip(candidates, costs, strict=True) if cost <= SAME_COST * min(costs)]
        return min(cheap, key=one.parts), "the cheapest" if len(cheap) == 1 else "the simplest of the cheapest"
    return min(candidates, key=one.parts), "the simplest"


def _margin(one: Case) -> float | None:
    """How much worse counts as no worse, in the metric's unit; None for a metric whose range has no end."""
    return margins.usual(one.results.metrics.get(one.results.primary))


# -------------------------------------------------------------------------------------------------- what is compared


def _known(found: Results) -> Known:
    spec = found.snapshot.spec
    kinds = {str(table["name"]): str(table.get("kind", "")) for table in spec.get("metrics") or ()}
    metrics = {name: Scale(kind) for name, kind in kinds.items()}
    for name, score in found.metrics.items():
        metrics[name] = Scale(kinds.get(name, ""), score.direction, score.floor, score.ceiling)
    latency = (spec.get("latency") or {}).get("examples", 1) != 0
    return Known(metrics, found.primary, [variant.name for variant in found.variants], latency=latency)


def _compared(found: Results, variants: Sequence[Variant]) -> tuple[Pairs, int]:
    """Compare every pair on the primary metric, both ways round, with p adjusted over all pairs."""
    couples = list(itertools.combinations(variants, 2))
    made = comparisons.pairwise(found, found.primary, couples) if couples else []
    adjusted = comparisons.holm([comparison.p for comparison in made])
    pairs = {}
    for (one, other), comparison, p in zip(couples, made, adjusted, strict=True):
        pairs[one.name, other.name] = comparison, p
        pairs[other.name, one.name] = _turned(comparison), p
    return pairs, sum(p is not None for p in adjusted)


def _turned(comparison: Comparison) -> Comparison:
    """The same comparison, seen from the other side."""

    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    seen = comparison.difference
    return replace(
        comparison,
        difference=replace(seen, value=minus(seen.value), low=minus(seen.high), high=minus(seen.low)),
        effect="n/a (seen from the other side)",
        effect_size=None,
        wins=comparison.losses,
        losses=comparison.wins,
    )


def _verdict(pairs: Pairs, one: str, other: str) -> comparisons.Verdict:
    comparison, adjusted = pairs[one, other]
    return comparisons.verdict(comparison, adjusted)


def _settled_by(one: Case, best: Variant, other: Variant) -> int | None:
    """Examples, in all, that would tell `other` from `best` with 80 % power in this family, if they differ as seen."""
    comparison, adjusted = one.pairs[best.name, other.name]
    return comparisons.needed(comparison, adjusted, max(1, one.family))


def _accepted_by(one: Case, chosen: Chosen, other: Variant) -> int | None:
    """Examples, in all, that would show `other` to be as good as the best one with 80 % power, if it does as seen."""
    margin = _margin(one)
    if margin is None or chosen.best is None or other in chosen.as_good:
        return None
    return margins.needed(one.pairs[other.name, chosen.best.name][0], margin, len(chosen.near))


def _parts(variant: Variant, spec: Mapping[str, Any]) -> int:
    """How many things beside the bare model must be kept running or made again: shots or another prompt method,
    retrieval, each training stage, an adapter from elsewhere, tools."""
    table = next((table for table in spec.get("variants") or () if table.get("name") == variant.name), None)
    if table is None:
        return {"prompting": 0, "RAG": 1, "fine-tuning": 1, "hybrid": 2}[variant.runs[0].family]
    shots = (table.get("prompt") or {}).get("kind", "zero-shot") != "zero-shot"
    single = sum(map(bool, (shots, table.get("retrieve"), table.get("adapter"))))
    return single + len(table.get("train") or ()) + len(table.get("tools") or ())


# ------------------------------------------------------------------------------------------------------ what is shown


def _about(found: Results) -> dict[str, Any]:
    score = found.metrics.get(found.primary)
    shown = {"name": found.primary, "unit": "share", "direction": "higher", "floor": None, "ceiling": None}
    return shown if score is None else {key: getattr(score, key) for key in shown}


def _ordered(one: Case) -> list[Variant]:
    """Complete variants, the best first, then the others."""
    complete = one.complete
    names = {variant.name for variant in complete}
    return complete + [variant for variant in one.results.variants if variant.name not in names]


def _row(one: Case, variant: Variant, chosen: Chosen) -> dict[str, Any]:
    shipped = chosen.shipped
    judged = one.judged.get(variant.name)
    spent = one.spent.get(variant.name)
    quality = one.measures.of(variant, one.results.primary)
    against = None
    if judged is not None and shipped is not None and shipped.name != variant.name:
        against = _pair(one, shipped.name, variant.name)
    return {
        "variant": variant.name,
        "family": variant.runs[0].family,
        "status": variant.status,
        "error": variant.error,
        "quality": _figure(quality),
        "meets": None if judged is None else one.meets(variant),
        "constraints": [asdict(item) for item in judged or ()],
        "cost": asdict(spent) if spent else None,
        "latency": {name: _figure(one.measures.of(variant, name)) for name in ("latency_p50_ms", "latency_p95_ms")},
        "memory_gib": one.measures.of(variant, "memory_gib").value,
        "errors": one.measures.of(variant, "errors").value,
        "parts": one.parts(variant),
        "recommended_against": against,
        "non_inferior_to_best": chosen.near.get(variant.name),
    }


def _figure(measure: Measure) -> dict[str, Any]:
    return {"value": measure.value, "ci_low": measure.low, "ci_high": measure.high, "method": measure.method}


def _pair(one: Case, first: str, second: str) -> dict[str, Any]:
    """`first` against `second` as plain values."""
    comparison, adjusted = one.pairs[first, second]
    seen = comparison.difference
    return {
        "one": first,
        "other": second,
        "difference": seen.value,
        "ci_low": seen.low,
        "ci_high": seen.high,
        "method": seen.method,
        "test": comparison.test,
        "p": comparison.p,
        "p_adjusted": adjusted,
        "verdict": comparisons.verdict(comparison, adjusted),
        "wins": comparison.wins,
        "ties": comparison.ties,
        "losses": comparison.losses,
        "minimum_detectable": comparison.minimum_detectable,
    }


def _nearest(one: Case) -> str | None:
    """Where no variant meets every constraint: the one whose worst miss is the smallest, as a share of the bound; what
    is no number (an outside service, citing that was not measured) counts as a miss by the whole bound."""
    complete = one.complete
    if not complete or any(map(one.meets, complete)):
        return None

    def worst(variant: Variant) -> tuple[float, float]:
        misses = [judged.distance for judged in one.judged[variant.name]]
        return max(misses), math.fsum(misses)

    return min(complete, key=worst).name


def _break_even(one: Case) -> list[dict[str, Any]]:
    """Each variant that costs something once, against each other one."""
    spent = [one.spent[variant.name] for variant in one.complete]
    asked = ((a, b) for a, b in itertools.permutations(spent, 2) if money.once(a, one.terms.prices))
    return [asdict(money.break_even(a, b, one.terms.prices)) for a, b in asked]


def _fronts(one: Case) -> list[dict[str, Any]]:
    """The Pareto fronts, none where costs come from different devices."""
    complete = one.complete
    if not complete or not money.comparable([one.spent[variant.name] for variant in complete]):
        return []
    margin = _margin(one)
    answers = (
        ("cost_per_1000_answers", one.terms.prices.currency)
        if one.terms.prices.any
        else ("seconds_per_1000_answers", "s")
    )
    costs = {answers: {variant.name: one.each(variant) for variant in complete}}
    for name in ("latency_p95_ms", "latency_p50_ms"):
        costs[name, "ms"] = {variant.name: one.measures.of(variant, name).value for variant in complete}
    return [
        {
            "cost": name,
            "unit": unit,
            "margin": margin,
            "points": [asdict(point) for point in pareto.front(one.results, complete, known, one.pairs, margin)],
        }
        for (name, unit), known in costs.items()
        if any(cost is not None for cost in known.values())
    ]


def _notes(one: Case) -> list[str]:
    """What a reader must know before believing the decision."""
    complete, notes = one.complete, one.warnings
    if complete and not money.comparable([one.spent[variant.name] for variant in complete]):
        devices = "; ".join(_unique(one.spent[variant.name].device or "an unknown one" for variant in complete))
        notes.append(f"Answers come from different devices ({devices}), so costs are not ranked and no front is drawn.")
    baseline = one.results.variant(one.results.baseline)
    if baseline is not None and baseline.status != "complete":
        notes.append(f"The baseline {baseline.name} {baseline.state}, so nothing is compared with it.")
    lacking = _unique(one.spent[variant.name].lacking for variant in complete)
    notes += [f"Some costs are n/a: {reason}." for reason in lacking if reason]
    values = {variant.value(one.results.primary) for variant in complete}
    about = one.results.metrics.get(one.results.primary)
    if about and len(complete) > 1 and len(values) == 1:
        which = "Both" if len(complete) == 2 else f"All {len(complete)}"
        notes.append(f"{which} variants have the same {about.name}.")
    return notes


def _fit(one: Case) -> bool | None:
    """Whether any variant does better than the worst there is; None where that is no number."""
    about = one.results.metrics.get(one.results.primary)
    worst = about and (about.floor if about.direction == "higher" else about.ceiling)
    if worst is None or not one.complete:
        return None
    return any(variant.value(one.results.primary) != worst for variant in one.complete)


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
