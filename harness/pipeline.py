"""Doing the steps of a plan, one after another, and what they cost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness import cards, training
from harness.asking import Asking, answer, weigh
from harness.data import Dataset
from harness.files import Lock, size_of
from harness.means import Scoring
from harness.measure import Meter, provenance
from harness.plan import Named, PlannedRun, attempt, decoding, index_role, question, scoring
from harness.plugins import Backend, Embedder, Embedding, Index, Session
from harness.records import Cost, Prediction, digest
from harness.scoring import score
from harness.spec import Spec, Variant
from harness.step import Step
from harness.store import Store

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
Save = Callable[[Sequence[Prediction]], None]


@dataclass(frozen=True, slots=True)
class Task:
    """A step in work: the run that asked for it, its role there, its folder with the open lock, and whom to tell."""

    run: PlannedRun
    role: str
    step: Step
    lock: Lock
    progress: Progress


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
        self._judges: dict[str, Session] = {}

    def close(self) -> None:
        for session in (self._session, *self._judges.values()):
            if session is not None:
                session.close()
        self._session, self._embeddings, self._judges = None, {}, {}

    def do(self, run: PlannedRun) -> None:
        """Do what is missing of a run's steps."""
        for role, named in run.steps.items():
            self._once(run, role, named)

    def _once(self, run: PlannedRun, role: str, named: Named) -> None:
        step = self._store.step(named.name)
        if step.outcome is not None:
            return

        def tell(kind: Kind, done: int = 0, total: int = 0, figures: Mapping[str, float] | None = None) -> None:
            self._watch(Event(kind, run.variant.name, run.seed, role, done, total, figures or {}))

        def progress(done: int, total: int, figures: Mapping[str, float]) -> None:
            tell("progress", done, total, figures)

        with step.lock(lambda: tell("wait")) as lock:
            if step.outcome is not None:  # Another process has done it meanwhile.
                return
            tell("begin")
            step.start(named.inputs)
            outcome = self._work(Task(run, role, step, lock, progress))
            step.complete({**outcome, "provenance": provenance()})
            tell("end")

    # ---------------------------------------------------------------------------------------------------- the steps

    def _work(self, task: Task) -> dict[str, Any]:
        match task.role.partition(".")[0]:
            case "index":
                return self._index(task)
            case "train":
                return self._train(task)
            case "predict":
                return self._predict(task)
            case "gold":
                return self._gold(task)
            case "score":
                return self._score(task)
            case _:
                return self._latency(task)

    def _index(self, task: Task) -> dict[str, Any]:
        retriever = self._variant(task).retrieve
        assert retriever is not None
        out = _folder(task.step.path / "index")
        embedding = self._embedding(retriever.embedder_plugin)
        with _meter(task) as meter:
            retriever.build(self._data.documents, out, embedding)
        return {**meter.figures(), "bytes": size_of(out)}

    def _train(self, task: Task) -> dict[str, Any]:
        stage = task.run.stages[task.role]
        context = self._context(task.run, stage.variant, retrieves=stage.method.context == "retrieved")
        with _meter(task) as meter:
            trained, peak = training.train(
                task.run,
                task.role,
                step=task.step,
                lock=task.lock.handle,
                model=self._spec.model,
                metrics=self._spec.metrics,
                dataset=self._data,
                store=self._store,
                context=context,
                progress=task.progress,
            )
        # The peak is the child's alone: what this process holds for other steps has no part in the training.
        outcome = {**meter.figures(), "peak_memory_bytes": peak, **asdict(trained), "device": self._device()}
        folder = task.step.path / "artifact"
        size = size_of(folder)  # Without the card, whose figures of time have a length of their own each time.
        cards.write(folder, stage, task.run.steps[task.role], self._spec.model, outcome)
        return {**outcome, "bytes": size}

    def _predict(self, task: Task) -> dict[str, Any]:
        run = task.run
        before = self._attempt_before(run.steps[task.role].inputs)
        kept = _good_answers(before)
        examples = [question(example) for example in self._data.heldout if example.id not in kept]
        session, context = self._opened(run), self._context(run, run.variant)

        def ask(done: Sequence[Sequence[Prediction]], save: Save) -> None:
            context.prepare(examples)
            answer(examples, run.variant.prompt, context, session, seed=run.seed, done=done, save=save)

        meter, predictions = self._in_batches(task, len(examples), ask, kept)
        # The answers kept from the attempt before had their cost too.
        spent = (before.outcome if before else None) or {"seconds": 0.0, "peak_memory_bytes": 0}
        return {
            "seconds": meter.seconds + spent["seconds"],
            "peak_memory_bytes": max(meter.peak, spent["peak_memory_bytes"]),
            "n": len(predictions),
            "failed": sum(prediction.error is not None for prediction in predictions),
            "answered_again": spent.get("answered_again") or (len(examples) if before else 0),
            "input_tokens": sum(prediction.input_tokens for prediction in predictions),
            "output_tokens": sum(prediction.output_tokens for prediction in predictions),
            "device": self._device(),
        }

    def _gold(self, task: Task) -> dict[str, Any]:
        """How likely the run's own model holds each accepted answer for, asked with the run's own prompt."""
        run = task.run
        examples = [question(example) for example in self._data.heldout]
        targets = {example.id: example.targets for example in self._data.heldout}
        session, context = self._opened(run), self._context(run, run.variant)

        def ask(done: Sequence[Sequence[Prediction]], save: Save) -> None:
            context.prepare(examples)
            weigh(examples, targets, run.variant.prompt, context, session, done=done, save=save)

        meter, predictions = self._in_batches(task, len(examples), ask, {})
        return {
            **meter.figures(),
            "n": len(predictions),
            "failed": sum(prediction.error is not None for prediction in predictions),
            "input_tokens": sum(prediction.input_tokens for prediction in predictions),
            "output_tokens": 0,
            "device": self._device(),
        }

    def _in_batches(
        self,
        task: Task,
        total: int,
        ask: Callable[[Sequence[Sequence[Prediction]], Save], None],
        kept: Mapping[str, Prediction],
    ) -> tuple[Meter, list[Prediction]]:
        """Let `ask` make `total` predictions batch by batch, each acknowledged before the next; it is handed those made
        before a kill. Writes and returns one for each held-out example, those in `kept` among them."""
        step = task.step
        done = step.recovered()
        count = sum(len(batch) for batch in done)

        def save(batch: Sequence[Prediction]) -> None:
            nonlocal count
            answers.append(batch)
            count += len(batch)
            tokens = sum(prediction.output_tokens for prediction in batch)
            task.progress(count, total, {"output tokens": tokens})

        with step.answers() as answers, _meter(task) as meter:
            ask(done, save)
        found = dict(kept) | {prediction.id: prediction for batch in step.recovered() for prediction in batch}
        predictions = [found[example.id] for example in self._data.heldout]
        step.write_predictions(predictions)
        return meter, predictions

    def _attempt_before(self, inputs: dict[str, Any]) -> Step | None:
        if not inputs["attempt"]:
            return None
        return self._store.step(attempt(inputs, inputs["attempt"] - 1).name)

    def _score(self, task: Task) -> dict[str, Any]:
        metric = next(m for m in self._spec.metrics if m.name == task.role.partition(".")[2])
        predictions = list(self._store.step(task.run.steps["predict"].name).predictions())
        gold = task.run.steps.get("gold")
        earlier = self._scored_before(task.run.steps[task.role].inputs)
        means = Scoring(
            metric,
            task.step,
            gold=self._store.step(gold.name) if gold else None,
            earlier=earlier,
            embedding=self._embedding,
            judge=self._judge,
            progress=task.progress,
        )
        with _meter(task) as meter:
            made, faults = score(metric, self._data.heldout, predictions, means)
        task.step.write_score(made)
        asked = _of_replies(metric.name, means.replies, (earlier.outcome if earlier else None) or {})
        if means.replies:
            task.step.write_predictions(means.replies.values())
        notes = [*faults, *means.notes, *asked.pop("notes")]
        return {**meter.figures(), "faults": notes, "details": means.details, **asked}

    def _scored_before(self, inputs: Mapping[str, Any]) -> Step | None:
        """The attempt before at a scoring step, where it is there still."""
        number = inputs.get("attempt", 0)
        step = self._store.step(scoring(inputs, number - 1).name) if number else None
        return step if step is not None and step.outcome is not None else None

    def _latency(self, task: Task) -> dict[str, Any]:
        """Time single requests, from the question to the whole answer, retrieval included, one after another."""
        run = task.run
        examples = [question(example) for example in self._data.heldout]
        random.Random(0).shuffle(examples)
        wanted = min(self._spec.latency.examples, len(examples))
        session, context = self._opened(run), self._context(run, run.variant)
        seconds: list[float] = []
        # The first answer warms caches up and is not counted; it is to a question of its own where there is one.
        with _meter(task) as meter:
            for number, example in enumerate([examples[-1], *examples[:wanted]]):
                answered: list[Prediction] = []
                start = time.perf_counter()
                answer([example], run.variant.prompt, context, session, seed=run.seed, save=answered.extend)
                if number and answered[0].error is None:
                    seconds.append(time.perf_counter() - start)
                task.progress(number, wanted, {})
        return {**meter.figures(), "seconds_each": seconds, "device": self._device()}

    # ------------------------------------------------------------------------------------------- what the steps need

    def _variant(self, task: Task) -> Variant:
        """The variant whose index the step builds: the run's own, or the one that "index.VARIANT" names."""
        name = task.role.partition(".")[2]
        return next((variant for variant in self._spec.variants if variant.name == name), task.run.variant)

    def _opened(self, run: PlannedRun) -> Session:
        """The model, answering with the run's own weights from here on."""
        session = self._base()
        session.attach(training.artifact(run.weights, run, self._store))
        return session

    def _base(self) -> Session:
        if self._session is None:
            self._session = self._spec.model.open()
        return self._session

    def _context(self, run: PlannedRun, variant: Variant, *, retrieves: bool = True) -> Asking:
        """What the prompts of `variant` may use; it is the run's own or that of one of its stages."""
        retriever = variant.retrieve if retrieves else None
        prompt_embedder = variant.prompt.embedder_plugin
        self._forget_embedders([prompt_embedder, retriever.embedder_plugin if retriever else None])
        return Asking(
            session=self._base(),
            decoding=decoding(variant, self._data),
            train=self._data.train,
            seed=run.seed,
            retriever=retriever,
            index=self._index_of(run, variant) if retriever is not None else None,
            embedding=self._embedding(prompt_embedder),
        )

    def _index_of(self, run: PlannedRun, variant: Variant) -> Index:
        assert variant.retrieve is not None
        folder = self._store.step(run.steps[index_role(variant, run.variant)].name).path / "index"
        return variant.retrieve.open(folder, self._embedding(variant.retrieve.embedder_plugin))

    def _embedding(self, embedder: Embedder | None) -> Embedding | None:
        if embedder is None:
            return None
        key = digest(embedder.table())
        if key not in self._embeddings:
            self._embeddings[key] = embedder.open()
        return self._embeddings[key]

    def _judge(self, backend: Backend | None) -> Session:
        """The model of a metric. It stays loaded; where it is the base model itself, that one answers bare."""
        assert backend is not None, "a metric that asks a model names its backend_plugin"
        if backend == self._spec.model:
            session = self._base()
            session.attach(None)
            return session
        key = digest(backend.table())
        if key not in self._judges:
            self._judges[key] = backend.open()
        return self._judges[key]

    def _forget_embedders(self, used: Sequence[Embedder | None]) -> None:
        """Close what this step does not use, so that its memory is its own whatever ran before it."""
        keys = {digest(embedder.table()) for embedder in used if embedder is not None}
        self._embeddings = {key: value for key, value in self._embeddings.items() if key in keys}

    def _device(self) -> str:
        return f"{self._base().device} {self._base().dtype}" if self._session else ""


