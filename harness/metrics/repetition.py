"""How much the answers repeat themselves."""

from __future__ import annotations

from pydantic import Field

from harness.plugins import Metric
from harness.records import Example, Prediction


class Repetition(Metric):
    """The share of an answer's n-grams of words that stood in it before: 1 - distinct n-grams / n-grams, from 0 to 1;
    lower is better.

    This is seq-rep-n of Welleck et al. 2020 (arXiv 1908.04319), over words between white space instead of tokens, and
    1 - distinct-n of Li et al. 2016 (arXiv 1510.03055) taken for each answer. An answer of fewer than n words repeats
    nothing and counts 0.
    """

    direction = "lower"

    n: int = Field(4, ge=1)
    """How many words in a row are compared."""

    @property
    def default_name(self) -> str:
        return f"repetition-{self.n}"

    def measure(self, example: Example, prediction: Prediction) -> float:
        words = (prediction.text or "").split()
        count = len(words) - self.n + 1
        if count < 1:
            return 0.0
        return 1 - len({tuple(words[i : i + self.n]) for i in range(count)}) / count
