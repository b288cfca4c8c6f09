"""Running an experiment: its runs one after another, each kept as it ends."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from harness import data, measure, pipeline, plan, quality, training_notes
from harness.data import Dataset
from harness.errors import DataError, HarnessError, UsageError, did_you_mean
from harness.pipeline import Event, Pipeline, Watch
from harness.plan import PlannedRun
from harness.records import Run
from harness.spec import Spec
from harness.store import Snapshot, Store


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `run` came to: how many runs it did, and whether every run of the snapshot has now ended."""

    did: int
    ended: bool
    faults: tuple[str, ...]
    """Tracebacks of faults of the code (ours or a plug-in's), one for each run that met one."""


def load(spec: Spec) -> Dataset:
    """Load the data of a spec, with what `quality.check` warns of among its notes.

    Raises DataError and LeakError, as `data.load` does, and DataError where a variant is to learn from rows without an
    answer, or a stage cannot be trained on these rows.
    """
    dataset = data.load(spec.data)
    warnings = [str(finding) for finding in quality.of(dataset, spec) if finding.severity == "warning"]
    dataset = replace(dataset, notes=(*dataset.notes, *warnings))
    for variant in spec.variants:
        for stage in variant.train:
            if stage.reads == "examples" and (said := stage.unfit([example.tags for example in dataset.train])):
                raise DataError(f"variant {variant.name}, stage {stage.label}: {said}")
    learning = [
        variant.name
        for variant in spec.variants
        if variant.prompt.reads_train or any(stage.needs_answers for stage in variant.train)
    ]
    if learning and not all(example.targets for example in dataset.train):
        raise DataError(
            f"{', '.join(learning)}: training and shots need rows with answers, and those of data.train have none. "
            "Name the field that holds them, data.target, or leave these variants out."
        )
    return dataset


def prepare(
    spec: Spec, store: Store, *, only: Sequence[str] = (), retry_errors: bool = False
) -> tuple[Dataset, list[PlannedRun]]:
    """Load the data and name every step. Raises DataError, LeakError, ModelError, and UsageError for an `only` that
    names no variant."""
    names = [variant.name for variant in spec.variants]
    for name in only:
        if name not in names:
            raise UsageError(f"--only {name}: no such variant.{did_you_mean(name, names)}")
    dataset = load(spec)
    return dataset, plan.plan(spec, dataset, store, retry=(only or names) if retry_errors else ())


def begin(spec: Spec, store: Store, dataset: Dataset, planned: Sequence[PlannedRun]) -> Snapshot:
    """Open the snapshot of a plan: the experiment's newest one where it planned the same, else a new one."""
    waiting = [_record(spec, run, dataset) for run in planned]
    snapshot = store.begin(spec.name, spec.resolved(), spec.text, waiting)
    snapshot.write_examples(dataset.heldout)
    return snapshot


def run(
    spec: Spec,
    store: Store,
    dataset: Dataset,
    planned: Sequence[PlannedRun],
    snapshot: Snapshot,
    watch: Watch,
    *,
    only: Sequence[str] = (),
) -> Outcome:
    """Do what is missing of the plan, of the variants in `only` where it names any; of others only what the store
    holds already is recorded.

    A run that fails is kept as failed and the others go on. Raises KeyboardInterrupt where `watch` did or the user
    stopped it; what was acknowledged by then is kept, and the same call goes on from there.
    """
    did, faults = 0, []
    worker = Pipeline(spec, dataset, store, watch)
    try:
        for planned_run, saved in zip(planned, snapshot.runs(), strict=True):
            whole = _is_whole(planned_run, store)
            wanted = not only or planned_run.variant.name in only
            if (saved.status == "complete" and whole) or not (wanted or whole):
                continue
            did += 1
            record, fault = _do(planned_run, _record(spec, planned_run, dataset), worker, store, watch)
            snapshot.save_run(_without_places(record, spec, store))
            faults += [fault] if fault else []
    finally:
        worker.close()
    ended = all(run.status in ("complete", "failed") for run in snapshot.runs())
    return Outcome(did, ended, tuple(faults))


