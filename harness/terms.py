"""What a decision is made under: the tables `[cost]`, `[constraints]` and `[gate]` of a spec.

The spec reads them, a snapshot keeps them, and `of` reads them back from there: so the reading side knows them without
knowing specs. `faults` are those that only show between fields.
"""

from __future__ import annotations

import copy
import math
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from harness.errors import UsageError, did_you_mean
from harness.rules import COSTS, Rule, parse

Key = tuple[str | int, ...]

ANY = "*"
"""The name in a table of rates that stands for every device that no other name fits."""


def _numbers(what: str, least: float) -> BeforeValidator:
    """One number, or a table of numbers by `what`; the faults of both in one sentence."""

    def check(value: object) -> object:
        found: list[Any] = list(value.values()) if isinstance(value, Mapping) else [value]
        sound = all(type(x) in (int, float) and math.isfinite(x) and x >= least for x in found)
        if not found or not sound:
            range_ = "finite numbers" if least == -math.inf else f"finite numbers of at least {least:g}"
            raise ValueError(f"must be a number or a table of numbers by {what}, {range_}")
        return value

    return BeforeValidator(check)


_OneOrMore = WithJsonSchema(
    {
        "anyOf": [
            {"type": "number"},
            {"type": "object", "additionalProperties": {"type": "number"}, "minProperties": 1},
        ]
    }
)
Rates = Annotated[float | dict[str, float], _numbers("device", 0), _OneOrMore]
Bounds = Annotated[float | dict[str, float], _numbers("metric", -math.inf), _OneOrMore]
Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _is_rule(text: str) -> str:
    parse(text)
    return text


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prices(_Table):
    """The `[cost]` table: what machines and tokens cost. Only what is priced here counts; no price is ever guessed."""

    currency: str = Field("USD", pattern=r"^[A-Z]{3}$")
    """What all money is in, as three capital letters (ISO 4217)."""
    machine_hour: Rates | None = None
    """Money for an hour of the machine, at least 0. Where there are several machines, a table by device: a name fits
    where it is part of the device that the leaderboard's JSON shows (`{ "H200" = 4.1, "cpu" = 0.08 }`; case does not
    matter, the longest name that fits counts, "*" is every other device)."""
    million_input_tokens: Money | None = None
    """Money for a million tokens of prompts, for models that are paid by the token; at least 0."""
    million_output_tokens: Money | None = None
    """Money for a million tokens of answers; at least 0."""
    million_cached_tokens: Money | None = None
    """Money for a million tokens of prompts that came from a cache, at least 0; by default that of other tokens of
    prompts."""

    @property
    def by_token(self) -> bool:
        return self.million_input_tokens is not None and self.million_output_tokens is not None

    @property
    def any(self) -> bool:
        """Whether anything has a price."""
        return self.machine_hour is not None or self.by_token

    def rate(self, device: str) -> float | None:
        """Return the money for an hour of `device`, or None where it has no price."""
        if not isinstance(self.machine_hour, dict):
            return self.machine_hour
        fitting = [name for name in self.machine_hour if name != ANY and name.casefold() in device.casefold()]
        return self.machine_hour.get(max(fitting, key=len, default=ANY))


class Constraints(_Table):
    """The `[constraints]` table: what a variant must keep to be shipped."""

    latency_p95_ms: Positive | None = None
    """Milliseconds that 95 of 100 single answers take at most; above 0. Needs `[latency] examples` above 0."""
    cost_per_1000_answers: Money | None = None
    """Money for 1,000 answers at most, at least 0. Needs prices in `[cost]`."""
    training_cost: Money | None = None
    """Money for training and indexing at most, once, at least 0. Needs `[cost] machine_hour`."""
    training_hours: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Hours of training and indexing at most, once; at least 0."""
    memory_gib: Positive | None = None
    """GiB (2^30 bytes) of memory at the highest, training included; above 0."""
    min_quality: Bounds | None = None
    """The worst value that will do: a number for the primary metric, or a table by metric (`{ token_f1 = 0.5 }`). Of a
    metric that is better the lower it is, the highest value that will do. Shares are numbers from 0 to 1."""
    must_cite: bool | str = False
    """Whether answers must name their source: the name of the metric that tells whether one does (a `regex` for the
    form, or a citation metric), or `true` for the spec's only citation metric."""
    must_cite_share: float = Field(0.95, ge=0, le=1)
    """How much the metric of `must_cite` must reach, from 0 to 1."""
    needs_updates_without_training: bool = False
    """Whether new facts must count without training again: refuses what learned its facts by training and looks nothing
    up (the family fine-tuning)."""
    data_may_not_leave: bool = False
    """Whether questions and documents must stay on machines of your own: refuses models behind a public address."""

    @property
    def limits(self) -> dict[str, float]:
        """The costs that are limited, by the names of `rules.COSTS`."""
        return {name: value for name in COSTS if (value := getattr(self, name, None)) is not None}

    def qualities(self, primary: str) -> dict[str, float]:
        """The bound of each metric that has one."""
        if self.min_quality is None:
            return {}
        return self.min_quality if isinstance(self.min_quality, dict) else {primary: self.min_quality}


