"""The leaderboard: every variant of one experiment, ranked by the primary metric, with its uncertainty and its cost.

`build` makes it from the store alone, as JSON-able values; `markdown` and `table` show what `build` made.

Each metric's value is over the whole held-out split: an example that failed counts at the metric's floor and is
counted in `errors`. With several seeds each example is averaged over its seeds first; costs are then the mean of a run
(one training, one pass over the held-out split), the highest for memory. A variant is ranked when all its seeds are
complete; one that failed is a row that says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from harness import stats
from harness.board import markdown, table
from harness.errors import HarnessError
from harness.records import Cost, Example, Run, Score
from harness.store import Snapshot, Store

__all__ = ["COSTS", "build", "markdown", "table"]

COSTS = tuple(field.name for field in fields(Cost) if field.name not in ("latency_n", "device"))
_WHOLE = frozenset({"input_tokens", "output_tokens", "trainable_parameters", "artifact_bytes", "peak_memory_bytes"})
_ROLES = {"index": "index", "train": "train", "predict": "answer", "score": "score", "latency": "latency"}


@dataclass(frozen=True)
class Variant:
    """A variant's runs, one a seed, and their scores once all are complete: `scores[name]` is in the order of seeds."""

    name: str
    runs: tuple[Run, ...]
    scores: Mapping[str, tuple[Score, ...]]

    @property
    def status(self) -> str:
        found = {run.status for run in self.runs}
        if len(found) == 1:
            return found.pop()
        return next((status for status in ("failed", "running") if status in found), "waiting")

    @property
    def error(self) -> str | None:
        several = len(self.runs) > 1
        failed = [run for run in self.runs if run.status == "failed"]
        texts = [f"seed {run.seed}: {run.error}" if several else run.error or "failed" for run in failed]
        return "\n".join(dict.fromkeys(texts)) or None

    def value(self, metric: str) -> float | None:
        """What the metric's reducer makes of all examples, averaged over seeds; None where it speaks of none."""
        made = []
        for score in self.scores.get(metric, ()):
            known = [row for row in score.statistics if row is not None]
            made += [stats.REDUCERS[score.reducer](known)] if known else []
        return stats.mean(made) if made else None

    def values(self, metric: str) -> list[float | None] | None:
        """The metric of each held-out example, averaged over seeds; None for one that it does not speak of. Only a
        metric whose value is the mean has any."""
        if metric not in self.scores:
            return None
        rows = zip(*(score.statistics for score in self.scores[metric]), strict=True)
        return [None if row[0] is None else stats.mean([one[0] for one in row if one is not None]) for row in rows]


def build(snapshot: Snapshot, store: Store) -> dict[str, Any]:
    """Return the leaderboard of `snapshot`.

    Raises HarnessError where its runs cannot be ranked together: answered on different held-out splits, or scored with
    different settings of a metric.
    """
    variants = _variants(snapshot.runs(), store)
    examples = list(snapshot.examples())
    fingerprint = _fingerprint(variants)
    metrics = _metrics(variants, examples)
    primary = _primary(snapshot.spec)
    baseline = str(snapshot.spec.get("baseline") or variants[0].name)
    groups = [example.group or f"\0{example.id}" for example in examples]
    binary = {name for name in metrics if _is_binary(variants, metrics[name])}
    reference = next((variant for variant in variants if variant.name == baseline), None)
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
            "n": len(examples),
            "fingerprint": fingerprint,
            "groups": len(set(groups)) if any(example.group for example in examples) else None,
        },
        "primary": primary,
        "baseline": baseline,
        "metrics": [_description(score) for score in metrics.values()],
        "rows": _ranked(rows, metrics.get(primary)),
        "total": _total(variants, store),
        "notes": _notes(variants, reference, store),
    }


# ------------------------------------------------------------------------------------------------ reading the store


def _variants(runs: Sequence[Run], store: Store) -> list[Variant]:
    if not runs:
        raise HarnessError("this snapshot plans no runs, so there is nothing to rank.")
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.variant, []).append(run)
    return [_variant(name, tuple(found), store) for name, found in by_name.items()]


def _variant(name: str, runs: tuple[Run, ...], store: Store) -> Variant:
    if any(run.status != "complete" for run in runs):
        return Variant(name, runs, {})
    roles = [role for role in runs[0].steps if role.startswith("score.")]
    return Variant(
        name,
        runs,
        {role.removeprefix("score."): tuple(store.step(run.steps[role]).score() for run in runs) for role in roles},
    )


