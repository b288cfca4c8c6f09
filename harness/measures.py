"""One figure of one variant by its name, a metric or a cost, with how sure it is: what constraints and rules judge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness import figures, results, stats
from harness.money import Spending
from harness.records import Run
from harness.results import Results, Variant
from harness.rules import Operator
from harness.store import Store

TAIL = (1 - stats.LEVEL) / 2


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of one variant. `low` and `high` are its 95 % interval, each None where it cannot be had; `method` says
    how the interval was made, or why there is none."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    """"share", "ms", a currency, "h", "GiB", "" for a count, or the metric's own."""
    higher: bool
    method: str
    metric: bool = False

    def shown(self, value: float | None) -> str:
        """`value` as people read it, with its unit."""
        return figures.score(value, self.unit) if self.metric else shown(value, self.unit)

    @property
    def text(self) -> str:
        """The value and its interval, "29.8 % (95 % interval 22.4 to 38.4)"."""
        return f"{self.shown(self.value)}{self.interval}"

    @property
    def interval(self) -> str:
        if self.low is None and self.high is None:
            return ""
        if self.low is None or self.high is None:
            known = f"at least {self.shown(self.low)}" if self.high is None else f"at most {self.shown(self.high)}"
            return f" ({known} by its 95 % interval)"
        if self.metric:
            return f" (95 % interval {figures.bounds(self.low, self.high, self.unit)})"
        return f" (95 % interval {self.shown(self.low)} to {self.shown(self.high)})"


def shown(value: float | None, unit: str) -> str:
    """A cost as people read it; a unit that is none of these is a currency."""
    match unit:
        case "ms":
            return figures.milliseconds(value)
        case "h":
            return figures.NONE if value is None else figures.seconds(3600 * value)
        case "GiB":
            return figures.size(None if value is None else value * 2**30)
        case "s":
            return figures.seconds(value)
        case "":
            return figures.count(value)
        case _:
            return money(value, unit)


def bare(method: str) -> str:
    """The reason alone of a method or test that is "n/a (reason)"."""
    return method.removeprefix("n/a (").removesuffix(")") if method.startswith("n/a (") else method


def money(value: float | None, currency: str) -> str:
    """Two decimals, or as many as show two digits of a smaller sum: "12.40 EUR", "0.0031 EUR"."""
    if value is None:
        return figures.NONE
    decimals = 2 if value == 0 or value >= 0.1 else min(8, 1 - math.floor(math.log10(value)))
    return f"{value:,.{decimals}f} {currency}"


