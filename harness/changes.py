"""What changed between two runs: the answers that became right or wrong, the settings, the costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness import stats
from harness.records import Run
from harness.results import Results, Variant
from harness.store import Store

KINDS = ("fixed", "broken", "both_wrong", "both_right")
COSTS = (
    "latency_p50_ms",
    "latency_p95_ms",
    "input_tokens_per_answer",
    "output_tokens_per_answer",
    "train_seconds",
    "index_seconds",
    "trainable_parameters",
    "artifact_bytes",
    "peak_memory_bytes",
)
_OF_DEVICE = frozenset({"latency_p50_ms", "latency_p95_ms", "train_seconds", "index_seconds", "peak_memory_bytes"})
_WHICH = frozenset({"name", "family"})
"""Entries of a resolved variant that say which one it is, not what it does."""

# ----------------------------------------------------------------------------------------------------------- examples


def examples(
    joined: Results,
    couple: tuple[Variant, Variant],
    metric: str,
    stores: tuple[Store, Store],
    shared: Sequence[tuple[int, int]],
    n: int,
) -> dict[str, Any] | None:
    """Return how many examples each kind has and up to `n` of each with question, both answers and gold, or None where
    the metric has no value for single examples.

    fixed: the second of `couple` does better than the first; broken: worse; both_wrong: as well, and below the
    metric's best value; both_right: as well, at its best. Of a right-or-wrong metric that is what the words say. Those
    that changed most come first, in the order of the held-out split where they changed alike; `n` of both_right are
    not shown. A metric without a best value calls equal values both_wrong.
    """
    first, second = couple[0].values(metric), couple[1].values(metric)
    if first is None or second is None or joined.metrics[metric].reducer != "mean":
        return None
    about = joined.metrics[metric]
    best, sign = (about.ceiling, 1) if about.direction == "higher" else (about.floor, -1)
    found: dict[str, list[tuple[float, int]]] = {kind: [] for kind in KINDS}
    for place, (one, other) in enumerate(zip(first, second, strict=True)):
        if one is None or other is None:
            continue
        change = sign * (other - one)
        equal = "both_right" if other == best else "both_wrong"
        found["fixed" if change > 0 else "broken" if change < 0 else equal].append((abs(change), place))
    told: dict[str, Any] = {}
    for kind, places in found.items():
        chosen = sorted(places, key=lambda one: (-one[0], one[1]))[: 0 if kind == "both_right" else n]
        shown = [_example(joined, couple, place, (first[place], second[place]), stores, shared) for _, place in chosen]
        told[kind] = {"count": len(places), "examples": shown}
    return told


def _example(
    joined: Results,
    couple: tuple[Variant, Variant],
    place: int,
    values: tuple[float | None, float | None],
    stores: tuple[Store, Store],
    shared: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    example = joined.examples[place]
    before, after = couple
    return {
        "id": example.id,
        "question": example.input,
        "gold": list(example.targets),
        "a": {"value": values[0], "answers": _answers(before.runs, stores[0], shared[place][0])},
        "b": {"value": values[1], "answers": _answers(after.runs, stores[1], shared[place][1])},
    }


def _answers(runs: Sequence[Run], store: Store, place: int) -> list[dict[str, Any]]:
    """What each seed answered."""
    found = [(run.seed, store.step(run.steps["predict"]).prediction(place)) for run in runs]
    return [{"seed": seed, "text": one.text, "error": one.error} for seed, one in found]


# ----------------------------------------------------------------------------------------------------------- settings


def settings(one: tuple[Results, Variant], other: tuple[Results, Variant]) -> list[dict[str, Any]]:
    """Return the settings that differ between two variants and their experiments: {"setting", "a", "b"} each; None is
    "not there". Metrics are left out: runs whose metrics differ are not compared."""
    return [{"setting": path, "a": a, "b": b} for path, a, b in _differing(_settings(*one), _settings(*other), "")]


def _settings(results: Results, variant: Variant) -> dict[str, Any]:
    spec = results.snapshot.spec
    entry = next((dict(one) for one in spec.get("variants") or () if one.get("name") == variant.name), {})
    kept = {key: spec.get(key) for key in ("model", "data", "latency")}
    return {
        **{key: value for key, value in entry.items() if key not in _WHICH},
        **kept,
        "seeds": [run.seed for run in variant.runs],
    }


def _differing(one: Any, other: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        # Of another kind of plug-in every setting differs: the kinds say it all.
        if "kind" in one and "kind" in other and one["kind"] != other["kind"]:
            yield f"{path}.kind", one["kind"], other["kind"]
            return
        for key in [*one, *(key for key in other if key not in one)]:
            yield from _differing(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
    elif _tables(one) and _tables(other) and len(one) == len(other):
        for place, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from _differing(first, second, f"{path}.{place}")
    elif one != other:
        yield path, one, other


def _tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value)


# -------------------------------------------------------------------------------------------------------------- costs


def costs(one: tuple[Results, Variant], other: tuple[Results, Variant]) -> dict[str, Any]:
    """Return {"devices": [...], "figures": {name: {"a", "b", "difference", "ratio"}}}: what a run cost, the mean over
    seeds, of the whole held-out split of each side. Times and memory of different devices have no difference."""
    devices = [sorted({run.cost.device for run in variant.runs if run.cost.device}) for _, variant in (one, other)]
    same = devices[0] == devices[1] and len(devices[0]) <= 1
    figures = {}
    for name in COSTS:
        a, b = _cost(*one, name), _cost(*other, name)
        known = a is not None and b is not None and (same or name not in _OF_DEVICE)
        difference = b - a if known and a is not None and b is not None else None
        ratio = b / a if difference is not None and a and b else None
        figures[name] = {"a": a, "b": b, "difference": difference, "ratio": ratio}
    return {"devices": devices, "comparable": same, "figures": figures}


def _cost(results: Results, variant: Variant, name: str) -> float | None:
    field, _, per = name.partition("_per_")
    found = [value for run in variant.runs if (value := getattr(run.cost, field)) is not None]
    if not found:
        return None
    return stats.mean(found) / (len(results.examples) if per else 1)
