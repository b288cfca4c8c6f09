"""Group relative policy optimisation: answers to one prompt are compared with each other (GRPO, arXiv 2402.03300).

Trained through TRL's GRPOTrainer. An answer's advantage is its reward less the mean of its group's, divided by the
group's standard deviation; each token's clipped objective is that of PPO, less `beta` times an estimate of the
divergence from the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from harness.methods._group_settings import Groups
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rollouts import Rollouts
    from harness.methods._sampling import Prompt


class Grpo(Groups):
    loss: Literal["dapo", "grpo", "dr_grpo"] = "dapo"
    """How tokens are weighed: alike in the whole batch ("dapo", arXiv 2503.14476), alike within each answer ("grpo"),
    or by the largest length that an answer may have ("dr_grpo", arXiv 2503.20783)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the standard deviation of the group's rewards, of the batch's, or nothing."""

    def trainer(
        self, job: TrainJob, policy: Policy, dtype: str, prompts: list[Prompt], dev: list[Prompt], rollouts: Rollouts
    ) -> tuple[Any, int]:
        from trl import GRPOConfig

        from harness.methods._groups import GroupTrainer

        settings = {"loss_type": self.loss, "scale_rewards": self.scale_rewards}
        return self.arrange(GRPOConfig, GroupTrainer, job, policy, dtype, prompts, rollouts, settings)
