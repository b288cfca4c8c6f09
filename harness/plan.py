"""What each variant needs done: its steps, by name.

A step is named by the digest of all that can change its outcome, so that the same name is the same outcome: it is done
once, whoever asks for it. `plan` names every step of a spec without loading a model; `pipeline.py` does them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import models
from harness.choices import distinct_targets
from harness.data import Dataset, fingerprint
from harness.errors import DataError
from harness.plugins import Backend, Embedder, Metric, Prompt, Retriever
from harness.records import Decoding, Example, digest, dump
from harness.spec import Spec, Variant
from harness.store import Store


@dataclass(frozen=True, slots=True)
class Named:
    """One step to be done: its folder's name and what that name is the digest of."""

    name: str
    inputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One variant with one seed, and the steps it needs, by role, in the order in which they are done."""

    variant: Variant
    seed: int
    steps: dict[str, Named] = field(default_factory=dict)


def attempt(inputs: dict[str, Any], number: int) -> Named:
    """Name the answering step of these inputs in its first attempt (0) or a later one (`retry`)."""
    return _name("predict", inputs | {"attempt": number})


def scoring(inputs: Mapping[str, Any], number: int) -> Named:
    """Name the scoring step of these inputs in its first attempt (0) or a later one."""
    return _name("score", numbered(inputs, number))


def numbered(inputs: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The inputs of an attempt at a step of which the first attempt bears no number."""
    first = {key: value for key, value in inputs.items() if key != "attempt"}
    return first | ({"attempt": number} if number else {})


def newest(named: Callable[[int], Named], store: Store, *, retry: bool) -> Named:
    """Return the newest finished attempt at a step, of those that `named` names by their number; the first one where
    none is finished, or with `retry` the next one where requests of the newest have failed."""
    number = 0
    while store.step(named(number + 1).name).outcome is not None:
        number += 1
    outcome = store.step(named(number).name).outcome
    return named(number + 1 if retry and (outcome or {}).get("failed") else number)


def _name(kind: str, inputs: dict[str, Any]) -> Named:
    return Named(f"{kind}-{digest(inputs)}", inputs)


def plan(spec: Spec, dataset: Dataset, store: Store, *, retry: Collection[str] = ()) -> list[PlannedRun]:
    """Name the steps of every variant and seed. Cheap: files are digested once, no model is loaded.

    For the variants in `retry` a finished answering step that holds failed examples is followed by another attempt, a
    step of its own that keeps the good answers; and so is the scoring step of a metric whose own model failed on some
    requests. The newest finished attempt always stands for a run.
    """
    namer = _Namer(spec, dataset, store, retry)
    return [namer.run(variant, seed) for variant in spec.variants for seed in spec.seeds]


def score(
    metric: Metric,
    predict: str,
    heldout: str,
    embedder: Mapping[str, Any] | None,
    store: Store,
    *,
    retry: bool = False,
) -> Named:
    """Name the step that scores the answers of the step `predict`; `heldout` is the fingerprint of the examples and
    `embedder` that of the metric's own embedder, where it has one. With `retry`, what the metric's own model failed on
    is asked again, by another attempt."""
    inputs: dict[str, Any] = {"metric": metric.identity(built=True), "predict": predict, "heldout": heldout}
    if metric.embedder_plugin is not None:
        inputs["embedder"] = embedder
    if metric.backend_plugin is not None:
        inputs["judge"] = _about(metric.backend_plugin)
        return newest(lambda number: scoring(inputs, number), store, retry=retry)
    return scoring(inputs, 0)


def question(example: Example) -> Example:
    """An example as a prompt sees it: without the answer and where it stands."""
    return replace(example, targets=(), sources=())


def decoding(variant: Variant, dataset: Dataset) -> Decoding:
    """How a variant's answers are made. Choices that the spec does not list are the distinct targets of the train
    split, never of held-out: which labels a test happens to hold is part of what is asked.

    Raises DataError where train has fewer than two.
    """
    made = variant.decode.decoding
    if variant.decode.kind != "choices" or made.choices:
        return made
    if len(found := distinct_targets(dataset.train)) < 2:
        held = f"which holds {found[0]!r} alone" if found else "and there are none"
        raise DataError(
            f"variant {variant.name!r} chooses among the targets of the train split, {held}: "
            'name them, decode = { kind = "choices", choices = ["yes", "no"] }'
        )
    return replace(made, choices=found)


def _of_decoding(made: Decoding) -> dict[str, Any]:
    """What of `made` can change an answer."""
    names = ("choices", "normalise") if made.choices else ("max_tokens", "temperature", "top_p", "stop")
    return {name: value for name, value in dump(made).items() if name in names}


