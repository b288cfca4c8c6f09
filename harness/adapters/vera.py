"""Two trained vectors for each weight around random matrices that all share (VeRA, arXiv 2310.11454)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from harness.adapters import _peft


class Vera(_peft.Targeted):
    """W x becomes W x + b * B (d * A x), with A and B random, frozen and shared by all layers, and b zero at the start.

    The random matrices are stored with the adapter, so that it is the same on every machine.
    """

    peft_type: ClassVar[str] = "VERA"
    learning_rate: ClassVar[float] = 4e-3
    usual: ClassVar[tuple[float, float]] = (5e-4, 5e-2)

    rank: int = Field(256, ge=1)
    """Larger than with LoRA: a rank costs a few numbers a layer."""
    dropout: float = Field(0.0, ge=0, lt=1)
    start: float = Field(0.1, gt=0)
    """What the entries of d start from."""

    def wrap(self, model: Any) -> Any:
        from peft import VeraConfig

        config = VeraConfig(
            r=self.rank, vera_dropout=self.dropout, d_initial=self.start, target_modules=self.target_modules()
        )
        return _peft.wrap(model, config, self)
