"""Share of questions for which a document that holds the answer was retrieved."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from harness.metrics._ranks import Ranking


class Hit(Ranking):
    """hit@k: 1 where at least one relevant document stands among the first `k` retrieved ones (trec_eval's
    `success_k`). It speaks only of examples that name their sources, and only of variants that retrieve."""

    k: int = Field(3, ge=1)
    """How deep the ranking is read. More than the retriever's `top_k` gives the same as `top_k`."""

    @property
    def default_name(self) -> str:
        return f"hit@{self.k}"

    def of(self, hits: Sequence[bool], relevant: int) -> float:
        return float(any(hits[: self.k]))
