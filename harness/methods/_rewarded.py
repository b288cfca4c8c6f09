"""The settings of every stage that rewards answers: what by, and how much each of several rewards counts."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import model_validator

from harness.plugins import Local, Method, Refers

Named = Annotated[str, Refers("reward"), Local(or_name=True, or_stage=True)]


class Rewarded(Method):
    reward: Named | tuple[Named, ...]
    """What rewards an answer: a stage `reward` (its name, or "variant.name"), a folder with a reward model,
    "metric:NAME" for a metric of the spec (one whose lower values are better counts negative), or several of these."""
    reward_weights: tuple[float, ...] | None = None
    """What each reward is multiplied by before they are added up; by default 1."""

    @model_validator(mode="after")
    def _each_reward_has_a_weight(self) -> Self:
        if not self.rewards:
            raise ValueError('name at least one reward: a stage, a folder, or "metric:NAME"')
        if self.reward_weights is not None and len(self.reward_weights) != len(self.rewards):
            raise ValueError(f"{len(self.rewards)} rewards and {len(self.reward_weights)} reward_weights: one each")
        return self

    @property
    def needs_answers(self) -> bool:
        return False

    @property
    def rewards(self) -> tuple[str, ...]:
        return (self.reward,) if isinstance(self.reward, str) else self.reward
