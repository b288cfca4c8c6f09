"""TER: how many edits would turn the answers into accepted ones, over the whole held-out split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from harness.metrics._sacrebleu import Corpus


class Ter(Corpus):
    """Translation edit rate (Snover et al. 2006), as sacrebleu computes it over a corpus: insertions, deletions,
    substitutions and shifts of words, in percent of the accepted answers' words. Lower is better; it may exceed 100.

    Of several accepted answers the one with the fewest edits counts, over the mean length of all of them.
    """

    reducer = "ter"
    direction = "lower"
    ceiling: ClassVar[float | None] = None

    normalized: bool = False
    """Whether punctuation is cut from words and XML entities are read (sacrebleu's `normalized`)."""
    no_punct: bool = False
    """Whether punctuation is left out."""
    asian_support: bool = False
    """Whether CJK text is cut into characters; needs `normalized` or `no_punct`."""
    case_sensitive: bool = False
    """Whether case counts."""

    def library(self) -> Callable[..., Any]:
        from sacrebleu.metrics.ter import TER

        return TER
