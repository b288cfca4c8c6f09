"""A spec: one TOML file that asks one question of one data set, parsed into frozen values.

`load` gives the whole spec or every fault at once. How files, `[defaults]`, `extends`, `matrix` and `--set` come
together is told in `layers.py`.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    field_validator,
)

from harness import data_spec, decode, stages
from harness.data_spec import DataSpec
from harness.decode import Decode
from harness.errors import Fault, SpecError, StoreError, did_you_mean
from harness.layers import assemble, fault, shown
from harness.plugins import Backend, Family, Local, Method, Metric, Prompt, Retriever, made_preferences
from harness.shape import Table, chosen, explain, fit, instance, model_has, not_of
from harness.step import checked_name
from harness.terms import TABLES, Constraints, Gate, Known, Prices, Scale, Terms
from harness.terms import faults as terms_faults
from harness.toml_lines import Node


def _matching(pattern: str, rule: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"a name has {rule}, not {value!r}")
        return value

    return AfterValidator(check)


_EXPERIMENT = r"[a-z0-9][a-z0-9._-]{0,63}"
_VARIANT = r"[A-Za-z0-9][A-Za-z0-9._+=,\[\]-]{0,99}"
ExperimentName = Annotated[
    str,
    _matching(_EXPERIMENT, "up to 64 small letters, digits and . _ -, and begins with a letter or digit"),
    WithJsonSchema({"type": "string", "pattern": f"^{_EXPERIMENT}$"}),
]
VariantName = Annotated[
    str,
    _matching(_VARIANT, "up to 100 letters, digits and . _ + = , [ ] -, and begins with a letter or digit"),
    WithJsonSchema({"type": "string", "pattern": f"^{_VARIANT}$"}),
]


class Latency(Table):
    """The `[latency]` table: how the time of single requests is measured."""

    examples: int = Field(16, ge=0)
    """How many held-out examples are asked one by one; 0 measures none."""


class Tracking(Table):
    """The `[tracking]` table: what is mirrored to W&B."""

    mode: Literal["off", "offline", "online"] = "offline"
    """"offline" keeps the record on this machine until `harness sync`; "online" sends it where you are logged in."""
    project: str = "harness"
    """The W&B project."""
    entity: str | None = None
    """The W&B user or team; by default the one that is logged in."""
    adapters: bool = False
    """Whether trained adapters are uploaded too."""


class Variant(Table):
    """A `[[variant]]` table: one way to use the base model. What is present decides what it is called."""

    layered = frozenset({"extends", "matrix"})

    name: VariantName
    """What the leaderboard calls it."""
    prompt: Annotated[Prompt, Family("prompts", "zero-shot")] = Field({"kind": "zero-shot"}, validate_default=True)
    """How a question is put to the model."""
    retrieve: Annotated[Retriever, Family("retrievers")] | None = None
    """Where passages come from; `false` switches off what is inherited."""
    train: tuple[Annotated[Method, Family("methods")], ...] = ()
    """Training stages, one after another."""
    adapter: Annotated[str, Local()] | None = None
    """A folder with a PEFT adapter that was trained elsewhere."""
    decode: Decode = Decode()
    """Laid over the spec's own `[decode]`."""

    @property
    def family(self) -> Literal["prompting", "RAG", "fine-tuning", "hybrid"]:
        if self.train or self.adapter:
            return "hybrid" if self.retrieve else "fine-tuning"
        return "RAG" if self.retrieve else "prompting"

    def resolved(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "family": self.family,
            "prompt": self.prompt.settings(),
            "retrieve": self.retrieve.settings() if self.retrieve else None,
            "train": [method.settings() for method in self.train],
            "adapter": self.adapter,
            "decode": self.decode.resolved(),
        }


