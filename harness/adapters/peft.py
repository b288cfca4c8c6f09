"""Any other adapter of PEFT that changes a model's layers, by the name of its type and its own settings."""

from __future__ import annotations

import dataclasses
import typing
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from harness import extras
from harness.adapters import _peft
from harness.errors import did_you_mean
from harness.plugins import Adapter

_OURS = {"PREFIX_TUNING": "prefix", "PROMPT_TUNING": "prompt", "P_TUNING": "p-tuning", "ADALORA": "adalora"}
"""Types that need more than a configuration, and the adapter that gives it."""

_LACKING = {
    "MULTITASK_PROMPT_TUNING": "it needs the number of a task with each text",
    "POLY": "it needs the number of a task with each text",
    "XLORA": "it mixes other adapters",
    "SHADOW": "it answers with a second model",
    "CPT": "it has a loss of its own, which no stage here computes",
    "CARTRIDGE": "it starts from a text's keys and values, which no stage here makes",
}

_DECIDED = {
    "task_type": "is CAUSAL_LM here",
    "peft_type": "is the `type`",
    "inference_mode": "follows from what is done with the adapter",
    "base_model_name_or_path": "is the model of the spec",
    "modules_to_save": 'would train whole modules beside the adapter; use the adapter "freeze" for those',
    "bias": "would train weights of the base model itself, which adapters leave as they are",
}
"""Settings that may not be given, and why."""

_DATA_STARTS = ("eva", "corda", "loftq", "lora_ga")
"""Starts of LoRA that look at data or at quantisation errors first."""


class Peft(Adapter):
    learning_rate: ClassVar[float] = 2e-4
    usual: ClassVar[tuple[float, float]] = (1e-5, 1e-1)

    type: str
    """PEFT's name of it, such as "LOHA", "LOKR", "BOFT", "MISS", "RANDLORA" or "FOURIERFT"."""
    config: dict[str, Any] = Field(default_factory=dict)
    """What PEFT's configuration class of the type takes, such as { r = 8, target_modules = ["q_proj", "v_proj"] }: see
    PEFT's documentation."""

    @model_validator(mode="after")
    def _known(self) -> Peft:
        faults = list(self._faults())
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def targets_output(self) -> bool:
        targets = self.config.get("target_modules") or ()
        return _peft.OUTPUT in targets

    def wrap(self, model: Any) -> Any:
        return _peft.wrap(model, self._config(), self)

    def _config(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _configurations()[self.type.upper()](**self.config)

    def _faults(self) -> Iterator[str]:
        kind = self.type.upper()
        if kind in _OURS:
            yield f'{kind} is the adapter "{_OURS[kind]}" here'
            return
        if kind in _LACKING:
            yield f"{kind} cannot be used here: {_LACKING[kind]}"
            return
        found = _configurations()
        if kind not in found:
            usable = [name for name in found if name not in _OURS and name not in _LACKING]
            yield f"PEFT has no type {self.type!r}.{did_you_mean(kind, usable)}"
            return
        faults = [fault for name, value in self.config.items() for fault in _wrong(found[kind], name, value)]
        yield from faults
        if not faults:
            try:
                self._config()
            except (ValueError, TypeError) as error:
                yield f"{kind} does not take these settings: {error}"


def _configurations() -> dict[str, Any]:
    """PEFT's configuration classes by the names of their types. Importing PEFT takes seconds, so this is asked only
    where a spec asks for such an adapter."""
    with extras.needed("train"):
        import peft  # noqa: F401 - fills the mapping
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    return {str(getattr(kind, "value", kind)): found for kind, found in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def _wrong(config: Any, name: str, value: Any) -> Iterator[str]:
    """What is wrong with one setting, by the names and types of the configuration's fields."""
    fields = [field.name for field in dataclasses.fields(config) if field.name not in _DECIDED]
    if name in _DECIDED:
        yield f"config.{name} {_DECIDED[name]}: leave it out"
    elif name not in fields:
        yield f"config.{name} is no setting of {config.__name__}.{did_you_mean(name, fields)}"
    elif name == "init_lora_weights" and isinstance(value, str) and value.lower().startswith(_DATA_STARTS):
        yield f"config.init_lora_weights = {value!r} looks at data or a quantised model first, which is not done here"
    elif (annotation := typing.get_type_hints(config).get(name)) is not None:
        try:
            TypeAdapter(annotation).validate_python(value)
        except ValidationError as error:
            yield f"config.{name} = {value!r} is not what {config.__name__} takes: {error.errors()[0]['msg']}"
