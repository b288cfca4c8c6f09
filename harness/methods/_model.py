"""The model of a training stage: loaded with what the stage before left, made trainable, written as an artifact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import artifacts, models
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

    @property
    def trainable_parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad)


def load(job: TrainJob, adapter: Adapter | None, dtype: str) -> Policy:
    """Load the job's model, take in the incoming artifact, and make trainable what `adapter` says.

    Without `adapter` the incoming adapter is trained on, or the whole model where none comes in; with one, an incoming
    adapter is merged first. Frozen weights get `dtype`, trained ones float32: a step of the optimizer is often smaller
    than what a 16-bit number can hold. Raises ModelError.
    """
    from peft import PeftModel

    code = bool(job.model.get("trust_remote_code"))
    path = models.resolve(job.model["id"], revision=job.model.get("revision"), code=code)
    base = models.fingerprint(path, code=code)
    incoming = artifacts.kind(job.incoming, base, job.model["id"]) if job.incoming is not None else None
    model = _load(job.incoming if incoming == "model" and job.incoming else path, code)
    tokenizer = load_tokenizer(path, code)
    if incoming == "adapter" and job.incoming:
        model = _adapted(model, job.incoming, job.model["id"], is_trainable=adapter is None)
    if adapter is not None:
        model = adapter.wrap(model.merge_and_unload() if isinstance(model, PeftModel) else model)
    elif incoming != "adapter":
        model.requires_grad_(True)
    same_base = incoming is None or (incoming == "adapter" and adapter is None)
    kind = "adapter" if isinstance(model, PeftModel) and same_base else "model"
    _cast(model, dtype)
    return Policy(model=model, tokenizer=tokenizer, kind=kind, base=base)


def save(policy: Policy, out: Path, name: str, dtype: str) -> None:
    """Write the artifact into `out`, `artifact.json` last. `name` is how the spec names the base model; whole models
    are written in `dtype`, what they will answer in, and adapters in the float32 that they were trained in. A base
    model that lies in a folder is known by its fingerprint alone."""
    import torch
    from peft import PeftModel

    out.mkdir(parents=True, exist_ok=True)
    model = policy.model
    if policy.kind == "adapter":
        for config in model.peft_config.values():
            # PEFT would write the folder of this machine.
            config.base_model_name_or_path = models.public_name(name)
        # PEFT would ask the Hub whether the vocabulary grew; it cannot have.
        model.save_pretrained(out, save_embedding_layers=False)
        (out / "README.md").unlink(missing_ok=True)
    else:
        whole = model.merge_and_unload() if isinstance(model, PeftModel) else model
        for weight in whole.parameters():
            weight.data = weight.data.to(getattr(torch, dtype))
        whole.config.dtype = getattr(torch, dtype)
        whole.save_pretrained(out)
        policy.tokenizer.save_pretrained(out)
    described = {"kind": policy.kind, "base": policy.base}
    (out / "artifact.json").write_text(json.dumps(described) + "\n", encoding="utf-8")


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


def _adapted(model: Any, artifact: Path, name: str, *, is_trainable: bool) -> Any:
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(artifact / "adapter_model.safetensors", "pt") as file:
            there = set(file.keys())
        adapted = PeftModel.from_pretrained(model, artifact, is_trainable=is_trainable)
        # PEFT itself passes over weights that find no place, and places that find no weights.
        odd = sorted(there ^ set(get_peft_model_state_dict(adapted, save_embedding_layers=False)))
        if odd:
            raise ValueError(f"{len(odd)} of its weights have no counterpart, such as {odd[0]}")
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"adapter {artifact} does not fit model {name!r}: {reason}") from error
    return adapted


def _load(path: Path, trust_remote_code: bool) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            path, dtype="auto", use_safetensors=True, local_files_only=True, trust_remote_code=trust_remote_code
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
        weight.data = weight.data.to(torch.float32 if weight.requires_grad else getattr(torch, dtype))
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            # Under autocast PEFT's own conversion of each input to float32 would only be undone by the next product.
            module.cast_input_dtype_enabled = dtype == "float32"
