"""semantic_similarity, pinned to sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from means import NO_MEANS, Given
from toys import Hashed, HashedEmbedding

from harness.embedders.sentence_transformers import SentenceTransformers
from harness.metrics.semantic_similarity import SemanticSimilarity
from harness.plugins import Metric
from harness.records import Example, Prediction
from harness.scoring import score

METRIC = SemanticSimilarity.model_validate({"embedder": {"kind": "toys:Hashed"}})


def similar(cases: list[tuple[str | None, list[str]]], embedding: Any, metric: Metric = METRIC) -> list[Any]:
    examples = [Example(id=str(i), input="?", targets=tuple(targets)) for i, (_, targets) in enumerate(cases)]
    answers = [Prediction(id=str(i), text=text) for i, (text, _) in enumerate(cases)]
    return list(metric.measure_all(examples, answers, Given(embedding=embedding)))


def test_the_nearest_accepted_answer_counts() -> None:
    def embed(texts: Any) -> Any:
        return HashedEmbedding().embed(texts, role="document")

    assert similar([("red apple", ["red apple"]), ("red apple", ["green pear", "red pear"])], embed) == [1.0, 0.5]


def test_every_text_is_embedded_once_and_all_together() -> None:
    asked: list[list[str]] = []

    def embed(texts: Any) -> Any:
        asked.append(list(texts))
        return np.eye(len(texts), dtype=np.float32)

    assert similar([("a", ["b", "c"]), ("b", ["b "]), ("a", ["c"])], embed) == [0.0, 1.0, 0.0]
    assert asked == [["b", "c", "a"]]


def test_cosines_stay_between_zero_and_one() -> None:
    def embed(texts: Any) -> Any:
        return np.array([[1.0000001 if text != "b" else -1.0] for text in texts], dtype=np.float32)

    assert similar([("a", ["c"]), ("a", ["b"])], embed) == [1.0, 0.0]


def test_an_empty_text_has_no_meaning() -> None:
    def embed(texts: Any) -> Any:
        assert "" not in texts
        return np.ones((len(texts), 1), dtype=np.float32)

    cases: list[tuple[str | None, list[str]]] = [(" \n", ["a"]), (None, ["a"]), ("a", [""]), ("", ["a", " "])]
    assert similar(cases, embed) == [0.0, 0.0, 0.0, 1.0]
    assert METRIC.measure_all([Example(id="q", input="?", targets=("",))], [Prediction(id="q", text="")], NO_MEANS) == [
        1.0
    ]


def test_examples_without_accepted_answers_are_not_spoken_of_and_failed_ones_count_nothing() -> None:
    examples = [Example(id="a", input="?"), Example(id="b", input="?", targets=("x",))]
    answers = [Prediction(id="a", text="x"), Prediction(id="b", text=None, error="too long")]
    means = Given(embedding=lambda texts: np.ones((len(texts), 1), dtype=np.float32))
    made, _ = score(METRIC, examples, answers, means)
    assert (made.statistics, made.errors, made.unit) == ((None, (0.0,)), 1, "cosine")


def test_the_signature_holds_the_embedder_and_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert METRIC.embedder_plugin == Hashed()
    assert "toys:Hashed" in METRIC.signature
    before = METRIC.signature
    monkeypatch.setattr(Hashed, "fingerprint", lambda self: {"weights": "others"})
    assert METRIC.signature != before


def test_the_built_in_embedder_gives_the_cosines_of_sentence_transformers(builtin_embedder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import cos_sim

    embedding = SentenceTransformers().open()
    cases: list[tuple[str | None, list[str]]] = [
        ("It is covered for two years.", ["The warranty lasts 24 months.", "Bananas are yellow."]),
        ("The café opens at 9.", ["The café opens at 9."]),
    ]
    found = similar(cases, lambda texts: embedding.embed(texts, role="document"), SemanticSimilarity())
    model = SentenceTransformer(str(builtin_embedder), device="cpu")
    for value, (answer, targets) in zip(found, cases, strict=True):
        expected = float(cos_sim(model.encode([answer]), model.encode(targets)).max())
        assert value == pytest.approx(expected, abs=2e-5)
    assert found[0] > 0.3 and found[1] == 1.0
