"""Preferences from a model's own answers: several are sampled to each prompt of the train split and ranked by a reward.

What it leaves is data for the stages that learn from preferences (as in RLAIF, Lee et al. 2023, arXiv 2309.00267, where
a model judges the answers; a metric of the harness may rank them here too). Prompts come from the train and dev splits
alone.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from harness import extras
from harness.chat import context_length, end_tokens, read_template
from harness.devices import pick_device, pick_dtype
from harness.errors import DataError
from harness.methods._rewarded import Rewarded
from harness.plugins import Local, Makes, Refers, Trained, TrainJob

if TYPE_CHECKING:
    from harness.methods._rewards import JudgeReward, Rewards
    from harness.methods._sampling import Answer, Prompt, Sampler

AT_ONCE = 16
"""Prompts whose answers are kept together."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The answers to one prompt, each text once, the best first, with their rewards and whether they ended; of equal
    ones as they came. Those without a reward are `unread` instead. `tokens` are those of all answers as they were
    sampled, and `ended` counts those that were not cut."""

    prompt: Prompt
    answers: tuple[tuple[str, float, bool], ...]
    unread: int
    tokens: int
    ended: int


Named = Annotated[str, Refers("reward", judges=True), Local(or_name=True, or_stage=True)]


class MakePreferences(Rewarded):
    makes: ClassVar[Makes] = "preferences"

    reward: Named | tuple[Named, ...]
    """What ranks the answers: a stage `reward`, a folder with a reward model, "metric:NAME", which may be a judge here,
    or several of these."""
    answers: int = Field(4, ge=2)
    """How many answers are sampled to each prompt."""
    pairs: Literal["ends", "all"] = "ends"
    """Which pairs of them are kept: the best against the worst, or every better one against every worse one."""
    margin: float = Field(0.0, ge=0)
    """By how much more, at least, the better answer of a pair is rewarded; with 0, by any more."""
    must_end: bool = True
    """Whether the better answer of a pair has to be one that ended: what learns from one that was cut at `max_tokens`
    learns to stop there."""
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
        sampler = _sampling.Sampler(
            model, renderer, ends, temperature=self.temperature, most=self.max_tokens, autocast=False
        )
        rewards = _rewards.load(
            self.rewards,
            self.reward_weights,
            job.references,
            tokenizer=tokenizer,
            end=renderer.end,
            ends=ends,
            device=device,
            dtype=dtype,
            verdicts=job.work,
        )
        with contextlib.closing(rewards):
            return self._make(job, sampler, rewards, progress)

    def _make(
        self,
        job: TrainJob,
        sampler: Sampler,
        rewards: Rewards,
        progress: Callable[[int, int, Mapping[str, float]], None],
    ) -> Trained:
        from harness.methods import _sampling

        most = context_length(sampler.model.config, sampler.renderer.tokenizer) - self.max_tokens
        sources = {"train": job.train} | ({"dev": job.dev} if job.dev is not None else {})
        prompts = {}
        for split, file in sources.items():
            read, _ = _sampling.read(file, sampler.renderer, most)
            prompts[split] = rewards.rewarded(read, file)
        total = sum(map(len, prompts.values()))
        made: dict[str, list[Ranked]] = {}
        for split, asked in prompts.items():
            before = sum(map(len, made.values()))
            made[split] = []
            for part in self._ranked(asked, sampler, rewards, job, job.work / f"answers-{split}.jsonl"):
                made[split] += part
                mean = _mean(part)
                progress(before + len(made[split]), total, {} if mean is None else {"reward": mean})
            for judge in rewards.judges:
                judge.must_have_read()
        return self._leave(made, rewards.judges, job.out)

    def _ranked(
        self, prompts: Sequence[Prompt], sampler: Sampler, rewards: Rewards, job: TrainJob, kept: Path
    ) -> Iterator[list[Ranked]]:
        """Sample and rank the answers to `prompts`, part by part. The tokens of each part are kept in a file, a line a
        part, so that what a killed process had is not sampled again."""
        import torch

        lines = kept.read_text(encoding="utf-8").splitlines(keepends=True) if kept.is_file() else []
        lines = [line for line in lines if line.endswith("\n")]  # A killed process may have left half a line.
        kept.write_text("".join(lines), encoding="utf-8")
        for number, start in enumerate(range(0, len(prompts), AT_ONCE)):
            part = prompts[start : start + AT_ONCE]
            if number == len(lines):
                with torch.random.fork_rng():
                    torch.manual_seed(random.Random(f"{job.seed} {kept.name} {number}").getrandbits(63))
                    sampled = sampler.sample([prompt.ids for prompt in part for _ in range(self.answers)])
                lines.append(json.dumps(sampled) + "\n")
                with kept.open("a", encoding="utf-8") as file:
                    file.write(lines[-1])
            asked = [prompt for prompt in part for _ in range(self.answers)]
            answers = [sampler.made(prompt, ids) for prompt, ids in zip(asked, json.loads(lines[number]), strict=True)]
            rewarded = list(zip(answers, rewards.score(answers), strict=True))
            yield [_sorted(rewarded[first : first + self.answers]) for first in range(0, len(rewarded), self.answers)]

    def _leave(self, made: Mapping[str, Sequence[Ranked]], judges: Sequence[JudgeReward], out: Path) -> Trained:
        details: dict[str, Any] = {}
        for split, ranked in made.items():
            rows = [row for one in ranked for row in self._rows(one)]
            unread = sum(one.unread for one in ranked)
            least = f" by {self.margin:g} or more" if self.margin else ""
            least += f" ({unread} verdicts could not be read)" if unread else ""
            cut = len(ranked) * self.answers - sum(one.ended for one in ranked)
            least += (
                f" ({cut} were cut at max_tokens, and none of these may be the better one)"
                if cut and self.must_end
                else ""
            )
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
            if judges:
                details |= {
                    f"{split}_answers_judged": unread + sum(len(one.answers) for one in ranked),
                    f"{split}_verdicts_unread": unread,
                }
        if judges:
            _tell(judges, out / "verdicts.jsonl")
        (out / "artifact.json").write_text(json.dumps({"kind": "preferences"}) + "\n", encoding="utf-8")
        tokens = sum(one.tokens for ranked in made.values() for one in ranked)
        return Trained(trainable_parameters=0, steps=sum(map(len, made.values())), tokens=tokens, details=details)

    def _rows(self, ranked: Ranked) -> list[dict[str, Any]]:
        """The pairs of one prompt, as `TrainJob` has them."""
        found = ranked.answers
        whole = [answer for answer in found if answer[2] or not self.must_end]
        ends = zip(whole[:1], found[-1:], strict=False)
        both = itertools.combinations(found, 2) if self.pairs == "all" else ends
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
            if (better[2] or not self.must_end) and better[1] > worse[1] and better[1] - worse[1] >= self.margin
        ]


def _sorted(rewarded: Sequence[tuple[Answer, float]]) -> Ranked:
    """The answers to one prompt, ranked."""
    rewards: dict[str, float] = {}
    for answer, reward in rewarded:
        rewards.setdefault(answer.text, reward)
    whole = {answer.text for answer, _ in rewarded if answer.ended}
    known = [(text, reward, text in whole) for text, reward in rewards.items() if not math.isnan(reward)]
    answers = [answer for answer, _ in rewarded]
    return Ranked(
        answers[0].prompt,
        tuple(sorted(known, key=lambda item: -item[1])),
        unread=len(rewards) - len(known),
        tokens=sum(len(answer.ids) for answer in answers),
        ended=sum(answer.ended for answer in answers),
    )


def _mean(ranked: Sequence[Ranked]) -> float | None:
    """The mean reward of the different answers that have one."""
    rewards = [reward for one in ranked for _, reward, _ in one.answers]
    return math.fsum(rewards) / len(rewards) if rewards else None


def _tell(judges: Sequence[JudgeReward], file: Path) -> None:
    """Write what each judge said of each answer, and the mark that was read from it, None where there was none."""
    with file.open("w", encoding="utf-8") as lines:
        for judge in judges:
            for verdict in judge.verdicts.values():
                reply, mark = verdict.reply, verdict.mark
                row = {
                    "judge": judge.name,
                    "id": verdict.answer.prompt.id,
                    "answer": verdict.answer.text,
                    "mark": None if isinstance(mark, Exception) else mark,
                    "said": reply.texts[0] if reply.texts else None,
                    "error": reply.error,
                }
                lines.write(json.dumps(row, ensure_ascii=False) + "\n")
