"""What a metric may use beside the answers while one step is scored: an embedder, a model, likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
        self._before = _good(earlier.predictions() if earlier is not None else ())
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
        ids = [f"{self._calls}.{place}" for place in range(len(requests))]
        self._calls += 1
        found = _same(ids, requests, self._before)
        wanted = [place for place, id in enumerate(ids) if id not in found]
        plan = session.plan([requests[place] for place in wanted])
        with self._step.answers() as kept:
            found |= _same(ids, requests, _good(one for batch in kept.batches for one in batch))
            for batch in plan.batches:
                missing = [wanted[place] for place in batch if ids[wanted[place]] not in found]
                if missing:
                    said = session.answer([requests[place] for place in missing], plan)
                    made = [as_kept(ids[p], requests[p], reply) for p, reply in zip(missing, said, strict=True)]
                    kept.append(made)
                    found |= {one.id: one for one in made}
                self._progress(len(found), len(requests), {})
        self.replies |= {id: found[id] for id in ids}
        return [found[id].calls[0].reply for id in ids]

    def gold(self) -> Sequence[Prediction]:
        assert self._gold is not None, "a metric that asks for it says needs_gold"
        return list(self._gold.predictions())

    def note(self, text: str, details: Mapping[str, Any]) -> None:
        self.notes.append(text)
        self.details |= details


def _good(kept: Iterable[Prediction]) -> dict[str, Prediction]:
    return {one.id: one for one in kept if one.error is None}


def _same(ids: Sequence[str], requests: Sequence[Request], kept: Mapping[str, Prediction]) -> dict[str, Prediction]:
    """What was kept of the very same requests."""
    pairs = zip(ids, requests, strict=True)
    return {id: kept[id] for id, one in pairs if id in kept and kept[id].calls[0].messages == one.messages}


def as_kept(id: str, request: Request, reply: Reply) -> Prediction:
    """Return what a judging model said as a step keeps it, with all that was asked."""
    text = reply.texts[0] if reply.texts else None
    return Prediction(id=id, text=text, calls=(Call(messages=request.messages, reply=reply),), error=reply.error)
