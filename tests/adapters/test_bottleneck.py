from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.adapters.bottleneck import Bottleneck
from harness.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def test_a_sublayer_s_output_gets_a_small_network_s_output_added(tiny_model: Path) -> None:
    import torch

    wrapped = Bottleneck(size=3, nonlinearity="relu").wrap(model(tiny_model))
    layer = wrapped.base_model.model.model.layers[0].mlp.down_proj
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    for linear in (down, up):
        torch.nn.init.normal_(linear.weight)
        torch.nn.init.normal_(linear.bias)
    inputs = torch.randn(2, 128)
    hidden = inputs @ layer.base_layer.weight.T
    expected = hidden + (hidden @ down.weight.T + down.bias).clamp(min=0) @ up.weight.T + up.bias
    torch.testing.assert_close(layer(inputs), expected)


@pytest.mark.parametrize(("after", "layers"), [("both", 4), ("feedforward", 2)])
def test_it_stands_after_both_sublayers_or_the_feedforward_one_and_starts_near_to_nothing(
    tiny_model: Path, after: Any, layers: int
) -> None:
    import torch

    bare, wrapped = model(tiny_model).eval(), Bottleneck(size=8, after=after).wrap(model(tiny_model)).eval()
    trained = [weight.numel() for weight in wrapped.parameters() if weight.requires_grad]
    assert sum(trained) == layers * (2 * 8 * 64 + 8 + 64)
    ids = torch.tensor([[5, 60, 7]])
    with torch.no_grad():
        apart = (wrapped(ids).logits - bare(ids).logits).abs().max()
        assert 0 < apart < 0.02 * bare(ids).logits.abs().max()


def test_layers_of_unknown_names_have_to_be_named(tiny_model: Path) -> None:
    import torch

    class Other(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixer = torch.nn.Linear(4, 4)

    with pytest.raises(ModelError, match=r"unknown names\. Name them: targets"):
        Bottleneck().wrap(Other())
    named = Bottleneck(targets=("gate_proj",)).wrap(model(tiny_model))
    assert {name.split(".")[-4] for name, weight in named.named_parameters() if weight.requires_grad} == {"gate_proj"}
    with pytest.raises(ModelError, match=r"no module of the model ends in \('nowhere',\)"):
        Bottleneck(targets=("nowhere",)).wrap(model(tiny_model))
    with pytest.raises(ModelError, match="needs a linear layer before it, not LlamaMLP"):
        Bottleneck(targets=("mlp",)).wrap(model(tiny_model))
