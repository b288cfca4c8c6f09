"""Part of the model's own weights is trained, the rest frozen; the artifact is a whole model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import Field

from harness.errors import ModelError
from harness.plugins import Adapter

_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
"""The number of a layer in the names of its weights, as models of transformers have it."""


class Freeze(Adapter):
    """Trains the last `layers` layers, or the chosen `modules`, or the chosen modules of the last layers; without
    either, everything but the embeddings (and the output layer where it shares their weights)."""

    learning_rate: ClassVar[float] = 5e-5
    usual: ClassVar[tuple[float, float]] = (1e-6, 1e-3)

    layers: int | None = Field(None, ge=1)
    """How many layers are trained, counted from the last."""
    modules: tuple[str, ...] = ()
    """Ends of the names of modules that are trained, such as "mlp" or "q_proj"."""

    def wrap(self, model: Any) -> Any:
        chosen = self._chosen(model)
        if not chosen:
            raise ModelError(f"adapter freeze: {self._nothing(model)}")
        for name, weight in model.named_parameters():
            weight.requires_grad_(name in chosen)
        return model

    def _chosen(self, model: Any) -> set[str]:
        """The names of the weights to train."""
        if not self.layers and not self.modules:
            embedding = model.get_input_embeddings().weight
            return {name for name, weight in model.named_parameters() if weight is not embedding}
        return self._named(name for name, _ in model.named_parameters())

    def trainable(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        chosen = self._named(shapes)
        if not self.layers and not self.modules:
            chosen = {name for name in chosen if not name.endswith(("embed_tokens.weight", "wte.weight"))}
        return sum(math.prod(shapes[name]) for name in chosen)

    def _named(self, found: Iterable[str]) -> set[str]:
        """Those of the names that `layers` and `modules` choose."""
        names = set(found)
        if self.layers:
            numbers = {name: int(at[1]) for name in names if (at := _LAYER.search(f".{name}"))}
            first = max(numbers.values(), default=-1) + 1 - self.layers
            names &= {name for name, number in numbers.items() if number >= first}
        if self.modules:
            names = {name for name in names if any(f".{end}." in f".{name}" for end in self.modules)}
        return names

    def _nothing(self, model: Any) -> str:
        if not self.modules:
            return "no numbered layers were found in the model; name `modules` instead"
        ends = {name.rpartition(".")[2] for name, part in model.named_modules() if any(True for _ in part.parameters())}
        ends = {end for end in ends if end and not end.isdigit()}
        return f"no module of the model is called {', '.join(self.modules)}. Its modules: {', '.join(sorted(ends))}."
