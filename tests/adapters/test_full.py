from __future__ import annotations

from pathlib import Path

from harness.adapters.full import Full


def test_every_weight_is_trained(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model).requires_grad_(False)
    wrapped = Full().wrap(model)
    assert wrapped is model
    assert all(weight.requires_grad for weight in wrapped.parameters())
