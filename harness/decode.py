"""The `[decode]` table of a spec: how answers are made, written word by word or chosen from a set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from harness.errors import Fault
from harness.layers import fault
from harness.records import Decoding, Normalise
from harness.shape import Table, model_has, not_of
from harness.toml_lines import Node


class Decode(Table):
    """The `[decode]` table: how answers are made. Settings of the other kind that a variant inherits do not count."""

    kind: Literal["generate", "choices"] = "generate"
    """"generate" writes an answer; "choices" takes the likeliest text of a set, by the model's own likelihoods."""
    max_tokens: int = Field(64, ge=1)
    """How many new tokens an answer has at most."""
    temperature: float = Field(0.0, ge=0)
    """0 always takes the likeliest token."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the likeliest tokens that together have this probability."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end an answer; they are not part of it."""
    choices: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """What is chosen from; by default every distinct target of the train split."""
    normalise: Normalise = "none"
    """What a choice's log-probability is divided by before they are ranked: nothing, which favours short choices, its
    tokens or its bytes."""

    @field_validator("choices")
    @classmethod
    def _several(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) == 1 or len(set(value)) < len(value):
            raise ValueError("choose among at least two texts, each named once")
        return value

    @property
    def decoding(self) -> Decoding:
        """The settings of this kind alone. `choices` is empty where they are the targets of the train split."""
        return Decoding(**{name: getattr(self, name) for name in _SETTINGS[self.kind]})

    def resolved(self) -> dict[str, Any]:
        """The kind and its settings, as JSON-able values."""
        return self.model_dump(mode="json", include={"kind", *_SETTINGS[self.kind]})


_SETTINGS = {"generate": ("max_tokens", "temperature", "top_p", "stop"), "choices": ("choices", "normalise")}


def faults(variant: Node, root: Node, *, learns: bool) -> Iterator[Fault]:
    """The faults between `decode` of a variant and the rest; `learns` where there is a train split to choose from."""
    decode = variant.table["decode"]
    kind = decode.text("kind") or "generate"
    if kind not in _SETTINGS:
        return
    for name, other in decode.table.items():
        if name not in _SETTINGS[_OTHER[kind]]:
            continue
        if "kind" not in decode.table or _nearness(other, variant) >= _nearness(decode.table["kind"], variant):
            need = f'it needs kind = "{_OTHER[kind]}"'
            yield fault(other, f"`{name}` is about another way to answer: {need}")
    if kind == "choices" and not model_has(root, "likelihoods"):
        yield fault(decode.table["kind"], f"choices need a model that tells how likely a text is, {not_of(root)}")
    if kind == "choices" and not learns and "choices" not in decode.table:
        hint = 'name them, choices = ["yes", "no"]'
        yield fault(decode.table["kind"], f"there is nothing to choose from: [data] names no `train`; {hint}")


_OTHER = {"generate": "choices", "choices": "generate"}


def _nearness(node: Node, variant: Node) -> float:
    """How near to a variant a setting was written: the nearer one decides, an inherited one is no fault beside it."""
    override = node.place.file == "--set"
    first = node.place.path.partition(".")[0]
    if first == "variant":
        return (3 if override or f"{node.place.path}.".startswith(f"{variant.place.path}.") else 2) + override / 2
    return (first == "defaults") + override / 2
