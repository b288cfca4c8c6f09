"""Small plug-ins with which a whole comparison runs in a second, without torch: `kind = "toys:Counted"` and the like.

What they do is written, a line each, into the file that the environment variable TOYS_LOG names, so that a test can
count it over all processes. The file that TOYS_BROKEN names holds texts: a message with one of them gets an error.
TOYS_ANSWER, TOYS_STEP and TOYS_MEASURE are seconds that each of these takes; once the file TOYS_SLOW is there, a step
takes a minute.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from harness.backends.canned import Canned, CannedSession
from harness.errors import ModelError
from harness.plugins import (
    Context,
    Embedder,
    Embedding,
    Index,
    Method,
    Metric,
    Plan,
    Prompt,
    Retriever,
    Session,
    Trained,
    TrainJob,
)
from harness.records import Document, Example, Message, Passage, Prediction, Reply, Request, dump_json, load_json


def log(line: str) -> None:
    if file := os.environ.get("TOYS_LOG"):
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")


def take(name: str) -> None:
    time.sleep(float(os.environ.get(name, "0")))


def broken() -> list[str]:
    file = Path(os.environ.get("TOYS_BROKEN", "/nowhere"))
    return file.read_text(encoding="utf-8").split("\n") if file.exists() else []


class Counted(Canned):
    """The canned backend; it tells what it was asked, and an artifact of `Steps` changes how its answers end."""

    trainable: ClassVar[bool] = True

    def open(self) -> Session:
        log("open")
        return CountedSession(self)


class CountedSession(CannedSession):
    ending = ""

    def attach(self, artifact: Path | None) -> None:
        self.ending = "" if artifact is None else json.loads((artifact / "artifact.json").read_text())["ending"]

    def answer(self, requests: Sequence[Request], plan: Plan, *, seed: int = 0) -> list[Reply]:
        replies = super().answer(requests, plan, seed=seed)
        return [self._changed(request, reply) for request, reply in zip(requests, replies, strict=True)]

    def _changed(self, request: Request, reply: Reply) -> Reply:
        asked = request.messages[-1].content
        log(f"answer {asked.splitlines()[-1]}")
        take("TOYS_ANSWER")
        if any(text and text in asked for text in broken()):
            return Reply(error="the line was bad", finish="error")
        if reply.choices:  # What was weighed has no ending of its own.
            return reply
        texts = tuple(text + self.ending for text in reply.texts)
        return Reply(
            texts=texts, input_tokens=reply.input_tokens, output_tokens=reply.output_tokens, seconds=reply.seconds
        )


class Steps(Method):
    """Learns how the completions end, one row a step, with a checkpoint after each."""

    steps: int = 4
    fault: Literal["", "user", "bug", "killed", "path", "memory"] = ""

    def fit(self, job: TrainJob, progress: Callable[[int, int, Mapping[str, float]], None]) -> Trained:
        print("a library may print what it likes")
        checkpoint = job.work / "checkpoint.json"
        done = json.loads(checkpoint.read_text())["step"] if checkpoint.exists() else 0
        rows = [json.loads(line) for line in job.train.read_text(encoding="utf-8").splitlines()]
        log(f"train from {done} pid {os.getpid()}")
        for step in range(done + 1, self.steps + 1):
            take("TOYS_STEP")
            if Path(os.environ.get("TOYS_SLOW", "/nowhere")).exists():
                time.sleep(60)
            if self.fault == "user":
                raise ModelError("the rank must be smaller")
            if self.fault == "bug":
                raise ValueError("a slip in the method")
            if self.fault == "killed" or (self.fault == "memory" and "TOYS_NO_MEMORY" in os.environ):
                os.kill(os.getpid(), 9)
            if self.fault == "path":
                secret = job.train.parents[4].parent / "secret"
                raise ModelError(f"cannot read {secret} or {job.out.parents[2]}/thing or {Path.home()}/thing")
            log(f"train {step}")
            draft = job.work / "checkpoint.tmp"
            draft.write_text(json.dumps({"step": step}))
            draft.replace(checkpoint)
            progress(step, self.steps, {"loss": 1 / step})
        ending = rows[0]["completion"][-1]
        (job.out / "artifact.json").write_text(json.dumps({"ending": ending, "prompts": [r["messages"] for r in rows]}))
        return Trained(trainable_parameters=7, steps=self.steps, tokens=100 * self.steps)


class Words(Retriever):
    """Finds the documents that share most words with the question."""

    query_only = frozenset({"top_k", "max_tokens"})
    least: int = 1

    def build(self, documents: Sequence[Document], out: Path, embedding: Embedding | None) -> None:
        log("index")
        lines = [dump_json(document) for document in documents]
        (out / "documents.jsonl").write_bytes(b"\n".join(lines))

    def open(self, folder: Path, embedding: Embedding | None) -> Index:
        lines = (folder / "documents.jsonl").read_bytes().split(b"\n")
        return WordIndex([load_json(Document, line) for line in lines])


class WordIndex(Index):
    def __init__(self, documents: Sequence[Document]) -> None:
        self._passages = [Passage(id=f"{d.id}#0", document=d.id, text=d.text) for d in documents]

    def passages(self) -> Sequence[Passage]:
        return self._passages

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        return [self._search(words(query), k) for query in queries]

    def _search(self, asked: set[str], k: int) -> list[Passage]:
        scored = sorted((-len(asked & words(p.text)), p.id, p) for p in self._passages)[:k]
        return [
            Passage(id=p.id, document=p.document, text=p.text, score=float(-score), rank=rank)
            for rank, (score, _, p) in enumerate(scored, start=1)
        ]


def words(text: str) -> set[str]:
    return {word.strip("?.!,").lower() for word in text.split()}


class Hashed(Embedder):
    """Texts as counts of their words, by a hash of each word."""

    def fingerprint(self) -> dict[str, Any]:
        return self.settings()

    def open(self) -> Embedding:
        return HashedEmbedding()


class HashedEmbedding(Embedding):
    dimension = 64
    max_tokens = 1000

    def embed(self, texts: Sequence[str], *, role: Literal["query", "document"]) -> npt.NDArray[np.float32]:
        log(f"embed {len(texts)}")
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in words(text):
                vectors[row, zlib.crc32(word.encode()) % self.dimension] += 1
        lengths: npt.NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / lengths

    def count(self, text: str) -> int:
        return len(text.split())


class Faulty(Prompt):
    """A prompt that cannot ask: for a reason the user can act on, or through a slip."""

    fault: Literal["user", "bug", "path"] = "user"

    def messages(self, example: Example, context: Context) -> tuple[Message, ...]:
        if self.fault == "user":
            raise ModelError("the template names no question")
        raise ValueError("a slip in the prompt")


class Peeks(Prompt):
    """Tells what it can see of the answer."""

    def messages(self, example: Example, context: Context) -> tuple[Message, ...]:
        log(f"peeked {example.targets} {example.sources}")
        return (Message("user", example.input),)


class Length(Metric):
    """The answer's length in letters; it fails on answers that hold `fails_on`."""

    unit = "letters"
    ceiling = None
    fails_on: str = "\0"

    def measure(self, example: Example, prediction: Prediction) -> float:
        log(f"measure {example.id}")
        take("TOYS_MEASURE")
        if self.fails_on in (prediction.text or ""):
            raise ValueError(f"nothing is known of {self.fails_on}")
        return len(prediction.text or "")
