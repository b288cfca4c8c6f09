"""`harness gc`: list what no experiment refers to; with --yes, remove it."""

from __future__ import annotations

import argparse

from harness.commands._common import json_argument, print_json, print_table, store_argument

HELP = "list what no experiment refers to; with --yes, remove it"


def arguments(word: argparse.ArgumentParser) -> None:
    word.add_argument("--yes", action="store_true", help="remove it")
    store_argument(word)
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from harness import archive, figures
    from harness.store import Store

    found = archive.gc(Store(options.results, write=options.yes), dry=not options.yes)
    if options.json:
        return print_json([asdict(item) for item in found])
    if not found:
        print("Everything in the results is in use.")
        return 0
    print_table(("what", "size", "why"), [(item.name, figures.size(item.bytes), item.why) for item in found])
    verb = "removed" if options.yes else "would be removed; `harness gc --yes` does it"
    print(f"{len(found)} items, {figures.size(sum(item.bytes for item in found))}: {verb}.")
    return 0
