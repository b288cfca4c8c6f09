"""Rows of a training file as token ids, and the batches in which a whole training takes them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError, ModelError

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


class Renderer:
    """Turns a row into token ids exactly as the backend `transformers` turns its requests.

    `template` is a Jinja chat template in place of the tokenizer's own, or None. Without either, the messages' contents
    are joined by blank lines and the answer follows on a new line.
    """

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        self.tokenizer = tokenizer
        self.template = template or getattr(tokenizer, "chat_template", None)
        self.end = self._end_of_turn()

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        if self.template is None:
            return self._encode("\n\n".join(message["content"] for message in messages) + "\n", special=True)
        return self._encode(self._render(messages, add_generation_prompt=True))

    def row(self, messages: Sequence[dict[str, str]], completion: str) -> Row:
        # The answer is encoded apart from the prompt: that is how the model will have to write it.
        prompt = self.prompt(messages)
        return Row((*prompt, *self._encode(completion), self.end), len(prompt))

    def _render(self, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool) -> str:
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages), chat_template=self.template, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ModelError(f"the chat template does not take these messages ({roles}): {error}") from error
        return text

    def _encode(self, text: str, *, special: bool = False) -> list[int]:
        encoded = self.tokenizer(text, add_special_tokens=special, return_attention_mask=False)
        ids: list[int] = encoded["input_ids"]
        return ids

    def _end_of_turn(self) -> int:
        """The token that closes an assistant's turn: the first special one that the template writes after an answer,
        else the tokenizer's end of text."""
        if self.template is not None:
            answer = "The answer."
            turns = [{"role": "user", "content": "A question."}, {"role": "assistant", "content": answer}]
            tail = self._render(turns, add_generation_prompt=False).rpartition(answer)[2]
            special = set(self.tokenizer.all_special_ids)
            for token in self._encode(tail):
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
