"""What the stages share that sample a group of answers to each prompt and compare them with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from harness.methods._gradient import one_device
from harness.methods._reinforcement import Reinforcement
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rollouts import Rollouts
    from harness.methods._sampling import Prompt


class Groups(Reinforcement):
    rate_scale = 0.05

    batch_size: int = Field(32, ge=2)
    """Answers whose gradient makes one step: those to batch_size / num_generations prompts."""
    micro_batch: int | None = Field(8, ge=1)
    """Answers that are computed at once at most; less needs less memory and changes a step by rounding only."""
    num_generations: int = Field(8, ge=2)
    """Answers to each prompt."""
    beta: float = Field(0.04, ge=0)
    """Weight of the divergence from the reference."""
    num_iterations: int = Field(1, ge=1)
    """Steps that are taken on the same answers."""
    clip_range: float = Field(0.2, gt=0)
    """How far the ratio of new to old probability may be from 1 before it brings nothing more."""

    def passes(self, rows: int) -> float:
        """Each answer is written once and learned from `num_iterations` times."""
        return super().passes(rows) * self.num_generations * (1 + self.num_iterations)

    @property
    def per_round(self) -> tuple[int, int]:
        return self.batch_size // self.num_generations, self.num_iterations

    @model_validator(mode="after")
    def _groups_fill_a_batch(self) -> Self:
        if self.batch_size % self.num_generations:
            raise ValueError(
                f"batch_size ({self.batch_size}) counts answers and must be a multiple of num_generations "
                f"({self.num_generations}): a step compares whole groups"
            )
        return self

    def arrange(
        self, config_class: Any, trainer_class: Any, job: TrainJob, policy: Policy, dtype: str,
        prompts: list[Prompt], rollouts: Rollouts, settings: dict[str, Any],
    ) -> tuple[Any, int]:  # fmt: skip
        """Make TRL's trainer of this class, its configuration with `settings`."""
        steps, per_epoch = self.steps(len(prompts))
        part = max(count for count in range(1, self.rows_at_once + 1) if self.batch_size % count == 0)
        config = config_class(
            **self.arguments(job, policy, steps),
            per_device_train_batch_size=part,
            gradient_accumulation_steps=self.batch_size // part,
            activation_checkpointing=self.gradient_checkpointing,
            num_generations=self.num_generations,
            num_iterations=self.num_iterations,
            max_completion_length=self.max_tokens,
            temperature=self.temperature,
            epsilon=self.clip_range,
            beta=0.0,
            remove_unused_columns=False,
            **settings,
        )
        trainer = trainer_class(
            policy.model,
            policy.tokenizer,
            one_device(config),
            prompts=prompts,
            plan=self.plan(len(prompts), steps, job.seed),
            beta=self.beta,
            rollouts=rollouts,
            autocast=dtype == "bfloat16",
        )
        return trainer, per_epoch
