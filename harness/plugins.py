"""What a plug-in is, how it is found, and the one method that each family of plug-ins has.

A plug-in is one frozen class in one file of its family's folder: the file's name is its `kind`, the fields are exactly
what TOML may write, and one method does the work. Nothing is registered anywhere. `kind = "package.module:Class"` loads
a user's own plug-in; installed packages can add some through entry points of the group `harness.<family>`.

Families never import each other. What one needs of another it gets through the classes below, from the pipeline.
Files whose name starts with an underscore are shared parts of a family, not plug-ins.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator
from pydantic_core import PydanticCustomError

from harness.errors import did_you_mean
from harness.records import Decoding, Direction, Document, Example, Message, Passage, Prediction, Reply, Request

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Plugin(BaseModel):
    """The base of every plug-in. `version` is raised when the same settings begin to give another outcome."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    family: ClassVar[str]
    version: ClassVar[int] = 1
    separator: ClassVar[str] = "-"
    query_only: ClassVar[frozenset[str]] = frozenset()
    """Fields that change how the plug-in is used, not what it builds: they stay out of an artifact's name."""

    @property
    def kind(self) -> str:
        """The name under which a spec asks for this plug-in."""
        return kind_of(type(self))

    @classmethod
    def lacking(cls) -> list[str]:
        """The methods that a class still has to define before it is a plug-in."""
        return sorted(cls.__abstractmethods__) if inspect.isabstract(cls) else []

    def settings(self, *, built: bool = False) -> dict[str, Any]:
        """Return kind, version and every field as JSON-able values.

        With `built`, the fields in `query_only` are left out. A user's own plug-in adds the digest of its source.
        """
        values: dict[str, Any] = {"kind": self.kind, "version": self.version}
        if ":" in self.kind:
            values["source"] = hashlib.sha256(_source(type(self)).encode()).hexdigest()
        left_out = self.query_only if built else frozenset()
        return values | self._fields(lambda plugin: plugin.settings(built=built), left_out)

    def identity(self, *, built: bool = False) -> dict[str, Any]:
        """Return the settings as a step's name is made of them: each path is replaced by the digest of what lies there,
        so that moving a file changes no name, and changing it does."""
        values = self.settings(built=built) | self._fields(lambda plugin: plugin.identity(built=built), frozenset())
        contents = {name: _content(getattr(self, name)) for name in _path_fields(type(self))}
        left_out = self.query_only if built else frozenset()
        return {name: value for name, value in (values | contents).items() if name not in left_out}

    def table(self) -> dict[str, Any]:
        """Return kind and every field as a spec would write them: `find(family, kind).model_validate` of the rest
        gives the plug-in back."""
        return {"kind": self.kind} | self._fields(Plugin.table, frozenset())

    def _fields(self, inner: Callable[[Plugin], dict[str, Any]], left_out: frozenset[str]) -> dict[str, Any]:
        names = (name for name in type(self).model_fields if name not in left_out)
        return {name: _plain(getattr(self, name), inner) for name in names}


def _plain(value: object, inner: Callable[[Plugin], dict[str, Any]]) -> Any:
    if isinstance(value, Plugin):
        return inner(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple | list):
        return [_plain(item, inner) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item, inner) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


@cache
def _path_fields(cls: type[Plugin]) -> frozenset[str]:
    """The fields that name files or folders."""

    def is_path(annotation: Any) -> bool:
        return annotation is Path or isinstance(annotation, Local) or any(map(is_path, get_args(annotation)))

    fields = cls.model_fields.items()
    return frozenset(name for name, field in fields if any(map(is_path, (*field.metadata, field.annotation))))


@cache
def _reference_fields(cls: type[Plugin]) -> dict[str, Refers]:
    """The fields that name stages, with what they may name."""

    def marks(annotation: Any) -> list[Refers]:
        own = [annotation] if isinstance(annotation, Refers) else []
        return [*own, *(mark for argument in get_args(annotation) for mark in marks(argument))]

    found = {
        name: [mark for part in (*field.metadata, field.annotation) for mark in marks(part)]
        for name, field in cls.model_fields.items()
    }
    return {name: marked[0] for name, marked in found.items() if marked}


