"""What each variant costs: for 1,000 answers and once for training, and from how many answers on one is the cheaper.

Everything comes from what the runs measured, nothing is guessed: machine time at the throughput of the batches that
answered the held-out split, tokens as they were counted, and the prices of `[cost]`. What was not measured or has no
price is None. With several seeds a figure is the mean of a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness import stats
from harness.records import Run
from harness.results import Results, Variant
from harness.store import Store
from harness.terms import Prices

THOUSAND = 1000


@dataclass(frozen=True, slots=True)
class Spending:
    """What one variant costs. Money is in the currency of `[cost]`, None without prices."""

    variant: str
    device: str
    """What its answers were made on; costs of different devices are not ranked."""
    money_per_1000: float | None
    money_once: float | None
    """Training and indexing."""
    seconds_per_1000: float | None
    """Machine time of 1,000 answers, in batches; loading the model is not counted."""
    seconds_once: float | None
    lacking: str = ""
    """Why there is no money, where there are prices."""


@dataclass(frozen=True, slots=True)
class BreakEven:
    """From how many answers on `variant` costs less than `against` in all, training and indexing included.

    "at once" from the first answer on; "after" from `answers` on; "until": it costs less at first, and `against` does
    from `answers` on; "never"; "same": no difference at any number; "unknown" says `why`.
    """

    variant: str
    against: str
    kind: Literal["at once", "after", "until", "never", "same", "unknown"]
    answers: int | None = None
    unit: str = ""
    why: str = ""


def spending(results: Results, store: Store, prices: Prices) -> dict[str, Spending]:
    """Return what every complete variant costs."""
    complete = [variant for variant in results.variants if variant.status == "complete"]
    return {variant.name: _spent(variant, len(results.examples), store, prices) for variant in complete}


def comparable(spendings: Sequence[Spending]) -> bool:
    """Whether costs may be ranked: all were measured on one device."""
    return len({spent.device for spent in spendings}) <= 1


def each(spent: Spending, prices: Prices) -> float | None:
    """What 1,000 answers cost by the basis that costs are ranked by: money where there are prices, else seconds."""
    return spent.money_per_1000 if prices.any else spent.seconds_per_1000


def once(spent: Spending, prices: Prices) -> float | None:
    """What training and indexing cost, by the same basis."""
    return spent.money_once if prices.any else spent.seconds_once


def break_even(one: Spending, other: Spending, prices: Prices) -> BreakEven:
    """Compare what two variants cost in all as the number of answers grows.

    Cost in all = training and indexing once + answers * cost of an answer, both as measured: at the throughput of the
    batches that answered the held-out split, on a machine that is paid only while it works. Training again for new
    facts, storage and idle time are not in it.
    """
    unit = prices.currency if prices.any else "s"
    if not comparable([one, other]):
        return BreakEven(one.variant, other.variant, "unknown", why="measured on different devices")
    figures = [each(one, prices), each(other, prices), once(one, prices), once(other, prices)]
    if any(figure is None for figure in figures):
        why = one.lacking or other.lacking or "not measured"
        return BreakEven(one.variant, other.variant, "unknown", why=why)
    mine, its, spent, its_spent = (figure or 0.0 for figure in figures)
    saved, ahead = (its - mine) / THOUSAND, spent - its_spent
    if saved == 0 and ahead == 0:
        return BreakEven(one.variant, other.variant, "same", unit=unit)
    if saved >= 0 and ahead <= 0:
        return BreakEven(one.variant, other.variant, "at once", unit=unit)
    if saved <= 0 and ahead >= 0:
        return BreakEven(one.variant, other.variant, "never", unit=unit)
    answers = math.floor(ahead / saved) + 1
    return BreakEven(one.variant, other.variant, "after" if saved > 0 else "until", answers, unit)


# ------------------------------------------------------------------------------------------------------ one variant


def _spent(variant: Variant, n: int, store: Store, prices: Prices) -> Spending:
    def mean(figure: Callable[[Run], float | None]) -> float | None:
        found = [value for run in variant.runs if (value := figure(run)) is not None]
        return stats.mean(found) if found else None

    per_1000 = mean(lambda run: _answering(run, n, store, prices)) if prices.any else None
    training = mean(lambda run: _once_money(run, store, prices)) if prices.any else None
    device = "; ".join(sorted({run.cost.device for run in variant.runs}))
    lacking = ""
    if prices.any and per_1000 is None:
        unrated = prices.machine_hour is not None and any(prices.rate(run.cost.device) is None for run in variant.runs)
        lacking = (
            f"[cost] machine_hour has no price for {device or 'an unknown device'!r}" if unrated else "not measured"
        )
    elif prices.any and training is None:
        lacking = "training and indexing have no price: [cost] names no machine_hour for their device"
    return Spending(
        variant=variant.name,
        device=device,
        money_per_1000=per_1000,
        money_once=training,
        seconds_per_1000=mean(lambda run: _scaled(run.cost.answer_seconds, n)),
        seconds_once=mean(_once_seconds),
        lacking=lacking,
    )


def _scaled(value: float | None, n: int) -> float | None:
    return None if value is None or not n else value / n * THOUSAND


def _once_seconds(run: Run) -> float | None:
    parts = [run.cost.train_seconds, run.cost.index_seconds]
    return None if None in parts else math.fsum(part or 0.0 for part in parts)


def _answering(run: Run, n: int, store: Store, prices: Prices) -> float | None:
    """Money for 1,000 answers of one run: the machine's time and the tokens, as far as each has a price."""
    money = 0.0
    if prices.machine_hour is not None:
        rate, seconds = prices.rate(run.cost.device), run.cost.answer_seconds
        if rate is None or seconds is None:
            return None
        money += rate * seconds / 3600
    if prices.by_token:
        read, written = run.cost.input_tokens, run.cost.output_tokens
        if read is None or written is None:
            return None
        fresh, answer = prices.million_input_tokens or 0.0, prices.million_output_tokens or 0.0
        # The answers are read only where a price asks how many tokens came from a cache.
        cached = _cached_tokens(run, store) if prices.million_cached_tokens is not None else 0
        kept = prices.million_cached_tokens or 0.0
        money += ((read - cached) * fresh + cached * kept + written * answer) / 1e6
    return _scaled(money, n)


def _cached_tokens(run: Run, store: Store) -> int:
    predictions = store.step(run.steps["predict"]).predictions()
    return sum(call.reply.cached_tokens for prediction in predictions for call in prediction.calls)


def _once_money(run: Run, store: Store, prices: Prices) -> float | None:
    """Money for training and indexing of one run: training at the rate of the device of each stage where its step is
    still in the store, the rest at that of the answers."""
    index, train = run.cost.index_seconds, run.cost.train_seconds
    if index is None or train is None:
        return None
    stages = [store.step(name).outcome for role, name in run.steps.items() if role.startswith("train.")]
    known = [outcome for outcome in stages if outcome is not None and outcome.get("seconds") is not None]
    spent = [(run.cost.device, index)]
    spent += (
        [(_device(o, run), o["seconds"]) for o in known] if len(known) == len(stages) else [(run.cost.device, train)]
    )
    money = 0.0
    for device, seconds in spent:
        rate = prices.rate(device)
        if rate is None and seconds > 0:
            return None
        money += (rate or 0.0) * seconds / 3600
    return money


def _device(outcome: Mapping[str, Any], run: Run) -> str:
    """What a training stage ran on, named as the device of answers is."""
    if not outcome.get("device"):
        return run.cost.device
    return " · ".join(filter(None, [(outcome.get("provenance") or {}).get("processor"), outcome["device"]]))
