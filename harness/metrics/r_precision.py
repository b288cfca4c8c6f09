"""Precision at the rank at which a perfect ranking would have shown every document that holds the answer."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics._ranks import Ranking


class RPrecision(Ranking):
    """R-precision: relevant documents among the first R retrieved ones, divided by R, where R is the number of relevant
    documents of the example (trec_eval's `Rprec`). It speaks only of examples that name their sources, and only of
    variants that retrieve.

    With one source an example it is the share of questions whose first document is that source.
    """

    def of(self, hits: Sequence[bool], relevant: int) -> float:
        return sum(hits[:relevant]) / relevant
