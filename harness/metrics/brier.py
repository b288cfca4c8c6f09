"""Squared error of the probabilities that the model gives its choices."""

from __future__ import annotations

import math

from harness.choices import probabilities
from harness.errors import HarnessError
from harness.plugins import Metric
from harness.records import Example, Prediction


class Brier(Metric):
    """Brier score, 0 to 2: squared distance of the probabilities from the truth, summed over the choices, averaged over
    the examples (Brier 1950; `brier_score` of lm-evaluation-harness. The binary one counts one class of two: half).

    It needs the probabilities of choices (`decode = { kind = "choices" }`), the softmax over their scores. The truth is
    the likeliest accepted answer; one that is no choice had probability 0. An answer that failed counts 2. It
    does not speak of examples without an accepted answer.
    """

    direction = "lower"
    unit = "squared probability"
    ceiling = 2.0
    needs_choices = True

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        if not example.targets:
            return None
        if not prediction.choices:
            if prediction.text:
                raise HarnessError('the answer was not chosen by likelihood: it needs decode = { kind = "choices" }')
            return 2.0
        shares = probabilities(prediction.choices)
        accepted = [
            share for share, choice in zip(shares, prediction.choices, strict=True) if choice.text in example.targets
        ]
        truth = max(accepted, default=0.0)
        return min(2.0, math.fsum(share * share for share in shares) - truth * truth + (1 - truth) ** 2)
