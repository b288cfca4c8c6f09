"""Metrics of how likely the variant's own model holds the accepted answer for."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import HarnessError
from harness.plugins import Means, Measured, Metric
from harness.records import Example, Prediction


class OfGold(Metric):
    """Measures (log-probability, tokens, bytes) of each example's first accepted answer, the one that training teaches,
    after the variant's own prompt: the same text for every variant. It does not speak of an example without one, or
    whose accepted answer is empty."""

    direction = "lower"
    ceiling = None
    needs_gold = True

    def measure_all(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], means: Means
    ) -> list[Measured | Exception]:
        gold = {prediction.id: prediction for prediction in means.gold()}
        return [self._of(example, gold[example.id]) for example in examples]

    def _of(self, example: Example, gold: Prediction) -> Measured | Exception:
        if not example.targets or not example.targets[0]:
            return None
        if gold.error is not None:
            return HarnessError(gold.error)
        choice = next(choice for choice in gold.choices if choice.text == example.targets[0])
        return (choice.logprob, float(choice.tokens), float(choice.bytes))
