"""`harness judge`: let a model compare the answers of variants, two at a time, and show what it found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands._common import (
    experiment_argument,
    json_argument,
    open_snapshot,
    print_json,
    print_table,
    stoppable,
)
from harness.commands._pairs import say_plain, show_ranking

if TYPE_CHECKING:
    from harness.display import Style

HELP = "let a model compare the answers of variants, two at a time, and show what it found"


def arguments(word: argparse.ArgumentParser) -> None:
    experiment_argument(word)
    word.add_argument("--judge", type=Path, metavar="FILE", help="a judge's TOML file; without it, show what is stored")
    word.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", dest="overrides",
        help="change one value of the judge's file, such as limit=50 (can be repeated)",
    )  # fmt: skip
    word.add_argument("--retry-errors", action="store_true", help="ask again what --judge failed on; the notes say so")
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import results, verdicts
    from harness.errors import UsageError

    if options.overrides and options.judge is None:
        raise UsageError("--set changes the file of a judge: name it, --judge FILE.")
    if options.retry_errors and options.judge is None:
        raise UsageError("--retry-errors asks a judge again: name its file, --judge FILE.")
    if options.judge is not None:
        _judge(options)
    store, snapshot = open_snapshot(options)
    found = verdicts.read(results.read(snapshot, store), store)
    if options.json:
        return print_json(found)
    if not found:
        print(f"No judge has compared the answers of {snapshot.ref} yet. `harness judge {snapshot.ref} --judge FILE`")
        return 0
    for judge in found:
        show(judge)
    return 0


def _judge(options: argparse.Namespace) -> None:
    """Do what is missing of the judge's work."""
    from harness import judging
    from harness.display import Display
    from harness.store import Store

    judge = judging.load(options.judge, options.overrides)
    store = Store(options.results)
    snapshot = store.snapshot(options.experiment)
    style: Style = "full" if sys.stderr.isatty() and not options.json else "plain"
    with Display(style) as display, stoppable(display, "batch") as watch:
        judging.judge(judge, snapshot, store, watch, retry=options.retry_errors)


def show(judge: Mapping[str, Any]) -> None:
    """Print one judge's comparisons, controls and ranking."""
    from harness import figures

    model = judge["settings"]["model"]
    what = " ".join(str(model[key]) for key in ("kind", "id") if model.get(key))
    say_plain(f"Judge {judge['judge']} ({what}): both orders of every pair")
    columns = ("variant", "against", "win rate", "95 %", "won", "tied", "lost", "p (Holm)", "order decided", "unparsed")
    print_table(columns, [_row(row) for row in judge["comparisons"]])
    say_plain(f"Win rates count ties as half. {_methods(judge['comparisons'])}")
    print()
    rows = []
    for control in judge["controls"]:
        for kind, name in (("null", "says nothing"), ("injected", "injected instruction")):
            about = control[kind]
            rate = figures.score(about["win_rate"], "share")
            rows.append((name, control["variant"], rate, str(about["asked"]), str(about["unparsed"])))
    print_table(("control answer", "against", "win rate", "pairs", "unparsed"), rows)
    print()
    show_ranking(judge["ranking"])
    for note in judge["notes"]:
        say_plain(note)
    print()


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    from harness import figures

    return (
        row["ours"],
        row["theirs"],
        figures.score(row["win_rate"], "share"),
        figures.bounds(row["ci_low"], row["ci_high"], "share"),
        str(row["wins"]),
        str(row["ties"]),
        str(row["losses"]),
        figures.p(row["p_adjusted"]),
        figures.score(row["order_dependent"], "share"),
        f"{row['unparsed']} of {row['asked']}",
    )


def _methods(rows: Sequence[Mapping[str, Any]]) -> str:
    intervals = "; ".join(dict.fromkeys(row["method"] for row in rows))
    tests = "; ".join(dict.fromkeys(row["test"] for row in rows))
    return f"Intervals: {intervals}. Test: {tests}, adjusted by Holm for {len(rows)} comparisons."
