"""How many of the documents that hold the answer were retrieved."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from harness.metrics._ranks import Ranking


class Recall(Ranking):
    """recall@k: relevant documents among the first `k` retrieved ones, divided by all relevant ones (trec_eval's
    `recall_k`). It speaks only of examples that name their sources, and only of variants that retrieve.

    Measured over documents: passages of one document count once, at the best one's rank.
    """

    version = 2  # 2: ties are broken as trec_eval breaks them

    k: int = Field(3, ge=1)
    """How deep the ranking is read. More than the retriever's `top_k` gives the same as `top_k`."""

    @property
    def default_name(self) -> str:
        return f"recall@{self.k}"

    def of(self, hits: Sequence[bool], relevant: int) -> float:
        return sum(hits[: self.k]) / relevant
