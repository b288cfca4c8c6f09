"""TRL's trainers of groups as they are made here, against TRL's own."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
from rewarding import REWARD, asked, rewarded_job
from training import curves, silent, weights

from harness.adapters.lora import Lora
from harness.methods.grpo import Grpo
from harness.methods.rloo import Rloo

SETTINGS: dict[str, Any] = {
    "reward": REWARD, "adapter": Lora(rank=4), "max_tokens": 5, "batch_size": 8, "num_generations": 4,
    "learning_rate": 1e-3, "warmup": 0,
}  # fmt: skip


def made(method: Any, folder: Path, tiny_model: Path) -> Any:
    from harness.methods import _model

    job = rewarded_job(folder, tiny_model, train=asked(6))
    with warnings.catch_warnings():
        # PEFT asks under a name that transformers is about to drop; `fit` filters it as well.
        warnings.simplefilter("ignore", FutureWarning)
        return method.ready(job, _model.load(job, method.adapter, "float32"), "float32").trainer


@pytest.mark.parametrize("kind", [Grpo, Rloo])
def test_log_probabilities_are_those_of_trl(tmp_path: Path, tiny_model: Path, kind: Any) -> None:
    import torch
    from trl import GRPOTrainer, RLOOTrainer

    trainer = made(kind(**SETTINGS | {"temperature": 0.7}), tmp_path / "job", tiny_model)
    prompts = [list(prompt.ids) for prompt in trainer.prompts]
    torch.manual_seed(0)
    answers = trainer.rollouts.sampler.sample(prompts)
    longest, most = max(map(len, prompts)), max(map(len, answers))
    ids = torch.zeros(len(prompts), longest + most, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        start = longest - len(prompt)
        ids[place, start : longest + len(answer)] = torch.tensor([*prompt, *answer])
        mask[place, start : longest + len(answer)] = 1
    trl = GRPOTrainer if kind is Grpo else RLOOTrainer
    with torch.no_grad():
        ours = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, most, compute_entropy=True)
        theirs = trl._get_per_token_logps_and_entropies(trainer, trainer.model, ids, mask, most, compute_entropy=True)
        reference = trainer._get_per_token_logps_and_entropies(trainer.ref_model, ids, mask, most)
        # On a GPU the reference is asked in TRL's own way.
        by_trl = trl._get_per_token_logps_and_entropies(trainer, trainer.ref_model, ids, mask, most)
    answered = mask[:, longest:].bool()
    for one, other in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(one[answered], other[answered], rtol=1e-4, atol=1e-4)
        assert not one[~answered].any()
    torch.testing.assert_close(reference[0], ours[0])
    torch.testing.assert_close(by_trl[0][answered], ours[0][answered], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [Grpo, Rloo])
def test_prompts_are_the_token_ids_that_the_model_is_asked_with(tmp_path: Path, tiny_model: Path, kind: Any) -> None:
    trainer = made(kind(**SETTINGS), tmp_path / "job", tiny_model)
    ids, images, others = trainer._tokenize_prompts([prompt.text for prompt in trainer.prompts])
    chat = trainer.rollouts.sampler.renderer
    assert ids == chat.prompts([prompt.messages for prompt in trainer.prompts])
    assert (images, others) == (None, {})
    batches = list(trainer.get_train_dataloader())
    # Two prompts a step, four answers to each; six prompts make three steps.
    assert [len(batch) for batch in batches] == [8, 8, 8]
    taken = [row["place"] for batch in batches for row in batch]
    assert sorted(taken) == sorted(number for number in range(6) for _ in range(4))
    assert all(len({row["place"] for row in batch[first : first + 4]}) == 1 for batch in batches for first in (0, 4))


@pytest.mark.parametrize("kind", [Grpo, Rloo])
def test_smaller_parts_change_a_step_by_rounding_only(tmp_path: Path, tiny_model: Path, kind: Any) -> None:
    import torch

    found, told = {}, {}
    for part in (8, 3):
        job = rewarded_job(tmp_path / str(part), tiny_model)
        kind(**SETTINGS | {"micro_batch": part, "max_steps": 1}).fit(job, silent)
        found[part], told[part] = weights(job.out), curves(job.out)[0]
    assert told[8]["reward"] == told[3]["reward"]
    assert told[8]["grad_norm"] == pytest.approx(told[3]["grad_norm"], rel=1e-3)
    for name, weight in found[8].items():
        torch.testing.assert_close(weight, found[3][name], rtol=0, atol=1e-4)


def test_gradient_checkpointing_changes_a_step_by_rounding_only(tmp_path: Path, tiny_model: Path) -> None:
    norms = []
    for checkpointing in (False, True):
        job = rewarded_job(tmp_path / str(checkpointing), tiny_model)
        Grpo(**SETTINGS | {"gradient_checkpointing": checkpointing, "max_steps": 1}).fit(job, silent)
        norms.append(curves(job.out)[0]["grad_norm"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


def test_cut_answers_pay_and_the_reward_that_is_told_does_not(tmp_path: Path, tiny_model: Path) -> None:
    trainer = made(Grpo(**SETTINGS | {"missing_end_penalty": 2.0}), tmp_path / "job", tiny_model)
    end = trainer.rollouts.sampler.renderer.end
    word = trainer.rollouts.sampler.renderer.encode(["kettle"])[0]
    assert trainer.reward(completion_ids=[[*word, end], word], place=[0, 1]) == [1.0, -1.0]
    assert trainer._figures == {"reward": 1.0, "ended": 0.5}


@pytest.mark.parametrize("settings", [{"loss": "grpo"}, {"loss": "dr_grpo", "scale_rewards": "none"}, {"beta": 0.0}])
def test_other_losses_train_too(tmp_path: Path, tiny_model: Path, settings: dict[str, Any]) -> None:
    job = rewarded_job(tmp_path / "job", tiny_model)
    assert Grpo(**SETTINGS | {"max_steps": 2} | settings).fit(job, silent).steps == 2
    assert all(math.isfinite(line["loss"]) for line in curves(job.out))


def test_in_bfloat16_both_train(tmp_path: Path, tiny_model: Path) -> None:
    for kind in (Grpo, Rloo):
        job = rewarded_job(tmp_path / kind.__name__, tiny_model, dev=asked(2, 8))
        outcome = kind(**SETTINGS | {"max_steps": 2, "dtype": "bfloat16"}).fit(job, silent)
        assert outcome.details["dtype"] == "bfloat16"
        assert all(math.isfinite(line["loss"]) for line in curves(job.out) if "loss" in line)