def _about(backend: Backend) -> dict[str, Any]:
    """What a backend is, and what it loads: its own settings, such as the device, are in its fingerprint."""
    about = backend.identity()
    return {k: about[k] for k in ("kind", "version", "source") if k in about} | backend.fingerprint()


def _speaks_of(metric: Metric, variant: Variant) -> bool:
    """Whether a metric has anything to say of a variant: else its place on the leaderboard stays empty."""
    if metric.needs_passages and variant.retrieve is None:
        return False
    return not metric.needs_choices or variant.decode.kind == "choices"


class _Namer:
    def __init__(self, spec: Spec, dataset: Dataset, store: Store, retry: Collection[str]) -> None:
        self._spec, self._data, self._store, self._retry = spec, dataset, store, retry
        self._model = _about(spec.model)
        self._questions = fingerprint(map(question, dataset.heldout))
        self._embedders: dict[str, dict[str, Any]] = {}

    def run(self, variant: Variant, seed: int) -> PlannedRun:
        steps: dict[str, Named] = {}
        if variant.retrieve is not None:
            steps["index"] = self._index(variant.retrieve)
        weights: str | None = models.fingerprint(Path(variant.adapter)) if variant.adapter else None
        for number, method in enumerate(variant.train):
            inputs: dict[str, Any] = {
                "model": self._model,
                "method": method.identity(built=True),
                "incoming": weights,
                "train": self._data.fingerprints["train"],
                "dev": self._data.fingerprints.get("dev"),
                "prompt": self._prompt(variant.prompt),
                "seed": seed,
            }
            if variant.prompt.reads_train:  # Shots are left out where they do not fit beside the answer.
                made = decoding(variant, self._data)
                inputs |= {"choices": made.choices} if made.choices else {"max_tokens": made.max_tokens}
            if method.context == "retrieved":
                inputs |= self._retrieval(variant, steps)
            steps[f"train.{number}"] = _name("train", inputs)
            weights = steps[f"train.{number}"].name
        inputs = self._predict(variant, seed, steps, weights)
        retry = variant.name in self._retry
        steps["predict"] = newest(lambda number: attempt(inputs, number), self._store, retry=retry)
        metrics = [metric for metric in self._spec.metrics if _speaks_of(metric, variant)]
        if any(metric.needs_gold for metric in metrics):
            # Its answers are those of the examples: they go into the name, as the questions do.
            steps["gold"] = _name("gold", inputs | {"heldout": self._data.fingerprints["heldout"]})
        for metric in metrics:
            steps[f"score.{metric.name}"] = self._score(metric, steps["predict"], retry=retry)
        if self._spec.latency.examples:
            asked = {"predict": steps["predict"].inputs | {"attempt": 0}, "examples": self._spec.latency.examples}
            steps["latency"] = _name("latency", asked)
        return PlannedRun(variant, seed, steps)

    def _index(self, retriever: Retriever) -> Named:
        return _name(
            "index",
            {
                "retriever": retriever.identity(built=True),
                "embedder": self._embedder(retriever.embedder_plugin),
                "documents": self._data.fingerprints["documents"],
            },
        )

    def _predict(self, variant: Variant, seed: int, steps: dict[str, Named], weights: str | None) -> dict[str, Any]:
        random = variant.prompt.random or variant.decode.temperature > 0
        inputs = {
            "model": self._model,
            "batching": self._spec.model.batching(),
            "weights": weights,
            "prompt": self._prompt(variant.prompt),
            "decode": _of_decoding(decoding(variant, self._data)),
            "questions": self._questions,
            "train": self._data.fingerprints["train"] if variant.prompt.reads_train else None,
            "seed": seed if random else None,
        }
        return inputs | self._retrieval(variant, steps)

    def _retrieval(self, variant: Variant, steps: dict[str, Named]) -> dict[str, Any]:
        if variant.retrieve is None:
            return {}
        return {"index": steps["index"].name, "retrieve": variant.retrieve.identity()}

    def _prompt(self, prompt: Prompt) -> dict[str, Any]:
        return {**prompt.identity(), "embedder": self._embedder(prompt.embedder_plugin)}

    def _embedder(self, embedder: Embedder | None) -> dict[str, Any] | None:
        if embedder is None:
            return None
        key = digest(embedder.table())
        if key not in self._embedders:
            self._embedders[key] = embedder.fingerprint()
        return self._embedders[key]

    def _score(self, metric: Metric, predict: Named, *, retry: bool) -> Named:
        heldout, embedder = self._data.fingerprints["heldout"], self._embedder(metric.embedder_plugin)
        return score(metric, predict.name, heldout, embedder, self._store, retry=retry)