def refers(method: Method, name: str) -> Refers:
    """What the field `name` of a method may name."""
    return _reference_fields(type(method))[name]


def made_preferences(method: Method) -> str | None:
    """The stage whose preferences a method learns from, in place of those of the data."""
    made: str | None = getattr(method, "preferences", None)
    return made


def _content(value: Any) -> Any:
    """The digest of what lies at a path; a name that is no path stays as it is."""
    if isinstance(value, tuple | list):
        return [_content(item) for item in value]
    if not isinstance(value, str | Path) or not Path(value).is_absolute():
        return value
    from harness import models

    return models.content(Path(value))


def _source(cls: type) -> str:
    """The whole file of a user's plug-in, so that a change to a helper beside the class counts too."""
    file = inspect.getsourcefile(cls)
    return Path(file).read_text(encoding="utf-8") if file else inspect.getsource(cls)


P = TypeVar("P", bound=Plugin)


def kind_of(cls: type[Plugin]) -> str:
    package, _, stem = cls.__module__.rpartition(".")
    if package == f"harness.{cls.family}":
        return stem.replace("_", cls.separator)
    for name, point in _entry_points(cls.family).items():
        if point.value == f"{cls.__module__}:{cls.__qualname__}":
            return name
    return f"{cls.__module__}:{cls.__qualname__}"


@cache
def _entry_points(family: str) -> Mapping[str, Any]:
    return {point.name: point for point in entry_points(group=f"harness.{family}")}


@cache
def available(family: str) -> tuple[str, ...]:
    """Return the kinds of `family`, sorted, without importing any of them."""
    return tuple(sorted(_built_in(family) | set(_entry_points(family))))


@cache
def _built_in(family: str) -> frozenset[str]:
    package = importlib.import_module(f"harness.{family}")
    stems = (info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_"))
    return frozenset(stem.replace("_", BASES[family].separator) for stem in stems)


def find(family: str, kind: str) -> type[Plugin]:
    """Return the class of plug-in `kind` of `family`.

    Raises LookupError: with what is available where there is none, with the cause where a user's own
    `package.module:Class` cannot be loaded, with what is missing where it is not a complete plug-in of the family.
    """
    base = BASES[family]
    if ":" in kind:
        module_name, _, class_name = kind.partition(":")
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError) as error:
            hint = "Is its folder on PYTHONPATH or beside the spec?"
            raise LookupError(f"cannot load {kind!r}: {error}. {hint}") from error
        except Exception as error:  # a user's own file: whatever it raises while it loads is theirs to mend
            raise LookupError(f"cannot load {kind!r}: {type(error).__name__}: {error}") from error
    elif kind.replace("_", base.separator).replace("-", base.separator) in _built_in(family):
        module = importlib.import_module(f"harness.{family}.{kind.replace('-', '_')}")
        classes = (value for value in vars(module).values() if inspect.isclass(value))
        found = [cls for cls in classes if cls.__module__ == module.__name__ and issubclass(cls, base)][-1]
    elif kind in _entry_points(family):  # asked last: reading what is installed takes longer than all the rest
        found = _entry_points(family)[kind].load()
    else:
        raise LookupError(f"unknown kind {kind!r} for {family}.{did_you_mean(kind, available(family))}")
    if not (inspect.isclass(found) and issubclass(found, base)):
        wanted = f"harness.plugins.{base.__name__}"
        raise LookupError(f"{kind!r} is no plug-in of {family}: it must be a class derived from {wanted}")
    if lacking := found.lacking():
        raise LookupError(f"{kind!r} is not complete: it does not define {', '.join(lacking)}")
    return found


def _resolve(family: str, default: str | None, value: object) -> object:
    """Turn a table of a spec into its plug-in, keeping the place of every fault inside it."""
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        return value
    settings = dict(value)
    kind = settings.pop("kind", default)
    if not isinstance(kind, str):
        names = ", ".join(available(family))
        raise PydanticCustomError("kind", "`kind` is missing. Available: {names}.", {"names": names})
    try:
        cls = find(family, kind)
    except LookupError as error:
        raise PydanticCustomError("kind", "{text}", {"text": str(error.args[0])}) from error
    return cls.model_validate(settings)


