"""What all stages that learn from rewards share while they train: answers, what they are worth, and measuring on dev.

`Rolling` is mixed into a trainer's class after `Followed`. Imported where a training begins and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from harness.methods import _rows
from harness.methods._likelihood import Likelihood, Reference, divergence
from harness.methods._rewards import Rewards
from harness.methods._sampling import Answer, Prompt, Sampler

KEPT = "rollouts.pt"
"""The file of a checkpoint that holds the answers which are still learned from."""


@dataclass(frozen=True, slots=True)
class Rollouts:
    """A policy with all it needs to answer, and to be judged. `missing_end` is taken off the reward of an answer that
    was cut."""

    sampler: Sampler
    likelihood: Likelihood
    reference: Reference
    rewards: Rewards
    missing_end: float

    def worth(self, answers: Sequence[Answer]) -> tuple[list[float], list[float]]:
        """The reward of each answer, and the same less what is taken off answers that did not end."""
        scores = self.rewards.score(answers)
        lessened = [
            score if answer.ended else score - self.missing_end for score, answer in zip(scores, answers, strict=True)
        ]
        return scores, lessened

    def measure(self, prompts: Sequence[Prompt], seed: int) -> dict[str, float]:
        """Sample an answer to each prompt, with random numbers of their own, and return the mean reward (nothing taken
        off), the mean KL(policy || reference) in nats an answer, the mean tokens of an answer and the share of answers
        that ended."""
        device = self.sampler.model.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            answers = self.sampler.answer(prompts)
        training = self.sampler.model.training
        self.sampler.model.eval()
        with torch.no_grad():
            kl = sum(self._divergence([answers[place] for place in part]) for part in parts(answers, len(answers)))
        self.sampler.model.train(training)
        return {
            "reward": sum(self.rewards.score(answers)) / len(answers),
            "kl": kl / len(answers),
            "answer_tokens": sum(len(answer.ids) for answer in answers) / len(answers),
            "ended": sum(answer.ended for answer in answers) / len(answers),
        }

    def _divergence(self, answers: Sequence[Answer]) -> float:
        """Summed over the answers."""
        rows = [answer.row for answer in answers]
        policy = self.likelihood.read(rows)
        with self.reference.active():
            reference = self.likelihood.read(rows)
        return float(divergence(policy, reference).sum())


def parts(answers: Sequence[Answer], most: int) -> list[list[int]]:
    """The places of answers that are read together: neighbours in length, `most` at most."""
    return _rows.parts([len(answer.row.ids) for answer in answers], most, _rows.CPU_TOKENS)


class Before(TrainerCallback):  # type: ignore[misc]
    """Measures on dev before the first step."""

    def __init__(self, trainer: Rolling) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.begin(state.global_step)


class Rolling:
    """Mixed in after `Followed` and before a trainer's class; `roll_with` is called once it is made.

    An evaluation is a sample of answers to the dev prompts, always with the same random numbers.
    """

    args: Any
    state: Any
    control: Any
    callback_handler: Any
    falls = False
    """Its loss need not fall where the reward rises."""

    def roll_with(self, rollouts: Rollouts, dev: Sequence[Prompt]) -> None:
        self.rollouts, self.dev = rollouts, dev
        self._seen = 0
        self.add_callback(Before(self))  # type: ignore[attr-defined]

    def begin(self, step: int) -> None:
        """What has to be done once the training begins, or goes on after `step`."""
        self._seen = self.state.num_input_tokens_seen
        if step == 0 and self.dev:
            self.evaluate()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        figures = {f"eval_{name}": value for name, value in self.rollouts.measure(self.dev, self.args.seed).items()}
        self.log(dict(figures))  # type: ignore[attr-defined]
        figures |= self.dev_metric()  # type: ignore[attr-defined]
        self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def step_tokens(self) -> int | None:
        """Tokens of the prompts and answers that came new or were trained on, as the trainer counts them."""
        new, self._seen = self.state.num_input_tokens_seen - self._seen, self.state.num_input_tokens_seen
        return int(new) or None

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> None:
        """Tokens are counted where losses are computed."""

    # ---------------------------------------------------------------------------------- answers that outlive a process

    def to_keep(self) -> Mapping[str, Any] | None:
        """What a checkpoint has to hold beside weights and optimizer: tensors, numbers and lists of them."""
        return None

    def keep(self, kept: Mapping[str, Any]) -> None:
        """Take back what `to_keep` gave."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        if (kept := self.to_keep()) is not None:
            torch.save(kept, Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / KEPT)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint is not None and (file := Path(checkpoint) / KEPT).is_file():
            self.keep(torch.load(file, map_location=self.args.device, weights_only=True))
