"""Rows of a training file as token ids, and the batches in which a whole training takes them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from harness.chat import Chat
from harness.errors import DataError, ModelError
from harness.records import Message, Role

POOL = 8
"""Batches whose rows are sorted by length together: little padding, and yet other batches in every epoch."""

CPU_TOKENS = 1024
"""Tokens in one forward pass on a CPU, padding included (a longer row stands alone): enough to fill its matrix units;
rows of like length leave little padding."""


@dataclass(frozen=True, slots=True)
class Row:
    """`ids` are the prompt's tokens and then the answer's, the end of the turn last; `prompt` counts the former.

    `turns` are the ranges of tokens that are learned where they are not simply all after the prompt; `tags` are those
    of the row's example. The first token of a row follows nothing, so it cannot be learned.
    """

    ids: tuple[int, ...]
    prompt: int
    turns: tuple[tuple[int, int], ...] = ()
    tags: tuple[str, ...] = ()

    @property
    def learned(self) -> tuple[tuple[int, int], ...]:
        """The ranges of tokens that are learned, each from its first to before its last."""
        return self.turns or ((self.prompt, len(self.ids)),)

    @property
    def answers(self) -> int:
        """How many tokens are learned."""
        return sum(end - start for start, end in self.learned)


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

    def conversation(self, messages: Sequence[dict[str, Any]], tools: Sequence[Any] | None, name: str) -> Row:
        """A whole conversation, of which every turn of the assistant is learned, from after the generation prompt to
        the token that ends the turn; each prompt before one is what the model would be asked with.

        `messages` and `tools` are as OpenAI's API has them: a turn of the assistant may hold "tool_calls", and one of
        the role "tool" their result. Raises ModelError where the chat template cannot write them, and DataError where
        the assistant says nothing. `name` is what these call the row.
        """
        said = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
        if not said:
            raise DataError(f"conversation {name!r}: the assistant says nothing in it, so there is nothing to learn")
        turns = [_for_template(message) for message in messages]
        ids: list[int] = []
        learned: list[tuple[int, int]] = []
        done = ""
        for place in said:
            prompt = self._written(turns[:place], tools, name, answer_follows=True)
            whole = self._written(turns[: place + 1], tools, name, answer_follows=False)
            if not (prompt.startswith(done) and whole.startswith(prompt)):
                raise ModelError(
                    f"conversation {name!r}: the chat template writes earlier turns anew once others follow, so not "
                    'every turn can be learned in one text. Name another template, [model] chat_template = "..."'
                )
            self._refuse_lost_calls(turns[: place + 1], tools, whole, name)
            ids += self.encode([prompt[len(done) :]])[0]
            answer = self.encode([whole[len(prompt) :]])[0]
            end = answer.index(self.end) + 1 if self.end in answer else len(answer)
            learned.append((len(ids), len(ids) + end))
            ids += answer
            done = whole
        # What a template writes after the last end of a turn teaches nothing.
        return Row(tuple(ids[: learned[-1][1]]), learned[0][0], turns=tuple(learned))

    def _refuse_lost_calls(
        self, turns: Sequence[dict[str, Any]], tools: Sequence[Any] | None, whole: str, name: str
    ) -> None:
        """Many templates write no calls of tools: then a model would learn to say nothing in their place."""
        *before, last = turns
        if last.get("tool_calls"):
            without = {key: value for key, value in last.items() if key != "tool_calls"}
            if self._written([*before, without], tools, name, answer_follows=False) == whole:
                raise ModelError(
                    f"conversation {name!r}: the chat template writes no calls of tools. Use a model whose template "
                    'does, or name one, [model] chat_template = "FILE"'
                )

    def _written(
        self, turns: Sequence[dict[str, Any]], tools: Sequence[Any] | None, name: str, *, answer_follows: bool
    ) -> str:
        if self.template is None:
            raise ModelError(
                f"conversation {name!r}: the model has no chat template to write its turns with. Name one, [model] "
                'chat_template = "FILE"'
            )
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                list(turns),
                tools=list(tools) if tools else None,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=answer_follows,
            )
        except (TemplateError, TypeError) as error:
            raise ModelError(f"conversation {name!r}: the chat template cannot write it: {error}") from error
        return text

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


def _for_template(message: dict[str, Any]) -> dict[str, Any]:
    """A message as chat templates take it: with text as its content, and the arguments of calls as tables, which
    OpenAI's API writes as JSON."""
    turn = message | {"content": message.get("content") or ""}
    calls = []
    for call in message.get("tool_calls") or ():
        function = dict(call["function"])
        if isinstance(function.get("arguments"), str):
            with suppress(ValueError):
                function["arguments"] = json.loads(function["arguments"])
        calls.append({**call, "function": function})
    return turn | {"tool_calls": calls} if calls else turn


