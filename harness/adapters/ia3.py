"""A trained factor for each output of keys, values and the feed-forward layer ((IA)³, arXiv 2205.05638)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator

from harness.adapters import _peft
from harness.plugins import Adapter


class Ia3(Adapter):
    """Hidden values are multiplied by learned vectors, which are one at the start: very few weights."""

    peft_type: ClassVar[str] = "IA3"
    learning_rate: ClassVar[float] = 3e-3
    usual: ClassVar[tuple[float, float]] = (5e-4, 3e-2)

    targets: tuple[str, ...] = ()
    """Ends of module names whose outputs are multiplied; by default keys and values, as PEFT knows them by the model's
    type, and `feedforward`."""
    feedforward: tuple[str, ...] = ()
    """Ends of those module names among the targets whose inputs are multiplied instead."""

    @model_validator(mode="after")
    def _among_the_targets(self) -> Ia3:
        if odd := sorted(set(self.feedforward) - set(self.targets)):
            raise ValueError(f"feedforward names {', '.join(odd)}, which `targets` does not name")
        return self

    @property
    def targets_output(self) -> bool:
        return _peft.OUTPUT in self.targets

    def wrap(self, model: Any) -> Any:
        from peft import IA3Config

        named = {"target_modules": list(self.targets), "feedforward_modules": list(self.feedforward)}
        return _peft.wrap(model, IA3Config(**(named if self.targets else {})), self)
