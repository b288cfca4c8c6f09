"""A step of the work (index, train, predict, score, ...), kept once under the digest of all that can change it."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness import files
from harness.errors import StoreError
from harness.records import Prediction, Score, dump_json, load_json
from harness.rows import Answers, Rows, read_batches, write_rows

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def checked_name(name: str, what: str) -> str:
    """Return `name` if it can be a folder on every system and stays in the results folder; else raise StoreError."""
    if not _NAME.fullmatch(name) or name.endswith(".") or _DEVICES.fullmatch(name):
        allowed = "letters, digits, '.', '_' and '-', beginning with a letter or digit, at most 100"
        raise StoreError(f"{name!r} cannot be the name of {what}: allowed are {allowed}.")
    return name


def inside(root: Path, path: Path) -> Path:
    """Return `path` if it lies in `root` after all links are followed; else raise StoreError."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise StoreError(f"{path} leads out of the results folder {root}: a link is in the way. Remove it.")
    return path


class Step:
    """One step's folder. `step.json` holds its inputs, `complete.json` (written last) its outcome.

        with step.lock(waiting):
            if step.outcome is None:
                step.start(inputs)
                ...                       # files go into step.path; what must outlive a kill, into step.work
                step.complete(outcome)

    Without a writer everything here may be called while another process works on the step.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.name = checked_name(name, "a step")
        self.root = root
        self.path = inside(root, root / "steps" / name)
        self.work = self.path / files.WORK
        self._remedy = f"`harness delete {name}` removes the step; the next run does it again."
        self._rows: tuple[int, Rows[Prediction]] | None = None

    # ---------------------------------------------------------------------------------------------- the life of it

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[], None] | None = None) -> Iterator[files.Lock]:
        """Hold the step alone, among processes and threads. Calls `waiting` once if another holds it now.

        The system releases it when the holder dies. Not reentrant. Look at `outcome` again once it is yours.
        """
        lock = files.Lock(self.lock_path)
        lock.acquire(waiting=waiting)
        try:
            yield lock
        finally:
            lock.release()

    @property
    def lock_path(self) -> Path:
        return self.root / "locks" / f"{self.name}.lock"

    @property
    def busy(self) -> bool:
        """Whether a living process works on the step now."""
        return files.is_held(self.lock_path)

    def start(self, inputs: dict[str, Any]) -> None:
        """Begin, or go on after a kill: what lies outside `work` from an attempt before is removed. Hold the lock.

        Raises StoreError where the step is complete: its content is immutable.
        """
        if (self.path / files.SEAL).exists():
            raise StoreError(f"the step {self.name} is complete and stays as it is. {self._remedy}")
        files.make_folder(self.work)
        with files.disk(self.path):
            for entry in self.path.iterdir():
                if entry.name not in (files.WORK, "step.json"):
                    files.remove_tree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        if not (self.path / "step.json").exists():
            files.write_json(self.path / "step.json", {"name": self.name, "started": files.now(), "inputs": inputs})

    def complete(self, outcome: dict[str, Any]) -> None:
        """Make every file durable, write `complete.json` with `outcome` and the files' digests, and remove `work`."""
        files.seal(self.path, outcome)
        if self.work.exists():
            files.remove_tree(self.work)

    @property
    def outcome(self) -> dict[str, Any] | None:
        """What `complete` was given, or None until then. Raises StoreError where the step is damaged."""
        found = self._seal()
        return found.payload if found else None

    @property
    def inputs(self) -> dict[str, Any] | None:
        """What `start` was given, or None before it."""
        inputs: dict[str, Any] | None = self._about().get("inputs")
        return inputs

    @property
    def started(self) -> str:
        """When the step was first begun (UTC, ISO 8601), or "" before."""
        return str(self._about().get("started", ""))

    def _about(self) -> dict[str, Any]:
        if not (self.path / "step.json").exists():
            return {}
        about = self.read_json("step.json")
        if not isinstance(about, dict) or not isinstance(about.get("inputs"), dict):
            raise files.damaged(self.path / "step.json", "it holds no inputs", self._remedy)
        return about

    def verify(self) -> None:
        """Read every file of a complete step. Raises StoreError at the first that is not what was written."""
        files.verify(self.path, self._remedy)

    def _seal(self) -> files.Seal | None:
        return files.read_seal(self.path, self._remedy)

    # -------------------------------------------------------------------------------------------------- its files

    def write_json(self, name: str, value: object) -> None:
        """Write a JSON file into the step, atomically. Raises ValueError for numbers that are not finite."""
        files.write_json(self._file(name), value)

    def read_json(self, name: str) -> Any:
        return files.parse_json(self.path / name, self._read(name), self._remedy)

    def write_score(self, score: Score) -> None:
        """Write `score.json`. Raises ValueError for numbers that are not finite."""
        if not all(math.isfinite(number) for row in score.statistics if row is not None for number in row):
            raise ValueError(f"the score {score.name} holds numbers that are not finite")
        files.write_bytes(self._file("score.json"), dump_json(score) + b"\n")

    def score(self) -> Score:
        data = self._read("score.json")
        try:
            return load_json(Score, data)
        except ValidationError as error:
            raise files.damaged(self.path / "score.json", "it is no score", self._remedy) from error

    def _file(self, name: str) -> Path:
        for part in name.split("/"):
            checked_name(part, "a file of a step")
        path = self.path / name
        files.make_folder(path.parent)
        return path

    def _read(self, name: str) -> bytes:
        return files.read_sealed(self.path, name, self._seal(), self._remedy)

    # -------------------------------------------------------------------------------------------------- predictions

    def answers(self) -> Answers:
        """Open the writer of predictions in the making; its `batches` are those acknowledged before. Hold the lock."""
        files.make_folder(self.work)
        return Answers(self.work / "answers.jsonl")

    def recovered(self) -> list[list[Prediction]]:
        """Return the batches acknowledged so far; also while another process is appending. Empty once complete."""
        return read_batches(self.work / "answers.jsonl")[0]

    def write_predictions(self, predictions: Iterable[Prediction]) -> int:
        """Write `predictions.jsonl`, one for each held-out example in their order, and its index; return how many."""
        files.make_folder(self.path)
        return write_rows(self.path / "predictions.jsonl", predictions)

    def predictions(self) -> Rows[Prediction]:
        """Return the predictions as rows: iterate, `len`, `[i]`, `find(id)`; opening does not read them."""
        path = self.path / "predictions.jsonl"
        with files.disk(path, "read"):
            stamp = path.stat().st_mtime_ns
        if self._rows is None or self._rows[0] != stamp:
            self._seal()
            self._rows = (stamp, Rows(path, Prediction, self._remedy))
        return self._rows[1]

    def prediction(self, which: int | str) -> Prediction:
        """Return one prediction by its row or its example's id. Raises StoreError for an id that is not there."""
        rows = self.predictions()
        return rows[which] if isinstance(which, int) else rows.find(which)
