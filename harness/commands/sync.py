"""`harness sync`: send what is still local to W&B."""

from __future__ import annotations

import argparse

from harness.commands._common import store_argument

HELP = "send what is still local to W&B"


def arguments(word: argparse.ArgumentParser) -> None:
    word.add_argument("experiment", nargs="?", help="a name or NAME@N (default: everything)")
    store_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import figures, tracking
    from harness.store import Store

    failed = 0
    for entry in tracking.sync(Store(options.results), options.experiment):
        print(figures.plain(f"{entry.folder}: {entry.message}"))
        failed += not entry.ok
    return 1 if failed else 0
