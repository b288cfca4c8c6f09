"""Share of answers that name the right class."""

from __future__ import annotations

from collections.abc import Sequence

from harness.metrics._labels import Labelled
from harness.plugins import Means, Measured
from harness.records import Example, Prediction


class Accuracy(Labelled):
    """1 where the class that an answer names is the right one; an answer that names none is wrong.

    With `decode = { kind = "choices" }` it is `acc` of lm-evaluation-harness (normalise = "none") or `acc_bytes`
    (normalise = "bytes").
    """

    def measure_all(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], means: Means
    ) -> list[Measured | Exception]:
        pairs = self.pairs(examples, predictions)
        return [None if pair is None else float(pair[0] == pair[1]) for pair in pairs]
