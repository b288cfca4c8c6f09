"""Questions found inside longer texts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import overlap, words
from harness.overlap import Questions

FILLER = words.of("Our workshop has mended machines of every maker since it opened, most of them for nothing at all.")


def places(question: str, text: str, *, least: float = 0.88, input_words: bool = False) -> list[overlap.Place]:
    row = words.of(text)
    rows = [(row, len(row) if input_words else 0)]
    return list(Questions([words.of(question)], least).within(rows))


@given(st.lists(st.sampled_from([f"word{i}" for i in range(30)]), min_size=5, max_size=40), st.integers(0, 19))
def test_a_whole_question_is_found_wherever_it_stands(words: list[str], at: int) -> None:
    question = tuple(words)
    (place,) = Questions([question], 0.88).within([((*FILLER[:at], *question, *FILLER[at:]), 0)])
    assert (place.similarity, place.part) == (1.0, question)


def test_a_tenth_of_its_words_may_differ_from_ten_words_on() -> None:
    rng = random.Random(0)
    found = 0
    for _ in range(200):
        question = tuple(f"q{rng.randrange(500)}" for _ in range(rng.randrange(10, 50)))
        copy = list(question)
        for place in rng.sample(range(len(copy)), len(copy) // 10):
            copy[place] = "other"
        found += len(list(Questions([question], 0.88).within([((*FILLER, *copy, *FILLER), 0)])))
    assert found >= 198


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Where is my card?", "Tell me: where is my card? I need it."),
        ("Where do all repairs go?", "Where do most repairs go? Where do they all go?"),
        ("Where do repairs go to?", "Where do repairs go to?"),
    ],
)
def test_too_short_an_incomplete_and_a_whole_text_are_not_inside(question: str, text: str) -> None:
    assert places(question, text) == []


def test_a_row_of_eight_words_is_found_inside_a_question_word_for_word() -> None:
    row = "How long does a repair of the grinder take"
    question = f"{' '.join(FILLER)} {row}, please?"
    (place,) = places(question, row, input_words=True)
    assert place.part == words.of(row)
    assert places(question, row) == [], "a document is no row to learn from"
    assert places(question, row.replace("long", "soon"), input_words=True) == []
    assert places(question, "a repair of the grinder take", input_words=True) == []


def test_runs_that_a_tenth_of_the_texts_share_are_boilerplate() -> None:
    texts = [words.of(f"Answer with one word only, please: is {i} even?") for i in range(30)]
    common = overlap.boilerplate(texts)
    assert overlap.without(texts[7], common) == ("7", "even")
    assert overlap.boilerplate(texts[:19]) == frozenset()
    assert overlap.without(FILLER, common) == FILLER


def test_answers_are_counted_by_any_accepted_one_in_any_document() -> None:
    documents = [words.of("Repairs take 9 working days."), words.of("It costs EUR 14.50")]
    answers = [[("9", "working", "days")], [("nothing",), ("14", "50")], [("days", "it")], [()]]
    assert overlap.answers_in(answers, documents) == 2
    assert overlap.answers_in(answers, []) == 0
