"""What counts as the same question, and what is refused."""

from __future__ import annotations

import re
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import leaks
from harness.errors import DataError, LeakError
from harness.records import Example


def example(id: str, text: str, group: str = "") -> Example:
    return Example(id=id, input=text, targets=("x",), group=group or id)


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
    assert leaks.fold(one) == leaks.fold(other)


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
    assert leaks.fold(one) != leaks.fold(other)


@given(st.text())
def test_folding_twice_changes_nothing_more_for_any_case_and_outer_space(text: str) -> None:
    assert leaks.fold(f" {text}\n") == leaks.fold(text)
    upper = text.upper()
    if upper.casefold() == text.casefold():
        assert leaks.fold(upper) == leaks.fold(text)


@given(st.lists(st.text(string.ascii_letters, min_size=1), min_size=1), st.sampled_from(".,;:!?-'\"()…“”’ \t\n\u00a0"))
def test_punctuation_between_words_is_folded_away(words: list[str], mark: str) -> None:
    assert leaks.fold(mark.join(words)) == "".join(words).casefold()


def test_a_held_out_input_in_train_or_dev_is_refused_with_the_pair() -> None:
    heldout = [example("h1", "Where is my order?"), example("h2", "Something else")]
    with pytest.raises(LeakError) as caught:
        leaks.check([example("t1", "where is MY order")], [example("d1", "something, else")], heldout)
    said = str(caught.value)
    assert "2 held-out inputs also stand" in said
    assert "heldout 'Where is my order?' (id h1) = train 'where is MY order' (id t1)" in said
    assert "heldout 'Something else' (id h2) = dev 'something, else' (id d1)" in said
    assert isinstance(caught.value, DataError)


def test_a_group_on_both_sides_is_refused_and_named() -> None:
    train = [example("t1", "a", "KB-1"), example("t2", "b", "KB-2")]
    heldout = [example("h1", "c", "kb-1"), example("h2", "d", "KB-3")]
    with pytest.raises(LeakError, match=re.escape("1 held-out group also stands")) as caught:
        leaks.check(train, [], heldout)
    assert "group  'kb-1': 1 in heldout (h1, ...), 1 in train (t1, ...)" in str(caught.value)
    assert "same_facts = true" in str(caught.value)


def test_same_facts_permits_shared_groups_with_a_note_but_never_copies() -> None:
    train, heldout = [example("t1", "a", "KB-1")], [example("h1", "c", "KB-1"), example("h2", "d", "KB-2")]
    (note,) = leaks.check(train, [], heldout, same_facts=True)
    assert note.startswith("same_facts: 1 of 2 held-out groups also stand in train or dev")
    with pytest.raises(LeakError, match="1 held-out input also stands") as caught:
        leaks.check([*train, example("t2", "C?", "KB-9")], [], heldout, same_facts=True)
    assert "same_facts" not in str(caught.value)


def test_the_first_ten_pairs_are_listed_and_the_others_counted() -> None:
    heldout = [example(f"h{i}", f"question {i}") for i in range(30)]
    train = [example(f"t{i}", f"Question {i}!") for i in range(30)]
    with pytest.raises(LeakError) as caught:
        leaks.check(train, [], heldout)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + 10 + 1 + 1
    assert lines[0].startswith("30 held-out inputs")
    assert lines[11] == "  ... and 20 more pairs"


def test_what_dev_shares_with_train_is_noted() -> None:
    train, dev = [example("t1", "a", "g"), example("t2", "b", "h")], [example("d1", "A?", "i"), example("d2", "c", "g")]
    (note,) = leaks.check(train, dev, [example("h1", "z")])
    assert note.startswith("1 inputs and 1 groups of dev also stand in train")
    assert leaks.check(train, [example("d3", "x")], [example("h1", "z")]) == []


def test_targets_and_missing_groups_are_no_leak() -> None:
    train = [Example(id="t", input="a", targets=("yes",), group="t")]
    heldout = [Example(id="h", input="b", targets=("yes",), group="h")]
    assert leaks.check(train, [], heldout) == []


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6), st.data())
def test_any_copy_is_found_however_it_is_dressed(texts: list[str], data: st.DataObject) -> None:
    texts = [text for text in texts if text.strip()] or ["x"]
    copied = data.draw(st.sampled_from(texts))
    form = data.draw(st.sampled_from(["NFC", "NFD"]))
    dressed = f"  {unicodedata.normalize(form, copied)} \n"
    with pytest.raises(LeakError):
        leaks.check(
            [example(f"t{i}", text) for i, text in enumerate(texts)],
            [],
            [example("h", dressed), example("h2", "qq zz")],
        )
