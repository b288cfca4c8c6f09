"""What the stages share that learn to write given tokens: how rows become the steps of an `AnswerTrainer`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import Field

from harness.methods._gradient import Gradient, Ready, one_device
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rows import Row
    from harness.methods._trainer import AnswerTrainer


@dataclass(frozen=True, slots=True)
class Lesson:
    """The rows to train on and to measure by; `weights` say how often an epoch takes each of the former (None: once),
    `details` what is to be reported of them."""

    rows: Sequence[Row]
    dev: Sequence[Row]
    weights: Sequence[float] | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Imitation(Gradient):
    group_by_length: bool = True
    """Whether rows of like length go into a batch together, which saves padding."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of activations that is dropped in training, wherever the model's architecture can drop some."""

    @abstractmethod
    def lesson(self, job: TrainJob, policy: Policy) -> Lesson:
        """Read the job's rows. Raises DataError."""

    def trainer(self, policy: Policy, config: Any, **told: Any) -> AnswerTrainer:
        """Make the trainer; `told` is what `AnswerTrainer` takes besides."""
        from harness.methods._trainer import AnswerTrainer

        return AnswerTrainer(policy.model, policy.tokenizer, config, **told)

    def load(self, job: TrainJob, dtype: str) -> Policy:
        from harness.methods import _model

        return _model.load(job, self.adapter, dtype, dropout=self.dropout)

    def ready(self, job: TrainJob, policy: Policy, dtype: str) -> Ready:
        from trl import SFTConfig

        from harness.methods import _rows

        lesson = self.lesson(job, policy)
        count = len(lesson.rows) if lesson.weights is None else _rows.epoch_rows(lesson.weights)
        steps, per_epoch = self.steps(count)
        config = SFTConfig(
            **self.arguments(job, policy, steps),
            per_device_train_batch_size=self.batch_size,
            activation_checkpointing=self.gradient_checkpointing,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        trainer = self.trainer(
            policy,
            one_device(config),
            rows=lesson.rows,
            dev=lesson.dev,
            batches=_rows.batches(
                [len(row.ids) for row in lesson.rows],
                self.batch_size,
                steps,
                seed=job.seed,
                group_by_length=self.group_by_length,
                weights=lesson.weights,
            ),
            micro_batch=self.micro_batch or self.batch_size,
            autocast=dtype == "bfloat16",
        )
        return Ready(trainer, per_epoch, lesson.details)

    def outcome(self, trainer: Any, step: int) -> dict[str, Any]:
        found: dict[str, Any] = trainer.tagged(step)
        return found

    def tokens(self, trainer: Any) -> int:
        done = trainer.batches[: trainer.state.global_step]
        return sum(len(trainer.rows[row].ids) for batch in done for row in batch)
