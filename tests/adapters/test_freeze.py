from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.adapters.freeze import Freeze
from harness.errors import ModelError


def model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def trained(folder: Path, **settings: Any) -> set[str]:
    wrapped = Freeze(**settings).wrap(model(folder))
    return {name for name, weight in wrapped.named_parameters() if weight.requires_grad}


def test_the_last_layers_or_chosen_modules_or_all_but_the_embeddings_are_trained(tiny_model: Path) -> None:
    names = {name for name, _ in model(tiny_model).named_parameters()}
    assert trained(tiny_model) == names - {"model.embed_tokens.weight"}
    assert trained(tiny_model, layers=1) == {name for name in names if name.startswith("model.layers.1.")}
    assert trained(tiny_model, layers=5) == {name for name in names if name.startswith("model.layers.")}
    assert trained(tiny_model, modules=("mlp",)) == {name for name in names if ".mlp." in name}
    assert trained(tiny_model, layers=1, modules=("q_proj", "norm")) == {"model.layers.1.self_attn.q_proj.weight"}


def test_what_names_nothing_is_refused_with_what_there_is(tiny_model: Path) -> None:
    import torch

    with pytest.raises(ModelError, match=r"is called attn\. Its modules: .*down_proj.*self_attn"):
        trained(tiny_model, modules=("attn",))
    with pytest.raises(ModelError, match="no numbered layers"):
        Freeze(layers=1).wrap(torch.nn.Linear(2, 2))
