"""What the adapters that PEFT puts into a model's layers share."""

from __future__ import annotations

import warnings
from typing import Any, Literal

from pydantic import field_validator

from harness.errors import ModelError
from harness.plugins import Adapter

OUTPUT = "lm_head"
"""What the output layer is called in models of transformers."""


def wrap(model: Any, config: Any, adapter: Adapter) -> Any:
    """Return the PeftModel of `model` with a fresh adapter; `adapter` is the plug-in that `config` was made from.

    Raises ModelError where the model has no layers for it, with those that it has.
    """
    from peft import get_peft_model

    config.task_type = "CAUSAL_LM"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Advice on choices that were made here.
            return get_peft_model(model, config)
    except (ValueError, TypeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        targets = getattr(adapter, "targets", None)
        if "arget" in reason and targets:
            reason = f"no module of the model ends in {targets!r}"
        linear = (name for name, part in model.named_modules() if hasattr(part, "in_features") or hasattr(part, "nf"))
        ends = sorted({name.rpartition(".")[2] for name in linear})
        raise ModelError(f"adapter {adapter.kind}: {reason}. Its linear layers: {', '.join(ends)}.") from error


class Targeted(Adapter):
    """An adapter of chosen linear layers."""

    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Ends of module names, such as "q_proj"; "all-linear" is every linear layer but the output layer."""

    @field_validator("targets")
    @classmethod
    def _some(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError('name at least one module, or write "all-linear"')
        return value

    @property
    def targets_output(self) -> bool:
        return OUTPUT in self.targets

    def target_modules(self) -> str | list[str]:
        """The targets as PEFT's configurations take them."""
        return self.targets if isinstance(self.targets, str) else list(self.targets)
