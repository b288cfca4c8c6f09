"""`[cost]`, `[constraints]` and `[gate]`: in a spec, with places, and read back from a snapshot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import spec, terms
from harness.errors import SpecError, UsageError
from harness.terms import Constraints, Gate, Prices, Terms

SPEC = """name = "one"
[model]
kind = "canned"
[data]
heldout = "heldout.jsonl"
[[metric]]
kind = "exact_match"
[[metric]]
kind    = "regex"
label   = "house_format"
pattern = "x"
[[variant]]
name = "plain"
[[variant]]
name = "rag"
"""
"""Fifteen lines; what a test adds begins on line 16."""


def load(tmp_path: Path, text: str) -> spec.Spec:
    (tmp_path / "heldout.jsonl").write_text('{"input": "a", "target": "b"}\n', encoding="utf-8")
    file = tmp_path / "one.toml"
    file.write_text(SPEC + text, encoding="utf-8")
    return spec.load(file)


def faults(tmp_path: Path, text: str) -> list[tuple[int | None, str, str]]:
    with pytest.raises(SpecError) as error:
        load(tmp_path, text)
    return [(fault.line, fault.path, fault.message) for fault in error.value.faults]


def test_a_snapshot_gives_the_terms_back_that_the_spec_had(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """[cost]
currency = "EUR"
machine_hour = { "H200" = 4.1, "*" = 0.08 }
million_input_tokens = 0.15
million_output_tokens = 0.6
[constraints]
latency_p95_ms = 800
cost_per_1000_answers = 0.5
min_quality = { exact_match = 0.5, house_format = 0.9 }
must_cite = "house_format"
needs_updates_without_training = true
[gate]
rules = ["exact_match >= 0.7", 'house_format not_worse_than "rag" by 0.02 for plain', "cost_per_1000_answers <= 1"]
variant = "plain"
""",
    )
    kept = json.loads(json.dumps(found.resolved()))
    assert terms.of(kept) == Terms(found.cost, found.constraints, found.gate)
    assert [rule.measure for rule in found.gate.parsed] == ["exact_match", "house_format", "cost_per_1000_answers"]


def test_without_the_tables_nothing_is_asked_and_nothing_has_a_price(tmp_path: Path) -> None:
    found = load(tmp_path, "")
    assert (found.cost, found.constraints, found.gate) == (Prices(), Constraints(), Gate())
    assert not found.cost.any and found.constraints.limits == {} and found.constraints.qualities("exact_match") == {}
    assert terms.of({}) == Terms()


@pytest.mark.parametrize(
    ("text", "line", "path", "message"),
    [
        ("[cost]\nmachine_hour = -1", 17, "cost.machine_hour", "finite numbers of at least 0"),
        ('[cost]\nmachine_hour = "cheap"', 17, "cost.machine_hour", "a number or a table of numbers by device"),
        ("[cost]\nmachine_hours = 1", 17, "cost.machine_hours", "Did you mean 'machine_hour'?"),
        ('[cost]\ncurrency = "euro"\nmachine_hour = 1', 17, "cost.currency", "of the form"),
        ('[cost]\ncurrency = "EUR"', 16, "cost", "it names no price"),
        ("[cost]\nmillion_input_tokens = 1", 16, "cost", "`million_output_tokens` is missing"),
        (
            "[cost]\nmachine_hour = 1\nmillion_cached_tokens = 1",
            18, "cost.million_cached_tokens", "it needs `million_input_tokens`",
        ),
        ("[constraints]\nlatency_p95_ms = 0", 17, "constraints.latency_p95_ms", "a number above 0"),
        ("[constraints]\nlatency_p95_ms = inf", 17, "constraints.latency_p95_ms", "a finite number"),
        (
            "[latency]\nexamples = 0\n[constraints]\nlatency_p95_ms = 800",
            19, "constraints.latency_p95_ms", "latency is not measured",
        ),
        ("[constraints]\ncost_per_1000_answers = 1", 17, "constraints.cost_per_1000_answers", "money needs a price"),
        (
            "[cost]\nmillion_input_tokens=1\nmillion_output_tokens=1\n[constraints]\ntraining_cost = 1",
            20, "constraints.training_cost", "needs the price of the machine",
        ),
        ("[constraints]\nmin_quality = 70", 17, "constraints.min_quality", "Did you mean 0.7?"),
        (
            "[constraints.min_quality]\nexact_macht = 0.7",
            17, "constraints.min_quality.exact_macht", "Did you mean 'exact_match'?",
        ),
        ("[constraints]\nmust_cite = true", 17, "constraints.must_cite", "exactly one metric of a citation kind"),
        ('[constraints]\nmust_cite = "format"', 17, "constraints.must_cite", "there is no metric 'format'"),
        ("[constraints]\nmust_cite = 3", 17, "constraints.must_cite", "must be true or false or text, not 3"),
        ("[constraints]\nmust_cite_share = 2", 17, "constraints.must_cite_share", "at most 1"),
        ('[gate]\nrules = [\n  "exact_match >= 0.5",\n  "exact_match = 1",\n]', 19, "gate.rules.1", "is no rule"),
        ('[gate]\nrules = ["exact_macht >= 0.5"]', 17, "gate.rules.0", "Did you mean 'exact_match'?"),
        ('[gate]\nrules = ["latency_p96_ms <= 5"]', 17, "gate.rules.0", "Did you mean 'latency_p95_ms'?"),
        ('[gate]\nrules = ["exact_match >= 70"]', 17, "gate.rules.0", "Did you mean 0.7?"),
        ('[gate]\nrules = ["training_cost <= 70"]', 17, "gate.rules.0", "needs the price of the machine"),
        (
            '[gate]\nrules = [\'exact_match not_worse_than "rga" by 0.02\']',
            17, "gate.rules.0", "there is no variant 'rga'. Did you mean 'rag'?",
        ),
        ('[gate]\nvariant = "rags"', 17, "gate.variant", "there is no variant 'rags'. Did you mean 'rag'?"),
    ],
)  # fmt: skip
def test_a_fault_has_its_place(tmp_path: Path, text: str, line: int, path: str, message: str) -> None:
    found = faults(tmp_path, text)
    assert len(found) == 1, found
    assert found[0][:2] == (line, path)
    assert message in found[0][2]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = '[constraints]\ntraining_cost = 1\nmin_quality = 7\n[gate]\nvariant = "x"\nrules = ["y >= 1"]'
    assert [line for line, _, _ in faults(tmp_path, text)] == [17, 18, 20, 21]


def test_the_only_citation_metric_is_found_and_two_must_be_told_apart() -> None:
    one = terms.Known({"citation_recall": terms.Scale("citation_recall", "higher", 0, 1)}, "citation_recall", ["a"])
    asked = Terms(constraints=Constraints(must_cite=True))
    assert list(terms.faults(asked, one)) == [] and one.citing(True) == "citation_recall"
    two = terms.Known({**one.metrics, "cited": terms.Scale("citation_precision", "higher", 0, 1)}, "cited", ["a"])
    assert [place for place, _ in terms.faults(asked, two)] == [("constraints", "must_cite")]


def test_a_metric_that_is_no_share_cannot_tell_how_many_cite() -> None:
    known = terms.Known({"bleu": terms.Scale("bleu", "higher", 0, 100)}, "bleu", ["a"])
    ((place, message),) = terms.faults(Terms(constraints=Constraints(must_cite="bleu")), known)
    assert place == ("constraints", "must_cite") and "no share of answers" in message


@pytest.mark.parametrize(
    ("device", "rate"),
    [("Xeon · cpu float32", 0.1), ("Xeon · cuda bfloat16", 2.0), ("an nvidia H200 · cuda bfloat16", 4.0), ("tpu", 9.0)],
)
def test_the_longest_name_that_fits_a_device_sets_its_rate(device: str, rate: float) -> None:
    prices = Prices(machine_hour={"cpu": 0.1, "cuda": 2.0, "H200 · CUDA": 4.0, "*": 9.0})
    assert prices.rate(device) == rate


def test_a_device_without_a_name_has_no_rate() -> None:
    assert Prices(machine_hour={"cuda": 2.0}).rate("cpu") is None
    assert Prices(machine_hour=0.5).rate("anything") == 0.5
    assert Prices().rate("anything") is None


# --------------------------------------------------------------------------------------------------------- settings


def test_settings_change_add_and_take_away() -> None:
    stored: dict[str, Any] = {"constraints": {"latency_p95_ms": 800.0, "must_cite": "f"}, "cost": {"machine_hour": 1.0}}
    found = terms.of(
        stored,
        [
            "constraints.latency_p95_ms=false",
            "constraints.must_cite=cited",
            "constraints.min_quality.token_f1 = 0.3",
            'cost.machine_hour={"cpu"=0.1}',
            'gate.rules=["exact_match >= 0.5"]',
        ],
    )
    assert found.constraints == Constraints(must_cite="cited", min_quality={"token_f1": 0.3})
    assert found.prices.machine_hour == {"cpu": 0.1}
    assert found.gate.rules == ("exact_match >= 0.5",)
    assert stored["constraints"] == {"latency_p95_ms": 800.0, "must_cite": "f"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seeds=[1]", "Only cost, constraints, gate can be changed after a run"),
        ("constraints=1", "write PATH=VALUE"),
        ("constraints.=1", "write PATH=VALUE"),
        ("constraints.latency_p95_ms", "write PATH=VALUE"),
        ("constraints.latency=800", "unknown key. Did you mean 'latency_p95_ms'?"),
        ("constraints.latency_p95_ms=fast", "constraints.latency_p95_ms: "),
        ("cost.machine_hour=-1", "cost.machine_hour: must be a number"),
        ("gate.rules=['x']", "gate.rules.0: 'x' is no rule"),
    ],
)
def test_a_wrong_setting_is_told(setting: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        terms.of({}, [setting])
    assert message in str(error.value)
