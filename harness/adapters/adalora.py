"""LoRA whose ranks are spread over the layers while it trains, where they matter most (AdaLoRA, arXiv 2303.10512)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from harness.adapters import _peft
from harness.errors import ModelError
from harness.figures import counted


class Adalora(_peft.Targeted):
    """W x becomes W x + scale * P E Q x with E diagonal; step by step the least important entries of E are set to zero,
    until `target_rank` of `rank` are left on average."""

    peft_type: ClassVar[str] = "ADALORA"
    learning_rate: ClassVar[float] = 1e-3
    usual: ClassVar[tuple[float, float]] = (2e-4, 5e-3)

    rank: int = Field(12, ge=2)
    """The rank of every layer at the start."""
    target_rank: int = Field(8, ge=1)
    """The mean rank at the end."""
    alpha: float | None = Field(None, gt=0)
    """The scale is alpha / rank; None is twice the rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    first: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which every layer keeps its rank, so that there is something to judge by."""
    last: float = Field(0.3, ge=0, lt=1)
    """Share of the steps, at the end, that train with the ranks found."""
    every: int = Field(1, ge=1)
    """Steps between two decisions on the ranks."""
    orthogonality: float = Field(0.5, ge=0)
    """Weight of the penalty that keeps the columns of P and the rows of Q orthogonal."""

    @model_validator(mode="after")
    def _schedule(self) -> Adalora:
        if self.target_rank >= self.rank:
            raise ValueError(f"target_rank = {self.target_rank} must be less than rank = {self.rank}, which it cuts")
        if self.first + self.last >= 1:
            raise ValueError(f"first = {self.first} and last = {self.last} leave no steps in which to decide on ranks")
        return self

    def wrap(self, model: Any) -> Any:
        from peft import AdaLoraConfig

        config = AdaLoraConfig(
            init_r=self.rank,
            target_r=self.target_rank,
            lora_alpha=2 * self.rank if self.alpha is None else self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.target_modules(),
            deltaT=self.every,
            total_step=1,  # `companion` says how many there are.
        )
        return _peft.wrap(model, config, self)

    def companion(self, model: Any, steps: int) -> Any:
        from harness.adapters._allocation import Allocation

        first, last = int(self.first * steps), int(self.last * steps)
        if steps - last < 2:  # Importance is first measured in one step and then judged by in another.
            raise ModelError(
                f"adapter adalora decides on ranks in the steps before the last {self.last:.0%}, and of "
                f"{counted(steps, 'step')} fewer than two are left for it: raise epochs or max_steps, or lower `last`"
            )
        return Allocation(model, steps=steps, first=first, last=last, orthogonality=self.orthogonality)
