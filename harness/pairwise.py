"""What pairwise results come to: win rates with intervals and tests, and a ranking; a judge's verdicts and people's
choices alike.

Each example is one piece of evidence: its outcome is 1 for a win of `ours`, 0 for a loss, 0.5 for a tie, or the mean of
several (seeds, raters). A win rate counts ties as half. Where several seeds were judged and differ, seeds and examples
are both sources of variation (`harness.stats.estimate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from harness import bradley_terry, comparisons, power, stats
from harness.comparisons import Comparison
from harness.records import Prediction

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
    seeds: tuple[float, ...] = ()
    """The outcome under each seed, where several were judged; `outcome` is their mean."""


Reason = Literal["same", "failed"]


def foregone(one: Prediction, two: Prediction) -> tuple[float, Reason] | None:
    """The outcome of two answers that nobody has to be asked about, and why: one that failed has lost against one that
    is there, and equal ones tie. None for two that must be judged."""
    if one.error is not None or two.error is not None:
        return 0.5 + 0.5 * (two.error is not None) - 0.5 * (one.error is not None), "failed"
    if (one.text or "").strip() == (two.text or "").strip():
        return 0.5, "same"
    return None


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

    The test compares each example's outcome with its mirror image (a win with a loss): `comparisons.compare`; with
    several seeds it is the t-test over seeds and examples.
    """
    pairs: dict[tuple[str, str], list[Bout]] = {}
    for bout in bouts:
        pairs.setdefault((bout.ours, bout.theirs), []).append(bout)
    rows, tests = [], []
    for (ours, theirs), found in pairs.items():
        values, groups = [bout.outcome for bout in found], [bout.group for bout in found]
        seeds = _means_of_seeds(found)
        binary = not seeds and all(value in BOUNDS for value in values)
        interval = stats.interval(values, groups, binary=binary, bounds=BOUNDS, seeds=seeds)
        test = _tested(values, groups, binary, seeds)
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
            }
        )
    adjusted = comparisons.holm([test.p for test in tests])
    family = sum(p is not None for p in adjusted)
    for row, test, p in zip(rows, tests, adjusted, strict=True):
        row |= {
            "p_adjusted": p,
            "verdict": comparisons.verdict(test, p),
            "needed": comparisons.needed(test, p, family),
        }
    return rows


def _means_of_seeds(bouts: Sequence[Bout]) -> list[float]:
    """The win rate under each seed; none where one seed was judged, or all gave the same."""
    columns = list(zip(*(bout.seeds for bout in bouts), strict=True))
    return [] if all(column == columns[0] for column in columns) else [stats.mean(column) for column in columns]


def _tested(values: Sequence[float], groups: Sequence[str], binary: bool, seeds: Sequence[float]) -> Comparison:
    """Compare outcomes with their mirror images, over `seeds` where there are several."""
    mirrored = [1 - value for value in values]
    test = comparisons.compare(values, mirrored, groups, bounds=BOUNDS, binary=binary)
    if not seeds:
        return test
    # Wins less losses move twice as far as the win rate: one source of variation, not one of each side.
    of_seeds = [[2 * rate - 1 for rate in seeds]]
    interval, made = stats.paired(values, mirrored, groups, bounds=BOUNDS, seeds=of_seeds)
    if made is None:
        return replace(test, difference=interval)
    detectable = power.multiplier(made.degrees) * made.error
    return replace(
        test,
        difference=interval,
        test="paired t over seeds and examples",
        p=min(1.0, 2 * stats.t_tail(abs(made.value) / made.error, made.degrees)),
        minimum_detectable=detectable if detectable <= 1 else None,
        error=made.error,
        degrees=made.degrees,
    )


def ranked(bouts: Sequence[Bout], seed: int = 0) -> dict[str, Any]:
    """Return the Bradley-Terry ranking of all variants that met: see `bradley_terry`."""
    games = [bradley_terry.Game(bout.ours, bout.theirs, bout.outcome, bout.group, bout.seeds) for bout in bouts]
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
