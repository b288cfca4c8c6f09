"""The stages that train by gradient: which adapters they refuse, when the spec is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comparison import Comparison
from pydantic import ValidationError
from training import make_job, rows, silent

from harness import spec
from harness.errors import ModelError, SpecError
from harness.methods._gradient import Gradient, Ready
from harness.methods.dpo import Dpo
from harness.methods.grpo import Grpo
from harness.methods.ppo import Ppo
from harness.methods.sft import Sft
from harness.plugins import available, find

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


class Theirs(Gradient):
    """A stage whose loss TRL computes."""

    def ready(self, job: Any, policy: Any, dtype: str) -> Ready:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        (
            Sft,
            {"adapter": "prefix", "gradient_checkpointing": True},
            "adapter prefix cannot be trained with gradient_ch",
        ),
        (Theirs, {"adapter": "llama-adapter"}, "Theirs cannot train the adapter llama-adapter"),
        (
            Sft,
            {"adapter": {"kind": "lora", "targets": ["lm_head"]}},
            "an adapter on lm_head would never be trained",
        ),
        (Theirs, {"adapter": {"kind": "ia3", "targets": ["lm_head"]}}, "an adapter on lm_head would never be trained"),
    ],
)
def test_pairs_that_fail_are_refused_with_the_reason(method: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        method(**settings)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ('adapter = "prefix", gradient_checkpointing = true', "the adapter prefix cannot be trained with"),
        (
            'adapter = { kind = "peft", type = "LOHA", config = { rank = 4 } }',
            r"config\.rank is no setting of LoHaConfig",
        ),
        ('adapter = { kind = "peft", type = "LOHA", config = { r = 4, target_modules = ["q_proj"] } }', None),
    ],
)
def test_the_check_of_a_spec_tells_file_and_line(tmp_path: Path, stage: str, said: str | None) -> None:
    text = f'[[variant]]\nname = "plain"\n\n[[variant]]\nname = "one"\ntrain = [{{ kind = "sft", {stage} }}]\n'
    comparison = Comparison(tmp_path / "one", text)
    number = comparison.spec.read_text(encoding="utf-8").splitlines().index(text.splitlines()[-1]) + 1
    if said is None:
        spec.load(comparison.spec)
        return
    with pytest.raises(SpecError, match=rf"fruit\.toml:{number} .*{said}"):
        spec.load(comparison.spec)


@pytest.mark.parametrize("kind", available("adapters"))
def test_every_adapter_says_what_it_goes_with_and_its_usual_learning_rates(kind: str) -> None:
    adapter: Any = find("adapters", kind)
    low, high = adapter.usual
    assert 0 < low <= adapter.learning_rate <= high
    assert adapter.prompt_learning == (kind in ("prefix", "prompt", "p-tuning"))
    assert adapter.gradient_checkpointing == (kind != "prefix")
    assert adapter.trl == (kind != "llama-adapter")


def test_an_incoming_prefix_is_refused_where_activations_are_computed_again(tmp_path: Path, tiny_model: Path) -> None:
    first = make_job(tmp_path / "first", tiny_model, train=rows(4))
    Sft(adapter={"kind": "prefix", "tokens": 3}, max_steps=1).fit(first, silent)  # type: ignore[arg-type]
    job = make_job(tmp_path / "job", tiny_model, train=rows(4), incoming=first.out)
    with pytest.raises(ModelError, match="incoming prefix cannot be trained on with gradient_checkpointing"):
        Sft(gradient_checkpointing=True, max_steps=1).fit(job, silent)


@pytest.mark.parametrize("kind", ["prompt", "bottleneck", "llama-adapter", "layer-norm", "freeze"])
def test_recomputed_activations_train_to_the_same_loss(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    from training import curves

    table = {"llama-adapter": {"layers": 1}, "freeze": {"layers": 1}}.get(kind, {})
    losses = []
    for again in (False, True):
        job = make_job(tmp_path / str(again), tiny_model, train=rows(8))
        settings = {"adapter": {"kind": kind, **table}, "gradient_checkpointing": again, "max_steps": 2, "warmup": 0}
        Sft.model_validate(settings | {"batch_size": 4}).fit(job, silent)
        losses.append([line["loss"] for line in curves(job.out)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_passes_through_the_rows_end_with_the_steps() -> None:
    assert Sft(epochs=3).passes(100) == 3.0
    assert Sft(epochs=3, batch_size=10, max_steps=5).passes(100) == 0.5
    assert Dpo(epochs=2, batch_size=10, max_steps=5).passes(100) == 1.0, "two answers a row"
    settings: dict[str, Any] = {"reward": "metric:token_f1", "max_steps": 5}
    assert Grpo(**settings, batch_size=8, num_generations=4, num_iterations=2).passes(100) == 5 / 100 * 4 * 3
    assert Ppo(**settings, rollouts=10, batch_size=10, rollout_epochs=1).passes(100) == 1.0
