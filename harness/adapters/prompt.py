"""Trained embeddings before the text (prompt tuning, Lester et al. 2021, arXiv 2104.08691)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from harness.adapters import _peft
from harness.plugins import Adapter


class Prompt(Adapter):
    peft_type: ClassVar[str] = "PROMPT_TUNING"
    learning_rate: ClassVar[float] = 3e-2
    usual: ClassVar[tuple[float, float]] = (1e-3, 0.5)
    prompt_learning: ClassVar[bool] = True
    merges: ClassVar[bool] = False

    tokens: int = Field(20, ge=1)
    """How many; they take part of the model's context."""
    init: Literal["vocabulary", "random"] = "vocabulary"
    """"vocabulary" starts from the embeddings of random tokens, which Lester et al. found better than random ones."""

    def wrap(self, model: Any) -> Any:
        from peft import PromptTuningConfig

        init = "SAMPLE_VOCAB" if self.init == "vocabulary" else "RANDOM"
        return _peft.wrap(model, PromptTuningConfig(num_virtual_tokens=self.tokens, prompt_tuning_init=init), self)
