"""Mean average precision: how high all the documents that hold the answer stand."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.metrics._ranks import Ranking


class Map(Ranking):
    """Average precision of a ranking: the precision at the rank of each relevant document that was retrieved, summed
    and divided by the number of all relevant ones (trec_eval's `map`; Buckley and Voorhees 2000). The mean over
    examples is MAP. It speaks only of examples that name their sources, and only of variants that retrieve.

    It reads the whole ranking, which is as deep as the retriever's `top_k`. With one source an example it equals mrr.
    """

    unit = "average precision"

    def of(self, hits: Sequence[bool], relevant: int) -> float:
        ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
        return math.fsum(found / rank for found, rank in enumerate(ranks, start=1)) / relevant
