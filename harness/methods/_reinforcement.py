"""What all stages that learn from rewards share: the settings, and the way from prompts and rewards to a trainer."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from harness.chat import end_tokens, read_template
from harness.devices import pick_device
from harness.errors import DataError
from harness.methods._gradient import Gradient, Ready
from harness.methods._rewarded import Rewarded
from harness.plugins import Reads, TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rollouts import Rollouts
    from harness.methods._sampling import Prompt


class Reinforcement(Rewarded, Gradient):
    """A stage that samples answers to prompts and raises their reward, near a reference: the policy as the stage
    received it. Dropout is off: the policy that is trained has to be the one that answered."""

    prompts: Literal["train", "preferences"] = "train"
    """Whose prompts are answered: those of the train split, or of the preferences."""
    epochs: float = Field(1.0, gt=0)
    """How often the prompts are gone through."""
    temperature: float = Field(1.0, gt=0)
    """What answers are sampled at; the policy that is trained is the one at this temperature."""
    max_tokens: int = Field(64, ge=1)
    """Tokens of an answer, after which it is cut."""
    missing_end_penalty: float = Field(0.0, ge=0)
    """What is taken off the reward of an answer that was cut."""
    dev_prompts: int = Field(64, ge=1)
    """How many of the dev prompts, the first ones, are answered at each evaluation."""
    keep_best: bool = True
    """Whether the weights with the highest mean reward on dev are kept, rather than the last."""

    @property
    def reads(self) -> Reads:
        return "preferences" if self.prompts == "preferences" else "examples"

    # ---------------------------------------------------------------------------------------------------- the trainer

    @abstractmethod
    def trainer(
        self, job: TrainJob, policy: Policy, dtype: str, prompts: list[Prompt], dev: list[Prompt], rollouts: Rollouts
    ) -> tuple[Any, int]:
        """The trainer, and how many of its steps go once through the prompts."""

    def ready(self, job: TrainJob, policy: Policy, dtype: str) -> Ready:
        from harness.methods import _likelihood, _rewards, _rollouts, _rows, _sampling

        device = pick_device(job.model.get("device", "auto"))
        model = policy.model.to(device)
        _likelihood.without_dropout(model)
        renderer = _rows.Renderer(policy.tokenizer, read_template(job.model.get("chat_template")))
        ends = end_tokens(policy.tokenizer, model.generation_config.eos_token_id) | {renderer.end}
        rewards = _rewards.load(
            self.rewards, self.reward_weights, job.references,
            tokenizer=policy.tokenizer, end=renderer.end, ends=ends, device=device, dtype=dtype,
        )  # fmt: skip
        most = self.limit(policy) - self.max_tokens
        if most < 1:
            raise DataError(
                f"max_tokens is {self.max_tokens}, and prompt and answer together have {self.limit(policy)} tokens at "
                "most, so no prompt has room. Lower max_tokens."
            )
        read, counts = _sampling.read(job.train, renderer, most)
        prompts = rewards.rewarded(read, job.train)
        details: dict[str, Any] = counts | {"prompts_without_reward": len(read) - len(prompts)}
        dev: list[Prompt] = []
        if job.dev is not None:
            read, _ = _sampling.read(job.dev, renderer, most)
            dev = rewards.rewarded(read, job.dev)[: self.dev_prompts]
            details |= {"dev_prompts": len(dev), "dev_answers": f"sampled at temperature {self.temperature:g}"}
        settings: dict[str, Any] = {"temperature": self.temperature, "autocast": dtype == "bfloat16"}
        rollouts = _rollouts.Rollouts(
            sampler=_sampling.Sampler(model, renderer, ends, most=self.max_tokens, **settings),
            likelihood=_likelihood.Likelihood(model, **settings),
            reference=_likelihood.Reference(model, fresh=self.adapter is not None),
            rewards=rewards,
            missing_end=self.missing_end_penalty,
        )
        trainer, per_epoch = self.trainer(job, policy, dtype, prompts, dev, rollouts)
        trainer.roll_with(rollouts, dev)
        return Ready(trainer, per_epoch, details)

    def _best(self, job: TrainJob) -> dict[str, Any]:
        if job.dev is None or self.metric is not None:
            return super()._best(job)
        return {"metric_for_best_model": "reward", "greater_is_better": True}

    def outcome(self, trainer: Any, step: int) -> dict[str, Any]:
        """Mean reward, tokens of an answer and share of answers that ended, on dev before and after, and the divergence
        after, in nats an answer; nothing where there is no dev."""
        if not trainer.dev:
            return {}
        found = {}
        for name in ("reward", "answer_tokens", "ended"):
            for when, at in (("before", 0), ("after", step)):
                found[f"{name}_{when}"] = trainer.dev_figure(at, f"eval_{name}")
        return found | {"kl": trainer.dev_figure(step, "eval_kl")}

    @property
    @abstractmethod
    def per_round(self) -> tuple[int, int]:
        """How many prompts are answered together, and how many steps are taken on their answers."""

    def steps(self, rows: int) -> tuple[int, int]:
        size, each = self.per_round
        rounds = math.ceil(rows / size)
        steps = math.ceil(self.epochs * rounds) * each
        return (steps if self.max_steps is None else min(steps, self.max_steps)), rounds * each

    def plan(self, prompts: int, steps: int, seed: int) -> list[tuple[int, ...]]:
        """Which prompts are answered in each round of a training of so many steps."""
        from harness.methods import _sampling

        size, each = self.per_round
        return _sampling.plan(prompts, size, math.ceil(steps / each), seed)
