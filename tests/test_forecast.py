"""What a stage will take and what is unwise about it, told before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import forecast, models
from harness.adapters.full import Full
from harness.adapters.lora import Lora
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
        found = forecast.memory(Sft(**settings), tiny, text=100, answer=10, dtype="float32")
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
    assert list(forecast._rate(method)) == [
        "learning_rate 0.5 is outside 5e-05 to 0.002, which is usual for sft with lora"
    ]
    assert not list(forecast._rate(Sft(learning_rate=1e-3, adapter=Lora(rank=4))))
    (said,) = forecast._size(method, tiny, 1, tokens=10)
    assert said.startswith(f"{Lora(rank=4).trainable(tiny.weights):,} weights are trained on about 30 tokens")
    assert not list(forecast._size(method, tiny, 1, tokens=1e9))
    (said,) = forecast._dev(method, 3)
    assert said == "the best step is chosen on 3 dev rows, mostly by chance; 20 or more would say something"
    assert not list(forecast._dev(method, 20))
    assert not list(forecast._dev(method, 0)), "without dev the last step is kept"