@dataclass(frozen=True)
class Family:
    """Marks a field that holds a plug-in: `Annotated[Adapter, Family("adapters")]`; the schema reads it too."""

    name: str
    default: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(
            lambda value: _resolve(self.name, self.default, value),
            handler(SerializeAsAny[source]),  # type: ignore[misc]
        )

    def __get_pydantic_json_schema__(self, source: Any, handler: Callable[[Any], Any]) -> dict[str, Any]:
        return {"plugin": self.name}  # harness.schema puts the family's kinds here


@dataclass(frozen=True)
class Local:
    """Marks a text field that names a file or folder: `Annotated[str, Local()]`; a field of type `Path` is one anyway.

    In a spec, relative ones start at the folder of the file that holds them, `${NAME}` is read from the environment,
    and a path that is not there is a fault: the plug-in receives an absolute path that exists. With `or_name`, a text
    such as "smollm2-135m-instruct" or "owner/name" for which no such path exists stays as it is; with `or_stage` any
    text without a slash does, for it is the name of a stage first. With `choice`, an array of places may stand there,
    of which the first counts whose environment variables are set.
    """

    or_name: bool = False
    or_stage: bool = False
    choice: bool = False


Makes = Literal["policy", "reward", "preferences"]
"""What a training stage leaves: a model that answers, one that marks answers, or pairs of answers."""


@dataclass(frozen=True)
class Refers:
    """Marks a text field of a method that names what another stage made: `Annotated[str, Refers("reward")]`.

    It may hold an earlier stage's name (by default its kind) of the same variant or "variant.stage" of another one; for
    a reward or a policy also a folder with such an artifact; for a reward also "metric:NAME", a metric of the spec; for
    a policy also "base", the bare model, and with `models` the name of another model. `harness.stages` finds out which.
    `Refers("metric")` marks a field that holds the name of a metric of the spec and nothing else. With `judges` the
    metric may be a judge: the stage asks its model.
    """

    makes: Makes | Literal["metric"]
    models: bool = False
    judges: bool = False


# --------------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which requests are answered together. `batches` hold indices into the requests that were planned, in the order
    in which they run; `prefix` are the token ids that all of them start with, computed once; `settings` tells how the
    plan was made (token budget, padding, cache kind).
    """

    batches: tuple[tuple[int, ...], ...]
    prefix: tuple[int, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


class Session(ABC):
    """One loaded model. Adapters are attached to it and detached again; the base stays in memory once."""

    context_length: int
    device: str
    dtype: str

    @abstractmethod
    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that `messages` become, the generation prompt included."""

    @abstractmethod
    def attach(self, artifact: Path | None) -> None:
        """Answer with the artifact of a training stage (or a PEFT folder) from now on; None is the bare base.

        Raises ModelError where it was made for another model.
        """

    @abstractmethod
    def plan(self, requests: Sequence[Request]) -> Plan:
        """Plan batches for a whole step. The same requests always give the same plan."""

    @abstractmethod
    def answer(self, requests: Sequence[Request], plan: Plan, *, seed: int = 0) -> list[Reply]:
        """Answer one batch. A request that cannot be answered gets a Reply with `error`; the others go on. One whose
        decoding names `choices` is answered by weighing them; only a backend with `likelihoods` is asked so.

        The same batch gives the same digits whatever was answered before it. `seed` matters for sampling only.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what the session holds."""


class Backend(Plugin):
    """The `[model]` table: where answers come from."""

    family = "backends"
    trainable: ClassVar[bool] = False
    likelihoods: ClassVar[bool] = False
    """Whether it can tell how likely a given text is: for answers by choice, and the likelihood of accepted answers."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What identifies the weights, tokenizer, template and numeric settings (dtype as it will be used), cheaply:
        no torch. It goes into the names of steps. Raises ModelError where the model cannot be found."""

    def batching(self) -> dict[str, Any]:
        """The settings that decide which requests are answered together, where that can change an answer's digits: they
        go into the names of answering steps only."""
        return {}

    @abstractmethod
    def open(self) -> Session:
        """Load the model. Raises ModelError."""


