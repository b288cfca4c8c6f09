"""Embeddings by a sentence-transformers model (Reimers and Gurevych 2019, arXiv 1908.10084)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from harness import extras, models
from harness.errors import ModelError
from harness.plugins import Embedder, Embedding, Local

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class SentenceTransformers(Embedder):
    id: Annotated[str, Local(or_name=True)] = "all-minilm-l6-v2"
    """A built-in name, a local folder, or a Hub id."""
    query_prefix: str = ""
    """What stands before a question, for models that were trained so ("query: ")."""
    document_prefix: str = ""
    """What stands before a passage."""
    batch_size: int = Field(32, ge=1)

    def fingerprint(self) -> dict[str, Any]:
        return {**self.settings(), "id": "", "weights": models.fingerprint(models.resolve(self.id))}

    def open(self) -> Embedding:
        return _Loaded(self)


class _Loaded(Embedding):
    def __init__(self, settings: SentenceTransformers) -> None:
        with extras.needed("retrieve"):
            from safetensors import SafetensorError
            from sentence_transformers import SentenceTransformer
        folder = models.resolve(settings.id)
        try:
            with _without_progress_bars():
                self._model = SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"{settings.id!r} cannot be loaded as a sentence-transformers model: {error}") from error
        self._settings = settings
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        # `count` leaves out the marks around a text and the prefix, so they come off the window.
        window = int(self._model.max_seq_length or 512) - self._model.tokenizer.num_special_tokens_to_add()
        self.max_tokens = window - self.count(settings.document_prefix)

    def embed(self, texts: Sequence[str], *, role: Literal["query", "document"]) -> npt.NDArray[np.float32]:
        import numpy as np

        prefix = self._settings.query_prefix if role == "query" else self._settings.document_prefix
        vectors: npt.NDArray[np.float32] = self._model.encode(
            [prefix + text for text in texts],
            batch_size=self._settings.batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return vectors.astype(np.float32, copy=False).reshape(len(texts), self.dimension)

    def count(self, text: str) -> int:
        return len(self._model.tokenizer.encode(text, add_special_tokens=False, truncation=False, verbose=False))


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
