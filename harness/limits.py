"""The constraints of a spec, judged one by one for one variant."""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.measures import Measure, Measures, bare, holds
from harness.results import Variant
from harness.rules import Operator
from harness.terms import Constraints, Known

Status = Literal["met", "failed", "unknown"]

LABELS = {
    "latency_p95_ms": "p95 latency",
    "latency_p50_ms": "p50 latency",
    "cost_per_1000_answers": "the cost of 1,000 answers",
    "training_cost": "the cost of training",
    "training_hours": "the time of training",
    "memory_gib": "memory",
    "errors": "answers that failed",
}
_API_KINDS = frozenset({"openai"})
_LOCAL_MODELS = frozenset({"transformers", "canned"})
_WHOLE_MISS = 1.0
"""How far off a variant is that cannot have what is asked, whatever its figures: as far as twice what is allowed."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One constraint on one variant. `status` is by the measured value; "unknown" where there is none, which counts as
    not met. `certain` says whether the interval leaves no doubt, None where there is no interval. `miss` is how far
    off the value is, as a share of the bound (negative: how much room is left), None for what is no number."""

    name: str
    status: Status
    certain: bool | None
    text: str
    value: float | None = None
    bound: float | None = None
    miss: float | None = None
    got: str = ""
    """The value as people read it, with its unit; so is what is `asked`."""
    asked: str = ""

    @property
    def distance(self) -> float:
        """How far the variant is from meeting it; 0 where it does."""
        if self.status == "met":
            return 0.0
        return _WHOLE_MISS if self.miss is None else self.miss


def judge(
    variant: Variant, spec: Mapping[str, Any], constraints: Constraints, known: Known, measures: Measures
) -> list[Judged]:
    """Judge every constraint that is set. `spec` is what the snapshot keeps."""
    found = [_limit(measures.of(variant, name), "<=", bound) for name, bound in constraints.limits.items()]
    for name, bound in constraints.qualities(known.primary).items():
        measure = measures.of(variant, name)
        found.append(_limit(measure, ">=" if measure.higher else "<=", bound))
    if constraints.must_cite is not False:
        metric = known.citing(constraints.must_cite) or str(constraints.must_cite)
        found.append(_limit(measures.of(variant, metric), ">=", constraints.must_cite_share, "must_cite"))
    if constraints.needs_updates_without_training:
        found.append(_updates(variant))
    if constraints.data_may_not_leave:
        found.append(_stays(variant, spec))
    return found


def label(name: str) -> str:
    """A constraint's or cost's name in a sentence."""
    return LABELS.get(name, name)


def _limit(measure: Measure, operator: Operator, bound: float, name: str = "") -> Judged:
    kept, certain = holds(measure, operator, bound)
    side = "at least" if operator in (">=", ">") else "at most"
    about = f"{label(measure.name)} is {measure.text}, {side} {measure.shown(bound)} is asked"
    if kept is None or measure.value is None:
        return Judged(name or measure.name, "unknown", None, f"{label(measure.name)} is n/a: {bare(measure.method)}")
    off = measure.value - bound if side == "at most" else bound - measure.value
    miss = off / (abs(bound) or abs(measure.value) or 1.0)
    status: Status = "met" if kept else "failed"
    got, asked = measure.shown(measure.value), measure.shown(bound)
    return Judged(name or measure.name, status, certain, about, measure.value, bound, miss, got, asked)


def _updates(variant: Variant) -> Judged:
    name = "needs_updates_without_training"
    if variant.runs[0].family == "fine-tuning":
        return Judged(name, "failed", True, "it knows only what it was trained on, so new facts need training again")
    how = "it looks facts up" if variant.runs[0].family in ("RAG", "hybrid") else "its facts stand in the prompt"
    return Judged(name, "met", True, f"{how}, so new facts need no training")


def _stays(variant: Variant, spec: Mapping[str, Any]) -> Judged:
    """Whether all models that see questions and documents run on machines of one's own, by what the spec says."""
    name = "data_may_not_leave"
    model = spec.get("model") or {}
    own: Mapping[str, Any] = next(
        (table for table in spec.get("variants", ()) if table.get("name") == variant.name), {}
    )
    for table in (*_tables(model), *_tables(own)):
        host = _host(table)
        if (host is None and table["kind"] in _API_KINDS) or (host is not None and not _private(host)):
            where = f" at {host}" if host else ""
            return Judged(name, "failed", True, f"its questions go to an outside service ({table['kind']}{where})")
    kind = str(model.get("kind", ""))
    if kind in _LOCAL_MODELS or _host(model) is not None:
        return Judged(name, "met", True, "its models run on machines of your own")
    return Judged(
        name, "unknown", None, f"whether the model {kind or 'of this snapshot'!r} sends data out is not known"
    )


def _tables(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every plug-in's table within `value`."""
    if isinstance(value, Mapping):
        if "kind" in value:
            yield value
        for child in value.values():
            yield from _tables(child)
    elif isinstance(value, list):
        for child in value:
            yield from _tables(child)


def _host(table: Mapping[str, Any]) -> str | None:
    """The host of the address that a plug-in's settings name, if any."""
    found = (value for key, value in table.items() if key.endswith(("url", "endpoint", "address")))
    texts = (value for value in found if isinstance(value, str) and value)
    return next((urllib.parse.urlsplit(text).hostname or text for text in texts), None)


def _private(host: str) -> bool:
    """Whether an address is this machine or one of a private network (RFC 1918, RFC 6762 for .local)."""
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False