class Embedding(ABC):
    """A loaded embedder."""

    dimension: int

    @abstractmethod
    def embed(self, texts: Sequence[str], *, role: Literal["query", "document"]) -> npt.NDArray[np.float32]:
        """Return unit vectors, float32, shape (len(texts), dimension)."""

    @abstractmethod
    def count(self, text: str) -> int:
        """Tokens of `text` as the embedder counts them."""

    max_tokens: int
    """The longest text that the embedder sees whole."""


class Embedder(Plugin):
    family = "embedders"

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """What identifies the embedder's weights and settings, without loading torch."""

    @abstractmethod
    def open(self) -> Embedding: ...


# ----------------------------------------------------------------------------------------------------- retrieval


class Chunker(Plugin):
    family = "chunkers"

    @abstractmethod
    def split(self, document: Document, count: Callable[[str], int]) -> list[Passage]:
        """Cut a document into passages with ids `<document id>#<n>`, n from 0. `count` gives the tokens of a text."""


class Index(ABC):
    """An opened index."""

    @abstractmethod
    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """Return for each query its k best passages, best first, with `score` and `rank`; ties by passage id."""

    @abstractmethod
    def passages(self) -> Sequence[Passage]:
        """Every passage of the index, in the order of the documents."""


class Retriever(Plugin):
    """The `retrieve` table. `build` makes an artifact once; `open` serves it."""

    family = "retrievers"
    query_only = frozenset({"top_k", "max_tokens"})

    top_k: int = Field(3, ge=1)
    """How many passages go into the prompt at most."""
    max_tokens: int = Field(1024, ge=1)
    """How many tokens of the answering model they may take together; whole passages are left out, the worst first."""

    @property
    def embedder_plugin(self) -> Embedder | None:
        """The embedder that `build` and `open` are handed an opened copy of, or None."""
        return None

    @abstractmethod
    def build(self, documents: Sequence[Document], out: Path, embedding: Embedding | None) -> None:
        """Write an index of `documents` into the empty folder `out`: plain files, no pickle."""

    @abstractmethod
    def open(self, folder: Path, embedding: Embedding | None) -> Index: ...


# ------------------------------------------------------------------------------------------------------- prompts


Select = Literal["first", "random", "similar"]


