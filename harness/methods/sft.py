"""Supervised fine-tuning: the model learns to write the given answers after their prompts.

Trained through TRL's SFTTrainer and PEFT. Only answers and the end of their turn count in the loss; prompts are the
very token ids that the model is asked with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from harness.chat import read_template
from harness.methods._gradient import Gradient, Ready, one_device
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rows import Row


class Sft(Gradient):
    own_loss: ClassVar[bool] = True
    trains_output: ClassVar[bool] = True

    group_by_length: bool = True
    """Whether rows of like length go into a batch together, which saves padding."""

    def ready(self, job: TrainJob, policy: Policy, dtype: str) -> Ready:
        from trl import SFTConfig

        from harness.methods import _rows, _trainer

        rows, dev, counts = self._read(job, policy)
        steps, per_epoch = self.steps(len(rows))
        config = SFTConfig(
            **self.arguments(job, policy, steps),
            per_device_train_batch_size=self.batch_size,
            activation_checkpointing=self.gradient_checkpointing,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        lengths = [len(row.ids) for row in rows]
        trainer = _trainer.AnswerTrainer(
            policy.model,
            policy.tokenizer,
            one_device(config),
            rows=rows,
            dev=dev,
            batches=_rows.batches(lengths, self.batch_size, steps, seed=job.seed, group_by_length=self.group_by_length),
            micro_batch=self.micro_batch or self.batch_size,
            autocast=dtype == "bfloat16",
        )
        return Ready(trainer, per_epoch, counts)

    def tokens(self, trainer: Any) -> int:
        done = trainer.batches[: trainer.state.global_step]
        return sum(len(trainer.rows[row].ids) for batch in done for row in batch)

    def _read(self, job: TrainJob, policy: Policy) -> tuple[Sequence[Row], Sequence[Row], dict[str, int]]:
        from harness.methods import _rows

        renderer = _rows.Renderer(policy.tokenizer, read_template(job.model.get("chat_template")))
        limit = self.limit(policy)
        rows, tally = _rows.read(job.train, renderer, limit)
        counts = tally.named("train")
        dev: list[Row] = []
        if job.dev is not None:
            dev, tally = _rows.read(job.dev, renderer, limit)
            counts |= tally.named("dev")
        return rows, dev, counts
