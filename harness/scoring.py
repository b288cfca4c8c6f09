"""Scoring the answers of one run with one metric: what failed is counted, and never leaves the denominator."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from harness.errors import HarnessError
from harness.plugins import Metric
from harness.records import Example, Prediction, Score


def score(metric: Metric, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[Score, list[str]]:
    """Measure every example. Returns the score and notes on what went wrong.

    An example that failed, or on which the metric itself fails, counts at the metric's worst value and as an error: it
    never leaves the denominator. A metric that fails on all examples raises its own error; one that has no worst value
    raises HarnessError at the first failure.
    """
    statistics: list[tuple[float, ...] | None] = []
    faults: list[tuple[str, Exception]] = []
    errors = 0
    for example, prediction in zip(examples, predictions, strict=True):
        try:
            # What a metric does not speak of, it does not speak of for any answer.
            value = _measured(metric, example, prediction)
        except Exception as error:  # A metric is a plug-in: its fault on one example is shown beside the score.
            faults.append((example.id, error))
            value = (_worst(metric, example.id, error),)
            errors += 1
        else:
            if prediction.error is not None and value is not None:
                value = (_worst(metric, example.id, prediction.error),)
                errors += 1
        statistics.append(value)
    notes = []
    if faults:
        first, fault = faults[0]
        if len(faults) == len(examples):
            raise fault
        said = f"{type(fault).__name__}: {fault}"
        notes.append(f"{metric.name} failed on {len(faults)} of {len(examples)} examples; the first, {first}: {said}")
    made = Score(
        name=metric.name,
        signature=_signature(metric),
        direction=metric.direction,
        unit=metric.unit,
        floor=metric.floor,
        ceiling=metric.ceiling,
        reducer=metric.reducer,
        ids=tuple(example.id for example in examples),
        statistics=tuple(statistics),
        errors=errors,
    )
    return made, notes


def _measured(metric: Metric, example: Example, prediction: Prediction) -> tuple[float, ...] | None:
    """Raises ValueError for a number that no reader could use."""
    value = metric.measure(example, prediction)
    if value is None:
        return None
    numbers = tuple(float(number) for number in (value if isinstance(value, tuple) else (value,)))
    low = -math.inf if metric.floor is None else metric.floor
    high = math.inf if metric.ceiling is None else metric.ceiling
    if not all(map(math.isfinite, numbers)) or (metric.reducer == "mean" and not low <= numbers[0] <= high):
        raise ValueError(f"it gave {value}; allowed are finite numbers from {low:g} to {high:g}")
    return numbers


def _worst(metric: Metric, id: str, fault: Exception | str) -> float:
    """What a failure counts: the floor, or the ceiling where lower is better."""
    higher = metric.direction == "higher"
    worst = metric.floor if higher else metric.ceiling
    if worst is not None:
        return worst
    said = fault if isinstance(fault, str) else f"{type(fault).__name__}: {fault}"
    raise HarnessError(
        f"{metric.name} has no {'floor' if higher else 'ceiling'}, so the failed example {id!r} has no worst value to "
        f"count at: give the metric one. What failed: {said}"
    ) from (fault if isinstance(fault, Exception) else None)


def _signature(metric: Metric) -> str:
    """The metric's settings in one line, as sacrebleu's signatures: two scores with the same one can be compared."""
    settings = {key: value for key, value in metric.identity().items() if key not in ("kind", "primary")}
    return "|".join([metric.kind, *(f"{key}:{json.dumps(value)}" for key, value in sorted(settings.items()))])
