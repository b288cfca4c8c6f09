"""The decode loop: rows of a batch are answered together, each until its own end.

Two engines run a model under it. `SlotEngine` is fast and serves the architectures that `_attention` knows;
`PlainEngine` serves every other causal model through transformers' own cache and masks. What they compute depends on
the rows given and on nothing that ran before: buffers have sizes that follow from the batch alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from harness.backends import _attention

PREFILL_TOKENS = {"cpu": 512, "cuda": 16384}
"""Prompt tokens in one forward pass. On a CPU 512 fill the vector units as well as more do, and their activations stay
small enough that the C library keeps the memory: with 2,048 a sixth of the time went into page faults."""

SHORTEST_FAMILY = 32
"""What a few prompts of a batch start with is computed once from this many tokens on."""

COPY_BELOW = 128
"""A shared prefix shorter than this is copied into every row: the products of keeping it apart would cost more."""


@dataclass(slots=True, kw_only=True)
class Row:
    """One text being generated. `prompt` is what follows the shared prefix, `limit` how many tokens may be added."""

    prompt: list[int]
    limit: int
    temperature: float = 0.0
    top_p: float = 1.0
    draws: np.ndarray[Any, np.dtype[np.float64]] | None = None
    """Uniform numbers in [0, 1), one for each new token, for sampling."""
    ends_with_stop: Callable[[list[int]], bool] | None = None
    added: list[int] = field(default_factory=list)
    finish: Literal["stop", "length"] = "length"


Prefix = list[tuple[Tensor, Tensor]]
"""The keys and values of a layer each, of shape (1, heads, tokens, width)."""

Virtual = Prefix | Tensor
"""Trained tokens that stand before every text: what they are to every layer, as prefix tuning learns them (arXiv
2101.00190), or their embeddings, of shape (1, tokens, width), as prompt tuning does (arXiv 2104.08691)."""


class Engine(ABC):
    """Runs a model over a batch: `start` with the prompts, then `step` by step, `keep` to drop finished rows."""

    virtual: Prefix | None = None

    def begin_with(self, virtual: Virtual | None) -> None:
        """Begin every text with these trained tokens. Under a causal mask what follows does not change them, so what
        they are to the layers is computed once. Real tokens are counted after them, as PEFT does."""
        self.virtual = self._computed(virtual) if isinstance(virtual, Tensor) else virtual

    @property
    def virtual_tokens(self) -> int:
        return self.virtual[0][0].shape[2] if self.virtual else 0

    @abstractmethod
    def _computed(self, embedded: Tensor) -> Prefix:
        """Return the keys and values of tokens that are given as embeddings."""

    @abstractmethod
    def start(self, prompts: Sequence[Sequence[int]], prefix: Prefix | None, room: int) -> Tensor:
        """Return the logits after each prompt, shape (rows, vocabulary). `room` tokens may follow."""

    @abstractmethod
    def step(self, tokens: list[int]) -> Tensor: ...

    @abstractmethod
    def keep(self, order: list[int]) -> None: ...


def lay_out(model: Any) -> None:
    """Store the weights of linear layers the way in which small batches multiply fastest, with unchanged values.

    torch multiplies by the transpose of a weight; for float32 on CPUs the library behind it is 1.2 to 2 times as fast
    with 8 to 64 rows when that transpose is what lies in memory row by row (measured: 177 against 118 GFLOP/s at 32).
    The output head often shares its weight with the input embedding, whose rows must stay together: see `logits`.
    """
    if model.dtype != torch.float32 or model.device.type != "cpu":
        return
    shared = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    for module in model.modules():
        if type(module) is torch.nn.Linear and id(module.weight) not in shared:
            module.weight.data = module.weight.data.t().contiguous().t()


class SlotEngine(Engine):
    def __init__(self, model: Any) -> None:
        self.model = model
        self.device = model.device
        self.head = model.get_output_embeddings()
        self.portion = PREFILL_TOKENS["cpu" if self.device.type == "cpu" else "cuda"]

    def prefix(self, tokens: Sequence[int]) -> Prefix:
        """Compute the keys and values of a prefix, once for all batches that share it; it begins with the virtual
        tokens."""
        slots = _attention.Slots(1, len(tokens), self.virtual)
        slots.prefill([0], 0, len(tokens))
        self._forward([tokens], [self.virtual_tokens], slots)
        own = _kept(slots)
        if self.virtual is None:
            return own
        return [
            (torch.cat([before[0], after[0]], dim=2), torch.cat([before[1], after[1]], dim=2))
            for before, after in zip(self.virtual, own, strict=True)
        ]

    def _computed(self, embedded: Tensor) -> Prefix:
        slots = _attention.Slots(1, embedded.shape[1])
        slots.prefill([0], 0, embedded.shape[1])
        positions = torch.arange(embedded.shape[1], device=self.device)[None]
        self._run({"inputs_embeds": embedded}, positions, slots)
        return _kept(slots)

    def start(self, prompts: Sequence[Sequence[int]], prefix: Prefix | None, room: int) -> Tensor:
        prefix = prefix or self.virtual
        lengths = [len(prompt) for prompt in prompts]
        self.shared = prefix[0][0].shape[2] if prefix else 0
        self.own = self.shared if self.shared < COPY_BELOW else 0
        longest = max(lengths)
        self.slots = _attention.Slots(len(prompts), self.own + longest + room - 1, None if self.own else prefix)
        if self.own and prefix:
            self.slots.copy_in(prefix)
        done = self._prefill_families(prompts)
        rests = [list(prompt[first:]) for prompt, first in zip(prompts, done, strict=True)]
        order = sorted(range(len(prompts)), key=lambda row: (-len(rests[row]), row))
        last: list[Tensor] = [torch.empty(0)] * len(prompts)
        for first, size in portions([len(rests[row]) for row in order], self.portion):
            which = order[first : first + size]
            hidden = self._prefill(which, [rests[row] for row in which], [done[row] for row in which])
            for place, row in enumerate(which):
                last[row] = hidden[place, len(rests[row]) - 1]
        self.at = self.own + longest
        self.positions = torch.tensor(lengths, device=self.device) + self.shared
        if min(lengths) < longest:
            ends = torch.tensor(lengths, device=self.device)[:, None] + self.own
            slot = torch.arange(self.slots.slots, device=self.device)[None]
            self.slots.valid = (slot < ends) | (slot >= self.at)
        return self.logits(torch.stack(last))

    def _prefill_families(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Compute once what several prompts start with; return how much of each prompt that was."""
        done = [0] * len(prompts)
        found = [family for family in families(prompts) if family.shared]
        found.sort(key=lambda family: (-family.shared, family.members))
        for first, size in portions([family.shared for family in found], self.portion):
            part = found[first : first + size]
            heads = [family.members[0] for family in part]
            self._prefill(heads, [prompts[f.members[0]][: f.shared] for f in part], [0] * len(part))
        for family in found:
            self.slots.copy_rows(family.members[0], list(family.members[1:]), self.own, self.own + family.shared)
            for member in family.members:
                done[member] = family.shared
        return done

    def _prefill(self, which: list[int], tokens: Sequence[Sequence[int]], done: list[int]) -> Tensor:
        """Run a piece of some rows' prompts, padded at the end, after the `done` tokens of each that are stored."""
        new = max(len(piece) for piece in tokens)
        if any(done):
            self.slots.prefill_from(which, [self.own + first for first in done], new, self.device)
        else:
            self.slots.prefill(which, self.own, new)
        return self._forward(tokens, [self.shared + first for first in done], self.slots)

    def step(self, tokens: list[int]) -> Tensor:
        self.slots.step(self.at)
        new = {"input_ids": torch.tensor(tokens, device=self.device)[:, None]}
        hidden = self._run(new, self.positions[:, None], self.slots)
        self.at += 1
        self.positions += 1
        return self.logits(hidden[:, -1])

    def branch(self, which: list[int], trees: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]]) -> Tensor:
        """Return the hidden states of a tree of tokens after the prompt of each of the rows `which`, shape (rows, most
        nodes, width). A tree is the tokens of its nodes, the node before each (-1 is the prompt's end), and how many
        nodes stand before it; every node sees the prompt and those that lead to it."""
        new = max(len(tokens) for tokens, _, _ in trees)
        seen = torch.stack([_ancestors(tuple(parents), new) for _, parents, _ in trees])
        ends = [int(self.positions[row]) for row in which]
        self.slots.branch(which, self.at, seen.to(self.device), [end - self.shared + self.own for end in ends])
        padded = [[*tokens, *[0] * (new - len(tokens))] for tokens, _, _ in trees]
        places = [
            [end + above for above in (*depth, *[0] * (new - len(depth)))]
            for end, (_, _, depth) in zip(ends, trees, strict=True)
        ]
        nodes = {"input_ids": torch.tensor(padded, device=self.device)}
        return self._run(nodes, torch.tensor(places, device=self.device), self.slots)

    def keep(self, order: list[int]) -> None:
        self.slots.keep(order)
        self.positions = self.positions[torch.tensor(order, device=self.device)]

    def _forward(self, tokens: Sequence[Sequence[int]], firsts: list[int], slots: _attention.Slots) -> Tensor:
        """Return the hidden states of `tokens`, padded at the end, whose first ones stand at the positions `firsts`."""
        new = max(len(piece) for piece in tokens)
        padded = torch.tensor([[*piece, *[0] * (new - len(piece))] for piece in tokens], device=self.device)
        positions = torch.tensor(firsts, device=self.device)[:, None] + torch.arange(new, device=self.device)
        return self._run({"input_ids": padded}, positions, slots)

    def _run(self, new: dict[str, Tensor], positions: Tensor, slots: _attention.Slots) -> Tensor:
        output = self.model.base_model(
            **new, position_ids=positions, past_key_values=slots, use_cache=True, slots=slots
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        head = self.head
        if type(head) is torch.nn.Linear and head.bias is None and hidden.dtype == torch.float32:
            # The same product with the large factor first, which float32 libraries compute up to 1.6 times as fast.
            return (head.weight @ hidden.t()).t()
        logits: Tensor = head(hidden)
        return logits


def _kept(slots: _attention.Slots) -> Prefix:
    """What one row's slots hold, without the spare slot."""
    return [(keys[:, :, :-1].contiguous(), values[:, :, :-1].contiguous()) for keys, values in slots.layers]


@lru_cache(64)
def _ancestors(parents: tuple[int, ...], size: int) -> Tensor:
    """Which nodes of a tree each sees: itself and those that lead to it; shape (size, size). Padding sees itself."""
    seen = torch.eye(size, dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            seen[node] |= seen[parent]
    return seen


class PlainEngine(Engine):
    """Any causal model of transformers: left padding, its own masks, a growing cache; shares no prefix."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device = model.device
        self.portion = PREFILL_TOKENS["cpu" if self.device.type == "cpu" else "cuda"]

    def start(self, prompts: Sequence[Sequence[int]], prefix: Prefix | None, room: int) -> Tensor:
        assert prefix is None
        return self.read(prompts, 1)[:, -1]

    def read(self, rows: Sequence[Sequence[int]], keep: int) -> Tensor:
        """Return the logits after the last `keep` tokens of each row, shape (rows, keep, vocabulary); a row that has
        fewer holds nothing of use before its own."""
        from transformers import DynamicCache

        longest = max(len(row) for row in rows)
        padded = [[*[0] * (longest - len(row)), *row] for row in rows]
        lengths = torch.tensor([len(row) for row in rows], device=self.device)[:, None]
        own = (torch.arange(longest, device=self.device)[None] >= longest - lengths).long()
        self.mask = torch.cat([own.new_ones(len(rows), self.virtual_tokens), own], dim=1)
        self.cache = DynamicCache(config=self.model.config)
        for layer, (keys, values) in enumerate(self.virtual or ()):
            self.cache.update(keys.expand(len(rows), -1, -1, -1), values.expand(len(rows), -1, -1, -1), layer)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, self.virtual_tokens :]
        return self._forward(torch.tensor(padded, device=self.device), positions, keep)

    def _computed(self, embedded: Tensor) -> Prefix:
        from transformers import DynamicCache

        cache = DynamicCache()
        self.model(inputs_embeds=embedded, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return [(layer.keys, layer.values) for layer in cache.layers]

    def step(self, tokens: list[int]) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        positions = self.mask.sum(-1, keepdim=True) - 1
        return self._forward(torch.tensor(tokens, device=self.device)[:, None], positions, 1)[:, -1]

    def keep(self, order: list[int]) -> None:
        rows = torch.tensor(order, device=self.device)
        self.mask = self.mask[rows]
        self.cache.batch_select_indices(rows)

    def _forward(self, tokens: Tensor, positions: Tensor, keep: int) -> Tensor:
        output = self.model(
            input_ids=tokens,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits
        return logits


def decode(engine: Engine, rows: Sequence[Row], prefix: Prefix | None, ends: frozenset[int]) -> None:
    """Generate every row to its end: `added` and `finish` of each are filled in. `ends` are the end-of-text tokens."""
    active = list(rows)
    logits = engine.start([row.prompt for row in active], prefix, max(row.limit for row in active))
    while True:
        tokens = _choose(logits, active)
        going = []
        for place, (row, token) in enumerate(zip(active, tokens, strict=True)):
            row.added.append(token)
            if token in ends or (row.ends_with_stop is not None and row.ends_with_stop(row.added)):
                row.finish = "stop"
            elif len(row.added) < row.limit:
                going.append(place)
        if not going:
            return
        if len(going) < len(active):
            order = _closed_up(going)
            engine.keep(order)
            active = [active[place] for place in order]
            tokens = [tokens[place] for place in order]
        logits = engine.step(tokens)


def _closed_up(going: list[int]) -> list[int]:
    """Return the places `going` so that as few as possible move: the last ones fill the gaps."""
    stay = [place for place in going if place < len(going)]
    move = [place for place in going if place >= len(going)]
    there = set(stay)
    return [place if place in there else move.pop() for place in range(len(going))]


def _choose(logits: Tensor, rows: Sequence[Row]) -> list[int]:
    tokens: list[int] = logits.argmax(-1).tolist()
    for place, row in enumerate(rows):
        if row.draws is not None:
            tokens[place] = _sample(logits[place], row, float(row.draws[len(row.added)]))
    return tokens


def _sample(logits: Tensor, row: Row, draw: float) -> int:
    """Draw one token by inverting the cumulative distribution, cut to the nucleus of `top_p` (arXiv 1904.09751)."""
    probabilities, tokens = (logits.double() / row.temperature).softmax(-1).sort(descending=True, stable=True)
    cumulative = probabilities.cumsum(-1)
    nucleus = int((cumulative - probabilities < row.top_p).sum())
    place = int(torch.searchsorted(cumulative[:nucleus], draw * cumulative[nucleus - 1], right=True))
    return int(tokens[min(place, nucleus - 1)])


@dataclass(frozen=True, slots=True)
class Family:
    """Prompts that start with the same `shared` tokens, 0 for a prompt that stands alone. Each keeps one of its own."""

    members: tuple[int, ...]
    shared: int


def families(prompts: Sequence[Sequence[int]]) -> list[Family]:
    """Part `prompts` into families, each index in one of them: questions about one text, samples of one request.

    Neighbours in alphabetic order join as long as the tokens that need not be computed grow in number.
    """
    order = sorted(range(len(prompts)), key=lambda index: (list(prompts[index]), index))
    found: list[Family] = []
    members: list[int] = []
    shared = 0
    for index in order:
        if members:
            same = common(prompts[members[-1]], prompts[index])
            both = same if len(members) == 1 else min(shared, same)
            if both >= SHORTEST_FAMILY and both * len(members) >= shared * (len(members) - 1):
                members.append(index)
                shared = both
                continue
            found.append(Family(tuple(sorted(members)), shared))
        members, shared = [index], 0
    return [*found, Family(tuple(sorted(members)), shared)] if members else found


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both start with, less than either's length."""
    most = min(len(first), len(second)) - 1
    same = 0
    while same < most and first[same] == second[same]:
        same += 1
    return same


def portions(lengths: Sequence[int], budget: int) -> list[tuple[int, int]]:
    """Cut neighbouring rows into portions (first, size) of at most `budget` padded tokens, at least one row each."""
    if not lengths:
        return []
    portions = []
    first = longest = 0
    for place, length in enumerate(lengths):
        wider = max(longest, length)
        if place > first and wider * (place - first + 1) > budget:
            portions.append((first, place - first))
            first, wider = place, length
        longest = wider
    return [*portions, (first, len(lengths) - first)]
