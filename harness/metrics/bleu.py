"""BLEU: how many n-grams of the answers stand in the accepted ones, over the whole held-out split."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pydantic import Field

from harness.metrics._sacrebleu import Corpus
from harness.reducers import BLEU_SMOOTHING


class Bleu(Corpus):
    """BLEU (Papineni et al. 2002) from 0 to 100, as sacrebleu computes it over a corpus: the precision of n-grams up to
    4 words, with a penalty where the answers are shorter than the accepted ones together.

    It was made for texts of sentences. With the settings as they are, a corpus in which no answer has four words is 0
    whatever they say; `effective_order` then stops at the longest n-grams that there are.
    """

    reducer = "bleu"

    tokenize: Literal["13a", "intl", "char", "zh", "none"] = "13a"
    """How sacrebleu cuts texts into words: mteval-v13a, international, characters, Chinese, at white space only."""
    lowercase: bool = False
    """Whether case is folded away."""
    smooth_method: Literal["exp", "floor", "add-k", "none"] = "exp"
    """What an order without any match counts (Chen and Cherry 2014)."""
    smooth_value: float | None = Field(None, gt=0)
    """For "floor" (0.1 by default) and "add-k" (1 by default)."""
    max_ngram_order: int = Field(4, ge=1, le=10)
    """The longest n-grams that count."""
    effective_order: bool = False
    """Whether orders that no answer is long enough for are left out, for short answers."""

    def library(self) -> Callable[..., Any]:
        from sacrebleu.metrics.bleu import BLEU

        return partial(BLEU, force=True)  # no warning where texts look cut into words already

    def settings_of_formula(self) -> tuple[float, ...]:
        value = self.smooth_value
        if value is None:
            value = {"floor": 0.1, "add-k": 1.0}.get(self.smooth_method, 0.0)
        return (float(BLEU_SMOOTHING.index(self.smooth_method)), value, float(self.effective_order))
