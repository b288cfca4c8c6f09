"""A reward model: it learns from pairs to give the better answer the higher number (Bradley and Terry 1952; Ouyang et
al. 2022, arXiv 2203.02155, equation 1).

The loss of a pair is -log sigmoid(reward of the better answer - reward of the worse one). Trained through TRL's
RewardTrainer, from the policy that the stage receives: its layers, with a value head in place of the output layer. A
ranked list counts as all its pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from harness.chat import read_template
from harness.methods import _rows
from harness.methods._gradient import Ready, one_device
from harness.methods._preferences import Pair, Preferring, Tally, pairs
from harness.plugins import Adapter, Makes, TrainJob

if TYPE_CHECKING:
    from harness.methods._marking import Marking
    from harness.methods._model import Policy


class Reward(Preferring):
    makes: ClassVar[Makes] = "reward"
    rate_scale: ClassVar[float] = 1.0
    names: ClassVar[Mapping[str, str]] = {"dev_accuracy": "eval_accuracy", "dev_margin": "eval_margin"}

    centre: float = Field(0.0, ge=0)
    """What the mean of the squared sum of a pair's rewards counts beside the loss; it holds rewards around zero, which
    the loss alone leaves open (0.01 in arXiv 2312.09244)."""
    max_length: int | None = Field(None, ge=2)
    """Tokens of prompt and answer together, above which a pair is left out; None is the model's context. An answer
    that is cut would be marked for what is not there."""

    @field_validator("adapter")
    @classmethod
    def _part_of_the_layers(cls, value: Adapter | None) -> Adapter | None:
        if value is not None and not value.merges:
            raise ValueError(
                f"the adapter {value.kind} cannot be merged into the model's layers, of which a reward model is made: "
                "take one that can, such as lora, or full"
            )
        return value

    def load(self, job: TrainJob, dtype: str) -> Marking:
        from harness.methods import _marking

        return _marking.marking(super().load(job, dtype))

    def ready(self, job: TrainJob, policy: Policy, dtype: str) -> Ready:
        from trl import RewardConfig

        from harness.methods import _marking

        assert isinstance(policy, _marking.Marking)
        read = self.read(job, policy, _uncut)
        steps, per_epoch = self.steps(len(read.train))
        config = RewardConfig(
            **self.arguments(job, policy, steps), center_rewards_coefficient=self.centre or None, max_length=None
        )
        trainer = _marking.MarkTrainer(policy.marker, policy.tokenizer, one_device(config))
        trainer.plan(read.train, [read.dev] if read.dev else [], **self.plan(read.train, steps, job, dtype))
        return Ready(trainer, per_epoch, read.details | {"dev_pairs": len(read.dev)})

    def save(self, job: TrainJob, policy: Policy, dtype: str) -> None:
        from harness.methods import _marking

        assert isinstance(policy, _marking.Marking)
        template = _rows.Renderer(policy.tokenizer, read_template(job.model.get("chat_template"))).template
        policy.tokenizer.chat_template = template  # What it was trained with goes along.
        _marking.save(policy, job.out, dtype)


def _uncut(file: Path, renderer: _rows.Renderer, limit: int) -> tuple[list[Pair], Tally]:
    return pairs(file, renderer, limit, cut=False)
