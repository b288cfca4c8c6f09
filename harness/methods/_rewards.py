"""What answers are rewarded with: reward models, metrics of the harness as verifiable rewards, or both, weighted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import DataError, ModelError
from harness.methods._sampling import Answer, Prompt
from harness.plugins import Metric, find
from harness.records import Call, Prediction, Reply


class Reward(ABC):
    """One reward. `name` is how the spec calls it."""

    name: str

    @abstractmethod
    def score(self, answers: Sequence[Answer]) -> list[float]:
        """The reward of each answer, in order; more is better."""

    def speaks_of(self, prompt: Prompt) -> bool:
        """Whether answers to this prompt get any."""
        return True


class MetricReward(Reward):
    """A metric of the spec: its value of a single answer, negative where less is better."""

    def __init__(self, name: str, metric: Metric) -> None:
        self.name, self.metric = name, metric
        self._sign = 1.0 if metric.direction == "higher" else -1.0

    def score(self, answers: Sequence[Answer]) -> list[float]:
        return [self._sign * self._measure(answer.prompt, answer.text, len(answer.ids)) for answer in answers]

    def speaks_of(self, prompt: Prompt) -> bool:
        return not math.isnan(self._measure(prompt, "", 0))

    def _measure(self, prompt: Prompt, text: str, tokens: int) -> float:
        """Not a number where the metric does not speak of the example, whatever the answer is."""
        reply = Reply(texts=(text,), input_tokens=len(prompt.ids), output_tokens=tokens)
        answered = Prediction(id=prompt.id, text=text, calls=(Call(messages=prompt.messages, reply=reply),))
        try:
            value = self.metric.measure(prompt.example, answered)
        except Exception as error:  # a plug-in's own fault, which its author has to hear of
            raise ModelError(
                f"the reward {self.name} failed on {prompt.id!r}, answered {text[:80]!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if value is None:
            return math.nan
        if isinstance(value, tuple) or not math.isfinite(value):
            raise ModelError(f"the reward {self.name} gave {value!r} for {prompt.id!r}, and a reward is one number")
        return float(value)


class ModelReward(Reward):
    """A reward model: the value that it reads at the end of an answer. An answer that was cut is scored as though it
    ended there: reward models have only seen answers that end."""

    def __init__(self, name: str, scorer: Any, end: int, ends: frozenset[int]) -> None:
        self.name, self._scorer, self._end, self._ends = name, scorer, end, ends

    def score(self, answers: Sequence[Answer]) -> list[float]:
        rows = []
        for answer in answers:
            ids = answer.ids[:-1] if answer.ended else answer.ids
            rows.append((*answer.prompt.ids, *ids, self._end))
        values: list[float] = self._scorer.score(rows)
        for answer, value in zip(answers, values, strict=True):
            if not math.isfinite(value):
                raise ModelError(f"the reward model {self.name} gave {value} for {answer.prompt.id!r}")
        return values


class Rewards:
    """Rewards added up, each with its weight."""

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float]) -> None:
        self.rewards, self.weights = tuple(rewards), tuple(weights)

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """The weighted sum for each answer. A metric that does not speak of an example adds nothing there."""
        totals = [0.0] * len(answers)
        for reward, weight in zip(self.rewards, self.weights, strict=True):
            for place, value in enumerate(reward.score(answers)):
                totals[place] += 0.0 if math.isnan(value) else weight * value
        return totals

    def rewarded(self, prompts: Sequence[Prompt], file: Path) -> list[Prompt]:
        """The prompts that some reward speaks of. Raises DataError where one of the rewards speaks of none."""
        spoken = [[reward.speaks_of(prompt) for prompt in prompts] for reward in self.rewards]
        for reward, each in zip(self.rewards, spoken, strict=True):
            if not any(each):
                raise DataError(
                    f"{file}: the reward {reward.name} speaks of none of the {len(prompts)} prompts. Metrics that "
                    'compare with accepted answers need prompts = "train" and examples that have some; preferences '
                    "have none."
                )
        return [prompt for prompt, *said in zip(prompts, *spoken, strict=True) if any(said)]


def load(
    texts: Sequence[str],
    weights: Sequence[float] | None,
    references: Mapping[str, Mapping[str, Any]],
    *,
    tokenizer: Any,
    end: int,
    ends: frozenset[int],
    device: str,
    dtype: str,
) -> Rewards:
    """Load what the `texts` of a stage stand for by the job's `references`. `tokenizer`, the token `end` that closes
    an answer and the `ends` that may have ended one are the policy's. Raises ModelError."""
    found: list[Reward] = []
    for text in texts:
        meaning = references[text]
        if "metric" in meaning:
            table = dict(meaning["metric"])
            metric = find("metrics", table.pop("kind")).model_validate(table)
            assert isinstance(metric, Metric)
            if metric.no_reward is not None:
                raise ModelError(f"the metric {metric.name!r} cannot be a reward: {metric.no_reward}")
            found.append(MetricReward(text, metric))
        else:
            from harness.methods import _reward

            scorer = _reward.load(Path(meaning["artifact"]), tokenizer=tokenizer, device=device, dtype=dtype)
            found.append(ModelReward(text, scorer, end, ends))
    return Rewards(found, weights or [1.0] * len(found))
