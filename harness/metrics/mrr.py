"""How high the first document that holds the answer stands."""

from __future__ import annotations

from harness.metrics._ranks import documents
from harness.plugins import Metric
from harness.records import Example, Prediction


class Mrr(Metric):
    """Mean reciprocal rank: 1 / rank of the first relevant document, 0 where none was retrieved (trec_eval's
    `recip_rank`). It speaks only of examples that name their sources, and only of variants that retrieve."""

    unit = "reciprocal rank"
    needs_passages = True

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        if not example.sources:
            return None
        for rank, document in enumerate(documents(prediction), start=1):
            if document in example.sources:
                return 1 / rank
        return 0.0
