"""The model of a training stage: loaded with what the stage before left, made trainable, written as an artifact."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import adapted, artifacts, models
from harness.errors import ModelError
from harness.plugins import Adapter, TrainJob


@dataclass(frozen=True, slots=True)
class Policy:
    """`model` is ready to train. `kind` is what its artifact will be: an adapter where the base weights stay those of
    the model that the spec names, else a whole model. `base` is that model's fingerprint."""

    model: Any
    tokenizer: Any
    kind: str
    base: str
    quantized_from: Path | None = None
    """Where the weights lie that the model holds quantised."""
    start: dict[str, Any] = field(default_factory=dict)
    """What an adapter began with whose beginning was taken out of the base weights (PiSSA)."""

    @property
    def trainable_parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad)


def load(job: TrainJob, adapter: Adapter | None, dtype: str) -> Policy:
    """Load the job's model, take in the incoming artifact, and make trainable what `adapter` says.

    Without `adapter` the incoming adapter is trained on, or the whole model where none comes in; with one, an incoming
    adapter is merged first. Frozen weights get `dtype`, unless the adapter quantises them, trained ones float32: a step
    of the optimizer is often smaller than what a 16-bit number can hold. Raises ModelError.
    """
    from peft import PeftModel

    code = bool(job.model.get("trust_remote_code"))
    path = models.resolve(job.model["id"], revision=job.model.get("revision"), code=code)
    base = models.fingerprint(path, code=code)
    incoming = artifacts.kind(job.incoming, base, job.model["id"]) if job.incoming is not None else None
    if adapter is not None and not adapter.merges and incoming is not None:
        raise ModelError(
            f"adapter {adapter.kind} cannot be merged into a model, so it can only be trained for the model that the "
            f"spec names; this stage starts from {job.incoming}, whose weights are others. Leave out its `adapter` to "
            'train the incoming one on, or let it start from the base: start = "base".'
        )
    quantization = adapter.quantization(dtype) if adapter is not None else None
    source = job.incoming if incoming == "model" and job.incoming else path
    if incoming == "adapter" and job.incoming:
        model = adapted.put(_load(source, code), job.incoming, repr(job.model["id"]), trainable=adapter is None)
        if adapter is not None:
            model = adapted.merge(model, f"adapter {job.incoming}")
        if quantization is not None:  # Weights are quantised as they are loaded.
            source = job.work / "merged"
            model.save_pretrained(source)
    if quantization is not None:
        model = _load(source, code, quantization)
    elif incoming != "adapter":
        model = _load(source, code)
    if adapter is not None:
        model = adapter.wrap(model)
    elif incoming != "adapter":
        model.requires_grad_(True)
    same_base = incoming is None or (incoming == "adapter" and adapter is None)
    kind = "adapter" if isinstance(model, PeftModel) and same_base else "model"
    _cast(model, dtype)
    return Policy(
        model=model,
        tokenizer=load_tokenizer(path, code),
        kind=kind,
        base=base,
        quantized_from=source if quantization is not None else None,
        start=_start(model),
    )


def save(policy: Policy, out: Path, name: str, dtype: str) -> None:
    """Write the artifact into `out`, `artifact.json` last. `name` is how the spec names the base model; whole models
    are written in `dtype`, what they will answer in, and adapters in the float32 that they were trained in. A base
    model that lies in a folder is known by its fingerprint alone."""
    import torch

    out.mkdir(parents=True, exist_ok=True)
    model = policy.model
    if policy.kind == "adapter":
        for config in model.peft_config.values():
            # PEFT would write the folder of this machine.
            config.base_model_name_or_path = models.public_name(name)
        with _began_with(policy.start) as began, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="PiSSA changes the base weights")
            warnings.filterwarnings("ignore", message=".*invalid shape")  # AdaLoRA may leave a layer no rank at all.
            # PEFT would ask the Hub whether the vocabulary grew; it cannot have.
            model.save_pretrained(out, save_embedding_layers=False, path_initial_model_for_weight_conversion=began)
        (out / "README.md").unlink(missing_ok=True)
    else:
        model = whole(policy)
        for weight in model.parameters():
            weight.data = weight.data.to(getattr(torch, dtype))
        model.config.dtype = getattr(torch, dtype)
        model.save_pretrained(out)
        policy.tokenizer.save_pretrained(out)
    described = {"kind": policy.kind, "base": policy.base}
    (out / "artifact.json").write_text(json.dumps(described) + "\n", encoding="utf-8")


def whole(policy: Policy) -> Any:
    """The model with what was learned in its weights."""
    from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    model = policy.model
    if not isinstance(model, PeftModel):
        return model
    if policy.quantized_from is not None:
        # Into the weights that were quantised, not into what quantising left of them.
        learned = get_peft_model_state_dict(model, save_embedding_layers=False)
        model = get_peft_model(_load(policy.quantized_from, False), model.peft_config["default"])
        set_peft_model_state_dict(model, learned)
    return adapted.merge(model, "what was learned")


def _start(model: Any) -> dict[str, Any]:
    """The beginning of an adapter that was taken out of the base weights; nothing for all others."""
    from peft import PeftModel, get_peft_model_state_dict

    if not isinstance(model, PeftModel):
        return {}
    config = model.peft_config["default"]
    init = getattr(config, "init_lora_weights", None)
    if config.inference_mode or not (isinstance(init, str) and init.lower().startswith(adapted.MUTATING)):
        return {}
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: weight.detach().clone() for name, weight in state.items()}


@contextmanager
def _began_with(start: dict[str, Any]) -> Iterator[str | None]:
    """A folder with what the adapter began with, as PEFT asks for it; None where nothing was taken out of the base."""
    from safetensors.torch import save_file

    if not start:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        began = Path(folder) / "start"
        began.mkdir()
        save_file(start, began / adapted.WEIGHTS)
        yield str(began)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing progress bars."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


def _load(path: Path, trust_remote_code: bool, quantization: Any = None) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            path,
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            quantization_config=quantization,
        )
    except (OSError, SafetensorError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"model {path} cannot be loaded: {reason}") from error


def load_tokenizer(path: Path, trust_remote_code: bool) -> Any:
    """Load the tokenizer in the folder `path`. Raises ModelError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"the tokenizer of model {path} cannot be loaded: {error}") from error


def _cast(model: Any, dtype: str) -> None:
    """Parameters only: buffers such as the frequencies of rotary positions stay in float32, as when answering."""
    import torch

    for weight in model.parameters():
        if weight.is_floating_point():  # What is quantised stays as it is.
            weight.data = weight.data.to(torch.float32 if weight.requires_grad else getattr(torch, dtype))
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            # Under autocast PEFT's own conversion of each input to float32 would only be undone by the next product.
            module.cast_input_dtype_enabled = dtype == "float32"
