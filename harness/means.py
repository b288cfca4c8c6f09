"""What a metric may use beside the answers while one step is scored: an embedder, a model, likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness import replies
from harness.plugins import Backend, Embedder, Embedding, Means, Metric, Session
from harness.records import Prediction, Reply, Request
from harness.step import Step

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Scoring(Means):
    """The `Means` of one scoring step. `embedding` and `judge` open what the metric names, and are called when it is
    first asked for; `gold` is the step that holds the likelihoods of the accepted answers, where there is one.

    `earlier` is the attempt at this step before, of which only what failed is asked again.

    `notes` and `details` are what the metric left to be kept beside its score; `replies` is all that its model said, by
    the number of the call and of the request.
    """

    def __init__(
        self,
        metric: Metric,
        step: Step,
        *,
        gold: Step | None,
        earlier: Step | None,
        embedding: Callable[[Embedder | None], Embedding | None],
        judge: Callable[[Backend | None], Session],
        progress: Callable[[int, int, Mapping[str, float]], None],
    ) -> None:
        self._metric, self._step, self._gold = metric, step, gold
        self._embedding, self._judge, self._progress = embedding, judge, progress
        self._before = replies.good(earlier.predictions() if earlier is not None else ())
        self._calls = 0
        self.replies: dict[str, Prediction] = {}
        self.notes: list[str] = []
        self.details: dict[str, Any] = {}

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        embedding = self._embedding(self._metric.embedder_plugin)
        assert embedding is not None, "a metric that embeds names its embedder_plugin"
        return embedding.embed(texts, role="document")

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Each batch is kept as it is answered: after a kill the step goes on from there. What failed then is asked
        again, since a step of which all requests failed never ends, and must not stay so for ever."""
        session = self._judge(self._metric.backend_plugin)
        asked = {f"{self._calls}.{place}": request for place, request in enumerate(requests)}
        self._calls += 1
        before = _same(asked, self._before)
        wanted = {id: request for id, request in asked.items() if id not in before}

        def progress(done: int, total: int) -> None:
            self._progress(len(before) + done, len(asked), {})

        with self._step.answers() as kept:
            found = _same(wanted, replies.good(one for batch in kept.batches for one in batch))
            replies.ask(session, wanted, found, kept.append, progress)
        found |= before
        self.replies |= {id: found[id] for id in asked}
        return [found[id].calls[0].reply for id in asked]

    def gold(self) -> Sequence[Prediction]:
        assert self._gold is not None, "a metric that asks for it says needs_gold"
        return list(self._gold.predictions())

    def note(self, text: str, details: Mapping[str, Any]) -> None:
        self.notes.append(text)
        self.details |= details


def _same(requests: Mapping[str, Request], kept: Mapping[str, Prediction]) -> dict[str, Prediction]:
    """What was kept of the very same requests."""
    return {id: kept[id] for id, one in requests.items() if id in kept and kept[id].calls[0].messages == one.messages}