class Context(ABC):
    """What a prompt may use while it asks about one example. The pipeline hands it in."""

    decoding: Decoding
    budget: int
    """Tokens that a prompt may have: the model's context less the answer."""
    retrieves: bool
    """Whether the variant retrieves."""

    @abstractmethod
    def passages(self, example: Example) -> tuple[Passage, ...]:
        """The passages retrieved for `example`, best first, within the retriever's token budget; empty without one."""

    @abstractmethod
    def choose(self, example: Example, select: Select, n: int) -> tuple[Example, ...]:
        """Choose up to `n` examples of the train split, best first, never one of `example`'s own group: the first
        ones, random ones (one draw a seed, the same for every question) or the most similar ones by the embedder
        that the prompt names."""

    @abstractmethod
    def count(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that `messages` become."""


class Prompt(Plugin):
    """The `prompt` table: how a question becomes requests.

    `messages` gives the first request's messages, which is also what a training stage trains on; `ask` is the whole
    conversation, as a generator that yields requests and receives replies and returns the answer's text.
    """

    family = "prompts"

    @property
    def embedder_plugin(self) -> Embedder | None:
        """The embedder that `Context.choose(select="similar")` uses, or None."""
        return None

    @property
    def random(self) -> bool:
        """Whether the seed changes what is asked."""
        return False

    @property
    def reads_train(self) -> bool:
        """Whether the train split changes what is asked."""
        return False

    @abstractmethod
    def messages(self, example: Example, context: Context) -> tuple[Message, ...]: ...

    def ask(self, example: Example, context: Context) -> Generator[Request, Reply, str | None]:
        """Yield one request after another, receive the reply to each, and return the answer (None after an error)."""
        reply = yield Request(messages=self.messages(example, context), decoding=context.decoding)
        return reply.texts[0] if reply.texts else None


# ------------------------------------------------------------------------------------------------------ training


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """All that a training stage receives: JSON-able values and paths, so that another process can run it. There is
    no place in it for the held-out split.

    `train` and `dev` are JSONL files of what the method reads, a row a line:

    - "examples": {"id", "messages": [{"role", "content"}], "completion", "example"}, where "example" is the whole
      `Example` as JSON-able values, for metrics, and "completion" is None where it has no target;
    - "preferences": {"id", "messages", "chosen", "rejected", "group"}, the latter two as in `Preference`;
    - "documents": {"id", "text"};
    - "conversations": {"id", "messages", "tools", "group"}, as in `Conversation`.

    `model` is the backend's `model_dump()`; `incoming` the artifact of the stage that this one starts from; `out` an
    empty folder for the artifact; `work` a folder for checkpoints that outlives a killed process, so that `fit`
    resumes from what it finds there. `references` says for each text that a field marked `Refers` holds what stands
    behind it: {"artifact": folder}, {"metric": table of a metric plug-in}, {"model": name} or, for "base", {}.
    `dev_examples` are the dev examples, on whose answers a `metric` is measured: `dev` itself where that is what the
    method reads.
    """

    train: Path
    dev: Path | None
    model: dict[str, Any]
    incoming: Path | None
    out: Path
    work: Path
    seed: int
    references: dict[str, dict[str, Any]] = field(default_factory=dict)
    dev_examples: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a stage reports: its curves lie in `out/curves.jsonl` ({"step", "epoch", "name": value, ...} a line)."""

    trainable_parameters: int
    steps: int
    tokens: int
    best_step: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Adapter(Plugin):
    """The `adapter` table of a stage: which weights are trained."""

    family = "adapters"

    peft_type: ClassVar[str] = ""
    """What PEFT calls its kind, in the adapter's files."""
    learning_rate: ClassVar[float] = 2e-4
    """What a method takes where the spec names none."""
    usual: ClassVar[tuple[float, float]] = (5e-5, 2e-3)
    """The lowest and the highest learning rate that is usual with it."""
    prompt_learning: ClassVar[bool] = False
    """Whether it trains tokens that stand before the text instead of something in the model's layers."""
    gradient_checkpointing: ClassVar[bool] = True
    """Whether it can be trained where activations are computed again in the backward pass."""
    trl: ClassVar[bool] = True
    """Whether TRL's own trainers of causal models accept it."""
    merges: ClassVar[bool] = True
    """Whether what was learned can be merged into the model's weights: a stage with an adapter of its own can only
    start from what can be merged, and one whose adapter cannot be merged only from the base model."""

    @property
    def targets_output(self) -> bool:
        """Whether it sits on the output layer."""
        return False

    def quantization(self, dtype: str) -> Any:
        """How the frozen weights are stored: a quantization config of transformers, None where they stay as they are.
        `dtype` is what products are computed in."""
        return None

    @abstractmethod
    def wrap(self, model: Any) -> Any:
        """Return the torch model with this adapter's weights trainable and the others frozen."""

    def trainable(self, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """How many weights it would train in a model whose weights have these shapes, by name; None where that cannot
        be told without loading the model."""
        return None

    def frozen(self, shapes: Mapping[str, tuple[int, ...]], wide: int) -> int:
        """The bytes that the model's own weights take while it is trained, where numbers take `wide` bytes."""
        return wide * sum(math.prod(shape) for shape in shapes.values())

    def companion(self, model: Any, steps: int) -> Any:
        """What goes along with a training of so many steps: a transformers TrainerCallback, or None. One that holds
        state has `state_dict` and `load_state_dict`, by which a resumed training gets it back; `settle`, where it
        has that, is called once the weights to keep are in the model."""
        return None


Reads = Literal["examples", "preferences", "documents", "conversations", "nothing"]


class Method(Plugin):
    """One entry of `train`."""

    family = "methods"
    query_only = frozenset({"name"})
    makes: ClassVar[Makes] = "policy"
    """A stage that makes no policy changes no answer: the stages after it start from the policy before it."""

    name: str | None = None
    """What other stages call it; by default its kind."""
    start: Annotated[str, Refers("policy"), Local(or_name=True, or_stage=True)] | None = None
    """The stage whose policy this one starts from; by default the one before it, or the variant's own `adapter`."""
    context: Literal["none", "retrieved"] = "none"
    """"retrieved" trains on prompts that hold passages, as RAFT does (arXiv 2403.10131)."""
    distractors: int | None = Field(None, ge=0)
    """Passages beside the gold one; by default the retriever's top_k less one."""
    oracle_share: float = Field(1.0, ge=0, le=1)
    """Share of training prompts that hold the gold passage; the others hold distractors alone."""
    shuffle: bool = True
    """Whether the gold passage stands at a random place; else passages keep the retriever's order."""
    cite: str | None = None
    """What is put before the answer where the gold passage stands in the prompt, such as "{quote} [{document}]\\n":
    `{document}` is its document's id and `{quote}` its sentence that holds most of the answer's words."""

    @field_validator("cite")
    @classmethod
    def _cites_something(cls, value: str | None) -> str | None:
        if value is not None and "{document}" not in value and "{quote}" not in value:
            raise ValueError("the citation must hold {document} or {quote}, or it would cite nothing")
        return value

    @property
    def label(self) -> str:
        return self.name or self.kind

    @property
    def reads(self) -> Reads:
        """Which rows it trains on."""
        return "examples"

    def references(self) -> dict[str, tuple[str, ...]]:
        """The texts in each field marked `Refers` that name something, `start` left out."""
        found = {name: getattr(self, name) for name in _reference_fields(type(self)) if name != "start"}
        texts = {name: (value,) if isinstance(value, str) else value for name, value in found.items() if value}
        return {name: tuple(text) for name, text in texts.items()}

    @property
    def needs_answers(self) -> bool:
        """Whether every example that it trains on needs an accepted answer."""
        return self.reads == "examples"

    def unfit(self, tags: Sequence[Sequence[str]]) -> str | None:
        """What keeps the stage from being trained on examples with these tags, the tags of each; None where nothing
        does: it is asked when the spec is checked."""
        return None

    def uses(self, rows: int) -> int:
        """How many of so many training rows the stage uses."""
        return rows

    def passes(self, rows: int) -> float:
        """How often the stage goes through so many training rows at most, each text of a row (prompt and one answer)
        counted: what a dry run estimates from."""
        return 1.0

    @property
    def texts_at_once(self) -> int | None:
        """How many texts (prompt and one answer) are computed at once at most; None where that is not known."""
        return None

    def total_steps(self, rows: int) -> int | None:
        """The steps of a training on so many rows; None where that is not known before it."""
        return None

    def fewer_at_once(self) -> Method | None:
        """The same stage with fewer rows computed at once, for the same step of the optimizer; None where it cannot."""
        return None

    @abstractmethod
    def fit(self, job: TrainJob, progress: Callable[[int, int, Mapping[str, float]], None]) -> Trained:
        """Train and write the artifact into `job.out`. `progress(step, steps, figures)` is called after every step;
        it may raise KeyboardInterrupt to stop, after which the next `fit` with the same job resumes."""


# ------------------------------------------------------------------------------------------------------- metrics


class Means(ABC):
    """What a metric may use beside the answers. The pipeline hands it in."""

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors of the metric's own embedder, shape (len(texts), dimension)."""

    @abstractmethod
    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Return the replies of the metric's own model, in the order of the requests, answered in planned batches."""

    @abstractmethod
    def gold(self) -> Sequence[Prediction]:
        """Return, for each held-out example in their order, its accepted answers as `choices`, weighed by the variant's
        own model after the variant's own prompt. Only for a metric with `needs_gold`."""

    def note(self, text: str, details: Mapping[str, Any]) -> None:  # noqa: B027 - only the pipeline keeps them
        """Keep a sentence to be shown beside the score, and JSON-able details of it with the scoring step."""


Measured = float | tuple[float, ...] | None


class Metric(Plugin):
    """A `[[metric]]` table. Its name holds its settings where several of a kind may stand side by side ("recall@3").

    Most metrics define `measure` alone. One that looks at all answers at once (to embed them in one batch, to ask a
    judge) defines `measure_all` instead. A metric whose value is no mean over examples names its `reducer` and gives
    the statistics it needs; a failed example is then measured as an empty answer.
    """

    family = "metrics"
    separator = "_"
    query_only = frozenset({"primary"})

    primary: bool = False
    label: str | None = None
    """The metric's name on the leaderboard, by default its kind."""
    direction: ClassVar[Direction] = "higher"
    unit: ClassVar[str] = "share"
    floor: ClassVar[float | None] = 0.0
    ceiling: ClassVar[float | None] = 1.0
    reducer: ClassVar[str] = "mean"
    needs_passages: ClassVar[bool] = False
    needs_choices: ClassVar[bool] = False
    """Whether it speaks only of variants whose answer is the likeliest of a set: `decode.kind = "choices"`."""
    needs_gold: ClassVar[bool] = False
    """Whether it needs the likelihood of the accepted answers (`Means.gold`): a step of its own, which needs a model
    whose weights are at hand."""

    @classmethod
    def lacking(cls) -> list[str]:
        defined = cls.measure is not Metric.measure or cls.measure_all is not Metric.measure_all
        return super().lacking() + ([] if defined else ["measure"])

    @property
    def name(self) -> str:
        return self.label or self.default_name

    @property
    def default_name(self) -> str:
        """What the leaderboard calls it where the spec gives no `label`."""
        return self.kind.rpartition(":")[2]

    @property
    def signature(self) -> str:
        """The settings that two scores must share to be compared, in one line, as sacrebleu's signatures."""
        settings = {key: value for key, value in self.identity().items() if key not in ("kind", "primary", "label")}
        return "|".join([self.kind, *(f"{key}:{json.dumps(value)}" for key, value in sorted(settings.items()))])

    @property
    def embedder_plugin(self) -> Embedder | None:
        """The embedder that `Means.embed` uses, or None."""
        return None

    @property
    def backend_plugin(self) -> Backend | None:
        """The model that `Means.ask` asks, or None."""
        return None

    @property
    def no_reward(self) -> str | None:
        """Why a training stage cannot take its value of a single answer as a reward, or None where it can. A judge can
        be one, but only for a stage that may ask its model (`Refers.judges`)."""
        if self.needs_passages:
            return "it needs the passages that were retrieved, and none are while a model learns"
        if self.needs_choices:
            return "it speaks only of answers that are chosen from a set, and these are written"
        if self.needs_gold:
            return "it needs the likelihood of the accepted answers"
        if self.reducer != "mean":
            return "it gives no number for a single answer"
        if isinstance(self, Judging):
            return None
        if self.embedder_plugin is not None or self.backend_plugin is not None:
            return "it asks a model of its own"
        if type(self).measure is Metric.measure:
            return "it looks at all answers together"
        return None

    def labels(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """The names of the classes that the statistics count in; they depend on the held-out examples and settings
        alone, so that all variants have the same."""
        return ()

    def measure(self, example: Example, prediction: Prediction) -> Measured:
        """The sufficient statistics of one answered example (one number where the reducer is the mean), or None
        where the metric does not speak of this example whatever the answer is."""
        raise NotImplementedError

    def measure_all(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], means: Means
    ) -> list[Measured | Exception]:
        """The same for all examples, in their order; a fault on one of them is returned in its place."""
        found: list[Measured | Exception] = []
        for example, prediction in zip(examples, predictions, strict=True):
            try:
                found.append(self.measure(example, prediction))
            except Exception as error:  # A plug-in's fault on one example is shown beside the score.
                found.append(error)
        return found


class Judging(Metric):
    """A metric whose own model is asked about each answer by itself: it has a `backend_plugin`."""

    @abstractmethod
    def request(self, example: Example, answer: str) -> Request:
        """What the model is asked about one answer."""

    @abstractmethod
    def mark(self, reply: Reply) -> float | Exception:
        """The value of the answer by what the model said, or why there is none."""


BASES: dict[str, type[Plugin]] = {
    base.family: base for base in (Backend, Embedder, Chunker, Retriever, Prompt, Adapter, Method, Metric)
}
