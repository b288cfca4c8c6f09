"""What `make demo` takes once everything is installed, and what a second one takes.

    python bench/demo.py [--set PATH=VALUE ...]

Runs specs/quickstart.toml into an empty results folder, then again, and prints seconds, the highest memory of all its
processes together (resident bytes, sampled twice a second), whether the second run changed any file, and the targets
on two cores: 15 minutes, 6 GiB, and 5 s for the second.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
TARGETS = {"seconds": 900.0, "peak_memory_bytes": 6 * 2**30, "second_seconds": 5.0}


def run(results: Path, overrides: list[str]) -> tuple[float, int]:
    """Return the seconds of one run and the highest memory of its process tree."""
    settings = [part for text in overrides for part in ("--set", text)]
    start, peak = time.perf_counter(), 0
    child = psutil.Popen(
        [sys.executable, "-m", "harness", "run", "specs/quickstart.toml", "--results", str(results), *settings],
        cwd=ROOT,
    )
    while child.poll() is None:
        peak = max(peak, sum(resident(process) for process in [child, *children(child)]))
        time.sleep(0.5 if time.perf_counter() - start > 10 else 0.05)
    if child.returncode:
        raise SystemExit(f"the run ended with status {child.returncode}")
    return time.perf_counter() - start, peak


def children(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.Error:
        return []
    return found


def resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def state(results: Path) -> dict[str, int]:
    """When each file of the results was last written; the tracker's own files are left out."""
    files = (file for file in results.rglob("*") if file.is_file())
    kept = (file for file in files if file.relative_to(results).parts[0] in ("steps", "experiments"))
    return {str(file): file.stat().st_mtime_ns for file in kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE")
    overrides = parser.parse_args().overrides
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        seconds, peak = run(results, overrides)
        before = state(results)
        second, _ = run(results, overrides)
        found = {"seconds": round(seconds, 1), "peak_memory_bytes": peak, "second_seconds": round(second, 2)}
        met = {name: found[name] <= most for name, most in TARGETS.items()}
        print(json.dumps({**found, "second_changed_nothing": state(results) == before, "targets_met": met}, indent=2))


if __name__ == "__main__":
    main()
