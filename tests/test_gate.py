"""Gates: each rule with its evidence, JUnit XML that readers of it accept, and Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from decided import Given, write

from harness import gate
from harness.errors import UsageError
from harness.gate import Gate
from harness.terms import of as terms_of

GOOD, POOR = [1] * 45 + [0] * 5, [0] * 48 + [1] * 2
TWO = {"a": Given(POOR, p95=300), "b": Given(GOOD, p95=900)}


def judged(
    tmp_path: Path, *rules: str, variants: Mapping[str, Given] = TWO, variant: str | None = None,
    settings: tuple[str, ...] = (), **more: Any,
) -> Gate:  # fmt: skip
    store, snapshot = write(tmp_path, variants, **more)
    return gate.build(snapshot, store, terms_of(snapshot.spec, settings), variant=variant, rules=rules)


def test_the_variant_that_is_shipped_is_judged(tmp_path: Path) -> None:
    made = judged(tmp_path, "exact_match >= 0.7", "latency_p95_ms <= 800", "exact_match >= 0.5 for a")
    assert (made.variant, made.chosen) == ("b", "what `harness decide` ships: the best")
    assert [outcome.passed for outcome in made.outcomes] == [True, False, False]
    assert [outcome.variant for outcome in made.outcomes] == ["b", "b", "a"]
    assert not made.passed
    assert gate.lines(made)[1].startswith("FAIL  latency_p95_ms <= 800: latency_p95_ms is 900 ms, to be <= 800 ms")
    assert gate.lines(made)[-1].startswith("2 of 3 rules failed. Judged: b")


def test_a_relative_rule_names_its_test(tmp_path: Path) -> None:
    made = judged(tmp_path, 'exact_match not_worse_than "a" by 0.02')
    assert "the margin is −2.0 points (non-inferiority: score test of paired shares); certain" in gate.lines(made)[0]
    alone = judged(tmp_path / "2", 'exact_match not_worse_than "a" by 0.02', variants={n: Given([1]) for n in "ab"})
    assert gate.lines(alone)[0].endswith("the margin is −2.0 points; no interval: one example")


def test_what_was_allowed_of_the_data_stands_with_the_rules(tmp_path: Path) -> None:
    made = judged(tmp_path, "exact_match >= 0.7", notes=["3 leaks were allowed"])
    assert gate.lines(made)[-1] == "Note: 3 leaks were allowed" and gate.to_json(made)["notes"] == made.notes
    assert "\nNote: 3 leaks were allowed\n" in gate.markdown(made) and "3 leaks were allowed" in gate.junit(made)


def test_a_named_variant_is_judged_instead(tmp_path: Path) -> None:
    rule = "exact_match >= 0.7"
    assert judged(tmp_path, rule, variant="a").variant == "a"
    assert judged(tmp_path, rule, settings=("gate.variant=a",)).outcomes[0].passed is False
    assert judged(tmp_path, rule, variant="b", settings=("gate.variant=a",)).passed


def test_the_stored_rules_are_checked_unless_others_are_given(tmp_path: Path) -> None:
    spec = {"gate": {"rules": ["exact_match >= 0.99"]}}
    assert not judged(tmp_path, spec=spec).passed
    assert judged(tmp_path, "exact_match >= 0.5", spec=spec).passed


@pytest.mark.parametrize(
    ("rule", "passed", "certain"),
    [
        ("exact_match >= 0.7", True, True),
        ("exact_match >= 0.85", True, False),
        ("exact_match >= 0.92", False, False),
        ("exact_match >= 0.99", False, True),
        ("memory_gib <= 4", True, None),
        ("errors <= 0", True, None),
    ],
)
def test_the_measured_value_decides_and_the_interval_says_how_certain_that_is(
    tmp_path: Path, rule: str, passed: bool, certain: bool | None
) -> None:
    (outcome,) = judged(tmp_path, rule).outcomes
    assert (outcome.passed, outcome.certain) == (passed, certain)
    assert ("not certain" in outcome.says) == (certain is False)


def test_certain_asks_for_the_whole_interval(tmp_path: Path) -> None:
    rules = ("exact_match >= 0.7", "exact_match >= 0.85", "memory_gib <= 4")
    made = judged(tmp_path, *rules, settings=("gate.certain=true",))
    assert [outcome.passed for outcome in made.outcomes] == [True, False, False]


@pytest.mark.parametrize(
    ("rule", "passed", "certain"),
    [
        ('exact_match not_worse_than "a" by 0', True, True),
        ('exact_match not_worse_than "c" by 0.05', True, False),
        ('exact_match not_worse_than "c" by 0.01', False, False),
        ('exact_match not_worse_than "b" by 0.05 for a', False, True),
        ('latency_p95_ms not_worse_than "a" by 100', False, None),
        ('latency_p95_ms not_worse_than "a" by 600', True, None),
    ],
)
def test_not_worse_than_is_paired_and_tested(tmp_path: Path, rule: str, passed: bool, certain: bool | None) -> None:
    close = [1] * 46 + [0] * 3 + [1]
    close[0] = 0
    variants = {**TWO, "c": Given(close)}
    (outcome,) = judged(tmp_path, rule, variants=variants, variant="b").outcomes
    assert (outcome.passed, outcome.certain) == (passed, certain), outcome


def test_not_worse_than_itself_is_never_worse(tmp_path: Path) -> None:
    (outcome,) = judged(tmp_path, "exact_match not_worse_than b by 0", variant="b").outcomes
    assert outcome.passed and outcome.value == 0


@pytest.mark.parametrize(("count", "why"), [(1, "one example"), (4, "one group")])
def test_without_an_interval_a_rule_says_why_and_names_none(tmp_path: Path, count: int, why: str) -> None:
    variants = {"a": Given([0] * count), "b": Given([1] * count)}
    made = judged(
        tmp_path, "exact_match not_worse_than a by 0.02", variants=variants, variant="b", groups=["g"] * count
    )
    assert made.outcomes[0].says.endswith(f"; no interval: {why}") and made.outcomes[0].method == f"n/a ({why})"
    assert gate.lines(made)[-1].startswith("The rule holds.")


def test_an_interval_ends_where_a_difference_can_go_no_further(tmp_path: Path) -> None:
    variants = {"a": Given([0, 1, 0, 1]), "b": Given([1, 1, 1, 0.5])}
    rule = "exact_match not_worse_than a by 0.02"
    (outcome,) = judged(tmp_path, rule, variants=variants, variant="b", groups=["g", "g", "h", "h"]).outcomes
    assert outcome.low is not None and outcome.high is not None and -1 <= outcome.low < outcome.high <= 1


def test_a_rule_that_cannot_be_judged_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"rule 'exact_macht >= 1': there is no metric or cost 'exact_macht'"):
        judged(tmp_path, "exact_match >= 0.1", "exact_macht >= 1")


def test_lower_is_better_for_not_worse_than_too(tmp_path: Path) -> None:
    rules = ("exact_match not_worse_than a by 0.02 for b", "exact_match not_worse_than b by 0.02 for a")
    made = judged(tmp_path, *rules, direction="lower")
    assert [outcome.passed for outcome in made.outcomes] == [False, True]
    assert [outcome.certain for outcome in made.outcomes] == [True, True]


def test_what_was_not_measured_never_passes(tmp_path: Path) -> None:
    variants = {
        "a": Given([], failed="no disk"),
        "b": Given(GOOD, p95=None),
        "c": Given(POOR, device="another"),
    }
    rules = (
        "latency_p95_ms <= 800",
        "exact_match >= 0 for a",
        "exact_match not_worse_than a by 1",
        "memory_gib not_worse_than c by 9",
    )
    made = judged(tmp_path, *rules, variants=variants, variant="b")
    assert not any(outcome.passed for outcome in made.outcomes)
    said = [outcome.says for outcome in made.outcomes]
    assert said[0] == "latency_p95_ms is n/a: not measured"
    assert said[1] == "a has failed: no disk"
    assert said[2] == "a has failed, so nothing is held against it"
    assert "different devices" in said[3]


def test_where_no_variant_can_be_shipped_every_rule_fails(tmp_path: Path) -> None:
    made = judged(tmp_path, "exact_match >= 0.1", settings=("constraints.latency_p95_ms=100",))
    assert made.variant is None and not made.passed
    assert made.outcomes[0].says == "no variant to judge: no variant meets every constraint"


@pytest.mark.parametrize(
    ("rules", "variant", "message"),
    [
        ((), None, "there is no rule to check"),
        (("exact_match = 1",), None, "is no rule"),
        (("exact_macht >= 1",), None, "Did you mean 'exact_match'?"),
        (("exact_match >= 70",), None, "Did you mean 0.7?"),
        (("cost_per_1000_answers <= 1",), None, "money needs a price"),
        (("exact_match not_worse_than c by 0.1",), None, "there is no variant 'c'"),
        (("exact_match >= 0.7",), "bb", "there is no variant 'bb'. Did you mean 'b'?"),
    ],
)
def test_rules_that_cannot_be_judged_are_wrong_usage(
    tmp_path: Path, rules: tuple[str, ...], variant: str | None, message: str
) -> None:
    with pytest.raises(UsageError) as error:
        judged(tmp_path, *rules, variant=variant)
    assert message in str(error.value)


# ------------------------------------------------------------------------------------------------------------ files


def test_junit_has_what_its_readers_ask_for(tmp_path: Path) -> None:
    name = 'b<&"\x1b[31m'
    made = judged(tmp_path, "exact_match >= 0.7", "latency_p95_ms <= 800", variants={"a": Given(POOR), name: TWO["b"]})
    root = ElementTree.fromstring(gate.junit(made).encode())
    assert root.tag == "testsuites" and [child.tag for child in root] == ["testsuite"]
    (suite,) = root
    assert set(suite.attrib) >= {
        "name",
        "tests",
        "failures",
        "errors",
        "time",
        "timestamp",
        "hostname",
        "id",
        "package",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.attrib["timestamp"])
    assert (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["errors"]) == ("2", "1", "0")
    tags = [child.tag for child in suite]
    assert tags == ["properties", "testcase", "testcase", "system-out", "system-err"]
    passed, failed = suite.findall("testcase")
    assert passed.attrib["name"] == "exact_match >= 0.7" and len(passed) == 0
    assert set(passed.attrib) == {"name", "classname", "time"}
    (failure,) = failed
    assert failure.tag == "failure" and set(failure.attrib) == {"message", "type"} and failure.text
    assert "900 ms" in failure.attrib["message"]
    assert gate.junit(made) == gate.junit(made)


def test_markdown_is_a_table_that_no_name_can_break(tmp_path: Path) -> None:
    made = judged(
        tmp_path, "exact_match >= 0.7", "latency_p95_ms <= 800", variants={"a": Given(POOR), "b|<b>": TWO["b"]}
    )
    text = gate.markdown(made)
    assert text.startswith("### ❌ Gate failed: case@1\n\n| | rule | variant | evidence | certain |\n|:--|")
    rows = [line for line in text.splitlines() if line.startswith(("| ✅", "| ❌"))]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in rows] == [6, 6]
    assert "\\<b\\>" in rows[0]
    assert gate.to_json(made)["passed"] is False
