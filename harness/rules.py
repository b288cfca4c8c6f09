"""The rules of a gate, one line of text each: `exact_match >= 0.7`, `token_f1 not_worse_than "rag" by 0.02`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

Operator = Literal[">=", ">", "<=", "<", "not_worse_than"]

COSTS = {
    "latency_p50_ms": "median time of a single answer in milliseconds",
    "latency_p95_ms": "95th percentile of the time of a single answer in milliseconds",
    "cost_per_1000_answers": "money for 1,000 answers",
    "training_cost": "money for training and indexing, once",
    "training_hours": "hours of training and indexing, once",
    "memory_gib": "highest memory of the process in GiB (2^30 bytes), training included",
    "errors": "held-out examples without an answer",
}
"""What constraints and rules may speak of beside the metrics of a spec. All of them are better the lower they are."""

FORMS = 'NAME >= NUMBER (or >, <=, <) and NAME not_worse_than "VARIANT" by NUMBER, each with for "VARIANT" behind it'

_NAME = r"(?:\"[^\"]+\"|'[^']+'|[^\s\"'<>=]+)"
_NUMBER = r"-?(?:\d+(?:_\d+)*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_RULE = re.compile(
    rf"\s*(?P<measure>{_NAME})(?:"
    rf"\s*(?P<operator>>=|<=|>|<)\s*(?P<bound>{_NUMBER})"
    rf"|\s+not_worse_than\s+(?P<other>{_NAME})\s+by\s+(?P<margin>{_NUMBER})"
    rf")(?:\s+for\s+(?P<variant>{_NAME}))?\s*"
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `bound` is what the measure is held against; of `not_worse_than` it is the margin, at least 0, in the
    measure's own unit, by which the measure may be worse than that of the variant `other`. `variant` is the one that
    is judged, where the rule names it."""

    text: str
    measure: str
    operator: Operator
    bound: float
    other: str | None = None
    variant: str | None = None


def parse(text: str) -> Rule:
    """Read one rule. Raises ValueError for a text that is none; whether its names exist is for the caller to see."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no rule. Allowed: {FORMS}")
    measure, variant = _bare(found["measure"]), _bare(found["variant"])
    if found["operator"]:
        operator = cast(Operator, found["operator"])
        return Rule(text.strip(), measure, operator, float(found["bound"]), variant=variant or None)
    margin = float(found["margin"])
    if margin < 0:
        raise ValueError(f"{text!r}: the margin must be at least 0, not {margin:g}")
    return Rule(text.strip(), measure, "not_worse_than", margin, _bare(found["other"]), variant or None)


def _bare(name: str | None) -> str:
    """A name without its quotes."""
    return (name or "").strip("\"'")
