from __future__ import annotations

from pathlib import Path

import pytest

from harness.adapters.llama_adapter import LlamaAdapter
from harness.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def test_a_fresh_one_changes_no_answer_and_sits_on_the_upper_layers(tmp_path: Path) -> None:
    import torch
    from conftest import make_tiny_model
    from transformers import AutoModelForCausalLM

    folder = make_tiny_model(tmp_path / "model", layers=4)
    bare = AutoModelForCausalLM.from_pretrained(folder)
    wrapped = LlamaAdapter(tokens=3).wrap(AutoModelForCausalLM.from_pretrained(folder))
    trained = [name for name, weight in wrapped.named_parameters() if weight.requires_grad]
    assert {name.split(".layers.")[1][0] for name in trained} == {"2", "3"}
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(wrapped(ids).logits, bare(ids).logits, rtol=0, atol=0)


def test_models_of_other_types_are_refused() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("qwen2", vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
                                  num_attention_heads=2, num_key_value_heads=2)  # fmt: skip
    with pytest.raises(ModelError, match=r"adapter llama-adapter: Unsupported model type .*'qwen2'"):
        LlamaAdapter().wrap(AutoModelForCausalLM.from_config(config))
