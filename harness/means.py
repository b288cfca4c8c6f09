"""What a metric may use beside the answers while one step is scored: an embedder, a model, likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.plugins import Backend, Embedder, Embedding, Means, Metric, Session
from harness.records import Call, Prediction, Reply, Request
from harness.step import Step

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Scoring(Means):
    """The `Means` of one scoring step. `embedding` and `judge` open what the metric names, and are called when it is
    first asked for; `gold` is the step that holds the likelihoods of the accepted answers, where there is one.

    `notes` and `details` are what the metric left to be kept beside its score.
    """

    def __init__(
        self,
        metric: Metric,
        step: Step,
        *,
        gold: Step | None,
        embedding: Callable[[Embedder | None], Embedding | None],
        judge: Callable[[Backend | None], Session],
        progress: Callable[[int, int, Mapping[str, float]], None],
    ) -> None:
        self._metric, self._step, self._gold = metric, step, gold
        self._embedding, self._judge, self._progress = embedding, judge, progress
        self._asked = 0
        self.notes: list[str] = []
        self.details: dict[str, Any] = {}

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        embedding = self._embedding(self._metric.embedder_plugin)
        assert embedding is not None, "a metric that embeds names its embedder_plugin"
        return embedding.embed(texts, role="document")

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Each batch is kept as it is answered: after a kill the step goes on from there."""
        session = self._judge(self._metric.backend_plugin)
        plan = session.plan(requests)
        number, self._asked = self._asked, self._asked + 1
        replies: dict[int, Reply] = {}
        with self._step.answers() as kept:
            before = {one.id: one.calls[0] for batch in kept.batches for one in batch}
            for batch in plan.batches:
                calls = [before.get(f"{number}.{place}") for place in batch]
                asked = [requests[place] for place in batch]
                found = [call.reply for call in calls if call]
                if [call.messages for call in calls if call] != [request.messages for request in asked]:
                    found = session.answer(asked, plan)
                    said = zip(batch, asked, found, strict=True)
                    kept.append([as_kept(f"{number}.{place}", request, reply) for place, request, reply in said])
                replies |= dict(zip(batch, found, strict=True))
                self._progress(len(replies), len(requests), {})
        return [replies[place] for place in range(len(requests))]

    def gold(self) -> Sequence[Prediction]:
        assert self._gold is not None, "a metric that asks for it says needs_gold"
        return list(self._gold.predictions())

    def note(self, text: str, details: Mapping[str, Any]) -> None:
        self.notes.append(text)
        self.details |= details


def as_kept(id: str, request: Request, reply: Reply) -> Prediction:
    """Return what a judging model said as a step keeps it, with all that was asked."""
    text = reply.texts[0] if reply.texts else None
    return Prediction(id=id, text=text, calls=(Call(messages=request.messages, reply=reply),), error=reply.error)
