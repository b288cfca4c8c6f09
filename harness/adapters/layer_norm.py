"""The weights of the normalisation layers alone are trained (LayerNorm tuning, arXiv 2312.11420)."""

from __future__ import annotations

from typing import Any, ClassVar

from harness.adapters import _peft
from harness.errors import ModelError
from harness.plugins import Adapter


class LayerNorm(Adapter):
    peft_type: ClassVar[str] = "LN_TUNING"
    learning_rate: ClassVar[float] = 1e-3
    usual: ClassVar[tuple[float, float]] = (1e-5, 1e-2)

    def wrap(self, model: Any) -> Any:
        from peft import LNTuningConfig

        # Every normalisation of the residual stream, whatever the model calls it; PEFT's own lists leave out some.
        width = model.config.get_text_config().hidden_size
        names = [
            name
            for name, part in model.named_modules()
            if "norm" in type(part).__name__.lower() and getattr(part, "weight", None) is not None
            if part.weight.shape == (width,)
        ]
        if not names:
            raise ModelError(f"adapter {self.kind}: the model has no normalisation layers with weights")
        return _peft.wrap(model, LNTuningConfig(target_modules=names), self)
