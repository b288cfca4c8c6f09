"""Asking about examples: what a prompt may look at, and the waves of requests that its generators make."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.errors import ModelError
from harness.plugins import Context, Embedding, Index, Method, Plan, Prompt, Retriever, Select, Session
from harness.records import Call, Choice, Decoding, Example, Message, Passage, Prediction, Reply, Request

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Asking(Context):
    """The `Context` of one variant: its train split, its index, its model's way of counting tokens."""

    def __init__(
        self,
        *,
        session: Session,
        decoding: Decoding,
        train: Sequence[Example],
        seed: int,
        retriever: Retriever | None = None,
        index: Index | None = None,
        embedding: Embedding | None = None,
    ) -> None:
        self.decoding = decoding
        self._session = session
        self.budget = session.context_length - self._room(decoding)
        self.retrieves = retriever is not None
        self._train = train
        self._seed = seed
        self._retriever = retriever
        self._index = index
        self._embedding = embedding
        self._passages: dict[str, tuple[Passage, ...]] = {}
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}
        self._train_vectors: npt.NDArray[np.float32] | None = None
        self._random_order: list[int] = []
        self._sizes: dict[str, int] = {}

    # ------------------------------------------------------------------------------------------ what a prompt uses

    def count(self, messages: Sequence[Message]) -> int:
        return self._session.count(messages)

    def passages(self, example: Example) -> tuple[Passage, ...]:
        if self._retriever is None:
            return ()
        if example.id not in self._passages:
            self._retrieve([example])
        return self._passages[example.id]

    def choose(self, example: Example, select: Select, n: int) -> tuple[Example, ...]:
        order: Sequence[int] = range(len(self._train))
        if select == "similar":
            order = self._by_likeness(example)
        elif select == "random":
            if not self._random_order:
                self._random_order = random.Random(self._seed).sample(order, len(order))
            order = self._random_order
        allowed = (self._train[i] for i in order if not _same(self._train[i], example))
        return tuple(itertools.islice(allowed, n))

    def _by_likeness(self, example: Example) -> Sequence[int]:
        """The rows of the train split, the one most like `example` first; equal ones as in the file."""
        import numpy as np

        if not self._train:
            return ()
        if example.id not in self._vectors:
            self._embed([example])
        assert self._train_vectors is not None
        order: list[int] = np.argsort(-(self._train_vectors @ self._vectors[example.id]), kind="stable").tolist()
        return order

    # ------------------------------------------------------------------------------------------- many at once

    def prepare(self, examples: Sequence[Example]) -> None:
        """Search for all of `examples`, and embed them where shots are chosen by likeness, in one go each: a sum of
        single calls takes several times as long."""
        if examples and self.retrieves:
            self._retrieve(examples)
        if examples and self._train and self._embedding is not None:
            self._embed(examples)

    def _retrieve(self, examples: Sequence[Example]) -> None:
        assert self._retriever is not None and self._index is not None
        found = self._index.search([example.input for example in examples], self._retriever.top_k)
        for example, passages in zip(examples, found, strict=True):
            self._passages[example.id] = self._within_budget(passages)

    def _embed(self, examples: Sequence[Example]) -> None:
        if self._embedding is None:
            raise ModelError('select = "similar" needs an embedder')
        if self._train_vectors is None:
            self._train_vectors = self._embedding.embed([shot.input for shot in self._train], role="query")
        vectors = self._embedding.embed([example.input for example in examples], role="query")
        self._vectors |= {example.id: vector for example, vector in zip(examples, vectors, strict=True)}

    def _within_budget(self, passages: Sequence[Passage]) -> tuple[Passage, ...]:
        """The passages, best first, as far as they fit into the retriever's token budget together."""
        assert self._retriever is not None
        room, kept = self._retriever.max_tokens, []
        for passage in passages:
            room -= self._size(passage)
            if room < 0:
                break
            kept.append(passage)
        return tuple(kept)

    def _size(self, passage: Passage) -> int:
        if passage.id not in self._sizes:
            self._sizes[passage.id] = self._tokens(passage.text)
        return self._sizes[passage.id]

    def _tokens(self, text: str) -> int:
        return self._session.count([Message("user", text)]) - self._session.count([Message("user", "")])

    def _room(self, decoding: Decoding) -> int:
        """The tokens that an answer may take."""
        return max(map(self._tokens, decoding.choices), default=decoding.max_tokens)

    def train_on(self, examples: Sequence[Example], method: Method) -> None:
        """Set the passages that the training prompts of `examples` hold, as RAFT does (arXiv 2403.10131).

        With a chance of `oracle_share` the gold passage stands among `distractors` retrieved ones of other documents;
        else, and where the example names no source, there are only such others. The gold passage is the one of the
        source documents that holds most of an accepted answer's words; of several the best retrieved. The seed and the
        example decide the draw.
        """
        assert self._retriever is not None and self._index is not None
        others_wanted = self._retriever.top_k - 1 if method.distractors is None else method.distractors
        by_document: dict[str, list[Passage]] = {}
        for passage in self._index.passages():
            by_document.setdefault(passage.document, []).append(passage)
        # Deep enough that the passages of the sources cannot take the places of the distractors.
        of_sources = (sum(len(by_document.get(name, [])) for name in example.sources) for example in examples)
        depth = others_wanted + 1 + max(of_sources, default=0)
        found = self._index.search([example.input for example in examples], depth)
        for example, ranked in zip(examples, found, strict=True):
            draw = random.Random(f"{self._seed} {example.id}")
            order = {passage.id: place for place, passage in enumerate(ranked)}
            gold = [passage for name in example.sources for passage in by_document.get(name, [])]
            gold.sort(key=lambda passage: (-_held(example, passage.text), order.get(passage.id, depth)))
            others = [passage for passage in ranked if passage.document not in example.sources]
            oracle = bool(gold) and draw.random() < method.oracle_share
            chosen = [*gold[:1], *others[:others_wanted]] if oracle else others[: others_wanted + 1]
            # The budget is applied before the order is drawn: the gold passage is never the one left out.
            kept = list(self._within_budget(chosen))
            if method.shuffle:
                draw.shuffle(kept)
            else:
                kept.sort(key=lambda passage: order.get(passage.id, depth))
            self._passages[example.id] = tuple(kept)

    def citation(self, example: Example, template: str) -> str:
        """What `template` says of the gold passage where it stands in the prompt of `example`, else nothing: an answer
        must not cite what its reader cannot see."""
        gold = [passage for passage in self.passages(example) if passage.document in example.sources]
        best = max(gold, key=lambda passage: _held(example, passage.text), default=None)
        if best is None:
            return ""
        quote = max(_SENTENCES.split(best.text), key=lambda sentence: _held(example, sentence)).strip()
        values = {"quote": quote, "document": best.document}
        return re.sub(r"\{(quote|document)\}", lambda match: values[match[1]], template)


