"""A variant as steps: what each step is made of (its name), and doing it.

A step is named by the digest of all that can change its outcome, so that the same name is the same outcome: it is done
once, whoever asks for it. `plan` names every step of a spec without loading a model; `Pipeline` does them.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness import fit, models
from harness.asking import Asking, answer
from harness.data import Dataset
from harness.measure import Meter, provenance
from harness.plugins import Embedder, Embedding, Index, Metric, Prompt, Retriever, Session, TrainJob
from harness.records import Cost, Example, Prediction, Score, digest, dump
from harness.spec import Spec, Variant
from harness.step import Step
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

    def named(self, role: str) -> Named | None:
        return self.steps.get(role)

    def stages(self) -> list[Named]:
        return [step for role, step in self.steps.items() if role.startswith("train.")]


def _name(kind: str, inputs: dict[str, Any]) -> Named:
    return Named(f"{kind}-{digest(inputs)}", inputs)


def plan(spec: Spec, dataset: Dataset, store: Store, *, retry_errors: bool = False) -> list[PlannedRun]:
    """Name the steps of every variant and seed. Cheap: files are digested once, no model is loaded.

    With `retry_errors` a finished answering step that holds failed examples is followed by another attempt, a step of
    its own that keeps the good answers. The newest finished attempt always stands for the run.
    """
    namer = _Namer(spec, dataset, store, retry_errors)
    return [namer.run(variant, seed) for variant in spec.variants for seed in spec.seeds]


class _Namer:
    def __init__(self, spec: Spec, dataset: Dataset, store: Store, retry_errors: bool) -> None:
        self._spec, self._data, self._store, self._retry = spec, dataset, store, retry_errors
        self._model = spec.model.fingerprint()
        self._embedders: dict[str, dict[str, Any]] = {}

    def run(self, variant: Variant, seed: int) -> PlannedRun:
        steps: dict[str, Named] = {}
        if variant.retrieve is not None:
            steps["index"] = self._index(variant.retrieve)
        weights: str | None = models.fingerprint(Path(variant.adapter)) if variant.adapter else None
        for number, method in enumerate(variant.train):
            inputs = {
                "model": self._model,
                "method": {k: v for k, v in method.settings().items() if k != "name"},
                "incoming": weights,
                "train": self._data.fingerprints["train"],
                "dev": self._data.fingerprints.get("dev"),
                "prompt": self._prompt(variant.prompt),
                "seed": seed,
            }
            if method.context == "retrieved":
                inputs |= self._retrieval(variant, steps)
            steps[f"train.{number}"] = _name("train", inputs)
            weights = steps[f"train.{number}"].name
        steps["predict"] = self._attempt(self._predict(variant, seed, steps, weights))
        for metric in self._spec.metrics:
            if not metric.needs_passages or variant.retrieve is not None:
                steps[f"score.{metric.name}"] = _name("score", self._score(metric, steps["predict"]))
        if self._spec.latency.examples:
            asked = {"predict": steps["predict"].inputs | {"attempt": 0}, "examples": self._spec.latency.examples}
            steps["latency"] = _name("latency", asked)
        return PlannedRun(variant, seed, steps)

    def _index(self, retriever: Retriever) -> Named:
        return _name(
            "index",
            {
                "retriever": retriever.settings(built=True),
                "embedder": self._embedder(retriever.embedder_plugin),
                "documents": self._data.fingerprints["documents"],
            },
        )

    def _predict(self, variant: Variant, seed: int, steps: dict[str, Named], weights: str | None) -> dict[str, Any]:
        random = variant.prompt.random or variant.decode.temperature > 0
        inputs = {
            "model": self._model,
            "weights": weights,
            "prompt": self._prompt(variant.prompt),
            "decode": dump(variant.decode.decoding),
            "heldout": self._data.fingerprints["heldout"],
            "train": self._data.fingerprints["train"] if variant.prompt.reads_train else None,
            "seed": seed if random else None,
        }
        return inputs | self._retrieval(variant, steps)

    def _retrieval(self, variant: Variant, steps: dict[str, Named]) -> dict[str, Any]:
        if variant.retrieve is None:
            return {}
        return {"index": steps["index"].name, "retrieve": variant.retrieve.settings()}

    def _prompt(self, prompt: Prompt) -> dict[str, Any]:
        return {**prompt.settings(), "embedder": self._embedder(prompt.embedder_plugin)}

    def _embedder(self, embedder: Embedder | None) -> dict[str, Any] | None:
        if embedder is None:
            return None
        key = digest(embedder.settings())
        if key not in self._embedders:
            self._embedders[key] = embedder.fingerprint()
        return self._embedders[key]

    def _attempt(self, inputs: dict[str, Any]) -> Named:
        """The newest finished attempt, the first one where none is, or the next one where errors are to be retried."""
        number = 0
        while self._outcome(inputs, number + 1) is not None:
            number += 1
        outcome = self._outcome(inputs, number)
        if self._retry and outcome is not None and outcome["failed"]:
            number += 1
        return _name("predict", inputs | {"attempt": number})

    def _outcome(self, inputs: dict[str, Any], attempt: int) -> dict[str, Any] | None:
        return self._store.step(_name("predict", inputs | {"attempt": attempt}).name).outcome

    def _score(self, metric: Metric, predict: Named) -> dict[str, Any]:
        settings = {key: value for key, value in metric.settings().items() if key != "primary"}
        return {"metric": settings, "predict": predict.name}


# -------------------------------------------------------------------------------------------------- doing the steps


Kind = Literal["begin", "progress", "wait", "end", "failed"]


@dataclass(frozen=True, slots=True)
class Event:
    """What a watcher of a run is told: a step begins, is `done` of `total` through, waits for another process, ends,
    or failed (with the reason in `text`)."""

    kind: Kind
    variant: str
    seed: int
    role: str
    done: int = 0
    total: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    text: str = ""


Watch = Callable[[Event], None]
Progress = Callable[[int, int, Mapping[str, float]], None]
Work = Callable[["PlannedRun", str, Step, Progress], dict[str, Any]]


class Pipeline:
    """Does the steps of a plan, one after another, in this process (training stages in a child of it).

    The base model and the embedder are loaded when the first step needs them and stay. `watch` is told how far a step
    is; it may raise KeyboardInterrupt, after which all that was acknowledged is kept and the step goes on from there
    the next time.
    """

    def __init__(self, spec: Spec, dataset: Dataset, store: Store, watch: Watch) -> None:
        self._spec, self._data, self._store, self._watch = spec, dataset, store, watch
        self._session: Session | None = None
        self._embeddings: dict[str, Embedding] = {}

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
        self._session, self._embeddings = None, {}

    def do(self, run: PlannedRun) -> None:
        """Do what is missing of a run's steps."""
        work = {"index": self._index, "train": self._train, "predict": self._predict, "score": self._score}
        for role, named in run.steps.items():
            self._once(run, role, named, {**work, "latency": self._latency}[role.partition(".")[0]])

    def _once(self, run: PlannedRun, role: str, named: Named, work: Work) -> None:
        step = self._store.step(named.name)
        if step.outcome is not None:
            return

        def tell(kind: Kind, done: int = 0, total: int = 0, figures: Mapping[str, float] | None = None) -> None:
            self._watch(Event(kind, run.variant.name, run.seed, role, done, total, figures or {}))

        with step.lock(lambda: tell("wait")):
            if step.outcome is not None:  # Another process has done it meanwhile.
                return
            tell("begin")
            step.start(named.inputs)
            outcome = work(run, role, step, lambda done, total, figures: tell("progress", done, total, figures))
            step.complete({**outcome, "provenance": provenance()})
            tell("end")

    # ---------------------------------------------------------------------------------------------------- the steps

    def _index(self, run: PlannedRun, role: str, step: Step, progress: Progress) -> dict[str, Any]:
        retriever = _retriever(run)
        out = _folder(step.path / "index")
        embedding = self._embedding(retriever.embedder_plugin)
        with Meter(step.work / "meter.json") as meter:
            retriever.build(self._data.documents, out, embedding)
        return {**meter.figures(), "bytes": _bytes(out)}

    def _train(self, run: PlannedRun, role: str, step: Step, progress: Progress) -> dict[str, Any]:
        number = int(role.partition(".")[2])
        method = run.variant.train[number]
        rows, out = _folder(step.work / "rows"), _folder(step.path / "artifact")
        context = self._context(run, retrieves=method.context == "retrieved")
        with Meter(step.work / "meter.json") as meter:
            if context.retrieves:
                for example in self._data.train:
                    context.train_on(example, method)
            _write_rows(rows / "train.jsonl", self._data.train, run.variant.prompt, context)
            _write_rows(rows / "dev.jsonl", self._data.dev, run.variant.prompt, context)
            job = TrainJob(
                train=rows / "train.jsonl",
                dev=rows / "dev.jsonl" if self._data.dev else None,
                model=self._spec.model.table(),
                incoming=self._artifact(run, number),
                out=out,
                work=step.work,
                seed=run.seed,
            )
            trained, peak = fit.run(method, job, step.work, progress)
        # The peak is the child's alone: what this process holds for other steps has no part in the training.
        figures = meter.figures() | {"peak_memory_bytes": peak}
        return {**figures, **asdict(trained), "bytes": _bytes(out), "device": self._device()}

    def _predict(self, run: PlannedRun, role: str, step: Step, progress: Progress) -> dict[str, Any]:
        inputs = run.steps[role].inputs
        kept = self._good_answers(inputs)
        examples = [example for example in self._data.heldout if example.id not in kept]
        session, context = self._opened(run), self._context(run)
        done = step.recovered()
        count = sum(len(batch) for batch in done)

        def save(batch: Sequence[Prediction]) -> None:
            nonlocal count
            answers.append(batch)
            count += len(batch)
            progress(count, len(examples), {"output tokens": sum(prediction.output_tokens for prediction in batch)})

        with step.answers() as answers, Meter(step.work / "meter.json") as meter:
            if context.retrieves:
                context.retrieve(examples)
            answer(examples, run.variant.prompt, context, session, seed=run.seed, done=done, save=save)
        found = kept | {prediction.id: prediction for batch in step.recovered() for prediction in batch}
        predictions = [found[example.id] for example in self._data.heldout]
        step.write_predictions(predictions)
        return {
            **meter.figures(),
            "n": len(predictions),
            "failed": sum(prediction.error is not None for prediction in predictions),
            "answered_again": len(examples) if inputs["attempt"] else 0,
            "input_tokens": sum(prediction.input_tokens for prediction in predictions),
            "output_tokens": sum(prediction.output_tokens for prediction in predictions),
            "device": self._device(),
        }

    def _good_answers(self, inputs: dict[str, Any]) -> dict[str, Prediction]:
        """What the attempt before this one answered without an error."""
        if not inputs["attempt"]:
            return {}
        before = self._store.step(_name("predict", inputs | {"attempt": inputs["attempt"] - 1}).name)
        return {prediction.id: prediction for prediction in before.predictions() if prediction.error is None}

    def _score(self, run: PlannedRun, role: str, step: Step, progress: Progress) -> dict[str, Any]:
        metric = next(m for m in self._spec.metrics if m.name == role.partition(".")[2])
        predictions = list(self._store.step(run.steps["predict"].name).predictions())
        with Meter(step.work / "meter.json") as meter:
            score, faults = _scored(metric, self._data.heldout, predictions)
        step.write_score(score)
        return {**meter.figures(), "faults": faults}

    def _latency(self, run: PlannedRun, role: str, step: Step, progress: Progress) -> dict[str, Any]:
        """Time single requests, from the question to the whole answer, retrieval included, one after another."""
        examples = list(self._data.heldout)
        random.Random(0).shuffle(examples)
        wanted = min(self._spec.latency.examples, len(examples))
        session, context = self._opened(run), self._context(run)
        seconds: list[float] = []
        # The first answer warms caches up and is not counted; it is to a question of its own where there is one.
        for number, example in enumerate([examples[-1], *examples[:wanted]]):
            answered: list[Prediction] = []
            start = time.perf_counter()
            answer([example], run.variant.prompt, context, session, seed=run.seed, save=answered.extend)
            if number and answered[0].error is None:
                seconds.append(time.perf_counter() - start)
            progress(number, wanted, {})
        return {"seconds_each": seconds, "device": self._device()}

    # ------------------------------------------------------------------------------------------- what the steps need

    def _opened(self, run: PlannedRun) -> Session:
        """The model, answering with the run's own weights from here on."""
        session = self._base()
        session.attach(self._artifact(run, len(run.variant.train)))
        return session

    def _base(self) -> Session:
        if self._session is None:
            self._session = self._spec.model.open()
        return self._session

    def _artifact(self, run: PlannedRun, stages: int) -> Path | None:
        """The weights after the first `stages` stages: None is the bare base."""
        if stages:
            return self._store.step(run.steps[f"train.{stages - 1}"].name).path / "artifact"
        return Path(run.variant.adapter) if run.variant.adapter else None

    def _context(self, run: PlannedRun, *, retrieves: bool | None = None) -> Asking:
        retriever = run.variant.retrieve if retrieves is not False else None
        prompt_embedder = run.variant.prompt.embedder_plugin
        self._forget_embedders([prompt_embedder, retriever.embedder_plugin if retriever else None])
        return Asking(
            session=self._base(),
            decoding=run.variant.decode.decoding,
            train=self._data.train,
            seed=run.seed,
            retriever=retriever,
            index=self._index_of(run, retriever),
            embedding=self._embedding(prompt_embedder),
        )

    def _index_of(self, run: PlannedRun, retriever: Retriever | None) -> Index | None:
        if retriever is None:
            return None
        folder = self._store.step(run.steps["index"].name).path / "index"
        return retriever.open(folder, self._embedding(retriever.embedder_plugin))

    def _embedding(self, embedder: Embedder | None) -> Embedding | None:
        if embedder is None:
            return None
        key = digest(embedder.settings())
        if key not in self._embeddings:
            self._embeddings[key] = embedder.open()
        return self._embeddings[key]

    def _forget_embedders(self, used: Sequence[Embedder | None]) -> None:
        """Close what this step does not use, so that its memory is its own whatever ran before it."""
        keys = {digest(embedder.settings()) for embedder in used if embedder is not None}
        self._embeddings = {key: value for key, value in self._embeddings.items() if key in keys}

    def _device(self) -> str:
        return f"{self._base().device} {self._base().dtype}" if self._session else ""


