"""What a training stage's figures mean, in sentences that are shown with the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.figures import counted

RISEN = 1.05
"""Dev loss is called risen where the last is above the lowest by this factor: less may be chance."""
FORGOTTEN = 1.1
"""The same for bits per byte of general text, after training against before."""
FACTS_LOST = 0.15
"""General facts are called lost where the share of right ones fell by this much: 3 of 20."""


def notes(stage: int, details: Mapping[str, Any]) -> Iterator[str]:
    """The sentences about stage `stage` (from 0) of a variant, by the details that its method reported."""
    where = f" in stage {stage + 1}" if stage else ""
    yield from _lost_rows(where, details)
    if failures := details.get("out_of_memory"):
        yield (
            f"memory ran out {counted(failures, 'time')} in training{where}; it went on with "
            f"{counted(details['micro_batch'], 'row')} at once, for steps of the same size"
        )
    best, last = details.get("dev_loss"), details.get("dev_loss_last")
    if best is not None and last is not None and last > RISEN * best:
        yield (
            f"overfitting{where}: after its lowest, {best:.3g}, the loss on dev rose to {last:.3g} while training went "
            "on; the weights of the lowest were kept"
        )
    yield from _forgotten(where, details.get("probe") or {})


def _lost_rows(where: str, details: Mapping[str, Any]) -> Iterator[str]:
    """What a length limit took from the rows of a stage, where its method counts it."""
    for split, noun in (("train", "training"), ("dev", "dev")):
        of = f"of {details.get(f'{split}_rows')} {noun} rows"
        if cut := details.get(f"{split}_cut"):
            yield f"{cut} {of} lost the end of their answer to max_length{where}"
        if dropped := details.get(f"{split}_dropped"):
            yield f"{dropped} {of} lost their whole answer to max_length and were left out{where}"


def _forgotten(where: str, probe: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    if not probe:
        return
    before, after = probe["before"], probe["after"]
    if after["bits_per_byte"] > FORGOTTEN * before["bits_per_byte"]:
        yield (
            f"forgetting{where}: general English now takes {after['bits_per_byte']:.2f} bits per byte, "
            f"{before['bits_per_byte']:.2f} before training"
        )
    if after["facts"] < before["facts"] - FACTS_LOST + 1e-9:
        yield (
            f"forgetting{where}: of everyday facts the model now knows {after['facts']:.0%}, "
            f"{before['facts']:.0%} before training"
        )
