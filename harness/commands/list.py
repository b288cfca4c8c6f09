"""`harness list`: list experiments and their snapshots."""

from __future__ import annotations

import argparse

from harness.commands._common import json_argument, print_json, print_table, store_argument

HELP = "list experiments and their snapshots"


def arguments(word: argparse.ArgumentParser) -> None:
    store_argument(word)
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from harness import figures
    from harness.store import Store

    found = Store(options.results, write=False).experiments()
    if options.json:
        return print_json([asdict(summary) | {"ref": summary.ref} for summary in found])
    if not found:
        print(f"No experiments in {options.results} yet. `harness run SPEC` makes one; `harness init` writes a spec.")
        return 0
    rows = [
        (
            summary.ref,
            summary.state if not summary.problem else f"damaged: {summary.problem}",
            f"{summary.done} of {summary.runs}" + (f" ({summary.failed} failed)" if summary.failed else ""),
            summary.winner or figures.NONE,
            figures.NONE if summary.value is None else f"{summary.primary} {summary.value:.3f}",
            summary.created[:16].replace("T", " "),
            summary.question,
        )
        for summary in found
    ]
    print_table(("experiment", "state", "runs", "first", "score", "created (UTC)", "question"), rows)
    return 0
