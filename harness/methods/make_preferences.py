"""Preferences from a model's own answers: several are sampled to each prompt of the train split and ranked by a reward.

What it leaves is data for the stages that learn from preferences (as in RLAIF, Lee et al. 2023, arXiv 2309.00267, where
a model ranks; a metric of the harness may do so here too). Prompts come from the train and dev splits alone.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness import extras
from harness.chat import context_length, end_tokens, read_template
from harness.devices import pick_device, pick_dtype
from harness.errors import DataError
from harness.methods._rewarded import Rewarded
from harness.plugins import Makes, Trained, TrainJob

if TYPE_CHECKING:
    from harness.methods._rewards import Rewards
    from harness.methods._sampling import Prompt, Sampler

AT_ONCE = 16
"""Prompts whose answers are kept together."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The answers to one prompt, each text once, the best first, with their rewards; of equal ones as they came.
    `tokens` are those of all answers as they were sampled, and `ended` counts those that were not cut."""

    prompt: Prompt
    answers: tuple[tuple[str, float], ...]
    tokens: int
    ended: int


class MakePreferences(Rewarded):
    makes: ClassVar[Makes] = "preferences"

    answers: int = Field(4, ge=2)
    """How many answers are sampled to each prompt."""
    pairs: Literal["ends", "all"] = "ends"
    """Which pairs of them are kept: the best against the worst, or every better one against every worse one."""
    margin: float = Field(0.0, ge=0)
    """By how much more, at least, the better answer of a pair is rewarded; with 0, by any more."""
    temperature: float = Field(1.0, gt=0)
    """What answers are sampled at: lower, and they are more alike."""
    max_tokens: int = Field(64, ge=1)
    """Tokens of an answer, after which it is cut."""

    def passes(self, rows: int) -> float:
        return float(self.answers)

    def fit(self, job: TrainJob, progress: Callable[[int, int, Mapping[str, float]], None]) -> Trained:
        with extras.needed("train"):
            from harness.methods import _model, _rewards, _rows, _sampling

        device = pick_device(job.model.get("device", "auto"))
        dtype = pick_dtype(job.model.get("dtype", "auto"), job.model.get("device", "auto"))
        dtype = "bfloat16" if dtype == "bfloat16" else "float32"
        incoming = {} if job.incoming is None else {"artifact": str(job.incoming)}
        with _model.quiet():
            model, tokenizer = _model.frozen(job, incoming, dtype)
        model.to(device)
        renderer = _rows.Renderer(tokenizer, read_template(job.model.get("chat_template")))
        ends = end_tokens(tokenizer, model.generation_config.eos_token_id) | {renderer.end}
        rewards = _rewards.load(
            self.rewards,
            self.reward_weights,
            job.references,
            tokenizer=tokenizer,
            end=renderer.end,
            ends=ends,
            device=device,
            dtype=dtype,
        )
        sampler = _sampling.Sampler(
            model, renderer, ends, temperature=self.temperature, most=self.max_tokens, autocast=False
        )
        most = context_length(model.config, tokenizer) - self.max_tokens
        sources = {"train": job.train} | ({"dev": job.dev} if job.dev is not None else {})
        prompts = {}
        for split, file in sources.items():
            read, _ = _sampling.read(file, renderer, most)
            prompts[split] = rewards.rewarded(read, file)
        total = sum(map(len, prompts.values()))
        made: dict[str, list[Ranked]] = {}
        for split, asked in prompts.items():
            before = sum(map(len, made.values()))
            made[split] = []
            for part in self._ranked(asked, sampler, rewards, job, job.work / f"answers-{split}.jsonl"):
                made[split] += part
                progress(before + len(made[split]), total, {"reward": _mean(part)})
        return self._leave(made, job.out)

    def _ranked(
        self, prompts: Sequence[Prompt], sampler: Sampler, rewards: Rewards, job: TrainJob, kept: Path
    ) -> Iterator[list[Ranked]]:
        """Sample and rank the answers to `prompts`, part by part. Each part is kept in a file, a line a part, so that
        what a killed process had is not sampled again."""
        import torch

        lines = kept.read_text(encoding="utf-8").splitlines(keepends=True) if kept.is_file() else []
        lines = [line for line in lines if line.endswith("\n")]  # A killed process may have left half a line.
        kept.write_text("".join(lines), encoding="utf-8")
        for number, start in enumerate(range(0, len(prompts), AT_ONCE)):
            part = prompts[start : start + AT_ONCE]
            if number == len(lines):
                with torch.random.fork_rng():
                    torch.manual_seed(random.Random(f"{job.seed} {kept.name} {number}").getrandbits(63))
                    answers = sampler.answer([prompt for prompt in part for _ in range(self.answers)])
                said = [
                    {"text": answer.text, "reward": reward, "tokens": len(answer.ids), "ended": answer.ended}
                    for answer, reward in zip(answers, rewards.score(answers), strict=True)
                ]
                lines.append(json.dumps(said, ensure_ascii=False) + "\n")
                with kept.open("a", encoding="utf-8") as file:
                    file.write(lines[-1])
            said = json.loads(lines[number])
            yield [
                _sorted(prompt, said[place * self.answers : (place + 1) * self.answers])
                for place, prompt in enumerate(part)
            ]

    def _leave(self, made: Mapping[str, Sequence[Ranked]], out: Path) -> Trained:
        details: dict[str, Any] = {}
        for split, ranked in made.items():
            rows = [row for one in ranked for row in self._rows(one)]
            least = f" by {self.margin:g} or more" if self.margin else ""
            if split == "train" and not rows:
                raise DataError(
                    f"the answers to none of the {len(ranked)} prompts differ in reward{least}, so "
                    "there is nothing to prefer: raise temperature or answers, lower margin, or take another reward"
                )
            name = "preferences.jsonl" if split == "train" else "preferences_dev.jsonl"
            (out / name).write_text(
                "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
            )
            details |= {
                f"{split}_prompts": len(ranked),
                f"{split}_pairs": len(rows),
                f"{split}_prompts_without_pair": sum(not self._rows(one) for one in ranked),
                f"{split}_reward": _mean(ranked),
                f"{split}_answers_ended": sum(one.ended for one in ranked) / max(1, len(ranked) * self.answers),
            }
        (out / "artifact.json").write_text(json.dumps({"kind": "preferences"}) + "\n", encoding="utf-8")
        tokens = sum(one.tokens for ranked in made.values() for one in ranked)
        return Trained(trainable_parameters=0, steps=sum(map(len, made.values())), tokens=tokens, details=details)

    def _rows(self, ranked: Ranked) -> list[dict[str, Any]]:
        """The pairs of one prompt, as `TrainJob` has them."""
        found = ranked.answers
        both = itertools.combinations(found, 2) if self.pairs == "all" else [(found[0], found[-1])]
        return [
            {
                "id": f"{ranked.prompt.id}-{number}",
                "messages": [{"role": message.role, "content": message.content} for message in ranked.prompt.messages],
                "chosen": better[0],
                "rejected": worse[0],
                "group": ranked.prompt.id,
                "chosen_reward": better[1],
                "rejected_reward": worse[1],
            }
            for number, (better, worse) in enumerate(both)
            if better[1] > worse[1] and better[1] - worse[1] >= self.margin
        ]


def _sorted(prompt: Prompt, said: Sequence[Mapping[str, Any]]) -> Ranked:
    rewards: dict[str, float] = {}
    for one in said:
        rewards.setdefault(one["text"], one["reward"])
    order = sorted(rewards.items(), key=lambda item: -item[1])
    ended = sum(one["ended"] for one in said)
    return Ranked(prompt, tuple(order), sum(one["tokens"] for one in said), ended)


def _mean(ranked: Sequence[Ranked]) -> float:
    """The mean reward of the different answers."""
    rewards = [reward for one in ranked for _, reward in one.answers]
    return math.fsum(rewards) / max(1, len(rewards))
