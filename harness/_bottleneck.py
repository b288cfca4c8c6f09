"""Bottleneck adapters (Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2020, arXiv 2005.00247) as a PEFT method.

PEFT has none. Importing this module makes the type "BOTTLENECK" known to PEFT, which then wraps, saves, loads, switches
and unloads these adapters as any of its own. It reads PEFT's base classes only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

TYPE = "BOTTLENECK"
PREFIX = "bottleneck_"

NONLINEARITIES: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}

START = 1e-2
"""Standard deviation of the weights at the start, cut off at twice that, as in Houlsby et al.: near to the identity."""


@dataclass
class BottleneckConfig(PeftConfig):  # type: ignore[misc]
    """`target_modules` are the names of the linear layers whose output is what a sublayer adds to the residual stream;
    `size` is the width inside."""

    target_modules: list[str] | None = field(default=None)
    size: int = field(default=64)
    nonlinearity: str = field(default="gelu")
    dropout: float = field(default=0.0)
    init_weights: bool = field(default=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = TYPE


class BottleneckLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A linear layer with a bottleneck after it, for each adapter that is loaded: its output h becomes
    h + up(f(down(h))), where `down` (width to size) and `up` (size to width) are linear and f is a nonlinearity."""

    # PEFT finds an adapter's weights by its name in these dictionaries.
    adapter_layer_names = ("bottleneck_down", "bottleneck_within", "bottleneck_up")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict({})
        self.bottleneck_within = nn.ModuleDict({})
        self.bottleneck_up = nn.ModuleDict({})
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add a bottleneck; its width is the number of outputs of the layer."""
        base = self.get_base_layer()  # type: ignore[operator]
        width = getattr(base, "out_features", None) or getattr(base, "nf", None)  # nf: transformers' Conv1D in GPT-2
        if width is None:
            raise ValueError(f"a bottleneck needs a linear layer before it, not {type(base).__name__}")
        down, up = nn.Linear(width, config.size), nn.Linear(config.size, width)
        if config.init_weights:
            for linear in (down, up):
                nn.init.trunc_normal_(linear.weight, std=START, a=-2 * START, b=2 * START)
                nn.init.zeros_(linear.bias)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up
        within = (NONLINEARITIES[config.nonlinearity](), nn.Dropout(config.dropout))
        self.bottleneck_within[adapter_name] = nn.Sequential(*within)
        self._move_adapter_to_device_of_base_layer(adapter_name)  # type: ignore[operator]
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)  # type: ignore[operator]

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        found: Tensor = self.base_layer(hidden, *args, **kwargs)
        if self.disable_adapters:
            return found
        for name in self.active_adapters:  # type: ignore[union-attr]
            if name in self.bottleneck_down:
                down, up = self.bottleneck_down[name], self.bottleneck_up[name]
                added: Tensor = up(self.bottleneck_within[name](down(found.to(down.weight.dtype))))  # type: ignore[arg-type]
                found = found + added.to(found.dtype)
        return found


class BottleneckModel(BaseTuner):  # type: ignore[misc]
    """Puts a `BottleneckLayer` in the place of each target. What is not linear cannot be merged into weights."""

    prefix = PREFIX
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - PEFT's own name; the plug-in chooses the targets

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
            return
        layer = BottleneckLayer(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _check_merge_allowed(self) -> None:
        raise NotImplementedError("a bottleneck is not linear and cannot be merged into weights")


PEFT_TYPE_TO_CONFIG_MAPPING[TYPE] = BottleneckConfig
PEFT_TYPE_TO_TUNER_MAPPING[TYPE] = BottleneckModel
PEFT_TYPE_TO_PREFIX_MAPPING[TYPE] = PREFIX
