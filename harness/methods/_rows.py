"""Rows of a training file as token ids, and the batches in which a whole training takes them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from harness.chat import Chat
from harness.errors import DataError, ModelError
from harness.records import Message, Role

POOL = 8
"""Batches whose rows are sorted by length together: little padding, and yet other batches in every epoch."""


@dataclass(frozen=True, slots=True)
class Row:
    """`ids` are the prompt's tokens and then the answer's, the end of the turn last; `prompt` counts the former."""

    ids: tuple[int, ...]
    prompt: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What the length limit did: rows `cut` lost the end of their answer, rows `dropped` all of it."""

    rows: int
    cut: int
    dropped: int
    lost_answer_tokens: int

    def named(self, split: str) -> dict[str, int]:
        return {f"{split}_{name}": count for name, count in asdict(self).items()}


class Renderer(Chat):
    """Turns a row into token ids, its prompt exactly as the model will be asked with it."""

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        super().__init__(tokenizer, template)
        self.end = self._end_of_turn()

    def row(self, messages: Sequence[dict[str, str]], completion: str) -> Row:
        (prompt,) = self.prompts([[Message(cast(Role, message["role"]), message["content"]) for message in messages]])
        # The answer is encoded apart from the prompt: that is how the model will have to write it.
        (answer,) = self.encode([completion])
        return Row((*prompt, *answer, self.end), len(prompt))

    def _end_of_turn(self) -> int:
        """The token that closes an assistant's turn: the first special one that the template writes after an answer,
        else the tokenizer's end of text."""
        if self.template is not None:
            answer = "The answer."
            turns = (Message("user", "A question."), Message("assistant", answer))
            tail = self.text(turns, answer_follows=False).rpartition(answer)[2]
            special = set(self.tokenizer.all_special_ids)
            for token in self.encode([tail])[0]:
                if token in special:
                    return token
        if self.tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokenizer names no end-of-text token (eos_token), so no answer could be taught to end"
            )
        end: int = self.tokenizer.eos_token_id
        return end


def read(file: Path, renderer: Renderer, limit: int) -> tuple[list[Row], Tally]:
    """Read a JSONL file of {"id", "messages", "completion"}; rows are cut after `limit` tokens.

    Raises DataError where no row keeps a token of its answer.
    """
    rows: list[Row] = []
    cut = dropped = lost = 0
    with file.open(encoding="utf-8") as lines:
        values = [json.loads(line) for line in lines if line.strip()]
    for value in values:
        row = renderer.row(value["messages"], value["completion"])
        over = max(0, len(row.ids) - limit)
        lost += min(over, len(row.ids) - row.prompt)
        if over and row.prompt >= limit:
            dropped += 1
            continue
        cut += bool(over)
        rows.append(Row(row.ids[:limit], row.prompt))
    if not values:
        raise DataError(f"{file} holds no rows, so there is nothing to train on")
    if not rows:
        raise DataError(
            f"{file}: the prompt of every row has {limit} tokens or more, so no answer is left to learn from. "
            "Raise max_length, or use a model with a longer context or shorter prompts."
        )
    return rows, Tally(rows=len(values), cut=cut, dropped=dropped, lost_answer_tokens=lost)


def batches(
    lengths: Sequence[int], size: int, steps: int, *, seed: int, group_by_length: bool
) -> list[tuple[int, ...]]:
    """Plan which rows each of `steps` steps takes, `size` of them; every epoch takes every row once.

    The plan depends on the arguments alone, so that a resumed training goes on with the very batches it would have had.
    """
    planned: list[tuple[int, ...]] = []
    epoch = 0
    while len(planned) < steps:
        chance = random.Random(f"{seed} {epoch}")
        planned.extend(_epoch(lengths, size, chance, group_by_length))
        epoch += 1
    return planned[:steps]


def _epoch(
    lengths: Sequence[int], size: int, chance: random.Random, group_by_length: bool
) -> Iterator[tuple[int, ...]]:
    order = list(range(len(lengths)))
    chance.shuffle(order)
    if not group_by_length:
        yield from (tuple(order[start : start + size]) for start in range(0, len(order), size))
        return
    made: list[tuple[int, ...]] = []
    for start in range(0, len(order), size * POOL):
        pool = sorted(order[start : start + size * POOL], key=lambda row: (lengths[row], row))
        made.extend(tuple(pool[first : first + size]) for first in range(0, len(pool), size))
    chance.shuffle(made)
    yield from made


def parts(lengths: Sequence[int], most_rows: int, most_tokens: int) -> list[list[int]]:
    """Cut the rows of a batch into parts that are computed one after another: neighbours in length, at most
    `most_rows` each and, padding included, at most `most_tokens` (a longer row stands alone)."""
    made: list[list[int]] = []
    part: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if part and (len(part) == most_rows or (len(part) + 1) * lengths[row] > most_tokens):
            made.append(part)
            part = []
        part.append(row)
    return [*made, part] if part else made
