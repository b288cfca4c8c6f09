"""Personal data and secrets: what is found, what is not, and that none is shown whole."""

from __future__ import annotations

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import personal
from harness.errors import DataError

# Examples that the registries and networks publish for tests: no account stands behind them.
IBANS = ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR1420041010050500013M02606", "NO93 8601 1117 947"]
CARDS = ["4111 1111 1111 1111", "5555555555554444", "378282246310005", "6011-1111-1111-1117"]
KEYS = [
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "sk-" + "abcd1234" * 4,
    "xoxb-1234567890-abcdef",
    "hf_" + "aB3d" * 9,
]


@pytest.mark.parametrize("iban", IBANS)
def test_ibans_are_known_by_their_check_digits(iban: str) -> None:
    assert personal.is_iban(iban)
    assert [each.kind for each in personal.find(f"Pay to {iban}, please.")] == ["IBAN"]
    plain = iban.replace(" ", "")
    for place in range(4, len(plain)):
        if plain[place].isdigit():
            other = plain[:place] + str((int(plain[place]) + 1) % 10) + plain[place + 1 :]
            assert not personal.is_iban(other), "any one wrong digit is noticed"
    assert not personal.is_iban(plain[:-1])


@pytest.mark.parametrize("card", CARDS)
def test_cards_are_known_by_luhns_digit(card: str) -> None:
    assert personal.is_card(card)
    assert [each.kind for each in personal.find(f"My card is {card}.")] == ["card"]
    wrong = card[:-1] + str((int(card[-1]) + 1) % 10)
    assert not personal.is_card(wrong)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.data())
def test_luhn_notices_every_single_wrong_digit(digits: list[int], data: st.DataObject) -> None:
    check = next(d for d in range(10) if personal.luhn([*digits, d]))
    assert sum(personal.luhn([*digits, d]) for d in range(10)) == 1
    whole = [*digits, check]
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] = (whole[place] + data.draw(st.integers(1, 9))) % 10
    assert not personal.luhn(whole)


def test_luhn_of_the_standards_example() -> None:
    assert personal.luhn([7, 9, 9, 2, 7, 3, 9, 8, 7, 1, 3])
    assert not personal.luhn([7, 9, 9, 2, 7, 3, 9, 8, 7, 1, 0])


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Write to jo.doe+x@mail.company.co.uk today", ["e-mail"]),
        ("call +49 30 901820 or (030) 901 820", ["phone", "phone"]),
        ("0171/1234567, or 555-123-4567", ["phone", "phone"]),
        ("from 84.23.101.7 and 2a02:8109::1f3:9c", ["IP address", "IP address"]),
        ("a@b.io, b@c.io", ["e-mail", "e-mail"]),
        ("jo@example.de, jo@myexample.com, jo@test.com", ["e-mail", "e-mail", "e-mail"]),
        *((f"key={key}", ["key"]) for key in KEYS),
        ("-----BEGIN RSA PRIVATE KEY-----", ["key"]),
    ],
)
def test_what_looks_like_personal_data_is_found(text: str, kinds: list[str]) -> None:
    assert [each.kind for each in personal.find(text)] == kinds


@pytest.mark.parametrize(
    "text",
    [
        "On 2026-11-23 at 10:30:15 it cost 1,234,567,890.50",
        "version 4.17.2, or 127.0.0.1, or 192.0.2.7 as in the manual",
        "The ratio 3:2:1 and 12::30",
        "order 1234567890123, 4111 1111 1111 1112",
        "sk-learn and the risk-averse, @handle, a@b",
        "jo@example.com, jo@mail.example.org, help@oakhollow.example, root@localhost.localhost, a@host.test",
        "Version 1.2.3.4 came after release 1.2.3.3",
        "DE89 3704 0044 0532 0130 01",
        "Numbers 0 and 1 and 12 34 56",
        "",
    ],
)
def test_what_only_resembles_it_is_not(text: str) -> None:
    assert personal.find(text) == []


@pytest.mark.parametrize("secret", [*IBANS, *CARDS, *KEYS, "jo.doe@mail.company.com", "+49 30 901820", "84.23.101.7"])
def test_nothing_is_shown_whole(secret: str) -> None:
    text = f"Look: {secret} and so on"
    shown = personal.masked(text, personal.find(text))
    assert secret not in shown
    assert "***" in shown or "*.*" in shown
    assert shown.startswith("Look: ")
    assert shown.endswith(" and so on")
    left = shown.removeprefix("Look: ").removesuffix(" and so on")
    assert sum(map(str.isalnum, left.replace("com", ""))) <= 4


@given(st.text())
def test_findings_lie_in_the_text_and_do_not_overlap(text: str) -> None:
    end = 0
    for each in personal.find(text):
        assert end <= each.start < each.end <= len(text)
        end = each.end


@pytest.mark.skipif(importlib.util.find_spec("presidio_analyzer") is not None, reason="Presidio is installed here")
def test_presidio_says_how_to_get_it() -> None:
    with pytest.raises(DataError, match="pip install presidio-analyzer"):
        personal.presidio("en")
