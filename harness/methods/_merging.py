"""The arithmetic of merged adapters, by PEFT. Imported where a merge begins and nowhere else."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import save_file

from harness import models
from harness.errors import ModelError
from harness.methods import _model
from harness.plugins import TrainJob

MERGED = "merged"
"""What PEFT calls the new adapter; the others are called "from_0", "from_1", ..."""


def merge(
    job: TrainJob,
    folders: Sequence[Path],
    *,
    names: Sequence[str],
    weights: Sequence[float],
    combination: str,
    density: float | None,
    rank: int | None,
    same_ranks: bool,
) -> int:
    """Merge the adapters in `folders` into one in `job.out`; `names` are what messages call them. Returns how many
    numbers it has. Raises ModelError where they cannot be merged so."""
    parts = [f"from_{place}" for place in range(len(folders))]
    with _model.quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        policy = _model.load(replace(job, incoming=None), None, "float32")
        model = _loaded(policy.model, dict(zip(parts, folders, strict=True)), names)
        if same_ranks and len(ranks := {config.r for config in model.peft_config.values()}) > 1:
            listed = ", ".join(f"{name} {model.peft_config[part].r}" for part, name in zip(parts, names, strict=True))
            raise ModelError(
                f'merge: {combination} works on factors of one rank, and here are {len(ranks)} ({listed}). Use "cat", '
                '"svd", or a combination that ends in "_svd"'
            )
        for config in model.peft_config.values():
            # The merged numbers hold their scale; PEFT would scale them again where the first was rank-stabilised.
            config.use_rslora = False
        try:
            model.base_model.add_weighted_adapter(
                list(parts),
                list(weights),
                MERGED,
                combination_type=combination,
                density=density,
                svd_rank=rank,
                svd_full_matrices=False,
            )
        except (ValueError, TypeError) as error:
            raise ModelError(f"merge: these adapters cannot be merged by {combination}: {error}") from error
    return _save(model, job, policy.base)


def _loaded(model: Any, folders: Mapping[str, Path], names: Sequence[str]) -> PeftModel:
    """The model with all the adapters side by side, by the names that PEFT is to call them."""
    for name, (part, folder) in zip(names, folders.items(), strict=True):
        try:
            if isinstance(model, PeftModel):
                model.load_adapter(str(folder), adapter_name=part)
            else:
                model = PeftModel.from_pretrained(model, str(folder), adapter_name=part)
        except (OSError, SafetensorError, ValueError, RuntimeError, KeyError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"merge: {name!r} ({folder}) cannot be loaded: {reason}") from error
    return model


def _save(model: PeftModel, job: TrainJob, base: str) -> int:
    config = model.peft_config[MERGED]
    config.base_model_name_or_path = models.public_name(job.model["id"])
    config.inference_mode = True
    config.save_pretrained(str(job.out))
    state = get_peft_model_state_dict(model, adapter_name=MERGED, save_embedding_layers=False)
    numbers = {name: weight.detach().cpu().contiguous().clone() for name, weight in state.items()}
    save_file(numbers, job.out / "adapter_model.safetensors", metadata={"format": "pt"})
    described = {"kind": "adapter", "base": base}
    (job.out / "artifact.json").write_text(json.dumps(described) + "\n", encoding="utf-8")
    return sum(weight.numel() for weight in numbers.values())
