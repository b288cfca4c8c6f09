"""Trained keys and values before the text, in every layer (prefix tuning, Li and Liang 2021, arXiv 2101.00190)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from harness.adapters import _peft
from harness.plugins import Adapter


class Prefix(Adapter):
    peft_type: ClassVar[str] = "PREFIX_TUNING"
    learning_rate: ClassVar[float] = 1e-2
    usual: ClassVar[tuple[float, float]] = (5e-5, 5e-2)
    prompt_learning: ClassVar[bool] = True
    gradient_checkpointing: ClassVar[bool] = False
    merges: ClassVar[bool] = False

    tokens: int = Field(20, ge=1)
    """How many; they take part of the model's context."""
    projection: bool = False
    """Whether a small network makes them while training, which the paper found steadier; the artifact holds what it
    made. It wants a smaller learning rate, such as 1e-3."""
    width: int | None = Field(None, ge=1)
    """Width inside that network; None is the model's own."""

    def wrap(self, model: Any) -> Any:
        from peft import PrefixTuningConfig

        config = PrefixTuningConfig(
            num_virtual_tokens=self.tokens,
            prefix_projection=self.projection,
            encoder_hidden_size=self.width or model.config.get_text_config().hidden_size,
        )
        return _peft.wrap(model, config, self)
