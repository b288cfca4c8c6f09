"""numeric, pinned to GSM8K's rule."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import measured
from pydantic import ValidationError

from harness.metrics.numeric import Numeric

GOLD = "She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18"


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("#### 18", GOLD, 1),
        ("She sells 16 - 3 - 4 = 9 eggs for $18.", GOLD, 1),
        ("It is 18.\n#### 17", GOLD, 0),
        ("#### 18\n\nQuestion: how many are 3?\n#### 3", GOLD, 1),
        ("18\n####\n", GOLD, 0),
        ("18\n####\n18", GOLD, 0),
        ("#### $18.00 a day", GOLD, 1),
        ("none", GOLD, 0),
        ("", GOLD, 0),
        ("1,234,567", "1234567", 1),
        ("1,00,000", "100000", 1),
        ("1,2", "2", 1),
        ("1,2", "12", 0),
        ("$1,234.50", "1234.5", 1),
        ("-$5", "-5", 1),
        ("$-5", "-5", 1),
        ("−7", "-7", 1),
        ("+7", "7", 1),
        ("from 10-20", "20", 1),
        ("x-3", "3", 1),
        ("50%", "50", 1),
        ("50 %", "0.5", 0),
        (".5", "0.5", 1),
        ("The answer is 42.", "42", 1),
        ("18.0", "18", 1),
        ("1.5e3", "1500", 1),
        ("7/8", "8", 1),
        ("٤٢", "42", 1),
        ("0.1", "0.10000000000000000000000000000000000001", 0),
        ("9" * 5000, "9" * 5000, 1),
        ("9" * 5000, "9" * 4999 + "8", 0),
    ],
)
def test_the_number_of_a_text_is_read_as_documented(answer: str, target: str, expected: float) -> None:
    assert measured(Numeric(), answer, target) == expected


def gsm8k(text: str) -> str:
    """The rule of the paper's own code, for a text that ends in `#### number`."""
    match = re.search(r"#### (\-?[0-9\.\,]+)", text)
    return match.group(1).strip().replace(",", "") if match else "[invalid]"


@given(
    ours=st.integers(-(10**12), 10**12) | st.sampled_from([0, 1, -1]),
    theirs=st.integers(-(10**12), 10**12) | st.sampled_from([0, 1, -1]),
    same=st.booleans(),
    steps=st.text("ab 12.\n", max_size=20),
)
def test_marked_numbers_are_compared_as_gsm8k_does(ours: int, theirs: int, same: bool, steps: str) -> None:
    answer, target = f"{steps}\n#### {ours:,}", f"{steps}\n#### {ours if same else theirs}"
    assert measured(Numeric(), answer, target) == (gsm8k(answer) == gsm8k(target))
    assert measured(Numeric(extract="strict"), answer, target) == (gsm8k(answer) == gsm8k(target))


@given(
    given=st.decimals(-1000, 1000, places=3),
    target=st.decimals(-1000, 1000, places=3),
    absolute=st.sampled_from([0.0, 0.001, 0.1, 5.0]),
    relative=st.sampled_from([0.0, 0.01, 0.5]),
)
def test_the_wider_tolerance_holds_to_the_digit(given: Any, target: Any, absolute: float, relative: float) -> None:
    allowed = max(Fraction(str(absolute)), Fraction(str(relative)) * abs(Fraction(target)))
    expected = abs(Fraction(given) - Fraction(target)) <= allowed
    assert measured(Numeric(absolute=absolute, relative=relative), f"{given}", f"{target}") == expected


def test_the_best_accepted_number_counts_and_texts_without_one_are_left_out() -> None:
    assert measured(Numeric(), "5", "4", "five", "5") == 1
    assert measured(Numeric(), "5", "five") is None
    assert measured(Numeric(), "five") is None
    assert measured(Numeric(), None, "5") == 0


def test_strict_reads_marked_numbers_alone() -> None:
    assert measured(Numeric(extract="strict"), "It is 18", GOLD) == 0
    assert measured(Numeric(extract="strict"), "It is 18 #### 18", GOLD) == 1


def test_tolerances_are_numbers_from_zero_up() -> None:
    for settings in ({"absolute": -1}, {"relative": float("inf")}, {"extract": "last"}):
        with pytest.raises(ValidationError):
            Numeric.model_validate(settings)
    assert Numeric().name == "numeric"
