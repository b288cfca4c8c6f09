"""How long the command line takes to start: the median of nine calls, beside a bare Python.

    python bench/startup.py

Targets on two cores: `harness --help` 0.2 s, `harness check specs/quickstart.toml` 0.7 s.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CALLS = {
    "python -c pass": ["-c", "pass"],
    "harness --help": ["-m", "harness", "--help"],
    "harness check specs/quickstart.toml": ["-m", "harness", "check", "specs/quickstart.toml"],
}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    # Alternating, so that a busy moment of the machine meets all of them.
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(9):
        for name, arguments in CALLS.items():
            times[name].append(seconds(arguments))
    print(json.dumps({name: round(statistics.median(each), 3) for name, each in times.items()}, indent=2))


if __name__ == "__main__":
    main()
