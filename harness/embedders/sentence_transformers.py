"""Embeddings by a sentence-transformers model (Reimers and Gurevych 2019, arXiv 1908.10084)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from harness import models
from harness.errors import ModelError
from harness.plugins import Embedder, Embedding

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class SentenceTransformers(Embedder):
    id: str = "all-minilm-l6-v2"
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
        from sentence_transformers import SentenceTransformer

        folder = models.resolve(settings.id)
        try:
            self._model = SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ModelError(f"{settings.id!r} cannot be loaded as a sentence-transformers model: {error}") from error
        self._settings = settings
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.max_tokens = int(self._model.max_seq_length or 512)

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
        # Without the two marks that the model adds around every text.
        return len(self._model.tokenizer.encode(text, add_special_tokens=False, truncation=False, verbose=False))
