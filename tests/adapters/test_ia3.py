from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.adapters.ia3 import Ia3

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def trained(folder: Path, **settings: Any) -> dict[str, tuple[int, ...]]:
    from transformers import AutoModelForCausalLM

    wrapped = Ia3(**settings).wrap(AutoModelForCausalLM.from_pretrained(folder))
    return {name: tuple(weight.shape) for name, weight in wrapped.named_parameters() if weight.requires_grad}


def test_keys_values_and_the_feedforward_layer_get_a_factor_each(tiny_model: Path) -> None:
    found = trained(tiny_model)
    # Two layers: keys and values of width 32, and the 128 inputs of the last feed-forward layer.
    assert sorted(found.values()) == [(1, 128)] * 2 + [(32, 1)] * 4
    own = trained(tiny_model, targets=("q_proj", "up_proj"), feedforward=("up_proj",))
    assert sorted(own.values()) == [(1, 64)] * 2 + [(64, 1)] * 2


def test_feedforward_layers_are_among_the_targets() -> None:
    with pytest.raises(ValidationError, match="feedforward names down_proj, which `targets` does not name"):
        Ia3(targets=("k_proj",), feedforward=("down_proj",))
