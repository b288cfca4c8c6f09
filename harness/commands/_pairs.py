"""What `harness judge` and `harness rate` both print: a ranking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.commands._common import print_table


def show_ranking(ranking: Mapping[str, Any]) -> None:
    """Print a Bradley-Terry ranking, if there is one."""
    if not ranking["rows"]:
        return
    rows = []
    for row in ranking["rows"]:
        rating = "n/a" if row["rating"] is None else f"{row['rating']:.0f}"
        ends = "n/a" if row["ci_low"] is None else f"{row['ci_low']:.0f} to {row['ci_high']:.0f}"
        rows.append((str(row["place"] or ""), row["variant"], rating, ends, str(row["games"]), row["method"]))
    print_table(("", "variant", "rating", "95 %", "examples", "interval"), rows)
    say_plain(f"{ranking['method']}.")


def say_plain(text: str) -> None:
    from harness import figures

    print(figures.plain(text))
