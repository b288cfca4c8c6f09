"""What answers are rewarded with: reward models, metrics of the harness as verifiable rewards, judges, or several of
them, weighted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness import replies
from harness.errors import DataError, ModelError
from harness.methods._sampling import Answer, Prompt
from harness.plugins import Judging, Metric, Session, find
from harness.records import Call, Prediction, Reply, Request, digest, dump
from harness.rows import Answers


class Reward(ABC):
    """One reward. `name` is how the spec calls it."""

    name: str
    required: ClassVar[bool] = False
    """Whether an answer that it gives no reward has none, whatever the others give: where it speaks of every answer."""

    @abstractmethod
    def score(self, answers: Sequence[Answer]) -> list[float]:
        """The reward of each answer, in order; more is better. Not a number where it gives none."""

    def speaks_of(self, prompt: Prompt) -> bool:
        """Whether answers to this prompt get any."""
        return True


class MetricReward(Reward):
    """A metric of the spec: its value of a single answer, negative where less is better."""

    def __init__(self, name: str, metric: Metric) -> None:
        self.name, self.metric = name, metric
        self._sign = _sign(metric)

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


class JudgeReward(Reward):
    """A judge of the spec: the mark that its own model gives an answer by itself, negative where less is better.

    What the model says is kept in the file `kept` as it comes: after a kill only what failed is asked again. The model
    is loaded when there is something to ask. `verdicts` is what came of it, by the request.
    """

    required = True

    def __init__(self, name: str, metric: Judging, kept: Path) -> None:
        self.name, self.metric = name, metric
        self.verdicts: dict[str, Verdict] = {}
        self._sign = _sign(metric)
        self._kept = Answers(kept)
        self._replies = replies.good(one for batch in self._kept.batches for one in batch)
        self._session: Session | None = None

    def score(self, answers: Sequence[Answer]) -> list[float]:
        asked = [self.metric.request(answer.prompt.example, answer.text) for answer in answers]
        ids = [digest(dump(request)) for request in asked]
        self._ask(dict(zip(ids, asked, strict=True)))
        for id, answer in zip(ids, answers, strict=True):
            reply = self._replies[id].calls[0].reply
            self.verdicts[id] = Verdict(answer, reply, self._read(reply, answer))
        marks = [self.verdicts[id].mark for id in ids]
        return [math.nan if isinstance(mark, Exception) else self._sign * mark for mark in marks]

    def _ask(self, requests: dict[str, Request]) -> None:
        found = {id: self._replies[id] for id in requests if id in self._replies}
        if len(found) == len(requests):
            return
        if self._session is None:
            backend = self.metric.backend_plugin
            assert backend is not None, "a judge names its backend_plugin"
            self._session = backend.open()
        replies.ask(self._session, requests, found, self._kept.append)
        self._replies |= found

    def _read(self, reply: Reply, answer: Answer) -> float | Exception:
        mark = self.metric.mark(reply)
        if not isinstance(mark, Exception) and not math.isfinite(mark):
            raise ModelError(f"the judge {self.name} gave {mark!r} for {answer.prompt.id!r}, and a mark is a number")
        return mark

    def must_have_read(self) -> None:
        """Raise ModelError where not one verdict could be read."""
        unread = [verdict for verdict in self.verdicts.values() if isinstance(verdict.mark, Exception)]
        if unread and len(unread) == len(self.verdicts):
            raise ModelError(
                f"{self.name}: none of the {len(unread)} answers was given a verdict that can be read, so there is "
                f"nothing to rank by; the first, to {unread[0].answer.prompt.id!r}: {unread[0].mark}"
            )

    def close(self) -> None:
        self._kept.close()
        if self._session is not None:
            self._session.close()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge's model said of an answer, and the mark that was read from it or why there is none."""

    answer: Answer
    reply: Reply
    mark: float | Exception


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

    @property
    def judges(self) -> tuple[JudgeReward, ...]:
        return tuple(reward for reward in self.rewards if isinstance(reward, JudgeReward))

    def close(self) -> None:
        """Let go of what judges answer with."""
        for judge in self.judges:
            judge.close()

    def score(self, answers: Sequence[Answer]) -> list[float]:
        """The weighted sum for each answer, not a number where a judge's verdict could not be read. A metric that does
        not speak of an example adds nothing there."""
        totals = [0.0] * len(answers)
        for reward, weight in zip(self.rewards, self.weights, strict=True):
            for place, value in enumerate(reward.score(answers)):
                if reward.required or not math.isnan(value):
                    totals[place] += weight * value
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
    verdicts: Path | None = None,
) -> Rewards:
    """Load what the `texts` of a stage stand for by the job's `references`. `tokenizer`, the token `end` that closes
    an answer and the `ends` that may have ended one are the policy's. `verdicts` is the folder where what judges say is
    kept; without it they are refused. Raises ModelError."""
    found: list[Reward] = []
    for text in texts:
        meaning = references[text]
        if "metric" in meaning:
            table = dict(meaning["metric"])
            metric = find("metrics", table.pop("kind")).model_validate(table)
            assert isinstance(metric, Metric)
            reason = metric.no_reward
            if reason is None and isinstance(metric, Judging):
                if verdicts is not None:
                    found.append(JudgeReward(text, metric, verdicts / f"verdicts-{len(found)}.jsonl"))
                    continue
                reason = "its model would be asked about every answer"
            if reason is not None:
                raise ModelError(f"the metric {metric.name!r} cannot be a reward: {reason}")
            found.append(MetricReward(text, metric))
        else:
            from harness.methods import _reward

            scorer = _reward.load(Path(meaning["artifact"]), tokenizer=tokenizer, device=device, dtype=dtype)
            found.append(ModelReward(text, scorer, end, ends))
    return Rewards(found, weights or [1.0] * len(found))


def _sign(metric: Metric) -> float:
    return 1.0 if metric.direction == "higher" else -1.0
