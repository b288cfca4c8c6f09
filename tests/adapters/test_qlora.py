from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from training import curves, make_job, rows, silent, weights

from harness.adapters.lora import Lora
from harness.adapters.qlora import Qlora
from harness.methods import _model
from harness.methods.sft import Sft

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.mark.parametrize(
    ("settings", "number", "share"),
    [
        ({}, "uint8", 0.5),
        ({"quantize": "fp4", "double_quantization": False}, "uint8", 0.5),
        ({"quantize": "int8"}, "int8", 1.0),
    ],
    ids=["nf4", "fp4", "int8"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_frozen_weights_are_held_in_few_bits_and_trained_ones_in_32(
    tmp_path: Path, tiny_model: Path, settings: Any, number: str, share: float, dtype: Any
) -> None:
    job = make_job(tmp_path / "job", tiny_model, train=rows(8))
    method = Sft(adapter=Qlora(rank=4, **settings), epochs=3, batch_size=4, learning_rate=1e-2, dtype=dtype)
    policy = method.load(job, dtype)
    inner = {name: weight for name, weight in policy.model.named_parameters() if "base_layer" in name}
    assert len(inner) == 14
    assert {str(weight.dtype) for weight in inner.values()} == {f"torch.{number}"}
    # Four projections of attention (64, 32, 32 and 64 wide) and three of width 128, in both layers.
    numbers = 2 * 64 * (64 + 32 + 32 + 64 + 3 * 128)
    assert sum(weight.numel() * weight.element_size() for weight in inner.values()) == share * numbers
    method.fit(job, silent)
    losses = [line["loss"] for line in curves(job.out)]
    assert losses[-1] < 0.9 * losses[0]
    assert {str(value.dtype) for value in weights(job.out).values()} == {"torch.float32"}
    assert json.loads((job.out / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_after_another_stage_what_is_learned_goes_into_the_weights_as_they_were_before_they_were_quantised(
    tmp_path: Path, tiny_model: Path
) -> None:
    import torch
    from answering import Reference

    first = make_job(tmp_path / "first", tiny_model, train=rows(8))
    Sft(adapter=Lora(rank=4), epochs=2, batch_size=4, learning_rate=1e-2).fit(first, silent)
    second = make_job(tmp_path / "second", tiny_model, train=rows(8), incoming=first.out)
    method = Sft(adapter=Qlora(rank=2), max_steps=1, learning_rate=1e-9)
    assert method.fit(second, silent).details["artifact"] == "model"
    ids = torch.tensor([[5, 60, 7, 80]])
    with torch.no_grad():
        found, expected = (one.model(ids).logits for one in (Reference(second.out), Reference(tiny_model, first.out)))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    quantised = _model.load(make_job(tmp_path / "third", tiny_model, incoming=first.out), Qlora(rank=2), "float32")
    with torch.no_grad():
        assert (quantised.model.eval()(ids).logits - expected).abs().max() > 0.01, "quantising costs digits"


def test_singular_values_cannot_be_taken_out_of_quantised_weights() -> None:
    with pytest.raises(ValidationError, match="cannot be done where they are quantised"):
        Qlora(init="pissa")
