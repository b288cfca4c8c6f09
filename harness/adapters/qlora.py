"""LoRA on quantised weights: the frozen ones take a quarter of the memory or less (QLoRA, arXiv 2305.14314)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from harness import extras
from harness.adapters.lora import Lora


class Qlora(Lora):
    """LoRA, whose frozen weights bitsandbytes holds in 4 or 8 bits while training. The model answers with its own
    weights, unquantised, and what was learned."""

    learning_rate: ClassVar[float] = 2e-4

    quantize: Literal["nf4", "fp4", "int8"] = "nf4"
    """How the frozen weights are stored: 4-bit numbers at the quantiles of a normal distribution, 4-bit floating-point
    numbers, or 8-bit whole ones (LLM.int8, arXiv 2208.07339)."""
    double_quantization: bool = True
    """Whether the scales of 4-bit numbers are quantised too: another 0.4 bits a weight are saved."""

    @model_validator(mode="after")
    def _init_of_quantised(self) -> Qlora:
        if self.init == "pissa":
            raise ValueError('init = "pissa" changes the weights, which cannot be done where they are quantised')
        return self

    def frozen(self, shapes: Mapping[str, tuple[int, ...]], wide: int) -> int:
        """Quantised are the weights of linear layers; each block of 64 has a scale, which `double_quantization` takes
        from 4 bytes to little more than one."""
        every = 1.0 if self.quantize == "int8" else 0.5 + (0.016 if self.double_quantization else 0.063)
        whole = Lora()
        linear = sum(math.prod(shape) for name, shape in shapes.items() if whole._targets(name, shape))
        return round(linear * every + wide * (sum(map(math.prod, shapes.values())) - linear))

    def quantization(self, dtype: str) -> Any:
        with extras.needed("train"):
            import bitsandbytes  # noqa: F401 - transformers would say less
            from transformers import BitsAndBytesConfig

        if self.quantize == "int8":
            return BitsAndBytesConfig(load_in_8bit=True)
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quantize,
            bnb_4bit_use_double_quant=self.double_quantization,
            bnb_4bit_compute_dtype=dtype,
        )
