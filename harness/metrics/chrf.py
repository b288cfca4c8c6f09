"""chrF: overlap of the answers' character n-grams with the accepted answers', over the whole held-out split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from harness.metrics._sacrebleu import Corpus


class Chrf(Corpus):
    """chrF (Popović 2015) from 0 to 100, as sacrebleu computes it over a corpus: the F-score of character n-grams, in
    which recall weighs `beta` times as much as precision. With `word_order = 2` it is chrF++ (Popović 2017).

    It needs no cutting into words, so it suits languages with much inflection, and short answers better than BLEU. Of
    several accepted answers the one with the best F-score counts.
    """

    reducer = "chrf"

    char_order: int = Field(6, ge=1, le=10)
    """The longest n-grams of characters that count."""
    word_order: int = Field(0, ge=0, le=4)
    """The longest n-grams of words that count too."""
    beta: int = Field(2, ge=1, le=10)
    """How much recall weighs against precision."""
    lowercase: bool = False
    """Whether case is folded away."""
    whitespace: bool = False
    """Whether spaces belong to the n-grams."""
    eps_smoothing: bool = False
    """Whether orders without n-grams count as almost 0, as in chrF++.py, or are left out."""

    @property
    def default_name(self) -> str:
        return f"chrF{self.beta}{'+' * self.word_order}"

    def library(self) -> Callable[..., Any]:
        from sacrebleu.metrics.chrf import CHRF

        return CHRF

    def settings_of_formula(self) -> tuple[float, ...]:
        return (float(self.beta), float(self.eps_smoothing))
