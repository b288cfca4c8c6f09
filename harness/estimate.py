"""What a run will take, before it starts: tokens by rendering the prompts, seconds by rates measured earlier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness import forecast
from harness.data import Dataset
from harness.devices import pick_dtype
from harness.forecast import CHARACTERS_PER_TOKEN, Shapes
from harness.measure import processor
from harness.plan import PlannedRun, Stage, decoding
from harness.plugins import Adapter, Backend, Context, Prompt, Retriever, Select, made_preferences
from harness.records import Decoding, Example, Message, Passage
from harness.store import Store

ASSUMED = {"input": 1000.0, "output": 150.0, "train": 300.0}
"""Tokens per second taken where the store holds none of this model: 135 million parameters on two CPU cores."""

_SAMPLE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One missing step. `seconds` is None for a step whose time is not estimated (scores take next to none)."""

    role: str
    variants: tuple[str, ...]
    name: str
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float | None = None
    steps: int | None = None
    """Steps of the optimizer, of a training stage."""
    memory_bytes: int | None = None
    """What the process of a training stage will take at most, roughly."""


class _Guess(Context):
    """Renders prompts without a model: passages and token counts are of typical length."""

    def __init__(self, decoding: Decoding, train: Sequence[Example], retriever: Retriever | None, chunk: str) -> None:
        self.decoding, self.budget, self.retrieves = decoding, 10**9, retriever is not None
        self._train, self._retriever, self._chunk = train, retriever, chunk

    def passages(self, example: Example) -> tuple[Passage, ...]:
        if self._retriever is None:
            return ()
        room = int(self._retriever.max_tokens * CHARACTERS_PER_TOKEN // max(1, len(self._chunk)))
        passage = Passage(id="document#0", document="document", text=self._chunk)
        return (passage,) * min(self._retriever.top_k, max(1, room))

    def choose(self, example: Example, select: Select, n: int) -> tuple[Example, ...]:
        return tuple(self._train[:n])

    def count(self, messages: Sequence[Message]) -> int:
        return _tokens(messages)


def _tokens(messages: Sequence[Message]) -> int:
    """Tokens of a prompt, with some for the marks of each turn."""
    return round(sum(len(message.content) / CHARACTERS_PER_TOKEN + 5 for message in messages))


def missing(
    planned: Sequence[PlannedRun], dataset: Dataset, store: Store, model: Backend | None = None
) -> tuple[list[Estimate], dict[str, Any]]:
    """Return the steps that are still to be done, each once, in order, and the rates that their seconds stand on. With
    the `model` the memory of training stages is estimated too."""
    shapes = forecast.shapes(model) if model is not None else None
    rates, measured = _rates(store, planned[0].steps["predict"].inputs["model"] if planned else {})
    steps: dict[str, tuple[str, list[str], PlannedRun]] = {}
    for run in planned:
        for role, named in run.steps.items():
            if store.step(named.name).outcome is None:
                steps.setdefault(named.name, (role, [], run))[1].append(run.variant.name)
    known = {run.variant.name: run.variant for run in planned}
    found = []
    for name, (role, variants, run) in steps.items():
        names = tuple(dict.fromkeys(variants))
        if role.startswith("train."):
            stage = run.stages[role]
            adapter = forecast.trained(known, stage.variant.name, int(role.rpartition(".")[2]))
            said = _training(stage, adapter, dataset, rates, shapes, model)
        else:
            given, made, seconds = _step(role, run, dataset, rates)
            said = {"input_tokens": given, "output_tokens": made, "seconds": seconds}
        found.append(Estimate(role=role, variants=names, name=name, **said))
    return found, {"tokens_per_second": rates, "measured": measured}


def _step(role: str, run: PlannedRun, dataset: Dataset, rates: dict[str, float]) -> tuple[int, int, float | None]:
    variant, kind = run.variant, role.partition(".")[0]
    made = decoding(variant, dataset)
    if kind in ("predict", "latency", "gold"):
        context = _Guess(made, dataset.train, variant.retrieve, _chunk(dataset))
        count = int(run.steps[role].inputs["examples"]) if kind == "latency" else len(dataset.heldout)
        prompt, target = _mean_prompt(dataset.heldout, variant.prompt, context), _mean_target(dataset.heldout)
        if kind == "gold" or made.choices:
            weighed = target if kind == "gold" else sum(map(len, made.choices)) / CHARACTERS_PER_TOKEN
            given = round((prompt + weighed) * count)
            return given, 0, given / rates["input"]
        given, written = round(prompt * count), round(min(made.max_tokens, 1.5 * target + 1) * count)
        return given, written, given / rates["input"] + written / rates["output"]
    if kind == "index":
        tokens = round(sum(len(document.text) for document in dataset.documents) / CHARACTERS_PER_TOKEN)
        return tokens, 0, tokens / rates["input"]
    return 0, 0, None


def _training(
    stage: Stage,
    adapter: Adapter | None,
    dataset: Dataset,
    rates: dict[str, float],
    shapes: Shapes | None,
    model: Backend | None,
) -> dict[str, Any]:
    """What a training stage takes that trains the weights of `adapter`. Answers that it samples itself are taken to be
    as long as those that are given."""
    method, variant = stage.method, stage.variant
    reads = variant.retrieve if method.context == "retrieved" else None
    context = _Guess(decoding(variant, dataset), dataset.train, reads, _chunk(dataset))
    count, prompt, answer = len(dataset.train), 0.0, 0.0
    if method.reads == "documents":
        texts = [document.text for document in dataset.text or dataset.documents]
        count, answer = len(texts), _mean_tokens(texts)
    elif method.reads == "conversations":
        talks = ["".join(turn["content"] for turn in one.messages) for one in dataset.conversations]
        count, answer = len(talks), _mean_tokens(talks)
    elif method.reads == "nothing":
        count = 0
    elif method.reads == "preferences" and made_preferences(method) is None:
        pairs = dataset.preferences
        asked = [Example(id=one.id, input=one.input) for one in pairs]
        answers = [text for one in pairs for text in (one.chosen, one.rejected) if text]
        count = len(answers) if getattr(method, "by_answer", False) else len(pairs)
        prompt, answer = _mean_prompt(asked, variant.prompt, context), _mean_tokens(answers)
    else:
        prompt, answer = _mean_prompt(dataset.train, variant.prompt, context), _mean_target(dataset.train)
    count = method.uses(count)
    tokens = round((prompt + answer) * count * method.passes(count))
    found: dict[str, Any] = {"input_tokens": tokens, "seconds": tokens / rates["train"]}
    found["steps"] = method.total_steps(count)
    if shapes is not None and model is not None and adapter is not None:
        table = model.table()
        dtype = pick_dtype(table.get("dtype", "auto"), table.get("device", "auto"))
        found["memory_bytes"] = forecast.memory(
            method, adapter, shapes, text=prompt + answer, answer=answer, dtype=dtype
        )
    return found


def _chunk(dataset: Dataset) -> str:
    return _typical([document.text for document in dataset.documents])[:1000]


def _typical(texts: Sequence[str]) -> str:
    """A text of middle length."""
    return sorted(texts, key=len)[len(texts) // 2] if texts else ""


def _mean_prompt(examples: Sequence[Example], prompt: Prompt, context: Context) -> float:
    sample = examples[:_SAMPLE]
    return sum(_tokens(prompt.messages(example, context)) for example in sample) / max(1, len(sample))


def _mean_target(examples: Sequence[Example]) -> float:
    return _mean_tokens([example.targets[0] for example in examples[:_SAMPLE] if example.targets])


def _mean_tokens(texts: Sequence[str]) -> float:
    return sum(map(len, texts)) / CHARACTERS_PER_TOKEN / max(1, len(texts))


def _rates(store: Store, model: dict[str, Any]) -> tuple[dict[str, float], bool]:
    """Tokens per second as the store's finished steps measured them for this model on this kind of processor, else the
    assumed ones; whether any was measured.

    Answering is one figure for reading and writing: reading is taken as seven times as quick as writing a token.
    """
    rates = dict(ASSUMED)
    answered = trained = 0.0
    answering = training = 0.0
    for step in store.steps():
        if not step.name.startswith(("predict-", "train-")):
            continue
        outcome = step.outcome
        if outcome is None or not outcome["seconds"] or (step.inputs or {}).get("model") != model:
            continue
        if outcome["provenance"]["processor"] != processor():
            continue
        if step.name.startswith("predict-"):
            answered += outcome["input_tokens"] + 7 * outcome["output_tokens"]
            answering += outcome["seconds"]
        elif "learning_rate" in outcome["details"]:  # Not merges, nor what makes preferences.
            trained += outcome["tokens"]
            training += outcome["seconds"]
    if answering:
        rates["input"], rates["output"] = answered / answering, answered / answering / 7
    if training:
        rates["train"] = trained / training
    return rates, bool(answering or training)
