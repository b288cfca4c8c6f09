"""What human ratings come to: the same estimates as a metric's or a judge's, and how far the raters agree.

Single ratings become a mean a variant, with intervals clustered by group and paired differences from the baseline;
choices between two answers become win rates and a ranking (`pairwise.py`). An example's value is the mean of its
raters. An answer that failed counts as the worst rating, or as lost; one that nobody rated does not count and is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from harness import agreement, comparisons, pairwise, stats, verdicts
from harness.pairwise import Bout
from harness.records import digest
from harness.results import Results, Variant
from harness.sheets import Item, Key, Ratings
from harness.store import Store

PREFIX = "ratings-"
FILE = "ratings.json"


def keep(key: Key, given: Ratings, store: Store) -> None:
    """Keep ratings that were read, beside the answers they are about."""
    inputs = {"sheet": key.sheet, "ratings": given}
    step = store.step(PREFIX + digest(inputs))
    with step.lock():
        if step.outcome is None:
            step.start({"sheet": key.sheet, "uses": sorted(set(key.answers.values()))})
            step.write_json(FILE, given)
            step.complete({"raters": len(given)})


def kept(keys: Sequence[Key], store: Store) -> list[tuple[Key, Ratings]]:
    """Return, for each sheet, the ratings that were kept last."""
    found = []
    for key in keys:
        steps = [
            step
            for step in store.made_from(set(key.answers.values()), PREFIX)
            if step.outcome is not None and (step.inputs or {}).get("sheet") == key.sheet
        ]
        if steps:
            found.append((key, max(steps, key=lambda step: step.started).read_json(FILE)))
    return found


def scored(key: Key, given: Ratings, results: Results, store: Store) -> dict[str, Any]:
    """Return what the ratings come to, as JSON-able values."""
    rated = {item.code: mean for item in key.items if (mean := _mean(item, given)) is not None}
    told: dict[str, Any] = {
        "sheet": key.sheet,
        "pairwise": key.pairwise,
        "scale": list(key.bounds),
        "raters": {rater: len(marks) for rater, marks in given.items()},
        "items": len(key.items),
        "rated": len(rated),
        "examples": len(key.examples),
    }
    told |= _choices(key, rated, results) if key.pairwise else _marks(key, rated, results)
    told["agreement"] = _agreement(key, given, results, store)
    told["notes"] = _notes(key, rated, told)
    return told


def _mean(item: Item, given: Ratings) -> float | None:
    marks = [each[item.code] for each in given.values() if item.code in each]
    return stats.mean(marks) if marks else None


def _group(results: Results) -> dict[str, str]:
    return dict(zip((example.id for example in results.examples), results.groups, strict=True))


# ------------------------------------------------------------------------------------------------------ single marks


def _marks(key: Key, rated: Mapping[str, float], results: Results) -> dict[str, Any]:
    by_step = {(step, item.example): rated.get(item.code) for item in key.items for step in item.steps}
    low = key.bounds[0]
    # An answer that is on no row of the sheet has failed.
    values = {
        name: [by_step.get((step, example), low) for example in key.examples] for name, step in key.answers.items()
    }
    failed = {
        name: sum((step, example) not in by_step for example in key.examples) for name, step in key.answers.items()
    }
    group = _group(results)
    groups = [group[example] for example in key.examples]
    rows, tests = [], []
    for name, own in values.items():
        there = [(value, group) for value, group in zip(own, groups, strict=True) if value is not None]
        marks = [value for value, _ in there]
        binary = key.scale is None and all(mark in (0, 1) for mark in marks)
        made = stats.interval(marks, [group for _, group in there], binary=binary, bounds=key.bounds)
        row: dict[str, Any] = {
            "variant": name,
            "value": made.value,
            "ci_low": made.low,
            "ci_high": made.high,
            "method": made.method,
            "n": made.n,
            "failed": failed[name],
            "vs_baseline": None,
        }
        if name != results.baseline and results.baseline in values:
            base = values[results.baseline]
            test = comparisons.compare(own, base, groups, bounds=key.bounds, binary=False)
            tests.append((row, test))
        rows.append(row)
    for (row, test), p in zip(tests, comparisons.holm([test.p for _, test in tests]), strict=True):
        row["vs_baseline"] = {
            "difference": test.difference.value,
            "ci_low": test.difference.low,
            "ci_high": test.difference.high,
            "method": test.difference.method,
            "n": test.n,
            "test": test.test,
            "p": test.p,
            "p_adjusted": p,
            "verdict": comparisons.verdict(test, p),
        }
    return {"variants": rows}


# ----------------------------------------------------------------------------------------------------------- choices


def _choices(key: Key, rated: Mapping[str, float], results: Results) -> dict[str, Any]:
    names = [variant.name for variant in results.variants]
    group = _group(results)
    outcomes: dict[tuple[str, tuple[str, ...]], float] = {
        (item.example, item.steps): rated[item.code] for item in key.items if item.code in rated
    }
    outcomes |= {(known.example, known.steps): known.outcome for known in key.known}
    bouts = []
    for one, two in itertools.combinations(key.answers, 2):
        flip = pairwise.turned(one, two, names, results.baseline)
        ours, theirs = (two, one) if flip else (one, two)
        a, b = key.answers[ours], key.answers[theirs]
        for example in key.examples:
            if (example, (a, b)) in outcomes:
                bouts.append(Bout(ours, theirs, example, group[example], outcomes[example, (a, b)]))
            elif (example, (b, a)) in outcomes:
                bouts.append(Bout(ours, theirs, example, group[example], 1 - outcomes[example, (b, a)]))
    return {"comparisons": pairwise.compared(bouts), "ranking": pairwise.ranked(bouts)}


# --------------------------------------------------------------------------------------------------------- agreement


def _agreement(key: Key, given: Ratings, results: Results, store: Store) -> dict[str, Any]:
    """How far the raters agree with each other, and each with the judges that were asked about the same."""
    people = {rater: [marks.get(item.code) for item in key.items] for rater, marks in given.items()}
    judges = _by_judges(key, results, store) if key.pairwise else _by_metrics(key, results, store)
    scale = sorted(set(key.allowed.values()))
    levels: tuple[agreement.Level, ...] = ("nominal", "ordinal", "interval")
    pairs = [*itertools.combinations(people, 2)]
    rows = [_kappas(a, b, people[a], people[b], scale) for a, b in pairs]
    rows += [_kappas(a, name, people[a], judges[name], scale) for name in judges for a in people]
    return {
        "alpha": {level: agreement.alpha(list(people.values()), level) for level in levels},
        "fitting": "nominal" if key.scale is None else "ordinal",
        "kappa": rows,
    }


def _kappas(
    one: str, two: str, ours: Sequence[float | None], theirs: Sequence[float | None], scale: Sequence[float]
) -> dict[str, Any]:
    both = sum(a is not None and b is not None for a, b in zip(ours, theirs, strict=True))
    kinds: tuple[agreement.Weights, ...] = ("none", "linear", "quadratic")
    made: dict[str, Any] = {kind: agreement.kappa(ours, theirs, weights=kind, categories=scale) for kind in kinds}
    return {"one": one, "two": two, "items": both, **made}


def _by_metrics(key: Key, results: Results, store: Store) -> dict[str, list[float | None]]:
    """The marks of each `llm_judge` metric of the same scale, item by item; None where its verdict was not read."""
    found: dict[str, list[float | None]] = {}
    for name, about in results.metrics.items():
        if not about.signature.startswith("llm_judge|") or (about.floor, about.ceiling) != key.bounds:
            continue
        marks: dict[tuple[str, str], float] = {}
        for variant in results.variants:
            if variant.name in key.answers and name in variant.scores:
                marks |= _marked(variant, name, store)
        found[f"judge {name}"] = [
            next((marks[step, item.example] for step in item.steps if (step, item.example) in marks), None)
            for item in key.items
        ]
    return found


def _marked(variant: Variant, metric: str, store: Store) -> dict[tuple[str, str], float]:
    run, score = variant.runs[0], variant.scores[metric][0]
    details = (store.step(run.steps[f"score.{metric}"]).outcome or {}).get("details", {})
    unread = set(details.get("unparsed_ids", ()))
    rows = zip(score.ids, score.statistics, strict=True)
    return {(run.steps["predict"], id): row[0] for id, row in rows if row is not None and id not in unread}


def _by_judges(key: Key, results: Results, store: Store) -> dict[str, list[float | None]]:
    """The outcome that each pairwise judge gave each item; None where it was not asked or not read."""
    found: dict[str, list[float | None]] = {}
    for judge in verdicts.judges(results, store):
        given: list[float | None] = []
        for item in key.items:
            verdict = (judge.verdicts(*item.steps[:2]) or {}).get(item.example)
            read = verdict is not None and verdict.reason in ("judged", "order")
            given.append(verdict.outcome if verdict is not None and read else None)
        name = f"judge {judge.name}"
        found[name if name not in found else f"{name} {digest(judge.settings)[:6]}"] = given
    return found


def _notes(key: Key, rated: Mapping[str, float], told: Mapping[str, Any]) -> list[str]:
    notes = ["Rated are the answers of each variant's first seed."]
    if len(rated) < len(key.items):
        notes.append(f"{len(key.items) - len(rated)} of {len(key.items)} items are not rated by anybody: not counted.")
    if len(told["raters"]) < 2:
        notes.append("One rater alone: how far another would agree is not known.")
    if key.known:
        same = sum(known.reason == "same" for known in key.known)
        notes.append(
            f"{same} pairs of equal answers count as ties, {len(key.known) - same} pairs with a failed answer as lost "
            "by it; nobody was asked."
        )
    return notes