class Measures:
    """Looks up what constraints and rules name."""

    def __init__(self, found: Results, store: Store, spendings: Mapping[str, Spending], currency: str) -> None:
        self.results, self._store, self._spent, self._currency = found, store, spendings, currency

    def of(self, variant: Variant, name: str) -> Measure:
        """Return the metric or cost `name` of a variant; without a value where it was not measured."""
        if name in self.results.metrics:
            return self._metric(variant, name)
        spent = self._spent.get(variant.name)
        match name:
            case "latency_p50_ms" | "latency_p95_ms":
                return self._latency(variant, name, 0.5 if name == "latency_p50_ms" else 0.95)
            case "cost_per_1000_answers":
                return self._cost(name, spent.money_per_1000 if spent else None, self._currency)
            case "training_cost":
                return self._cost(name, spent.money_once if spent else None, self._currency)
            case "training_hours":
                seconds = spent.seconds_once if spent else None
                return self._cost(name, None if seconds is None else seconds / 3600, "h")
            case "memory_gib":
                peaks = [run.cost.peak_memory_bytes for run in variant.runs]
                known = [peak for peak in peaks if peak is not None]
                return self._cost(name, max(known) / 2**30 if known else None, "GiB")
            case "errors":
                return self._errors(variant)
            case _:
                return Measure(name, None, None, None, "", higher=True, method="no variant was scored with it")

    def _metric(self, variant: Variant, name: str) -> Measure:
        about = self.results.metrics[name]
        higher = about.direction == "higher"
        if name not in variant.scores:
            why = "does not apply to it" if variant.status == "complete" else f"the variant {variant.state}"
            return Measure(name, None, None, None, about.unit, higher, f"n/a ({why})", metric=True)
        made = results.estimate(self.results, variant, name)
        return Measure(name, made.value, made.low, made.high, about.unit, higher, made.method, metric=True)

    def _cost(self, name: str, value: float | None, unit: str) -> Measure:
        method = "measured once: no interval" if value is not None else "not measured, or without a price"
        return Measure(name, value, None, None, unit, higher=False, method=method)

    def _errors(self, variant: Variant) -> Measure:
        scores = variant.scores.get(self.results.primary)
        value = math.ceil(stats.mean([score.errors for score in scores])) if scores else None
        return Measure("errors", value, None, None, "", higher=False, method="counted: no interval")

    def _latency(self, variant: Variant, name: str, share: float) -> Measure:
        """The mean over runs, with the widest of their intervals."""
        known = [value for run in variant.runs if (value := getattr(run.cost, name)) is not None]
        if not known:
            return Measure(name, None, None, None, "ms", higher=False, method="not measured")
        n = min(run.cost.latency_n for run in variant.runs)
        ends = [quantile_bounds(_requests(run, self._store), share) for run in variant.runs]
        lows, highs = [low for low, _ in ends if low is not None], [high for _, high in ends if high is not None]
        low = 1000 * min(lows) if len(lows) == len(ends) else None
        high = 1000 * max(highs) if len(highs) == len(ends) else None
        method = f"order statistics of {figures.counted(n, 'single request')}"
        if high is None:
            method += f"; an upper bound takes {smallest_for_bound(share):,}"
        return Measure(name, stats.mean(known), low, high, "ms", higher=False, method=method)


def _requests(run: Run, store: Store) -> list[float]:
    """Seconds of each single request that was timed, in order of size."""
    outcome = store.step(run.steps["latency"]).outcome if "latency" in run.steps else None
    return sorted((outcome or {}).get("seconds_each", []))


def quantile_bounds(ordered: Sequence[float], share: float) -> tuple[float | None, float | None]:
    """Return a 95 % interval of the quantile `share` of what `ordered` numbers were drawn from, whatever its form.

    The number of draws below the quantile is binomial, so the r-th and s-th smallest enclose it with the probability
    P(r <= B(n, share) < s); each tail has at most 2.5 % (Conover, Practical Nonparametric Statistics, section 3.2).
    An end is None where no number of so few lies far enough out.
    """
    n = len(ordered)
    below = [0.0]  # below[r] = P(B(n, share) < r)
    for k in range(n + 1):
        below.append(min(1.0, below[-1] + math.exp(_log_binomial(n, k, share))))
    low = max((r for r in range(1, n + 1) if below[r] <= TAIL), default=None)
    high = min((s for s in range(1, n + 1) if 1 - below[s] <= TAIL), default=None)
    return (None if low is None else ordered[low - 1]), (None if high is None else ordered[high - 1])


def smallest_for_bound(share: float) -> int:
    """How many draws it takes until the largest is an upper bound of the quantile: share^n <= 2.5 %."""
    return math.ceil(math.log(TAIL) / math.log(share))


def _log_binomial(n: int, k: int, share: float) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways + k * math.log(share) + (n - k) * math.log1p(-share)


def holds(measure: Measure, operator: Operator, bound: float) -> tuple[bool | None, bool | None]:
    """Return whether the value keeps the bound, and whether its interval leaves no doubt of that.

    The first is None where there is no value; the second where there is no interval.
    """
    if measure.value is None:
        return None, None
    keeps = _keeps(measure.value, operator, bound)
    upper = operator in ("<=", "<")
    worst, best = (measure.high, measure.low) if upper else (measure.low, measure.high)
    if worst is None and best is None:
        return keeps, None
    decisive = worst if keeps else best
    return keeps, decisive is not None and _keeps(decisive, operator, bound) == keeps


def _keeps(value: float, operator: Operator, bound: float) -> bool:
    match operator:
        case ">=":
            return value >= bound
        case ">":
            return value > bound
        case "<=":
            return value <= bound
        case _:
            return value < bound
