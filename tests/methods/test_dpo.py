"""Direct preference optimization: its losses, and the reference that they stand on."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from training import curves, log_probabilities, make_job, opened, preferences, rows, silent

from harness.adapters.bottleneck import Bottleneck
from harness.adapters.full import Full
from harness.adapters.lora import Lora
from harness.adapters.prompt import Prompt
from harness.methods.dpo import SMOOTHED, Dpo
from harness.methods.sft import Sft

BETA = 0.1
QUICK: dict[str, Any] = {"learning_rate": 2e-3, "max_steps": 3, "batch_size": 4, "warmup": 0.0, "keep_best": False}
DEV = preferences(4, start=40)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The adapter of an imitation stage, which moved the policy well away from the bare base."""
    job = make_job(tmp_path_factory.mktemp("before") / "job", tiny_model, train=rows(8))
    Sft(adapter=Lora(rank=4), learning_rate=1e-2, epochs=3, batch_size=4).fit(job, silent)
    return job.out


def sums(base: Path, artifact: Path | None, name: str) -> torch.Tensor:
    from transformers import AutoTokenizer

    found = log_probabilities(opened(base, artifact), AutoTokenizer.from_pretrained(base), DEV, name)
    return torch.stack([each.sum() for each in found])


@pytest.mark.parametrize(
    ("adapter", "incoming"),
    [(None, True), (Lora(rank=4), True), (Lora(rank=4), False), (None, False), (Full(), True)],
    ids=["trained on", "new after merging", "new", "whole", "whole after merging"],
)
def test_the_reference_is_the_policy_as_the_stage_received_it_and_never_moves(
    before: Path, tmp_path: Path, tiny_model: Path, adapter: Any, incoming: bool
) -> None:
    received = before if incoming else None
    job = make_job(tmp_path / "job", tiny_model, train=preferences(), dev=DEV, incoming=received)
    Dpo(adapter=adapter, eval_every=1, **QUICK).fit(job, silent)
    lines = curves(job.out)
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    # At the end the rewards that it reports are those over the policy that came in.
    last = [line for line in lines if "dev_loss" in line][-1]
    for name in ("chosen", "rejected"):
        ratio = sums(tiny_model, job.out, name) - sums(tiny_model, received, name)
        assert ratio.abs().mean() > 0.02, "the policy has moved"
        assert last[f"dev_{name}_reward"] == pytest.approx(BETA * ratio.mean().item(), rel=1e-3, abs=1e-3)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("adapter", [Prompt(), Bottleneck(), Lora(init="pissa", rank=4)], ids=lambda one: one.kind)
def test_a_new_adapter_that_is_not_nothing_at_first_is_no_part_of_the_reference(
    tmp_path: Path, tiny_model: Path, adapter: Any
) -> None:
    job = make_job(tmp_path / "job", tiny_model, train=DEV)
    method = Dpo(adapter=adapter, **QUICK)
    trainer = method.ready(job, method.load(job, "float32"), "float32").trainer
    for name in ("chosen", "rejected"):
        found = trainer.reference([getattr(pair, name) for pair in trainer.rows])
        torch.testing.assert_close(found, sums(tiny_model, None, name), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "hinge", "robust"])
def test_losses_are_the_published_ones(tmp_path: Path, tiny_model: Path, loss: Any) -> None:
    from transformers import AutoTokenizer

    job = make_job(tmp_path / "job", tiny_model, train=preferences(), dev=DEV)
    reported = Dpo(adapter=Lora(rank=4), loss=loss, beta=BETA, **QUICK).fit(job, silent).details["dev_loss"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ratio, length = {}, {}
    for name in ("chosen", "rejected"):
        ratio[name] = sums(tiny_model, job.out, name) - sums(tiny_model, None, name)
        each = log_probabilities(opened(tiny_model), tokenizer, DEV, name)
        length[name] = torch.tensor([float(len(one)) for one in each])
    difference = BETA * (ratio["chosen"] - ratio["rejected"])
    wrong = SMOOTHED["robust"]
    by_hand = {
        # Rafailov et al. 2023, equation 7.
        "sigmoid": lambda: torch.log1p(torch.exp(-difference)),
        # Azar et al. 2023, equation 17, with means over tokens as its authors compute them.
        "ipo": lambda: (
            (ratio["chosen"] / length["chosen"] - ratio["rejected"] / length["rejected"] - 1 / (2 * BETA)) ** 2
        ),
        # Zhao et al. 2023 (SLiC), in DPO's terms.
        "hinge": lambda: torch.clamp(1 - difference, min=0),
        # Chowdhury et al. 2024, equation 12.
        "robust": lambda: (
            ((1 - wrong) * torch.log1p(torch.exp(-difference)) - wrong * torch.log1p(torch.exp(difference)))
            / (1 - 2 * wrong)
        ),
    }[loss]()
    assert reported == pytest.approx(by_hand.mean().item(), rel=1e-3)


@pytest.mark.parametrize(
    "loss",
    [
        "exo_pair",
        "nca_pair",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sigmoid_norm",
    ],
)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_every_other_loss_has_a_gradient(tmp_path: Path, tiny_model: Path, loss: Any) -> None:
    job = make_job(tmp_path / "job", tiny_model, train=preferences(4))
    method = Dpo(adapter=Lora(rank=4), loss=loss, **QUICK)
    policy = method.load(job, "float32")
    trainer = method.ready(job, policy, "float32").trainer
    assert trainer.loss_types == [loss]
    trainer.current_gradient_accumulation_steps = 1  # Set where a training begins.
    assert math.isfinite(trainer.training_step(trainer.model, [0, 1, 2, 3]).item())
    assert any(w.grad is not None and bool(w.grad.abs().max() > 0) for w in policy.model.parameters())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_only_answers_go_through_the_output_layer(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl.trainer import utils

    job = make_job(tmp_path / "job", tiny_model, train=preferences(4))
    method = Dpo(adapter=Lora(rank=4), **QUICK)
    trainer = method.ready(job, method.load(job, "float32"), "float32").trainer
    trainer.current_gradient_accumulation_steps = 1
    seen: list[int] = []
    apply = utils._ChunkedLogProbFunction.apply

    def counted(hidden: Any, *more: Any) -> Any:
        seen.append(len(hidden))
        return apply(hidden, *more)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", SimpleNamespace(apply=counted))
    trainer.training_step(trainer.model, [0, 1, 2, 3])
    answers = [row for pair in trainer.rows for row in (pair.chosen, pair.rejected)]
    assert sum(seen) == sum(len(row.ids) - row.prompt for row in answers)


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"label_smoothing changes nothing with loss = 'sigmoid'"):
        Dpo(label_smoothing=0.1)
    with pytest.raises(ValidationError, match="'robust' needs a label_smoothing above 0"):
        Dpo(loss="robust", label_smoothing=0)
    with pytest.raises(ValidationError, match="compares all answers of a batch: micro_batch cannot be less"):
        Dpo(loss="aot", micro_batch=2)
    assert Dpo(loss="aot", micro_batch=8).micro_batch == 8