class Spec(Table):
    """A whole spec. `load` makes it; relative paths in it have become absolute."""

    layered = frozenset({"extends", "defaults", "decode"})

    name: ExperimentName
    """What the experiment is called; by default the file's name."""
    question: str = ""
    """What the comparison is to answer."""
    baseline: str = ""
    """The variant that the others are compared with; by default the first."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    """Each variant is run once with each seed."""
    model: Annotated[Backend, Family("backends")]
    """The base model that every variant starts from."""
    data: DataSpec
    """The examples and documents."""
    metrics: tuple[Annotated[Metric, Family("metrics")], ...] = Field(alias="metric", min_length=1)
    """What is measured. The first one decides, unless another says `primary = true`."""
    variants: tuple[Variant, ...] = Field(alias="variant", min_length=1)
    """What is compared: ways to use the base model."""
    latency: Latency = Latency()
    """How the time of single requests is measured."""
    tracking: Tracking = Tracking()
    """What is mirrored to W&B."""
    cost: Prices = Prices()
    """What machines and tokens cost."""
    constraints: Constraints = Constraints()
    """What a variant must keep to be shipped."""
    gate: Gate = Gate()
    """Rules that `harness gate` checks."""

    _file: Path = PrivateAttr(default=Path())
    _text: str = PrivateAttr(default="")
    _overrides: tuple[str, ...] = PrivateAttr(default=())
    _written: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _can_be_a_folder(cls, value: str) -> str:
        if value == "latest":
            raise ValueError("'latest' means the newest experiment: choose another name")
        try:
            return checked_name(value, "an experiment")
        except StoreError as error:
            raise ValueError(f"{value!r} cannot be a folder's name on every system: choose another name") from error

    @property
    def file(self) -> Path:
        """The file that the spec was read from."""
        return self._file

    @property
    def text(self) -> str:
        """The file as it was written when it was loaded, without the files it extends."""
        return self._text

    @property
    def primary(self) -> Metric:
        """The metric that ranks the variants."""
        return next((metric for metric in self.metrics if metric.primary), self.metrics[0])

    def resolved(self) -> dict[str, Any]:
        """Return everything as JSON-able values with all defaults filled in: what a snapshot keeps.

        Paths read as they were written, or relative to the spec's folder, so that nothing of the machine or its
        environment goes along.
        """
        values = {
            "name": self.name,
            "question": self.question,
            "baseline": self.baseline,
            "seeds": list(self.seeds),
            "model": self.model.settings(),
            "data": self.data.model_dump(mode="json"),
            "metrics": [{"name": metric.name, **metric.settings()} for metric in self.metrics],
            "variants": [variant.resolved() for variant in self.variants],
            "latency": self.latency.model_dump(mode="json"),
            "tracking": self.tracking.model_dump(mode="json"),
            "cost": self.cost.model_dump(mode="json"),
            "constraints": self.constraints.model_dump(mode="json"),
            "gate": self.gate.model_dump(mode="json"),
            "overrides": list(self._overrides),
        }
        written: dict[str, Any] = replaced(values, self._written)
        return written


def replaced(value: Any, texts: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: replaced(child, texts) for key, child in value.items()}
    if isinstance(value, list):
        return [replaced(child, texts) for child in value]
    return texts.get(value, value) if isinstance(value, str) else value


# ----------------------------------------------------------------------------------------------------------- load


def load(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Spec:
    """Read a spec. `overrides` are `path=value` texts of the command line, see `layers.assemble`.

    The folders of the spec and of the files it extends are put behind `sys.path` and stay there: a user's own
    plug-ins lie there, and whoever runs the spec in another process must do the same.

    Raises SpecError with every fault, in the order of the lines.
    """
    file = Path(path)
    written, faults = assemble(file, overrides)
    if written is None:
        raise SpecError(faults)
    make_importable(written)
    root = fit(written, Spec, faults)
    values = {"name": file.stem, **root.plain()}
    names = [name for variant in root.at(("variant",)).items if (name := variant.text("name"))]
    values.setdefault("baseline", names[0] if names else "")
    spec = None
    try:
        spec = Spec.model_validate(values)
    except ValidationError as error:
        faults += explain(error, root, Spec)
    faults += _across(root)
    if faults or spec is None:
        first = shown(file)
        unique = dict.fromkeys(faults)
        raise SpecError(sorted(unique, key=lambda f: (f.file != first, f.file, f.line or 0)))
    spec._file = file
    spec._text = file.read_text(encoding="utf-8-sig")
    spec._overrides = tuple(overrides)
    spec._written = dict(paths_as_written(written, root, file.absolute().parent))
    return spec


def make_importable(root: Node) -> None:
    """Let `kind = "module:Class"` find modules beside the spec. Behind the rest, so that they shadow nothing."""
    for folder in dict.fromkeys(str(node.place.folder.absolute()) for node in (root, *root.table.values())):
        if folder not in sys.path:
            sys.path.append(folder)
            importlib.invalidate_caches()


def paths_as_written(before: Node, after: Node, folder: Path) -> Iterator[tuple[str, str]]:
    """The paths that `fit` made absolute, with the text that stands for each in `resolved`."""
    if isinstance(after.value, str):
        before = chosen(before)
    if isinstance(before.value, str) and isinstance(after.value, str) and before.value != after.value:
        plain = "${" not in before.value and not Path(before.value).is_absolute()
        yield after.value, Path(os.path.relpath(after.value, folder)).as_posix() if plain else before.value
    for key, child in after.table.items():
        yield from paths_as_written(before.table[key], child, folder)
    for old, new in zip(before.items, after.items, strict=False):
        yield from paths_as_written(old, new, folder)


# --------------------------------------------------------------------------------------------------- across fields


def _across(root: Node) -> Iterator[Fault]:
    """The faults that only show between fields. They are looked for even where single fields are wrong."""
    data = root.table.get("data")
    if data is not None and isinstance(data.value, dict):
        yield from data_spec.faults(data)
    yield from _metric_faults(root)
    yield from _same("variant", [v.table["name"] for v in root.at(("variant",)).items if "name" in v.table])
    seeds = root.table.get("seeds")
    if seeds is not None:
        yield from _same("seed", seeds.items)
    names = [name for variant in root.at(("variant",)).items if (name := variant.text("name"))]
    baseline = root.table.get("baseline")
    if baseline is not None and isinstance(baseline.value, str) and baseline.value not in names:
        yield fault(baseline, f"there is no variant {baseline.value!r}.{did_you_mean(baseline.value, names)}")
    for variant in root.at(("variant",)).items:
        yield from _variant_faults(variant, root)
    yield from stages.faults(root)
    yield from _terms_faults(root, names)


def _same(noun: str, nodes: Sequence[Node]) -> Iterator[Fault]:
    """Two of a name. Case does not tell names apart: on some machines it does not tell folders apart either."""
    first: dict[str, Node] = {}
    for node in nodes:
        key = str(node.value).casefold()
        if key in first:
            place = first[key].place
            also = f": also on line {place.line} of {place.file}" if place.line else ""
            yield fault(node, f"{noun} {node.plain()!r} stands twice{also}")
        first.setdefault(key, node)


def _metric_faults(root: Node) -> Iterator[Fault]:
    nodes = root.at(("metric",)).items
    found = [(node, plugin) for node in nodes if isinstance(plugin := instance(Family("metrics"), node), Metric)]
    counts = Counter(plugin.name for _, plugin in found)
    seen: set[str] = set()
    for node, plugin in found:
        if counts[plugin.name] > 1 and plugin.name in seen:
            yield fault(node, f"metric {plugin.name!r} stands twice")
        seen.add(plugin.name)
    primaries = [node for node, plugin in found if plugin.primary]
    for node in primaries[1:]:
        yield fault(node.table["primary"], "only one metric can be the primary one")
    data = root.table.get("data")
    variants = [variant for variant in root.at(("variant",)).items if variant.table]
    silent = [v.text("name") or "?" for v in variants if "retrieve" not in v.table]
    writing = [v.text("name") or "?" for v in variants if v.at(("decode",)).text("kind") != "choices"]
    for node, plugin in found:
        ranks = node is (primaries or nodes)[0]
        if plugin.needs_passages:
            about = f"{plugin.name!r} measures what was retrieved"
            if data is not None and isinstance(data.value, dict) and data.text("source") is None:
                yield fault(node, f"{about}: [data] must name the field with the right documents, `source`")
            if silent and ranks:
                yield fault(node, f"{about}, so it cannot rank variants that retrieve nothing {_not_first(silent)}")
        if plugin.needs_choices:
            about = f'{plugin.name!r} needs the probabilities of choices, decode = {{ kind = "choices" }}'
            if len(writing) == len(variants):
                yield fault(node, f"{about}, and no variant has them")
            elif writing and ranks:
                yield fault(node, f"{about}, so it cannot rank variants that write their answers {_not_first(writing)}")
        if plugin.needs_gold and not model_has(root, "likelihoods"):
            yield fault(node, f"{plugin.name!r} needs a model that tells how likely a text is, {not_of(root)}")


def _not_first(names: Sequence[str]) -> str:
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"({listed}): put another metric first, or make it the primary one"


def _variant_faults(variant: Node, root: Node) -> Iterator[Fault]:
    data = root.at(("data",)).table if "data" in root.table else {}
    train, retrieve = variant.table.get("train"), variant.table.get("retrieve")
    for node in (variant.table.get("adapter"), train if train is not None and train.items else None):
        if node is not None and not model_has(root, "trainable"):
            what = "training needs" if node is train else "an adapter needs"
            yield fault(node, f"{what} a model whose weights are at hand, {not_of(root)}")
    table = root.at(("data",))
    learns = data_spec.has(table, "examples")
    if "decode" in variant.table:
        yield from decode.faults(variant, root, learns=learns or not data)
    prompt = instance(Family("prompts", "zero-shot"), variant.table.get("prompt"))
    if data and not learns and isinstance(prompt, Prompt) and prompt.reads_train:
        yield fault(variant.table["prompt"], "there is nothing to take shots from: [data] names no `train`")
    if data and retrieve is not None and "documents" not in data:
        yield fault(retrieve, "there is nothing to retrieve from: [data] names no `documents`")
    stages = train.items if train is not None else []
    yield from _same("stage", [stage.table["name"] for stage in stages if "name" in stage.table])
    for stage in stages:
        method = instance(Family("methods"), stage)
        if data and isinstance(method, Method) and not (made_preferences(method) or data_spec.has(table, method.reads)):
            yield fault(stage, f"there is nothing to train on: [data] names no {data_spec.wanted(method.reads)}")
        if stage.text("context") == "retrieved" and retrieve is None:
            yield fault(stage.table["context"], 'context = "retrieved" needs a `retrieve` table in the same variant')
        for key in ("distractors", "oracle_share", "shuffle", "cite") if stage.text("context") != "retrieved" else ():
            if key in stage.table:
                yield fault(stage.table[key], f'`{key}` is about retrieved passages: it needs context = "retrieved"')


def _terms_faults(root: Node, variants: Sequence[str]) -> Iterator[Fault]:
    """The faults between `[cost]`, `[constraints]`, `[gate]` and the rest, where each of them is sound by itself."""
    metrics = [instance(Family("metrics"), node) for node in root.at(("metric",)).items]
    found = [metric for metric in metrics if isinstance(metric, Metric)]
    try:
        given = {name: root.table[name].plain() if name in root.table else {} for name in TABLES}
        terms = Terms(
            Prices.model_validate(given["cost"]),
            Constraints.model_validate(given["constraints"]),
            Gate.model_validate(given["gate"]),
        )
    except ValidationError:
        return
    if not found or len(found) < len(metrics):
        return
    latency = root.table["latency"].table.get("examples") if "latency" in root.table else None
    known = Known(
        {metric.name: Scale(metric.kind, metric.direction, metric.floor, metric.ceiling) for metric in found},
        next((metric for metric in found if metric.primary), found[0]).name,
        variants,
        latency=latency is None or latency.value != 0,
    )
    for place, message in terms_faults(terms, known):
        yield fault(root.at(place), message)
