"""`harness pack`: write an experiment and all its steps into one archive."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands._common import experiment_argument, open_snapshot, say

HELP = "write an experiment and all its steps into one archive"


def arguments(word: argparse.ArgumentParser) -> None:
    experiment_argument(word)
    word.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: NAME-N.zip")


def run(options: argparse.Namespace) -> int:
    from harness import archive

    store, snapshot = open_snapshot(options)
    output = options.output or Path(f"{snapshot.name}-{snapshot.number}.zip")
    say(f"wrote {archive.pack(store, snapshot.ref, output)}")
    return 0
