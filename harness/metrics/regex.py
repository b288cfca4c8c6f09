"""Share of answers in which a pattern is found."""

from __future__ import annotations

import re

from harness.metrics._patterns import Pattern
from harness.plugins import Metric
from harness.records import Example, Prediction


class Regex(Metric):
    pattern: Pattern
    """A Python regular expression, searched anywhere in the answer; anchor it with ^ and $ to match the whole."""

    def measure(self, example: Example, prediction: Prediction) -> float:
        return float(re.search(self.pattern, prediction.text or "") is not None)
