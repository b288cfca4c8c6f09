"""Figures by name, intervals of percentiles, and whether they keep a bound."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from decided import Given, write
from scipy import stats as reference

from harness import money, results
from harness.measures import Measure, Measures, holds, quantile_bounds, smallest_for_bound
from harness.measures import money as shown_money
from harness.terms import Prices


def measures(tmp_path: Path, **variants: Given) -> Measures:
    store, snapshot = write(tmp_path, variants)
    found, prices = results.read(snapshot, store), Prices(machine_hour=3.6, currency="EUR")
    return Measures(found, store, money.spending(found, store, prices), prices.currency)


def test_every_cost_is_found_by_its_name(tmp_path: Path) -> None:
    found = measures(tmp_path, a=Given([1, 0], answer=10, train=1800, index=1800, p95=700, memory=3 << 30))
    (variant,) = found.results.variants
    values = {
        name: found.of(variant, name).value
        for name in ("latency_p50_ms", "latency_p95_ms", "training_hours", "memory_gib", "errors", "exact_match")
    }
    assert values == pytest.approx(
        {
            "latency_p50_ms": 560,
            "latency_p95_ms": 700,
            "training_hours": 1,
            "memory_gib": 3,
            "errors": 0,
            "exact_match": 0.5,
        }
    )
    assert found.of(variant, "cost_per_1000_answers").value == pytest.approx(5)
    assert found.of(variant, "training_cost").text == "3.60 EUR"
    assert found.of(variant, "training_hours").text == "1 h 0 min"
    assert found.of(variant, "memory_gib").text == "3.0 GiB"
    assert found.of(variant, "exact_match").text.startswith("50.0 % (95 % interval ")
    assert found.of(variant, "nothing").value is None


def test_what_was_not_measured_has_no_value(tmp_path: Path) -> None:
    found = measures(tmp_path, a=Given([1], p95=None, memory=None, answer=None), b=Given([], failed="out of memory"))
    a, b = found.results.variants
    for name in ("latency_p95_ms", "memory_gib", "cost_per_1000_answers"):
        assert found.of(a, name).value is None
    assert found.of(b, "exact_match").value is None and "failed" in found.of(b, "exact_match").method


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("n", [1, 5, 16, 71, 72, 200])
def test_bounds_of_a_percentile_are_those_of_the_binomial(n: int, share: float) -> None:
    low, high = quantile_bounds([float(rank) for rank in range(1, n + 1)], share)
    below = reference.binom(n, share)
    lows = [r for r in range(1, n + 1) if below.cdf(r - 1) <= 0.025]
    highs = [s for s in range(1, n + 1) if below.sf(s - 1) <= 0.025]
    assert low == (max(lows) if lows else None)
    assert high == (min(highs) if highs else None)


def test_the_bounds_hold_the_true_percentile_as_often_as_they_say() -> None:
    draw, true, kept, rounds = random.Random(1), -math.log(0.05), 0, 400
    for _ in range(rounds):
        low, high = quantile_bounds(sorted(draw.expovariate(1) for _ in range(150)), 0.95)
        assert low is not None and high is not None
        kept += low <= true <= high
    assert kept / rounds >= 0.93  # at least 95 % in truth; three standard errors below


def test_nothing_has_no_bounds() -> None:
    assert quantile_bounds([], 0.95) == (None, None)
    assert smallest_for_bound(0.95) == 72
    assert quantile_bounds([1.0] * 71, 0.95)[1] is None and quantile_bounds([1.0] * 72, 0.95)[1] == 1.0


def test_latency_says_when_too_few_requests_were_timed(tmp_path: Path) -> None:
    found = measures(tmp_path, a=Given([1], requests=[0.5] * 16), b=Given([1], requests=[0.5] * 80))
    few, enough = (found.of(variant, "latency_p95_ms") for variant in found.results.variants)
    assert (few.high, enough.high) == (None, 500.0)
    assert few.method == "order statistics of 16 single requests; an upper bound takes 72"
    assert few.text == "500 ms (at least 500 ms by its 95 % interval)"


@pytest.mark.parametrize(
    ("value", "low", "high", "operator", "bound", "expected"),
    [
        (0.7, 0.6, 0.8, ">=", 0.5, (True, True)),
        (0.7, 0.6, 0.8, ">=", 0.65, (True, False)),
        (0.7, 0.6, 0.8, ">=", 0.75, (False, False)),
        (0.7, 0.6, 0.8, ">=", 0.9, (False, True)),
        (0.7, 0.6, 0.8, "<=", 0.9, (True, True)),
        (0.7, 0.6, None, "<=", 0.9, (True, False)),
        (0.7, 0.6, None, "<=", 0.5, (False, True)),
        (0.7, None, None, ">=", 0.5, (True, None)),
        (0.7, None, None, ">", 0.7, (False, None)),
        (0.7, 0.6, 0.8, "<", 0.7, (False, False)),
        (None, None, None, "<", 0.7, (None, None)),
    ],
)
def test_whether_a_bound_is_kept_and_for_sure(
    value: float | None, low: float | None, high: float | None, operator: str, bound: float, expected: object
) -> None:
    measure = Measure("m", value, low, high, "share", True, "", metric=True)
    assert holds(measure, operator, bound) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00 EUR"), (1234.5, "1,234.50 EUR"), (0.1, "0.10 EUR"), (0.00312, "0.0031 EUR"), (0.0954, "0.095 EUR")],
)
def test_small_sums_keep_two_digits(value: float, text: str) -> None:
    assert shown_money(value, "EUR") == text
