"""The adapter in a folder, put onto a loaded model by PEFT; taken off again, or merged into the weights.

Kinds of adapters are PEFT's, and our own bottleneck. Those that put trained tokens before the text change no layer.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from harness import extras
from harness.errors import ModelError

WEIGHTS = "adapter_model.safetensors"

_LACKING = {
    "MULTITASK_PROMPT_TUNING": "the number of a task with each text",
    "POLY": "the number of a task with each text",
    "XLORA": "the adapters that it mixes",
    "SHADOW": "a second model beside the first",
}
"""Kinds that answer with more than their folder and a text, and what they need."""

MUTATING = ("pissa", "olora", "corda", "lora_ga", "loftq")
"""Starts of LoRA that change the base weights: PiSSA and others take out what the adapter begins with."""


def put(model: Any, path: Path, name: str, key: str = "default", *, trainable: bool = False) -> Any:
    """Return the PeftModel of `model` with the adapter in `path`, or, where `model` is a PeftModel of the same kind,
    the same one with the adapter under `key` beside its others. `name` is how messages call the model.

    A trainable adapter of virtual tokens goes on without the network that it was first trained through, which is not
    kept (Li and Liang 2021, section 4.3). Raises ModelError, with the layers as they were.
    """
    with extras.needed("train"):
        from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    config, state = _config(path, trainable), _state(path)
    known = isinstance(model, PeftModel)
    adapted = model
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if known:
                model.add_adapter(key, config)
            else:
                adapted = get_peft_model(model, config, key, autocast_adapter_dtype=trainable)
            # PEFT itself passes over weights that find no place, and places that find no weights.
            there = get_peft_model_state_dict(adapted, adapter_name=key, save_embedding_layers=False)
            state = {
                name: weight for name, weight in state.items() if name in there or not _copied(adapted, name, weight)
            }
            if odd := sorted(set(state) ^ set(there)):
                raise ValueError(f"{len(odd)} of its weights have no counterpart, such as {odd[0]}")
            set_peft_model_state_dict(adapted, state, key)
            if not trainable:
                adapted.requires_grad_(False)
            if config.is_prompt_learning:
                _check_shape(adapted)
    except (ValueError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        if known:
            forget(model, key)
        else:
            take_off(model)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"adapter {path} does not fit model {name}: {reason}.{_made_for(path)}") from error
    return adapted


def kind(path: Path) -> str:
    """Return the kind of the adapter in `path`, as PEFT calls it ("LORA"). Raises ModelError."""
    return _name(_read(path))


def forget(adapted: Any, key: str) -> None:
    """Remove the adapter `key` of a PeftModel, however far it was put on."""
    from peft.functional import delete_adapter
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        delete_adapter(adapted.base_model.model, key, PEFT_TYPE_TO_PREFIX_MAPPING[adapted.peft_type])
    adapted.peft_config.pop(key, None)
    if adapted.active_adapter == key and adapted.peft_config:
        # PEFT looks its settings up even where the layers were switched to another one.
        adapted.active_adapter = adapted.base_model.active_adapter = next(iter(adapted.peft_config))


def take_off(model: Any) -> None:
    """Put every layer of `model`, the model inside and not the PeftModel around it, back as it was, digit for digit."""
    from peft.tuners.adaption_prompt.layer import AdaptedAttention, AdaptedAttentionGPT
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BaseTunerLayer):
                setattr(parent, name, child.get_base_layer())
            elif isinstance(child, AuxiliaryTrainingWrapper):
                setattr(parent, name, child.original_module)
            elif isinstance(child, AdaptedAttention | AdaptedAttentionGPT):
                setattr(parent, name, child.model)
    model.__dict__.pop("peft_config", None)


def merge(adapted: Any, what: str) -> Any:
    """Return the model with the adapter of the PeftModel `adapted` in its weights. Raises ModelError where the kind of
    adapter cannot be; `what` is how the message calls it."""
    kind = _name(next(iter(adapted.peft_config.values())))
    tied = adapted.get_base_model().config.get_text_config().tie_word_embeddings
    if tied and any(name.rpartition(".")[2] == "lm_head" for name in _targets(adapted)):
        raise ModelError(
            f"{what} adapts the output layer, whose weights are those of the input embedding in this model, so it "
            "cannot be merged. Train it on without an adapter of the stage's own, or leave lm_head out of its targets."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return adapted.merge_and_unload()
    except (AttributeError, NotImplementedError, ValueError) as error:
        raise ModelError(
            f"{what} is of the kind {kind}, which cannot be merged into the model's weights, and an adapter on top of "
            "it is not possible. Train it on without an adapter of the stage's own, or start from another stage."
        ) from error


def virtual_tokens(model: Any) -> int:
    """How many trained tokens stand before each text in the PeftModel (or plain model) `model`."""
    configs = getattr(model, "peft_config", {}).values()
    return sum(config.num_virtual_tokens for config in configs if config.is_prompt_learning)


def _copied(adapted: Any, name: str, weight: Any) -> bool:
    """Whether an adapter's file merely repeats a weight of the base, as PEFT writes the output layer's beside its
    adapter."""
    import torch

    own = dict(adapted.named_parameters(remove_duplicate=False)).get(name)
    return own is not None and own.shape == weight.shape and torch.equal(own, weight.to(own))


def _check_shape(adapted: Any) -> None:
    """Raise ValueError where virtual tokens are of another shape than the model's own: PEFT makes them as the adapter's
    configuration says."""
    import torch

    config = adapted.get_base_model().config.get_text_config()
    with torch.no_grad():
        found = adapted.get_prompt(batch_size=1)
    if isinstance(found, torch.Tensor):
        if found.shape[-1] != config.hidden_size:
            raise ValueError(f"its tokens have {found.shape[-1]} numbers, the model's {config.hidden_size}")
        return
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    shapes = {(layer.keys.shape[1], layer.keys.shape[3]) for layer in found.layers}
    if len(found.layers) != config.num_hidden_layers or shapes != {(heads, width)}:
        raise ValueError(
            f"its tokens are keys and values for {len(found.layers)} layers with (heads, width) {sorted(shapes)}, the "
            f"model has {config.num_hidden_layers} layers with {(heads, width)}"
        )


def _targets(adapted: Any) -> list[str]:
    return list(getattr(adapted.base_model, "targeted_module_names", ()))


def _read(path: Path) -> Any:
    with extras.needed("train"):
        from peft import PeftConfig

        from harness import _bottleneck  # noqa: F401 - makes its type known to PEFT

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Settings of a later PEFT.
            return PeftConfig.from_pretrained(str(path))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelError(f"adapter {path} has an adapter_config.json that PEFT cannot read: {error}") from error


def _name(config: Any) -> str:
    """The kind of a configuration: PEFT's own are entries of an enumeration."""
    return str(getattr(config.peft_type, "value", config.peft_type))


