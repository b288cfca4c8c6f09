"""The leaderboard: every variant of one experiment, ranked by the primary metric, with its uncertainty and its cost.

`build` makes it from the store alone, as JSON-able values; `markdown` and `table` show what `build` made.

Each metric's value is over the whole held-out split: an example that failed counts at the metric's floor and is
counted in `errors`. With several seeds each example is averaged over its seeds first; costs are then the mean of a run
(one training, one pass over the held-out split), the highest for memory. A variant is ranked when all its seeds are
complete; one that failed is a row that says so. Rows stand in the order of the primary metric; variants that cannot be
told apart share a place (`harness.places`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from harness import comparisons, heldout_use, margins, places, power, results, stats
from harness.board import markdown, table
from harness.places import Places
from harness.records import Cost, Run, Score
from harness.results import Results, Variant
from harness.store import Snapshot, Store

__all__ = ["COSTS", "build", "markdown", "table"]

COSTS = tuple(field.name for field in fields(Cost) if field.name not in ("latency_n", "device"))
_WHOLE = frozenset({"input_tokens", "output_tokens", "trainable_parameters", "artifact_bytes", "peak_memory_bytes"})
_ROLES = {
    "index": "index", "train": "train", "predict": "answer", "gold": "gold", "score": "score", "latency": "latency",
}  # fmt: skip


def build(snapshot: Snapshot, store: Store) -> dict[str, Any]:
    """Return the leaderboard of `snapshot`.

    Raises HarnessError where its runs cannot be ranked together: answered on different held-out splits, or scored with
    different settings of a metric.
    """
    found = results.read(snapshot, store)
    variants, metrics, primary = found.variants, found.metrics, found.primary
    reference = found.variant(found.baseline)
    against = _against(found, reference)
    rows = []
    for variant in variants:
        measured = {name: _measured(found, variant, name) if name in variant.scores else None for name in metrics}
        rows.append(
            {
                "rank": None,
                "rank_low": None,
                "rank_high": None,
                "variant": variant.name,
                "family": variant.runs[0].family,
                "seeds": [run.seed for run in variant.runs],
                "status": variant.status,
                "error": variant.error,
                "metrics": measured,
                "cost": _cost(variant.runs),
                "vs_baseline": against.get(variant.name),
                "latency_examples": max(run.cost.latency_n for run in variant.runs),
                "notes": list(dict.fromkeys(note for run in variant.runs for note in run.notes)),
            }
        )
    rows = _sorted(rows, metrics.get(primary))
    placed = _placed(rows, found)
    return {
        "experiment": snapshot.name,
        "snapshot": snapshot.number,
        "question": str(snapshot.spec.get("question", "")),
        "heldout": {
            "n": len(found.examples),
            "fingerprint": found.fingerprint,
            "groups": len(set(found.groups)) if found.grouped else None,
        },
        "primary": primary,
        "baseline": found.baseline,
        "metrics": [_description(score) for score in metrics.values()],
        "rows": rows,
        "comparisons": _tests(rows, placed),
        "total": _total(variants, store),
        "notes": [*found.data_notes, *_notes(variants, reference, store), *_use(found, store)],
    }


# -------------------------------------------------------------------------------------------------- the estimates


def _measured(found: Results, variant: Variant, name: str) -> dict[str, Any]:
    made = results.estimate(found, variant, name)
    return {
        "value": made.value,
        "ci_low": made.low,
        "ci_high": made.high,
        "n": made.n,
        # Of one run, rounded up: never 0 where an answer failed, never more than n.
        "errors": math.ceil(stats.mean([score.errors for score in variant.scores[name]])),
        "method": _with_seeds(made.method, len(variant.runs)),
    }


def _against(found: Results, baseline: Variant | None) -> dict[str, dict[str, Any]]:
    """What is known of each variant against the baseline on the primary metric: the family that Holm adjusts for."""
    metric = found.primary
    if baseline is None or metric not in baseline.scores:
        return {}
    others = [one for one in found.variants if one.name != baseline.name and metric in one.scores]
    made = comparisons.pairwise(found, metric, [(one, baseline) for one in others])
    adjusted = comparisons.holm([one.p for one in made])
    family = sum(one.p is not None for one in made)
    within = margins.families(made, margins.usual(found.metrics[metric]))
    return {
        variant.name: {
            "difference": one.difference.value,
            "ci_low": one.difference.low,
            "ci_high": one.difference.high,
            "method": _with_seeds(one.difference.method, max(len(variant.runs), len(baseline.runs))),
            "test": one.test,
            "p": one.p,
            "p_holm": p,
            "effect": one.effect,
            "effect_size": one.effect_size,
            "wins": one.wins,
            "ties": one.ties,
            "losses": one.losses,
            "minimum_detectable": one.minimum_detectable,
            "needed": comparisons.needed(one, p, family),
            "verdict": comparisons.verdict(one, p),
            **margin,
        }
        for variant, one, p, margin in zip(others, made, adjusted, within, strict=True)
    }


def _with_seeds(method: str, seeds: int) -> str:
    return f"{method}; mean of {seeds} seeds" if seeds > 1 else method


def _description(metric: Score) -> dict[str, Any]:
    return {
        "name": metric.name,
        "direction": metric.direction,
        "unit": metric.unit,
        "signature": metric.signature,
        "floor": metric.floor,
        "ceiling": metric.ceiling,
    }


def _sorted(rows: list[dict[str, Any]], primary: Score | None) -> list[dict[str, Any]]:
    """Order the rows: those with a value by the primary metric, best first, then the others, failed last."""

    def value(row: dict[str, Any]) -> float | None:
        found = row["metrics"].get(primary.name) if primary else None
        return found["value"] if found and row["status"] == "complete" else None

    sign = -1 if primary and primary.direction == "higher" else 1
    ranked = sorted((row for row in rows if value(row) is not None), key=lambda row: sign * (value(row) or 0.0))
    rest = sorted((row for row in rows if value(row) is None), key=lambda row: row["status"] == "failed")
    for row in ranked:
        row["rank"] = 0
    return ranked + rest


def _placed(rows: list[dict[str, Any]], found: Results) -> Places:
    """Write the place of every ranked row, and the ranks that it may have."""
    ranked = [variant for row in rows if row["rank"] is not None and (variant := found.variant(row["variant"]))]
    made = places.places(found, found.primary, ranked)
    for row in rows:
        if place := made.places.get(row["variant"]):
            row |= {"rank": place.place, "rank_low": place.low, "rank_high": place.high}
    return made


def _tests(rows: Sequence[dict[str, Any]], placed: Places) -> dict[str, Any]:
    """How differences were tested: once for the baseline's family, once for the ranks."""
    versus = [row["vs_baseline"] for row in rows if row["vs_baseline"]]
    pairs = [(comparison, p) for _, _, comparison, p in placed.pairs if p is not None]
    return {
        "alpha": power.ALPHA,
        "power": power.POWER,
        "correction": "Holm",
        "family": sum(one["p"] is not None for one in versus),
        "tests": list(dict.fromkeys(one["test"] for one in versus)),
        "pairs": len(pairs),
        "pair_tests": list(dict.fromkeys(comparison.test for comparison, _ in pairs)),
        "told_apart": sum(p <= power.ALPHA for _, p in pairs),
    }


