"""`harness gate`: check the rules of `[gate]`; exits 100 when one fails."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from harness.commands._common import experiment_argument, json_argument, open_snapshot, print_json
from harness.commands.decide import terms_argument

HELP = "check the rules of [gate]: exits 100 when one fails"


def arguments(word: argparse.ArgumentParser) -> None:
    experiment_argument(word)
    word.add_argument(
        "--variant",
        metavar="V",
        help="the variant to judge (default: gate.variant, else the one `harness decide` ships)",
    )
    word.add_argument(
        "--rule", action="append", default=[], dest="rules", metavar="RULE",
        help="check this instead of the stored rules, such as 'exact_match >= 0.7' or "
        "'token_f1 not_worse_than \"rag\" by 0.02' (can be repeated)",
    )  # fmt: skip
    word.add_argument(
        "--certain", action="store_true", help="a rule holds only where its whole interval keeps the bound"
    )
    terms_argument(word)
    word.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    word.add_argument(
        "--markdown", metavar="FILE",
        help="append a Markdown summary to FILE; - is $GITHUB_STEP_SUMMARY where that is set, else standard output",
    )  # fmt: skip
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import figures, gate, terms

    store, snapshot = open_snapshot(options)
    settings = [*options.settings, *(["gate.certain=true"] if options.certain else [])]
    made = gate.build(snapshot, store, terms.of(snapshot.spec, settings), variant=options.variant, rules=options.rules)
    if options.junit is not None:
        _write(options.junit, gate.junit(made), append=False)
    text = gate.markdown(made)
    summary = os.environ.get("GITHUB_STEP_SUMMARY", "") if options.markdown == "-" else options.markdown
    if summary:
        _write(Path(summary), text, append=True)
    if options.json:
        print_json(gate.to_json(made))
    elif options.markdown == "-" and not summary:
        print(text, end="")
    else:
        print("\n".join(figures.plain(line, line=True) for line in gate.lines(made)))
    return 0 if made.passed else gate.FAILED


def _write(path: Path, text: str, *, append: bool) -> None:
    from harness.errors import HarnessError

    try:
        with path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise HarnessError(f"{path} cannot be written: {error.strerror or error}. Its folder must exist.") from error
