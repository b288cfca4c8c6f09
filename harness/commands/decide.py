"""`harness decide`: name the variant to ship, and why."""

from __future__ import annotations

import argparse
import textwrap

from harness.commands._common import experiment_argument, json_argument, open_snapshot, print_json

HELP = "name the variant to ship: why, how sure, what it costs, what would change the answer"


def terms_argument(word: argparse.ArgumentParser) -> None:
    word.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", dest="settings",
        help="try other terms than the stored ones, such as constraints.latency_p95_ms=800 or cost.machine_hour=0.5; "
        "false takes one away (can be repeated)",
    )  # fmt: skip


def arguments(word: argparse.ArgumentParser) -> None:
    experiment_argument(word)
    terms_argument(word)
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import advice, decision, figures, terms

    store, snapshot = open_snapshot(options)
    made = decision.build(snapshot, store, terms.of(snapshot.spec, options.settings))
    said = advice.sections(made)
    if options.json:
        return print_json({**made, "sentences": [{"heading": heading, "lines": lines} for heading, lines in said]})
    print(figures.plain(f"{snapshot.ref}  {made['question']}", line=True))
    for heading, lines in said:
        print(f"\n{heading}" if heading else "")
        for line in lines:
            text = figures.plain(line, line=True)
            print(
                textwrap.fill(
                    text, 100, initial_indent="  " if heading else "", subsequent_indent="    " if heading else ""
                )
            )
    return 0
