"""The model of a training stage: loaded with what the stage before left, made trainable, written as an artifact."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import adapted, artifacts, models
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
    quantized_from: Path | None = None
    """Where the weights lie that the model holds quantised."""
    start: dict[str, Any] = field(default_factory=dict)
    """What an adapter began with whose beginning was taken out of the base weights (PiSSA)."""

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
    trainable: bool = True,
) -> Policy:
    """Load the job's model, take in the incoming artifact, and make trainable what `adapter` says.

    `dropout` is set wherever the architecture can drop activations; `reshape` changes the whole model's layers, after
    an incoming adapter was merged, so that what comes of it is a whole model. Without `adapter` the incoming adapter is
    trained on, or the whole model where none comes in; with one, an incoming adapter is merged first. Without
    `trainable` nothing is trained. Frozen weights get `dtype`, unless the adapter quantises them, trained ones float32:
    a step of the optimizer is often smaller than what a 16-bit number can hold. Raises ModelError.
    """
    from peft import PeftModel

    code = bool(job.model.get("trust_remote_code"))
    path = models.resolve(job.model["id"], revision=job.model.get("revision"), code=code)
    base = models.fingerprint(path, code=code)
    incoming = artifacts.kind(job.incoming, base, job.model["id"]) if job.incoming is not None else None
    name = repr(job.model["id"])
    if adapter is not None and not adapter.merges and (incoming is not None or reshape is not None):
        raise ModelError(
            f"adapter {adapter.kind} cannot be merged into a model, so it can only be trained for the model that the "
            "spec names; this stage starts from other weights. Leave out its `adapter` to train the incoming one on, "
            'or let it start from the base: start = "base".'
        )
    quantization = adapter.quantization(dtype) if adapter is not None else None
    source = job.incoming if incoming == "model" and job.incoming else path
    tokenizer = load_tokenizer(path, code)
    changed = incoming == "adapter" or reshape is not None
    settings: dict[str, Any] = {}
    if quantization is None or changed:
        model, settings = _load(source, code, dropout)
    if incoming == "adapter" and job.incoming:
        stays = adapter is None and reshape is None
        model = adapted.put(model, job.incoming, name, trainable=stays and trainable)
        if not stays:
            model = adapted.merge(model, f"adapter {job.incoming}")
    if reshape is not None:
        reshape(model)
        incoming = "model"
    if quantization is not None:  # Weights are quantised as they are loaded.
        if changed:
            source = job.work / "merged"
            model.save_pretrained(source)
        model, settings = _load(source, code, dropout, quantization)
        for weight in model.parameters():
            if weight.is_floating_point():  # While one lies in the file that was read, all of it stays in memory.
                weight.data = weight.data.clone()
    if adapter is not None:
        model = adapter.wrap(model)
    elif not trainable:
        model.requires_grad_(False)
    elif incoming != "adapter":
        model.requires_grad_(True)
    same_base = incoming is None or (incoming == "adapter" and adapter is None)
    kind = "adapter" if isinstance(model, PeftModel) and same_base else "model"
    _cast(model, dtype)
    return Policy(
        model=model,
        tokenizer=tokenizer,
        kind=kind,
        base=base,
        settings=settings,
        quantized_from=source if quantization is not None else None,
        start=_start(model),
    )


def frozen(job: TrainJob, meaning: Mapping[str, Any], dtype: str) -> tuple[Any, Any]:
    """Load the policy that a reference of `job` stands for, to be asked and not trained, and its tokenizer: the job's
    model with the artifact of a stage, another model (`another`), or the bare base. Raises ModelError."""
    from peft import PeftModel

    known, incoming = job.model, None
    if (name := another(meaning)) is not None:
        known = {**known, "id": name, "revision": None, "trust_remote_code": False}
    elif "artifact" in meaning:
        incoming = Path(meaning["artifact"])
    policy = load(replace(job, model=known, incoming=incoming), None, dtype, trainable=False)
    model = policy.model
    if isinstance(model, PeftModel) and not model.active_peft_config.is_prompt_learning:
        model = model.merge_and_unload()
    return model.eval(), policy.tokenizer


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
        for name, value in policy.settings.items():
            setattr(model.config, name, value)
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
        model = get_peft_model(_load(policy.quantized_from, False)[0], model.peft_config["default"])
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


def _load(
    path: Path, trust_remote_code: bool, dropout: float = 0.0, quantization: Any = None
) -> tuple[Any, dict[str, Any]]:
    """The model in `path`, and the settings that `dropout` changed, as they were."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=trust_remote_code)
        before = _dropouts(config)
        if dropout and not before:
            raise ModelError(
                f"dropout = {dropout:g}: models of the kind {config.model_type!r} drop no activations. Leave it out; "
                "an adapter's own `dropout` works with every model"
            )
        for name in before:  # Some models drop a tenth unless they are told otherwise.
            setattr(config, name, dropout)
        model = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            quantization_config=quantization,
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
        if weight.is_floating_point():  # What is quantised stays as it is.
            weight.data = weight.data.to(torch.float32 if weight.requires_grad else getattr(torch, dtype))
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            # Under autocast PEFT's own conversion of each input to float32 would only be undone by the next product.
            module.cast_input_dtype_enabled = dtype == "float32"
