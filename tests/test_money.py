"""Costs and break-even points, against figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from decided import Given, write
from hypothesis import given
from hypothesis import strategies as st

from harness import money, results
from harness.money import Spending, break_even
from harness.terms import Prices

HOURLY = Prices(machine_hour=3.6)
"""A thousandth of a unit of money a second."""


def spent(tmp_path: Path, prices: Prices, **variants: Given) -> dict[str, Spending]:
    store, snapshot = write(tmp_path, variants)
    return money.spending(results.read(snapshot, store), store, prices)


def test_answers_cost_the_machines_time_at_the_throughput_of_batches(tmp_path: Path) -> None:
    found = spent(tmp_path, HOURLY, a=Given([1, 0, 1, 1], answer=20.0, train=100.0, index=50.0))["a"]
    assert found.seconds_per_1000 == pytest.approx(5000)
    assert found.money_per_1000 == pytest.approx(5.0)
    assert found.seconds_once == 150
    assert found.money_once == pytest.approx(0.15)


def test_tokens_cost_what_they_are_paid_by_and_cached_ones_less(tmp_path: Path) -> None:
    prices = Prices(million_input_tokens=2, million_output_tokens=10, million_cached_tokens=0.5)
    variant = Given([1, 1], tokens=(1000, 400, 100))
    whole = (600 * 2 + 400 * 0.5 + 100 * 10) / 1e6
    assert spent(tmp_path, prices, a=variant)["a"].money_per_1000 == pytest.approx(whole / 2 * 1000)
    alike = prices.model_copy(update={"million_cached_tokens": None})
    whole = (1000 * 2 + 100 * 10) / 1e6
    assert spent(tmp_path / "2", alike, a=variant)["a"].money_per_1000 == pytest.approx(whole / 2 * 1000)


def test_machine_and_tokens_add_up(tmp_path: Path) -> None:
    prices = Prices(machine_hour=3.6, million_input_tokens=1, million_output_tokens=1)
    found = spent(tmp_path, prices, a=Given([1], answer=1.0, tokens=(500_000, 0, 500_000)))["a"]
    assert found.money_per_1000 == pytest.approx(1000 * (0.001 + 1.0))


def test_each_training_stage_is_priced_by_the_device_it_ran_on(tmp_path: Path) -> None:
    prices = Prices(machine_hour={"cpu": 3.6, "cuda": 36})
    found = spent(tmp_path, prices, a=Given([1], train=100, index=10, trained_on="cuda bfloat16"))["a"]
    assert found.money_once == pytest.approx(100 * 0.01 + 10 * 0.001)


def test_what_has_no_price_or_was_not_measured_is_none_and_says_why(tmp_path: Path) -> None:
    found = spent(tmp_path, Prices(machine_hour={"cuda": 1}), a=Given([1]))["a"]
    assert found.money_per_1000 is None and "has no price for 'a processor · cpu float32'" in found.lacking
    found = spent(tmp_path / "2", HOURLY, a=Given([1], answer=None))["a"]
    assert (found.money_per_1000, found.seconds_per_1000, found.lacking) == (None, None, "not measured")
    by_token = Prices(million_input_tokens=1, million_output_tokens=1)
    found = spent(tmp_path / "3", by_token, a=Given([1], train=9, tokens=(9, 0, 9)))["a"]
    assert found.money_per_1000 is not None and found.money_once is None and "no price" in found.lacking
    found = spent(tmp_path / "4", Prices(), a=Given([1]))["a"]
    assert (found.money_per_1000, found.money_once, found.lacking) == (None, None, "")


def test_seeds_are_averaged(tmp_path: Path) -> None:
    found = spent(tmp_path, HOURLY, a=Given([[1, 0], [1, 1]], answer=10.0, train=60.0))["a"]
    assert found.money_per_1000 == pytest.approx(5.0) and found.money_once == pytest.approx(0.06)


def of(name: str, each: float | None, once: float | None, device: str = "x") -> Spending:
    return Spending(name, device, each, once, each, once)


@pytest.mark.parametrize(
    ("one", "other", "kind", "answers"),
    [
        ((1.0, 100.0), (2.0, 0.0), "after", 100_001),
        ((2.0, 0.0), (1.0, 100.0), "until", 100_001),
        ((1.0, 0.0), (2.0, 0.0), "at once", None),
        ((1.0, 0.0), (1.0, 5.0), "at once", None),
        ((2.0, 5.0), (2.0, 0.0), "never", None),
        ((3.0, 5.0), (2.0, 0.0), "never", None),
        ((2.0, 5.0), (2.0, 5.0), "same", None),
        ((None, 5.0), (2.0, 5.0), "unknown", None),
    ],
)
def test_break_even_points(
    one: tuple[float | None, float], other: tuple[float, float], kind: str, answers: int | None
) -> None:
    found = break_even(of("a", *one), of("b", *other), HOURLY)
    assert (found.kind, found.answers) == (kind, answers)


def test_without_prices_machine_time_takes_their_place(tmp_path: Path) -> None:
    found = break_even(Spending("a", "x", None, None, 1000, 60), Spending("b", "x", None, None, 2000, 0), Prices())
    assert (found.kind, found.answers, found.unit) == ("after", 61, "s")


def test_costs_of_different_devices_are_not_held_against_each_other() -> None:
    found = break_even(of("a", 1, 1, "cpu"), of("b", 2, 0, "cuda"), HOURLY)
    assert (found.kind, found.why) == ("unknown", "measured on different devices")
    assert not money.comparable([of("a", 1, 1, "cpu"), of("b", 2, 0, "cuda")])


@given(*[st.integers(0, 10**6) for _ in range(4)], st.integers(1, 10**7))
def test_before_the_break_even_point_the_other_one_costs_less(e1: int, o1: int, e2: int, o2: int, n: int) -> None:
    def whole(each: int, once: int, answers: int) -> int:
        return 1000 * once + each * answers  # in thousandths

    found = break_even(of("a", e1, o1), of("b", e2, o2), HOURLY)
    cheaper = whole(e1, o1, n) < whole(e2, o2, n)
    match found.kind:
        case "after":
            assert found.answers is not None
            # Costs are floating-point numbers: at the very point they may come out even.
            assert cheaper == (n >= found.answers) or abs(n - found.answers) <= 1
        case "until":
            assert found.answers is not None
            assert (whole(e1, o1, n) > whole(e2, o2, n)) == (n >= found.answers) or abs(n - found.answers) <= 1
        case "at once":
            assert cheaper or whole(e1, o1, n) == whole(e2, o2, n)
        case _:
            assert not cheaper