def _is_whole(run: PlannedRun, store: Store) -> bool:
    """Whether the store holds every step of a run: one that was damaged may have been deleted."""
    return all(store.step(named.name).outcome is not None for named in run.steps.values())


def _record(spec: Spec, run: PlannedRun, dataset: Dataset) -> Run:
    return Run(
        experiment=spec.name,
        variant=run.variant.name,
        family=run.variant.family,
        seed=run.seed,
        status="waiting",
        steps={role: named.name for role, named in run.steps.items()},
        provenance={
            "fingerprints": dict(dataset.fingerprints),
            "data_notes": list(dataset.notes),
            "leaks": dataset.leaks.summary(),
        },
    )


def _do(run: PlannedRun, record: Run, worker: Pipeline, store: Store, watch: Watch) -> tuple[Run, str | None]:
    """Do one run. Returns how it ended, and the traceback of a fault of the code."""
    record = replace(record, started=_now(), provenance={**record.provenance, **measure.provenance()})
    fault = None
    try:
        worker.do(run)
        notes = _notes(run, store)
        record = replace(record, status="complete", cost=pipeline.cost(run, store), notes=notes)
        if failed := _all_failed(run, store):
            record = replace(record, status="failed", error=failed)
    except HarnessError as error:
        record = replace(record, status="failed", error=str(error))
    except Exception as error:  # One variant's fault must not lose the others: it is kept and shown at the end.
        fault = traceback.format_exc()
        record = replace(record, status="failed", error=f"{type(error).__name__}: {error}")
    if record.status == "failed":
        watch(Event("failed", run.variant.name, run.seed, "", text=record.error or ""))
    return replace(record, ended=_now()), fault


def _without_places(record: Run, spec: Spec, store: Store) -> Run:
    """A run as it is kept: results are shown to others, and where they lay on this machine is none of theirs."""
    places = {store.root.resolve(): "RESULTS", spec.file.resolve().parent: ".", Path.home(): "~"}

    def cleaned(text: str) -> str:
        for place, shown in places.items():
            if place != Path(place.anchor):
                text = text.replace(str(place), shown)
        return text

    error = None if record.error is None else cleaned(record.error)
    return replace(record, error=error, notes=tuple(map(cleaned, record.notes)))


def _all_failed(run: PlannedRun, store: Store) -> str | None:
    """Why a run has no answer at all: the error of its first example."""
    step = store.step(run.steps["predict"].name)
    outcome = step.outcome or {}
    if outcome["failed"] < outcome["n"]:
        return None
    return (
        f"not one of {outcome['n']} examples was answered; the first: {step.prediction(0).error}. "
        "`harness run --retry-errors` asks them again."
    )


def _notes(run: PlannedRun, store: Store) -> tuple[str, ...]:
    notes: list[str] = []
    trained = run.trainings
    for role, named in run.steps.items():
        outcome = store.step(named.name).outcome or {}
        notes += outcome.get("faults", [])
        if outcome.get("answered_again"):
            notes.append(f"failed examples that were answered again (--retry-errors): {outcome['answered_again']}")
        if role == "predict" and outcome["failed"]:
            notes.append(f"{outcome['failed']} of {outcome['n']} examples have no answer and count as wrong")
        if role in trained:
            _, _, stage = role.partition(".")
            variant, _, number = stage.rpartition(".")
            notes += training_notes.notes(int(number), outcome.get("details", {}), variant)
    return tuple(notes)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def stop_gently(tell: Callable[[], None]) -> Iterator[Watch]:
    """Make the first Ctrl-C wait for the batch in work, and the second stop at once.

    Gives a watcher that raises KeyboardInterrupt at the first event after Ctrl-C, when all is saved. While the run
    waits for another process there is nothing to save, and the first one stops it. `tell` is called at the first.
    """
    pressed = waiting = False

    def press(signum: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed or waiting:
            raise KeyboardInterrupt
        pressed = True
        with suppress(RuntimeError):  # The stream may be in the midst of a write.
            tell()

    def check(event: Event) -> None:
        nonlocal waiting
        waiting = event.kind == "wait"
        if pressed and event.kind != "failed":
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, press)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
