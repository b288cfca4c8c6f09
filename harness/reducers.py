"""What turns the sufficient statistics of all examples into a metric's value, by the name that a Score carries.

A reducer gets one row of numbers for each example and the score's `labels` (the names of classes, where numbers stand
for classes), and gives the value, or None where these examples have none ("n/a"). The reading side calls reducers too,
so they are pure functions of plain numbers: results outlive the plug-ins that made them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.stats import mean

Statistics = Sequence[Sequence[float]]
Reducer = Callable[[Statistics, Sequence[str]], float | None]


def _mean(statistics: Statistics, labels: Sequence[str]) -> float:
    return mean([value for (value,) in statistics])


REDUCERS: dict[str, Reducer] = {"mean": _mean}
