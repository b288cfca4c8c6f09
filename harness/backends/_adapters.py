"""PEFT adapters on one loaded model: attached, switched and detached without touching the base weights.

Adapters are never merged, so that detaching leaves the base digit for digit as it was. Their own weights, which
training writes in float32, are rounded to the dtype that the model answers in. The few used last stay loaded.
"""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

from harness import extras
from harness.errors import ModelError

KEEP = 4
"""Adapters that stay loaded."""


class Adapters:
    """The adapters of one base model. `weights` is the base's fingerprint, `name` how messages call it."""

    def __init__(self, model: Any, weights: str, name: str) -> None:
        self.model, self.weights, self.name = model, weights, name
        self._loaded: OrderedDict[str, Any] = OrderedDict()

    def attach(self, path: Path, key: str) -> None:
        """Answer with the adapter in `path` from now on; `key` names its content. Raises ModelError."""
        if key not in self._loaded:
            self._load(path, key)
        self._loaded.move_to_end(key)
        self._switch(key)
        while len(self._loaded) > KEEP:
            oldest, config = self._loaded.popitem(last=False)
            self._delete(oldest, config)

    def detach(self) -> None:
        self._switch(None)

    def _load(self, path: Path, key: str) -> None:
        with extras.needed("train"):
            from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        file = path / "adapter_model.safetensors"
        if not file.is_file():
            raise ModelError(f"adapter {path} has no adapter_model.safetensors (pickled weights are not loaded)")
        try:
            config = PeftConfig.from_pretrained(str(path))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ModelError(f"adapter {path} has an adapter_config.json that PEFT cannot read: {error}") from error
        config.inference_mode = True
        config.init_lora_weights = False if hasattr(config, "init_lora_weights") else None
        try:
            state = load_file(file)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file} is damaged or cannot be read: {error}") from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                inject_adapter_in_model(config, self.model, key)
                result = set_peft_model_state_dict(self.model, state, key)
        except (ValueError, RuntimeError, KeyError) as error:
            self._delete(key, config)
            raise ModelError(self._misfit(path, str(error).strip().splitlines()[0])) from error
        missing = [name for name in result.missing_keys if f".{key}." in name or name.endswith(f".{key}")]
        if result.unexpected_keys or missing:
            self._delete(key, config)
            names = [*result.unexpected_keys, *missing]
            raise ModelError(self._misfit(path, f"{len(names)} of its weights have no counterpart, such as {names[0]}"))
        self._cast(key)
        self._loaded[key] = config

    def _misfit(self, path: Path, reason: str) -> str:
        made_for = ""
        try:
            base = json.loads((path / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
            made_for = f" It says that it was made for {base}." if base else ""
        except (OSError, ValueError):
            pass
        return f"adapter {path} does not fit model {self.name}: {reason}.{made_for} Use it with its own model."

    def _cast(self, key: str) -> None:
        """Bring the adapter into the model's own dtype and device, so that no product converts its input."""
        for name, parameter in self.model.named_parameters():
            if f".{key}." in name or name.endswith(f".{key}"):
                parameter.data = parameter.data.to(device=self.model.device, dtype=self.model.dtype)
                parameter.requires_grad_(False)

    def _switch(self, key: str | None) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import AuxiliaryTrainingWrapper

        for module in self.model.modules():
            if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
                module.enable_adapters(key is not None)
                # A tuner layer without this adapter passes its input on; a replaced module would raise.
                if key is not None and (isinstance(module, BaseTunerLayer) or key in module._adapters):
                    module.set_adapter(key, inference_mode=True)
        self.model.eval()

    def _delete(self, key: str, config: Any) -> None:
        from peft.functional import delete_adapter
        from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            delete_adapter(self.model, key, PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type])
        getattr(self.model, "peft_config", {}).pop(key, None)
