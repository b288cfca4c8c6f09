"""recall@k and MRR, pinned to trec_eval."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.metrics.mrr import Mrr
from harness.metrics.recall import Recall
from harness.records import Example, Passage, Prediction

# Ranked documents, relevant ones, recall at 1, 2, 3 and 5, reciprocal rank: `recall.1,2,3,5` and `recip_rank` of
# pytrec-eval-terrier 0.5.11 (trec_eval 9). The first two are the sample of its README.
GOLDEN = [
    ("d3 d1 d2", "d2", (0.0, 0.0, 1.0, 1.0), 0.3333333333333333),
    ("d1 d3 d2", "d2 d3", (0.0, 0.5, 1.0, 1.0), 0.5),
    (
        "d4 d2 d1 d3 d5",
        "d1 d4 d9",
        (0.3333333333333333, 0.3333333333333333, 0.6666666666666666, 0.6666666666666666),
        1.0,
    ),
    ("d1 d2 d3", "d7", (0.0, 0.0, 0.0, 0.0), 0.0),
    ("d5 d2 d1", "d2 d5", (0.5, 1.0, 1.0, 1.0), 1.0),
]


def answered(ranked: list[str]) -> Prediction:
    passages = (Passage(id=f"{name}#{i}", document=name, text="", rank=i + 1) for i, name in enumerate(ranked))
    return Prediction(id="q", text="", passages=tuple(passages))


def asked(*sources: str) -> Example:
    return Example(id="q", input="?", sources=sources)


@pytest.mark.parametrize(("ranked", "relevant", "recalls", "reciprocal"), GOLDEN)
def test_the_numbers_are_those_of_trec_eval(
    ranked: str, relevant: str, recalls: tuple[float, ...], reciprocal: float
) -> None:
    example, prediction = asked(*relevant.split()), answered(ranked.split())
    measured = [Recall(k=k).measure(example, prediction) for k in (1, 2, 3, 5)]
    assert measured == pytest.approx(recalls)
    assert Mrr().measure(example, prediction) == pytest.approx(reciprocal)


def test_passages_of_one_document_count_once_at_the_best_rank() -> None:
    prediction = answered(["a", "a", "b", "a", "c"])
    assert Recall(k=2).measure(asked("b"), prediction) == 1
    assert Recall(k=2).measure(asked("c"), prediction) == 0
    assert Mrr().measure(asked("b"), prediction) == 0.5


def test_an_example_without_sources_is_not_spoken_of_and_no_passages_are_a_zero() -> None:
    for metric in (Recall(), Mrr()):
        assert metric.measure(asked(), answered(["a"])) is None
        assert metric.measure(asked("a"), answered([])) == 0
        assert metric.needs_passages


@given(ranked=st.lists(st.sampled_from("abcdef"), max_size=8), relevant=st.sets(st.sampled_from("abcdef"), min_size=1))
def test_recall_grows_with_depth_and_agrees_with_the_reciprocal_rank(ranked: list[str], relevant: set[str]) -> None:
    example, prediction = asked(*sorted(relevant)), answered(ranked)
    recalls = [Recall(k=k).measure(example, prediction) for k in range(1, 9)]
    assert all(a is not None and b is not None and a <= b for a, b in pairwise(recalls))
    assert recalls[-1] == pytest.approx(len(relevant & set(ranked)) / len(relevant))
    first = next((k for k, recall in enumerate(recalls, start=1) if recall), None)
    assert Mrr().measure(example, prediction) == (1 / first if first else 0)


def test_the_depth_stands_in_the_name() -> None:
    assert Recall(k=5).name == "recall@5"
    assert Mrr().name == "mrr"
    with pytest.raises(ValidationError):
        Recall(k=0)
