"""`harness init`: write a commented spec and a small sample data set to start from."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands._common import say

HELP = "write a commented spec and a small sample data set to start from"


def arguments(word: argparse.ArgumentParser) -> None:
    word.add_argument("folder", type=Path, nargs="?", default=Path(), help="where to (default: here)")


def run(options: argparse.Namespace) -> int:
    from harness import starter

    for file in starter.write(options.folder):
        say(f"wrote {file}")
    say(f"next: harness check {options.folder / starter.SPEC}, then harness run {options.folder / starter.SPEC}")
    return 0
