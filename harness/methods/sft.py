"""Supervised fine-tuning: the model learns to write the given answers after their prompts.

Trained through TRL's SFTTrainer and PEFT. Only answers and the end of their turn count in the loss; prompts are the
very token ids that the model is asked with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.chat import read_template
from harness.methods._imitation import Imitation, Lesson
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rows import Row


class Sft(Imitation):
    def lesson(self, job: TrainJob, policy: Policy) -> Lesson:
        from harness.methods import _rows

        renderer = _rows.Renderer(policy.tokenizer, read_template(job.model.get("chat_template")))
        limit = self.limit(policy)
        rows, tally = _rows.read(job.train, renderer, limit)
        counts = tally.named("train")
        dev: list[Row] = []
        if job.dev is not None:
            dev, tally = _rows.read(job.dev, renderer, limit)
            counts |= tally.named("dev")
        return Lesson(rows, dev, details=counts)
