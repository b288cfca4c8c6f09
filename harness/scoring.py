"""Scoring the answers of one run with one metric: what failed is counted, and never leaves the denominator."""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import HarnessError, did_you_mean
from harness.plugins import Means, Measured, Metric
from harness.records import Example, Prediction, Score
from harness.reducers import REDUCERS


def score(
    metric: Metric, examples: Sequence[Example], predictions: Sequence[Prediction], means: Means
) -> tuple[Score, list[str]]:
    """Measure every example. Returns the score and notes on what went wrong.

    An example that failed, or on which the metric itself fails, counts at the metric's worst value and as an error: it
    never leaves the denominator. Where the value is no mean over examples, an answer that failed counts as an empty
    one.

    Raises HarnessError for a metric that fails on every answer that it could speak of, one that has no worst value at
    the first failure, and a user's own metric that cannot be used at all. A fault of one that belongs to the harness
    is raised as it is.
    """
    if metric.reducer not in REDUCERS:
        hint = did_you_mean(metric.reducer, REDUCERS)
        raise HarnessError(f"{metric.name} names the reducer {metric.reducer!r}, and there is none.{hint}")
    checked = [_checked(metric, value) for value in _measured(metric, examples, predictions, means)]
    faults = [
        (example.id, made) for example, made in zip(examples, checked, strict=True) if isinstance(made, Exception)
    ]
    _must_have_measured(metric, predictions, checked, faults)
    statistics: list[tuple[float, ...] | None] = []
    errors = 0
    for example, prediction, numbers in zip(examples, predictions, checked, strict=True):
        if isinstance(numbers, Exception):
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
        notes.append(
            f"{metric.name} failed on {len(faults)} of {len(examples)} examples; the first, {first}: {_said(fault)}"
        )
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
    _must_be_reducible(metric, made)
    return made, notes


def _measured(
    metric: Metric, examples: Sequence[Example], predictions: Sequence[Prediction], means: Means
) -> list[Measured | Exception]:
    """What the metric gives for each example, in their order."""
    asked = list(predictions)
    if metric.reducer != "mean":
        asked = [replace(one, text="", choices=()) if one.error is not None else one for one in asked]
    try:
        found = list(metric.measure_all(examples, asked, means))
    except HarnessError:
        raise
    except Exception as error:  # whatever a user's own metric raises is its author's to mend
        if not _is_users(metric):
            raise
        raise HarnessError(f"{metric.name} failed: {_said(error)}{_place(error)}") from error
    if len(found) != len(examples):
        raise HarnessError(
            f"{metric.name} gave {len(found)} values for {len(examples)} examples: it must give one each."
        )
    return found


def _must_have_measured(
    metric: Metric,
    predictions: Sequence[Prediction],
    checked: Sequence[tuple[float, ...] | Exception | None],
    faults: Sequence[tuple[str, Exception]],
) -> None:
    """Raise where not one answer was measured: worst values alone would look like a finding."""
    answered = [made for made, one in zip(checked, predictions, strict=True) if one.error is None and made is not None]
    failed = [made for made in answered if isinstance(made, Exception)]
    if not failed or len(failed) < len(answered):
        return
    id, fault = next((id, fault) for id, fault in faults if fault is failed[0])
    if not (isinstance(fault, HarnessError) or _is_users(metric)):
        raise fault
    said = f"the first, {id}: {_said(fault)}{_place(fault)}"
    raise HarnessError(f"{metric.name} failed on all {len(failed)} answers that it speaks of; {said}") from fault


def _must_be_reducible(metric: Metric, made: Score) -> None:
    """Raise HarnessError for statistics of a user's own metric that no reader could make a value of."""
    rows = [row for row in made.statistics if row is not None]
    try:
        if rows:
            REDUCERS[made.reducer](rows, made.labels)
    except Exception as error:
        if not _is_users(metric):
            raise
        raise HarnessError(
            f"the statistics of {metric.name} do not fit its reducer {made.reducer!r}: {_said(error)}. "
            f"The first row is {rows[0]}; harness/reducers.py says what a row holds."
        ) from error


def _is_users(metric: Metric) -> bool:
    return not type(metric).__module__.startswith("harness.")


def _said(fault: Exception) -> str:
    return str(fault) if isinstance(fault, HarnessError) else f"{type(fault).__name__}: {fault}"


def _place(fault: Exception) -> str:
    """Where a fault of the code was raised, by the name of the file alone; a message for the user needs no place."""
    if isinstance(fault, HarnessError):
        return ""
    frames = traceback.extract_tb(fault.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


def _checked(metric: Metric, value: Measured | Exception) -> tuple[float, ...] | Exception | None:
    """The numbers of one example, or a ValueError in place of numbers that no reader could use."""
    if value is None or isinstance(value, Exception):
        return value
    try:
        numbers = tuple(float(number) for number in (value if isinstance(value, tuple) else (value,)))
    except (TypeError, ValueError) as error:
        return ValueError(f"it gave {value!r}, which is no number: {error}")
    if metric.reducer == "mean" and len(numbers) != 1:
        return ValueError(f"it gave {value}; a mean takes one number an example")
    low = -math.inf if metric.floor is None else metric.floor
    high = math.inf if metric.ceiling is None else metric.ceiling
    if not all(map(math.isfinite, numbers)) or (metric.reducer == "mean" and not low <= numbers[0] <= high):
        return ValueError(f"it gave {value}; allowed are finite numbers from {low:g} to {high:g}")
    return numbers


def _of_failure(metric: Metric, example: Example, fault: Exception | str, means: Means) -> tuple[float, ...]:
    """What a failure counts: the worst value there is, or where the value is no mean, an empty answer."""
    cause = fault if isinstance(fault, Exception) else None
    said = fault if isinstance(fault, str) else _said(fault)
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
