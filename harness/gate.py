"""The rules of a gate held against what was measured, for continuous integration: text, JUnit XML and Markdown.

A rule is decided by the measured value, as gates of continuous integration are, and says whether the evidence is
certain: whether the whole 95 % interval keeps the bound (for `not_worse_than`, whether the one-sided test of
non-inferiority holds at 5 %). With `certain = true` a rule holds only where the evidence is. What was not measured
never holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from xml.etree import ElementTree

from harness import comparisons, decision, figures, margins
from harness.decision import Case
from harness.errors import UsageError, did_you_mean
from harness.measures import Measure, bare, holds
from harness.records import Score
from harness.results import Variant
from harness.rules import Rule, parse
from harness.store import Snapshot, Store
from harness.terms import Terms, rule_faults

FAILED = 100
"""The exit status of a gate that fails."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one rule. `certain` is None where there is no interval to say it by."""

    rule: str
    variant: str
    passed: bool
    certain: bool | None
    value: float | None
    low: float | None
    high: float | None
    bound: float
    unit: str
    method: str
    says: str


@dataclass(frozen=True, slots=True)
class Gate:
    """All rules of one gate, judged on `variant` unless a rule names another."""

    experiment: str
    snapshot: int
    variant: str | None
    chosen: str
    """How the variant came to be judged."""
    certain: bool
    created: str
    """When the snapshot was begun (UTC, ISO 8601)."""
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...] = ()
    """What was allowed or noticed of the data, and how often the held-out set was used."""

    @property
    def passed(self) -> bool:
        return all(outcome.passed for outcome in self.outcomes)


def build(
    snapshot: Snapshot, store: Store, terms: Terms, *, variant: str | None = None, rules: Sequence[str] = ()
) -> Gate:
    """Judge `rules`, by default those of the terms, on `variant`, by default the one that the terms name, else the one
    that the decision ships.

    Raises UsageError where there is no rule, one cannot be read, or names what does not exist.
    """
    wanted = _rules(rules) if rules else terms.gate.parsed
    if not wanted:
        raise UsageError(
            'there is no rule to check: write [gate] rules = ["exact_match >= 0.7"] into the spec and run it, or give '
            "--rule 'exact_match >= 0.7'"
        )
    case = decision.case(snapshot, store, replace(terms, gate=terms.gate.model_copy(update={"rules": ()})))
    if wrong := [f"rule {one.text!r}: {why}" for one in wanted for why in rule_faults(one, terms.prices, case.known)]:
        raise UsageError("\n".join(wrong))
    named = variant or terms.gate.variant
    if named is not None and named not in case.known.variants:
        raise UsageError(f"there is no variant {named!r}.{did_you_mean(named, case.known.variants)}")
    name, chosen = (named, "named") if named is not None else _shipped(case)
    outcomes = tuple(_judge(case, rule, rule.variant or name, chosen, certain=terms.gate.certain) for rule in wanted)
    about = snapshot.name, snapshot.number, name, chosen, terms.gate.certain, snapshot.created
    return Gate(*about, outcomes, tuple(case.warnings))


def _shipped(case: decision.Case) -> tuple[str | None, str]:
    """The variant that `harness decide` ships, and how it was chosen."""
    made = decision.choose(case)
    if made.shipped is None:
        return None, f"none to judge: {made.why}"
    return made.shipped.name, f"what `harness decide` ships: {made.why}"


