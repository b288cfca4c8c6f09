"""Keys and values of a batch that is being decoded, and attention over them.

What `generate` of transformers pays for and this does not: its cache grows by copying, each key/value head is repeated
for its query heads, and a prefix that all rows share is stored and read once a row. Here the cache is allocated once;
the query heads of one key/value head attend together as rows of one product; a long shared prefix is kept once for the
whole batch.

Slots and rows: row r of a batch has its own keys in slots 0..slots-1, in the order of its tokens. Rows of unequal
prompt length leave slots unused between prompt and answer; `valid` says which hold something. Positions (RoPE) are
counted without the unused slots.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "harness-slots"

ARCHITECTURES = frozenset({"llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "olmo2"})
"""Model types with plain softmax attention and a head that is one linear layer; tests check them against `generate`."""


def supports(config: Any) -> bool:
    """Whether models of this configuration can be decoded with `Slots`."""
    layers = set(getattr(config, "layer_types", None) or {"full_attention"})
    windowed = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None)
    return config.model_type in ARCHITECTURES and layers == {"full_attention"} and not windowed


class Slots:
    """The keys and values of `rows` rows; stands in for transformers' cache while a model runs.

    `prefix` holds, a layer each, keys and values of shape (1, heads, length, width) that come before all rows' own.
    """

    is_compileable = False

    def __init__(self, rows: int, slots: int, prefix: list[tuple[Tensor, Tensor]] | None = None) -> None:
        self.rows, self.slots = rows, slots
        self.prefix = prefix
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.valid: Tensor | None = None
        """Which slots of each row hold a token, shape (rows, slots); None while all do."""
        self.mask: Tensor | None = None
        """Which stored tokens the new ones attend to; None for all before them."""
        self._which: slice | Tensor = slice(0, rows)
        self._first = self._end = 0
        self._places: Tensor | None = None

    def get_seq_length(self, layer: int = 0) -> int:
        return self._first

    def copy_in(self, prefix: list[tuple[Tensor, Tensor]]) -> None:
        """Put a prefix into the first slots of every row, instead of keeping it apart."""
        for layer, (keys, values) in enumerate(prefix):
            kept_keys, kept_values = self._layer(layer, keys, values)
            kept_keys[:, :, : keys.shape[2]] = keys
            kept_values[:, :, : values.shape[2]] = values

    def copy_rows(self, source: int, targets: list[int], first: int, last: int) -> None:
        """Give the rows `targets` what row `source` holds in slots first..last-1."""
        for pair in self.layers:
            for kept in pair:
                kept[targets, :, first:last] = kept[source, :, first:last]

    def prefill(self, which: list[int], first: int, new: int) -> None:
        """Let the next forward pass fill slots first..first+new-1 of the rows `which`."""
        run = which == list(range(which[0], which[0] + len(which)))
        self._which = slice(which[0], which[0] + len(which)) if run else torch.tensor(which)
        self._first, self._end, self._places, self.mask = first, first + new, None, None

    def prefill_from(self, which: list[int], firsts: list[int], new: int, device: torch.device) -> None:
        """Let the next forward pass fill `new` slots of each of the rows `which`, from a slot of its own on."""
        self._which = torch.tensor(which, device=device)
        places = torch.tensor(firsts, device=device)[:, None] + torch.arange(new, device=device)
        self._end = min(max(firsts) + new, self.slots)
        self.mask = (torch.arange(self._end, device=device) <= places[..., None])[:, None]
        # Padding may reach past the last slot; the one after it, which nothing reads, takes it.
        self._places = places.clamp(max=self.slots)
        self._first = min(firsts)

    def branch(self, which: list[int], first: int, seen: Tensor, prompts: list[int]) -> None:
        """Let the next forward pass fill slots from `first` on of the rows `which` with tokens that see what `seen`
        says of each other, shape (rows, new, new), and the first `prompts` slots of their row."""
        new = seen.shape[1]
        self.prefill(which, first, new)
        before = torch.arange(first, device=seen.device) < torch.tensor(prompts, device=seen.device)[:, None]
        self.mask = torch.cat([before[:, None].expand(-1, new, -1), seen], dim=2)[:, None]

    def step(self, at: int) -> None:
        """Let the next forward pass fill slot `at` of every row with one token."""
        self._which, self._first, self._end, self._places = slice(0, self.rows), at, at + 1, None
        self.mask = None if self.valid is None else self.valid[: self.rows, None, None, : at + 1]

    def keep(self, order: list[int]) -> None:
        """Keep the rows `order`, in that order. Rows that stay where they are are not copied."""
        for new, old in enumerate(order):
            if new != old:
                for keys, values in self.layers:
                    keys[new] = keys[old]
                    values[new] = values[old]
                if self.valid is not None:
                    self.valid[new] = self.valid[old]
        self.rows = len(order)

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Store what a layer computed and return what its queries attend to besides the prefix."""
        return self._store(self._layer(layer, keys, values)[0], keys), self._store(self.layers[layer][1], values)

    def _store(self, kept: Tensor, new: Tensor) -> Tensor:
        if self._places is not None:
            assert isinstance(self._which, Tensor)
            kept.transpose(1, 2)[self._which[:, None], self._places] = new.transpose(1, 2)
        else:
            kept[self._which, :, self._first : self._end] = new
            if self._first == 0:
                return new
        return kept[self._which, :, : self._end]

    def _layer(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if layer == len(self.layers):
            shape = (self.rows, keys.shape[1], self.slots + 1)
            # Zeros: a slot that is masked still enters the products, where what memory happened to hold could be NaN.
            self.layers.append((keys.new_zeros((*shape, keys.shape[3])), values.new_zeros((*shape, values.shape[3]))))
        return self.layers[layer]


def attend(
    module: torch.nn.Module,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    slots: Slots | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention in the form that transformers' `AttentionInterface` asks for; causal within the new tokens.

    `query` has shape (rows, query heads, new tokens, width), `keys` (rows, heads, stored tokens, width).
    """
    assert slots is not None
    prefix = slots.prefix[module.layer_idx] if slots.prefix else None  # type: ignore[index]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.shape[2] > 1:
        mixed = _attend_many(query, keys, values, scale, prefix, slots.mask)
    else:
        mixed = _attend_one(query, keys, values, scale, prefix, slots.mask)
    return mixed.transpose(1, 2), None


def _attend_many(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, prefix: tuple[Tensor, Tensor] | None, mask: Tensor | None
) -> Tensor:
    """Prompts: padding stands at the end of a row, where causality hides it from every real token."""
    rows, new, own = query.shape[0], query.shape[2], keys.shape[2]
    if prefix is not None:
        keys = torch.cat([prefix[0].expand(rows, -1, -1, -1), keys], dim=2)
        values = torch.cat([prefix[1].expand(rows, -1, -1, -1), values], dim=2)
    if mask is not None:
        mask = torch.nn.functional.pad(mask, (keys.shape[2] - own, 0), value=True)
    elif keys.shape[2] > new:
        mask = torch.ones(new, keys.shape[2], dtype=torch.bool, device=query.device).tril(keys.shape[2] - new)
    grouped = keys.shape[1] != query.shape[1]
    return scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=grouped
    )


def _attend_one(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, prefix: tuple[Tensor, Tensor] | None, mask: Tensor | None
) -> Tensor:
    """One new token a row. The query heads of a key/value head are rows of one product, so nothing is repeated."""
    rows, heads, width = query.shape[0], keys.shape[1], query.shape[3]
    query = query.reshape(rows, heads, -1, width)
    if prefix is None:
        mixed = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
        return mixed.reshape(rows, -1, 1, width)
    return _with_prefix(query, keys, values, scale, prefix, mask).reshape(rows, -1, 1, values.shape[3])


def _with_prefix(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, prefix: tuple[Tensor, Tensor], mask: Tensor | None
) -> Tensor:
    """One softmax over a prefix read once for all rows and over each row's own keys; shape as `query`."""
    rows, heads, group, width = query.shape
    query = query * scale
    shared = query.transpose(0, 1).reshape(heads, rows * group, width)
    to_prefix = (shared @ prefix[0][0].transpose(1, 2)).view(heads, rows, group, -1).transpose(0, 1)
    to_own = query @ keys.transpose(2, 3)
    if mask is not None:
        to_own = to_own.masked_fill(~mask, float("-inf"))
    weights = torch.cat([to_prefix, to_own], dim=-1).softmax(-1, dtype=torch.float32).to(query.dtype)
    length = to_prefix.shape[-1]
    of_prefix = weights[..., :length].transpose(0, 1).reshape(heads, rows * group, length) @ prefix[1][0]
    return of_prefix.view(heads, rows, group, -1).transpose(0, 1) + weights[..., length:] @ values
