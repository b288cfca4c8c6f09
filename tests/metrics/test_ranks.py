"""The metrics of retrieval, pinned to trec_eval."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import answered
from pydantic import ValidationError

from harness.metrics._ranks import Ranking, documents
from harness.metrics.hit import Hit
from harness.metrics.map import Map
from harness.metrics.mrr import Mrr
from harness.metrics.ndcg import Ndcg
from harness.metrics.precision import Precision
from harness.metrics.r_precision import RPrecision
from harness.metrics.recall import Recall
from harness.records import Example

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
METRICS: dict[str, Ranking] = {
    "recip_rank": Mrr(),
    "map": Map(),
    "Rprec": RPrecision(),
    **{f"recall_{k}": Recall(k=k) for k in (1, 3, 5)},
    **{f"P_{k}": Precision(k=k) for k in (1, 3, 5)},
    **{f"success_{k}": Hit(k=k) for k in (1, 3, 5)},
    **{f"ndcg_cut_{k}": Ndcg(k=k) for k in (1, 3, 5, 10)},
}


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


@pytest.mark.parametrize(
    ("ranked", "relevant", "average_precision", "ndcg"),
    [("d3 d1 d2", "d2", 0.3333333333333333, 0.5), ("d1 d3 d2", "d2 d3", 0.5833333333333333, 0.6934264036172708)],
)
def test_map_and_ndcg_are_those_of_pytrec_evals_readme(
    ranked: str, relevant: str, average_precision: float, ndcg: float
) -> None:
    example, prediction = asked(*relevant.split()), answered(ranked.split())
    assert Map().measure(example, prediction) == pytest.approx(average_precision, abs=1e-12)
    assert Ndcg(k=10).measure(example, prediction) == pytest.approx(ndcg, abs=1e-12)


NAMES = ["d1", "d2", "d10", "a", "Z", "é", "猫", "_", "KB-017"]


@settings(deadline=None)
@given(
    run=st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3), min_size=1),
    relevant=st.sets(st.sampled_from(NAMES), min_size=1),
    shuffle=st.randoms(use_true_random=False),
)
def test_any_ranking_with_ties_has_trec_evals_numbers(run: dict[str, int], relevant: set[str], shuffle: object) -> None:
    import pytrec_eval

    wanted = {name.replace("_cut_", "_cut.").replace("recall_", "recall.") for name in METRICS}
    wanted = {name.replace("P_", "P.").replace("success_", "success.") for name in wanted}
    evaluator = pytrec_eval.RelevanceEvaluator({"q": dict.fromkeys(relevant, 1)}, wanted)
    expected = evaluator.evaluate({"q": {name: float(score) for name, score in run.items()}})["q"]
    found = list(run.items())
    shuffle.shuffle(found)  # type: ignore[attr-defined]
    found.sort(key=lambda pair: -pair[1])
    prediction = answered([name for name, _ in found], [float(score) for _, score in found])
    measured = {name: metric.measure(asked(*relevant), prediction) for name, metric in METRICS.items()}
    assert measured == pytest.approx({name: expected[name] for name in METRICS}, abs=1e-9)


def test_equal_scores_are_ordered_by_id_the_last_first() -> None:
    assert documents(answered(["a", "c", "b", "d"], [2.0, 1.0, 1.0, 0.5])) == ["a", "c", "b", "d"]
    assert documents(answered(["a", "b", "c", "d"], [2.0, 1.0, 1.0, 0.5])) == ["a", "c", "b", "d"]
    assert documents(answered(["d1", "d10", "d2"], [1.0, 1.0, 1.0])) == ["d2", "d10", "d1"]


def test_a_ranking_without_scores_or_against_them_keeps_its_order() -> None:
    assert documents(answered(["a", "b"], [None, None])) == ["a", "b"]
    assert documents(answered(["a", "b", "c"], [0.1, 0.9, 0.1])) == ["a", "b", "c"]


def test_passages_of_one_document_count_once_at_the_best_rank() -> None:
    prediction = answered(["a", "a", "b", "a", "c"])
    assert Recall(k=2).measure(asked("b"), prediction) == 1
    assert Recall(k=2).measure(asked("c"), prediction) == 0
    assert Mrr().measure(asked("b"), prediction) == 0.5


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_an_example_without_sources_is_not_spoken_of_and_no_passages_are_a_zero(metric: Ranking) -> None:
    assert metric.measure(asked(), answered(["a"])) is None
    assert metric.measure(asked("a"), answered([])) == 0
    assert metric.measure(asked("a", "a"), answered(["a"])) == (1 / metric.k if isinstance(metric, Precision) else 1)
    assert metric.needs_passages


@given(ranked=st.lists(st.sampled_from("abcdef"), max_size=8), relevant=st.sets(st.sampled_from("abcdef"), min_size=1))
def test_recall_grows_with_depth_and_agrees_with_the_reciprocal_rank(ranked: list[str], relevant: set[str]) -> None:
    example, prediction = asked(*sorted(relevant)), answered(ranked)
    recalls = [Recall(k=k).measure(example, prediction) for k in range(1, 9)]
    assert all(a is not None and b is not None and a <= b for a, b in pairwise(recalls))
    assert recalls[-1] == pytest.approx(len(relevant & set(ranked)) / len(relevant))
    first = next((k for k, recall in enumerate(recalls, start=1) if recall), None)
    assert Mrr().measure(example, prediction) == (1 / first if first else 0)
    assert [Hit(k=k).measure(example, prediction) for k in (1, 8)] == [float(first == 1), float(first is not None)]


def test_the_depth_stands_in_the_name() -> None:
    named = [Recall(k=5), Precision(k=1), Hit(), Ndcg(), Mrr(), Map(), RPrecision()]
    assert [metric.name for metric in named] == [
        "recall@5",
        "precision@1",
        "hit@3",
        "ndcg@10",
        "mrr",
        "map",
        "r_precision",
    ]
    for cls in (Recall, Precision, Hit, Ndcg):
        with pytest.raises(ValidationError):
            cls(k=0)
