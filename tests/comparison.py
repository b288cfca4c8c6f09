"""A small comparison in a folder of its own, and the `harness` command run on it, here or as a process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from harness.cli import main
from harness.step import Step
from harness.store import Store

TESTS = Path(__file__).resolve().parent

FRUIT = {
    "apple": "red",
    "banana": "yellow",
    "cherry": "crimson",
    "damson": "blue",
    "elderberry": "black",
    "fig": "purple",
    "gooseberry": "green",
    "hawthorn": "scarlet",
}
LEARNT = {"lemon": "golden", "mango": "orange", "nectarine": "peachy", "olive": "drab"}

SPEC = """
name     = "fruit"
question = "Does reading help?"
baseline = "plain"

[model]
kind      = "toys:Counted"
max_batch = 3
default   = "no idea"

[model.answers]
apple = "red"
banana = "yellow"
"cherry is crimson" = "crimson"
"damson is blue" = "blue"
"elderberry is black" = "black"
"fig is purple" = "purple"

[data]
train     = "train.jsonl"
heldout   = "heldout.jsonl"
documents = "pages"
id        = "id"
group     = "fruit"
source    = "fruit"

[latency]
examples = 2

[tracking]
mode = "off"

[[metric]]
kind      = "exact_match"
normalise = "none"

[[metric]]
kind = "recall"
k    = 1
"""

VARIANTS = """
[[variant]]
name = "plain"

[[variant]]
name     = "rag"
retrieve = { kind = "toys:Words", top_k = 1 }

[[variant]]
name  = "lora"
train = [{ kind = "toys:Steps" }]

[[variant]]
name     = "lora+rag"
retrieve = { kind = "toys:Words", top_k = 1 }
train    = [{ kind = "toys:Steps" }]

[[variant]]
name     = "raft"
retrieve = { kind = "toys:Words", top_k = 1 }
train    = [{ kind = "toys:Steps", context = "retrieved" }]
"""


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Comparison:
    """A folder with a spec, its data and results, and a log of what the toys in it did."""

    def __init__(self, folder: Path, variants: str = VARIANTS, spec: str = SPEC) -> None:
        self.folder, self.results = folder, folder / "results"
        self.spec, self.log, self.broken = folder / "fruit.toml", folder / "log.txt", folder / "broken.txt"
        (folder / "pages").mkdir(parents=True)
        for fruit, colour in (FRUIT | LEARNT).items():
            (folder / "pages" / f"{fruit}.md").write_text(f"The {fruit} is {colour} when it is ripe.")
        self.write_rows("heldout", FRUIT, ".")
        self.write_rows("train", LEARNT, ".")
        self.write(spec + variants)

    def write(self, text: str) -> None:
        self.spec.write_text(text, encoding="utf-8")

    def edit(self, old: str, new: str) -> None:
        text = self.spec.read_text(encoding="utf-8")
        assert old in text
        self.write(text.replace(old, new))

    def write_rows(self, split: str, colours: dict[str, str], ending: str) -> None:
        rows = [
            {"id": fruit, "input": f"What colour is a ripe {fruit}?", "target": colour + ending, "fruit": fruit}
            for fruit, colour in colours.items()
        ]
        (self.folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    # ------------------------------------------------------------------------------------------------- running it

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("HARNESS_RESULTS", "COLUMNS")}
        return kept | {
            "PYTHONPATH": str(TESTS),
            "TOYS_LOG": str(self.log),
            "TOYS_BROKEN": str(self.broken),
            "HARNESS_RESULTS": str(self.results),
        }

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Begin `harness ARGUMENTS` as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment | environment,
            cwd=self.folder,
        )

    def command(self, *arguments: str, **environment: str) -> Done:
        """Run `harness ARGUMENTS` in a process of its own to its end."""
        return finish(self.start(*arguments, **environment))

    def call(self, *arguments: str, **environment: str) -> Done:
        """Run `harness ARGUMENTS` in this process."""
        out, err = io.StringIO(), io.StringIO()
        here = mock.patch.dict(os.environ, self.environment | environment, clear=True)
        with here, contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
        return Done(status, out.getvalue(), err.getvalue())

    def run(self, *options: str, **environment: str) -> Done:
        return self.call("run", str(self.spec), "--display", "plain", *options, **environment)

    def start_run(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        return self.start("run", str(self.spec), "--display", "plain", *options, **environment)

    # ----------------------------------------------------------------------------------------- what came of it

    def logged(self, start: str) -> list[str]:
        """What follows `start` in the lines of the log that begin with it."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [line.removeprefix(start).strip() for line in lines if line.startswith(start)]

    def forget(self) -> None:
        self.log.unlink(missing_ok=True)

    @property
    def store(self) -> Store:
        return Store(self.results, write=False)

    def step(self, variant: str, role: str) -> Step:
        """The step of the newest snapshot's run (its first seed)."""
        run = next(run for run in self.store.snapshot("latest").runs() if run.variant == variant)
        return self.store.step(run.steps[role])

    def board(self, ref: str = "latest") -> dict[str, Any]:
        board: dict[str, Any] = self.call("leaderboard", ref, "--json").json
        return board

    def values(self, ref: str = "latest") -> dict[str, dict[str, Any]]:
        """The leaderboard's figures without what time and memory say."""
        kept = ("input_tokens", "output_tokens", "trainable_parameters", "artifact_bytes")
        return {
            row["variant"]: {
                "status": row["status"],
                "rank": row["rank"],
                "metrics": row["metrics"],
                "difference": row["vs_baseline"],
                "cost": {name: row["cost"][name] for name in kept},
            }
            for row in self.board(ref)["rows"]
        }


def finish(process: subprocess.Popen[str], timeout: float = 60) -> Done:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it did not end:\n{out}\n{err}") from None
    return Done(process.returncode, out, err)


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 60) -> None:
    """Wait until `condition` holds while `process` runs."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"it ended too early: {finish(process)}")
        if time.monotonic() > end:
            process.kill()
            raise AssertionError(f"it did not come to it: {finish(process)}")
        time.sleep(0.01)


def kill(process: subprocess.Popen[str]) -> None:
    """End it as a power cut would."""
    process.send_signal(signal.SIGKILL)
    finish(process)
