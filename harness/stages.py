"""How training stages refer to each other: which policy a stage starts from, what rewards, teaches or feeds it.

A text that a field marked `plugins.Refers` holds is looked up here: first among the earlier stages of the same variant,
by their names, then as "variant.stage" among those of other variants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import Fault, did_you_mean
from harness.layers import fault
from harness.plugins import Adapter, Family, Judging, Makes, Method, Metric, Refers, refers
from harness.shape import instance
from harness.toml_lines import Node

BASE = "base"
_METRIC = "metric:"

Trains = Mapping[str, Sequence[Method]]
"""The stages of each variant, by its name."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a reference stands for: a stage (`number` of `variant`), a folder, a metric or a model (`name`), or the bare
    base model."""

    kind: Literal["stage", "folder", "metric", "model", "base"]
    name: str = ""
    variant: str = ""
    number: int = 0


def before(trains: Trains, variant: str, number: int) -> Source | None:
    """The policy that a stage starts from where it names none: that of the last stage before it which makes one."""
    for place in reversed(range(number)):
        if trains[variant][place].makes == "policy":
            return Source("stage", variant=variant, number=place)
    return None


def find(trains: Trains, variant: str, number: int, text: str, mark: Refers) -> Source:
    """What `text` in a field of stage `number` of `variant` stands for. Raises LookupError, saying what it may be."""
    if text == BASE and mark.makes == "policy":
        return Source("base")
    if mark.makes == "metric" or (text.startswith(_METRIC) and mark.makes == "reward"):
        return Source("metric", name=text.removeprefix(_METRIC))
    if Path(text).is_absolute() and mark.makes != "preferences":
        return Source("folder", name=text)
    there = dict(_there(trains, variant, number))
    places = there.get(text, [])
    if len(places) > 1:
        raise LookupError(f"several stages are called {text!r}: give each a `name` of its own")
    if places:
        found = trains[places[0].variant][places[0].number]
        if found.makes != mark.makes:
            raise LookupError(f"{text!r} makes {_NOUNS[found.makes]}, and {_NOUNS[mark.makes]} is asked for")
        return places[0]
    if mark.models:
        return Source("model", name=text)
    fitting = [name for name, at in there.items() if trains[at[0].variant][at[0].number].makes == mark.makes]
    also = [BASE] if mark.makes == "policy" else ["metric:NAME"] if mark.makes == "reward" else []
    # What lies in a folder was made of other data, where nothing has looked for questions of this held-out split.
    only = (
        " Name a stage `make-preferences`; preferences in a file are `[data] preferences`."
        if mark.makes == "preferences"
        else ""
    )
    raise LookupError(f"there is no stage {text!r} before this one.{only}{did_you_mean(text, [*fitting, *also])}")


_NOUNS: dict[Makes, str] = {
    "policy": "a model that answers",
    "reward": "a reward model",
    "preferences": "a set of preferences",
}


def _there(trains: Trains, variant: str, number: int) -> Iterator[tuple[str, list[Source]]]:
    """Every name that a stage may use, with what it stands for."""
    found: dict[str, list[Source]] = {}
    for place, method in enumerate(trains[variant][:number]):
        found.setdefault(method.label, []).append(Source("stage", variant=variant, number=place))
    for other, methods in trains.items():
        if other != variant:
            for place, method in enumerate(methods):
                source = Source("stage", variant=other, number=place)
                found.setdefault(f"{other}.{method.label}", []).append(source)
    yield from found.items()


def sources(trains: Trains, variant: str, number: int) -> tuple[Source | None, dict[str, Source]]:
    """What stage `number` of `variant` starts from (None: the variant's own adapter or the bare base), and what each
    text in its other fields stands for. Raises LookupError."""
    method = trains[variant][number]
    start = (
        before(trains, variant, number)
        if method.start is None
        else find(trains, variant, number, method.start, refers(method, "start"))
    )
    named = {
        text: find(trains, variant, number, text, refers(method, field))
        for field, texts in method.references().items()
        for text in texts
    }
    return start, named


# ----------------------------------------------------------------------------------------------------------- faults


def faults(root: Node) -> Iterator[Fault]:
    """The faults between the stages of a spec. Variants with a stage that is faulty itself are left out."""
    nodes: dict[str, Node] = {}
    trains: dict[str, list[Method]] = {}
    faulty: list[str] = []
    for variant in root.at(("variant",)).items:
        stages = variant.table["train"].items if "train" in variant.table else []
        found = [method for stage in stages if isinstance(method := instance(Family("methods"), stage), Method)]
        if name := variant.text("name"):
            if len(found) == len(stages):
                nodes[name], trains[name] = variant, found
            else:
                faulty.append(f"{name}.")
    found_metrics = [instance(Family("metrics"), node) for node in root.at(("metric",)).items]
    metrics = {metric.name: metric for metric in found_metrics if isinstance(metric, Metric)}
    whole = len(metrics) == len(found_metrics)
    sound = True
    for name, methods in trains.items():
        for number, method in enumerate(methods):
            stage = nodes[name].table["train"].items[number]
            texts = {"start": (method.start,) if method.start else ()} | method.references()
            for field, wanted in texts.items():
                for text in wanted:
                    missing = text.startswith(tuple(faulty)) or (not whole and refers(method, field).makes != "policy")
                    if missing:  # What it names is told of already.
                        sound = False
                    elif said := _wrong(trains, name, number, text, refers(method, field), metrics):
                        sound = False
                        yield fault(stage.table.get(field, stage), said)
    if not sound:
        return
    if circle := _circle(trains):
        listed = " -> ".join(f"{name}.{trains[name][number].label}" for name, number in circle)
        yield fault(nodes[circle[0][0]], f"these stages wait for each other: {listed}")
        return
    for name, methods in trains.items():
        for number in range(len(methods)):
            if said := _cannot_merge(trains, name, number):
                stage = nodes[name].table["train"].items[number]
                yield fault(stage.table.get("adapter", stage), said)


def _cannot_merge(trains: Trains, variant: str, number: int) -> str | None:
    """What is wrong with a stage that has an adapter of its own and does not start from the base (what comes in is
    merged first, and its own is merged at the end), or that makes a reward model of what comes in."""
    method = trains[variant][number]
    own = _adapter(method)
    start, _ = sources(trains, variant, number)
    if start is None or start.kind == "base":
        return None
    before = _adapter_of(trains, start)
    if method.makes == "reward" and before is not None and not before.merges:
        return (
            f"this stage starts from {before.kind}, which cannot be merged into the model's layers, of which a reward "
            'model is made: start from one that can, such as lora, or write start = "base"'
        )
    if own is None:
        return None
    if not own.merges:
        return (
            f"{own.kind} cannot be merged into weights, so it can only be trained for the model of the spec itself, "
            'and this stage starts from what another one trained: write start = "base", or leave `adapter` out to '
            "train that one's on"
        )
    if before is not None and not before.merges:
        return (
            f"this stage starts from {before.kind}, which cannot be merged into weights to make place for another "
            "adapter: leave `adapter` out to train that one on"
        )
    return None


def _adapter_of(trains: Trains, source: Source) -> Adapter | None:
    """The adapter that the policy of a stage has: its own, or the one that it trained on."""
    if source.kind != "stage":
        return None
    own = _adapter(trains[source.variant][source.number])
    if own is not None:
        return own
    start, _ = sources(trains, source.variant, source.number)
    return None if start is None else _adapter_of(trains, start)


def _adapter(method: Method) -> Adapter | None:
    found = getattr(method, "adapter", None)
    return found if isinstance(found, Adapter) else None


def _wrong(
    trains: Trains, variant: str, number: int, text: str, mark: Refers, metrics: Mapping[str, Metric]
) -> str | None:
    """What is wrong with a reference; `metrics` are those of the spec, by name."""
    try:
        source = find(trains, variant, number, text, mark)
    except LookupError as error:
        return str(error.args[0])
    if source.kind != "metric":
        return None
    if source.name not in metrics:
        hint = did_you_mean(source.name, [name for name, metric in metrics.items() if _unfit(metric, mark) is None])
        return f"there is no [[metric]] {source.name!r} that gives each answer a number.{hint}"
    reason = _unfit(metrics[source.name], mark)
    use = "be a reward" if mark.makes == "reward" else "say when to stop"
    return None if reason is None else f"the metric {source.name!r} cannot {use}: {reason}"


def _unfit(metric: Metric, mark: Refers) -> str | None:
    """Why a field marked so cannot name the metric."""
    if metric.no_reward is not None or mark.judges or not isinstance(metric, Judging):
        return metric.no_reward
    instead = (
        " while the policy learns. Let it rank answers before that: "
        f'{{ kind = "make-preferences", name = "pairs", reward = "metric:{metric.name}" }}, and learn from those with '
        '{ kind = "dpo", preferences = "pairs" }, or train a stage `reward` on them and name that one here'
    )
    return f"its model would be asked about every answer{instead if mark.makes == 'reward' else ''}"


def _circle(trains: Trains) -> list[tuple[str, int]]:
    """A chain of stages that ends where it begins, or nothing."""
    done: set[tuple[str, int]] = set()

    def walk(place: tuple[str, int], path: list[tuple[str, int]]) -> list[tuple[str, int]]:
        if place in path:
            return [*path[path.index(place) :], place]
        if place in done:
            return []
        start, named = sources(trains, *place)
        for source in (start, *named.values()):
            stage = (source.variant, source.number) if source is not None and source.kind == "stage" else None
            if stage is not None and (circle := walk(stage, [*path, place])):
                return circle
        done.add(place)
        return []

    for name, methods in trains.items():
        for number in range(len(methods)):
            if circle := walk((name, number), []):
                return circle
    return []