def _rules(texts: Sequence[str]) -> tuple[Rule, ...]:
    try:
        return tuple(parse(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"--rule {error}") from error


def _judge(case: Case, rule: Rule, name: str | None, chosen: str, *, certain: bool) -> Outcome:
    variant = case.results.variant(name) if name is not None else None
    if variant is None:
        return _nothing(rule, "", f"no variant to judge: {chosen.removeprefix('none to judge: ')}")
    if variant.status != "complete":
        why = f": {figures.short(variant.error, 200)}" if variant.error else ""
        return _nothing(rule, variant.name, f"{variant.name} {variant.state}{why}")
    if rule.other is not None:
        return _relative(case, rule, variant, rule.other, certain=certain)
    measure = case.measures.of(variant, rule.measure)
    keeps, sure = holds(measure, rule.operator, rule.bound)
    if keeps is None:
        return _nothing(rule, variant.name, f"{rule.measure} is n/a: {bare(measure.method)}")
    says = f"{rule.measure} is {measure.text}, to be {rule.operator} {measure.shown(rule.bound)}"
    return _outcome(rule, variant, measure, keeps, sure, says, certain=certain)


def _relative(case: Case, rule: Rule, variant: Variant, other: str, *, certain: bool) -> Outcome:
    """`not_worse_than`: the paired difference of a metric by its non-inferiority test, of a cost as measured."""
    rival = case.results.variant(other)
    mine = case.measures.of(variant, rule.measure)
    if rival is None or rival.status != "complete":
        why = rival.state if rival else "is not there"
        return _nothing(rule, variant.name, f"{other} {why}, so nothing is held against it")
    its = case.measures.of(rival, rule.measure)
    if mine.value is None or its.value is None:
        return _nothing(
            rule, variant.name, f"{rule.measure} is n/a: {bare((mine if mine.value is None else its).method)}"
        )
    if mine.metric:
        compared = comparisons.between(case.results, rule.measure, variant, rival)
        shown = compared.difference
        difference = mine.value - its.value if shown.value is None else shown.value
        margin = margins.non_inferior(compared, rule.bound)
        low, high = _possible(case.results.metrics[rule.measure], margin.low, margin.high)
        method, test = margin.test, margin.holds
        method += "" if low is None else ", 90 % interval"
    elif case.spent[variant.name].device != case.spent[rival.name].device:
        return _nothing(rule, variant.name, f"{rule.measure} was measured on different devices, so it is not compared")
    else:
        difference, low, high, method, test = mine.value - its.value, None, None, "measured once: no interval", None
    keeps = (difference if mine.higher else -difference) >= -rule.bound
    # The test can only show that it is not worse; that it is worse, only the far end of the interval can.
    far = high if mine.higher else low
    worse = far is not None and (far if mine.higher else -far) < -rule.bound
    sure = None if low is None and high is None else bool(test) if keeps else worse
    size = _change(mine, difference)
    interval = "" if low is None or high is None else f" (90 % interval {figures.change_bounds(low, high, mine.unit)})"
    bound = _change(mine, -rule.bound if mine.higher else rule.bound)
    by = f" ({method.removesuffix(', 90 % interval')})" if interval else ""
    says = f"{rule.measure} differs from {other} by {size}{interval}, the margin is {bound}{by}"
    return _outcome(
        rule,
        variant,
        replace(mine, value=difference, low=low, high=high, method=method),
        keeps,
        sure,
        says,
        certain=certain,
    )


def _possible(about: Score, low: float | None, high: float | None) -> tuple[float | None, float | None]:
    """An interval of a difference, cut at what a difference of this metric can be."""
    if low is None or high is None or about.floor is None or about.ceiling is None:
        return low, high
    reach = about.ceiling - about.floor
    return max(low, -reach), min(high, reach)


def _change(measure: Measure, value: float) -> str:
    size = figures.size_of_change(abs(value), measure.unit) if measure.metric else measure.shown(abs(value))
    return f"{'+' if value > 0 else figures.MINUS if value < 0 else ''}{size}"


def _outcome(
    rule: Rule, variant: Variant, measure: Measure, keeps: bool, sure: bool | None, says: str, *, certain: bool
) -> Outcome:
    unknown = bare(measure.method)
    unknown = unknown if unknown == measure.method else f"no interval: {unknown}"
    doubt = {True: "certain", False: "not certain, the bound lies inside the interval", None: unknown}[sure]
    passed = keeps and (sure is True or not certain)
    return Outcome(
        rule.text,
        variant.name,
        passed,
        sure,
        measure.value,
        measure.low,
        measure.high,
        rule.bound,
        measure.unit,
        measure.method,
        f"{says}; {doubt}",
    )


def _nothing(rule: Rule, variant: str, why: str) -> Outcome:
    return Outcome(rule.text, variant, False, None, None, None, None, rule.bound, "", "n/a", why)


# ------------------------------------------------------------------------------------------------------------ shown


def to_json(gate: Gate) -> dict[str, Any]:
    return {**asdict(gate), "passed": gate.passed}


def lines(gate: Gate) -> list[str]:
    """One line a rule, what it comes to, and what to know of the data."""
    failed = sum(not outcome.passed for outcome in gate.outcomes)
    said = [f"{'pass' if o.passed else 'FAIL'}  {o.rule}{_of(gate, o)}: {o.says}" for o in gate.outcomes]
    count = len(gate.outcomes)
    if count == 1:
        end = "the rule failed" if failed else "the rule holds"
    else:
        end = f"{failed} of {count} rules failed" if failed else f"all {count} rules hold"
    how = ", each with certain evidence" if gate.certain and not failed else ""
    judged = f"{end[0].upper()}{end[1:]}{how}. Judged: {gate.variant or 'no variant'} ({gate.chosen})."
    return [*said, judged, *(f"Note: {note}" for note in gate.notes)]


def _of(gate: Gate, outcome: Outcome) -> str:
    return f" [{outcome.variant}]" if outcome.variant and outcome.variant != gate.variant else ""


def junit(gate: Gate) -> str:
    """JUnit XML: one test suite for the gate, one test case for each rule; a rule that does not hold is a failure.

    It has what both schemas in use ask for, that of Ant (testsuite with id, package, timestamp, hostname, properties,
    system-out and system-err) and that of Jenkins. The time is that of the snapshot, so that the same results give the
    same file.
    """
    about = {
        "id": "0",
        "package": "harness.gate",
        "name": f"{gate.experiment}@{gate.snapshot}",
        "timestamp": gate.created[:19],
        "hostname": "localhost",
        "tests": str(len(gate.outcomes)),
        "failures": str(sum(not outcome.passed for outcome in gate.outcomes)),
        "errors": "0",
        "skipped": "0",
        "time": "0",
    }
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", about)
    ElementTree.SubElement(suite, "properties")
    for outcome in gate.outcomes:
        named = f"{gate.experiment}.{outcome.variant or 'none'}"
        case = ElementTree.SubElement(
            suite, "testcase", {"name": _xml(outcome.rule), "classname": _xml(named), "time": "0"}
        )
        if not outcome.passed:
            failure = ElementTree.SubElement(case, "failure", {"message": _xml(outcome.says), "type": "gate"})
            failure.text = _xml(f"{outcome.rule}: {outcome.says}")
    ElementTree.SubElement(suite, "system-out").text = _xml("\n".join(lines(gate)))
    ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _xml(text: str) -> str:
    """Only what XML 1.0 can hold."""
    kept = (c for c in figures.plain(text) if c in "\t\n" or ord(c) >= 0x20)
    return "".join(c for c in kept if c not in "\ufffe\uffff")


def markdown(gate: Gate) -> str:
    """A summary that GitHub shows well: a heading that says what it came to, and a table of the rules."""
    escape = figures.markdown
    name = escape(f"{gate.experiment}@{gate.snapshot}")
    head = f"### {'✅' if gate.passed else '❌'} Gate {'passed' if gate.passed else 'failed'}: {name}"
    rows = ["| | rule | variant | evidence | certain |", "|:--|:--|:--|:--|:--|"]
    for outcome in gate.outcomes:
        sure = {True: "yes", False: "no", None: "n/a"}[outcome.certain]
        cells = [
            "✅" if outcome.passed else "❌",
            escape(outcome.rule),
            escape(outcome.variant or figures.NONE),
            escape(outcome.says),
            sure,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    judged = f"Judged: {escape(gate.variant or 'no variant')} ({escape(gate.chosen)})."
    notes = [line for note in gate.notes for line in (f"Note: {escape(note)}", "")]
    return "\n".join([head, "", *rows, "", judged, "", *notes])
