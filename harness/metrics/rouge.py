"""ROUGE: overlap of the answer's words with an accepted answer's."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

from harness import extras
from harness.metrics._libraries import version
from harness.plugins import Metric
from harness.records import Example, Prediction


class Rouge(Metric):
    """ROUGE (Lin 2004, W04-1013) as F1 of the package rouge-score, the best over the accepted answers; the mean over
    examples. The metric does not speak of examples without an accepted answer.

    The package folds case and reads ASCII letters and digits only: a text in another script has no words, and counts 0.
    """

    type: Literal["rouge1", "rouge2", "rougeL", "rougeLsum"] = "rougeL"
    """Words, pairs of words, the longest common subsequence of the whole text (newlines do not matter), or of its
    sentences, one a line (newlines do)."""
    stemmer: bool = False
    """Whether words longer than three letters are cut to their stem (Porter's stemmer, for English)."""

    @property
    def default_name(self) -> str:
        return self.type

    def identity(self, *, built: bool = False) -> dict[str, Any]:
        return super().identity(built=built) | {"rouge-score": version("rouge-score")}

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        if not example.targets:
            return None
        found = self._scorer.score_multi(example.targets, prediction.text or "")[self.type]
        return float(found.fmeasure)

    @cached_property
    def _scorer(self) -> Any:
        with extras.needed("metrics"):
            from rouge_score.rouge_scorer import RougeScorer

        return RougeScorer([self.type], use_stemmer=self.stemmer)