def _meter(task: Task) -> Meter:
    return Meter(task.step.work / "meter.json")


def _of_replies(metric: str, replies: Mapping[str, Prediction], before: Mapping[str, Any]) -> dict[str, Any]:
    """What came of the requests to a metric's own model, with notes; `before` is the outcome of the attempt before."""
    if not replies:
        return {"notes": []}
    faults = [reply.error for reply in replies.values() if reply.error is not None]
    again = before.get("asked_again") or before.get("failed", 0)
    notes = []
    if again:
        notes.append(f"{metric}: requests to its model that failed and were asked again (--retry-errors): {again}")
    if faults:
        notes.append(
            f"{metric}: {len(faults)} of {len(replies)} requests to its model failed; the first: {faults[0]}. "
            "`--retry-errors` asks them again"
        )
    return {"notes": notes, "requests": len(replies), "failed": len(faults), "asked_again": again}


def _good_answers(step: Step | None) -> dict[str, Prediction]:
    predictions = step.predictions() if step else ()
    return {prediction.id: prediction for prediction in predictions if prediction.error is None}


def _folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def cost(run: PlannedRun, store: Store) -> Cost:
    """What a finished run took, from what its steps measured; shared steps count whole."""
    outcomes = {role: store.step(named.name).outcome or {} for role, named in run.steps.items()}
    trained = [outcomes[role] for role in run.trainings]
    index, predict = outcomes.get("index"), outcomes["predict"]
    each = sorted(1000 * seconds for seconds in outcomes.get("latency", {}).get("seconds_each", []))
    answering = outcomes[run.weights] if isinstance(run.weights, str) else None
    artifacts = [outcome["bytes"] for outcome in (answering, index) if outcome]
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
        trainable_parameters=answering["trainable_parameters"] if answering else 0,
        artifact_bytes=sum(artifacts),
        peak_memory_bytes=max(outcome["peak_memory_bytes"] for outcome in used),
        device=" · ".join(filter(None, [predict["provenance"]["processor"], predict["device"]])),
    )


def _percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Linear interpolation between the closest ranks (numpy's default)."""
    import numpy as np

    return float(np.percentile(ordered, percent)) if ordered else None
