"""Likelihoods of texts that could follow a prompt: each prompt is computed once, and what its texts share once too.

The texts of one prompt form a tree of tokens: "card_arrival" and "card_linking" have the branch "card_" in common. Its
nodes are the new tokens of one row of a forward pass, in which each sees the prompt, the nodes that lead to it and
itself. The last token of a text is only predicted, never read, so it is no node. (Tree attention: SpecInfer, arXiv
2305.09781.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from harness.backends._decoding import Engine, PlainEngine, Prefix, SlotEngine, portions
from harness.choices import ranked
from harness.records import Choice, Reply, Request

HEAD_ROWS = 512
"""Positions whose logits are held at once: with 150,000 words of vocabulary they take 300 MB in float32."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The tokens of some texts as a tree. Node n has the token `tokens[n]`, `depth[n]` nodes above it and the parent
    `parents[n]`, which stands before it; -1 is the prompt's end. `steps` says for each text which predictions make it
    up: (node after which, token)."""

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depth: tuple[int, ...]
    steps: tuple[tuple[tuple[int, int], ...], ...]


@lru_cache(256)
def _kept(texts: tuple[tuple[int, ...], ...]) -> Tree:
    nodes: dict[tuple[int, int], int] = {}
    tokens: list[int] = []
    parents: list[int] = []
    depth: list[int] = []
    steps = []
    for text in texts:
        at, made = -1, []
        for place, token in enumerate(text):
            made.append((at, token))
            if place == len(text) - 1:
                break
            if (at, token) not in nodes:
                nodes[at, token] = len(tokens)
                tokens.append(token)
                parents.append(at)
                depth.append(place)
            at = nodes[at, token]
        steps.append(tuple(made))
    return Tree(tuple(tokens), tuple(parents), tuple(depth), tuple(steps))


def tree(texts: Sequence[Sequence[int]]) -> Tree:
    """Return the tree of some texts' tokens. An empty text has no step: its probability is 1."""
    return _kept(tuple(tuple(text) for text in texts))


def size(texts: Sequence[Sequence[int]], *, together: bool) -> tuple[int, int]:
    """Return how many rows of a batch a prompt with these texts takes, and how many tokens after the prompt."""
    return (1, len(tree(texts).tokens) + 1) if together else (len(texts), max(map(len, texts)))


@dataclass(slots=True, kw_only=True)
class Row:
    """One prompt and the texts that could follow it. `prompt` is what follows the shared prefix."""

    prompt: list[int]
    texts: tuple[tuple[int, ...], ...]
    logprobs: list[float] = field(default_factory=list)

    @property
    def tree(self) -> Tree:
        return tree(self.texts)

    def reply(self, request: Request, shared: int, seconds: float) -> Reply:
        """What answers `request`, whose choices were weighed here; `shared` tokens of its prompt came from a prefix."""
        weighed = [
            Choice(text=text, logprob=logprob, tokens=len(tokens), bytes=len(text.encode()))
            for text, logprob, tokens in zip(request.decoding.choices, self.logprobs, self.texts, strict=True)
        ]
        best, ranks = ranked(weighed, request.decoding.normalise)
        return Reply(
            texts=(best,) * request.n,
            input_tokens=shared + len(self.prompt) + len(self.tree.tokens),
            cached_tokens=shared,
            seconds=seconds,
            choices=ranks,
        )


def weigh(engine: Engine, rows: Sequence[Row], prefix: Prefix | None) -> None:
    """Fill in `logprobs` of each row: natural, summed over each text's tokens, in the order of its texts."""
    if isinstance(engine, SlotEngine):
        _weigh_trees(engine, rows, prefix)
    else:
        assert isinstance(engine, PlainEngine)
        for row in rows:
            row.logprobs = [0.0] * len(row.texts)
            _weigh_apart(engine, row)


def _weigh_trees(engine: SlotEngine, rows: Sequence[Row], prefix: Prefix | None) -> None:
    trees = [row.tree for row in rows]
    widest = max(len(own.tokens) for own in trees)
    first = _logprobs(engine.start([row.prompt for row in rows], prefix, widest + 1))
    found = [_picked(first[place : place + 1], own, range(-1, 0)) for place, own in enumerate(trees)]
    order = sorted(range(len(rows)), key=lambda place: (-len(trees[place].tokens), place))
    order = [place for place in order if trees[place].tokens]
    for start, size in portions([len(trees[place].tokens) for place in order], engine.portion):
        which = order[start : start + size]
        part = [trees[place] for place in which]
        hidden = engine.branch(which, [(own.tokens, own.parents, own.depth) for own in part])
        for lines, place, own in zip(hidden, which, part, strict=True):
            for low in range(0, len(own.tokens), HEAD_ROWS):
                nodes = range(low, min(len(own.tokens), low + HEAD_ROWS))
                found[place] |= _picked(_logprobs(engine.logits(lines[nodes.start : nodes.stop])), own, nodes)
    for row, own, known in zip(rows, trees, found, strict=True):
        row.logprobs = [float(sum(known[step] for step in steps)) for steps in own.steps]


def _logprobs(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1)


def _picked(logprobs: Tensor, own: Tree, nodes: range) -> dict[tuple[int, int], float]:
    """The predictions of a tree that are made after `nodes`, of which `logprobs` holds a line each."""
    wanted = sorted({step for steps in own.steps for step in steps if step[0] in nodes})
    if not wanted:
        return {}
    lines = torch.tensor([node - nodes.start for node, _ in wanted], device=logprobs.device)
    tokens = torch.tensor([token for _, token in wanted], device=logprobs.device)
    return dict(zip(wanted, logprobs[lines, tokens].double().tolist(), strict=True))


def _weigh_apart(engine: PlainEngine, row: Row) -> None:
    """Any other model: each text after its own copy of the prompt, in portions of equal padding."""
    order = sorted((len(text), place) for place, text in enumerate(row.texts) if text)
    for start, size in portions([len(row.prompt) + length for length, _ in order], engine.portion):
        places = [place for _, place in order[start : start + size]]
        texts = [row.texts[place] for place in places]
        longest = max(map(len, texts))
        logits = engine.read([[*row.prompt, *text[:-1]] for text in texts], longest)
        for place, text, lines in zip(places, texts, logits, strict=True):
            known = _logprobs(lines[longest - len(text) :])
            tokens = torch.tensor(text, device=known.device)
            row.logprobs[place] = float(known.gather(1, tokens[:, None]).double().sum())