class Gate(_Table):
    """The `[gate]` table: rules that `harness gate` checks, for use in continuous integration."""

    rules: tuple[Annotated[str, AfterValidator(_is_rule)], ...] = ()
    """Texts such as `exact_match >= 0.7`, `latency_p95_ms <= 800` and `token_f1 not_worse_than "rag" by 0.02`; behind
    each may stand `for "lora"`. The names are those of metrics and of costs."""
    variant: str | None = None
    """The variant that is judged; by default the one that `harness decide` names."""
    certain: bool = False
    """Whether a rule holds only where its whole 95 % interval keeps it; else the measured value decides."""

    @property
    def parsed(self) -> tuple[Rule, ...]:
        return tuple(parse(text) for text in self.rules)


@dataclass(frozen=True, slots=True)
class Terms:
    """The three tables together."""

    prices: Prices = field(default_factory=Prices)
    constraints: Constraints = field(default_factory=Constraints)
    gate: Gate = field(default_factory=Gate)


# ------------------------------------------------------------------------------------------------ across the fields


@dataclass(frozen=True, slots=True)
class Scale:
    """What is known of a metric before anything is measured."""

    kind: str
    direction: Literal["higher", "lower"] = "higher"
    floor: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What terms may speak of: the metrics by name, the primary one, the variants, and whether latency is measured."""

    metrics: Mapping[str, Scale]
    primary: str
    variants: Collection[str]
    latency: bool = True

    def citing(self, must_cite: bool | str) -> str | None:
        """The name of the metric that tells whether an answer cites, or None where it cannot be told."""
        if isinstance(must_cite, str):
            return must_cite if must_cite in self.metrics else None
        found = [name for name, scale in self.metrics.items() if scale.kind.startswith("citation")]
        return found[0] if len(found) == 1 else None


def faults(terms: Terms, known: Known) -> Iterator[tuple[Key, str]]:
    """The faults between fields, each with the way to its place: names that do not exist, bounds that no value can
    reach, and constraints on what is not measured or has no price."""
    yield from _price_faults(terms.prices)
    for name in terms.constraints.limits:
        if why := _unmeasured(name, terms.prices, known):
            yield ("constraints", name), why
    for name, bound in terms.constraints.qualities(known.primary).items():
        place: Key = ("constraints", "min_quality")
        if why := _unreachable(name, bound, known):
            yield (*place, name) if isinstance(terms.constraints.min_quality, dict) else place, why
    yield from _citing_faults(terms.constraints, known)
    yield from _gate_faults(terms, known)


def _price_faults(prices: Prices) -> Iterator[tuple[Key, str]]:
    one, two = prices.million_input_tokens, prices.million_output_tokens
    if (one is None) != (two is None):
        lacking = "million_input_tokens" if one is None else "million_output_tokens"
        yield ("cost",), f"tokens of prompts and of answers need a price each: `{lacking}` is missing"
    if prices.million_cached_tokens is not None and one is None:
        yield ("cost", "million_cached_tokens"), "it needs `million_input_tokens` beside it"
    if prices != Prices() and not prices.any and (one is None) == (two is None):
        yield ("cost",), "it names no price: give `machine_hour`, or `million_input_tokens` and `million_output_tokens`"


def _unmeasured(name: str, prices: Prices, known: Known) -> str | None:
    """Why the cost `name` will have no figure, or None."""
    if name.startswith("latency") and not known.latency:
        return "latency is not measured: [latency] has `examples = 0`"
    if name == "cost_per_1000_answers" and not prices.any:
        return "money needs a price: write [cost] with `machine_hour`, or with prices of tokens"
    if name == "training_cost" and prices.machine_hour is None:
        return "money for training needs the price of the machine: write [cost] with `machine_hour`"
    return None


def _unreachable(name: str, bound: float, known: Known) -> str | None:
    """Why no variant can be held against `bound` of the metric `name`, or None."""
    scale = known.metrics.get(name)
    if scale is None:
        return f"there is no metric {name!r}.{did_you_mean(name, known.metrics)}"
    low = -math.inf if scale.floor is None else scale.floor
    high = math.inf if scale.ceiling is None else scale.ceiling
    if low <= bound <= high:
        return None
    hint = f" Did you mean {bound / 100:g}?" if (low, high) == (0, 1) and 1 < bound <= 100 else ""
    return f"{name} goes from {low:g} to {high:g}, so {bound:g} is no bound for it.{hint}"


def _citing_faults(constraints: Constraints, known: Known) -> Iterator[tuple[Key, str]]:
    if constraints.must_cite is False:
        return
    metric = known.citing(constraints.must_cite)
    if metric is not None:
        scale = known.metrics[metric]
        if (scale.direction, scale.floor, scale.ceiling) != ("higher", 0, 1):
            yield ("constraints", "must_cite"), f"{metric} is no share of answers, so it cannot tell how many cite"
        return
    if isinstance(constraints.must_cite, str):
        guess = did_you_mean(constraints.must_cite, known.metrics)
        yield ("constraints", "must_cite"), f"there is no metric {constraints.must_cite!r}.{guess}"
        return
    names = ", ".join(sorted(known.metrics))
    yield (
        ("constraints", "must_cite"),
        f"name the metric that tells whether an answer cites, such as must_cite = {next(iter(known.metrics), 'x')!r}: "
        f"`true` needs exactly one metric of a citation kind. Available: {names}.",
    )


def _gate_faults(terms: Terms, known: Known) -> Iterator[tuple[Key, str]]:
    gate = terms.gate
    if gate.variant is not None and gate.variant not in known.variants:
        yield ("gate", "variant"), f"there is no variant {gate.variant!r}.{did_you_mean(gate.variant, known.variants)}"
    for place, rule in enumerate(gate.parsed):
        for why in rule_faults(rule, terms.prices, known):
            yield ("gate", "rules", place), why


def rule_faults(rule: Rule, prices: Prices, known: Known) -> Iterator[str]:
    """Why a rule cannot be judged."""
    if rule.measure in known.metrics:
        why = _unreachable(rule.measure, rule.bound, known) if rule.other is None else None
    elif rule.measure in COSTS:
        why = _unmeasured(rule.measure, prices, known)
    else:
        names = [*known.metrics, *COSTS]
        why = f"there is no metric or cost {rule.measure!r}.{did_you_mean(rule.measure, names)}"
    if why:
        yield why
    for name in (rule.other, rule.variant):
        if name is not None and name not in known.variants:
            yield f"there is no variant {name!r}.{did_you_mean(name, known.variants)}"


# ----------------------------------------------------------------------------------------------- read back, changed

TABLES: dict[str, type[_Table]] = {"cost": Prices, "constraints": Constraints, "gate": Gate}


def of(spec: Mapping[str, Any], settings: Sequence[str] = ()) -> Terms:
    """Return the terms that a snapshot's `spec` holds, changed by `settings` of the command line.

    A setting is `constraints.latency_p95_ms=800`; the value is TOML, or else taken as text, and `false` takes a value
    away. Raises UsageError for a setting that fits none of the tables.
    """
    tables = {name: copy.deepcopy(dict(spec.get(name) or {})) for name in TABLES}
    for setting in settings:
        _put(tables, setting)
    made = {name: _read(name, tables[name]) for name in TABLES}
    return Terms(made["cost"], made["constraints"], made["gate"])


def _put(tables: dict[str, dict[str, Any]], setting: str) -> None:
    path, equals, text = setting.partition("=")
    name, *keys = (part.strip() for part in path.split(".", 2))
    if not equals or name not in TABLES or not all(keys) or not keys:
        raise UsageError(
            f"--set {setting!r}: write PATH=VALUE, such as constraints.latency_p95_ms=800. Only {', '.join(TABLES)} "
            "can be changed after a run; anything else changes what was run."
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = tables[name]
    for key in keys[:-1]:
        inner = table.get(key)
        table[key] = inner = dict(inner) if isinstance(inner, dict) else {}
        table = inner
    if value is False:
        table.pop(keys[-1], None)
    else:
        table[keys[-1]] = value


def _read(name: str, table: Mapping[str, Any]) -> Any:
    cls = TABLES[name]
    try:
        return cls.model_validate(dict(table))
    except ValidationError as error:
        said = []
        for item in error.errors(include_url=False):
            key = ".".join([name, *(str(part) for part in item["loc"])])
            unknown = item["type"] == "extra_forbidden"
            hint = did_you_mean(str(item["loc"][-1]), cls.model_fields) if unknown else ""
            said.append(f"{key}: {f'unknown key.{hint}' if unknown else item['msg'].removeprefix('Value error, ')}")
        raise UsageError("\n".join(said)) from error
