"""Share of answers that equal one of the accepted ones."""

from __future__ import annotations

import re
from typing import Literal

from harness.metrics._answers import squad
from harness.metrics._patterns import Pattern
from harness.plugins import Metric
from harness.records import Example, Prediction


class ExactMatch(Metric):
    """SQuAD's exact match with `normalise = "squad"`: the best over the accepted answers (Rajpurkar et al. 2016, the
    script of v1.1). The metric does not speak of examples without an accepted answer.

    "squad-v2" is the script of v2.0 (Rajpurkar et al. 2018). It differs where folding leaves nothing: an accepted
    answer of which nothing is left counts only where there is no other, and an example without an accepted answer is
    one whose right answer is to say nothing.
    """

    normalise: Literal["squad", "squad-v2", "none"] = "squad"
    """Whether case, ASCII punctuation, articles and white space are folded away before comparing ("squad", "squad-v2")
    or only the white space around the answer ("none")."""
    ignore: Pattern | None = None
    """A regular expression: what it finds is left out of the answer and of the accepted ones, such as a citation."""

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        if not example.targets and self.normalise != "squad-v2":
            return None
        answer = self._folded(prediction.text or "")
        targets = [self._folded(target) for target in example.targets]
        if self.normalise == "squad-v2":
            targets = [target for target in targets if target] or [""]
        return float(answer in targets)

    def _folded(self, text: str) -> str:
        kept = re.sub(self.ignore, "", text) if self.ignore else text
        return kept.strip() if self.normalise == "none" else squad(kept)
