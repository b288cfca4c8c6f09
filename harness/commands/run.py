"""`harness run`: do what is missing of a comparison and print its leaderboard."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.commands._common import (
    default_results,
    json_argument,
    load_spec,
    positive,
    print_board,
    print_json,
    print_table,
    say,
    spec_arguments,
    stoppable,
    store_argument,
)

if TYPE_CHECKING:
    from harness.data import Dataset
    from harness.display import Style
    from harness.plan import PlannedRun
    from harness.spec import Spec
    from harness.store import Store

HELP = "do what is missing of a comparison and print its leaderboard"


def arguments(word: argparse.ArgumentParser) -> None:
    spec_arguments(word)
    store_argument(word)
    word.add_argument("--dry-run", action="store_true", help="print the steps still to be done, with estimates")
    word.add_argument(
        "--only", action="append", default=[], metavar="VARIANT", help="run this variant (can be repeated)"
    )
    word.add_argument(
        "--limit", type=positive, metavar="N", help="answer at most N of the held-out examples, drawn by data.seed"
    )
    word.add_argument(
        "--retry-errors", action="store_true", help="ask again what failed, of a judge too; the leaderboard says so"
    )
    word.add_argument("--display", choices=("full", "plain", "none"), help="default: full on a terminal, else plain")
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import leaderboard, runner, tracking
    from harness.display import Display
    from harness.store import Store

    spec = load_spec(options)
    store = Store(options.results, write=not options.dry_run)
    dataset, planned = runner.prepare(spec, store, only=options.only, retry_errors=options.retry_errors)
    if options.dry_run:
        chosen = [run for run in planned if not options.only or run.variant.name in options.only]
        return _dry_run(spec, dataset, chosen, store, options)
    style: Style = "json" if options.json else options.display or ("full" if sys.stderr.isatty() else "plain")
    with Display(style) as display:
        for note in dataset.notes:
            display.say(f"note: {note}")
        with runner.begin(spec, store, dataset, planned) as snapshot, stoppable(display, "batch") as watch:
            outcome = runner.run(spec, store, dataset, planned, snapshot, watch, only=options.only)
            board = snapshot.leaderboard or leaderboard.build(snapshot, store)
            if outcome.ended and snapshot.leaderboard is None:
                snapshot.finish(board, leaderboard.markdown(board))
    if outcome.did:
        tracking.start(store.root, snapshot.ref, spec.tracking.model_dump(mode="json"))
    if warning := tracking.problem(store.root, snapshot.ref):
        say(f"warning: {warning}")
    if options.json:
        print(json.dumps({"kind": "leaderboard", "leaderboard": board}))
    else:
        print_board(board)
        say("" if outcome.did else "Nothing was missing: this is what the store holds.")
        elsewhere = options.results != default_results()
        page = f"streamlit run app.py -- --results {shlex.quote(str(options.results))}" if elsewhere else "make app"
        say(f"Results: {snapshot.path} ({snapshot.ref})")
        say(f"Page:    {page}")
        say(f"Answers: harness show {snapshot.ref} VARIANT")
    for fault in outcome.faults:
        say(fault)
    return 1 if any(run.status == "failed" for run in snapshot.runs()) else 0


def _earlier(store: Store, name: str) -> dict[str, Any] | None:
    """The leaderboard of the newest finished snapshot of the experiment, if there is one."""
    from harness.errors import StoreError

    for number in reversed(store.numbers(name)):
        with contextlib.suppress(StoreError):  # what is damaged has nothing to say here
            if board := store.snapshot(f"{name}@{number}").leaderboard:
                return board
    return None


def _dry_run(
    spec: Spec, dataset: Dataset, planned: Sequence[PlannedRun], store: Store, options: argparse.Namespace
) -> int:
    from dataclasses import asdict

    from harness import estimate, figures, forecast, power

    groups = [example.group or f"\0{example.id}" for example in dataset.heldout]
    shows = power.plan(groups, _earlier(store, spec.name))
    steps, rates = estimate.missing(planned, dataset, store, spec.model)
    seconds = sum(step.seconds or 0 for step in steps)
    unwise = forecast.warnings(spec, dataset)
    if options.json:
        found = {"steps": [asdict(step) for step in steps], "seconds": seconds, **rates, "statistics": shows}
        return print_json(found | {"warnings": unwise})
    for warning in unwise:
        print(figures.plain(f"warning: {warning}"))
    if not steps:
        print("Nothing is missing: every step is in the store.")
        print(figures.plain(power.sentence(shows)))
        return 0
    rows = [
        (
            step.role,
            ", ".join(step.variants),
            figures.count(step.input_tokens) if step.input_tokens else figures.NONE,
            figures.count(step.output_tokens) if step.output_tokens else figures.NONE,
            figures.count(step.steps),
            figures.size(step.memory_bytes),
            figures.seconds(step.seconds),
        )
        for step in steps
        if not step.role.startswith("score")
    ]
    print_table(("step", "for", "tokens in", "tokens out", "steps", "memory", "time"), rows)
    how = "rates measured in this store" if rates["measured"] else "assumed rates, as nothing was measured here yet"
    print(f"{len(steps)} steps ({len(rows)} shown, the others are scores), about {figures.seconds(seconds)} in all.")
    print(f"Tokens are estimated from characters, times from {how}; loading models is not counted.")
    if any(step.memory_bytes for step in steps):
        print("Memory of training stages is a rough estimate from the sizes of the weights and rows.")
    print(figures.plain(power.sentence(shows)))
    return 0
