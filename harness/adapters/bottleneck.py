"""A small network after each sublayer (adapters of Houlsby et al. 2019, arXiv 1902.00751, and of Pfeiffer et al. 2020,
arXiv 2005.00247)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from harness.adapters import _peft
from harness.errors import ModelError
from harness.plugins import Adapter


class Bottleneck(Adapter):
    """What a sublayer adds, h, becomes h + up(f(down(h))), which is nearly h at the start. PEFT has no such adapter:
    this one is ours, and PEFT handles it as one of its own."""

    peft_type: ClassVar[str] = "BOTTLENECK"
    learning_rate: ClassVar[float] = 3e-4
    usual: ClassVar[tuple[float, float]] = (3e-5, 3e-3)
    merges: ClassVar[bool] = False

    size: int = Field(64, ge=1)
    """Width inside."""
    after: Literal["both", "feedforward"] = "both"
    """"both" is after attention and after the feed-forward layer, as Houlsby et al. have it; "feedforward" is after the
    latter alone, as Pfeiffer et al. found as good with half the weights."""
    nonlinearity: Literal["gelu", "relu", "silu"] = "gelu"
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ()
    """Ends of the names of the last linear layer of each sublayer, where the model calls them otherwise than usual."""

    def wrap(self, model: Any) -> Any:
        from harness._bottleneck import BottleneckConfig

        config = BottleneckConfig(
            target_modules=list(self.targets) or self._last(model),
            size=self.size,
            nonlinearity=self.nonlinearity,
            dropout=self.dropout,
        )
        return _peft.wrap(model, config, self)

    def _last(self, model: Any) -> list[str]:
        """The last linear layer of each sublayer, by the names that models of transformers give them."""
        names = [name for name, _ in model.named_modules()]
        found = [end for end in (*_ATTENTION, *_FEEDFORWARD) if any(name.endswith(f".{end}") for name in names)]
        chosen = [end for end in found if self.after == "both" or end in _FEEDFORWARD]
        wanted = (_ATTENTION, _FEEDFORWARD) if self.after == "both" else (_FEEDFORWARD,)
        if not all(any(end in ends for end in chosen) for ends in wanted):
            raise ModelError(
                f"adapter {self.kind}: this model's sublayers end in layers of unknown names. Name them: "
                'targets = ["o_proj", "down_proj"], for example.'
            )
        return chosen


_ATTENTION = (
    "o_proj",
    "attn.c_proj",
    "attention.dense",
    "self_attention.dense",
    "self_attn.dense",
    "self_attn.out_proj",
    "attn.out_proj",
    "attention.out_proj",
)
_FEEDFORWARD = ("down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc_out", "fc2")
