"""What each variant needs done: its steps, by name.

A step is named by the digest of all that can change its outcome, so that the same name is the same outcome: it is done
once, whoever asks for it. `plan` names every step of a spec without loading a model; `pipeline.py` does them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import models, stages
from harness.choices import distinct_targets
from harness.data import Dataset, fingerprint
from harness.errors import DataError
from harness.plugins import Backend, Embedder, Method, Metric, Prompt, Retriever, made_preferences
from harness.records import Decoding, Example, digest, dump, trainings
from harness.spec import Spec, Variant
from harness.stages import Source
from harness.store import Store


@dataclass(frozen=True, slots=True)
class Named:
    """One step to be done: its folder's name and what that name is the digest of."""

    name: str
    inputs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """A training step: what trains, and the variant whose prompt and retrieval make its rows.

    `incoming` is the role of the step whose policy it starts from, or a folder; None is the bare base. `references`
    are what the method's texts stand for: the role of another training step, or a source that is no stage.
    """

    method: Method
    variant: Variant
    incoming: str | Path | None
    references: dict[str, str | Source]


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One variant with one seed, and the steps it needs, by role, in the order in which they are done.

    Training steps have the roles "train.0", "train.1", ..., those of another variant that one of them refers to
    "train.VARIANT.0". `weights` is what the run answers with, as `Stage.incoming`.
    """

    variant: Variant
    seed: int
    steps: dict[str, Named] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)
    weights: str | Path | None = None

    @property
    def trainings(self) -> dict[str, str]:
        """`records.trainings` of its steps."""
        return trainings({role: named.name for role, named in self.steps.items()})


def index_role(variant: Variant, run: Variant) -> str:
    """The role of a variant's index in a run of `run`."""
    return "index" if variant.retrieve == run.retrieve else f"index.{variant.name}"


def parts(method: Method) -> tuple[str, ...]:
    """The parts of the data, by their names in the fingerprints, that a stage's rows are made of."""
    measured = () if getattr(method, "metric", None) is None else ("dev",)
    match method.reads:
        case "documents":
            return ("documents", "text", *measured)
        case "preferences":
            return measured if made_preferences(method) else ("preferences", "preferences_dev", *measured)
        case "conversations":
            return ("conversations", "conversations_dev", *measured)
        case "nothing":
            return ()
        case _:
            return ("train", "dev")


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
        self.variants = {variant.name: variant for variant in spec.variants}
        self.trains = {variant.name: variant.train for variant in spec.variants}

    def run(self, variant: Variant, seed: int) -> PlannedRun:
        steps: dict[str, Named] = {}
        if variant.retrieve is not None:
            steps["index"] = self.index(variant.retrieve)
        training = _Training(self, variant, seed, steps)
        for number in range(len(variant.train)):
            training.add(variant, number)
        weights = training.incoming(stages.before(self.trains, variant.name, len(variant.train)), variant)
        inputs = self._predict(variant, seed, steps, training.named(weights))
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
        return PlannedRun(variant, seed, steps, training.stages, weights)

    def train(
        self, stage: Stage, seed: int, incoming: str | None, references: dict[str, Any], index: Named | None
    ) -> Named:
        """Name a training step. `incoming` and `references` identify what it starts from and refers to."""
        method, variant, data = stage.method, stage.variant, self._data
        fields = {"start", *method.references()}
        about = {name: value for name, value in method.identity(built=True).items() if name not in fields}
        about |= {name: [references[text] for text in texts] for name, texts in method.references().items()}
        inputs: dict[str, Any] = {
            "model": self._model,
            "method": about,
            "incoming": incoming,
            **{part: data.fingerprints.get(part) for part in parts(method)},
            "prompt": self._prompt(variant.prompt),
            "seed": seed,
        }
        if variant.prompt.reads_train:  # Shots are left out where they do not fit beside the answer.
            inputs["train"] = data.fingerprints["train"]
            made = decoding(variant, data)
            inputs |= {"choices": made.choices} if made.choices else {"max_tokens": made.max_tokens}
        if method.context == "retrieved":
            assert index is not None and variant.retrieve is not None
            inputs |= self._retrieval(variant, {"index": index})
        return _name("train", inputs)

    def source(self, source: Source) -> dict[str, Any]:
        """What identifies a source that is no stage."""
        match source.kind:
            case "folder":
                return {"folder": models.fingerprint(Path(source.name))}
            case "metric":
                metric = next(metric for metric in self._spec.metrics if metric.name == source.name)
                judge = metric.backend_plugin
                return {"metric": metric.identity(built=True)} | ({} if judge is None else {"judge": _about(judge)})
            case "model":
                return {"model": models.fingerprint(models.resolve(source.name))}
            case _:
                return {}

    def index(self, retriever: Retriever) -> Named:
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


class _Training:
    """The training steps of one run, with those of other variants that they refer to, each before what needs it."""

    def __init__(self, namer: _Namer, variant: Variant, seed: int, steps: dict[str, Named]) -> None:
        self._namer, self._variant, self._seed, self._steps = namer, variant, seed, steps
        self.stages: dict[str, Stage] = {}

    def add(self, variant: Variant, number: int) -> str:
        """Name stage `number` of `variant`, and first what it needs; return its role."""
        role = f"train.{number}" if variant is self._variant else f"train.{variant.name}.{number}"
        if role in self._steps:
            return role
        method = variant.train[number]
        start, named = stages.sources(self._namer.trains, variant.name, number)
        stage = Stage(
            method,
            variant,
            self.incoming(start, variant),
            {text: self._reference(source) for text, source in named.items()},
        )
        index = None
        if method.context == "retrieved" and variant.retrieve is not None:
            index = self._steps.setdefault(index_role(variant, self._variant), self._namer.index(variant.retrieve))
        references = {
            text: self._steps[one].name if isinstance(one, str) else self._namer.source(one)
            for text, one in stage.references.items()
        }
        self._steps[role] = self._namer.train(stage, self._seed, self.named(stage.incoming), references, index)
        self.stages[role] = stage
        return role

    def incoming(self, source: Source | None, variant: Variant) -> str | Path | None:
        """The role, or the folder, of what a stage of `variant` starts from."""
        if source is None:
            return Path(variant.adapter) if variant.adapter else None
        found = self._reference(source)
        if isinstance(found, str):
            return found
        return Path(found.name) if found.kind == "folder" else None

    def named(self, incoming: str | Path | None) -> str | None:
        """What identifies the weights that come in."""
        return models.fingerprint(incoming) if isinstance(incoming, Path) else incoming and self._steps[incoming].name

    def _reference(self, source: Source) -> str | Source:
        if source.kind != "stage":
            return source
        return self.add(self._namer.variants[source.variant], source.number)