def _config(path: Path, trainable: bool) -> Any:
    """The configuration to put the adapter in `path` on with."""
    config = _read(path)
    kind = _name(config)
    if kind in _LACKING:
        raise ModelError(f"adapter {path} is of the kind {kind}, which needs {_LACKING[kind]}. It cannot be used here.")
    if getattr(config, "bias", "none") != "none":
        raise ModelError(
            f'adapter {path} was trained with bias = "{config.bias}": it holds weights of the base model, which stays '
            "as it is here. Merge it into a model folder with PEFT and use that."
        )
    start = getattr(config, "init_lora_weights", None)
    if isinstance(start, str) and start.lower().startswith(MUTATING):
        raise ModelError(
            f"adapter {path} started from changed base weights (init_lora_weights {start!r}). Save it with PEFT's "
            "path_initial_model_for_weight_conversion, which makes a plain LoRA of it, and use that."
        )
    config.inference_mode = not trainable
    if hasattr(config, "init_lora_weights") and not trainable:
        config.init_lora_weights = False  # What is overwritten anyway need not be drawn.
    return _without_network(config) if trainable and config.is_prompt_learning else config


def _without_network(config: Any) -> Any:
    """The configuration of virtual tokens that are trained themselves, of the same number and width."""
    from peft import PromptTuningConfig

    if hasattr(config, "prefix_projection"):
        config.prefix_projection = False
        return config
    shared = ("task_type", "num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_layers")
    return PromptTuningConfig(**{name: getattr(config, name) for name in (*shared, "num_attention_heads")})


def _state(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / WEIGHTS
    if not file.is_file():
        raise ModelError(f"adapter {path} has no {WEIGHTS} (pickled weights are not loaded)")
    try:
        state: dict[str, Any] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} is damaged or cannot be read: {error}") from error
    return state


def _made_for(path: Path) -> str:
    try:
        base = json.loads((path / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError):
        base = None
    made_for = f" It says that it was made for {base}." if base else ""
    return f"{made_for} Use it with its own model."
