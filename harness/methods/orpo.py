"""Odds ratio preference optimization: the better answers are imitated while their odds are raised over the worse ones',
without a reference (Hong et al. 2024, arXiv 2403.07691).

Trained through TRL's ORPOTrainer. It can follow no other stage at all: imitation is a part of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from harness.methods._gradient import Ready, one_device
from harness.methods._preferences import Preferring, pairs
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy


class Orpo(Preferring):
    rate_scale: ClassVar[float] = 0.4
    """With it the whole model gets 8e-6, the paper's value, and LoRA 8e-5."""

    beta: float = Field(0.1, gt=0)
    """What the odds ratio counts beside the likelihood of the better answer: the paper's lambda."""

    def ready(self, job: TrainJob, policy: Policy, dtype: str) -> Ready:
        from harness.methods._unreferenced import OddsTrainer

        read = self.read(job, policy, pairs)
        steps, per_epoch = self.steps(len(read.train))
        config = OddsTrainer.configuration(
            **self.arguments(job, policy, steps), beta=self.beta, max_length=self.limit(policy)
        )
        trainer = OddsTrainer(policy.model, policy.tokenizer, one_device(config))
        trainer.plan(read.train, [read.dev] if read.dev else [], **self.plan(read.train, steps, job, dtype))
        return Ready(trainer, per_epoch, read.details)
