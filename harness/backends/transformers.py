"""Answers of a local model: a built-in one, a folder, a GGUF file or a model of the Hugging Face Hub.

Requests are answered in batches that are planned over a whole step: sorted by length, cut by a token budget, with the
tokens that all prompts start with computed once. The digits of an answer depend on its batch and on nothing before it.
"""

from __future__ import annotations

import gc
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from harness import artifacts, extras, models
from harness.chat import Chat, context_length, end_tokens, read_template
from harness.devices import pick_device, pick_dtype
from harness.errors import ModelError
from harness.plugins import Backend, Local, Plan, Session
from harness.records import Message, Reply, Request, digest

CACHE_BYTES = 2 << 30
"""What the keys and values of a batch may take: the token budget is cut to it for large models."""

SHORTEST_PREFIX = 16
"""A shared prefix shorter than this is not worth a forward pass of its own."""


class Transformers(Backend):
    """A causal language model, run by transformers on this machine."""

    trainable: ClassVar[bool] = True
    likelihoods: ClassVar[bool] = True

    id: Annotated[str, Local(or_name=True)]
    """A built-in name (`harness models`), a folder, a GGUF file, or a Hub id."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; "auto" is what the device is fast in."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1"; "auto" is the GPU where there is one."""
    batch_tokens: int = Field(16384, ge=1)
    """Tokens that the prompts and answers of a batch may have together, padding included."""
    max_batch: int = Field(64, ge=1)
    """Answers that are generated together at most."""
    chat_template: Annotated[str, Local(or_name=True)] | None = None
    """A Jinja chat template, or the path of a file that holds one, instead of the model's own."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run; a Hub id then needs a whole commit as `revision`."""

    def fingerprint(self) -> dict[str, Any]:
        path = models.resolve(self.id, revision=self.revision, code=self.trust_remote_code)
        template = read_template(self.chat_template)
        return {
            "weights": models.fingerprint(path, code=self.trust_remote_code),
            "dtype": pick_dtype(self.dtype, self.device),
            "template": "model" if template is None else hashlib.sha256(template.encode()).hexdigest(),
        }

    def batching(self) -> dict[str, Any]:
        return {"batch_tokens": self.batch_tokens, "max_batch": self.max_batch}

    def open(self) -> Session:
        return TransformersSession(self)


