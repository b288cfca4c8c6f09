"""The ranked documents of a prediction, and which of them are relevant: what all metrics of retrieval start from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import groupby
from typing import ClassVar

from harness.plugins import Metric
from harness.records import Example, Prediction


def documents(prediction: Prediction) -> list[str]:
    """Return the documents of the retrieved passages, best first, each once: at the rank of its best passage.

    Documents of equal score that follow each other are ordered by their id, the last first: trec_eval's rule for ties
    (score descending, then document id descending), so that no metric depends on the order in which an index happens to
    hold its documents. Passages without scores keep their order.
    """
    scores: dict[str, float | None] = {}
    for passage in prediction.passages:
        scores.setdefault(passage.document, passage.score)
    ranked: list[str] = []
    for score, names in groupby(scores, key=lambda name: scores[name]):
        tied = list(names)
        ranked += tied if score is None else sorted(tied, reverse=True)
    return ranked


class Ranking(Metric):
    """The base of the metrics of retrieval. They speak only of examples that name their sources, and only of variants
    that retrieve; an example for which nothing was retrieved counts 0. Relevance is binary: a document is a source of
    the example or it is not. Passages of one document count once, at the best one's rank, and a ranking is as deep as
    the retriever's `top_k`."""

    needs_passages: ClassVar[bool] = True

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        relevant = frozenset(example.sources)
        if not relevant:
            return None
        return self.of([document in relevant for document in documents(prediction)], len(relevant))

    @abstractmethod
    def of(self, hits: Sequence[bool], relevant: int) -> float:
        """Return the value of one ranking: whether each of its documents is relevant, best first, and how many
        relevant documents there are at all (at least 1)."""
