"""What the stages that learn from preferences share: their rows as token ids, and what they accept and report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

from harness.chat import read_template
from harness.errors import DataError
from harness.methods import _rows
from harness.methods._gradient import Gradient
from harness.methods._rows import Row
from harness.plugins import Reads, Refers, TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, of which `chosen` is the better."""

    chosen: Row
    rejected: Row

    @property
    def tokens(self) -> int:
        return len(self.chosen.ids) + len(self.rejected.ids)

    @property
    def padded(self) -> int:
        """Tokens that it takes in a batch of its own."""
        return 2 * max(len(self.chosen.ids), len(self.rejected.ids))


@dataclass(frozen=True, slots=True)
class Judged:
    """An answer that is good or bad. `mismatched` is the prompt with another row's answer, of which KTO estimates how
    far the policy has moved; `pair` numbers the pair that the answer is one half of, None after a thumb."""

    row: Row
    good: bool
    mismatched: Row
    pair: int | None

    @property
    def tokens(self) -> int:
        return len(self.row.ids)

    @property
    def padded(self) -> int:
        return len(self.row.ids)


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the preferences of a split: `thumbs` were left out, since one answer alone makes no pair, `cut`
    ones lost the end of an answer to the length limit (`lost_answer_tokens` in all), and `dropped` ones what tells
    their answers apart."""

    rows: int
    thumbs: int = 0
    cut: int = 0
    dropped: int = 0
    lost_answer_tokens: int = 0

    def named(self, split: str) -> dict[str, int]:
        return {f"{split}_{name}": count for name, count in asdict(self).items()}


def pairs(file: Path, renderer: _rows.Renderer, limit: int, *, cut: bool = True) -> tuple[list[Pair], Tally]:
    """Read the pairs of a file of preferences; answers are cut after `limit` tokens of prompt and answer, or with `cut`
    false pairs with a longer one are dropped.

    Raises DataError where none is left.
    """
    values = _rows.values(file, "preferences")
    both = [value for value in values if value["chosen"] is not None and value["rejected"] is not None]
    found: list[Pair] = []
    shortened = lost = 0
    for value in both:
        rows = [renderer.row(value["messages"], value[name]) for name in ("chosen", "rejected")]
        over = [max(0, len(row.ids) - limit) for row in rows]
        chosen, rejected = (Row(row.ids[:limit], row.prompt) for row in rows)
        if chosen.ids == rejected.ids or (any(over) and not cut):
            continue
        shortened += any(over)
        lost += sum(over)
        found.append(Pair(chosen, rejected))
    tally = Tally(
        rows=len(values),
        thumbs=len(values) - len(both),
        cut=shortened,
        dropped=len(both) - len(found),
        lost_answer_tokens=lost,
    )
    if not both:
        raise DataError(
            f"{file}: none of the {len(values)} preferences is a pair. A thumb up or down teaches the stage kto alone; "
            'the others need rows of {"prompt", "chosen", "rejected"}.'
        )
    if not found:
        raise DataError(
            f"{file}: no pair is left, since {limit} tokens do not hold what tells the answers of any of the "
            f"{len(both)} pairs apart. Raise max_length, or use a model with a longer context or shorter prompts."
        )
    return found, tally


R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Read(Generic[R]):
    """What a stage trains on and measures by; `details` count what was left out."""

    train: Sequence[R]
    dev: Sequence[R]
    details: dict[str, int]


class Preferring(Gradient):
    """A stage that learns from preferences. Dropout is off in all of them, as TRL recommends: the policy would differ
    from itself by chance, and the losses are about differences."""

    rate_scale: ClassVar[float] = 0.05
    """With it LoRA gets 1e-5 and the whole model 1e-6: TRL's values for DPO."""
    names: ClassVar[Mapping[str, str]] = {
        "dev_accuracy": "eval_rewards/accuracies",
        "dev_margin": "eval_rewards/margins",
    }
    """What is told of the kept weights, by what the trainer calls it."""

    by_answer: ClassVar[bool] = False
    """Whether a row is one answer, read with its own prompt and with another, not a pair."""

    preferences: Annotated[str, Refers("preferences")] | None = None
    """The stage `make-preferences` whose pairs are learned; None is `[data] preferences`."""

    @property
    def reads(self) -> Reads:
        return "preferences"

    def passes(self, rows: int) -> float:
        return 2 * super().passes(rows)

    @property
    def texts_at_once(self) -> int:
        return 2 * super().texts_at_once

    def switched_off(self, policy: Policy) -> bool:
        """Whether the policy as it came in is the model without its adapter: where that is new. One whose beginning was
        taken out of the base weights gives it back from the start instead (PiSSA)."""
        from peft import PeftModel

        return self.adapter is not None and isinstance(policy.model, PeftModel) and not policy.start

    def read(self, job: TrainJob, policy: Policy, reading: Callable[..., tuple[list[R], Tally]]) -> Read[R]:
        """Read train and dev by `reading(file, renderer, limit)`."""
        renderer = _rows.Renderer(policy.tokenizer, read_template(job.model.get("chat_template")))
        limit = self.limit(policy)
        train, tally = reading(job.train, renderer, limit)
        counts = tally.named("train")
        dev: list[R] = []
        if job.dev is not None:
            try:
                dev, tally = reading(job.dev, renderer, limit)
            except DataError as error:
                raise DataError(
                    f"the preferences that are kept from training to measure by cannot be used: {error}. Keep more "
                    "([data] preferences_dev = 0.4), or none (0)"
                ) from error
            counts |= tally.named("dev")
        return Read(train, dev, counts)

    def arguments(self, job: TrainJob, policy: Policy, steps: int) -> dict[str, Any]:
        return super().arguments(job, policy, steps) | {
            "per_device_train_batch_size": self.batch_size,
            "activation_checkpointing": self.gradient_checkpointing,
        }

    def plan(self, rows: Sequence[Pair], steps: int, job: TrainJob, dtype: str) -> dict[str, Any]:
        """How a `Planned` trainer goes through the pairs `rows`."""
        lengths = [pair.padded for pair in rows]
        return {
            "batches": _rows.batches(lengths, self.batch_size, steps, seed=job.seed, group_by_length=False),
            "micro_batch": self.micro_batch or self.batch_size,
            "autocast": dtype == "bfloat16",
        }

    def outcome(self, trainer: Any, step: int) -> dict[str, Any]:
        return {name: trainer.dev_figure(step, key) for name, key in self.names.items()}

    def tokens(self, trainer: Any) -> int:
        done = trainer.batches[: trainer.state.global_step]
        return sum(trainer.rows[row].tokens for batch in done for row in batch)
