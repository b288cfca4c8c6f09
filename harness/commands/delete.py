"""`harness delete`: delete an experiment or one snapshot of it; `gc` then frees its steps."""

from __future__ import annotations

import argparse

from harness.commands._common import say, store_argument

HELP = "delete an experiment or one snapshot of it; `gc` then frees its steps"


def arguments(word: argparse.ArgumentParser) -> None:
    word.add_argument("experiment", help="a name, or a snapshot NAME@N")
    store_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import archive
    from harness.store import Store

    for ref in archive.delete(Store(options.results), options.experiment):
        say(f"deleted {ref}")
    say("`harness gc` lists the steps that nothing uses any more.")
    return 0
