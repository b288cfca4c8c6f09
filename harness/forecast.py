"""What a training stage will take, and what is unwise about it, before it starts and without loading torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness import models, stages
from harness.data import Dataset
from harness.errors import ModelError
from harness.figures import counted
from harness.plugins import Adapter, Backend, Method, find, made_preferences
from harness.spec import Spec, Variant

CHARACTERS_PER_TOKEN = 4.2
"""English text in the vocabularies of current models, roughly: the tokenizer itself is not loaded."""

BARE = 700 << 20
"""What a process takes that has loaded torch, transformers and TRL and nothing else, measured on Linux."""

SMALLEST_DEV = 20
"""Fewer dev rows than this choose the best step by chance more than by quality."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """The sizes of a model: the shape of each of its `weights` by name, and of its layers."""

    weights: Mapping[str, tuple[int, ...]]
    layers: int
    hidden: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.weights.values())


def shapes(model: Backend) -> Shapes | None:
    """The shapes of a model that lies on this machine; None where it has none, or they cannot be read."""
    table = model.table()
    if "id" not in table or not model.trainable:
        return None
    try:
        path = models.resolve(table["id"], revision=table.get("revision"), code=bool(table.get("trust_remote_code")))
        weights, config = models.shapes(path)
    except ModelError:
        return None
    inner: Mapping[str, Any] = config.get("text_config") or config
    try:
        return Shapes(weights, inner["num_hidden_layers"], inner["hidden_size"], inner["vocab_size"])
    except KeyError:
        return None


def trained(variants: Mapping[str, Variant], name: str, number: int) -> Adapter | None:
    """The adapter whose weights stage `number` of the variant `name` trains, its own or the one that it goes on with;
    `full` where that is the whole model; None where it cannot be told: it starts from a folder, or a merge."""
    variant, method = variants[name], variants[name].train[number]
    if not hasattr(method, "adapter"):
        return None
    if method.adapter is not None or getattr(method, "student", None) is not None:
        return method.adapter or _full()
    start, _ = stages.sources({other: one.train for other, one in variants.items()}, name, number)
    if start is None or start.kind == "base":
        return None if start is None and variant.adapter is not None else _full()
    return _left(variants, start) if start.kind == "stage" else None


def _left(variants: Mapping[str, Variant], stage: stages.Source) -> Adapter | None:
    """The adapter that a stage leaves: one of its own that was trained on another's is merged into the model."""
    own = getattr(variants[stage.variant].train[stage.number], "adapter", None)
    start, _ = stages.sources({name: one.train for name, one in variants.items()}, stage.variant, stage.number)
    if own is not None and start is not None and start.kind != "base":
        return _full()
    return trained(variants, stage.variant, stage.number)


def _full() -> Adapter:
    found = find("adapters", "full")()
    assert isinstance(found, Adapter)
    return found


def memory(method: Method, adapter: Adapter, model: Shapes, *, text: float, answer: float, dtype: str) -> int | None:
    """About how many bytes the stage's process will take at most, where it trains the weights of `adapter`; None where
    the method does not say how many texts it computes at once. `text` and `answer` are the mean tokens of a prompt with
    an answer and of the answer alone, `dtype` what products are computed in.

    Frozen weights take their own size, trained ones 16 bytes each (float32, its gradient, and Adam's two moments:
    Rajbhandari et al. 2020, arXiv 1910.02054); activations 34 bytes a token, layer and unit of width in 16 bits
    (Korthikanti et al. 2022, arXiv 2205.05198, attention scores left out, which are not kept), or 2 with gradient
    checkpointing; logits are kept in float32, three times over.
    """
    texts = method.texts_at_once
    if texts is None:
        return None
    learned = adapter.trainable(model.weights) or 0  # What is not told beforehand is small.
    wide = 4 if dtype == "float32" else 2
    frozen = 0 if learned == model.parameters else adapter.frozen(model.weights, wide)
    kept = 2 if getattr(method, "gradient_checkpointing", False) else 34
    activations = texts * text * model.layers * model.hidden * kept * wide / 2
    logits = texts * answer * model.vocabulary * 12
    return round(BARE + frozen + 16 * learned + activations + logits)


def warnings(spec: Spec, dataset: Dataset) -> list[str]:
    """What the check of a spec warns of in its training stages."""
    found: dict[str, list[str]] = {}
    model = shapes(spec.model) if any(variant.train for variant in spec.variants) else None
    texts = [f"{row.input}{row.targets[0]}" for row in dataset.train if row.targets]
    tokens = sum(map(len, texts)) / CHARACTERS_PER_TOKEN
    variants = {variant.name: variant for variant in spec.variants}
    dev = {
        "examples": len(dataset.dev),
        "preferences": len(dataset.preferences_dev),
        "conversations": len(dataset.conversations_dev),
    }
    for variant in spec.variants:
        for number, method in enumerate(variant.train):
            adapter = trained(variants, variant.name, number)
            said = [*_dev(method, dev.get(method.reads))]
            if adapter is not None:
                said += [*_rate(method, adapter), *_size(method, adapter, model, len(texts), tokens)]
            for each in said:
                found.setdefault(f"stage {method.label}: {each}", []).append(variant.name)
    return [f"{_listed(names)}, {said}" for said, names in found.items()]


def _listed(names: list[str]) -> str:
    """The first of several variants that are warned of the same."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _rate(method: Method, adapter: Adapter) -> Iterator[str]:
    rate = getattr(method, "learning_rate", None)
    if rate is None:
        return
    low, high = (end * getattr(method, "rate_scale", 1.0) for end in adapter.usual)
    if not low <= rate <= high:
        of = "the whole model" if adapter.kind == "full" else adapter.kind
        usual = f"{low:g} to {high:g}, which is usual for {method.kind} with {of}"
        yield f"learning_rate {rate:g} is outside {usual}"


def _size(method: Method, adapter: Adapter, model: Shapes | None, rows: int, tokens: float) -> Iterator[str]:
    if model is None or method.reads != "examples" or method.makes != "policy":
        return
    learned = adapter.trainable(model.weights)
    used = method.uses(rows)
    seen = tokens * used / max(1, rows) * method.passes(used)
    if learned is not None and learned > seen > 0:
        yield (
            f"{learned:,} weights are trained on about {seen:,.0f} tokens: it may memorise more than it learns. A "
            "smaller adapter, or more rows, would be safer"
        )


def _dev(method: Method, rows: int | None) -> Iterator[str]:
    """`rows` is None where they are counted later: those of documents, or made by a stage."""
    patience = getattr(method, "patience", None)
    if rows is None or made_preferences(method) is not None:
        return
    if not rows and patience is not None:
        yield f"patience = {patience} stops nothing: there are no dev rows to measure"
    if (patience is not None or getattr(method, "keep_best", False)) and 0 < rows < SMALLEST_DEV:
        chosen = f"the best step is chosen on {counted(rows, 'dev row')}, mostly by chance"
        yield f"{chosen}; {SMALLEST_DEV} or more would say something"
