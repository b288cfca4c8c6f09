"""`harness rate`: write a blank sheet for human raters, and read it back."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.commands._common import experiment_argument, json_argument, positive, print_json, print_table, say
from harness.commands._pairs import say_plain, show_ranking

HELP = "write a blank, blinded sheet for human raters, and read it back"


def arguments(word: argparse.ArgumentParser) -> None:
    experiment_argument(word)
    word.add_argument("--out", type=Path, metavar="FILE", help="write a blank sheet to this new CSV file")
    word.add_argument("--pairwise", action="store_true", help="ask which of two answers is better, not for a mark each")
    word.add_argument("--all-pairs", action="store_true", help="pair every two variants, not each with the baseline")
    word.add_argument("--scale", type=_scale, default=(1, 5), metavar="LOW-HIGH", help='default: 1-5; or "yes/no"')
    word.add_argument("--sample", type=positive, metavar="N", help="at most N held-out examples, drawn by --seed")
    word.add_argument("--seed", type=int, default=0, help="which examples, and in which order (default: 0)")
    word.add_argument(
        "--read", type=Path, nargs="+", metavar="FILE", default=[], help="read sheets that were filled in, one a rater"
    )
    json_argument(word)


def _scale(text: str) -> tuple[int, int] | None:
    if text == "yes/no":
        return None
    low, _, high = text.partition("-")
    if not (low.isdecimal() and high.isdecimal() and 0 < int(high) - int(low) <= 100):
        raise argparse.ArgumentTypeError(f'must be two whole numbers such as 1-5, or "yes/no", not {text!r}')
    return int(low), int(high)


def run(options: argparse.Namespace) -> int:
    from harness import ratings, results, sheets
    from harness.errors import UsageError
    from harness.store import Store

    if options.out is not None and options.read:
        raise UsageError("--out writes a blank sheet and --read reads filled ones: choose one of them.")
    if options.out is None and (options.pairwise or options.all_pairs or options.sample):
        raise UsageError(
            "--pairwise, --all-pairs and --sample say what a blank sheet holds: name its file, --out FILE."
        )
    store = Store(options.results, write=options.out is not None or bool(options.read))
    found = results.read(store.snapshot(options.experiment), store)
    if options.out is not None:
        wanted = sheets.Wanted(
            pairwise=options.pairwise,
            scale=options.scale,
            sample=options.sample,
            seed=options.seed,
            everyone=options.all_pairs,
        )
        key = sheets.write(wanted, found, store, options.out)
        say(f"wrote {options.out}: {len(key.items)} items of {len(key.examples)} examples, sheet {key.sheet}")
        say(f"then: harness rate {found.snapshot.ref} --read {options.out} (one file a rater)")
        return print_json({"sheet": key.sheet, "items": len(key.items)}) if options.json else 0
    known = sheets.keys(found, store)
    if options.read:
        key, given = sheets.read(options.read, known)
        ratings.keep(key, given, store)
        told = [ratings.scored(key, given, found, store)]
    else:
        told = [ratings.scored(key, given, found, store) for key, given in ratings.kept(known, store)]
    if options.json:
        return print_json(told)
    if not told:
        print(f"Nobody has rated the answers of {found.snapshot.ref} yet. --out FILE writes a sheet for it.")
    for entry in told:
        _show(entry)
    return 0


def _show(told: Mapping[str, Any]) -> None:
    raters = ", ".join(f"{name} ({n})" for name, n in told["raters"].items())
    say_plain(f"Sheet {told['sheet']}: {told['rated']} of {told['items']} items rated, by {raters}")
    if told["pairwise"]:
        _show_choices(told)
    else:
        _show_marks(told)
    about = told["agreement"]
    alpha = about["alpha"][about["fitting"]]
    print()
    say_plain(f"Krippendorff's alpha ({about['fitting']}): {_number(alpha)}")
    if about["kappa"]:
        rows = [
            (
                row["one"],
                row["two"],
                str(row["items"]),
                *(_number(row[kind]) for kind in ("none", "linear", "quadratic")),
            )
            for row in about["kappa"]
        ]
        print_table(("rater", "and", "items", "Cohen's kappa", "linear", "quadratic"), rows)
    for note in told["notes"]:
        say_plain(note)
    print()


def _show_marks(told: Mapping[str, Any]) -> None:
    from harness import figures

    unit = "share" if told["scale"] == [0, 1] else "mark"
    rows = []
    for row in told["variants"]:
        against = row["vs_baseline"]
        cells = ("", "", "")
        if against:
            cells = (
                figures.change(against["difference"], unit),
                figures.change_bounds(against["ci_low"], against["ci_high"], unit),
                figures.p(against["p_adjusted"]),
            )
        value = figures.score(row["value"], unit)
        interval = figures.bounds(row["ci_low"], row["ci_high"], unit)
        rows.append((row["variant"], value, interval, str(row["n"]), str(row["failed"]), *cells))
    print_table(("variant", "rating", "95 %", "examples", "failed", "vs baseline", "95 %", "p (Holm)"), rows)
    methods = dict.fromkeys(row["method"] for row in told["variants"])
    tests = dict.fromkeys(row["vs_baseline"]["test"] for row in told["variants"] if row["vs_baseline"])
    say_plain(f"Intervals: {'; '.join(methods)}." + (f" Test: {'; '.join(tests)}." if tests else ""))


def _show_choices(told: Mapping[str, Any]) -> None:
    from harness import figures

    rows = []
    for row in told["comparisons"]:
        rate = figures.score(row["win_rate"], "share")
        interval = figures.bounds(row["ci_low"], row["ci_high"], "share")
        counts = [str(row[kind]) for kind in ("wins", "ties", "losses")]
        rows.append((row["ours"], row["theirs"], rate, interval, *counts, figures.p(row["p_adjusted"])))
    print_table(("variant", "against", "win rate", "95 %", "won", "tied", "lost", "p (Holm)"), rows)
    methods = dict.fromkeys(row["method"] for row in told["comparisons"])
    tests = dict.fromkeys(row["test"] for row in told["comparisons"])
    say_plain(f"Win rates count ties as half. Intervals: {'; '.join(methods)}. Test: {'; '.join(tests)}.")
    print()
    show_ranking(told["ranking"])


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"
