"""Low-rank adaptation: each chosen weight gets a trainable product of two thin matrices (LoRA, arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from harness.adapters import _peft


class Lora(_peft.Targeted):
    """W x becomes W x + scale * B A x, with A (rank x in) random and B (out x rank) zero at the start."""

    peft_type: ClassVar[str] = "LORA"
    learning_rate: ClassVar[float] = 2e-4

    rank: int = Field(16, ge=1)
    alpha: float | None = Field(None, gt=0)
    """The scale is alpha / rank (alpha / sqrt(rank) with `rslora`); None is twice the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the inputs of A that is dropped in training."""
    rslora: bool = False
    """Rank-stabilised scale (arXiv 2312.03732)."""
    dora: bool = False
    """Magnitude and direction apart (DoRA, arXiv 2402.09353); slower."""
    init: Literal["random", "pissa"] = "random"
    """"pissa" starts from the largest singular values of each weight, which are taken out of it (arXiv 2404.02948). The
    artifact is a LoRA of twice the rank for the unchanged weights."""

    @model_validator(mode="after")
    def _init_with_dora(self) -> Lora:
        if self.init == "pissa" and self.dora:
            raise ValueError(
                'init = "pissa" does not go with dora: what DoRA learns as magnitudes belongs to the changed weights. '
                "Leave one of them out"
            )
        return self

    def trainable(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Each targeted weight (out, in) gets rank * (out + in) numbers, and with DoRA a magnitude for each output."""
        found = [shape for name, shape in shapes.items() if self._targets(name, shape)]
        return sum(self.rank * sum(shape) + (shape[0] if self.dora else 0) for shape in found)

    def _targets(self, name: str, shape: tuple[int, ...]) -> bool:
        module = name.removesuffix(".weight")
        if module == name or len(shape) != 2 or "embed" in module or module.endswith("wte"):
            return False
        if isinstance(self.targets, str):
            return not module.endswith("lm_head")
        return any(f".{module}".endswith(f".{end}") for end in self.targets)

    def wrap(self, model: Any) -> Any:
        from peft import LoraConfig

        config = LoraConfig(
            r=self.rank,
            lora_alpha=2 * self.rank if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.target_modules(),
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights="pissa" if self.init == "pissa" else True,
        )
        return _peft.wrap(model, config, self)
