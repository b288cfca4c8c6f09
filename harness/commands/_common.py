"""What several commands share: their arguments, and how they read a spec or a snapshot and print."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.display import Display
    from harness.pipeline import Event, Watch
    from harness.spec import Spec
    from harness.store import Snapshot, Store


# ------------------------------------------------------------------------------------------------------- arguments


def store_argument(word: argparse.ArgumentParser) -> None:
    word.add_argument(
        "--results",
        type=Path,
        default=default_results(),
        metavar="DIR",
        help="the results folder (default: $HARNESS_RESULTS, else ./results)",
    )


def spec_arguments(word: argparse.ArgumentParser) -> None:
    word.add_argument("spec", type=Path, help="a TOML file")
    word.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", dest="overrides",
        help="change one value of the spec, such as variant.lora.train.0.epochs=1 (can be repeated)",
    )  # fmt: skip


def experiment_argument(word: argparse.ArgumentParser) -> None:
    word.add_argument(
        "experiment", nargs="?", default="latest", help="a name, a snapshot NAME@N, or latest (the default)"
    )
    store_argument(word)


def json_argument(word: argparse.ArgumentParser) -> None:
    word.add_argument("--json", action="store_true", help="print JSON to standard output")


def default_results() -> Path:
    """Where results lie unless `--results` says otherwise; the page looks there too."""
    return Path(os.environ.get("HARNESS_RESULTS") or "results")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


# --------------------------------------------------------------------------------------------------------- reading


def load_spec(options: argparse.Namespace) -> Spec:
    from harness import spec

    found = spec.load(options.spec, options.overrides)
    limit = getattr(options, "limit", None)
    if limit is None or limit >= (found.data.heldout_limit or math.inf):
        return found
    return spec.load(options.spec, [*options.overrides, f"data.heldout_limit={limit}"])


def open_snapshot(options: argparse.Namespace) -> tuple[Store, Snapshot]:
    from harness.store import Store

    store = Store(options.results, write=False)
    return store, store.snapshot(options.experiment)


# --------------------------------------------------------------------------------------------------------- working


@contextmanager
def stoppable(display: Display, unit: str) -> Iterator[Watch]:
    """Give a watcher that shows progress on `display`, and that the first Ctrl-C stops after the `unit` in work."""
    from harness import runner

    def told() -> None:
        display.say(f"stopping after this {unit}; press Ctrl-C again to stop at once")

    with runner.stop_gently(told) as check:

        def watch(event: Event) -> None:
            display.watch(event)
            check(event)

        yield watch


# -------------------------------------------------------------------------------------------------------- printing


def say(text: str) -> None:
    from harness import figures

    if text:
        print(figures.plain(text), file=sys.stderr)


def print_json(value: Any) -> int:
    print(json.dumps(value, ensure_ascii=False, indent=2))
    return 0


def print_board(board: dict[str, Any]) -> None:
    from harness import leaderboard

    console().print(leaderboard.table(board))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from harness import figures

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(figures.plain(cell, line=True)) for cell in row))
    console().print(table)


def console() -> Any:
    from rich.console import Console

    # A pipe has no width of its own: tables stay whole there.
    width = None if sys.stdout.isatty() else shutil.get_terminal_size((160, 24)).columns
    return Console(width=width, highlight=False)