# -------------------------------------------------------------------------------------------------- cost and notes


def _cost(runs: Sequence[Run]) -> dict[str, float | None]:
    """The mean of a run over its seeds, the highest for memory; None where no run measured it."""
    figures: dict[str, float | None] = {}
    for name in COSTS:
        found = [value for run in runs if (value := getattr(run.cost, name)) is not None]
        figure = None if not found else max(found) if name == "peak_memory_bytes" else stats.mean(found)
        figures[name] = round(figure) if figure is not None and name in _WHOLE else figure
    return figures


def _total(variants: Sequence[Variant], store: Store) -> dict[str, float]:
    """Seconds that the whole experiment took, by kind of work: a step that several runs share counts once."""
    steps = {step: role for variant in variants for run in variant.runs for role, step in run.steps.items()}
    seconds = dict.fromkeys((f"{kind}_seconds" for kind in _ROLES.values()), 0.0)
    for name, role in steps.items():
        outcome = store.step(name).outcome or {}
        seconds[f"{_ROLES[role.partition('.')[0]]}_seconds"] += outcome.get("seconds", 0.0)
    return {**seconds, "seconds": math.fsum(seconds.values())}


def _use(found: Results, store: Store) -> list[str]:
    """How often the held-out set was used before, this time included."""
    snapshot = found.snapshot
    note = heldout_use.of(store, snapshot.name, found.fingerprint, snapshot.number).note
    return [note] if note else []


def _notes(variants: Sequence[Variant], baseline: Variant | None, store: Store) -> list[str]:
    """What a reader must know before believing the table."""
    notes: list[str] = []
    complete = [variant for variant in variants if variant.status == "complete"]
    if complete and baseline is not None and baseline.status != "complete":
        notes.append(f"The baseline {baseline.name} {baseline.state}, so no difference from it can be shown.")
    runs = [run for variant in complete for run in variant.runs]
    if any(len(variant.runs) > 1 for variant in complete):
        notes.append(
            "Several seeds: each example is averaged over its seeds; where seeds differ, intervals and tests count "
            "both seeds and examples as sources of variation. Costs are the mean of a run, the highest for memory."
        )
    elif complete:
        notes.append("One seed: intervals and tests speak of other examples, not of other seeds.")
    notes += _mixtures(runs, store)
    notes += dict.fromkeys(f"{run.variant}: {note}" for run in runs for note in run.notes)
    return notes


def _mixtures(runs: Sequence[Run], store: Store) -> list[str]:
    """What makes these runs less alike than they look: answers or training of different devices, steps of different
    library versions."""
    notes = []
    versions: dict[str, set[str]] = {}
    trained: set[str] = set()
    for step, role in sorted({(step, role) for run in runs for role, step in run.steps.items()}):
        outcome = store.step(step).outcome or {}
        made = outcome.get("provenance") or {}
        if role.startswith("train.") and outcome.get("device"):
            trained.add(" · ".join(filter(None, [made.get("processor"), outcome["device"]])))
        for library, version in {"harness": made.get("harness"), **(made.get("versions") or {})}.items():
            if version:
                versions.setdefault(library, set()).add(version)
    answered = {run.cost.device for run in runs if run.cost.device}
    if len(answered) > 1:
        notes.append(
            f"Answers come from different devices: {'; '.join(sorted(answered))}. The same model may answer otherwise "
            "on another device, and costs cannot be compared."
        )
    if len(trained) > 1:
        notes.append(f"Training ran on different devices: {'; '.join(sorted(trained))}.")
    mixed = [f"{library} {', '.join(sorted(found))}" for library, found in versions.items() if len(found) > 1]
    return [*notes, f"Steps were made with different library versions: {'; '.join(mixed)}."] if mixed else notes
