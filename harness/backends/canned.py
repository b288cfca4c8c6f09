"""Answers from a table instead of a model: for tests and dry trials. Needs no torch and answers in no time.

It is a backend like any other, so that a whole comparison can run through spec, prompts, store and leaderboard in a
second.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from harness.choices import ranked
from harness.errors import ModelError
from harness.plugins import Backend, Plan, Session
from harness.records import Choice, Message, Reply, Request, digest


class Canned(Backend):
    """Answers by the last user message: an entry of `answers` that equals it, else the longest entry that it contains,
    else `default`. Tokens are words."""

    likelihoods: ClassVar[bool] = True

    answers: dict[str, str] = Field(default_factory=dict)
    """What to answer, by the message or a part of it."""
    default: str = "I don't know."
    """The answer where no entry fits; "{input}" in it becomes the last user message."""
    fail_on: tuple[str, ...] = ()
    """Messages that contain one of these get an error instead of an answer."""
    delay_seconds: float = Field(0.0, ge=0)
    """How long each answer takes."""
    context_length: int = Field(4096, ge=1)
    """Words that a prompt may have; longer ones get an error."""
    max_batch: int = Field(16, ge=1)
    """Requests that are answered together."""

    def fingerprint(self) -> dict[str, Any]:
        decides = self.model_dump(mode="json", exclude={"delay_seconds", "max_batch"})
        return {"weights": digest(decides), "dtype": "none", "template": "none"}

    def open(self) -> Session:
        return CannedSession(self)


class CannedSession(Session):
    device = "none"
    dtype = "none"

    def __init__(self, backend: Canned) -> None:
        self.backend = backend
        self.context_length = backend.context_length

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)

    def attach(self, artifact: Path | None) -> None:
        if artifact is not None:
            raise ModelError(
                f'canned answers have no weights that {artifact} could change; use `kind = "transformers"`'
            )

    def plan(self, requests: Sequence[Request]) -> Plan:
        size = self.backend.max_batch
        firsts = range(0, len(requests), size)
        batches = tuple(tuple(range(first, min(first + size, len(requests)))) for first in firsts)
        return Plan(batches=batches, settings={"max_batch": size})

    def answer(self, requests: Sequence[Request], plan: Plan, *, seed: int = 0) -> list[Reply]:
        return [self._reply(request) for request in requests]

    def close(self) -> None:
        """Nothing is held."""

    def _reply(self, request: Request) -> Reply:
        begun = time.perf_counter()
        time.sleep(self.backend.delay_seconds)
        asked = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
        words = self.count(request.messages)
        error = None
        if words >= self.context_length:
            error = f"the prompt has {words} words and the context holds {self.context_length}, the answer included"
        elif any(part in asked for part in self.backend.fail_on):
            error = "this message is in `fail_on`"
        if error is not None:
            return Reply(error=error, finish="error", seconds=time.perf_counter() - begun)
        if request.decoding.choices:
            return self._weighed(request, self._find(asked), words, begun)
        text = self._find(asked)
        for stop in request.decoding.stop:
            text = text.partition(stop)[0]
        kept = " ".join(text.split()[: request.decoding.max_tokens])
        cut = len(text.split()) > request.decoding.max_tokens
        return Reply(
            texts=(kept if cut else text,) * request.n,
            input_tokens=words,
            output_tokens=len(kept.split()) * request.n,
            seconds=time.perf_counter() - begun,
            finish="length" if cut else "stop",
        )

    def _weighed(self, request: Request, answer: str, words: int, begun: float) -> Reply:
        """The canned answer is as likely as not; each word to be added or dropped to make it divides that by 1,024."""
        choices = request.decoding.choices
        weighed = []
        for text in choices:
            missing, extra = Counter(answer.split()), Counter(text.split())
            changes = ((missing - extra) + (extra - missing)).total()
            logprob = -math.log(2) - changes * math.log(1024)
            weighed.append(Choice(text=text, logprob=logprob, tokens=len(text.split()), bytes=len(text.encode())))
        best, ranks = ranked(weighed, request.decoding.normalise)
        return Reply(
            texts=(best,) * request.n,
            input_tokens=words + sum(choice.tokens for choice in ranks),
            seconds=time.perf_counter() - begun,
            choices=ranks,
        )

    def _find(self, asked: str) -> str:
        answers = self.backend.answers
        if asked in answers:
            return answers[asked]
        part = max((key for key in answers if key in asked), key=len, default=None)
        return self.backend.default.replace("{input}", asked) if part is None else answers[part]
