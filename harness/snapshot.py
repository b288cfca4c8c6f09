"""One run of an experiment as it is kept: the plan, what each run came to, the held-out examples, the leaderboard."""

from __future__ import annotations

import contextlib
import json
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from harness import files
from harness.records import Example, Run, digest, dump_json, load, load_json
from harness.rows import Rows, write_rows
from harness.step import checked_name, inside

State = Literal["running", "interrupted", "complete", "failed", "damaged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One snapshot in a list. `winner` and `value` are the leaderboard's first row and its primary metric;
    `done` counts runs that are complete or failed; `problem` says why a damaged one cannot be read."""

    name: str
    number: int
    state: State
    question: str = ""
    created: str = ""
    ended: str = ""
    baseline: str = ""
    variants: tuple[str, ...] = ()
    runs: int = 0
    done: int = 0
    failed: int = 0
    heldout_n: int | None = None
    primary: str = ""
    winner: str = ""
    value: float | None = None
    problem: str = ""

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"


@contextlib.contextmanager
def guard(root: Path, experiment: str) -> Iterator[None]:
    """Keep other processes from changing an experiment's snapshots for a moment. Not reentrant."""
    lock = files.Lock(root / "locks" / f"{experiment}@.lock")
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def run_file(variant: str, seed: int) -> str:
    """Return the file name of a run; a variant's name may hold any character."""
    quoted = urllib.parse.quote(variant, safe="")
    return f"{quoted if len(quoted) <= 150 else digest(variant)}@{seed}.json"


class Snapshot:
    """One run of an experiment: what was planned, what each run came to, the leaderboard. Immutable once complete.

    One that `Store.begin` gave counts as running until `finish` or `close` or the death of the process. Several
    processes may work on one snapshot: the first to finish settles it.
    """

    def __init__(self, root: Path, name: str, number: int, settled: Callable[[], None] = lambda: None) -> None:
        """Open what is there; `settled` is called when `finish` has ended. Raises StoreError where it is damaged."""
        self.name, self.number, self._root, self._settled = checked_name(name, "an experiment"), number, root, settled
        self.path = inside(root, root / "experiments" / name / str(number))
        self._remedy = f"`harness delete {self.ref}` removes it; the steps it used stay for the next run."
        self._lock = files.Lock(root / "locks" / f"{self.ref}.lock")
        if not (self.path / "snapshot.json").exists():
            raise files.damaged(self.path / "snapshot.json", "it is missing", self._remedy)
        plan = files.read_json(self.path / "snapshot.json", self._remedy)
        try:
            self.spec: dict[str, Any] = plan["spec"]
            self.created: str = plan["created"]
            self.digest: str = plan["digest"]
            self.planned: tuple[Run, ...] = tuple(load(Run, run) for run in plan["runs"])
            intact = plan["digest"] == plan_digest(self.spec, self.planned)
        except (KeyError, TypeError, ValidationError) as error:
            raise files.damaged(self.path / "snapshot.json", "it is no plan", self._remedy) from error
        if not intact:
            raise files.damaged(self.path / "snapshot.json", "its content does not match its digest", self._remedy)

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"

    @property
    def text(self) -> str:
        """The spec as its author wrote it."""
        return files.read_sealed(self.path, "spec.toml", self._seal(), self._remedy).decode("utf-8", "replace")

    @property
    def running(self) -> bool:
        """Whether a living process works on it."""
        return files.is_held(self._lock.path)

    @property
    def state(self) -> State:
        if found := self._seal():
            return "failed" if found.payload.get("failed") else "complete"
        return "running" if self.running else "interrupted"

    @property
    def ended(self) -> str:
        """When it was finished (UTC, ISO 8601), or ""."""
        found = self._seal()
        return found.ended if found else ""

    # ------------------------------------------------------------------------------------------------------- runs

    def save_run(self, run: Run) -> None:
        """Write what a run came to, atomically. A complete snapshot stays as it is."""
        if (run.variant, run.seed) not in {(other.variant, other.seed) for other in self.planned}:
            raise ValueError(f"{self.ref} plans no run of {run.variant} with seed {run.seed}")
        with guard(self._root, self.name):
            if not (self.path / files.SEAL).exists():
                files.write_bytes(self.path / "runs" / run_file(run.variant, run.seed), dump_json(run) + b"\n")

    def runs(self) -> list[Run]:
        """Return the runs in the order of the plan: as saved, or as planned where nothing was saved yet."""
        found = self._seal()
        return [self._run(run, found) for run in self.planned]

    def _run(self, planned: Run, found: files.Seal | None) -> Run:
        name = f"runs/{run_file(planned.variant, planned.seed)}"
        path = self.path / name
        if not path.exists():
            return planned
        try:
            run = load_json(Run, files.read_sealed(self.path, name, found, self._remedy))
        except ValidationError as error:
            raise files.damaged(path, "it is no run", self._remedy) from error
        if (run.variant, run.seed) != (planned.variant, planned.seed):
            raise files.damaged(path, f"it is of {run.variant!r} with seed {run.seed}", self._remedy)
        return run

    def steps(self) -> set[str]:
        """Return the names of all steps that its runs, planned and saved, refer to."""
        return {name for run in (*self.planned, *self.runs()) for name in run.steps.values()}

    # --------------------------------------------------------------------------------------------------- examples

    def write_examples(self, examples: Iterable[Example]) -> None:
        """Keep the held-out examples with the snapshot, for the page and the tracker. Does nothing the second time."""
        with guard(self._root, self.name):
            if not (self.path / "heldout.idx").exists() and not (self.path / files.SEAL).exists():
                write_rows(self.path / "heldout.jsonl", examples)

    def examples(self) -> Rows[Example]:
        """Return the held-out examples as rows: iterate, `len`, `[i]`, `find(id)`."""
        self._seal()
        return Rows(self.path / "heldout.jsonl", Example, self._remedy)

    # -------------------------------------------------------------------------------------------------------- end

    def finish(self, leaderboard: dict[str, Any], markdown: str) -> None:
        """Write the leaderboard, then `complete.json`, last. A complete snapshot stays as it is."""
        with guard(self._root, self.name):
            runs = self.runs()
            open_runs = [run.variant for run in runs if run.status not in ("complete", "failed")]
            if open_runs:
                raise ValueError(f"{self.ref} has runs that are neither complete nor failed: {', '.join(open_runs)}")
            if not (self.path / files.SEAL).exists():
                files.write_json(self.path / "leaderboard.json", leaderboard)
                files.write_bytes(self.path / "leaderboard.md", markdown.encode())
                failed = [f"{run.variant}@{run.seed}" for run in runs if run.status == "failed"]
                files.seal(self.path, {"failed": failed})
        self.close()
        self._settled()

    @property
    def leaderboard(self) -> dict[str, Any] | None:
        """What `finish` was given, or None until then."""
        found = self._seal()
        if found is None:
            return None
        data = files.read_sealed(self.path, "leaderboard.json", found, self._remedy)
        board = files.parse_json(self.path / "leaderboard.json", data, self._remedy)
        if not isinstance(board, dict):
            raise files.damaged(self.path / "leaderboard.json", "it is no leaderboard", self._remedy)
        return board

    def hold(self) -> None:
        """Count as running until `finish`, `close` or the death of this process."""
        self._lock.acquire(shared=True)

    def close(self) -> None:
        """Stop counting as running."""
        self._lock.release()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def summary(self) -> Summary:
        runs, board = self.runs(), self.leaderboard or {}
        try:
            rows: list[dict[str, Any]] = [row for row in board.get("rows", ()) if row["status"] == "complete"]
            best = rows[0] if rows else {}
            primary = str(board.get("primary") or "")
            return Summary(
                name=self.name,
                number=self.number,
                state=self.state,
                question=str(self.spec.get("question", "")),
                created=self.created,
                ended=self.ended,
                baseline=str(self.spec.get("baseline", "")),
                variants=tuple(dict.fromkeys(run.variant for run in self.planned)),
                runs=len(runs),
                done=sum(run.status in ("complete", "failed") for run in runs),
                failed=sum(run.status == "failed" for run in runs),
                heldout_n=(board.get("heldout") or {}).get("n"),
                primary=primary,
                winner=best.get("variant", ""),
                value=best.get("metrics", {}).get(primary, {}).get("value"),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise files.damaged(self.path / "leaderboard.json", "it is no leaderboard", self._remedy) from error

    def _seal(self) -> files.Seal | None:
        return files.read_seal(self.path, self._remedy)


def plan_digest(spec: dict[str, Any], runs: Sequence[Run]) -> str:
    steps = [[run.variant, run.family, run.seed, run.steps] for run in runs]
    return digest(json.loads(json.dumps({"spec": spec, "runs": steps}, allow_nan=False)), 64)
