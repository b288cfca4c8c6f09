"""Means for metrics under test: nothing to embed with, nobody to ask, unless a test says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.plugins import Means
from harness.records import Prediction, Reply, Request


def _nothing(_: Any) -> Any:
    raise AssertionError("this metric was not given what it asks for")


@dataclass(frozen=True)
class Given(Means):
    """Embeds with `embedding`, answers with `reply`, and holds the likelihoods of the accepted answers in `weighed`."""

    embedding: Callable[[Sequence[str]], Any] = _nothing
    reply: Callable[[Request], Reply] = _nothing
    weighed: Sequence[Prediction] | None = None

    def embed(self, texts: Sequence[str]) -> Any:
        return self.embedding(texts)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        return [self.reply(request) for request in requests]

    def gold(self) -> Sequence[Prediction]:
        return _nothing(None) if self.weighed is None else self.weighed


NO_MEANS = Given()
