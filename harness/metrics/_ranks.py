"""The ranked documents of a prediction, and which of them are relevant."""

from __future__ import annotations

from harness.records import Prediction


def documents(prediction: Prediction) -> list[str]:
    """Return the documents of the retrieved passages, best first, each once: at the rank of its best passage."""
    return list(dict.fromkeys(passage.document for passage in prediction.passages))
