"""Distillation: the student learns a teacher's whole distribution over the next token, on given answers (off-policy),
on its own ones (on-policy), or on both (GKD, Agarwal et al. 2024, arXiv 2306.13649).

Both must have one vocabulary. Without it, `sft` with a `teacher` learns from the texts that the teacher writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.chat import end_tokens, read_template
from harness.errors import DataError, ModelError
from harness.methods._imitation import Answers
from harness.plugins import Local, Refers, TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._trainer import AnswerTrainer


class Student(BaseModel):
    """A smaller model cut out of the one that comes in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(ge=1)
    """How many layers it keeps: evenly spaced, the first and the last among them."""


class Distill(Answers):
    teacher: Annotated[str, Refers("policy", models=True), Local(or_name=True, or_stage=True)]
    """The larger model: the id of one with the same vocabulary, a stage, or "base"."""
    student: Student | None = None
    """What to train instead of the whole incoming model; the artifact is then a whole, smaller model."""
    on_policy: float = Field(0.0, ge=0, le=1)
    """Share of the steps in which the student writes the answers itself and learns what the teacher makes of them."""
    beta: float = Field(0.0, ge=0, le=1)
    """Which divergence falls: 0 is the forward Kullback-Leibler divergence (the student covers all that the teacher may
    say), 1 the reverse one (it keeps to what the teacher holds for likely), between them the generalised
    Jensen-Shannon divergence."""
    temperature: float = Field(1.0, gt=0)
    """What both models' logits are divided by before they are compared: above 1, unlikely tokens count more."""
    max_tokens: int = Field(64, ge=1)
    """How long an answer that the student writes may be; the longest prompt has to leave room for it."""

    @model_validator(mode="after")
    def _a_prompt_is_no_student(self) -> Distill:
        if self.adapter is not None and self.adapter.prompt_learning:
            raise ValueError(
                f"adapter {self.adapter.kind} trains tokens before the text, which distillation cannot compare with a "
                "teacher's. Use one that changes the layers, such as lora"
            )
        return self

    def load(self, job: TrainJob, dtype: str) -> Policy:
        from harness.methods import _model

        def cut(model: Any) -> None:
            if self.student is not None:
                keep_layers(model, self.student.layers)

        reshape = None if self.student is None else cut
        return _model.load(job, self.adapter, dtype, dropout=self.dropout, reshape=reshape)

    def trainer(self, job: TrainJob, policy: Policy, config: Any, **told: Any) -> AnswerTrainer:
        from harness.methods import _distilling, _model, _rows, _sampling

        dtype = "bfloat16" if told["autocast"] else "float32"
        teacher, tokenizer = _model.frozen(job, job.references[self.teacher], dtype)
        same_vocabulary(policy.tokenizer, tokenizer, self.teacher)
        renderer = _rows.Renderer(policy.tokenizer, read_template(job.model.get("chat_template")))
        longest = max(row.prompt for row in told["rows"])
        if self.on_policy and (room := self.limit(policy) - longest) < self.max_tokens:
            raise DataError(
                f"max_tokens = {self.max_tokens}, and beside the longest prompt ({longest} tokens) there is room for "
                f"{room} in {self.limit(policy)}: lower max_tokens, or leave out rows with long prompts"
            )
        sampler = _sampling.Sampler(
            policy.model,
            renderer,
            end_tokens(policy.tokenizer, policy.model.generation_config.eos_token_id) | {renderer.end},
            temperature=1.0,
            most=self.max_tokens,
            autocast=told["autocast"],
        )
        return _distilling.DistillTrainer(
            policy.model,
            policy.tokenizer,
            config,
            teacher=teacher,
            sampler=sampler,
            on_policy=self.on_policy,
            beta=self.beta,
            temperature=self.temperature,
            **told,
        )

    def outcome(self, trainer: Any, step: int) -> dict[str, Any]:
        return {**super().outcome(trainer, step), "on_policy_steps": trainer.on_policy_steps(trainer.state.global_step)}


def same_vocabulary(student: Any, teacher: Any, name: str) -> None:
    """Raise ModelError where the tokens of the two tokenizers are not the same."""
    one, other = student.get_vocab(), teacher.get_vocab()
    if one == other:
        return
    odd = sorted(set(one.items()) ^ set(other.items()), key=lambda item: (item[1], item[0]))[0]
    raise ModelError(
        f"teacher {name!r} has another vocabulary than the student ({len(other):,} tokens, not {len(one):,}; the first "
        f"that differs is {odd[0]!r}, number {odd[1]}): distillation compares the two token by token. Use a teacher of "
        'the same family, or learn from its answers: kind = "sft" with `teacher`.'
    )


def kept_layers(count: int, of: int) -> list[int]:
    """Which of `of` layers a student of `count` keeps: evenly spaced, the first and the last among them (DistilBERT,
    Sanh et al. 2019, arXiv 1910.01108, takes every second one)."""
    return [round(place * (of - 1) / max(1, count - 1)) for place in range(count)]


def keep_layers(model: Any, count: int) -> None:
    """Leave `count` layers of the decoder `model`. Raises ModelError where it has fewer, or none that can be found."""
    from torch import nn

    config = model.config.get_text_config()
    of = config.num_hidden_layers
    if count >= of:
        raise ModelError(f"student: the model has {of} layers, so a smaller one has at most {of - 1}, not {count}")
    stacks = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    found = [(name, part) for name, part in stacks if len(part) == of]
    if len(found) != 1:
        raise ModelError(f"student: it cannot be told which part of a {config.model_type!r} model are its {of} layers")
    name, layers = found[0]
    kept = kept_layers(count, of)
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, nn.ModuleList([layers[place] for place in kept]))
    for place, number in enumerate(kept):
        parts: list[Any] = [part for part in layers[number].modules() if hasattr(part, "layer_idx")]
        for part in parts:
            part.layer_idx = place  # Where its keys and values lie in a cache.
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[place] for place in kept]
