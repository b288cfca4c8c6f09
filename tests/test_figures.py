from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0 s"),
        (0.004, "0.00 s"),
        (0.42, "0.42 s"),
        (0.9996, "1.0 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (250.3, "4 min 10 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert figures.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (1000, "1.0 KiB"),
        (102_760_448, "98 MiB"),
        (1.5 * 2**30, "1.5 GiB"),
        (2**40, "1.0 TiB"),
    ],
)
def test_bytes(value: float, text: str) -> None:
    assert figures.size(value) == text


@pytest.mark.parametrize(("value", "text"), [(8.44, "8.4 ms"), (811.6, "812 ms"), (999.6, "1.0 s"), (1904, "1.9 s")])
def test_milliseconds(value: float, text: str) -> None:
    assert figures.milliseconds(value) == text


def test_points_of_a_hundred_have_one_decimal() -> None:
    assert figures.score(27.3456, "points") == "27.3"
    assert figures.score(100.0, "points") == "100.0"
    assert figures.bounds(9.96, 12.34, "points") == "10.0 to 12.3"
    assert figures.change(-1.25, "points") == "−1.2"
    assert figures.change_bounds(0.04, 1.0, "points") == "0.0 to +1.0"
    assert figures.size_of_change(-8.94, "points") == "−8.9 points"
    assert figures.size_of_change(0.089, "share") == "8.9 points"


def test_shares_are_percent_and_differences_points() -> None:
    assert figures.score(0.4249, "share") == "42.5 %"
    assert figures.score(-0.0001, "share") == "0.0 %"
    assert figures.bounds(0.351, 0.502, "share") == "35.1 to 50.2"
    assert figures.change(0.125, "share") == "+12.5"
    assert figures.change(-0.125, "share") == "−12.5"
    assert figures.change(0.00001, "share") == "0.0"
    assert figures.change_bounds(-0.01, None, "share") == "n/a"


def test_other_units_keep_three_figures() -> None:
    assert [figures.score(value, "tokens") for value in (12.345, 1234.5, -0.5)] == ["12.3", "1,234", "−0.5"]
    assert figures.change(0.0, "tokens") == "0"


def test_p_has_two_figures_and_a_third_beside_the_line() -> None:
    assert [figures.p(value) for value in (1.0, 0.314, 0.0414, 0.00012)] == ["1", "0.31", "0.041", "0.00012"]
    assert [figures.p(value) for value in (0.0504, 0.0496, 0.05)] == ["0.0504", "0.0496", "0.05"]
    assert [figures.p(value) for value in (0.00009, 0.0, None)] == ["< 0.0001", "< 0.0001", "–"]
    assert (figures.said_p(0.0414), figures.said_p(0.0)) == ("p = 0.041", "p < 0.0001")


def test_one_is_no_plural() -> None:
    assert [figures.counted(n, "group") for n in (0, 1, 1204)] == ["0 groups", "1 group", "1,204 groups"]


def test_tokens_of_an_answer() -> None:
    assert [figures.per(*pair) for pair in ((10_080, 24), (216, 24), (230, 24), (None, 24), (5, 0))] == [
        "420",
        "9",
        "9.6",
        "–",
        "–",
    ]


def test_terminal_codes_and_direction_marks_are_removed() -> None:
    hostile = "a\x1b[31mred\x1b[0m \x1b]8;;http://x.test\x07link\x1b]8;;\x07 \x9b2Jb\u202ec\x00\x07\r\nd\ud800"
    assert figures.plain(hostile) == "ared link bc\nd\ufffd"
    assert figures.plain("a\n\tb", line=True) == "a b"
    assert figures.plain("क्\u200dष 👩\u200d🔬") == "क्\u200dष 👩\u200d🔬"


@given(st.text())
def test_plain_text_prints_anywhere_and_cleaning_twice_changes_nothing(text: str) -> None:
    cleaned = figures.plain(text)
    cleaned.encode()
    assert not any(ord(character) < 32 and character not in "\n\t" for character in cleaned)
    assert not any(127 <= ord(character) < 160 for character in cleaned)
    assert figures.plain(cleaned) == cleaned


def test_markdown_is_escaped() -> None:
    assert figures.markdown("a|b\n*c* [d](e) <f> `g`") == "a\\|b \\*c\\* \\[d\\]\\(e\\) \\<f\\> \\`g\\`"


def test_long_text_is_cut_with_an_ellipsis() -> None:
    assert figures.short("a long name", 7) == "a long…"
    assert figures.short("short", 5) == "short"
