"""Share of answers that hold one of the accepted ones somewhere."""

from __future__ import annotations

from harness.metrics._answers import squad
from harness.plugins import Metric
from harness.records import Example, Prediction


class Contains(Metric):
    """1 where an accepted answer's words stand, whole and in a row, in the answer; both folded by SQuAD's rule.

    Open-domain QA calls it "match" or "accuracy" (Mallen et al. 2023, arXiv 2212.10511). Unlike a bare substring test,
    "4" is not found in "24". An accepted answer of which folding leaves nothing is never contained. The
    metric does not speak of examples without an accepted answer.
    """

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        if not example.targets:
            return None
        answer = f" {squad(prediction.text or '')} "
        targets = (squad(target) for target in example.targets)
        return float(any(target and f" {target} " in answer for target in targets))
