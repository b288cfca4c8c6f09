"""Rules of a gate: what may be written, and what is said of anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.rules import Rule, parse


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("exact_match >= 0.7", ("exact_match", ">=", 0.7, None, None)),
        (" recall@3>.5 ", ("recall@3", ">", 0.5, None, None)),
        ("latency_p95_ms <= 8e2", ("latency_p95_ms", "<=", 800.0, None, None)),
        ("errors < 1_000", ("errors", "<", 1000.0, None, None)),
        ("bias >= -0.5", ("bias", ">=", -0.5, None, None)),
        ('token_f1 not_worse_than "rag" by 0.02', ("token_f1", "not_worse_than", 0.02, "rag", None)),
        ("token_f1 not_worse_than rag by 0", ("token_f1", "not_worse_than", 0.0, "rag", None)),
        ("'my metric' >= 1 for \"lora[rank=8]\"", ("my metric", ">=", 1.0, None, "lora[rank=8]")),
        ('f1 not_worse_than "a=b" by 1 for c', ("f1", "not_worse_than", 1.0, "a=b", "c")),
    ],
)
def test_a_rule_is_read(text: str, rule: tuple[object, ...]) -> None:
    found = parse(text)
    assert (found.measure, found.operator, found.bound, found.other, found.variant) == rule
    assert found.text == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "exact_match",
        "exact_match => 0.7",
        "exact_match == 0.7",
        "exact_match >= 70 %",
        "exact_match >= nan",
        "exact_match >= 0.7 and f1 >= 0.5",
        "f1 not_worse_than rag",
        "f1 not_worse_than by 0.02",
        "f1 not_worse_than rag by much",
        '"f1 >= 0.7',
    ],
)
def test_what_is_no_rule_is_told_what_is_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no rule\. Allowed: NAME >= NUMBER") as error:
        parse(text)
    assert repr(text) in str(error.value)


def test_a_margin_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the margin must be at least 0, not -0\.1"):
        parse("f1 not_worse_than rag by -0.1")


@given(
    st.text("abcXYZ019@._-", min_size=1),
    st.sampled_from([">=", ">", "<=", "<"]),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_name_and_number_come_back(name: str, operator: str, bound: float) -> None:
    rule = parse(f"{name} {operator} {bound!r}")
    assert rule == Rule(rule.text, name, operator, bound)  # type: ignore[arg-type]


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert "rule" in str(error) or "margin" in str(error)
