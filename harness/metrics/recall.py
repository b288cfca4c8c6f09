"""How many of the documents that hold the answer were retrieved."""

from __future__ import annotations

from pydantic import Field

from harness.metrics._ranks import documents
from harness.plugins import Metric
from harness.records import Example, Prediction


class Recall(Metric):
    """recall@k: relevant documents among the first `k` retrieved ones, divided by all relevant ones (trec_eval's
    `recall_k`). It speaks only of examples that name their sources, and only of variants that retrieve.

    Measured over documents: passages of one document count once, at the best one's rank.
    """

    needs_passages = True

    k: int = Field(3, ge=1)
    """How deep the ranking is read. More than the retriever's `top_k` gives the same as `top_k`."""

    @property
    def default_name(self) -> str:
        return f"recall@{self.k}"

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        if not example.sources:
            return None
        return len(set(documents(prediction)[: self.k]) & set(example.sources)) / len(set(example.sources))
