from __future__ import annotations

from pathlib import Path

import pytest

from harness.adapters.layer_norm import LayerNorm
from harness.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def test_every_normalisation_is_trained_and_nothing_else(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    wrapped = LayerNorm().wrap(AutoModelForCausalLM.from_pretrained(tiny_model))
    trained = {name: weight.numel() for name, weight in wrapped.named_parameters() if weight.requires_grad}
    # Two a layer, and one at the end.
    assert list(trained.values()) == [64] * 5
    assert all("norm" in name for name in trained)


def test_a_model_without_any_is_refused() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "olmo",
        vocab_size=40,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    model = AutoModelForCausalLM.from_config(config)  # Its normalisation has no weights.
    with pytest.raises(ModelError, match="no normalisation layers with weights"):
        LayerNorm().wrap(model)
