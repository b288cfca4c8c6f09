"""Share of answers that equal one of the accepted ones."""

from __future__ import annotations

from typing import Literal

from harness.metrics._answers import squad
from harness.plugins import Metric
from harness.records import Example, Prediction


class ExactMatch(Metric):
    """SQuAD's exact match with `normalise = "squad"`: the best over the accepted answers (Rajpurkar et al. 2016)."""

    normalise: Literal["squad", "none"] = "squad"
    """Whether case, ASCII punctuation, articles and white space are folded away before comparing ("squad") or only
    the white space around the answer ("none")."""

    def measure(self, example: Example, prediction: Prediction) -> float:
        fold = squad if self.normalise == "squad" else str.strip
        answer = fold(prediction.text or "")
        return float(any(answer == fold(target) for target in example.targets))
