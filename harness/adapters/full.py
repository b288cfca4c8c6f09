"""No adapter at all: every weight of the model is trained, and the artifact is a whole model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from harness.plugins import Adapter


class Full(Adapter):
    learning_rate: ClassVar[float] = 2e-5
    usual: ClassVar[tuple[float, float]] = (1e-6, 5e-4)

    def trainable(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        return sum(math.prod(shape) for shape in shapes.values())

    def wrap(self, model: Any) -> Any:
        return model.requires_grad_(True)
