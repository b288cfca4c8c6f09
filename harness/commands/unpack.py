"""`harness unpack`: add the experiment of an archive to the results."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands._common import say, store_argument
from harness.errors import HarnessError

HELP = "add the experiment of an archive to the results"


def arguments(word: argparse.ArgumentParser) -> None:
    word.add_argument("archive", type=Path)
    store_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import archive, files
    from harness.store import Store

    new = not options.results.exists()
    store = Store(options.results)
    try:
        say(f"unpacked {archive.unpack(store, options.archive)}")
    except HarnessError:
        # A bad archive leaves no trace, not even an empty results folder.
        if new and not store.names() and not any(store.steps()):
            files.remove_tree(store.root)
        raise
    return 0