def values(file: Path, noun: str = "rows") -> list[dict[str, Any]]:
    """Return the rows of a JSONL file as they stand there. Raises DataError where there are none, which calls them by
    `noun`."""
    with file.open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines if line.strip()]
    if not found:
        raise DataError(f"{file} holds no {noun}, so there is nothing to learn from")
    return found


def within(made: Sequence[Row], limit: int, source: str) -> tuple[list[Row], Tally]:
    """Cut each row after `limit` tokens; those that then have nothing to learn are left out.

    Raises DataError where none is left.
    """
    rows: list[Row] = []
    cut = dropped = lost = 0
    for row in made:
        turns = tuple((start, min(end, limit)) for start, end in row.turns if start < limit)
        kept = replace(row, ids=row.ids[:limit], turns=turns)
        gone = not turns if row.turns else row.prompt >= limit
        lost += row.answers - (0 if gone else kept.answers)
        if gone:
            dropped += 1
            continue
        cut += len(row.ids) > limit
        rows.append(kept)
    if not rows:
        raise DataError(
            f"{source}: the prompt of every row has {limit} tokens or more, so no answer is left to learn from. "
            "Raise max_length, or use a model with a longer context or shorter prompts."
        )
    return rows, Tally(rows=len(made), cut=cut, dropped=dropped, lost_answer_tokens=lost)


def batches(
    lengths: Sequence[int],
    size: int,
    steps: int,
    *,
    seed: int,
    group_by_length: bool,
    weights: Sequence[float] | None = None,
) -> list[tuple[int, ...]]:
    """Plan which rows each of `steps` steps takes, `size` of them; every epoch takes every row once, or with `weights`
    so often: of a row of weight 1.5 one or two.

    The plan depends on the arguments alone, so that a resumed training goes on with the very batches it would have had.
    """
    planned: list[tuple[int, ...]] = []
    epoch = 0
    while len(planned) < steps:
        chance = random.Random(f"{seed} {epoch}")
        order = list(range(len(lengths)))
        chance.shuffle(order)
        if weights is not None:
            order = _repeated(order, weights, chance)
        planned.extend(_epoch(lengths, order, size, chance, group_by_length))
        epoch += 1
    return planned[:steps]


def epoch_rows(weights: Sequence[float]) -> int:
    """How many rows an epoch takes: the sum of the weights, rounded, and one at least."""
    return max(1, round(math.fsum(weights)))


def _repeated(order: Sequence[int], weights: Sequence[float], chance: random.Random) -> list[int]:
    """The rows of `order`, each as often as its weight says on average: with the next whole number below or above it
    (systematic sampling, Madow 1949)."""
    total = math.fsum(weights)
    count = epoch_rows(weights)
    drawn: list[int] = []
    start, reached = chance.random(), 0.0
    for row in order:
        reached += weights[row] * count / total
        # The marks lie at start, start + 1, start + 2, ...
        drawn += [row] * (min(count, math.ceil(reached - start)) - len(drawn))
    drawn += [order[-1]] * (count - len(drawn))  # Where the sum of the shares was rounded down.
    chance.shuffle(drawn)
    return drawn


def _epoch(
    lengths: Sequence[int], order: Sequence[int], size: int, chance: random.Random, group_by_length: bool
) -> Iterator[tuple[int, ...]]:
    if not group_by_length:
        yield from (tuple(order[start : start + size]) for start in range(0, len(order), size))
        return
    made: list[tuple[int, ...]] = []
    for start in range(0, len(order), size * POOL):
        pool = sorted(order[start : start + size * POOL], key=lambda row: (lengths[row], row))
        made.extend(tuple(pool[first : first + size]) for first in range(0, len(pool), size))
    chance.shuffle(made)
    yield from made


def fills(lengths: Sequence[int], most_rows: int, most_tokens: int) -> list[list[int]]:
    """Cut the rows of a batch into parts that are laid end to end: at most `most_rows` each and `most_tokens` together
    (a longer row stands alone), the long ones first (first fit decreasing)."""
    made: list[tuple[list[int], int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        for place, (part, tokens) in enumerate(made):
            if len(part) < most_rows and tokens + lengths[row] <= most_tokens:
                made[place] = ([*part, row], tokens + lengths[row])
                break
        else:
            made.append(([row], lengths[row]))
    return [part for part, _ in made]


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
