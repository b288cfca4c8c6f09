"""Kahneman-Tversky optimization: the policy learns from answers that are each good or bad, in pairs or alone
(Ethayarajh et al. 2024, arXiv 2402.01306).

Trained through TRL's KTOTrainer. The reference is the policy as the stage received it. A pair is a good and a bad
answer; a thumb is one of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from harness.errors import DataError
from harness.methods import _rows
from harness.methods._gradient import Ready, one_device
from harness.methods._preferences import Judged, Preferring, Tally
from harness.methods._rows import Row
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy


class Kto(Preferring):
    by_answer: ClassVar[bool] = True

    loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    """"apo_zero_unpaired" (arXiv 2408.06266) pushes good answers up and bad ones down without asking how far the policy
    has moved on others."""
    beta: float = Field(0.1, gt=0)
    """How strongly the policy is held to its reference."""
    batch_size: int = Field(8, ge=1)
    """Answers whose gradient makes one step: two at least, since each answer's prompt is also read with another's."""
    good_weight: float | None = Field(None, gt=0)
    """What a good answer counts. By default the rarer kind counts so much more that both sum to the same (the paper's
    equation 8)."""
    bad_weight: float | None = Field(None, gt=0)
    """What a bad answer counts."""

    @field_validator("batch_size")
    @classmethod
    def _another_answer(cls, value: int) -> int:
        if value == 1:
            raise ValueError(
                "kto needs 2 answers in a batch or more: it tells how far the policy has moved from each prompt with "
                "another one's answer (micro_batch = 1 is possible, and saves the same memory)"
            )
        return value

    def ready(self, job: TrainJob, policy: Policy, dtype: str) -> Ready:
        from trl import KTOConfig

        from harness.methods import _referenced

        def reading(file: Path, renderer: _rows.Renderer, limit: int) -> tuple[list[list[Judged]], Tally]:
            return judged(file, renderer, limit, size=self.batch_size, seed=job.seed)

        found = self.read(job, policy, reading)
        rows = [row for batch in found.train for row in batch]
        steps, per_epoch = self.steps(len(found.train) * self.batch_size)
        good, bad = self._weights(rows)
        config = KTOConfig(
            **self.arguments(job, policy, steps),
            loss_type=self.loss,
            beta=self.beta,
            desirable_weight=good,
            undesirable_weight=bad,
        )
        trainer = _referenced.JudgedTrainer(policy.model, policy.tokenizer, one_device(config))
        trainer.plan(
            rows,
            found.dev,
            batches=list(_epochs(found.train, steps, job.seed)),
            micro_batch=self.micro_batch or self.batch_size,
            autocast=dtype == "bfloat16",
        )
        everything = [*rows, *(row for batch in found.dev for row in batch)]
        trainer.refer(
            [answer for row in everything for answer in (row.row, row.mismatched)],
            without_adapter=self.switched_off(policy),
        )
        weights = {"good_weight": good, "bad_weight": bad}
        return Ready(trainer, per_epoch, found.details | weights)

    def _weights(self, rows: Sequence[Judged]) -> tuple[float, float]:
        """What a good and a bad answer count."""
        good = sum(row.good for row in rows)
        bad = len(rows) - good
        balanced = (max(1.0, bad / good), max(1.0, good / bad)) if good and bad else (1.0, 1.0)
        return self.good_weight or balanced[0], self.bad_weight or balanced[1]


def judged(
    file: Path, renderer: _rows.Renderer, limit: int, *, size: int, seed: int
) -> tuple[list[list[Judged]], Tally]:
    """Read the answers of a file of preferences, in batches of `size`; they are cut after `limit` tokens of prompt and
    answer. Each batch stays together in every epoch, since an answer is paired with the next one's prompt.

    Raises DataError where fewer than two are left.
    """
    values = _rows.values(file, "preferences")
    found: list[tuple[Row, bool, int | None]] = []
    halves = dropped = cut = lost = 0
    for number, value in enumerate(values):
        whole = value["chosen"] is not None and value["rejected"] is not None
        for name in ("chosen", "rejected"):
            if value[name] is None:
                continue
            halves += 1
            row = renderer.row(value["messages"], value[name])
            over = max(0, len(row.ids) - limit)
            lost += min(over, len(row.ids) - row.prompt)
            if row.prompt >= limit:
                dropped += 1
                continue
            cut += bool(over)
            found.append((Row(row.ids[:limit], row.prompt), name == "chosen", number if whole else None))
    if len(found) < 2:
        raise DataError(
            f"{file}: kto needs two answers at least, and has {len(found)} of {halves} whose prompt is shorter than "
            f"{limit} tokens. Add preferences, raise max_length, or use a model with a longer context."
        )
    random.Random(f"{seed} batches").shuffle(found)
    tally = Tally(rows=len(values), cut=cut, dropped=dropped, lost_answer_tokens=lost)
    return [list(_with_mismatches(batch, limit)) for batch in _batches(found, size)], tally


def _batches(found: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Of `size` each, the last shorter; one alone goes to the batch before it."""
    ends = list(range(size, len(found), size))
    if ends and len(found) - ends[-1] == 1:
        ends.pop()
    for start, end in zip([0, *ends], [*ends, len(found)], strict=True):
        yield found[start:end]


def _with_mismatches(batch: Sequence[tuple[Row, bool, int | None]], limit: int) -> Iterator[Judged]:
    """Each prompt also gets the answer before it in the batch, and the first one the last."""
    for place, (row, good, pair) in enumerate(batch):
        other = batch[place - 1][0]
        ids = (*row.ids[: row.prompt], *other.ids[other.prompt :])
        yield Judged(row, good, Row(ids[:limit], row.prompt), pair)


def _epochs(batches: Sequence[Sequence[Judged]], steps: int, seed: int) -> Iterator[tuple[int, ...]]:
    """The rows of each of `steps` steps, numbered through all batches: every epoch takes the batches in an order of its
    own."""
    starts = [sum(len(batch) for batch in batches[:place]) for place in range(len(batches))]
    taken = _rows.batches([1] * len(batches), 1, steps, seed=seed, group_by_length=False)
    for (place,) in taken:
        yield tuple(range(starts[place], starts[place] + len(batches[place])))
