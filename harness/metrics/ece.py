"""How far the model's confidence in its choices is from how often they are right."""

from __future__ import annotations

from harness.choices import probabilities
from harness.errors import HarnessError
from harness.plugins import Metric
from harness.records import Example, Prediction


class Ece(Metric):
    """Expected calibration error: |share right - mean confidence|, averaged over 15 bins of equal width, weighted by
    their examples (Naeini et al. 2015; torchmetrics' `multiclass_calibration_error`, norm "l1").

    It needs the probabilities of choices (`decode = { kind = "choices" }`): the confidence is the highest one of the
    softmax over their scores. An answer that failed counts as wrong with confidence 1. It does not speak
    of examples without an accepted answer.
    """

    reducer = "ece"
    direction = "lower"
    unit = "probability"
    needs_choices = True

    def measure(self, example: Example, prediction: Prediction) -> tuple[float, ...] | None:
        if not example.targets:
            return None
        if not prediction.choices:
            if prediction.text:
                raise HarnessError('the answer was not chosen by likelihood: it needs decode = { kind = "choices" }')
            return (1.0, 0.0)
        shares = probabilities(prediction.choices)
        best = max(range(len(shares)), key=shares.__getitem__)
        return (shares[best], float(prediction.choices[best].text in example.targets))
