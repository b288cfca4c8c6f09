"""The formulas of proximal policy optimisation against values computed by hand, and its loop."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest
from pydantic import ValidationError
from rewarding import REWARD, asked, rewarded_job
from training import curves, silent

from harness.adapters.full import Full
from harness.methods.ppo import Ppo

torch = pytest.importorskip("torch")

from harness.methods import _ppo  # noqa: E402


def test_each_token_pays_for_its_divergence_and_the_last_gets_the_score() -> None:
    rewards = _ppo.token_rewards(2.0, torch.tensor([0.5, -1.0, 0.25]), 0.2)
    torch.testing.assert_close(rewards, torch.tensor([-0.1, 0.2, 2.0 - 0.05]))


def test_advantages_are_discounted_sums_of_the_errors_of_the_values() -> None:
    rewards, values = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.5, 1.0, -1.0])
    # delta_2 = 2 - (-1) = 3; delta_1 = 0 + 0.9 (-1) - 1 = -1.9; delta_0 = 1 + 0.9 x 1 - 0.5 = 1.4; gamma lam = 0.45.
    # A_2 = 3; A_1 = -1.9 + 0.45 x 3 = -0.55; A_0 = 1.4 + 0.45 x (-0.55) = 1.1525.
    gains, returns = _ppo.advantages(rewards, values, 0.9, 0.5)
    torch.testing.assert_close(gains, torch.tensor([1.1525, -0.55, 3.0]))
    torch.testing.assert_close(returns, torch.tensor([1.6525, 0.45, 2.0]))


def test_with_lam_1_the_return_is_the_reward_to_come_and_with_lam_0_one_step_of_it() -> None:
    rewards, values = torch.tensor([1.0, -2.0, 4.0]), torch.tensor([7.0, 5.0, 3.0])
    _, whole = _ppo.advantages(rewards, values, 1.0, 1.0)
    torch.testing.assert_close(whole, torch.tensor([3.0, 2.0, 4.0]))
    _, one = _ppo.advantages(rewards, values, 1.0, 0.0)
    torch.testing.assert_close(one, torch.tensor([1.0 + 5.0, -2.0 + 3.0, 4.0]))


def test_whitened_numbers_have_no_mean_and_a_variance_of_one_over_all_parts_together() -> None:
    # The mean of 1, 2, 3, 6 is 3 and their variance (4 + 1 + 0 + 9) / 4 = 3.5.
    one, other = _ppo.whiten([torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])])
    scale = math.sqrt(3.5)
    torch.testing.assert_close(one, torch.tensor([-2.0, -1.0]) / scale)
    torch.testing.assert_close(other, torch.tensor([0.0, 3.0]) / scale)


def test_the_clip_takes_the_gradient_only_where_the_policy_went_too_far_the_right_way() -> None:
    ratios = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1])
    gains = torch.tensor([2.0, -2.0, 2.0, -2.0, 3.0])
    new = ratios.log().requires_grad_()
    loss, clipped = _ppo.policy_loss(new, torch.zeros(5), gains, 0.2)
    torch.testing.assert_close(loss.detach(), torch.tensor([-2.4, 3.0, -1.0, 1.6, -3.3]))
    assert clipped.tolist() == [1, 0, 0, 1, 0]
    loss.sum().backward()
    torch.testing.assert_close(new.grad, torch.tensor([0.0, 3.0, -1.0, 0.0, -3.3]))


def test_a_value_is_held_near_the_old_one() -> None:
    # V = 1 from 0 is held at 0.2: (1 - 2)^2 = 1 < (0.2 - 2)^2 = 3.24. V = 0.1: both (0.1 - 2)^2 = 3.61.
    # V = 1 with R = 0: 1 > 0.04.
    loss = _ppo.value_loss(torch.tensor([1.0, 0.1, 1.0]), torch.zeros(3), torch.tensor([2.0, 2.0, 0.0]), 0.2)
    torch.testing.assert_close(loss, torch.tensor([3.24, 3.61, 1.0]) / 2)


@pytest.mark.parametrize(
    ("kl", "expected"),
    [(6.0, 0.2), (6.6, 0.2 * 1.01), (60.0, 0.2 * 1.02), (5.4, 0.2 * 0.99), (-3.0, 0.2 * 0.98)],
)
def test_the_coefficient_follows_the_target_a_fifth_of_the_gain_at_most(kl: float, expected: float) -> None:
    assert _ppo.adapted(0.2, kl, 6.0, 0.1) == pytest.approx(expected)


def test_the_value_head_starts_at_zero_and_does_not_see_the_scale_of_states() -> None:
    head = _ppo.ValueHead(4)
    hidden = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    assert head(hidden).tolist() == [0.0]
    torch.nn.init.ones_(head.linear.weight[:, :2])
    torch.testing.assert_close(head(hidden), head(hidden * 1000), rtol=1e-4, atol=1e-4)


SETTINGS = {
    "reward": REWARD, "adapter": Full(), "learning_rate": 2e-3, "max_tokens": 3, "rollouts": 32, "batch_size": 32,
    "schedule": "constant", "warmup": 0, "rollout_epochs": 2,
}  # fmt: skip


def test_the_best_weights_lie_within_the_target_and_the_coefficient_rises_beyond_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    settings = {"rollouts": 64, "batch_size": 64, "learning_rate": 1e-3, "epochs": 14, "eval_every": 4}
    method = Ppo(**SETTINGS | settings | {"kl_coef": 0.05, "target_kl": 3.0, "kl_gain": 3.0})
    job = rewarded_job(tmp_path / "job", tiny_model, dev=asked(64, 8))
    outcome = method.fit(job, silent)
    lines = curves(job.out)
    rounds = [line for line in lines if "kl_coef" in line]
    for one, following in pairwise(rounds):
        assert following["kl_coef"] == pytest.approx(_ppo.adapted(one["kl_coef"], one["kl"], 3.0, 3.0))
    assert rounds[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert rounds[0]["kl_coef"] == 0.05
    beyond = [line for line in lines if line.get("dev_kl", 0) > 3]
    assert beyond, "the training went beyond the target at some time"
    assert outcome.best_step is not None
    assert 0 < outcome.details["kl"] <= 3
    assert outcome.details["reward_after"] > outcome.details["reward_before"] + 0.05
    assert outcome.details["kl_coef"] > min(line["kl_coef"] for line in rounds)


def test_a_fixed_coefficient_stays_and_rounds_have_their_steps(tmp_path: Path, tiny_model: Path) -> None:
    method = Ppo(**SETTINGS | {"rollouts": 8, "batch_size": 4, "epochs": 2, "kl_control": "fixed", "gamma": 0.9})
    job = rewarded_job(tmp_path / "job", tiny_model)
    assert method.fit(job, silent).steps == 8
    lines = curves(job.out)
    assert [line["step"] for line in lines if "reward" in line] == [1, 5]
    assert {line["kl_coef"] for line in lines if "reward" in line} == {0.2}
    assert all({"policy_loss", "value_loss", "clip_fraction", "entropy"} <= line.keys() for line in lines)
    first = lines[0]
    assert first["clip_fraction"] == 0
    assert first["policy_loss"] + 0.1 * first["value_loss"] == pytest.approx(first["loss"], abs=1e-5)


def test_gradient_checkpointing_changes_a_step_by_rounding_only(tmp_path: Path, tiny_model: Path) -> None:
    from training import weights

    found = {}
    for name, settings in {"plain": {}, "less": {"gradient_checkpointing": True, "micro_batch": 3}}.items():
        job = rewarded_job(tmp_path / name, tiny_model)
        Ppo(**SETTINGS | {"rollouts": 8, "batch_size": 8, "max_steps": 2} | settings).fit(job, silent)
        found[name] = weights(job.out)
    for name, weight in found["plain"].items():
        torch.testing.assert_close(weight, found["less"][name], rtol=0, atol=2e-4)


def test_a_coefficient_of_zero_cannot_adapt() -> None:
    with pytest.raises(ValidationError, match='write kl_control = "fixed"'):
        Ppo(reward=REWARD, kl_coef=0.0)
    assert Ppo(reward=REWARD, kl_coef=0.0, kl_control="fixed").kl_coef == 0
