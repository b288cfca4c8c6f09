"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) of answers' rewards, as in InstructGPT
(Ouyang et al. 2022, arXiv 2203.02155).

In rounds: an answer to each of some prompts is sampled, rewarded at its last token and charged at each token for its
divergence from the reference; then several steps are taken on them. A small head on the policy's last hidden states
tells the value. TRL has no PPO any more, so the loop is ours: `_ppo` holds the formulas, `_ppo_trainer` the loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from harness.methods._gradient import one_device
from harness.methods._reinforcement import Reinforcement
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rollouts import Rollouts
    from harness.methods._sampling import Prompt


class Ppo(Reinforcement):
    own_loss: ClassVar[bool] = True
    rate_scale: ClassVar[float] = 0.5

    rollouts: int = Field(32, ge=1)
    """Prompts whose answers are sampled and learned from together: a round."""
    rollout_epochs: int = Field(4, ge=1)
    """How often a round's answers are gone through, `batch_size` of them a step."""
    kl_coef: float = Field(0.2, ge=0)
    """Reward that each nat of divergence from the reference costs, at the start."""
    kl_control: Literal["adaptive", "fixed"] = "adaptive"
    """Whether `kl_coef` follows `target_kl` (Ziegler et al. 2019, arXiv 1909.08593) or stays."""
    target_kl: float = Field(6.0, gt=0)
    """The divergence that an adaptive coefficient aims at, in nats an answer. `keep_best` takes nothing beyond it for
    the best; where every evaluation was beyond it the last weights are kept, and the result says so."""
    kl_gain: float = Field(0.1, gt=0, lt=5)
    """How fast an adaptive coefficient follows: a fifth of this share a round at most. Raise it for short trainings."""
    gamma: float = Field(1.0, ge=0, le=1)
    """How much a reward counts a token earlier."""
    lam: float = Field(0.95, ge=0, le=1)
    """How far advantages look ahead (GAE, arXiv 1506.02438): 0 to the next value, 1 to the end of the answer."""
    whiten_advantages: bool = True
    """Whether a round's advantages are brought to a mean of zero and a variance of one."""
    clip_range: float = Field(0.2, gt=0)
    """How far the ratio of new to old probability may be from 1 before it brings nothing more."""
    value_clip: float = Field(0.2, gt=0)
    """How far a value may be from the old one before it brings nothing more."""
    value_coef: float = Field(0.1, ge=0)
    """Weight of the value's loss."""
    value_learning_rate: float = Field(1e-3, gt=0)
    """The highest learning rate of the value head, which starts from nothing."""
    missing_end_penalty: float = Field(1.0, ge=0)
    """What is taken off the reward of an answer that was cut."""

    def passes(self, rows: int) -> float:
        """Each answer is written once and learned from `rollout_epochs` times."""
        return super().passes(rows) * (1 + self.rollout_epochs)

    @property
    def per_round(self) -> tuple[int, int]:
        return self.rollouts, self.rollouts // self.batch_size * self.rollout_epochs

    @model_validator(mode="after")
    def _a_coefficient_can_adapt(self) -> Self:
        if self.kl_control == "adaptive" and not self.kl_coef:
            raise ValueError('kl_coef = 0 stays 0 whatever it is multiplied by: write kl_control = "fixed" as well')
        return self

    @model_validator(mode="after")
    def _batches_fill_a_round(self) -> Self:
        if self.rollouts % self.batch_size:
            raise ValueError(f"rollouts ({self.rollouts}) must be a multiple of batch_size ({self.batch_size})")
        return self

    def trainer(
        self, job: TrainJob, policy: Policy, dtype: str, prompts: list[Prompt], dev: list[Prompt], rollouts: Rollouts
    ) -> tuple[Any, int]:
        from transformers import TrainingArguments

        from harness.methods import _ppo_trainer

        steps, per_epoch = self.steps(len(prompts))
        if self.gradient_checkpointing:
            policy.model.activation_checkpointing_enable()
            # Otherwise nothing that enters the first layer wants a gradient, and an adapter would get none.
            policy.model.enable_input_require_grads()
        config = TrainingArguments(**self.arguments(job, policy, steps), per_device_train_batch_size=self.batch_size)
        rules = _ppo_trainer.Rules(
            batch_size=self.batch_size,
            micro_batch=self.micro_batch or self.batch_size,
            rollout_epochs=self.rollout_epochs,
            kl_coef=self.kl_coef,
            target_kl=self.target_kl if self.kl_control == "adaptive" else None,
            kl_gain=self.kl_gain,
            gamma=self.gamma,
            lam=self.lam,
            clip_range=self.clip_range,
            value_clip=self.value_clip,
            value_coef=self.value_coef,
            value_rate=self.value_learning_rate,
            whiten=self.whiten_advantages,
        )
        plan = self.plan(len(prompts), steps, job.seed)
        trainer = _ppo_trainer.PpoTrainer(
            policy.model, one_device(config), rules, prompts=prompts, plan=plan, rollouts=rollouts
        )
        return trainer, per_epoch

    def outcome(self, trainer: Any, step: int) -> dict[str, Any]:
        coefficients = [entry["kl_coef"] for entry in trainer.state.log_history if "kl_coef" in entry]
        return super().outcome(trainer, step) | {"kl_coef": coefficients[-1], "target_kl": self.target_kl}
