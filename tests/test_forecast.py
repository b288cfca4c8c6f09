"""What a stage will take and what is unwise about it, told before anything is trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from comparison import Comparison

from harness import data, forecast, models, spec
from harness.adapters.freeze import Freeze
from harness.adapters.full import Full
from harness.adapters.lora import Lora
from harness.adapters.qlora import Qlora
from harness.backends.canned import Canned
from harness.backends.transformers import Transformers
from harness.errors import ModelError
from harness.forecast import Shapes
from harness.methods.sft import Sft


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Shapes:
    found = forecast.shapes(Transformers(id=str(tiny_model)))
    assert found is not None
    return found


def test_the_sizes_of_a_model_are_read_without_loading_it(tiny_model: Path, tiny: Shapes) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert tiny.parameters == model.num_parameters()
    assert (tiny.layers, tiny.hidden, tiny.vocabulary) == (2, 64, model.config.vocab_size)


def test_a_model_without_weights_here_has_no_sizes(tmp_path: Path) -> None:
    assert forecast.shapes(Canned()) is None
    assert forecast.shapes(Transformers(id=str(tmp_path))) is None
    (tmp_path / "model.safetensors").write_bytes(b"1")
    with pytest.raises(ModelError, match="cannot be read"):
        models.shapes(tmp_path)


@pytest.mark.parametrize(
    "adapter",
    [Lora(rank=4), Lora(rank=4, targets=("q_proj", "down_proj")), Lora(rank=2, dora=True), Full()],
    ids=["lora", "targets", "dora", "full"],
)
def test_the_weights_that_an_adapter_trains_are_counted_exactly(tiny_model: Path, tiny: Shapes, adapter: Any) -> None:
    from transformers import AutoModelForCausalLM

    model = adapter.wrap(AutoModelForCausalLM.from_pretrained(tiny_model))
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert adapter.trainable(tiny.weights) == trained


def test_memory_grows_with_what_is_computed_at_once_and_with_what_is_trained(tiny: Shapes) -> None:
    def memory(**settings: Any) -> int:
        method = Sft(**settings)
        found = forecast.memory(method, method.adapter or Full(), tiny, text=100, answer=10, dtype="float32")
        assert found is not None
        return found - forecast.BARE

    whole, lora = memory(adapter=Full()), memory(adapter=Lora(rank=4))
    assert whole - memory(adapter=Full(), micro_batch=1) > 0
    assert memory(adapter=Full(), gradient_checkpointing=True) < whole
    assert whole - lora == pytest.approx(
        12 * tiny.parameters - 16 * (Lora(rank=4).trainable(tiny.weights) or 0), rel=1e-6
    )


def test_unwise_settings_are_told(tiny: Shapes) -> None:
    method = Sft(learning_rate=0.5, adapter=Lora(rank=4))
    assert list(forecast._rate(method, method.adapter)) == [
        "learning_rate 0.5 is outside 5e-05 to 0.002, which is usual for sft with lora"
    ]
    assert not list(forecast._rate(Sft(learning_rate=1e-3), Lora(rank=4)))
    (said,) = forecast._size(method, method.adapter, tiny, 1, tokens=10)
    assert said.startswith(f"{Lora(rank=4).trainable(tiny.weights):,} weights are trained on about 30 tokens")
    assert not list(forecast._size(method, method.adapter, tiny, 1, tokens=1e9))
    (said,) = forecast._dev(method, 3)
    assert said == "the best step is chosen on 3 dev rows, mostly by chance; 20 or more would say something"
    assert not list(forecast._dev(method, 20))
    assert not list(forecast._dev(method, 0)), "without dev the last step is kept"


CHAIN = """
[[variant]]
name  = "plain"

[[variant]]
name  = "one"
train = [
  { kind = "sft", adapter = { kind = "lora", rank = 4 } },
  { kind = "grpo", reward = "metric:exact_match", learning_rate = 1e-2 },
  { kind = "sft", adapter = "prefix", start = "base" },
]

[[variant]]
name  = "whole"
train = [{ kind = "sft", learning_rate = 1e-2, patience = 2 }, { kind = "sft", adapter = "lora" }, { kind = "sft" }]

[[variant]]
name    = "folder"
adapter = "adapter"
train   = [{ kind = "sft" }]
"""


def test_what_a_stage_trains_is_told_through_the_stages_before_it(tmp_path: Path, tiny_model: Path) -> None:
    comparison = Comparison(tmp_path / "one", CHAIN)
    (comparison.folder / "adapter").mkdir()
    comparison.edit(
        'kind      = "toys:Counted"\nmax_batch = 3\ndefault   = "no idea"',
        f'kind = "transformers"\nid = "{tiny_model}"',
    )
    comparison.edit(comparison.spec.read_text().partition("[model.answers]")[2].partition("[data]")[0], "")
    comparison.edit("[model.answers]", "")
    found = spec.load(comparison.spec)
    variants = {variant.name: variant for variant in found.variants}

    def kind(name: str, number: int) -> str | None:
        adapter = forecast.trained(variants, name, number)
        return adapter and adapter.kind

    assert [kind("one", number) for number in range(3)] == ["lora", "lora", "prefix"]
    # An adapter of its own on weights that another stage trained is merged: after it the whole model is trained.
    assert [kind("whole", number) for number in range(3)] == ["full", "lora", "full"]
    assert kind("folder", 0) is None
    said = forecast.warnings(found, data.load(found.data))
    assert any("one, stage grpo: learning_rate 0.01 is outside" in one and "grpo with lora" in one for one in said)
    assert any("whole, stage sft: learning_rate 0.01" in one and "sft with the whole model" in one for one in said)
    assert any("patience = 2 stops nothing: there are no dev rows" in one for one in said)


def test_quantised_weights_take_less_and_frozen_ones_are_counted(tiny_model: Path, tiny: Shapes) -> None:
    from transformers import AutoModelForCausalLM

    whole = Lora().frozen(tiny.weights, 4)
    linear = sum(math.prod(shape) for name, shape in tiny.weights.items() if "proj" in name)
    assert whole == 4 * tiny.parameters
    assert whole - Qlora(quantize="int8").frozen(tiny.weights, 4) == 3 * linear
    assert Qlora().frozen(tiny.weights, 4) < Qlora(double_quantization=False).frozen(tiny.weights, 4)
    for adapter in (Freeze(layers=1), Freeze(modules=("mlp",)), Freeze()):
        model = adapter.wrap(AutoModelForCausalLM.from_pretrained(tiny_model))
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        assert adapter.trainable(tiny.weights) == trained
