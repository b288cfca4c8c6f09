"""Adapters in folders: which are put on a model and which refused, and that the model is as it was after either."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from training import same

from harness import adapted
from harness.errors import ModelError
from harness.plugins import Adapter, find

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2},
    "ia3": {},
    "layer-norm": {},
    "bottleneck": {"size": 4},
    "llama-adapter": {"tokens": 3, "layers": 1},
    "prompt": {"tokens": 3},
}


def model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def written(folder: Path, out: Path, kind: str = "lora", **settings: Any) -> Path:
    adapter = find("adapters", kind).model_validate(settings or KINDS[kind])
    assert isinstance(adapter, Adapter)
    adapter.wrap(model(folder)).save_pretrained(out, save_embedding_layers=False)
    return out


def changed(path: Path, out: Path, **settings: Any) -> Path:
    """The same adapter with other settings in its configuration."""
    shutil.copytree(path, out)
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    (out / "adapter_config.json").write_text(json.dumps(config | settings), encoding="utf-8")
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_taken_off_the_model_has_the_weights_and_names_that_it_had(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    base = model(tiny_model)
    before = {name: weight.detach().clone() for name, weight in base.named_parameters()}
    out = written(tiny_model, tmp_path / "out", kind)
    assert adapted.kind(out) == KINDS_OF_PEFT[kind]
    put = adapted.put(base, out, "tiny", "one")
    assert adapted.virtual_tokens(put) == (3 if kind == "prompt" else 0)
    assert not any(weight.requires_grad for weight in put.parameters())
    adapted.take_off(base)
    assert same(dict(base.named_parameters()), before)
    assert adapted.virtual_tokens(base) == 0


KINDS_OF_PEFT = {
    "lora": "LORA",
    "ia3": "IA3",
    "layer-norm": "LN_TUNING",
    "bottleneck": "BOTTLENECK",
    "llama-adapter": "ADAPTION_PROMPT",
    "prompt": "PROMPT_TUNING",
}


def test_a_lora_beside_another_is_forgotten_alone(tmp_path: Path, tiny_model: Path) -> None:
    one, two = written(tiny_model, tmp_path / "1"), written(tiny_model, tmp_path / "2", rank=3, targets=("q_proj",))
    put = adapted.put(model(tiny_model), one, "tiny", "one")
    assert adapted.put(put, two, "tiny", "two") is put
    with pytest.raises(ModelError, match="does not fit model tiny"):
        adapted.put(put, changed(two, tmp_path / "3", r=5), "tiny", "three")
    adapted.forget(put, "one")
    assert set(put.peft_config) == {"two"}
    assert not any(f".{key}" in name for name, _ in put.named_parameters() for key in ("one", "three"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bias": "all"}, 'trained with bias = "all": it holds weights of the base model'),
        ({"init_lora_weights": "pissa_niter_4"}, r"started from changed base weights.*plain LoRA"),
        ({"peft_type": "POLY"}, "of the kind POLY, which needs the number of a task with each text"),
        ({"peft_type": "NOTHING"}, "adapter_config.json that PEFT cannot read"),
        ({"target_modules": ["c_attn"]}, "does not fit model tiny: .*Use it with its own model"),
        ({"r": 7, "base_model_name_or_path": "owner/other"}, "does not fit.*made for owner/other"),
    ],
)
def test_what_cannot_be_used_says_why_and_leaves_the_model_alone(
    tmp_path: Path, tiny_model: Path, settings: dict[str, Any], said: str
) -> None:
    base = model(tiny_model)
    before = {name: weight.detach().clone() for name, weight in base.named_parameters()}
    out = changed(written(tiny_model, tmp_path / "out"), tmp_path / "changed", **settings)
    with pytest.raises(ModelError, match=said):
        adapted.put(base, out, "tiny")
    assert same(dict(base.named_parameters()), before)


def test_weights_of_the_base_in_an_adapter_s_file_are_never_loaded(tmp_path: Path, tiny_model: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    out = written(tiny_model, tmp_path / "out")
    state = load_file(out / adapted.WEIGHTS)
    state["base_model.model.model.embed_tokens.weight"] = torch.zeros(400, 64)
    save_file(state, out / adapted.WEIGHTS)
    base = model(tiny_model)
    with pytest.raises(ModelError, match=r"1 of its weights have no counterpart, such as .*embed_tokens"):
        adapted.put(base, out, "tiny")
    assert base.get_input_embeddings().weight.abs().sum() > 0


def test_an_adapted_output_layer_that_shares_the_embedding_s_weights_is_not_merged(
    tmp_path: Path, tiny_model: Path
) -> None:
    out = written(tiny_model, tmp_path / "out", rank=2, targets=("q_proj", "lm_head"))
    with pytest.raises(ModelError, match="adapts the output layer, whose weights are those of the input embedding"):
        adapted.merge(adapted.put(model(tiny_model), out, "tiny"), f"adapter {out}")
