"""`harness classes`: show the classes behind a classification metric."""

from __future__ import annotations

import argparse

from harness.commands._common import experiment_argument, json_argument, open_snapshot, print_json, print_table

HELP = "show precision and recall of each class, confusions, and how far confidence can be believed"


def arguments(word: argparse.ArgumentParser) -> None:
    experiment_argument(word)
    word.add_argument("variant", help="which variant")
    word.add_argument("--metric", default="", metavar="M", help="a metric that counts classes (default: the first)")
    word.add_argument("--seed", type=int, help="one seed (default: the first)")
    word.add_argument("--markdown", action="store_true", help="print Markdown tables")
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import classes, figures

    store, snapshot = open_snapshot(options)
    found = classes.of(snapshot, store, options.variant, seed=options.seed, metric=options.metric)
    if options.json:
        return print_json(found)
    if options.markdown:
        print(classes.markdown(found), end="")
        return 0
    for place, (title, columns, rows) in enumerate(classes.tables(found)):
        print(("\n" if place else "") + figures.plain(title, line=True))
        print_table(columns, rows)
    for note in classes.notes(found):
        print(f"\n{figures.plain(note)}")
    return 0
