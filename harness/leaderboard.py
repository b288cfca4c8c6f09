"""The leaderboard: every variant of one experiment, ranked by the primary metric, with its uncertainty and its cost.

`build` makes it from the store alone, as JSON-able values; `markdown` and `table` show what `build` made.

Each metric's value is over the whole held-out split: an example that failed counts at the metric's floor and is
counted in `errors`. With several seeds each example is averaged over its seeds first; costs are then the mean of a run
(one training, one pass over the held-out split), the highest for memory. A variant is ranked when all its seeds are
complete; one that failed is a row that says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from harness import results, stats
from harness.board import markdown, table
from harness.records import Cost, Run, Score
from harness.results import Variant, spoken_of
from harness.store import Snapshot, Store

__all__ = ["COSTS", "build", "markdown", "table"]

COSTS = tuple(field.name for field in fields(Cost) if field.name not in ("latency_n", "device"))
_WHOLE = frozenset({"input_tokens", "output_tokens", "trainable_parameters", "artifact_bytes", "peak_memory_bytes"})
_ROLES = {"index": "index", "train": "train", "predict": "answer", "score": "score", "latency": "latency"}


def build(snapshot: Snapshot, store: Store) -> dict[str, Any]:
    """Return the leaderboard of `snapshot`.

    Raises HarnessError where its runs cannot be ranked together: answered on different held-out splits, or scored with
    different settings of a metric.
    """
    found = results.read(snapshot, store)
    variants, metrics, primary, groups = found.variants, found.metrics, found.primary, found.groups
    binary = {name for name in metrics if found.binary(name)}
    reference = found.variant(found.baseline)
    rows = []
    for variant in variants:
        measured = {
            name: _measured(variant, metrics[name], groups, binary=name in binary) if name in variant.scores else None
            for name in metrics
        }
        rows.append(
            {
                "rank": None,
                "variant": variant.name,
                "family": variant.runs[0].family,
                "seeds": [run.seed for run in variant.runs],
                "status": variant.status,
                "error": variant.error,
                "metrics": measured,
                "cost": _cost(variant.runs),
                "vs_baseline": _against(variant, reference, metrics.get(primary), groups),
                "latency_examples": max(run.cost.latency_n for run in variant.runs),
                "notes": list(dict.fromkeys(note for run in variant.runs for note in run.notes)),
            }
        )
    return {
        "experiment": snapshot.name,
        "snapshot": snapshot.number,
        "question": str(snapshot.spec.get("question", "")),
        "heldout": {
            "n": len(found.examples),
            "fingerprint": found.fingerprint,
            "groups": len(set(groups)) if found.grouped else None,
        },
        "primary": primary,
        "baseline": found.baseline,
        "metrics": [_description(score) for score in metrics.values()],
        "rows": _ranked(rows, metrics.get(primary)),
        "total": _total(variants, store),
        "notes": _notes(variants, reference, store),
    }


# -------------------------------------------------------------------------------------------------- the estimates


def _measured(variant: Variant, metric: Score, groups: Sequence[str], *, binary: bool) -> dict[str, Any]:
    values, kept = spoken_of(variant.values(metric.name) or [], groups)
    if metric.reducer == "mean":
        made = stats.interval(values, kept, binary=binary, bounds=(metric.floor, metric.ceiling))
    else:
        made = _without_interval(variant.value(metric.name), metric, kept)
    return {
        "value": made.value,
        "ci_low": made.low,
        "ci_high": made.high,
        "n": made.n,
        # Of one run, rounded up: never 0 where an answer failed, never more than n.
        "errors": math.ceil(stats.mean([score.errors for score in variant.scores[metric.name]])),
        "method": _with_seeds(made.method, len(variant.runs)),
    }


def _against(
    variant: Variant, baseline: Variant | None, metric: Score | None, groups: Sequence[str]
) -> dict[str, Any] | None:
    """The paired difference from the baseline on the primary metric, or None where there is none to be had."""
    if baseline is None or metric is None or variant.name == baseline.name:
        return None
    ours, theirs = variant.values(metric.name), baseline.values(metric.name)
    if ours is None or theirs is None:
        return None
    mine, kept = spoken_of(ours, groups)
    other, _ = spoken_of(theirs, groups)
    if metric.reducer == "mean":
        made = stats.difference(mine, other, kept, bounds=(metric.floor, metric.ceiling))
    else:
        a, b = variant.value(metric.name), baseline.value(metric.name)
        made = _without_interval(None if a is None or b is None else a - b, metric, kept)
    seeds = max(len(variant.runs), len(baseline.runs))
    return {
        "difference": made.value,
        "ci_low": made.low,
        "ci_high": made.high,
        "method": _with_seeds(made.method, seeds),
    }


def _without_interval(value: float | None, metric: Score, groups: Sequence[str]) -> stats.Interval:
    """An estimate that is no mean over examples: how it varies between groups is not known."""
    method = f"n/a (reduced by {metric.reducer}, not a mean)"
    return stats.Interval(value, None, None, len(groups), len(set(groups)), method)


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


def _ranked(rows: list[dict[str, Any]], primary: Score | None) -> list[dict[str, Any]]:
    """Order the rows: ranked ones by the primary metric (equal values share a rank), then the others, failed last."""

    def value(row: dict[str, Any]) -> float | None:
        found = row["metrics"].get(primary.name) if primary else None
        return found["value"] if found and row["status"] == "complete" else None

    sign = -1 if primary and primary.direction == "higher" else 1
    ranked = sorted((row for row in rows if value(row) is not None), key=lambda row: sign * (value(row) or 0.0))
    for place, row in enumerate(ranked, 1):
        before = ranked[place - 2] if place > 1 else None
        row["rank"] = before["rank"] if before and value(before) == value(row) else place
    rest = sorted((row for row in rows if value(row) is None), key=lambda row: row["status"] == "failed")
    return ranked + rest


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


def _notes(variants: Sequence[Variant], baseline: Variant | None, store: Store) -> list[str]:
    """What a reader must know before believing the table."""
    everything = [run for variant in variants for run in variant.runs]
    notes = list(dict.fromkeys(note for run in everything for note in run.provenance.get("data_notes", ())))
    complete = [variant for variant in variants if variant.status == "complete"]
    if complete and baseline is not None and baseline.status != "complete":
        notes.append(f"The baseline {baseline.name} is {baseline.status}, so no difference from it can be shown.")
    runs = [run for variant in complete for run in variant.runs]
    if any(len(variant.runs) > 1 for variant in complete):
        notes.append(
            "Several seeds: each example is averaged over its seeds, intervals speak of other examples answered by "
            "these seeds; costs are the mean of a run, the highest for memory."
        )
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
