"""What the stages share that learn to write given tokens: how rows become the steps of an `AnswerTrainer`."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from harness.chat import read_template
from harness.errors import DataError, did_you_mean
from harness.methods._gradient import Gradient, Ready, one_device
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rows import Renderer, Row, Tally
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
    own_loss: ClassVar[bool] = True

    group_by_length: bool = True
    """Whether rows of like length go into a batch together, which saves padding."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of activations that is dropped in training, wherever the model's architecture can drop some."""

    @abstractmethod
    def lesson(self, job: TrainJob, policy: Policy) -> Lesson:
        """Read the job's rows. Raises DataError."""

    def trainer(self, job: TrainJob, policy: Policy, config: Any, **told: Any) -> AnswerTrainer:
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
            job,
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


class Answers(Imitation):
    """Learns answers to the prompts of the train split, some of them, or some tasks more often than others."""

    examples: int | None = Field(None, ge=1)
    """Few-shot fine-tuning: how many rows of the train split are used, drawn by the seed; None is all of them. Every
    stage with the same number and seed gets the same ones."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """How often an epoch takes the rows of a tag, such as `{ triage = 2.0 }`; those of other tags are taken once. Where
    a row has several of the tags, their weights are multiplied."""

    def unfit(self, tags: Sequence[Sequence[str]]) -> str | None:
        if self.examples is not None and self.examples > len(tags):
            return f"examples = {self.examples}, and the train split has {len(tags)} rows"
        there = {tag for each in tags for tag in each}
        for tag in self.weights:
            if tag not in there:
                return f"weights: no row of the train split has the tag {tag!r}.{did_you_mean(tag, there)}"
        return None

    def uses(self, rows: int) -> int:
        return rows if self.examples is None else min(rows, self.examples)

    def row(self, renderer: Renderer, value: dict[str, Any]) -> Row:
        """What is learned from one row of the job's file."""
        if value["completion"] is None:
            raise DataError(f"row {value['id']!r} has no target, so there is no answer to learn")
        return renderer.row(value["messages"], value["completion"])

    def answered(self, job: TrainJob, policy: Policy, values: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows to train on, with the answers to learn."""
        return values

    def lesson(self, job: TrainJob, policy: Policy) -> Lesson:
        from harness.methods import _rows

        renderer = _rows.Renderer(policy.tokenizer, read_template(job.model.get("chat_template")))
        values = self.answered(job, policy, self._drawn(_rows.values(job.train), job))
        rows, tally = self._within(job.train, renderer, values, policy)
        details: dict[str, Any] = tally.named("train")
        dev: list[Row] = []
        if job.dev is not None:
            dev, tally = self._within(job.dev, renderer, _rows.values(job.dev), policy)
            details |= tally.named("dev")
        return Lesson(rows, dev, self._weights(rows), details)

    def _within(
        self, file: Path, renderer: Renderer, values: Sequence[dict[str, Any]], policy: Policy
    ) -> tuple[list[Row], Tally]:
        from harness.methods import _rows

        made = [
            replace(self.row(renderer, value), tags=tuple(value.get("example", {}).get("tags", ()))) for value in values
        ]
        return _rows.within(made, self.limit(policy), str(file))

    def _drawn(self, values: list[dict[str, Any]], job: TrainJob) -> list[dict[str, Any]]:
        if self.examples is None:
            return values
        if self.examples > len(values):
            raise DataError(f"examples = {self.examples}, and there are {len(values)} rows to train on")
        order = sorted(values, key=lambda value: hashlib.sha256(f"{job.seed} {value['id']}".encode()).digest())
        kept = {value["id"] for value in order[: self.examples]}
        return [value for value in values if value["id"] in kept]

    def _weights(self, rows: Sequence[Row]) -> list[float] | None:
        if not self.weights:
            return None
        there = {tag for row in rows for tag in row.tags}
        for tag in self.weights:
            if tag not in there:
                raise DataError(f"weights: of the {len(rows)} rows that are trained on none has the tag {tag!r}")
        return [math.prod(self.weights.get(tag, 1.0) for tag in row.tags) for row in rows]
