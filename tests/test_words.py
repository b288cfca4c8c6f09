"""Words as comparisons see them, and accents that were left out."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't top-up, it's 5 %!", ("dont", "top", "up", "its", "5", "%")),
        ("What is -5 + 3?", ("what", "is", "\u2212", "5", "+", "3")),
        ("pre-5 and 7-5", ("pre", "5", "and", "7", "5")),
        ("STRASSE straße", ("strasse", "strasse")),
        ("Cuánto, CAFE\u0301, été", ("cuánto", "café", "été")),
        ("Ещё мой", ("еще", "мой")),
        ("1,234,567 or 2,000 m", ("1234567", "or", "2000", "m")),
        ("0,125 or 1,5 or 12,34,567", ("0", "125", "or", "1", "5", "or", "12", "34", "567")),
        ("한국어 がぎ", ("한국어", "が", "ぎ")),
        ("修理は3日", ("修", "理", "は", "3", "日")),
        ("", ()),
        ("?!", ()),
    ],
)
def test_words_are_folded_and_signs_kept(text: str, found: tuple[str, ...]) -> None:
    assert words.of(text) == found


@given(st.text())
def test_the_unicode_form_makes_no_other_words(text: str) -> None:
    assert words.of(unicodedata.normalize("NFD", text)) == words.of(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    ("word", "plain", "bare"),
    [
        ("đổi", "doi", "doi"),
        ("drücken", "drucken", "drucken"),
        ("мой", "мой", "мои"),
        ("їх", "їх", "іх"),
        ("łódź", "lodz", "lodz"),
        ("がぎ", "がぎ", "がぎ"),
        ("plain", "plain", "plain"),
    ],
)
def test_accents_are_dropped_but_letters_of_their_own_are_kept(word: str, plain: str, bare: str) -> None:
    assert words.plain((word,)) == (plain,)
    assert words.bare(word) == bare


@pytest.mark.parametrize(
    ("one", "other", "hurried", "alike"),
    [
        ("cuánto cuesta el envío", "cuanto cuesta el envio", False, True),
        ("cuánto cuesta el envío rápido", "cuanto cuesta el envio rápido", False, True),
        ("cómo cambio mi pin", "como cambio mi pin", False, False),
        ("cómo cambio mi pin", "como cambio mi pin", True, True),
        ("cómo está mi pin", "como está mi pin", True, False),
        ("mua bán nhà", "mua bạn nhà", True, False),
        ("mùa bán nha", "mua ban nhà", True, False),
        ("el envío", "el cargo", True, False),
    ],
)
def test_accents_are_left_out_where_two_words_lack_them_or_a_hurried_text_has_none(
    one: str, other: str, hurried: bool, alike: bool
) -> None:
    for ours, theirs in ((one, other), (other, one)):
        a, b = words.agreed(words.of(ours), words.of(theirs), hurried=hurried)
        assert (a == b) is alike
        assert alike or (a, b) == (words.of(ours), words.of(theirs))


def test_a_text_in_one_case_looks_hurried() -> None:
    assert [words.hurried(text) for text in ("como cambio mi pin", "OU EST MA CARTE", "Où est ma carte ?", "12 %")] == [
        True,
        True,
        False,
        False,
    ]


def test_the_same_words_are_the_same_without_the_accents_of_one_side_alone() -> None:
    asked = words.of("¿Cuánto cuesta el envío?")
    assert words.same(asked, words.of("cuanto cuesta el envio"))
    assert not words.same(asked, words.of("cuánto cuesta el envio"))
    assert not words.same(asked, words.of("cuanto cuesta el"))