def _fingerprint(variants: Sequence[Variant]) -> str:
    """Return the digest of the held-out split that every run is about."""
    found: dict[str, str] = {}
    for variant in variants:
        for run in variant.runs:
            found.setdefault(str(run.provenance.get("fingerprints", {}).get("heldout", "")), variant.name)
    if len(found) > 1:
        sides = ", ".join(f"{name!r} on {digest[:12] or 'an unknown one'}" for digest, name in found.items())
        raise HarnessError(
            f"cannot rank variants of different held-out splits: {sides}. "
            "Run the experiment again, so that all of them answer the same examples."
        )
    return next(iter(found))


def _metrics(variants: Sequence[Variant], examples: Sequence[Example]) -> dict[str, Score]:
    """Return one score of every metric, by name, after checking that all variants were scored alike."""
    found: dict[str, tuple[str, Score]] = {}
    ids = tuple(example.id for example in examples)
    # The variant with the most metrics names them in the order of the spec: one without retrieval lacks some.
    for variant in sorted(variants, key=lambda variant: -len(variant.scores)):
        for name, scores in variant.scores.items():
            for score in scores:
                _same_settings(name, found.setdefault(name, (variant.name, score)), (variant.name, score))
                _sound(name, variant.name, score, ids)
    return {name: score for name, (_, score) in found.items()}


def _same_settings(metric: str, one: tuple[str, Score], two: tuple[str, Score]) -> None:
    if one[1].signature != two[1].signature:
        raise HarnessError(
            f"cannot rank variants that were scored differently: {metric} is {one[1].signature!r} for {one[0]!r} but "
            f"{two[1].signature!r} for {two[0]!r}. Run the experiment again, so that all are scored with one setting."
        )
    for identity, first, second in zip(one[1].ids, one[1].statistics, two[1].statistics, strict=False):
        if (first is None) != (second is None):
            raise HarnessError(
                f"{metric} speaks of example {identity!r} for only one of {one[0]!r} and {two[0]!r}: a fault of the "
                "metric. Whether it returns None must not depend on the answer."
            )


def _sound(metric: str, variant: str, score: Score, ids: tuple[str, ...]) -> None:
    """Raise HarnessError unless `score` is of the examples `ids` and holds numbers that can be ranked."""
    if score.ids != ids:
        strays = sorted(set(score.ids) ^ set(ids))
        which = f"example {strays[0]!r} is on one side only" if strays else "their order differs"
        raise HarnessError(
            f"{metric} of {variant!r} was not measured on the held-out split of this experiment: {which}. "
            "Run the experiment again."
        )
    if score.reducer not in stats.REDUCERS:
        raise HarnessError(f"{metric} is reduced by {score.reducer!r}, which this harness does not know: upgrade it.")
    low = -math.inf if score.floor is None else score.floor
    high = math.inf if score.ceiling is None else score.ceiling
    for identity, values in zip(score.ids, score.statistics, strict=True):
        if values is None or score.reducer != "mean":
            continue
        if not (math.isfinite(values[0]) and low <= values[0] <= high):
            raise HarnessError(
                f"{metric} of {variant!r} is {values[0]} for example {identity!r}, outside {low} to {high}: "
                "a fault of the metric. Mend it and score again."
            )


def _primary(spec: Mapping[str, Any]) -> str:
    """Return the name of the metric that ranks: the one marked so, or the spec's first."""
    metrics = spec.get("metrics") or [{"name": ""}]
    return str(next((metric for metric in metrics if metric.get("primary")), metrics[0])["name"])


# -------------------------------------------------------------------------------------------------- the estimates


def _is_binary(variants: Iterable[Variant], metric: Score) -> bool:
    """Whether each example of every variant is wholly right or wrong, seen with one seed: a proportion."""
    if (metric.floor, metric.ceiling) != (0, 1) or metric.reducer != "mean":
        return False
    scores = [variant.scores[metric.name] for variant in variants if metric.name in variant.scores]
    return all(len(seeds) == 1 for seeds in scores) and all(
        values is None or values[0] in (0, 1) for (score,) in scores for values in score.statistics
    )


def _spoken_of(values: Sequence[float | None], groups: Sequence[str]) -> tuple[list[float], list[str]]:
    kept = [(value, group) for value, group in zip(values, groups, strict=True) if value is not None]
    return [value for value, _ in kept], [group for _, group in kept]


def _measured(variant: Variant, metric: Score, groups: Sequence[str], *, binary: bool) -> dict[str, Any]:
    values, kept = _spoken_of(variant.values(metric.name) or [], groups)
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
    mine, kept = _spoken_of(ours, groups)
    other, _ = _spoken_of(theirs, groups)
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
