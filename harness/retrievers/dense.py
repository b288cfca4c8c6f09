"""Retrieve by meaning: passages and questions as vectors, the nearest first, over an exact FAISS index.

An index is a folder of plain files: `index.faiss` (inner products of unit vectors, Johnson et al. 2017,
arXiv 1702.08734), `passages.jsonl` (row i of the index is line i), and `index.json`, written last, with the settings
and the digests of the two.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from harness import extras, files
from harness.errors import DataError, ModelError, StoreError
from harness.plugins import Chunker, Embedder, Embedding, Family, Index, Retriever
from harness.records import Document, Passage, dump_json, load_json

_VECTORS, _PASSAGES, _ABOUT = "index.faiss", "passages.jsonl", "index.json"
# Scores differ in the last bits with the batch that a text was embedded in: that must not decide between equal ones.
_DECIMALS = 5
# From 20 queries on FAISS takes another way, whose last bits depend on how many there are.
_QUERIES_AT_ONCE = 16


class Dense(Retriever):
    chunker: Annotated[Chunker, Family("chunkers", "headings")] = Field({"kind": "headings"}, validate_default=True)
    """How documents are cut into passages."""
    embedder: Annotated[Embedder, Family("embedders", "sentence-transformers")] = Field(
        {"kind": "sentence-transformers"}, validate_default=True
    )
    """What turns passages and questions into vectors."""

    @property
    def embedder_plugin(self) -> Embedder:
        return self.embedder

    def build(self, documents: Sequence[Document], out: Path, embedding: Embedding | None) -> None:
        """Raises ModelError where the chunker makes a passage that the embedder would not see whole."""
        with extras.needed("retrieve"):
            import faiss

        assert embedding is not None
        passages = [passage for document in documents for passage in self.chunker.split(document, embedding.count)]
        if not passages:
            raise DataError("the documents hold no text to retrieve")
        _refuse_too_long(passages, embedding)
        index = faiss.IndexFlatIP(embedding.dimension)
        index.add(embedding.embed([passage.text for passage in passages], role="document"))
        faiss.write_index(index, str(out / _VECTORS))
        with (out / _PASSAGES).open("wb") as stream:
            stream.writelines(dump_json(passage) + b"\n" for passage in passages)
        about = {
            "settings": self.identity(built=True),
            "documents": len(documents),
            "passages": len(passages),
            "dimension": embedding.dimension,
            "sha256": _digests(out),
        }
        (out / _ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def open(self, folder: Path, embedding: Embedding | None) -> Index:
        """Raises StoreError where the files are damaged, ModelError where another embedder made them."""
        assert embedding is not None
        return _Opened(folder, embedding)


class _Opened(Index):
    def __init__(self, folder: Path, embedding: Embedding) -> None:
        about = _checked(folder)
        if about["dimension"] != embedding.dimension:
            raise ModelError(
                f"the index in {folder} has vectors of {about['dimension']} numbers, this embedder makes "
                f"{embedding.dimension}: it was built with another one"
            )
        with extras.needed("retrieve"):
            import faiss

        self._index = faiss.read_index(str(folder / _VECTORS))
        lines = (folder / _PASSAGES).read_bytes().split(b"\n")
        self._passages = [load_json(Passage, line) for line in lines if line]
        self._embedding = embedding

    def passages(self) -> Sequence[Passage]:
        return self._passages

    def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """Exact search. Scores are cosines, rounded to 5 decimals; equal ones stand in the order of passage ids."""
        if not queries:
            return []
        vectors = self._embedding.embed(queries, role="query")
        starts = range(0, len(queries), _QUERIES_AT_ONCE)
        return [found for i in starts for found in self._nearest(vectors[i : i + _QUERIES_AT_ONCE], k)]

    def _nearest(self, vectors: Any, k: int) -> list[list[Passage]]:
        """FAISS breaks ties its own way, so ask for more than `k`, until nothing outside equals the last one taken."""
        k = min(k, len(self._passages))
        depth = min(k + 8, len(self._passages))
        while True:
            scores, rows = self._index.search(vectors, depth)
            rounded = scores.round(_DECIMALS)
            if depth == len(self._passages) or (rounded[:, -1] < rounded[:, k - 1]).all():
                break
            depth = min(depth * 2, len(self._passages))
        return [self._ranked(*found, k) for found in zip(rounded.tolist(), rows.tolist(), strict=True)]

    def _ranked(self, scores: Sequence[float], rows: Sequence[int], k: int) -> list[Passage]:
        found = [(-round(score, _DECIMALS), self._passages[row]) for score, row in zip(scores, rows, strict=True)]
        found.sort(key=lambda pair: (pair[0], pair[1].id))
        return [
            Passage(id=passage.id, document=passage.document, text=passage.text, score=-score, rank=rank)
            for rank, (score, passage) in enumerate(found[:k], start=1)
        ]


def _refuse_too_long(passages: Sequence[Passage], embedding: Embedding) -> None:
    sizes = {passage.id: embedding.count(passage.text) for passage in passages}
    long = {name: size for name, size in sizes.items() if size > embedding.max_tokens}
    if long:
        name, size = max(long.items(), key=lambda pair: pair[1])
        raise ModelError(
            f"{len(long)} of {len(passages)} passages are longer than the {embedding.max_tokens} tokens that the "
            f"embedder sees ({name}: {size}); what stands behind could never be found. Set "
            f"retrieve.chunker.max_tokens to {embedding.max_tokens} or less, or choose another embedder."
        )


def _checked(folder: Path) -> dict[str, Any]:
    remedy = "Delete the folder and run again: the index is built anew."
    try:
        about: dict[str, Any] = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        digests = _digests(folder)
        wrong = sorted(name for name, digest in about["sha256"].items() if digests[name] != digest)
    except (OSError, StoreError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"the index in {folder} cannot be read: {type(error).__name__} {error}. {remedy}") from error
    if wrong:
        raise StoreError(f"the index in {folder} is damaged: {', '.join(wrong)} changed after it was built. {remedy}")
    return about


def _digests(folder: Path) -> dict[str, str]:
    return {name: files.sha256(folder / name) for name in (_VECTORS, _PASSAGES)}