_WORDS = re.compile(r"\w+")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")


def _held(example: Example, text: str) -> float:
    """The share of an accepted answer's words that stand in `text`, for the best of the accepted answers."""
    words = set(_WORDS.findall(text.casefold()))
    wanted = [set(_WORDS.findall(target.casefold())) for target in example.targets]
    return max((len(each & words) / len(each) for each in wanted if each), default=0.0)


def _same(shot: Example, example: Example) -> bool:
    return shot.id == example.id or bool(example.group and shot.group == example.group)


# ------------------------------------------------------------------------------------------------- conversations


class _Conversation:
    """One example's generator, driven until it returns its answer."""

    def __init__(self, example: Example, asking: Generator[Request, Reply, str | None], context: Asking) -> None:
        self.example = example
        self.calls: list[Call] = []
        self.text: str | None = None
        self.error: str | None = None
        self._choices: tuple[Choice, ...] = ()
        self._passages = context.passages(example)
        self._asking = asking
        self.request: Request | None = None
        self._go_on(lambda: next(self._asking))

    def receive(self, reply: Reply) -> None:
        assert self.request is not None
        self.calls.append(Call(messages=self.request.messages, reply=replace(reply, choices=())))
        self._choices = reply.choices
        if reply.error is None:
            self._go_on(lambda: self._asking.send(reply))
        else:
            self.error, self.request = reply.error, None
            self._asking.close()

    def _go_on(self, step: Callable[[], Request]) -> None:
        try:
            self.request = step()
        except StopIteration as end:
            self.text, self.request = end.value, None
            if self.text is None:
                self.error = "the prompt gave no answer"

    def prediction(self) -> Prediction:
        return Prediction(
            id=self.example.id,
            text=self.text,
            calls=tuple(self.calls),
            passages=self._passages,
            error=self.error,
            choices=self._choices,
        )


def answer(
    examples: Sequence[Example],
    prompt: Prompt,
    context: Asking,
    session: Session,
    *,
    seed: int,
    done: Sequence[Sequence[Prediction]] = (),
    save: Callable[[Sequence[Prediction]], None],
) -> None:
    """Answer `examples` batch by batch and hand each finished batch to `save`.

    All first requests are planned together before any is answered, so that the plan does not depend on what an earlier
    process has already `done`: its batches are skipped whole. Inside a batch the conversations go on in waves, one
    request each, until all have ended.
    """
    found = [_Conversation(example, prompt.ask(example, context), context) for example in examples]
    _in_batches(found, session, seed, done, save)


def weigh(
    examples: Sequence[Example],
    texts: Mapping[str, tuple[str, ...]],
    prompt: Prompt,
    context: Asking,
    session: Session,
    *,
    done: Sequence[Sequence[Prediction]] = (),
    save: Callable[[Sequence[Prediction]], None],
) -> None:
    """Instead of answering, tell how likely the `texts` of each example (by its id) are after its prompt: they become
    the `choices` of a prediction, in batches as `answer` makes them. An example without texts gets none."""
    found = [
        _Conversation(example, _weighing(example, texts[example.id], prompt, context), context) for example in examples
    ]
    _in_batches(found, session, 0, done, save)


def _weighing(
    example: Example, texts: tuple[str, ...], prompt: Prompt, context: Asking
) -> Generator[Request, Reply, str | None]:
    if not texts:
        return ""
    reply = yield Request(messages=prompt.messages(example, context), decoding=Decoding(choices=texts))
    return reply.texts[0]


def _in_batches(
    conversations: Sequence[_Conversation],
    session: Session,
    seed: int,
    done: Sequence[Sequence[Prediction]],
    save: Callable[[Sequence[Prediction]], None],
) -> None:
    asking = [conversation for conversation in conversations if conversation.request is not None]
    plan = session.plan([conversation.request for conversation in asking if conversation.request is not None])
    finished = {prediction.id for batch in done for prediction in batch}
    batches = [[asking[i] for i in batch] for batch in plan.batches]
    silent = [conversation for conversation in conversations if conversation.request is None]
    for members in [silent, *batches] if silent else batches:
        if all(member.example.id in finished for member in members):
            continue
        _waves(members, session, plan, seed)
        save([member.prediction() for member in members])


def _waves(members: Sequence[_Conversation], session: Session, plan: Plan, seed: int) -> None:
    while waiting := [(member, member.request) for member in members if member.request is not None]:
        replies = session.answer([request for _, request in waiting], plan, seed=seed)
        for (member, _), reply in zip(waiting, replies, strict=True):
            member.receive(reply)
