"""Prompts, and the answers that a policy gives to them while it learns.

Imported where a training begins and nowhere else.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from harness.errors import DataError, ModelError
from harness.methods import _rows
from harness.methods._rows import Renderer, Row
from harness.records import Example, Message, Role, load

ROWS = {"cpu": 64, "cuda": 512}
TOKENS = {"cpu": 16_384, "cuda": 524_288}
"""Answers that are written at once, and what they and their prompts may take of the cache, padding included."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked: `ids` are the very tokens that it will be asked with later, `text` what they stand for.
    `example` is the example behind it; one made of the question alone where the prompt comes from preferences."""

    id: str
    messages: tuple[Message, ...]
    text: str
    ids: tuple[int, ...]
    example: Example


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it was sampled: `ids` are its tokens, the one that ended it included; `text` is without it. It did
    not end (`ended`) where it came to the limit of tokens."""

    prompt: Prompt
    ids: tuple[int, ...]
    text: str
    ended: bool

    @property
    def row(self) -> Row:
        return Row((*self.prompt.ids, *self.ids), len(self.prompt.ids))


def read(
    file: Path, renderer: Renderer, most: int, *, setting: str = "max_tokens"
) -> tuple[list[Prompt], dict[str, int]]:
    """Read the prompts of a JSONL file of examples or of preferences, each prompt of the latter once. Prompts of more
    than `most` tokens are left out: an answer would have no room. `setting` is what messages call its length.

    Returns the prompts, and how many there are and were left out. Raises DataError where none is left.
    """
    values = _rows.values(file, "prompts")
    conversations = [tuple(Message(cast(Role, m["role"]), m["content"]) for m in value["messages"]) for value in values]
    texts = [renderer.text(messages) for messages in conversations]
    ids = renderer.prompts(conversations)
    found: list[Prompt] = []
    seen: set[str] = set()
    long = 0
    for value, messages, text, tokens in zip(values, conversations, texts, ids, strict=True):
        if "example" in value:
            example = load(Example, value["example"])
        elif text not in seen:
            example = Example(id=value["id"], input=messages[-1].content)
        else:
            continue
        seen.add(text)
        if len(tokens) > most:
            long += 1
        else:
            found.append(Prompt(value["id"], messages, text, tuple(tokens), example))
    if not found:
        raise DataError(
            f"{file}: every prompt has more than {most} tokens, so no answer has room after it. Lower {setting}, "
            "raise max_length, or use a model with a longer context or shorter prompts."
        )
    return found, {"prompts": len(found), "prompts_too_long": long}


def plan(prompts: int, size: int, rounds: int, seed: int) -> list[tuple[int, ...]]:
    """Plan which of so many prompts each of the `rounds` takes, `size` of them: one pass over all of them, in a random
    order, after another. It depends on the arguments alone, so a resumed training goes on with the same prompts."""
    order: list[int] = []
    epoch = 0
    while len(order) < size * rounds:
        once = list(range(prompts))
        random.Random(f"{seed} {epoch}").shuffle(once)
        order += once
        epoch += 1
    return [tuple(order[first : first + size]) for first in range(0, size * rounds, size)]


class Sampler:
    """Samples answers from a model with a cache, prompts of like length together; finished answers leave their batch.
    Random numbers come from torch's generator; a temperature of 0 takes the likeliest token."""

    def __init__(
        self, model: Any, renderer: Renderer, ends: frozenset[int], *, temperature: float, most: int, autocast: bool
    ) -> None:
        self.model, self.renderer, self.ends = model, renderer, ends
        self.temperature, self.most, self.autocast = temperature, most, autocast

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Sample an answer to each prompt, of at most `most` tokens."""
        return [
            self.made(prompt, ids) for prompt, ids in zip(prompts, self.sample([p.ids for p in prompts]), strict=True)
        ]

    def made(self, prompt: Prompt, ids: Sequence[int]) -> Answer:
        """The answer that has these tokens."""
        ended = ids[-1] in self.ends
        text: str = self.renderer.tokenizer.decode(
            list(ids[:-1] if ended else ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Answer(prompt, tuple(ids), text, ended)

    def sample(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return the new tokens after each prompt, the one that ends the answer included."""
        kind = "cpu" if self.model.device.type == "cpu" else "cuda"
        found: list[list[int]] = [[] for _ in prompts]
        lengths = [len(prompt) + self.most for prompt in prompts]
        config = getattr(self.model, "active_peft_config", None)
        grow = self._generate if getattr(config, "is_prompt_learning", False) else self._grow
        with self._ready():
            for part in _rows.parts(lengths, ROWS[kind], TOKENS[kind]):
                for place, ids in zip(part, grow([prompts[place] for place in part]), strict=True):
                    found[place] = ids
        return found

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """Without gradients and what is for training only: gradient checkpointing would keep no cache."""
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad(), torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.autocast):
                yield
        finally:
            self.model.train(training)

    def _grow(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        from transformers import DynamicCache

        ids, mask = self._padded(prompts)
        cache = DynamicCache(config=self.model.config)
        found: list[list[int]] = [[] for _ in prompts]
        rows = list(range(len(prompts)))
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        while True:
            logits = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]  # fmt: skip
            drawn = self._draw(logits.float())
            for row, token in zip(rows, drawn[:, 0].tolist(), strict=True):
                found[row].append(token)
            going = [place for place, row in enumerate(rows) if found[row][-1] not in self.ends]
            if not going or len(found[rows[0]]) == self.most:
                return found
            if len(going) < len(rows):
                kept = torch.tensor(going, device=ids.device)
                cache.batch_select_indices(kept)
                drawn, mask, positions = drawn[kept], mask[kept], positions[kept]
                rows = [rows[place] for place in going]
            ids, positions = drawn, positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)

    def _draw(self, logits: Tensor) -> Tensor:
        """One token a row (rows, 1) by `logits` (rows, vocabulary)."""
        if not self.temperature:
            return logits.argmax(-1, keepdim=True)
        chances = (logits / self.temperature).softmax(-1)
        if chances.isnan().any():
            raise ModelError(
                "training broke: the model no longer gives probabilities that answers could be sampled from. Lower "
                'learning_rate, raise warmup, or set dtype = "float32".'
            )
        return torch.multinomial(chances, 1)

    def _generate(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """The same through PEFT's own `generate`, which puts trained tokens where they belong."""
        from transformers import GenerationConfig

        ids, mask = self._padded(prompts)
        config = GenerationConfig(
            do_sample=bool(self.temperature),
            temperature=self.temperature or 1.0,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            max_new_tokens=self.most,
            eos_token_id=sorted(self.ends),
            pad_token_id=min(self.ends),
        )
        made = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        found = []
        for row in made[:, ids.shape[1] :].tolist():
            end = next((place for place, token in enumerate(row) if token in self.ends), len(row))
            found.append(row[: end + 1])
        return found

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Prompts padded on the left, and which of the tokens are theirs; both (prompts, tokens)."""
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[*[0] * (longest - len(prompt)), *prompt] for prompt in prompts])
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        mask = (torch.arange(longest)[None] >= longest - lengths[:, None]).long()
        return ids.to(self.model.device), mask.to(self.model.device)
