"""What learning from preferences changed, measured on held-out prompts: `python bench/rlhf.py --results FOLDER`.

Reads what `harness run specs/rlhf.toml --results FOLDER` left there, and tells of each variant that was trained:

win rate   share of held-out questions whose answer a judge marks higher than that of `sft`, a draw half. The judge is
           a reward model of its own, trained here on the same pairs with another seed and rank: not the one that PPO,
           GRPO and RLOO were rewarded by, which they may have learned to please. Its accuracy on pairs that were kept
           from both is told.
shorter    share of questions whose answer is shorter than that of `sft`, in characters: a win rate that is no more than
           this says nothing but that answers got shorter. (Of the pairs themselves most better answers are shorter.)
KL         divergence from `sft` in nats an answer, of answers sampled at temperature 1 to the same questions: the sum
           over tokens of the divergence of the next token's distribution, 95 % interval by question.
length     tokens of such an answer, and of the greedy one that the leaderboard scores.

Ends with status 1 where PPO did not raise the mean reward over its start or went beyond its target divergence.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch

from harness import data, spec, stats
from harness.adapters.lora import Lora
from harness.chat import end_tokens
from harness.methods import _likelihood, _model, _reward, _rows, _sampling
from harness.methods.reward import Reward
from harness.plugins import TrainJob
from harness.records import Example, Message, Preference, Run
from harness.store import Store

SPEC = Path(__file__).resolve().parent.parent / "specs" / "rlhf.toml"
START = "sft"
TOKENS = 64


def messages(system: str, question: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def write(file: Path, system: str, pairs: Sequence[Preference]) -> Path:
    rows = [
        {"id": one.id, "messages": messages(system, one.input), "chosen": one.chosen, "rejected": one.rejected}
        for one in pairs
    ]
    file.write_text("".join(json.dumps(row | {"group": row["id"]}) + "\n" for row in rows), encoding="utf-8")
    return file


def judge(folder: Path, model: dict[str, Any], system: str, dataset: data.Dataset) -> tuple[_reward.Scorer, float]:
    """Train the judge; returns it and its accuracy on the pairs that were kept back."""
    job = TrainJob(
        train=write(folder / "train.jsonl", system, dataset.preferences),
        dev=write(folder / "dev.jsonl", system, dataset.preferences_dev),
        model=model,
        incoming=None,
        out=folder / "judge",
        work=folder,
        seed=1,
    )
    method = Reward(epochs=1, learning_rate=5e-4, adapter=Lora(rank=8))
    trained = method.fit(job, lambda step, steps, figures: print(f"judge: {step} of {steps}", end="\r", flush=True))
    return _reward.load(job.out, dtype="float32"), trained.details["dev_accuracy"]


def policy(run: Run) -> str | None:
    """The step that trained what the run answers with."""
    own = [int(number) for role in run.steps if role.startswith("train.") and (number := role[6:]).isdigit()]
    return run.steps[f"train.{max(own)}"] if own else None


class Policies:
    """The policies of the runs, loaded one at a time beside the one that all of them started from."""

    def __init__(
        self, store: Store, model: dict[str, Any], folder: Path, start: Run, examples: Sequence[Example]
    ) -> None:
        self.store, self.folder, self.table = store, folder, model
        self.reference, tokenizer = self.load(start)
        self.renderer = _rows.Renderer(tokenizer, None)
        self.ends = end_tokens(tokenizer, self.reference.generation_config.eos_token_id) | {self.renderer.end}
        self.examples = examples

    def load(self, run: Run) -> tuple[Any, Any]:
        unused = self.folder / "unused"
        job = TrainJob(train=unused, dev=None, model=self.table, incoming=None, out=unused, work=unused, seed=0)
        name = policy(run)
        assert name is not None
        with _model.quiet():
            return _model.frozen(job, {"artifact": str(self.store.step(name).path / "artifact")}, "float32")

    def sampled(self, run: Run, prompts: Sequence[_sampling.Prompt]) -> tuple[list[float], list[int]]:
        """The divergence from the reference, in nats, and the tokens of a sampled answer to each prompt."""
        model, _ = self.load(run)
        torch.manual_seed(0)
        sampler = _sampling.Sampler(model, self.renderer, self.ends, temperature=1.0, most=TOKENS, autocast=False)
        answers = sampler.answer(prompts)
        found = []
        own, other = (_likelihood.Likelihood(one, temperature=1.0, autocast=False) for one in (model, self.reference))
        with torch.no_grad():
            for answer in answers:
                found.append(float(_likelihood.divergence(own.read([answer.row]), other.read([answer.row])).sum()))
        return found, [len(answer.ids) for answer in answers]


def share(values: Sequence[float], groups: Sequence[str]) -> str:
    found = stats.interval(values, groups, binary=False, bounds=(0, 1))
    return f"{stats.mean(values):6.1%} ({found.low:.1%} to {found.high:.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=Path, required=True, help="the results folder of the run")
    results: Path = parser.parse_args().results
    found = spec.load(SPEC, ())
    dataset = data.load(found.data)
    store = Store(results, write=False)
    snapshot = store.snapshot("rlhf")
    runs = {run.variant: run for run in snapshot.runs() if run.status == "complete"}
    model, examples = found.model.table(), list(snapshot.examples())
    system = next(variant for variant in found.variants if variant.name == START).prompt.system
    groups = [example.group for example in examples]
    greedy = {
        name: [prediction.text or "" for prediction in store.step(run.steps["predict"]).predictions()]
        for name, run in runs.items()
    }
    details = {
        role: store.step(runs["ppo"].steps[role]).outcome["details"] for role in runs["ppo"].steps if "train" in role
    }
    reward, ppo = details["train.1"], details["train.2"]
    report: dict[str, Any] = {"reward_accuracy": reward["dev_accuracy"], "ppo": ppo, "variants": {}}
    with tempfile.TemporaryDirectory() as folder:
        marker, accuracy = judge(Path(folder), model, system, dataset)
        back = dataset.preferences_dev
        shorter = stats.mean([float(len(one.chosen or "") < len(one.rejected or "")) for one in back])
        print(
            f"pairs kept back: {len(back)}; marked right by the reward model {reward['dev_accuracy']:.1%}, by the judge"
        )
        print(f"{accuracy:.1%}, by taking the shorter answer {shorter:.1%}")
        report |= {"judge_accuracy": accuracy, "shorter_accuracy": shorter}
        marks = {
            name: marker.score_answers(
                [(messages(system, one.input), text) for one, text in zip(examples, texts, strict=True)]
            )
            for name, texts in greedy.items()
        }
        del marker
        policies = Policies(store, model, Path(folder), runs[START], examples)
        asked = [tuple(Message(m["role"], m["content"]) for m in messages(system, one.input)) for one in examples]  # type: ignore[arg-type]
        prompts = [
            _sampling.Prompt(one.id, told, policies.renderer.text(told), tuple(ids), one)
            for one, told, ids in zip(examples, asked, policies.renderer.prompts(asked), strict=True)
        ]
        print(f"variant, win rate against {START}, shorter, the judge's mean mark, KL from {START}, lengths of answers")
        for name, run in runs.items():
            wins = [float(a > b) + (a == b) / 2 for a, b in zip(marks[name], marks[START], strict=True)]
            less = [
                float(len(a) < len(b)) + (len(a) == len(b)) / 2
                for a, b in zip(greedy[name], greedy[START], strict=True)
            ]
            tokens = [len(ids) for ids in policies.renderer.tokenizer(greedy[name])["input_ids"]]
            line = {
                "win_rate": stats.mean(wins),
                "shorter": stats.mean(less),
                "reward": stats.mean(marks[name]),
                "tokens": stats.mean([float(count) for count in tokens]),
            }
            told = [f"{name:6}", share(wins, groups), f"{line['shorter']:7.1%}", f"{line['reward']:6.2f}"]
            if policy(run) is not None:
                nats, lengths = policies.sampled(run, prompts)
                ends = stats.interval(nats, groups, binary=False, bounds=(0, None))
                line |= {"kl": stats.mean(nats), "sampled_tokens": stats.mean([float(count) for count in lengths])}
                told.append(f"{line['kl']:5.2f} ({ends.low:.2f} to {ends.high:.2f})")
                told.append(f"{line['sampled_tokens']:5.1f} tokens")
            print(*told, f"greedy {line['tokens']:5.1f} tokens", sep="  ", flush=True)
            report["variants"][name] = line
    rose = ppo["reward_after"] > ppo["reward_before"]
    near = ppo["kl"] <= next(v for v in found.variants if v.name == "ppo").train[2].target_kl
    print(
        f"PPO's mean reward on held-back prompts: {ppo['reward_before']:.2f} before, {ppo['reward_after']:.2f} after,"
    )
    print(f"KL {ppo['kl']:.2f} nats: {'met' if rose and near else 'MISSED'}: more reward, within the target")
    print(json.dumps(report))
    sys.exit(0 if rose and near else 1)


if __name__ == "__main__":
    main()
