"""`harness slices`: show a metric on slices of the held-out examples."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from harness.commands._common import (
    console,
    experiment_argument,
    json_argument,
    open_snapshot,
    print_json,
    print_table,
)

HELP = "show metrics by tag, by group, or by whether the gold passage was retrieved"


def arguments(word: argparse.ArgumentParser) -> None:
    experiment_argument(word)
    word.add_argument(
        "--metric",
        action="append",
        metavar="M",
        help="which metric, or all (can be repeated; default: the one that ranks)",
    )
    word.add_argument(
        "--by", metavar="NAME",
        help="tags, group, retrieved, the key of tags such as level:hard, or one tag (default: tags, else group)",
    )  # fmt: skip
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import figures, results, slices
    from harness.errors import UsageError

    store, snapshot = open_snapshot(options)
    found = results.read(snapshot, store)
    possible = slices.names(found)
    if options.by is None and not possible:
        raise UsageError(
            f"the examples of {snapshot.ref} have no tags and no groups: name fields in [data] of the spec."
        )
    by = options.by or possible[0]
    metrics = list(found.metrics) if options.metric == ["all"] else options.metric or [found.primary]
    split = by == slices.RETRIEVED
    told = [slices.retrieved(found, store, one) if split else slices.table(found, one, by) for one in metrics]
    if options.json:
        return print_json(told)
    for place, each in enumerate(told):
        print("\n" if place else "", end="")
        _print_retrieved(each) if split else _print_table(each)
    for note in told[0]["notes"]:
        print(f"\n{figures.plain(note)}")
    others = [name for name in possible if name != by]
    if others and options.by is None:
        print(f"\nAlso by: {', '.join(others)} (--by).")
    return 0


def _print_table(told: Mapping[str, Any]) -> None:
    from harness import figures

    unit = told["unit"]
    variants = list(dict.fromkeys(name for row in told["slices"] for name in row["variants"]))
    grouped = any(row["groups"] is not None for row in told["slices"])
    rows = [
        (
            (row["slice"], ""),
            (figures.count(row["n"]), ""),
            *(((figures.count(row["groups"]), ""),) if grouped else ()),
            *(_cell(row["variants"][name], unit, row["n"]) for name in variants),
        )
        for row in told["slices"]
    ]
    print(figures.plain(f"{told['metric']} ({told['direction']} is better) by {told['by']}, with 95 % intervals"))
    _print_grid((told["by"], "n", *(("groups",) if grouped else ()), *variants), rows)
    methods = dict.fromkeys(row["variants"][name]["method"] for row in told["slices"] for name in variants)
    print(figures.plain(f"Intervals: {' / '.join(methods)}."))
    _print_losses(told)


def _cell(measured: Mapping[str, Any], unit: str, n: int | None = None) -> tuple[str, str]:
    """A value with its number of examples, unless that is `n`; below it the interval."""
    from harness import figures

    if measured["value"] is None:
        return figures.NONE, ""
    of = "" if measured["n"] == n else f" of {figures.count(measured['n'])}"
    return f"{figures.score(measured['value'], unit)}{of}", figures.bounds(measured["low"], measured["high"], unit)


def _print_grid(columns: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> None:
    """A table whose cells have two lines, the second one dim; all but the first column stand to the right."""
    from rich.table import Table
    from rich.text import Text

    from harness import figures

    grid = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        grid.add_column(Text(figures.plain(column)), justify="right" if place else "left", overflow="fold")
    for row in rows:
        low = any(second for _, second in row)
        grid.add_row(
            *(
                Text.assemble(figures.plain(first, line=True), (f"\n{figures.plain(second)}" if low else "", "dim"))
                for first, second in row
            )
        )
    console().print(grid)


def _print_losses(told: Mapping[str, Any]) -> None:
    from harness import figures

    if told["winner"] is None:
        return
    unit, best = told["unit"], figures.plain(told["winner"], line=True)
    tested = [one for one in told["loses"] if one["p"] is not None]
    untested = len({one["slice"] for one in told["loses"]} - {one["slice"] for one in tested})
    print()
    if not told["loses"]:
        print(f"{best}, the first overall, is behind in no slice.")
    if tested:
        tests = figures.count(told["tests"])
        print(f"Where {best}, the first overall, is behind (p adjusted by Holm over all {tests} tests in slices):")
        rows = [
            (
                one["slice"],
                one["variant"],
                figures.change(one["difference"]["value"], unit),
                figures.change_bounds(one["difference"]["low"], one["difference"]["high"], unit),
                figures.p(one["p_adjusted"]),
                f"{one['variant']} is better" if one["verdict"] == "better" else "cannot tell",
                one["test"],
            )
            for one in tested
        ]
        print_table(("slice", "variant", f"against {best}", "95 % interval", "p (Holm)", "verdict", "test"), rows)
    if untested:
        print(
            f"{best}, the first overall, is behind in {figures.count(untested)} slices that are too small to test: "
            "one group or one example cannot tell."
        )


def _print_retrieved(told: Mapping[str, Any]) -> None:
    from harness import figures

    unit = told["unit"]
    partly = any(one["partly"]["n"] for one in told["variants"].values())
    heads = ["variant", "gold passage\nin the prompt", f"{told['metric']}\nwith it"]
    heads += ["with a\npart of it"] if partly else []
    heads += ["without it", "no source\nnamed", "lost by\nretrieval", "lost by\ngeneration"]
    kinds = ["there", *(["partly"] if partly else []), "missing", "unanswerable"]
    rows = []
    for name, one in told["variants"].items():
        faults = one["faults"]
        lost = [
            _cell(faults[cause], "share") if faults else (figures.NONE, "") for cause in ("retrieval", "generation")
        ]
        rows.append(((name, ""), _cell(one["retrieved"], "share"), *(_cell(one[kind], unit) for kind in kinds), *lost))
    title = f"{told['metric']} ({told['direction']} is better) by whether the gold passage was in the prompt"
    print(figures.plain(f"{title}, with 95 % intervals"))
    _print_grid(heads, rows)
    print(
        "Lost: the share of what examples that name a source lose against the best score (of right-or-wrong metrics: "
        "of errors)\nthat falls where the gold passage was missing (retrieval) or there (generation)."
        + (" The rest falls where only a part of it was there." if partly else "")
    )
