"""The results folder: the only code that knows its layout.

    VERSION                              {"format": 1}
    steps/<name>/                        step.json, the step's files, complete.json last; work/ while it is done
    experiments/<name>/<N>/              one snapshot for each `harness run` that planned something else
        snapshot.json spec.toml          the spec resolved and the planned runs; the spec's text
        runs/<variant>@<seed>.json       what each run came to
        heldout.jsonl heldout.idx        the held-out examples
        leaderboard.json leaderboard.md  complete.json last
    locks/  tmp/  logs/  wandb/          held locks, files in the making, what the tracker writes
    index.json                           summaries of snapshots: a cache, made again whenever it is not right

Plain files that a person can read. What a call acknowledged survives kill -9.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import StoreError, did_you_mean
from harness.records import Run, dump, load
from harness.snapshot import Snapshot, State, Summary, guard, plan_digest
from harness.step import Step, checked_name

FORMAT = 1
DRAFTS = "@drafts.lock"

__all__ = ["DRAFTS", "FORMAT", "Snapshot", "State", "Step", "Store", "Summary"]


class Store:
    """A results folder. `write=False` never changes anything in it, and takes a missing folder for an empty one."""

    def __init__(self, root: Path, write: bool = True) -> None:
        """Open `root`, made if missing. Raises StoreError: not to be written, made by a newer harness, a file there."""
        self.root, self.write = Path(root), write
        path = self.root / "VERSION"
        if write:
            files.make_folder(self.root)
            probe = files.temporary(path)
            with files.disk(self.root):
                probe.touch()
                probe.unlink()
            if not path.exists():
                files.write_json(path, {"format": FORMAT})
        elif self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.root} is a file, not a results folder. Choose another one with --results.")
        if path.exists():
            version = files.read_json(path, 'Write {"format": 1} into it.')
            made = version.get("format") if isinstance(version, dict) else None
            if not isinstance(made, int):
                raise files.damaged(path, "it names no format", 'Write {"format": 1} into it.')
            if made > FORMAT:
                raise StoreError(
                    f"{self.root} was made by a newer harness (format {made}; this one reads up to {FORMAT}): upgrade."
                )

    def must_write(self) -> None:
        if not self.write:
            raise StoreError(f"{self.root} was opened for reading only.")

    # ------------------------------------------------------------------------------------------------------ steps

    def step(self, name: str) -> Step:
        """Return the step of that name, whether it was begun or not."""
        return Step(self.root, name)

    def steps(self) -> Iterator[Step]:
        """Yield every step that was begun, by name."""
        for name in _folders(self.root / "steps"):
            yield Step(self.root, name)

    def made_from(self, used: Collection[str], prefix: str = "") -> Iterator[Step]:
        """Yield every step, of those whose name starts with `prefix`, that was made of steps in `used` alone and says
        so in its inputs (`uses`): verdicts and ratings, which no run refers to. They are in use as long as those are.
        """
        for step in self.steps():
            if step.name.startswith(prefix) and step.name not in used:
                with contextlib.suppress(StoreError):  # one that cannot be read was made of nothing that is known
                    uses = (step.inputs or {}).get("uses")
                    if uses and set(uses) <= set(used):
                        yield step

    # -------------------------------------------------------------------------------------------------- snapshots

    def begin(self, experiment: str, spec: dict[str, Any], text: str, runs: Sequence[Run]) -> Snapshot:
        """Return the snapshot to work on: the experiment's newest if it plans the same, else a new one.

        The same means an equal spec (JSON-able) and the same variants, seeds and steps. One that is complete is
        returned as it is; one that ended with failed runs is opened again, so that they can be tried anew.
        """
        self.must_write()
        if experiment == "latest":
            raise StoreError("'latest' cannot be the name of an experiment: it means the newest one.")
        spec = json.loads(json.dumps(spec, allow_nan=False))
        plan = {"spec": spec, "runs": [dump(run) for run in runs]}
        folder = self.root / "experiments" / checked_name(experiment, "an experiment")
        files.make_folder(folder)
        with self.draft() as draft, guard(self.root, experiment):
            numbers = self.numbers(experiment)
            newest = self._snapshot(experiment, numbers[-1]) if numbers else None
            if newest is None or newest.digest != plan_digest(spec, runs):
                number = numbers[-1] + 1 if numbers else 1
                files.make_folder(draft / "runs")
                files.write_bytes(draft / "spec.toml", text.encode("utf-8", "replace"))
                plan = {"created": files.now(), "digest": plan_digest(spec, runs), **plan}
                files.write_json(draft / "snapshot.json", plan)
                files.move_folder(draft, folder / str(number))
                newest = self._snapshot(experiment, number)
            if newest.state == "failed":
                with files.disk(newest.path):
                    (newest.path / files.SEAL).unlink(missing_ok=True)
            if newest.state != "complete":
                newest.hold()
        self.refresh_index()
        return newest

    @contextlib.contextmanager
    def draft(self) -> Iterator[Path]:
        """Give an empty folder in which something is made ready to be moved to its place; gc waits meanwhile."""
        lock, folder = files.Lock(self.root / "locks" / DRAFTS), self.root / "tmp" / uuid.uuid4().hex
        lock.acquire(shared=True)
        try:
            files.make_folder(folder.parent)
            with files.disk(folder):
                folder.mkdir(mode=0o700)
            yield folder
        finally:
            files.remove_tree(folder)
            lock.release()

    def snapshot(self, ref: str) -> Snapshot:
        """Return a snapshot by "name" (its newest), "name@2" or "latest". Raises StoreError, with what there is."""
        name, _, number = ref.partition("@")
        if ref == "latest":
            readable = [summary for summary in self.experiments() if summary.state != "damaged"]
            if not readable:
                raise StoreError(f"there is no result in {self.root} yet. `harness run SPEC` makes one.")
            newest = max(readable, key=lambda summary: (summary.created, summary.number))
            return self._snapshot(newest.name, newest.number)
        names = self.names()
        if name not in names:
            what = did_you_mean(name, names) if names else " It is empty: `harness run SPEC` makes the first."
            raise StoreError(f"no experiment {name!r} in {self.root}.{what}")
        numbers = self.numbers(name)
        if "@" not in ref:
            return self._snapshot(name, numbers[-1])
        if not number.isdecimal() or int(number) not in numbers:
            kept = ", ".join(f"{name}@{found}" for found in numbers)
            raise StoreError(f"no snapshot {ref!r} in {self.root}. Available: {kept}.")
        return self._snapshot(name, int(number))

    def _snapshot(self, name: str, number: int) -> Snapshot:
        return Snapshot(self.root, name, number, self.refresh_index)

    def snapshots(self) -> Iterator[tuple[str, int]]:
        """Yield (experiment, number) of every snapshot, damaged ones too."""
        for name in self.names():
            for number in self.numbers(name):
                yield name, number

    def names(self) -> list[str]:
        """Return the names of the experiments that have a snapshot."""
        return [name for name in _folders(self.root / "experiments") if self.numbers(name)]

    def numbers(self, experiment: str) -> list[int]:
        """Return the numbers of an experiment's snapshots, rising."""
        names = _folders(self.root / "experiments" / experiment)
        return sorted(int(name) for name in names if re.fullmatch(r"[1-9]\d{0,8}", name))

    # -------------------------------------------------------------------------------------------------- summaries

    def experiments(self) -> list[Summary]:
        """Return the summary of every snapshot, newest first. One that cannot be read is listed as damaged."""
        known = self._read_index()
        found = [self._summary(name, number, known) for name, number in self.snapshots()]
        return sorted((entry for _, entry in found), key=lambda entry: (entry.created, entry.number), reverse=True)

    def refresh_index(self) -> None:
        """Write `index.json` anew, in as far as it can be written: it is never the truth."""
        known = self._read_index()
        found = [self._summary(name, number, known) for name, number in self.snapshots()]
        entries = {entry.ref: [stamp, dump(entry)] for stamp, entry in found if stamp is not None}
        try:
            files.write_json(self.root / "index.json", {"format": FORMAT, "snapshots": entries})
        except StoreError:
            return

    def _read_index(self) -> dict[str, Any]:
        try:
            body = json.loads((self.root / "index.json").read_bytes())
            return dict(body["snapshots"]) if body["format"] == FORMAT else {}
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return {}

    def _summary(self, name: str, number: int, known: dict[str, Any]) -> tuple[list[int] | None, Summary]:
        """Return a summary and, where its snapshot is settled, the stamp under which the index may keep it."""
        path = self.root / "experiments" / name / str(number) / files.SEAL
        try:
            about = path.stat()
            stamp = [about.st_mtime_ns, about.st_size]
        except OSError:
            stamp = None
        try:
            kept, data = known[f"{name}@{number}"]
            if stamp is not None and kept == stamp:
                return stamp, load(Summary, data)
        except (KeyError, TypeError, ValueError):
            pass
        try:
            return stamp, self._snapshot(name, number).summary()
        except StoreError as error:
            return None, Summary(name=name, number=number, state="damaged", problem=str(error))


def _folders(folder: Path) -> list[str]:
    """Return the names of the folders in `folder`, sorted; a missing folder has none."""
    if not folder.is_dir():
        return []
    with files.disk(folder, "read"):
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
