"""The `[data]` table of a spec: where the examples and documents are, and which copies of them are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_serializer, model_validator

from harness.errors import Fault
from harness.layers import fault
from harness.leaks import SIMILARITY
from harness.plugins import Embedder, Family, Local, Reads
from harness.shape import Table
from harness.toml_lines import Node

Share = Annotated[float, Field(gt=0, lt=1)]
_TEXTS = ({"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1})
Place = Annotated[str, Local(choice=True), WithJsonSchema({"anyOf": list(_TEXTS)})]
Split = Place | Share | None
Named = str | Annotated[tuple[str, ...], Field(min_length=1)]
"""A field of the rows: the first of several that a file has."""
SPLITS = ("train", "dev", "heldout")
COLUMNS = ("input", "target", "group", "tags", "id", "source")
Column = Annotated[
    Named | None,
    BeforeValidator(lambda value: None if value is False else value),
    WithJsonSchema({"anyOf": [*_TEXTS, {"const": False}]}),
]
"""A field of the rows, or `false` for none."""


class LeakRules(Table):
    """The `leaks` table of `[data]`: which copies of held-out examples are refused. Exact ones always are."""

    similarity: float = Field(SIMILARITY, gt=0.5, le=1)
    """Share of the words from which two texts are near-copies."""
    allow: tuple[Literal["near", "embedded", "documents", "meaning"], ...] = ()
    """Kinds of leaks that do not stop a run; what was found is shown with every result."""
    embedder: Annotated[Embedder, Family("embedders")] | None = None
    """Search by meaning too, with this embedder, at the start of every run; by default off."""
    meaning: float = Field(0.95, gt=0.5, le=1)
    """Cosine from which two inputs mean the same, where an embedder is named."""

    @field_serializer("embedder")
    def _settings(self, embedder: Embedder | None) -> dict[str, Any] | None:
        return embedder.settings() if embedder else None


class Task(Table):
    """A `[[data.task]]` table: one of several data sets. Its rows get the task's name as a tag, and as the beginning of
    their id. What it does not name is as in `[data]`, the splits apart."""

    name: str = Field(min_length=1)
    """The task's name: the tag of its rows, by which `harness slices` tells their scores apart."""
    train: Split = None
    """Its examples to learn from."""
    dev: Split = None
    """Its examples that stop training early."""
    heldout: Split = None
    """Its examples that every variant answers."""
    rows: Place | None = None
    """One file to split by shares."""
    input: Named = "input"
    """The field with the question."""
    target: Column = "target"
    """The field with the accepted answer."""
    group: Column = None
    """The field whose equal values are never split across train and held-out, those of other tasks included."""
    tags: Column = None
    """The field with further tags."""
    id: Column = None
    """The field with a name for each example."""
    source: Column = None
    """The field that names the document with the answer."""


