"""Supervised fine-tuning: the model learns to write the given answers after their prompts.

Trained through TRL's SFTTrainer and PEFT. By default only answers and the end of their turn count in the loss; prompts
are the very token ids that the model is asked with. The answers are those of the train split, what a teacher writes in
their place (sequence-level distillation, Kim and Rush 2016, arXiv 1606.07947), or every turn of the assistant in whole
conversations, calls of tools among them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from harness.methods._imitation import Answers
from harness.plugins import Local, Reads, Refers, TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rows import Renderer, Row
    from harness.methods._trainer import AnswerTrainer


class Sft(Answers):
    learns: Literal["examples", "conversations"] = "examples"
    """Which rows: the train split's, or the conversations of `[data] conversations`, at every turn of the assistant."""
    loss: Literal["answer", "all"] = "answer"
    """Whether only what the assistant says is learned, or the whole text, prompts too."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target that is spread over the vocabulary."""
    packing: bool = False
    """Whether rows are laid end to end without padding. The loss stays the same: no row sees another."""
    teacher: Annotated[str, Refers("policy", models=True), Local(or_name=True, or_stage=True)] | None = None
    """Whose answers to the train prompts are learned in place of the given ones: a stage, "base", or the id of a model,
    of whatever vocabulary. They are kept in the artifact, as teacher.jsonl."""
    temperature: float = Field(0.0, ge=0)
    """How the teacher writes: 0 takes the likeliest token each time."""
    max_tokens: int = Field(256, ge=1)
    """How long an answer of the teacher may be; one that does not end is left out."""

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Sft:
        for name in ("temperature", "max_tokens") if self.teacher is None else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` is about the answers of a `teacher`, and none is named")
        if self.learns == "conversations":
            if self.teacher is not None:
                raise ValueError('a teacher answers the prompts of examples: it needs learns = "examples"')
            if self.context == "retrieved":
                raise ValueError('conversations hold what they hold: context = "retrieved" needs learns = "examples"')
        return self

    @property
    def reads(self) -> Reads:
        return self.learns

    @property
    def needs_answers(self) -> bool:
        return super().needs_answers and self.teacher is None

    def row(self, renderer: Renderer, value: dict[str, Any]) -> Row:
        if self.learns == "conversations":
            row = renderer.conversation(value["messages"], value["tools"], value["id"])
        else:
            row = super().row(renderer, value)
        return replace(row, prompt=1, turns=()) if self.loss == "all" else row

    def answered(self, job: TrainJob, policy: Policy, values: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.teacher is None:
            return values
        from harness.methods import _teacher

        return _teacher.answered(
            job, job.references[self.teacher], values, temperature=self.temperature, most=self.max_tokens
        )

    def trainer(self, job: TrainJob, policy: Policy, config: Any, **told: Any) -> AnswerTrainer:
        if self.packing:
            from harness.methods import _trainer

            _trainer.check_packing(policy.model, autocast=told["autocast"])
        return super().trainer(job, policy, config, packing=self.packing, label_smoothing=self.label_smoothing, **told)
