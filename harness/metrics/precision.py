"""How much of what was retrieved holds the answer."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from harness.metrics._ranks import Ranking


class Precision(Ranking):
    """precision@k: relevant documents among the first `k` retrieved ones, divided by `k` (trec_eval's `P_k`), even
    where fewer than `k` were retrieved. It speaks only of examples that name their sources, and only of variants that
    retrieve.

    With one source an example, it is at most 1/k.
    """

    k: int = Field(3, ge=1)
    """How deep the ranking is read, and what is divided by."""

    @property
    def default_name(self) -> str:
        return f"precision@{self.k}"

    def of(self, hits: Sequence[bool], relevant: int) -> float:
        return sum(hits[: self.k]) / self.k
