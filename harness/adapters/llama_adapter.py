"""Trained tokens that the upper attention layers look at through a gate (LLaMA-Adapter, arXiv 2303.16199)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from harness.adapters import _peft
from harness.plugins import Adapter


class LlamaAdapter(Adapter):
    """The gates are zero at the start, so training begins with the model as it is. Models of the types llama, mistral
    and gpt2 only, as PEFT has it."""

    peft_type: ClassVar[str] = "ADAPTION_PROMPT"
    learning_rate: ClassVar[float] = 9e-3
    usual: ClassVar[tuple[float, float]] = (1e-3, 5e-2)
    trl: ClassVar[bool] = False
    merges: ClassVar[bool] = False

    tokens: int = Field(10, ge=1)
    """How many tokens each layer looks at."""
    layers: int | None = Field(None, ge=1)
    """How many layers, from the top; None is all but the two lowest, as in the paper for 32 layers."""

    def wrap(self, model: Any) -> Any:
        from peft import AdaptionPromptConfig

        has = model.config.get_text_config().num_hidden_layers
        config = AdaptionPromptConfig(adapter_len=self.tokens, adapter_layers=self.layers or max(1, has - 2))
        return _peft.wrap(model, config, self)
