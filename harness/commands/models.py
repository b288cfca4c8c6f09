"""`harness models`: list, fetch and verify the built-in models."""

from __future__ import annotations

import argparse

from harness.commands._common import json_argument, print_json, print_table, say
from harness.errors import UsageError

HELP = "list, fetch and verify the built-in models"


def arguments(word: argparse.ArgumentParser) -> None:
    word.add_argument("action", choices=("list", "fetch", "verify"), nargs="?", default="list")
    word.add_argument("names", nargs="*", help="which (default: all)")
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from harness import figures, models
    from harness.errors import did_you_mean

    listed = {entry.name: entry for entry in models.listing()}
    for name in options.names:
        if name not in listed:
            raise UsageError(f"no built-in model {name!r}.{did_you_mean(name, listed)}")
    chosen = options.names or list(listed)
    if options.action != "list":
        for name in chosen:
            folder = models.resolve(name) if options.action == "fetch" else models.verify(name)
            say(f"{name}: {'there' if options.action == 'fetch' else 'intact'}, {folder}")
        return 0
    if options.json:
        return print_json([{k: str(v) for k, v in asdict(listed[name]).items()} for name in chosen])
    rows = [tuple(figures.plain(str(value), line=True) for value in asdict(listed[name]).values()) for name in chosen]
    print_table(tuple(asdict(listed[chosen[0]])), rows)
    return 0
