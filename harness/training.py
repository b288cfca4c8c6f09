"""One training step of a plan: the rows that its method reads, the job, and the child process that does it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import fit
from harness.asking import Asking
from harness.data import Dataset
from harness.errors import DataError
from harness.plan import PlannedRun, Stage, question
from harness.plugins import Backend, Metric, Prompt, Trained, TrainJob, made_preferences
from harness.preferences import divide
from harness.records import Document, Example, Preference, dump
from harness.step import Step
from harness.store import Store

DOCUMENTS_DEV = 0.05
"""Share of the documents that continued pretraining keeps to measure by."""
PREFERENCES_DEV = 0.2
"""The same of the prompts of made preferences, where the data has no dev split."""


def train(
    run: PlannedRun,
    role: str,
    *,
    step: Step,
    lock: int,
    model: Backend,
    metrics: Sequence[Metric],
    dataset: Dataset,
    store: Store,
    context: Asking,
    progress: Callable[[int, int, Mapping[str, float]], None],
) -> tuple[Trained, int]:
    """Train the stage of `run` with this role in a child process. `context` is that of its rows' prompts.

    Returns what the stage reports and the child's highest memory in bytes. Raises DataError where there is nothing to
    train on, and what `fit.run` raises.
    """
    stage = run.stages[role]
    rows, out = step.work / "rows", step.path / "artifact"
    for folder in (rows, out):
        folder.mkdir(exist_ok=True)
    made = made_preferences(stage.method)
    train, dev = _rows(stage, dataset, context) if made is None else _made(stage, made, run, store)
    kept = _write(rows / "dev.jsonl", dev) if dev else None
    job = TrainJob(
        train=_write(rows / "train.jsonl", train),
        dev=kept,
        dev_examples=_examples(stage, dataset, context, kept, rows / "examples.jsonl"),
        model=model.table(),
        incoming=artifact(stage.incoming, run, store),
        out=out,
        work=step.work,
        seed=run.seed,
        references={text: _meaning(one, run, store, metrics) for text, one in stage.references.items()},
    )
    return fit.run(stage.method, job, step.work, progress, lock)


def artifact(weights: str | Path | None, run: PlannedRun, store: Store) -> Path | None:
    """The folder of what a stage starts from or a run answers with; None is the bare base."""
    return store.step(run.steps[weights].name).path / "artifact" if isinstance(weights, str) else weights


def _meaning(one: Any, run: PlannedRun, store: Store, metrics: Sequence[Metric]) -> dict[str, Any]:
    """What a reference stands for, as `TrainJob.references` tells it."""
    if isinstance(one, str):
        return {"artifact": str(artifact(one, run, store))}
    match one.kind:
        case "folder":
            return {"artifact": one.name}
        case "metric":
            return {"metric": next(metric for metric in metrics if metric.name == one.name).table()}
        case "model":
            return {"model": one.name}
        case _:
            return {}


# ------------------------------------------------------------------------------------------------------------- rows

Rows = list[dict[str, Any]]


def _examples(stage: Stage, dataset: Dataset, context: Asking, dev: Path | None, file: Path) -> Path | None:
    """The dev examples for the metric of a stage."""
    if stage.method.reads == "examples":
        return dev
    if getattr(stage.method, "metric", None) is None or not dataset.dev:
        return None
    context.prepare(dataset.dev)
    return _write(file, [_of_example(one, stage.variant.prompt, context, None) for one in dataset.dev])


def _rows(stage: Stage, dataset: Dataset, context: Asking) -> tuple[Rows, Rows]:
    """The rows to train on and those to measure by."""
    prompt = stage.variant.prompt
    match stage.method.reads:
        case "documents":
            train, dev = _documents(dataset)
            return [_of_document(one) for one in train], [_of_document(one) for one in dev]
        case "preferences":
            if not dataset.preferences:
                raise DataError(f"{stage.method.kind} learns from preferences: name them, [data] preferences")
            pairs, back = dataset.preferences, dataset.preferences_dev
            return list(_of_preferences(pairs, prompt, context)), list(_of_preferences(back, prompt, context))
        case "nothing":
            return [], []
        case "conversations":
            if not dataset.conversations:
                raise DataError(f"{stage.method.kind} learns from conversations: name them, [data] conversations")
            return list(map(dump, dataset.conversations)), list(map(dump, dataset.conversations_dev))
        case _:
            context.prepare(dataset.dev)
            if context.retrieves:
                context.train_on(dataset.train, stage.method)
            return (
                [_of_example(one, prompt, context, stage.method.cite) for one in dataset.train],
                [_of_example(one, prompt, context, stage.method.cite) for one in dataset.dev],
            )


def _made(stage: Stage, text: str, run: PlannedRun, store: Store) -> tuple[Rows, Rows]:
    """The preferences that the stage `text` made; where it made none to measure by, some of the prompts are kept."""
    role = stage.references[text]
    assert isinstance(role, str), "only a stage makes preferences"
    folder = store.step(run.steps[role].name).path / "artifact"
    train, dev = (_read(folder / name) for name in ("preferences.jsonl", "preferences_dev.jsonl"))
    if not train:
        raise DataError(f"the stage {text!r} made no preferences ({folder / 'preferences.jsonl'}) to learn from")
    if dev:
        return train, dev
    back = divide((row["group"] for row in train), PREFERENCES_DEV, 0)
    return [row for row in train if row["group"] not in back], [row for row in train if row["group"] in back]


def _read(file: Path) -> Rows:
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _of_example(example: Example, prompt: Prompt, context: Asking, cite: str | None) -> dict[str, Any]:
    messages = [dump(message) for message in prompt.messages(question(example), context)]
    answer = example.targets[0] if example.targets else None
    if cite is not None and answer is not None and context.retrieves:
        answer = context.citation(example, cite) + answer
    return {"id": example.id, "messages": messages, "completion": answer, "example": dump(example)}


def _of_preferences(found: Iterable[Preference], prompt: Prompt, context: Asking) -> Iterator[dict[str, Any]]:
    for one in found:
        asked = Example(id=one.id, input=one.input, group=one.group)
        messages = [dump(message) for message in prompt.messages(asked, context)]
        yield {
            "id": one.id, "messages": messages, "chosen": one.chosen, "rejected": one.rejected, "group": one.group,
        }  # fmt: skip


def _documents(dataset: Dataset) -> tuple[list[Document], list[Document]]:
    """The documents to learn from, and those kept from it to measure by."""
    found = dataset.text or dataset.documents
    if not found:
        raise DataError("there is no text to pretrain on: name [data] text or documents")
    back = divide((one.id for one in found), DOCUMENTS_DEV, 0)
    return [one for one in found if one.id not in back], [one for one in found if one.id in back]


def _of_document(document: Document) -> dict[str, Any]:
    return {"id": document.id, "text": document.text}


def _write(file: Path, rows: Rows) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file
