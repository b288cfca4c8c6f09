"""Embeddings before the text that a small network makes while training (P-tuning, Liu et al. 2021, arXiv 2103.10385).

The artifact holds the embeddings; the network is no longer needed then.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from harness.adapters import _peft
from harness.plugins import Adapter


class PTuning(Adapter):
    peft_type: ClassVar[str] = "P_TUNING"
    learning_rate: ClassVar[float] = 1e-3
    usual: ClassVar[tuple[float, float]] = (1e-5, 1e-2)
    prompt_learning: ClassVar[bool] = True
    merges: ClassVar[bool] = False

    tokens: int = Field(20, ge=1)
    """How many; they take part of the model's context."""
    network: Literal["mlp", "lstm"] = "mlp"
    width: int | None = Field(None, ge=1)
    """Width inside the network; None is the model's own."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """In the LSTM."""

    def wrap(self, model: Any) -> Any:
        from peft import PromptEncoderConfig

        config = PromptEncoderConfig(
            num_virtual_tokens=self.tokens,
            encoder_reparameterization_type=self.network.upper(),
            encoder_hidden_size=self.width or model.config.get_text_config().hidden_size,
            encoder_dropout=self.dropout,
        )
        return _peft.wrap(model, config, self)
