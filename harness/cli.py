"""The `harness` command: its words, and what each of them calls. The library does the work; this formats it.

Results go to standard output, progress and messages to standard error. Exit status: 0 done, 1 an error, 2 wrong usage
or a faulty spec, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.errors import HarnessError, UsageError

if TYPE_CHECKING:
    from harness.data import Dataset
    from harness.display import Style
    from harness.pipeline import Event
    from harness.plan import PlannedRun
    from harness.spec import Spec
    from harness.store import Snapshot, Store

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    command: Command | None = getattr(options, "command", None)
    if command is None:
        parser.print_help()
        return 0
    try:
        return command(options)
    except HarnessError as error:
        _complain(str(error))
        return error.exit_status
    except KeyboardInterrupt:
        _complain("interrupted: what was finished is kept, and the same command goes on from there")
        return 130
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone: there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness",
        description="Prompt, retrieve, fine-tune or combine? Compares them on one held-out set, with what each costs.",
    )
    parser.add_argument("--version", action="version", version=f"harness {harness.__version__}")
    words = parser.add_subparsers(title="commands", metavar="COMMAND")

    def add(name: str, command: Command, text: str, *, store: bool = True) -> argparse.ArgumentParser:
        word = words.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        word.set_defaults(command=command)
        if store:
            word.add_argument(
                "--results",
                type=Path,
                default=_default_results(),
                metavar="DIR",
                help="the results folder (default: $HARNESS_RESULTS, else ./results)",
            )
        return word

    def spec_arguments(word: argparse.ArgumentParser) -> None:
        word.add_argument("spec", type=Path, help="a TOML file")
        word.add_argument(
            "--set", action="append", default=[], metavar="PATH=VALUE", dest="overrides",
            help="change one value of the spec, such as variant.lora.train.0.epochs=1 (can be repeated)",
        )  # fmt: skip

    def ref(word: argparse.ArgumentParser) -> None:
        word.add_argument(
            "experiment", nargs="?", default="latest", help="a name, a snapshot NAME@N, or latest (the default)"
        )

    def as_json(word: argparse.ArgumentParser) -> None:
        word.add_argument("--json", action="store_true", help="print JSON to standard output")

    word = add("init", _init, "write a commented spec and a small sample data set to start from", store=False)
    word.add_argument("folder", type=Path, nargs="?", default=Path(), help="where to (default: here)")

    word = add("check", _check, "say whether a spec and its data can be run, with every fault at once", store=False)
    spec_arguments(word)
    as_json(word)

    word = add("run", _run, "do what is missing of a comparison and print its leaderboard")
    spec_arguments(word)
    word.add_argument("--dry-run", action="store_true", help="print the steps still to be done, with estimates")
    word.add_argument(
        "--only", action="append", default=[], metavar="VARIANT", help="run this variant (can be repeated)"
    )
    word.add_argument(
        "--limit", type=_positive, metavar="N", help="answer at most N of the held-out examples, drawn by data.seed"
    )
    word.add_argument("--retry-errors", action="store_true", help="ask failed examples again; the leaderboard says so")
    word.add_argument("--display", choices=("full", "plain", "none"), help="default: full on a terminal, else plain")
    as_json(word)

    word = add("list", _list, "list experiments and their snapshots")
    as_json(word)

    word = add("show", _show, "show a run: its answers, its costs, where it came from")
    ref(word)
    word.add_argument("variant", nargs="?", help="one variant (default: all of them, in short)")
    word.add_argument("--seed", type=int, help="one seed")
    word.add_argument("--example", metavar="ID", help="one example, with all that was asked and answered")
    word.add_argument(
        "--examples", type=_positive, default=5, metavar="N", help="how many answers to show (default: 5)"
    )
    as_json(word)

    word = add("leaderboard", _leaderboard, "print a leaderboard")
    ref(word)
    word.add_argument("--markdown", action="store_true", help="print a Markdown table")
    as_json(word)

    word = add("models", _models, "list, fetch and verify the built-in models", store=False)
    word.add_argument("action", choices=("list", "fetch", "verify"), nargs="?", default="list")
    word.add_argument("names", nargs="*", help="which (default: all)")
    as_json(word)

    add("schema", _schema, "print the JSON Schema of specs, for editors", store=False)

    word = add("sync", _sync, "send what is still local to W&B")
    word.add_argument("experiment", nargs="?", help="a name or NAME@N (default: everything)")

    word = add("delete", _delete, "delete an experiment or one snapshot of it; `gc` then frees its steps")
    word.add_argument("experiment", help="a name, or a snapshot NAME@N")

    word = add("gc", _gc, "list what no experiment refers to; with --yes, remove it")
    word.add_argument("--yes", action="store_true", help="remove it")
    as_json(word)

    word = add("pack", _pack, "write an experiment and all its steps into one archive")
    ref(word)
    word.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: NAME-N.zip")

    word = add("unpack", _unpack, "add the experiment of an archive to the results")
    word.add_argument("archive", type=Path)
    return parser


def _default_results() -> Path:
    """Where results lie unless `--results` says otherwise; the page looks there too."""
    return Path(os.environ.get("HARNESS_RESULTS") or "results")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


# ------------------------------------------------------------------------------------------------------- commands


def _init(options: argparse.Namespace) -> int:
    from harness import starter

    for file in starter.write(options.folder):
        _say(f"wrote {file}")
    _say(f"next: harness check {options.folder / starter.SPEC}, then harness run {options.folder / starter.SPEC}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from harness import figures, runner

    spec = _load(options)
    dataset = runner.load(spec)
    found: dict[str, Any] = {
        "name": spec.name,
        "variants": {variant.name: variant.family for variant in spec.variants},
        "metrics": [metric.name for metric in spec.metrics],
        "seeds": list(spec.seeds),
        "splits": dataset.counts,
        "fingerprints": dict(dataset.fingerprints),
        "notes": list(dataset.notes),
    }
    if options.json:
        return _print_json(found)
    runs = len(spec.variants) * len(spec.seeds)
    print(f"{options.spec}: in order. {len(spec.variants)} variants, {len(spec.seeds)} seeds: {runs} runs.")
    for name, family in found["variants"].items():
        print(f"  {name}  ({family})")
    print("  " + ", ".join(f"{name} {n:,}" for name, n in found["splits"].items()))
    for note in dataset.notes:
        print(figures.plain(f"  note: {note}"))
    return 0


def _run(options: argparse.Namespace) -> int:
    from harness import leaderboard, runner, tracking
    from harness.display import Display
    from harness.store import Store

    spec = _load(options)
    store = Store(options.results, write=not options.dry_run)
    dataset, planned = runner.prepare(spec, store, only=options.only, retry_errors=options.retry_errors)
    if options.dry_run:
        chosen = [run for run in planned if not options.only or run.variant.name in options.only]
        return _dry_run(dataset, chosen, store, options)
    style: Style = "json" if options.json else options.display or ("full" if sys.stderr.isatty() else "plain")
    with Display(style) as display:
        for note in dataset.notes:
            display.say(f"note: {note}")

        def told() -> None:
            display.say("stopping after this batch; press Ctrl-C again to stop at once")

        with runner.begin(spec, store, dataset, planned) as snapshot, runner.stop_gently(told) as check:

            def watch(event: Event) -> None:
                display.watch(event)
                check(event)

            outcome = runner.run(spec, store, dataset, planned, snapshot, watch, only=options.only)
            board = snapshot.leaderboard or leaderboard.build(snapshot, store)
            if outcome.ended and snapshot.leaderboard is None:
                snapshot.finish(board, leaderboard.markdown(board))
    if outcome.did:
        tracking.start(store.root, snapshot.ref, spec.tracking.model_dump(mode="json"))
    if warning := tracking.problem(store.root, snapshot.ref):
        _complain(f"warning: {warning}")
    if options.json:
        print(json.dumps({"kind": "leaderboard", "leaderboard": board}))
    else:
        _print_board(board)
        _say("" if outcome.did else "Nothing was missing: this is what the store holds.")
        elsewhere = options.results != _default_results()
        page = f"streamlit run app.py -- --results {shlex.quote(str(options.results))}" if elsewhere else "make app"
        _say(f"Results: {snapshot.path} ({snapshot.ref})")
        _say(f"Page:    {page}")
        _say(f"Answers: harness show {snapshot.ref} VARIANT")
    for fault in outcome.faults:
        _complain(fault)
    return 1 if any(run.status == "failed" for run in snapshot.runs()) else 0


def _dry_run(dataset: Dataset, planned: Sequence[PlannedRun], store: Store, options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from harness import estimate, figures

    steps, rates = estimate.missing(planned, dataset, store)
    seconds = sum(step.seconds or 0 for step in steps)
    if options.json:
        return _print_json({"steps": [asdict(step) for step in steps], "seconds": seconds, **rates})
    if not steps:
        print("Nothing is missing: every step is in the store.")
        return 0
    rows = [
        (
            step.role,
            ", ".join(step.variants),
            figures.count(step.input_tokens) if step.input_tokens else figures.NONE,
            figures.count(step.output_tokens) if step.output_tokens else figures.NONE,
            figures.seconds(step.seconds),
        )
        for step in steps
        if not step.role.startswith("score")
    ]
    _print_table(("step", "for", "tokens in", "tokens out", "time"), rows)
    how = "rates measured in this store" if rates["measured"] else "assumed rates, as nothing was measured here yet"
    print(f"{len(steps)} steps ({len(rows)} shown, the others are scores), about {figures.seconds(seconds)} in all.")
    print(f"Tokens are estimated from characters, times from {how}; loading models is not counted.")
    return 0


def _list(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from harness import figures
    from harness.store import Store

    found = Store(options.results, write=False).experiments()
    if options.json:
        return _print_json([asdict(summary) | {"ref": summary.ref} for summary in found])
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
    _print_table(("experiment", "state", "runs", "first", "score", "created (UTC)", "question"), rows)
    return 0


def _show(options: argparse.Namespace) -> int:
    from harness import showing

    store, snapshot = _snapshot(options)
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
        return _print_json(shown)
    print("\n\n".join(text(entry) for entry in shown))
    return 0


def _leaderboard(options: argparse.Namespace) -> int:
    from harness import leaderboard

    store, snapshot = _snapshot(options)
    board = snapshot.leaderboard or leaderboard.build(snapshot, store)
    if options.json:
        return _print_json(board)
    if options.markdown:
        print(leaderboard.markdown(board))
    else:
        _print_board(board)
    return 0


def _models(options: argparse.Namespace) -> int:
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
            _say(f"{name}: {'there' if options.action == 'fetch' else 'intact'}, {folder}")
        return 0
    if options.json:
        return _print_json([{k: str(v) for k, v in asdict(listed[name]).items()} for name in chosen])
    rows = [tuple(figures.plain(str(value), line=True) for value in asdict(listed[name]).values()) for name in chosen]
    _print_table(tuple(asdict(listed[chosen[0]])), rows)
    return 0


def _schema(options: argparse.Namespace) -> int:
    from harness import schema

    print(schema.schema_text(), end="")
    return 0


def _sync(options: argparse.Namespace) -> int:
    from harness import figures, tracking
    from harness.store import Store

    failed = 0
    for entry in tracking.sync(Store(options.results), options.experiment):
        print(figures.plain(f"{entry.folder}: {entry.message}"))
        failed += not entry.ok
    return 1 if failed else 0


def _delete(options: argparse.Namespace) -> int:
    from harness import archive
    from harness.store import Store

    for ref in archive.delete(Store(options.results), options.experiment):
        _say(f"deleted {ref}")
    _say("`harness gc` lists the steps that nothing uses any more.")
    return 0


def _gc(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from harness import archive, figures
    from harness.store import Store

    found = archive.gc(Store(options.results, write=options.yes), dry=not options.yes)
    if options.json:
        return _print_json([asdict(item) for item in found])
    if not found:
        print("Everything in the results is in use.")
        return 0
    _print_table(("what", "size", "why"), [(item.name, figures.size(item.bytes), item.why) for item in found])
    verb = "removed" if options.yes else "would be removed; `harness gc --yes` does it"
    print(f"{len(found)} items, {figures.size(sum(item.bytes for item in found))}: {verb}.")
    return 0


def _pack(options: argparse.Namespace) -> int:
    from harness import archive

    store, snapshot = _snapshot(options)
    output = options.output or Path(f"{snapshot.name}-{snapshot.number}.zip")
    _say(f"wrote {archive.pack(store, snapshot.ref, output)}")
    return 0


def _unpack(options: argparse.Namespace) -> int:
    from harness import archive, files
    from harness.store import Store

    new = not options.results.exists()
    store = Store(options.results)
    try:
        _say(f"unpacked {archive.unpack(store, options.archive)}")
    except HarnessError:
        # A bad archive leaves no trace, not even an empty results folder.
        if new and not store.names() and not any(store.steps()):
            files.remove_tree(store.root)
        raise
    return 0


# --------------------------------------------------------------------------------------------------------- helpers


def _load(options: argparse.Namespace) -> Spec:
    from harness import spec

    found = spec.load(options.spec, options.overrides)
    limit = getattr(options, "limit", None)
    if limit is None or limit >= (found.data.heldout_limit or math.inf):
        return found
    return spec.load(options.spec, [*options.overrides, f"data.heldout_limit={limit}"])


def _snapshot(options: argparse.Namespace) -> tuple[Store, Snapshot]:
    from harness.store import Store

    store = Store(options.results, write=False)
    return store, store.snapshot(options.experiment)


def _say(text: str) -> None:
    from harness import figures

    if text:
        print(figures.plain(text), file=sys.stderr)


def _complain(text: str) -> None:
    from harness import figures

    print(figures.plain(text), file=sys.stderr)


def _print_json(value: Any) -> int:
    print(json.dumps(value, ensure_ascii=False, indent=2))
    return 0


def _print_board(board: dict[str, Any]) -> None:
    from harness import leaderboard

    _console().print(leaderboard.table(board))


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from harness import figures

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(figures.plain(cell, line=True)) for cell in row))
    _console().print(table)


def _console() -> Any:
    from rich.console import Console

    # A pipe has no width of its own: tables stay whole there.
    width = None if sys.stdout.isatty() else shutil.get_terminal_size((160, 24)).columns
    return Console(width=width, highlight=False)
