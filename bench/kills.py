"""Kill a run in training, in answering and in scoring, run it again, and compare it with one that was left alone.

    python bench/kills.py [SPEC] [--set PATH=VALUE ...]

Runs SPEC (default: specs/quickstart.toml) once undisturbed and once with three SIGKILLs of the whole process group,
each into a results folder of its own. Says for each kill where it struck and how many answers had been acknowledged by
then, and at the end whether both leaderboards hold the same metrics and differences to the last digit, whether both
gave the same answers, and whether every acknowledged answer stands in the final predictions byte for byte, its
measured seconds included: then none was answered twice. Exits 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def command(arguments: argparse.Namespace, results: Path) -> list[str]:
    settings = [part for text in arguments.overrides for part in ("--set", text)]
    return [sys.executable, "-m", "harness", "run", str(arguments.spec), "--results", str(results), *settings]


def training(results: Path) -> bool:
    """Whether a stage has taken three steps and is not done."""
    found = results.glob("steps/train-*/work/curves.jsonl")
    return any(len(file.read_text(encoding="utf-8").splitlines()) >= 3 for file in found)


def answering(results: Path) -> bool:
    """Whether a step of answers, after training, has acknowledged a batch and is not done."""
    trained = any(results.glob("steps/train-*/complete.json"))
    return trained and any(acknowledged(file) for file in results.glob("steps/predict-*/work/answers.jsonl"))


def scoring(results: Path) -> bool:
    """Whether a score was begun and is not done."""
    return any(not (folder / "complete.json").exists() for folder in results.glob("steps/score-*"))


def acknowledged(file: Path) -> list[bytes]:
    """The lines of predictions, each with its end, up to the last mark that ends a batch."""
    whole, batch = [], []
    for line in file.read_bytes().splitlines(keepends=True):
        if line.startswith(b'{"id"'):
            batch.append(line)
        elif line.endswith(b"\n"):
            whole += batch
            batch = []
    return whole


def kill_when(struck: Callable[[Path], bool], arguments: argparse.Namespace, results: Path) -> dict[str, list[bytes]]:
    """Start the run, kill its process group as soon as `struck` holds, and return what was acknowledged by then."""
    child = subprocess.Popen(
        command(arguments, results),
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    before = {folder.name for folder in results.glob("steps/score-*")}
    while child.poll() is None:
        fresh = struck is not scoring or {folder.name for folder in results.glob("steps/score-*")} - before
        if fresh and struck(results):
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            time.sleep(1)  # The training process notices that its parent is gone.
            kept = {
                file.parent.parent.name: acknowledged(file)
                for file in results.glob("steps/predict-*/work/answers.jsonl")
            }
            finished = {file.parent.name: file.read_bytes().splitlines(True) for file in predictions(results)}
            return kept | finished
        time.sleep(0.0005 if struck is scoring else 0.02)
    raise SystemExit(f"the run ended with status {child.returncode} before it could be killed in {struck.__name__}")


def predictions(results: Path) -> list[Path]:
    return [
        file for file in results.glob("steps/predict-*/predictions.jsonl") if (file.parent / "complete.json").exists()
    ]


def figures(results: Path) -> dict[str, Any]:
    """What the leaderboard says of each variant, without what was timed."""
    board = json.loads(max(results.glob("experiments/*/*/leaderboard.json")).read_text(encoding="utf-8"))
    return {row["variant"]: [row["status"], row["rank"], row["metrics"], row["vs_baseline"]] for row in board["rows"]}


def texts(results: Path) -> dict[str, list[str | None]]:
    return {
        file.parent.name: [json.loads(line)["text"] for line in file.read_bytes().splitlines()]
        for file in predictions(results)
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path, nargs="?", default=ROOT / "specs" / "quickstart.toml")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE")
    arguments = parser.parse_args()
    arguments.overrides.append("tracking.mode=off")
    with tempfile.TemporaryDirectory() as folder:
        left_alone, killed = Path(folder) / "alone", Path(folder) / "killed"
        subprocess.run(command(arguments, left_alone), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        kept: dict[str, list[bytes]] = {}
        for struck in (scoring, training, answering):
            now = kill_when(struck, arguments, killed)
            for name, lines in now.items():
                kept.setdefault(name, []).extend(lines)
            print(f"killed in {struck.__name__}: {sum(map(len, now.values()))} answers acknowledged", flush=True)
        subprocess.run(command(arguments, killed), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        final = {file.parent.name: set(file.read_bytes().splitlines(True)) for file in predictions(killed)}
        found = {
            "same leaderboard": figures(left_alone) == figures(killed),
            "same answers": texts(left_alone) == texts(killed),
            "no acknowledged answer was given again": all(set(lines) <= final[name] for name, lines in kept.items()),
        }
    print(json.dumps(found, indent=2))
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
