"""Scoring the answers of one run with one metric: what failed is counted, and never leaves the denominator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from harness.errors import HarnessError
from harness.plugins import Means, Measured, Metric
from harness.records import Example, Prediction, Score


def score(
    metric: Metric, examples: Sequence[Example], predictions: Sequence[Prediction], means: Means
) -> tuple[Score, list[str]]:
    """Measure every example. Returns the score and notes on what went wrong.

    An example that failed, or on which the metric itself fails, counts at the metric's worst value and as an error: it
    never leaves the denominator. Where the value is no mean over examples, an answer that failed counts as an empty
    one. A metric that fails on all examples raises its own error; one that has no worst value raises HarnessError at
    the first failure.
    """
    asked = list(predictions)
    if metric.reducer != "mean":
        asked = [replace(one, text="", choices=()) if one.error is not None else one for one in asked]
    statistics: list[tuple[float, ...] | None] = []
    faults: list[tuple[str, Exception]] = []
    errors = 0
    measured = metric.measure_all(examples, asked, means)
    for example, prediction, value in zip(examples, predictions, measured, strict=True):
        numbers = _checked(metric, value)
        if isinstance(numbers, Exception):
            faults.append((example.id, numbers))
            errors += 1
            numbers = _of_failure(metric, example, numbers, means)
        # What a metric does not speak of, it does not speak of for any answer.
        elif prediction.error is not None and numbers is not None:
            errors += 1
            if metric.reducer == "mean":
                numbers = _of_failure(metric, example, prediction.error, means)
        statistics.append(numbers)
    notes = []
    if faults:
        first, fault = faults[0]
        if len(faults) == len(examples):
            raise fault
        said = f"{type(fault).__name__}: {fault}"
        notes.append(f"{metric.name} failed on {len(faults)} of {len(examples)} examples; the first, {first}: {said}")
    made = Score(
        name=metric.name,
        signature=metric.signature,
        direction=metric.direction,
        unit=metric.unit,
        floor=metric.floor,
        ceiling=metric.ceiling,
        reducer=metric.reducer,
        ids=tuple(example.id for example in examples),
        statistics=tuple(statistics),
        errors=errors,
        labels=metric.labels(examples),
    )
    return made, notes


def _checked(metric: Metric, value: Measured | Exception) -> tuple[float, ...] | Exception | None:
    """The numbers of one example, or a ValueError in place of numbers that no reader could use."""
    if value is None or isinstance(value, Exception):
        return value
    try:
        numbers = tuple(float(number) for number in (value if isinstance(value, tuple) else (value,)))
    except (TypeError, ValueError) as error:
        return error
    low = -math.inf if metric.floor is None else metric.floor
    high = math.inf if metric.ceiling is None else metric.ceiling
    if not all(map(math.isfinite, numbers)) or (metric.reducer == "mean" and not low <= numbers[0] <= high):
        return ValueError(f"it gave {value}; allowed are finite numbers from {low:g} to {high:g}")
    return numbers


def _of_failure(metric: Metric, example: Example, fault: Exception | str, means: Means) -> tuple[float, ...]:
    """What a failure counts: the worst value there is, or where the value is no mean, an empty answer."""
    cause = fault if isinstance(fault, Exception) else None
    said = fault if isinstance(fault, str) else f"{type(fault).__name__}: {fault}"
    if metric.reducer != "mean":
        empty = Prediction(id=example.id, text="")
        numbers = _checked(metric, metric.measure_all([example], [empty], means)[0])
        if isinstance(numbers, tuple):
            return numbers
        raise HarnessError(
            f"{metric.name} failed on example {example.id!r}, and on an empty answer in its place: a failure has no "
            f"value to count at. What failed: {said}"
        ) from cause
    higher = metric.direction == "higher"
    worst = metric.floor if higher else metric.ceiling
    if worst is not None:
        return (worst,)
    raise HarnessError(
        f"{metric.name} has no {'floor' if higher else 'ceiling'}, so the failed example {example.id!r} has no worst "
        f"value to count at: give the metric one. What failed: {said}"
    ) from cause
