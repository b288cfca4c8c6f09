"""A trainer whose loss is the divergence of a teacher's distribution and the student's at each token of an answer.

TRL's DistillationTrainer knows answers of the student alone and renders prompts anew; this one shares everything but
the loss with `AnswerTrainer`. The loss is TRL's (a test compares them). Imported where a training begins.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.methods._rows import Row
from harness.methods._sampling import Sampler
from harness.methods._trainer import AnswerTrainer, ChosenLogits


class DistillTrainer(AnswerTrainer):
    """`teacher` is a frozen model; `on_policy` the share of steps whose answers `sampler` writes."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: Any,
        *,
        teacher: Any,
        sampler: Sampler,
        on_policy: float,
        beta: float,
        temperature: float,
        **told: Any,
    ) -> None:
        super().__init__(model, tokenizer, config, **told)
        self.teacher = teacher.to(self.args.device)
        self.sampler, self.on_policy, self.beta, self.temperature = sampler, on_policy, beta, temperature
        self._asked = ChosenLogits(self.teacher)

    def is_on_policy(self, step: int) -> bool:
        """Whether the student writes the answers of a step (from 0), as Algorithm 1 of GKD draws it."""
        return random.Random(f"{self.args.seed} {step} whose").random() < self.on_policy

    def on_policy_steps(self, steps: int) -> int:
        return sum(map(self.is_on_policy, range(steps)))

    def rows_of(self, places: Sequence[int]) -> list[Row]:
        rows = super().rows_of(places)
        step = self.state.global_step
        if not self.is_on_policy(step):
            return rows
        with torch.random.fork_rng(devices=self._devices()):
            # The step alone decides the draw, so that a resumed training writes what it would have written.
            torch.manual_seed(random.Random(f"{self.args.seed} {step} answers").getrandbits(63))
            written = self.sampler.sample([row.ids[: row.prompt] for row in rows])
        return [
            Row((*row.ids[: row.prompt], *ids), row.prompt, tags=row.tags)
            for row, ids in zip(rows, written, strict=True)
        ]

    def _devices(self) -> list[int]:
        device = self.args.device
        return [device.index or 0] if device.type == "cuda" else []

    def losses(self, logits: Tensor, targets: Tensor, inputs: Mapping[str, Tensor], wanted: Tensor) -> Tensor:
        """The divergence at each learned token, times the square of the temperature: so gradients keep their size
        whatever it is (Hinton et al. 2015, arXiv 1503.02531)."""
        with torch.no_grad(), torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.autocast):
            taught = self._asked.logits(self.teacher, inputs, wanted)
        found = divergence(
            logits / self.temperature, taught[:, : logits.shape[-1]].float() / self.temperature, self.beta
        )
        return found * self.temperature**2


def divergence(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """The generalised Jensen-Shannon divergence in nats of the distributions P of the teacher's logits and Q of the
    student's, both (tokens, vocabulary); returns (tokens,).

    beta KL(P || M) + (1 - beta) KL(Q || M) with M = beta P + (1 - beta) Q (arXiv 2306.13649, eq. 1). As in TRL, a beta
    of 0 stands for the forward divergence KL(P || Q) and 1 for the reverse one KL(Q || P), to which it tends when
    divided by beta and by 1 - beta.
    """
    q, p = functional.log_softmax(student, -1), functional.log_softmax(teacher, -1)
    if beta == 0:
        return _kl(p, q)
    if beta == 1:
        return _kl(q, p)
    mixed = torch.logaddexp(p + math.log(beta), q + math.log(1 - beta))
    return beta * _kl(p, mixed) + (1 - beta) * _kl(q, mixed)


def _kl(one: Tensor, other: Tensor) -> Tensor:
    """KL(one || other) by their log-probabilities (tokens, vocabulary)."""
    return (one.exp() * (one - other)).sum(-1)
