"""Adapters on one loaded model: attached, switched and detached without touching the base weights.

Adapters are never merged, so that detaching leaves the base digit for digit as it was. Their own weights, which
training writes in float32, are rounded to the dtype that the model answers in. LoRA adapters, of which there are often
many, stay loaded side by side, the few used last; of the other kinds one is in the layers at a time. Trained tokens
that stand before the text change no layer: an engine begins every batch with them.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import adapted
from harness.backends._decoding import Virtual

KEEP = 16
"""LoRA adapters that stay loaded."""


class Adapters:
    """The adapters of one base model. `weights` is the base's fingerprint, `name` how messages call it."""

    def __init__(self, model: Any, weights: str, name: str) -> None:
        self.model, self.weights, self.name = model, weights, name
        self._own = {id(weight) for weight in model.parameters()}
        self._peft: Any = None
        """The PeftModel whose layers stand in the model."""
        self._loaded: OrderedDict[str, None] = OrderedDict()
        """The adapters in it, the one used last at the end."""
        self._layers: list[Any] = []
        """The layers of the model that it put in place of others: going through all modules takes longer."""
        self._enabled: bool | None = None
        """Whether they answer with an adapter; None where some do and some do not."""
        self._virtual: OrderedDict[str, Virtual] = OrderedDict()
        self.virtual: Virtual | None = None
        """The trained tokens that stand before all text now."""

    def attach(self, path: Path, key: str) -> None:
        """Answer with the adapter in `path` from now on; `key` names its content. Raises ModelError, after which the
        bare base has to be gone back to: `detach`."""
        if key not in self._loaded and key not in self._virtual:
            self._load(path, key)
        if key in self._virtual:
            self._switch(None)
            self._virtual.move_to_end(key)
            self.virtual = self._virtual[key]
            return
        self.virtual = None
        self._loaded.move_to_end(key)
        self._switch(key)
        while len(self._loaded) > KEEP:
            oldest, _ = self._loaded.popitem(last=False)
            adapted.forget(self._peft, oldest)

    def detach(self) -> None:
        self.virtual = None
        self._switch(None)

    def _load(self, path: Path, key: str) -> None:
        kind = adapted.kind(path)
        if self._peft is not None and kind == self._peft.peft_type == "LORA":
            adapted.put(self._peft, path, self.name, key)
        else:
            self._clear()
            peft = adapted.put(self.model, path, self.name, key)
            if adapted.virtual_tokens(peft):
                self._virtual[key] = self._tokens(peft)
                while len(self._virtual) > KEEP:
                    self._virtual.popitem(last=False)
                return
            self._peft = peft
        self._cast()
        self.model.eval()
        self._layers = _layers(self.model)
        self._enabled = None
        self._loaded[key] = None

    def _clear(self) -> None:
        """Take the layers of all adapters out of the model."""
        if self._peft is not None:
            adapted.take_off(self.model)
        self._peft = None
        self._layers = []
        self._loaded.clear()

    def _cast(self) -> None:
        """Bring the adapters into the model's own dtype and device, so that no product converts its input."""
        for weight in self.model.parameters():
            if id(weight) not in self._own:
                weight.data = weight.data.to(device=self.model.device, dtype=self.model.dtype)
                weight.requires_grad_(False)

    def _switch(self, key: str | None) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        if self._peft is None:
            return
        if self._peft.peft_type == "ADAPTION_PROMPT":
            # It replaces attention layers and has no switch.
            if key is None:
                self._clear()
            return
        for layer in self._layers:
            if self._enabled is not (key is not None):
                layer.enable_adapters(key is not None)
            # A tuner layer without this adapter passes its input on; a replaced module would raise.
            if key is not None and (isinstance(layer, BaseTunerLayer) or key in layer._adapters):
                layer.set_adapter(key, inference_mode=True)
        self._enabled = key is not None

    def _tokens(self, peft: Any) -> Virtual:
        """The trained tokens of a PeftModel: keys and values, or embeddings."""
        from transformers import DynamicCache

        def like_the_model(part: Tensor) -> Tensor:
            return part.to(device=self.model.device, dtype=self.model.dtype)

        with torch.inference_mode():
            found = peft.get_prompt(batch_size=1)
            if isinstance(found, DynamicCache):
                return [(like_the_model(layer.keys), like_the_model(layer.values)) for layer in found.layers]
            assert isinstance(found, Tensor)
            return like_the_model(found)


def _layers(model: Any) -> list[Any]:
    """The layers that PEFT put in place of others."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)]
