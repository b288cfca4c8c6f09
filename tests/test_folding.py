"""What counts as the same text."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.folding import fold


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is my order?", "where is my ORDER"),
        ("Where is\tmy\n order ?!", "Where is my order"),
        ("Don't worry", "don’t worry"),
        ("Don't worry", "dont worry"),
        ("top-up", "Top up"),
        ("Straße", "STRASSE"),
        ("cafe\u0301", "caf\u00e9"),
        ("ﬁne", "fine"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("¿Dónde está?", "dónde está"),
        ("«Where», she said…", "Where she said"),
        ("the Brio (S)", "the brio s"),
        ("the top - 5 ways", "the top 5 ways"),
        ("covid-19", "Covid 19"),
    ],
)
def test_unicode_case_space_and_punctuation_make_no_other_question(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 1.5 + 2?", "What is 15 + 2?"),
        ("What is 7 - 5?", "What is 75?"),
        ("What is 7 - 5?", "What is 7 + 5?"),
        ("What is -5 + 3?", "What is 5 + 3?"),
        ("What is 8/2?", "What is 8*2?"),
        ("Item 1 2", "Item 12"),
        ("Loops in C#", "Loops in C"),
        ("Loops in C++", "Loops in C"),
        ("at 10:30", "at 1030"),
        ("???", "!!!"),
        ("resume", "résumé"),
    ],
)
def test_what_changes_the_meaning_stays(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@given(st.text())
def test_folding_twice_changes_nothing_more_for_any_case_and_outer_space(text: str) -> None:
    assert fold(f" {text}\n") == fold(text)
    upper = text.upper()
    if upper.casefold() == text.casefold():
        assert fold(upper) == fold(text)


@given(st.lists(st.text(string.ascii_letters, min_size=1), min_size=1), st.sampled_from(".,;:!?-'\"()…“”’ \t\n\u00a0"))
def test_punctuation_between_words_is_folded_away(words: list[str], mark: str) -> None:
    assert fold(mark.join(words)) == "".join(words).casefold()
