"""`harness score`: score stored answers with other metrics, without answering again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands._common import json_argument, print_board, print_json, say, stoppable, store_argument
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.display import Style

HELP = "score stored answers with other metrics, without answering again"


def arguments(word: argparse.ArgumentParser) -> None:
    word.add_argument(
        "experiment", help="a name, a snapshot NAME@N, or latest; or a spec alone, for the experiment that it names"
    )
    word.add_argument(
        "spec", type=Path, nargs="?", help="a TOML file: its [[metric]] tables become the experiment's metrics"
    )
    word.add_argument(
        "--metric", action="append", default=[], metavar="TOML", dest="tables",
        help="add a metric, or change the one of its name: '{kind = \"bleu\"}', or a kind alone (can be repeated)",
    )  # fmt: skip
    word.add_argument(
        "--retry-errors", action="store_true", help="ask again what the judge of one of these metrics failed on"
    )
    store_argument(word)
    word.add_argument("--display", choices=("full", "plain", "none"), help="default: full on a terminal, else plain")
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import leaderboard, rescore, tracking
    from harness.display import Display
    from harness.store import Store

    ref, spec = options.experiment, options.spec
    if spec is None and ref.endswith(".toml"):
        ref, spec = "", Path(ref)
    chosen = rescore.choose(spec, options.tables)
    if not options.results.is_dir():
        raise UsageError(f"there are no results in {options.results}: --results names another folder")
    store = Store(options.results)
    source = store.snapshot(ref or chosen.experiment)
    style: Style = "none" if options.json else options.display or ("full" if sys.stderr.isatty() else "plain")
    with Display(style) as display, stoppable(display, "score") as watch:
        outcome = rescore.score(store, source, chosen, watch, retry=options.retry_errors)
    snapshot = outcome.snapshot
    if outcome.made:
        tracking.start(store.root, snapshot.ref, snapshot.spec.get("tracking") or {"mode": "off"})
    board = snapshot.leaderboard or leaderboard.build(snapshot, store)
    if options.json:
        return print_json(board)
    print_board(board)
    if unfinished := [run for run in snapshot.runs() if run.status != "complete"]:
        names = ", ".join(dict.fromkeys(run.variant for run in unfinished))
        say(f"not complete, so not scored: {names}. `harness run` with these metrics in its spec goes on with them")
    say(f"{source.ref} scored again: {outcome.made} scores were made, no answer was. Kept as {snapshot.ref}.")
    return 0