class TransformersSession(Session):
    def __init__(self, backend: Transformers) -> None:
        with extras.needed("train"):
            import torch
            from transformers import AutoTokenizer

        self.backend = backend
        self.path = models.resolve(backend.id, revision=backend.revision, code=backend.trust_remote_code)
        self.weights = models.fingerprint(self.path, code=backend.trust_remote_code)
        self.device = pick_device(backend.device)
        self.dtype = pick_dtype(backend.dtype, backend.device)
        self._torch = torch
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=backend.trust_remote_code
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(f"the tokenizer of model {backend.id!r} cannot be loaded: {error}") from error
        self.chat = Chat(self.tokenizer, read_template(backend.chat_template))
        self._base = self._load(self.path)
        self.model = self._base
        self.context_length = context_length(self._base.config, self.tokenizer)
        self._ends = end_tokens(self.tokenizer, self._base.generation_config.eos_token_id)
        self._encoded: dict[tuple[str, ...], tuple[tuple[int, ...], ...]] = {}
        self._prepare()

    # ------------------------------------------------------------------------------------------------- loading

    def _load(self, path: Path) -> Any:
        from safetensors import SafetensorError
        from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
        from transformers.utils import logging

        from harness.backends import _attention, _decoding

        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            config = AutoConfig.from_pretrained(
                path, local_files_only=True, trust_remote_code=self.backend.trust_remote_code
            )
            fast = _attention.supports(config)
            if fast:
                AttentionInterface.register(_attention.NAME, _attention.attend)
            model = AutoModelForCausalLM.from_pretrained(
                path,
                config=config,
                dtype=self.dtype,
                attn_implementation=_attention.NAME if fast else None,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=self.backend.trust_remote_code,
            )
            model = model.to(self.device).eval().requires_grad_(False)
            if fast:
                _decoding.lay_out(model)
            return model
        except (OSError, SafetensorError, ValueError, KeyError, ImportError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"model {path} cannot be loaded: {reason}") from error
        finally:
            if bars:
                logging.enable_progress_bar()

    def _prepare(self) -> None:
        """Make ready what is needed once a model is loaded: its engine, its adapters, its prefixes."""
        from harness.backends import _adapters, _decoding

        self._adapters = _adapters.Adapters(self._base, self.weights, self.backend.id)
        self._attached = "base"
        self._prefixes: OrderedDict[tuple[str, tuple[int, ...]], _decoding.Prefix] = OrderedDict()
        self._use(self._base)

    def _use(self, model: Any) -> None:
        from harness.backends import _attention, _decoding

        self.model = model
        self._fast = _attention.supports(model.config)
        self._engine: _decoding.Engine = _decoding.SlotEngine(model) if self._fast else _decoding.PlainEngine(model)
        if model is self._base:
            with self._torch.inference_mode():
                self._engine.begin_with(self._adapters.virtual)

    def attach(self, artifact: Path | None) -> None:
        if artifact is None:
            self._adapters.detach()
            self._return_to_base()
            self._attached = "base"
            return
        try:
            self._attach(artifact)
        except ModelError:
            self.attach(None)
            raise

    def _attach(self, artifact: Path) -> None:
        kind = artifacts.kind(artifact, self.weights, self.backend.id)
        key = f"harness_{models.fingerprint(artifact, code=self.backend.trust_remote_code)[:24]}"
        if kind == "adapter":
            self._adapters.attach(artifact, key)
            self._return_to_base()
        elif key != self._attached:
            self.attach(None)
            self._use(self._load_like_base(artifact))
        self._attached = key

    def _load_like_base(self, path: Path) -> Any:
        other = self._load(path)
        if other.config.vocab_size != self._base.config.vocab_size:
            raise ModelError(
                f"artifact {path} has {other.config.vocab_size} tokens in its vocabulary, model "
                f"{self.backend.id!r} has {self._base.config.vocab_size}: it was made from another model"
            )
        return other

    def _return_to_base(self) -> None:
        """Answer with the base's weights, and free a whole model that stood in their place."""
        replaced = self.model is not self._base
        self._use(self._base)
        if replaced:
            self._free()

    def _free(self) -> None:
        gc.collect()
        if self.device.startswith("cuda"):
            self._torch.cuda.empty_cache()

    def close(self) -> None:
        for name in ("_engine", "_adapters", "_base", "_prefixes", "model"):
            self.__dict__.pop(name, None)
        self._free()

    # ------------------------------------------------------------------------------------------------- planning

    def count(self, messages: Sequence[Message]) -> int:
        return len(self.chat.prompts([messages])[0])

    def _prompts(self, requests: Sequence[Request]) -> list[list[int] | str]:
        """Return the tokens of each request's prompt, or why it cannot be answered."""
        prompts = self.chat.prompts([request.messages for request in requests])
        return [self._fault(request, tokens) or tokens for request, tokens in zip(requests, prompts, strict=True)]

    def _fault(self, request: Request, tokens: Sequence[int]) -> str | None:
        longest = max(map(len, self._texts(request)), default=1)
        if tokens and len(tokens) + longest <= self._room:
            return None
        if not tokens:
            return "the prompt is empty"
        said = f"the prompt has {len(tokens)} tokens"
        said += f", the longest choice {longest}," if request.decoding.choices else ""
        virtual = self.context_length - self._room
        also = f" and the adapter's {virtual} virtual tokens" if virtual else ""
        return f"{said} and the model's context holds {self.context_length}, the answer{also} included"

    @property
    def _room(self) -> int:
        """Tokens that a prompt and its answer may have together with what is attached now."""
        return self.context_length - self._engine.virtual_tokens

    def _texts(self, request: Request) -> tuple[tuple[int, ...], ...]:
        """The tokens of each choice, encoded apart from the prompt: that is how a training stage teaches them."""
        choices = request.decoding.choices
        if choices not in self._encoded:
            if len(self._encoded) >= 256:
                self._encoded.clear()
            self._encoded[choices] = tuple(map(tuple, self.chat.encode(choices)))
        return self._encoded[choices]

    def plan(self, requests: Sequence[Request]) -> Plan:
        from harness.backends._decoding import families

        prompts = self._prompts(requests)
        answerable = [prompt for prompt in prompts if not isinstance(prompt, str)]
        prefix = self._shared(answerable) if self._fast else ()
        budget = self._budget()
        sizes = [
            self._size(index, request, 0 if isinstance(prompt, str) else len(prompt) - len(prefix), len(prefix))
            for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True))
        ]
        # Prompts that start alike stand together, so that their batch computes that start once.
        alike = families([[] if isinstance(prompt, str) else prompt[len(prefix) :] for prompt in prompts])
        members = [sorted((sizes[index] for index in family.members), reverse=True) for family in alike]
        ordered = [size for family in sorted(members, reverse=True) for size in family]
        batches = _cut(ordered, budget, self.backend.max_batch)
        settings = {
            "engine": "slots" if self._fast else "plain",
            "batch_tokens": budget,
            "max_batch": self.backend.max_batch,
        }
        return Plan(batches=batches, prefix=prefix, settings=settings)

    def _size(self, index: int, request: Request, length: int, shared: int) -> tuple[int, int, int, int]:
        from harness.backends import _likelihood

        if request.decoding.choices:
            return length, index, *_likelihood.size(self._texts(request), together=self._fast)
        return length, index, self._rows(request), self._limit(request, shared + length)

    def _shared(self, prompts: Sequence[list[int]]) -> tuple[int, ...]:
        """The tokens that all prompts start with, where they are worth computing apart; each keeps one of its own."""
        from harness.backends._decoding import common

        if len(prompts) < 2:
            return ()
        shortest = min(len(prompt) for prompt in prompts)
        # What the alphabetically first and last prompt start with, all between them start with.
        first, last = min(prompts), max(prompts)
        same = common(first[:shortest], last[:shortest])
        return tuple(first[:same]) if same >= SHORTEST_PREFIX else ()

    def _budget(self) -> int:
        config = self._base.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        number = 4 if self.dtype == "float32" else 2
        per_token: int = 2 * config.num_hidden_layers * heads * width * number
        return min(self.backend.batch_tokens, max(1024, CACHE_BYTES // per_token))

    def _rows(self, request: Request) -> int:
        return request.n if request.decoding.temperature > 0 else 1

    def _limit(self, request: Request, length: int) -> int:
        return max(1, min(request.decoding.max_tokens, self._room - length))

    # ------------------------------------------------------------------------------------------------ answering

    def answer(self, requests: Sequence[Request], plan: Plan, *, seed: int = 0) -> list[Reply]:
        from harness.backends import _decoding, _likelihood

        begun = time.perf_counter()
        prompts = self._prompts(requests)
        prefix = list(plan.prefix)
        rows: list[tuple[int, _decoding.Row]] = []
        weighed: dict[int, _likelihood.Row] = {}
        for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True)):
            if isinstance(prompt, str):
                continue
            if prompt[: len(prefix)] != prefix or len(prompt) == len(prefix):
                raise ValueError("the plan was made for other requests: a prompt does not start with the plan's prefix")
            if request.decoding.choices:
                weighed[index] = _likelihood.Row(prompt=prompt[len(prefix) :], texts=self._texts(request))
                continue
            for sample in range(self._rows(request)):
                rows.append((index, self._row(request, prompt, len(prefix), sample, seed)))
        with self._torch.inference_mode():
            shared = self._prefix(plan.prefix) if prefix and (rows or weighed) else None
            sizes = [(len(row.prompt), place, 1, row.limit) for place, (_, row) in enumerate(rows)]
            for part in _cut(sizes, plan.settings["batch_tokens"], plan.settings["max_batch"]):
                _decoding.decode(self._engine, [rows[place][1] for place in part], shared, self._ends)
            if weighed:
                _likelihood.weigh(self._engine, list(weighed.values()), shared)
        share = (time.perf_counter() - begun) / max(1, len(requests))
        answered: list[list[_decoding.Row]] = [[] for _ in requests]
        for index, row in rows:
            answered[index].append(row)
        return [
            weighed[index].reply(request, len(prefix), share)
            if index in weighed
            else self._reply(request, prompts[index], answered[index], len(prefix), share)
            for index, request in enumerate(requests)
        ]

    def _row(self, request: Request, prompt: list[int], shared: int, sample: int, seed: int) -> Any:
        from harness.backends import _decoding

        decoding = request.decoding
        limit = self._limit(request, len(prompt))
        row = _decoding.Row(prompt=prompt[shared:], limit=limit, temperature=decoding.temperature, top_p=decoding.top_p)
        if decoding.temperature > 0:
            import numpy as np

            # The draws follow from the request alone, so that neither its batch nor its neighbours change them.
            asked = [[message.role, message.content] for message in request.messages]
            key = int(digest([seed, sample, asked], 32), 16)
            row.draws = np.random.Generator(np.random.Philox(key=key)).random(limit)
        if decoding.stop:
            # Every token adds at least a byte, so a stop string that has just been completed stands in these.
            tail = max(len(stop.encode()) for stop in decoding.stop) + 8
            row.ends_with_stop = lambda added: any(stop in self._decode(added[-tail:]) for stop in decoding.stop)
        return row

    def _decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _prefix(self, tokens: tuple[int, ...]) -> Any:
        """The keys and values of a shared prefix with what is attached now; the last few are kept."""
        from harness.backends import _decoding

        key = (self._attached, tokens)
        if key not in self._prefixes:
            assert isinstance(self._engine, _decoding.SlotEngine)
            self._prefixes[key] = self._engine.prefix(tokens)
            while len(self._prefixes) > 2:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(key)
        return self._prefixes[key]

    def _reply(self, request: Request, prompt: list[int] | str, rows: list[Any], shared: int, seconds: float) -> Reply:
        if isinstance(prompt, str):
            return Reply(error=prompt, finish="error", seconds=seconds)
        copies = request.n if len(rows) == 1 else 1
        return Reply(
            texts=tuple(_until(self._decode(row.added), request.decoding.stop) for row in rows) * copies,
            input_tokens=len(prompt),
            cached_tokens=shared,
            output_tokens=sum(len(row.added) for row in rows) * copies,
            seconds=seconds,
            finish="length" if any(row.finish == "length" for row in rows) else "stop",
        )


def _until(text: str, stops: Sequence[str]) -> str:
    """Return `text` up to the first stop string in it."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return text[: min(places)] if places else text


def _cut(sizes: Sequence[tuple[int, int, int, int]], budget: int, most: int) -> tuple[tuple[int, ...], ...]:
    """Cut requests (prompt length, index, rows, new tokens), in this order, into batches of at most `most` rows whose
    padded tokens stay within `budget`; a request that is over it alone stands alone. Batches get about equal rows."""
    total = sum(rows for _, _, rows, _ in sizes)
    most = math.ceil(total / math.ceil(total / most)) if total else most
    batches: list[tuple[int, ...]] = []
    batch: list[int] = []
    held = longest = room = 0
    for length, index, rows, limit in sizes:
        wider, further = max(longest, length), max(room, limit)
        if batch and (held + rows > most or (held + rows) * (wider + further) > budget):
            batches.append(tuple(batch))
            batch, held, wider, further = [], 0, length, limit
        batch.append(index)
        held, longest, room = held + rows, wider, further
    return (*batches, tuple(batch)) if batch else tuple(batches)
