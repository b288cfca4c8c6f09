"""Share of answers that equal one of the accepted ones."""

from __future__ import annotations

import re
from typing import Literal

from harness.metrics._answers import squad
from harness.metrics._patterns import Pattern
from harness.plugins import Metric
from harness.records import Example, Prediction


class ExactMatch(Metric):
    """SQuAD's exact match with `normalise = "squad"`: the best over the accepted answers (Rajpurkar et al. 2016).
    The metric does not speak of examples without an accepted answer."""

    normalise: Literal["squad", "none"] = "squad"
    """Whether case, ASCII punctuation, articles and white space are folded away before comparing ("squad") or only
    the white space around the answer ("none")."""
    ignore: Pattern | None = None
    """A regular expression: what it finds is left out of the answer and of the accepted ones, such as a citation."""

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        if not example.targets:
            return None
        answer = self._folded(prediction.text or "")
        return float(any(answer == self._folded(target) for target in example.targets))

    def _folded(self, text: str) -> str:
        kept = re.sub(self.ignore, "", text) if self.ignore else text
        return squad(kept) if self.normalise == "squad" else kept.strip()
