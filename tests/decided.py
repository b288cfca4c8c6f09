"""A results folder whose scores and costs a test chooses, number by number: what decisions and gates are tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from written_store import write_step

from harness.records import Call, Cost, Direction, Example, Family, Prediction, Reply, Run, Score, digest
from harness.store import Snapshot, Store


@dataclass(frozen=True)
class Given:
    """One variant: its scores on the primary metric, one an example (one list a seed), and what it took."""

    scores: Sequence[float] | Sequence[Sequence[float]]
    family: Family = "prompting"
    train: float = 0.0
    index: float = 0.0
    answer: float | None = 10.0
    p95: float | None = 500.0
    requests: Sequence[float] = ()
    memory: int | None = 2 << 30
    tokens: tuple[int, int, int] = (0, 0, 0)
    """Tokens in, of these cached, and out, over all examples."""
    device: str = "a processor · cpu float32"
    trained_on: str = ""
    failed: str = ""
    also: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Scores on other metrics."""


SPEC = {"baseline": "a", "metrics": [{"name": "exact_match", "kind": "exact_match", "primary": True}]}


def write(
    root: Path,
    variants: Mapping[str, Given],
    *,
    groups: Sequence[str] = (),
    spec: Mapping[str, Any] | None = None,
    direction: Direction = "higher",
    bounds: tuple[float | None, float | None] = (0.0, 1.0),
    notes: Sequence[str] = (),
) -> tuple[Store, Snapshot]:
    """Write a finished experiment "case". `groups` names each example's group; without them each is its own. `notes`
    are what was noticed of the data."""
    store = Store(root)
    first = next((given for given in variants.values() if not given.failed), Given([]))
    n = len(_seeds(first)[0])
    examples = [Example(id=f"e{i}", input="?", targets=("!",), group=groups[i] if groups else "") for i in range(n)]
    runs = [
        _run(store, name, given, seed, scores, examples, direction, bounds)
        for name, given in variants.items()
        for seed, scores in enumerate(_seeds(given))
    ]
    if notes:
        runs = [replace(run, provenance={**run.provenance, "data_notes": list(notes)}) for run in runs]
    planned = [replace(run, status="waiting", error=None, cost=Cost()) for run in runs]
    snapshot = store.begin("case", {**SPEC, **(spec or {})}, "# the spec\n", planned)
    snapshot.write_examples(examples)
    for run in runs:
        snapshot.save_run(run)
    snapshot.finish({"rows": []}, "# board\n")
    return store, snapshot


def _seeds(given: Given) -> list[list[float]]:
    if given.scores and isinstance(given.scores[0], list | tuple):
        return [list(seed) for seed in given.scores]  # type: ignore[arg-type]
    return [list(given.scores)]  # type: ignore[arg-type]


def _run(
    store: Store,
    name: str,
    given: Given,
    seed: int,
    scores: Sequence[float],
    examples: Sequence[Example],
    direction: Direction,
    bounds: tuple[float | None, float | None],
) -> Run:
    about = {"variant": name, "seed": seed, "scores": list(scores), "given": repr(given)}
    run = Run(
        experiment="case",
        variant=name,
        family=given.family,
        seed=seed,
        status="failed" if given.failed else "complete",
        error=given.failed or None,
        provenance={"fingerprints": {"heldout": digest([example.id for example in examples], 64)}},
    )
    if given.failed:
        return run
    read, cached, out = given.tokens
    reply = Reply(texts=("x",), input_tokens=read, cached_tokens=cached, output_tokens=out)
    predictions = [
        Prediction(id=example.id, text="x", calls=() if i else (Call(messages=(), reply=reply),))
        for i, example in enumerate(examples)
    ]
    steps = {
        "predict": write_step(
            store, "predict", about, {"seconds": given.answer}, lambda s: s.write_predictions(predictions)
        )
    }
    if given.train:
        outcome = {"seconds": given.train, "device": given.trained_on, "provenance": {"processor": "a processor"}}
        steps["train.0"] = write_step(store, "train", about, outcome)
    if given.requests:
        steps["latency"] = write_step(store, "latency", about, {"seconds_each": list(given.requests)})
    for metric, values in {"exact_match": scores, **given.also}.items():
        score = Score(
            name=metric,
            signature=f"{metric}|version:1",
            direction=direction,
            unit="share",
            floor=bounds[0],
            ceiling=bounds[1],
            reducer="mean",
            ids=tuple(example.id for example in examples),
            statistics=tuple((float(value),) for value in values),
        )
        steps[f"score.{metric}"] = write_step(
            store, "score", {**about, "metric": metric}, {"seconds": 0.1}, lambda s, score=score: s.write_score(score)
        )
    cost = Cost(
        train_seconds=given.train,
        index_seconds=given.index,
        answer_seconds=given.answer,
        latency_p50_ms=None if given.p95 is None else 0.8 * given.p95,
        latency_p95_ms=given.p95,
        latency_n=len(given.requests) or 16,
        input_tokens=read,
        output_tokens=out,
        peak_memory_bytes=given.memory,
        device=given.device,
    )
    return replace(run, steps=steps, cost=cost)
