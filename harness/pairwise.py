"""What pairwise results come to: win rates with intervals and tests, and a ranking; a judge's verdicts and people's
choices alike.

Each example is one piece of evidence: its outcome is 1 for a win of `ours`, 0 for a loss, 0.5 for a tie, or the mean of
several (seeds, raters). A win rate counts ties as half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import bradley_terry, comparisons, stats

BOUNDS = (0.0, 1.0)
_UNKNOWN = ("win_rate", "ci_low", "ci_high", "p", "p_adjusted", "minimum_detectable", "needed")


@dataclass(frozen=True, slots=True)
class Bout:
    """What one example says of two variants."""

    ours: str
    theirs: str
    example: str
    group: str
    outcome: float


def turned(one: str, two: str, names: Sequence[str], baseline: str) -> bool:
    """Whether `two` is the side whose wins are shown: the baseline is always the other side, and of two others the one
    that the spec names first is."""
    if baseline in (one, two):
        return one == baseline
    return names.index(one) > names.index(two)


def compared(bouts: Sequence[Bout]) -> list[dict[str, Any]]:
    """Return a row for each pair, in the order in which they are met: win rate and 95 % interval (groups are clusters),
    wins, ties and losses, and the test of 'neither wins more often', adjusted by Holm for all pairs here;
    `minimum_detectable` is how far from 0.5 a win rate must be for this design to find it with 80 % power, `needed` how
    many examples would settle an open question.

    The test compares each example's outcome with its mirror image (a win with a loss): `comparisons.compare`.
    """
    pairs: dict[tuple[str, str], list[Bout]] = {}
    for bout in bouts:
        pairs.setdefault((bout.ours, bout.theirs), []).append(bout)
    rows, tests = [], []
    for (ours, theirs), found in pairs.items():
        values, groups = [bout.outcome for bout in found], [bout.group for bout in found]
        binary = all(value in BOUNDS for value in values)
        interval = stats.interval(values, groups, binary=binary, bounds=BOUNDS)
        test = comparisons.compare(values, [1 - value for value in values], groups, bounds=BOUNDS, binary=binary)
        tests.append(test)
        rows.append(
            {
                "ours": ours,
                "theirs": theirs,
                "n": interval.n,
                "groups": interval.groups,
                "win_rate": interval.value,
                "ci_low": interval.low,
                "ci_high": interval.high,
                "method": interval.method,
                "wins": sum(value > 0.5 for value in values),
                "ties": sum(value == 0.5 for value in values),
                "losses": sum(value < 0.5 for value in values),
                "test": test.test,
                "p": test.p,
                # The test is of wins less losses, which moves twice as far as the win rate.
                "minimum_detectable": None if test.minimum_detectable is None else test.minimum_detectable / 2,
                "needed": test.needed,
            }
        )
    adjusted = comparisons.holm([test.p for test in tests])
    for row, test, p in zip(rows, tests, adjusted, strict=True):
        row |= {"p_adjusted": p, "verdict": comparisons.verdict(test, p)}
    return rows


def ranked(bouts: Sequence[Bout], seed: int = 0) -> dict[str, Any]:
    """Return the Bradley-Terry ranking of all variants that met: see `bradley_terry`."""
    games = [bradley_terry.Game(bout.ours, bout.theirs, bout.outcome, bout.group) for bout in bouts]
    return {
        "method": "Bradley-Terry by maximum likelihood, ties half a win each way, 400 points are odds of 10 to 1, "
        "mean 1000",
        "rows": bradley_terry.as_rows(bradley_terry.ratings(games, seed=seed)),
    }


def unknown(ours: str, theirs: str, why: str) -> dict[str, Any]:
    """Return the row of a pair of which nothing can be said."""
    nothing: Mapping[str, Any] = dict.fromkeys(_UNKNOWN)
    counts: Mapping[str, Any] = dict.fromkeys(("n", "groups", "wins", "ties", "losses"), 0)
    told = {"method": f"n/a ({why})", "test": "n/a", "verdict": "cannot tell"}
    return {"ours": ours, "theirs": theirs, **counts, **nothing, **told}
