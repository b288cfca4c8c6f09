from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.adapters.peft import Peft
from harness.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.mark.parametrize(
    ("kind", "config", "said"),
    [
        ("LOHAS", {}, r"PEFT has no type 'LOHAS'\. Did you mean 'LOHA'\? Available: .*MISS"),
        ("PREFIX_TUNING", {}, 'PREFIX_TUNING is the adapter "prefix" here'),
        ("xlora", {}, "XLORA cannot be used here: it mixes other adapters"),
        ("LOHA", {"rank": 4}, r"config\.rank is no setting of LoHaConfig\. .*Available: .*rank_dropout"),
        ("LOHA", {"r": "many"}, r"config\.r = 'many' is not what LoHaConfig takes: .*integer"),
        ("LOKR", {"r": "many", "alfa": 1}, r"config\.r = 'many'.*; config\.alfa is no setting"),
        ("LORA", {"bias": "all"}, r"config\.bias would train weights of the base model"),
        ("LORA", {"task_type": "SEQ_CLS"}, r"config\.task_type is CAUSAL_LM here: leave it out"),
        ("LORA", {"init_lora_weights": "eva"}, "looks at data or a quantised model first"),
        ("OFT", {"r": 2, "oft_block_size": 4}, "OFT does not take these settings: You can only specify either r"),
    ],
)
def test_what_peft_does_not_take_is_told_with_what_it_takes(kind: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Peft(type=kind, config=config)


def test_the_settings_reach_peft(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    adapter = Peft(type="loha", config={"r": 3, "target_modules": ["q_proj"]})
    wrapped = adapter.wrap(AutoModelForCausalLM.from_pretrained(tiny_model))
    trained = {name: weight.shape for name, weight in wrapped.named_parameters() if weight.requires_grad}
    assert all(".q_proj." in name and 3 in shape for name, shape in trained.items())
    assert len(trained) == 8
    assert not adapter.targets_output
    assert Peft(type="LORA", config={"target_modules": ["lm_head"]}).targets_output


def test_what_does_not_fit_the_model_is_a_model_error(tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    with pytest.raises(ModelError, match=r"adapter peft: .*block size.*linear layers: down_proj"):
        Peft(type="C3A", config={"block_size": 7}).wrap(AutoModelForCausalLM.from_pretrained(tiny_model))