def _retriever(run: PlannedRun) -> Retriever:
    assert run.variant.retrieve is not None
    return run.variant.retrieve


def _scored(metric: Metric, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[Score, list[str]]:
    """Measure every example. One that failed, or on which the metric itself fails, counts at the metric's floor
    and as an error: it never leaves the denominator."""
    statistics: list[tuple[float, ...] | None] = []
    faults, errors = [], 0
    for example, prediction in zip(examples, predictions, strict=True):
        try:
            # What a metric does not speak of, it does not speak of for any answer.
            value = metric.measure(example, prediction)
        except Exception as error:  # A metric is a plug-in: its fault on one example is shown beside the score.
            faults.append(f"{metric.name} failed on example {example.id}: {type(error).__name__}: {error}")
            value = metric.floor
            errors += 1
        else:
            if prediction.error is not None and value is not None:
                value = metric.floor
                errors += 1
        statistics.append(value if value is None or isinstance(value, tuple) else (float(value),))
    score = Score(
        name=metric.name,
        signature=_signature(metric),
        direction=metric.direction,
        unit=metric.unit,
        floor=metric.floor,
        ceiling=metric.ceiling,
        reducer=metric.reducer,
        ids=tuple(example.id for example in examples),
        statistics=tuple(statistics),
        errors=errors,
    )
    return score, faults


def _signature(metric: Metric) -> str:
    """The metric's settings in one line, as sacrebleu's signatures: two scores with the same one can be compared."""
    settings = {key: value for key, value in metric.settings().items() if key not in ("kind", "primary")}
    return "|".join([metric.kind, *(f"{key}:{json.dumps(value)}" for key, value in sorted(settings.items()))])


def _write_rows(file: Path, examples: Sequence[Example], prompt: Prompt, context: Asking) -> None:
    with file.open("w", encoding="utf-8") as lines:
        for example in examples:
            messages = [dump(message) for message in prompt.messages(example, context)]
            row = {"id": example.id, "messages": messages, "completion": example.targets[0]}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def cost(run: PlannedRun, store: Store) -> Cost:
    """What a finished run took, from what its steps measured; shared steps count whole."""
    outcomes = {role: store.step(named.name).outcome or {} for role, named in run.steps.items()}
    trained = [outcome for role, outcome in outcomes.items() if role.startswith("train.")]
    index, predict = outcomes.get("index"), outcomes["predict"]
    each = sorted(1000 * seconds for seconds in outcomes.get("latency", {}).get("seconds_each", []))
    artifacts = [outcome["bytes"] for outcome in [*trained[-1:], *([index] if index else [])]]
    used = [*trained, *([index] if index else []), predict]
    return Cost(
        train_seconds=sum(outcome["seconds"] for outcome in trained),
        index_seconds=index["seconds"] if index else 0.0,
        answer_seconds=predict["seconds"],
        latency_p50_ms=_percentile(each, 50),
        latency_p95_ms=_percentile(each, 95),
        latency_n=len(each),
        input_tokens=predict["input_tokens"],
        output_tokens=predict["output_tokens"],
        trainable_parameters=trained[-1]["trainable_parameters"] if trained else 0,
        artifact_bytes=sum(artifacts),
        peak_memory_bytes=max(outcome["peak_memory_bytes"] for outcome in used),
        device=" · ".join(filter(None, [predict["provenance"]["processor"], predict["device"]])),
    )


def _percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Linear interpolation between the closest ranks (numpy's default)."""
    import numpy as np

    return float(np.percentile(ordered, percent)) if ordered else None
