"""Share of answers whose number is an accepted one: GSM8K's rule."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

from pydantic import Field

from harness.plugins import Metric
from harness.records import Example, Prediction

_MARK = "####"
_NUMBER = re.compile(
    r"((?:(?<![\w.,)\]}])[-+−])?)"  # a sign; between two numbers ("10-20", "x-1") it is none
    r"[$€£]?((?:(?<=[$€£])[-+−])?)"
    r"((?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)"  # 1,234,567.5 or 1234567 or .5
    r"((?:[eE][-+]?\d{1,3}(?!\w))?)"
)


class Numeric(Metric):
    """1 where the number that the answer gives equals that of an accepted one, within a tolerance (Cobbe et al. 2021,
    arXiv 2110.14168: the number behind `####`, commas dropped).

    The number of a text is the first one behind `####`, where that stands in its line, else the last one of the text.
    Commas between groups of digits, a currency sign ($, €, £) and a percent sign are dropped, so "50 %" is 50 and not
    0.5; the decimal mark is a point; "1.5e3" is 1500; of "10-20" the last number is 20, and of "7/8" it is 8. Numbers
    are compared as decimals, so 18, 18.0 and $18.00 are equal, and 0.3 is 0.3. An answer without a number is wrong. The
    metric does not speak of examples whose accepted answers hold no number.
    """

    absolute: float = Field(0.0, ge=0, allow_inf_nan=False)
    """How far the answer may be from the accepted number, in its own unit."""
    relative: float = Field(0.0, ge=0, allow_inf_nan=False)
    """How far it may be as a share of the accepted number (0.01 is 1 %); the wider of the two tolerances holds."""
    extract: Literal["flexible", "strict"] = "flexible"
    """Whether an answer without `####` is read at its last number ("flexible") or is wrong ("strict")."""

    def measure(self, example: Example, prediction: Prediction) -> float | None:
        targets = [number for target in example.targets if (number := _number(target)) is not None]
        if not targets:
            return None
        text = prediction.text or ""
        given = _number(text) if self.extract == "flexible" or _MARK in text else None
        return float(given is not None and any(self._equal(given, target) for target in targets))

    def _equal(self, given: Decimal, target: Decimal) -> bool:
        allowed = max(Decimal(str(self.absolute)), Decimal(str(self.relative)) * abs(target))
        return given == target or abs(given - target) <= allowed


def _number(text: str) -> Decimal | None:
    before, mark, after = text.partition(_MARK)
    if mark:
        found = _NUMBER.search(after.strip(" \t").partition("\n")[0])
    else:
        found = max(_NUMBER.finditer(before), key=re.Match.start, default=None)
    if found is None:
        return None
    sign, inner, digits, exponent = found.groups()
    value = Decimal(digits.replace(",", "") + exponent)
    return -value if (sign or inner) in ("-", "−") else value
