"""Overlap of the answer's words with an accepted answer's words: the F1 of SQuAD."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from harness.metrics._answers import squad
from harness.plugins import Metric
from harness.records import Example, Prediction


class TokenF1(Metric):
    """F1 of the bags of words after SQuAD's folding, the best over the accepted answers.

    Source: the SQuAD evaluation scripts (Rajpurkar et al. 2016, 2018). They differ where a side has no word left:
    v1.1 gives 0 even when both are empty; v2.0 gives 1 for two empty sides and 0 for one, and an accepted answer of
    which nothing is left counts only where there is no other. Of an example without an accepted answer v1.1 does not
    speak; v2.0 takes it for one whose right answer is to say nothing.
    """

    rules: Literal["v1.1", "v2.0"] = "v1.1"
    """Which script's rule for empty answers holds."""

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        if not example.targets and self.rules == "v1.1":
            return None
        answer = squad(prediction.text or "").split()
        targets = [squad(target).split() for target in example.targets]
        if self.rules == "v2.0":
            targets = [target for target in targets if target] or [[]]
        return max((self._f1(answer, target) for target in targets), default=0.0)

    def _f1(self, answer: list[str], target: list[str]) -> float:
        if self.rules == "v2.0" and not (answer and target):
            return float(answer == target)
        shared = (Counter(answer) & Counter(target)).total()
        if shared == 0:
            return 0.0
        precision, recall = shared / len(answer), shared / len(target)
        return 2 * precision * recall / (precision + recall)