class DataSpec(Table):
    """The `[data]` table: where the examples and documents are, and which fields hold what.

    A split is a file, `hf:owner/name[/config][:split]`, or a share of `rows`. Paths are absolute here. A field is
    named by its key, or by a dotted path into nested values; of an array of names the first counts that a file has;
    `false` says that the rows have none.
    """

    train: Split = None
    """Examples that shots and training may use. With `rows`, what the other splits leave."""
    dev: Split = None
    """Examples that stop training early. Never answered for the leaderboard."""
    heldout: Split = None
    """Examples that every variant answers; nothing else may see them."""
    train_limit: int | None = Field(None, ge=1)
    """How many rows of the train split are used at most: a draw by `seed`, in the order of the file."""
    dev_limit: int | None = Field(None, ge=1)
    """The same for dev."""
    heldout_limit: int | None = Field(None, ge=1)
    """The same for held-out."""
    rows: Place | None = None
    """One file to split by shares, such as `heldout = 0.2`, whole groups at a time."""
    preferences: Place | None = None
    """Judged answers for preference learning: pairs, ranked lists, or single answers with a thumb."""
    preferences_dev: Split = 0.2
    """What of them is kept from training, to measure by: a share, whole prompts and groups, or another file."""
    conversations: Place | None = None
    """Whole conversations to learn from, calls of tools among them: rows of "messages" and "tools"."""
    conversations_dev: Split = 0.1
    """What of them is kept from training, to measure by: a share, whole groups at a time, or another file."""
    text: Place | None = None
    """Plain text for continued pretraining: a folder or a file of rows, as `documents`, which are taken without it."""
    documents: Place | None = None
    """What to retrieve from: a folder of .md, .txt and .html files, or a file of rows."""
    input: Named = "input"
    """The field with the question."""
    target: Column = "target"
    """The field with the accepted answer, or an array of them. Training and shots need one."""
    group: Column = None
    """The field whose equal values are never split across held-out and what is learned (train, dev, preferences,
    conversations); clusters for the statistics."""
    tags: Column = None
    """The field with tags, by which results can be sliced."""
    id: Column = None
    """The field with a name for each example that is stable across splits."""
    source: Column = None
    """The field that names the document, or documents, with the answer: what recall of a retriever is measured by."""
    same_facts: bool = False
    """Permit groups and rephrasings that stand in train and held-out both: memorising instead of generalising."""
    leaks: LeakRules = LeakRules()
    """What counts as a copy of a held-out example, and what of it is permitted."""
    seed: int = 0
    """Which split of `rows` is drawn."""
    tasks: tuple[Task, ...] = Field((), alias="task")
    """Several data sets at once, for multi-task training."""

    @model_validator(mode="before")
    @classmethod
    def _tasks_have_the_fields_of_the_data(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("task"), list | tuple):
            return values
        own = {name: values[name] for name in COLUMNS if name in values}
        return values | {"task": [own | task if isinstance(task, dict) else task for task in values["task"]]}

    def of_task(self, task: Task) -> DataSpec:
        """What `[data]` would say were the task alone in it."""
        given = {name: getattr(task, name) for name in (*SPLITS, "rows", *COLUMNS)}
        return self.model_copy(update={"tasks": ()} | given)

    @property
    def alone(self) -> bool:
        """Whether `[data]` names examples itself, beside those of its tasks."""
        return not self.tasks or any(getattr(self, name) is not None for name in (*SPLITS, "rows"))


def faults(data: Node) -> Iterator[Fault]:
    """The faults between the fields of the table `data`."""
    tasks = data.at(("task",)).items
    if not any("heldout" in node.table for node in (data, *tasks)):
        hint = 'name a file, heldout = "heldout.jsonl", or with `rows` a share of it, heldout = 0.2'
        yield fault(data, f"there is no held-out split: {hint}", "heldout")
    seen: set[str] = set()
    for node in (data, *tasks):
        yield from _split_faults(node)
        name = node.text("name")
        if node is not data and name is not None:
            if name in seen:
                yield fault(node.table["name"], f"task {name!r} stands twice")
            seen.add(name)


def _split_faults(node: Node) -> Iterator[Fault]:
    shares = {key: node.table[key] for key in SPLITS if key in node.table}
    shares = {key: child for key, child in shares.items() if type(child.value) in (int, float)}
    rows = node.table.get("rows")
    for child in shares.values() if rows is None else ():
        yield fault(child, 'a share needs the file that is split: rows = "all.jsonl"')
    total = sum(child.value for child in shares.values() if isinstance(child.value, int | float))
    if rows is not None and total > 1 + 1e-9:
        yield fault(rows, f"the shares of the splits come to {total:g}, more than 1")
    if rows is not None and isinstance(node.at(("train",)).value, str):
        yield fault(node.table["train"], "with `rows`, train is what the shares leave of it: name one of the two only")


_NEEDED: dict[Reads, tuple[str, ...]] = {
    "examples": ("train", "rows"),
    "preferences": ("preferences",),
    "documents": ("text", "documents"),
    "conversations": ("conversations",),
    "nothing": (),
}


def has(data: Node, reads: Reads) -> bool:
    """Whether the table `data` names what a training stage reads."""
    tables = (data, *data.at(("task",)).items) if reads == "examples" else (data,)
    return reads == "nothing" or any(name in node.table for node in tables for name in _NEEDED[reads])


def wanted(reads: Reads) -> str:
    """What `[data]` has to name for a stage to have something to read."""
    return " or ".join(f"`{name}`" for name in _NEEDED[reads] if name != "rows")
