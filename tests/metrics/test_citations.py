"""citation_precision and citation_recall."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import answered, measured
from pydantic import ValidationError

from harness.metrics.citation_precision import CitationPrecision
from harness.metrics.citation_recall import CitationRecall
from harness.records import Example

NONE = "not in our help pages [none]"


@pytest.mark.parametrize(
    ("answer", "sources", "precision", "recall"),
    [
        ("24 months [KB-017]", ["KB-017"], 1, 1),
        ("24 months [KB-017] [KB-018]", ["KB-017"], 1 / 2, 1),
        ("24 months [KB-017, KB-018; KB-019]", ["KB-017", "KB-019"], 2 / 3, 1),
        ("24 months [KB-017][KB-017]", ["KB-017", "KB-018"], 1, 1 / 2),
        ("24 months [KB-018]", ["KB-017"], 0, 0),
        ("24 months", ["KB-017"], 0, 0),
        ("", ["KB-017"], 0, 0),
        (NONE, ["KB-017"], 0, 0),
        ("24 months, see [KB-017](https://example.org)", ["KB-017"], 0, 0),
        ("24 months [ KB-017 ]", ["KB-017"], 1, 1),
        ("24 months [kb-017]", ["KB-017"], 0, 0),
        ("24 months KB-017", ["KB-017"], 0, 0),
        ("[] [,]", ["KB-017"], 0, 0),
    ],
)
def test_cited_ids_are_held_against_the_sources(
    answer: str, sources: list[str], precision: float, recall: float
) -> None:
    assert measured(CitationPrecision(), answer, "24 months [x]", sources=sources) == precision
    assert measured(CitationRecall(), answer, "24 months [x]", sources=sources) == recall


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(NONE, 1), ("It is 5 [KB-001]", 0), ("It is 5", 0), ("", 0)],
)
def test_where_no_document_answers_the_accepted_answer_says_what_to_cite(answer: str, expected: float) -> None:
    assert measured(CitationPrecision(), answer, NONE) == expected
    assert measured(CitationRecall(), answer, NONE) == expected


def test_an_example_that_does_not_say_what_to_cite_is_not_spoken_of() -> None:
    for metric in (CitationPrecision(), CitationRecall(), CitationPrecision(against="retrieved")):
        assert measured(metric, "5 [KB-001]", "5") is None
        assert measured(metric, "5 [KB-001]") is None
        assert measured(metric, None, sources=["KB-001"]) == 0


@pytest.mark.parametrize(
    ("answer", "precision", "recall"),
    [
        ("x [a]", 1, 1 / 2),
        ("x [a, c]", 1, 1 / 2),
        ("x [b]", 0, 0),
        ("x [a, b]", 1 / 2, 1 / 2),
        ("x", 0, 0),
    ],
)
def test_cited_ids_are_held_against_what_was_retrieved(answer: str, precision: float, recall: float) -> None:
    example, prediction = Example(id="q", input="?", sources=("a", "b")), answered(["a", "c"], text=answer)
    assert CitationPrecision(against="retrieved").measure(example, prediction) == precision
    assert CitationRecall(against="retrieved").measure(example, prediction) == recall


def test_saying_that_nothing_answers_needs_no_document() -> None:
    example = Example(id="q", input="?", targets=(NONE,))
    for metric in (CitationPrecision(against="retrieved"), CitationRecall(against="retrieved")):
        assert metric.measure(example, answered(["a"], text=NONE)) == 1
        assert metric.measure(example, answered(["a"], text="5 [b]")) == 0
    assert CitationPrecision(against="retrieved").measure(example, answered(["a"], text="5 [a]")) == 1, "not made up"


def test_another_pattern_may_have_a_group_or_none() -> None:
    assert measured(CitationPrecision(pattern=r"\(see (\w+)\)"), "5 (see a)", sources=["a"]) == 1
    assert measured(CitationRecall(pattern=r"KB-\d+"), "5, says KB-017", sources=["KB-017"]) == 1
    assert measured(CitationRecall(pattern=r"(x)?a"), "a", sources=["a"]) == 0, "a group that found nothing is no id"
    with pytest.raises(ValidationError, match="no regular expression"):
        CitationPrecision(pattern="[")


def test_only_what_is_held_against_the_retrieved_needs_passages() -> None:
    made = [cls(against=against) for cls in (CitationPrecision, CitationRecall) for against in ("gold", "retrieved")]
    assert [metric.needs_passages for metric in made] == [False, True, False, True]
    assert [metric.name for metric in made] == [
        "citation_precision",
        "citation_precision_retrieved",
        "citation_recall",
        "citation_recall_retrieved",
    ]


@given(cited=st.lists(st.sampled_from("abcdef")), sources=st.sets(st.sampled_from("abcdef"), min_size=1))
def test_any_citations_are_counted_as_sets(cited: list[str], sources: set[str]) -> None:
    answer = " ".join(f"word [{name}]." for name in cited)
    right = set(cited) & sources
    precision = measured(CitationPrecision(), answer, sources=sorted(sources))
    assert precision == (len(right) / len(set(cited)) if cited else 0)
    assert measured(CitationRecall(), answer, sources=sorted(sources)) == len(right) / len(sources)
