"""Share of answers that are JSON."""

from __future__ import annotations

from harness.metrics._json import Extract, NoJson, parse
from harness.plugins import Metric
from harness.records import Example, Prediction


class JsonValid(Metric):
    """1 where the answer is one JSON value (RFC 8259; NaN and Infinity are none), as it stands or in a block of it.

    Whether a program can read the raw answer and whether there is JSON somewhere in it are different things: write the
    metric twice to see both.
    """

    extract: Extract = "raw"
    """Whether the whole answer must be JSON ("raw"), or a block of it ("block"): the first fenced one marked `json`,
    else the first fenced one, else the first object whose braces balance."""

    @property
    def default_name(self) -> str:
        return "json_valid" if self.extract == "raw" else "json_valid_block"

    def measure(self, example: Example, prediction: Prediction) -> float:
        try:
            parse(prediction.text or "", self.extract)
        except NoJson:
            return 0.0
        return 1.0
