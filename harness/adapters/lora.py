"""Low-rank adaptation: each chosen weight gets a trainable product of two thin matrices (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from harness.errors import ModelError
from harness.plugins import Adapter


class Lora(Adapter):
    """W x becomes W x + scale * B A x, with A (rank x in) random and B (out x rank) zero at the start."""

    learning_rate: ClassVar[float] = 2e-4

    rank: int = Field(16, ge=1)
    alpha: float | None = Field(None, gt=0)
    """The scale is alpha / rank (alpha / sqrt(rank) with `rslora`); None is twice the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the inputs of A that is dropped in training."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Ends of module names, such as "q_proj"; "all-linear" is every linear layer but the output layer."""
    rslora: bool = False
    """Rank-stabilised scale (arXiv 2312.03732)."""
    dora: bool = False
    """Magnitude and direction apart (DoRA, arXiv 2402.09353); slower."""

    @field_validator("targets")
    @classmethod
    def _not_the_output_layer(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value:
            raise ValueError('name at least one module, or write "all-linear"')
        if "lm_head" in value:
            raise ValueError("the output layer lm_head cannot be adapted here; leave it out")
        return value

    def wrap(self, model: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=2 * self.rank if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.targets if isinstance(self.targets, str) else list(self.targets),
            use_rslora=self.rslora,
            use_dora=self.dora,
        )
        try:
            return get_peft_model(model, config)
        except ValueError as error:
            if "arget" not in str(error):
                raise
            linear = (name for name, part in model.named_modules() if hasattr(part, "in_features"))
            ends = sorted({name.rpartition(".")[2] for name in linear})
            raise ModelError(
                f"adapter lora: no module of the model ends in {self.targets!r}. Its linear layers: {', '.join(ends)}."
            ) from error
