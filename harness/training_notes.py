"""What a training stage's figures mean, in sentences that are shown with the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.figures import counted

RISEN = 1.05
"""Dev loss is called risen where the last is above the lowest by this factor: less may be chance."""
GAP = 1.5
"""The loss on dev is told beside that of training where it is higher by this factor."""
FORGOTTEN = 1.1
"""The same for bits per byte of general text, after training against before."""
FACTS_LOST = 0.15
"""General facts are called lost where the share of right ones fell by this much: 3 of 20."""


def notes(stage: int, details: Mapping[str, Any], variant: str = "") -> Iterator[str]:
    """The sentences about stage `stage` (from 0) of a variant, by the details that its method reported. `variant` is
    named where it is another one than the result is of."""
    where = f" in stage {stage + 1}" if stage or variant else ""
    where += f" of {variant}" if variant else ""
    yield from _lost_rows(where, details)
    if failures := details.get("out_of_memory"):
        yield (
            f"memory ran out {counted(failures, 'time')} in training{where}; it went on with "
            f"{counted(details['micro_batch'], 'row')} at once, for steps of the same size"
        )
    yield from _overfitted(where, details)
    kl, target = details.get("kl"), details.get("target_kl")
    if kl is not None and target is not None and kl > target:
        yield (
            f"too far from its start{where}: every evaluation was beyond target_kl = {target:g}, and the last weights, "
            f"{kl:.3g} nats away, were kept"
        )
    yield from _forgotten(where, details.get("probe") or {})


def facts(outcome: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a finished stage came to, each figure with its name, by what its step measured."""
    details = outcome["details"]
    if outcome["trainable_parameters"]:
        yield "weights trained", f"{outcome['trainable_parameters']:,}"
    yield "steps, tokens", f"{outcome['steps']:,}, {outcome['tokens']:,}"
    if outcome["best_step"] is not None:
        yield "kept", f"step {outcome['best_step']}, the best on dev by {details.get('best_by') or 'loss'}"
    for name in ("train_loss", "dev_loss"):
        if details.get(name) is not None:
            yield name.replace("_", " "), f"{details[name]:.4g}"
    if details.get("dev_accuracy") is not None:
        yield "pairs on dev told right", f"{details['dev_accuracy']:.1%}"
    for name in ("reward", "answer_tokens"):
        before, after = details.get(f"{name}_before"), details.get(f"{name}_after")
        if before is not None and after is not None:
            yield f"mean {name.replace('_', ' ')} on dev", f"{before:.3g} before training, {after:.3g} after"
    if details.get("kl") is not None:
        yield "divergence from its start", f"{details['kl']:.3g} nats an answer"
    for when, found in (details.get("probe") or {}).items():
        told = f"{found['bits_per_byte']:.3f} bits per byte of general English, {found['facts']:.0%} of everyday facts"
        yield f"{when} training", told


def _lost_rows(where: str, details: Mapping[str, Any]) -> Iterator[str]:
    """What a length limit took from the rows of a stage, where its method counts it."""
    for split, noun in (("train", "training"), ("dev", "dev")):
        of = f"of {details.get(f'{split}_rows')} {noun} rows"
        if cut := details.get(f"{split}_cut"):
            yield f"{cut} {of} lost the end of their answer to max_length{where}"
        if dropped := details.get(f"{split}_dropped"):
            yield f"{dropped} {of} lost their whole answer to max_length and were left out{where}"


def _overfitted(where: str, details: Mapping[str, Any]) -> Iterator[str]:
    train, kept = details.get("train_loss"), details.get("dev_loss")
    lowest, last = details.get("dev_loss_lowest"), details.get("dev_loss_last")
    if lowest is not None and last is not None and last > RISEN * lowest:
        if kept == lowest:
            which = "the weights of the lowest were kept"
        elif kept == last:
            which = "the last weights were kept"
        else:
            which = f"the weights that were kept, the best by {details['best_by']}, have {kept:.3g}"
        yield (
            f"overfitting{where}: after its lowest, {lowest:.3g}, the loss on dev rose to {last:.3g} while training "
            f"went on; {which}"
        )
    if train is not None and kept is not None and kept > GAP * train > 0:
        yield (
            f"train/dev gap{where}: the weights that were kept have a loss of {train:.3g} on what they were trained on "
            f"and {kept:.3g} on dev"
        )


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
