"""REINFORCE with a leave-one-out baseline: an answer's advantage is its reward less the mean reward of the other
answers to its prompt (RLOO, arXiv 2402.14740).

Trained through TRL's RLOOTrainer. The reward is lessened by `beta` times the log ratio of policy to reference, summed
over the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from harness.methods._group_settings import Groups
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rollouts import Rollouts
    from harness.methods._sampling import Prompt


class Rloo(Groups):
    num_generations: int = Field(4, ge=2)
    """Answers to each prompt."""
    beta: float = Field(0.05, ge=0)
    """Weight of the divergence from the reference."""
    normalize_advantages: bool = False
    """Whether advantages are brought to a mean of zero and a standard deviation of one over the batch."""

    def trainer(
        self, job: TrainJob, policy: Policy, dtype: str, prompts: list[Prompt], dev: list[Prompt], rollouts: Rollouts
    ) -> tuple[Any, int]:
        from trl import RLOOConfig

        from harness.methods._groups import LeaveOneOutTrainer

        settings = {"normalize_advantages": self.normalize_advantages}
        return self.arrange(RLOOConfig, LeaveOneOutTrainer, job, policy, dtype, prompts, rollouts, settings)
