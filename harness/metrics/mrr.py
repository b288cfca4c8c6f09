"""How high the first document that holds the answer stands."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics._ranks import Ranking


class Mrr(Ranking):
    """Mean reciprocal rank: 1 / rank of the first relevant document, 0 where none was retrieved (trec_eval's
    `recip_rank`). It speaks only of examples that name their sources, and only of variants that retrieve."""

    version = 2  # 2: ties are broken as trec_eval breaks them
    unit = "reciprocal rank"

    def of(self, hits: Sequence[bool], relevant: int) -> float:
        return 1 / (hits.index(True) + 1) if any(hits) else 0.0
