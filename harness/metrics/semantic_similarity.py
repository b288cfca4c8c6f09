"""How near the answer's meaning is to an accepted answer's, by an embedder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from harness.plugins import Embedder, Family, Means, Measured, Metric
from harness.records import Example, Prediction, digest

# The last bits of a vector differ with the batch that a text was embedded in.
_DECIMALS = 5


class SemanticSimilarity(Metric):
    """The cosine between the vectors of the answer and of the nearest accepted answer (Reimers and Gurevych 2019,
    arXiv 1908.10084), from 0 to 1; the rare cosines below 0 count as 0, so that no answer counts worse than a failed
    one. An empty answer counts 0, unless an accepted one is empty too: then 1. The metric does not speak of examples
    without an accepted answer.

    It measures how alike two texts sound to the embedder, not whether the answer is right: "24 months" and "36 months",
    or a sentence and its negation, are near each other. Unrelated texts do not reach 0, and values of different
    embedders cannot be compared. What an embedder cannot see whole, it cuts.
    """

    unit = "cosine"

    embedder: Annotated[Embedder, Family("embedders", "sentence-transformers")] = Field(
        {"kind": "sentence-transformers"}, validate_default=True
    )
    """What turns texts into vectors."""

    @property
    def embedder_plugin(self) -> Embedder:
        return self.embedder

    @property
    def signature(self) -> str:
        """The settings, and the digest of what identifies the embedder's weights."""
        return f'{super().signature}|weights:"{digest(self.embedder.fingerprint())}"'

    def measure_all(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], means: Means
    ) -> list[Measured | Exception]:
        answers = [(prediction.text or "").strip() for prediction in predictions]
        targets = [[target.strip() for target in example.targets] for example in examples]
        texts = [text for texts in targets for text in texts] + answers
        unique = [text for text in dict.fromkeys(texts) if text]
        vectors = dict(zip(unique, means.embed(unique), strict=True)) if unique else {}

        def cosine(one: str, other: str) -> float:
            if not (one and other):
                return float(one == other)
            return min(1.0, max(0.0, round(float(vectors[one] @ vectors[other]), _DECIMALS)))

        return [
            max((cosine(answer, target) for target in accepted), default=None)
            for answer, accepted in zip(answers, targets, strict=True)
        ]
