"""Answers by likelihood: which of a set of texts a model holds for the likeliest, and how sure of it that makes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from harness.records import Choice, Example, Normalise


def distinct_targets(examples: Iterable[Example]) -> tuple[str, ...]:
    """Return every accepted answer of `examples` once, sorted; empty ones are left out."""
    return tuple(sorted({target for example in examples for target in example.targets if target}))


def ranked(choices: Sequence[Choice], normalise: Normalise) -> tuple[str, tuple[Choice, ...]]:
    """Return the likeliest text and the choices with the `score` that says so; of equal ones the first wins.

    `normalise` "none" ranks by the summed log-probability, which favours short texts (`acc` of lm-evaluation-harness);
    "bytes" by its mean over the text's bytes in UTF-8 (`acc_bytes` there, and for plain English also `acc_norm`, which
    divides by characters); "tokens" by its mean over the tokens.
    """
    scored = tuple(replace(choice, score=choice.logprob / max(1, _length(choice, normalise))) for choice in choices)
    best = max(scored, key=_score)
    return best.text, scored


def _length(choice: Choice, normalise: Normalise) -> int:
    return {"none": 1, "tokens": choice.tokens, "bytes": choice.bytes}[normalise]


def _score(choice: Choice) -> float:
    return choice.logprob if choice.score is None else choice.score


def probabilities(choices: Sequence[Choice]) -> tuple[float, ...]:
    """Return each choice's share of the probability that the choices have together: the softmax of their scores."""
    if not choices:
        return ()
    highest = max(map(_score, choices))
    weights = [math.exp(_score(choice) - highest) for choice in choices]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)
