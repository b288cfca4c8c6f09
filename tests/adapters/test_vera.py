from __future__ import annotations

from pathlib import Path

import pytest

from harness.adapters.oft import Oft
from harness.adapters.vera import Vera
from harness.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def test_a_layer_trains_two_vectors_around_matrices_that_all_share(tiny_model: Path) -> None:
    from peft import get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    wrapped = Vera(rank=8, targets=("q_proj", "down_proj")).wrap(AutoModelForCausalLM.from_pretrained(tiny_model))
    trained = [weight.numel() for weight in wrapped.parameters() if weight.requires_grad]
    assert sorted(trained) == [8] * 4 + [64] * 4
    stored = get_peft_model_state_dict(wrapped)
    assert stored["base_model.vera_A"].shape == (8, 128) and stored["base_model.vera_B"].shape == (64, 8)


def test_a_block_that_no_layer_can_be_cut_into_is_a_model_error(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    with pytest.raises(ModelError, match=r"adapter oft: .*block"):
        Oft(block_size=48).wrap(AutoModelForCausalLM.from_pretrained(tiny_model))
