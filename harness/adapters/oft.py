"""Orthogonal fine-tuning: the inputs of each weight are rotated, in blocks (OFT, arXiv 2306.07280 and 2506.19847)."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from harness.adapters import _peft
from harness.errors import ModelError


class Oft(_peft.Targeted):
    """W x becomes W R x with R a block-diagonal rotation, which is the identity at the start."""

    peft_type: ClassVar[str] = "OFT"
    learning_rate: ClassVar[float] = 4e-4
    usual: ClassVar[tuple[float, float]] = (2e-5, 5e-3)

    block_size: int = Field(32, ge=2)
    """Neighbouring inputs that a rotation mixes; it must divide the width of every target. More is more weights."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the blocks that stay unrotated in a step."""
    exact: bool = False
    """Whether rotations are computed by matrix inversion (Cayley) instead of five terms of its series."""

    def wrap(self, model: Any) -> Any:
        from peft import OFTConfig

        config = OFTConfig(
            r=0,
            oft_block_size=self.block_size,
            module_dropout=self.dropout,
            use_cayley_neumann=not self.exact,
            target_modules=self.target_modules(),
        )
        wrapped = _peft.wrap(model, config, self)
        widths = {layer.in_features for layer in wrapped.modules() if hasattr(layer, "oft_R")}
        if odd := sorted(width for width in widths if width % self.block_size):
            raise ModelError(
                f"adapter oft: block_size = {self.block_size} does not divide the width of every target; there are "
                f"some of {', '.join(map(str, odd))}. Take another block_size, or other targets"
            )
        return wrapped
