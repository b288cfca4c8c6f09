"""What variants scored on the same examples, as comparisons take it: values, seeds, wins, effect sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness import stats
from harness.records import Score


@dataclass(frozen=True)
class Sample:
    """One variant's value of each example, averaged over its seeds, and the mean of all examples under each seed where
    seeds differ."""

    values: Sequence[float]
    seeds: Sequence[float] = ()


def samples(scores: Sequence[Sequence[Score]], groups: Sequence[str]) -> tuple[list[Sample], list[str]]:
    """Return a sample for each variant's scores, one a seed, of the examples that the metric speaks of; their groups.

    Seeds that all gave the same are as good as one.
    """
    if not scores:
        return [], []
    kept = [i for i, row in enumerate(scores[0][0].statistics) if row is not None]
    made = []
    for found in scores:
        columns = [[row[0] for i in kept if (row := score.statistics[i]) is not None] for score in found]
        if all(column == columns[0] for column in columns):
            made.append(Sample(columns[0]))
        else:
            values = [stats.mean(row) for row in zip(*columns, strict=True)]
            made.append(Sample(values, [stats.mean(column) for column in columns]))
    return made, [groups[i] for i in kept]


def won(ours: Sample, theirs: Sample, higher: bool) -> tuple[int, int]:
    """Return on how many examples ours is better, and on how many theirs is."""
    pairs = list(zip(ours.values, theirs.values, strict=True))
    above, below = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    return (above, below) if higher else (below, above)


def sums(made: Sequence[Sample], groups: Sequence[str]) -> list[list[float]]:
    """Return each sample's sum over each group, groups in the order of their names: the order of examples changes no
    draw."""
    import numpy as np

    places = {group: place for place, group in enumerate(sorted(set(groups)))}
    index = np.array([places[group] for group in groups])
    return [np.bincount(index, weights=np.asarray(one.values), minlength=len(places)).tolist() for one in made]


def effect(ours: Sample, theirs: Sample, *, binary: bool, higher: bool) -> tuple[str, float | None]:
    """Return the name of the effect size and its value, None where there is none.

    Right or wrong: the odds that ours wins where the two disagree (the conditional odds ratio of McNemar's table).
    Graded: d_z, the mean of the differences over their standard deviation (Cohen 1988, Statistical Power Analysis,
    2.3.5). Neither is adjusted for groups.
    """
    if binary:
        wins, losses = won(ours, theirs, higher)
        name = "odds ratio of the discordant pairs"
        if wins and losses:
            return name, wins / losses
        # A cell of zero gives no ratio (Haldane 1956, Ann. Hum. Genet. 20:309).
        return f"{name}, 0.5 added to both", (wins + 0.5) / (losses + 0.5) if wins or losses else None
    name = "Cohen's d of the paired differences"
    differences = [a - b for a, b in zip(ours.values, theirs.values, strict=True)]
    if len(differences) < 2:
        return name, None
    centre = stats.mean(differences)
    deviation = math.sqrt(math.fsum((d - centre) ** 2 for d in differences) / (len(differences) - 1))
    return name, centre / deviation if deviation > 1e-12 * max(map(abs, differences), default=0) else None
