"""The model of a training stage: loaded with what the stage before left, made trainable, written as an artifact."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import artifacts, models
from harness.errors import ModelError
from harness.plugins import Adapter, TrainJob


@dataclass(frozen=True, slots=True)
class Policy:
    """`model` is ready to train. `kind` is what its artifact will be: an adapter where the base weights stay those of
    the model that the spec names, else a whole model. `base` is that model's fingerprint. `settings` are those of the
    model's configuration that were changed for the training alone, as they were before."""

    model: Any
    tokenizer: Any
    kind: str
    base: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def trainable_parameters(self) -> int:
        return sum(weight.numel() for weight in self.model.parameters() if weight.requires_grad)


def load(
    job: TrainJob,
    adapter: Adapter | None,
    dtype: str,
    *,
    dropout: float = 0.0,
    reshape: Callable[[Any], None] | None = None,
) -> Policy:
    """Load the job's model, take in the incoming artifact, and make trainable what `adapter` says.

    `dropout` is set wherever the architecture can drop activations; `reshape` changes the whole model's layers, after
    an incoming adapter was merged, so that what comes of it is a whole model. Without `adapter` the incoming adapter is
    trained on, or the whole model where none comes in; with one, an incoming adapter is merged first. Frozen weights
    get `dtype`, trained ones float32: a step of the optimizer is often smaller than what a 16-bit number can hold.
    Raises ModelError.
    """
    from peft import PeftModel

    code = bool(job.model.get("trust_remote_code"))
    path = models.resolve(job.model["id"], revision=job.model.get("revision"), code=code)
    base = models.fingerprint(path, code=code)
    incoming = artifacts.kind(job.incoming, base, job.model["id"]) if job.incoming is not None else None
    model, settings = _load(job.incoming if incoming == "model" and job.incoming else path, code, dropout)
    tokenizer = load_tokenizer(path, code)
    if incoming == "adapter" and job.incoming:
        model = _adapted(model, job.incoming, job.model["id"], is_trainable=adapter is None and reshape is None)
    if reshape is not None:
        model = model.merge_and_unload() if isinstance(model, PeftModel) else model
        reshape(model)
        incoming = "model"
    if adapter is not None:
        model = adapter.wrap(model.merge_and_unload() if isinstance(model, PeftModel) else model)
    elif incoming != "adapter":
        model.requires_grad_(True)
    same_base = incoming is None or (incoming == "adapter" and adapter is None)
    kind = "adapter" if isinstance(model, PeftModel) and same_base else "model"
    _cast(model, dtype)
    return Policy(model=model, tokenizer=tokenizer, kind=kind, base=base, settings=settings)


def frozen(job: TrainJob, meaning: Mapping[str, Any], dtype: str) -> tuple[Any, Any]:
    """Load the policy that a reference of `job` stands for, to be asked and not trained, and its tokenizer: the job's
    model with the artifact of a stage, another model (`another`), or the bare base. Raises ModelError."""
    from peft import PeftModel

    known, incoming = job.model, None
    if (name := another(meaning)) is not None:
        known = {**known, "id": name, "revision": None, "trust_remote_code": False}
    elif "artifact" in meaning:
        incoming = Path(meaning["artifact"])
    policy = load(replace(job, model=known, incoming=incoming), None, "float32")
    model = policy.model
    if isinstance(model, PeftModel) and not model.active_peft_config.is_prompt_learning:
        model = model.merge_and_unload()
    model.requires_grad_(False).eval()
    _cast(model, dtype)
    return model, policy.tokenizer


def another(meaning: Mapping[str, Any]) -> str | None:
    """The name, or folder, of the model that a reference stands for, where it is another one than the job's: a folder
    that no stage left holds a model of its own, with its own tokenizer."""
    if "model" in meaning:
        return str(meaning["model"])
    folder = Path(meaning.get("artifact", ""))
    own = (folder / "config.json").is_file() and not (folder / "artifact.json").is_file()
    return str(folder) if "artifact" in meaning and own else None


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
        for name, value in policy.settings.items():
            setattr(whole.config, name, value)
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


def _load(path: Path, trust_remote_code: bool, dropout: float = 0.0) -> tuple[Any, dict[str, Any]]:
    """The model in `path`, and the settings that `dropout` changed, as they were."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    before: dict[str, Any] = {}
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
        if dropout:
            before = _dropouts(config)
            if not before:
                raise ModelError(
                    f"dropout = {dropout:g}: models of the kind {config.model_type!r} drop no activations. Leave it "
                    "out; an adapter's own `dropout` works with every model"
                )
            for name in before:
                setattr(config, name, dropout)
        model = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
    except (OSError, SafetensorError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"model {path} cannot be loaded: {reason}") from error
    return model, before


def _dropouts(config: Any) -> dict[str, float]:
    """The settings of a model's configuration that say how much is dropped in its layers."""
    known = {name: value for name, value in config.to_dict().items() if "dropout" in name or name.endswith("pdrop")}
    numbers = {name: value for name, value in known.items() if isinstance(value, float | int)}
    return {name: value for name, value in numbers.items() if not name.startswith(("classifier", "summary"))}


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
