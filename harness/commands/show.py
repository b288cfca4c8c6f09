"""`harness show`: show a run: its answers, its costs, where it came from."""

from __future__ import annotations

import argparse
from typing import Any

from harness.commands._common import experiment_argument, json_argument, open_snapshot, positive, print_json

HELP = "show a run: its answers, its costs, where it came from"


def arguments(word: argparse.ArgumentParser) -> None:
    experiment_argument(word)
    word.add_argument("variant", nargs="?", help="one variant (default: all of them, in short)")
    word.add_argument("--seed", type=int, help="one seed")
    word.add_argument("--example", metavar="ID", help="one example, with all that was asked and answered")
    word.add_argument("--examples", type=positive, default=5, metavar="N", help="how many answers to show (default: 5)")
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import showing

    store, snapshot = open_snapshot(options)
    found = showing.runs(snapshot, options.variant, options.seed)
    if options.example is not None:
        found = [run for run in found if run.status == "complete"] or found
        shown: Any = [showing.example(run, snapshot, store, options.example) for run in found]
        text = showing.example_text
    elif options.variant is None:
        shown, text = [showing.run(run, store, 0, snapshot) for run in found], showing.run_text
    else:
        shown, text = [showing.run(run, store, options.examples, snapshot) for run in found], showing.run_text
    if options.json:
        return print_json(shown)
    print("\n\n".join(text(entry) for entry in shown))
    return 0
