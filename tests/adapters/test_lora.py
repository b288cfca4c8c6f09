from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from training import curves, make_job, silent

from harness.adapters.lora import Lora
from harness.errors import ModelError
from harness.methods.sft import Sft

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def trainable(wrapped: Any) -> dict[str, int]:
    return {name: weight.numel() for name, weight in wrapped.named_parameters() if weight.requires_grad}


def test_a_fresh_adapter_changes_no_answer_and_adds_rank_times_both_widths(tiny_model: Path) -> None:
    import torch

    bare, wrapped = model(tiny_model), Lora(rank=4).wrap(model(tiny_model))
    # Llama with width 64, 128 inside, 4 heads and 2 for keys and values: q, k, v, o, gate, up, down in both layers.
    shapes = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)]
    assert sum(trainable(wrapped).values()) == 2 * sum(4 * (a + b) for a, b in shapes)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(wrapped(ids).logits, bare(ids).logits)


@pytest.mark.parametrize(
    ("settings", "scale"),
    [({}, 2.0), ({"alpha": 4}, 1.0), ({"rslora": True}, 4.0), ({"rslora": True, "alpha": 4}, 2.0)],
)
def test_the_scale_is_alpha_over_the_rank_or_its_root(tiny_model: Path, settings: Any, scale: float) -> None:
    wrapped = Lora(rank=4, **settings).wrap(model(tiny_model))
    assert wrapped.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"] == pytest.approx(scale)


def test_only_the_named_modules_are_adapted(tiny_model: Path) -> None:
    wrapped = Lora(rank=2, targets=("q_proj", "v_proj")).wrap(model(tiny_model))
    assert {name.split(".")[-4] for name in trainable(wrapped)} == {"q_proj", "v_proj"}


def test_a_module_that_is_not_there_is_an_error_that_lists_those_that_are(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match=r"no module .*'query'.*down_proj, gate_proj, k_proj"):
        Lora(targets=("query",)).wrap(model(tiny_model))


@pytest.mark.parametrize("settings", [{"targets": []}, {"init": "pissa", "dora": True}, {"rank": 0}, {"dropout": 1.0}])
def test_settings_that_cannot_work_are_refused(settings: Any) -> None:
    with pytest.raises(ValidationError):
        Lora(**settings)


@pytest.mark.parametrize(
    ("name", "settings", "dtype"),
    [
        ("rslora", {"rslora": True}, "float32"),
        ("dora", {"dora": True}, "float32"),
        ("dora16", {"dora": True}, "bfloat16"),
    ],
)
def test_the_variants_of_lora_learn(tmp_path: Path, tiny_model: Path, name: str, settings: Any, dtype: Any) -> None:
    from safetensors import safe_open

    job = make_job(tmp_path / name, tiny_model)
    Sft(adapter=Lora(rank=4, **settings), epochs=4, learning_rate=5e-3, dtype=dtype).fit(job, silent)
    losses = [line["loss"] for line in curves(job.out)]
    assert losses[-1] < 0.85 * losses[0]
    with safe_open(job.out / "adapter_model.safetensors", "pt") as file:
        assert any("magnitude" in key for key in file.keys()) == ("dora" in settings)  # noqa: SIM118
