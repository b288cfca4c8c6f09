"""The records that the writing side leaves and the reading side shows: plain frozen values that explain themselves.

`dump` and `load` turn any of them into JSON-able values and back. Nothing here imports a plug-in or torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, TypeVar, cast

from pydantic import TypeAdapter

T = TypeVar("T")

Role = Literal["system", "user", "assistant", "tool"]
Status = Literal["waiting", "running", "complete", "failed"]
Direction = Literal["higher", "lower"]
Family = Literal["prompting", "RAG", "fine-tuning", "hybrid"]
Normalise = Literal["none", "tokens", "bytes"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One question of a data set. `sources` names the documents that hold its answer, where the data says so."""

    id: str
    input: str
    targets: tuple[str, ...] = ()
    group: str = ""
    tags: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """One judgement of answers to one input: `chosen` is better than `rejected`. Where one of them is None the other
    was judged alone, a thumb up or down. `group` is the one that the data name, or one for each input, which the pairs
    of a ranked list share."""

    id: str
    input: str
    chosen: str | None = None
    rejected: str | None = None
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation to learn from, as OpenAI's API has them: messages {"role", "content"}, those of the assistant with
    "tool_calls" where it calls tools, those of the role "tool" with what these gave. `tools` describes them. Where the
    data name no `group`, it is the id."""

    id: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document to retrieve from. `text` is plain text or Markdown."""

    id: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A piece of a document. `id` is unique in its index; `score` and `rank` (from 1) are set by a search."""

    id: str
    document: str
    text: str
    score: float | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How answers are made. `temperature` 0 is greedy; `max_tokens` counts new tokens.

    With `choices` nothing is generated: the answer is the likeliest of these texts, by the sum of its tokens' natural
    log-probabilities, which `normalise` divides by their number or by the text's bytes.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    normalise: Normalise = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a prompt asks of the model: `n` answers to `messages`."""

    messages: tuple[Message, ...]
    decoding: Decoding
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A text that the model was asked to weigh, not to write: `logprob` is the natural logarithm of its probability
    after the prompt, summed over its `tokens`; `bytes` is its length in UTF-8. `score` is what it was ranked by:
    `logprob`, or its mean over tokens or bytes; None where nothing was ranked."""

    text: str
    logprob: float
    tokens: int
    bytes: int
    score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the model gave: `n` texts, or an `error` (then `texts` is empty). Where it weighed choices, `texts` is the
    likeliest and `choices` holds all of them, in the order of the request.

    `input_tokens` is the prompt's whole length, `cached_tokens` the part of it that came from a shared prefix;
    `output_tokens` counts the new tokens of all texts, the end mark included; `seconds` is this request's
    share of its batch's time (batch time divided by the requests in it). Choices are read, not written: their tokens
    count as input, what several start with once, and the last of each, which is only predicted, not at all.
    """

    texts: tuple[str, ...] = ()
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    finish: Literal["stop", "length", "error"] = "stop"
    error: str | None = None
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    messages: tuple[Message, ...]
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One variant's answer to one held-out example: the text, or an error; every call and passage that led to it.

    `choices` are the texts that were weighed where the answer is the likeliest one of a set, in the set's order.
    """

    id: str
    text: str | None
    calls: tuple[Call, ...] = ()
    passages: tuple[Passage, ...] = ()
    error: str | None = None
    choices: tuple[Choice, ...] = ()

    @property
    def input_tokens(self) -> int:
        return sum(call.reply.input_tokens for call in self.calls)

    @property
    def output_tokens(self) -> int:
        return sum(call.reply.output_tokens for call in self.calls)

    @property
    def seconds(self) -> float:
        return sum(call.reply.seconds for call in self.calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One metric over one run: its settings, and for each held-out example the numbers that its value is made of.

    `statistics[i]` are the sufficient statistics of example `ids[i]`, or None where the metric does not speak of
    that example (recall of an example that names no source); the same examples for every variant. `reducer` names
    the function of `harness.reducers.REDUCERS` that turns them into the value; "mean" takes one number an example, and
    alone has a value for each example. `labels` names the classes where numbers stand for them.
    `errors` counts examples that failed: they stand in `statistics` at the metric's `floor`.
    """

    name: str
    signature: str
    direction: Direction
    unit: str
    floor: float | None
    ceiling: float | None
    reducer: str
    ids: tuple[str, ...]
    statistics: tuple[tuple[float, ...] | None, ...]
    errors: int = 0
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run took, as measured; None is 'not measured' or 'does not apply'.

    Seconds are wall-clock of the steps that the run uses, each counted whole even where other runs share it.
    Latency is of single requests (batch 1) over `latency_n` held-out examples. Bytes of memory are the highest
    resident size of the process while the run's steps ran.
    """

    train_seconds: float | None = None
    index_seconds: float | None = None
    answer_seconds: float | None = None
    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_n: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    trainable_parameters: int | None = None
    artifact_bytes: int | None = None
    peak_memory_bytes: int | None = None
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One variant with one seed: what it came to. `steps` maps a role ("index", "train.0", "predict", "gold",
    "score.NAME", "latency") to the name of the step's folder in the store."""

    experiment: str
    variant: str
    family: Family
    seed: int
    status: Status
    steps: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    cost: Cost = field(default_factory=Cost)
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    started: str = ""
    ended: str = ""

    @property
    def leak_notes(self) -> list[str]:
        """What the spec permitted of the held-out split elsewhere, in sentences for every report of this run."""
        return list(self.provenance.get("leaks", {}).get("notes", ()))


def trainings(steps: Mapping[str, str]) -> dict[str, str]:
    """The training steps among `steps` (the name of each, by its role), each once: a stage that a run shares with a
    variant which it refers to has two roles, of which its own counts."""
    found: dict[str, str] = {}
    for role in sorted((role for role in steps if role.startswith("train.")), key=lambda role: role.count(".")):
        found.setdefault(steps[role], role)
    return {role: name for role, name in steps.items() if found.get(name) == role}


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def dump(record: object) -> Any:
    """Return `record` as values that `json.dumps` takes."""
    return _adapter(cast(Any, type(record))).dump_python(record, mode="json")


def load(cls: type[T], data: object) -> T:
    """Rebuild a record of class `cls` from what `dump` gave. Raises pydantic.ValidationError where it does not fit."""
    result: T = _adapter(cast(Any, cls)).validate_python(data)
    return result


def dump_json(record: object) -> bytes:
    """Return `record` as one line of JSON (UTF-8, without the line's end)."""
    return _adapter(cast(Any, type(record))).dump_json(record)


def load_json(cls: type[T], data: bytes | str) -> T:
    result: T = _adapter(cast(Any, cls)).validate_json(data)
    return result


def digest(value: object, length: int = 24) -> str:
    """Return the first `length` hex digits of the SHA-256 of `value` (JSON-able), written canonically."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]
