"""Simple preference optimization: the mean log-probability of a better answer's tokens is raised over that of a worse
one by a margin, without a reference (Meng et al. 2024, arXiv 2405.14734).

Trained through TRL's CPOTrainer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from harness.methods._gradient import Ready, one_device
from harness.methods._preferences import Preferring, pairs
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy


class Simpo(Preferring):
    beta: float = Field(2.0, gt=0)
    """What a difference of mean log-probabilities counts; the paper's best values are 2 to 10."""
    gamma: float = Field(1.0, ge=0)
    """The margin that is wanted between the two, beta included; the paper's best values are 0.3 to 0.8 of beta."""

    def ready(self, job: TrainJob, policy: Policy, dtype: str) -> Ready:
        from harness.methods._unreferenced import MarginTrainer

        read = self.read(job, policy, pairs)
        steps, per_epoch = self.steps(len(read.train))
        config = MarginTrainer.configuration(
            **self.arguments(job, policy, steps),
            loss_type="simpo",
            cpo_alpha=0.0,
            beta=self.beta,
            simpo_gamma=self.gamma,
            max_length=self.limit(policy),
        )
        trainer = MarginTrainer(policy.model, policy.tokenizer, one_device(config))
        trainer.plan(read.train, [read.dev] if read.dev else [], **self.plan(read.train, steps, job, dtype))
        return Ready(trainer, per_epoch, read.details)
