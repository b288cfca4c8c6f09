"""The look at general knowledge before and after a training."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.methods import _probe


def test_bits_per_byte_are_those_of_the_models_own_loss(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    total = 0.0
    for text in _probe.PASSAGES:
        ids = torch.tensor([tokenizer.encode(text)])
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
    size = sum(len(text.encode()) for text in _probe.PASSAGES)
    found = _probe.look(model, tokenizer)
    assert found["bits_per_byte"] == pytest.approx(total / size / math.log(2), rel=1e-4)
    assert 0 <= found["facts"] <= 1


def test_every_fact_has_three_wrong_endings_that_are_not_the_right_one() -> None:
    assert all(len(set(fact)) == 5 for fact in _probe.FACTS)


@pytest.mark.slow
def test_the_built_in_model_knows_most_everyday_facts(builtin_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(builtin_model)
    found = _probe.look(model, AutoTokenizer.from_pretrained(builtin_model))
    assert found["facts"] >= 0.8
    assert found["bits_per_byte"] < 1.5
