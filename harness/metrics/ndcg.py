"""Normalised discounted cumulative gain: relevant documents count less the lower they stand."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from harness.metrics._ranks import Ranking


class Ndcg(Ranking):
    """nDCG@k with linear gain (a relevant document gains 1, another 0) and the discount log2(rank + 1), divided by what
    the best possible ranking would have: all relevant documents first (trec_eval's `ndcg_cut_k`; Järvelin and
    Kekäläinen 2002). It speaks only of examples that name their sources, and only of variants that retrieve.

    As relevance is binary, the exponential gain 2^rel - 1 (Burges et al. 2005) gives the same numbers.
    """

    unit = "nDCG"

    k: int = Field(10, ge=1)
    """How deep the ranking is read, and the best possible one with it."""

    @property
    def default_name(self) -> str:
        return f"ndcg@{self.k}"

    def of(self, hits: Sequence[bool], relevant: int) -> float:
        gained = math.fsum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits[: self.k], start=1) if hit)
        best = math.fsum(1 / math.log2(rank + 1) for rank in range(1, min(self.k, relevant) + 1))
        return min(1.0, gained / best)
