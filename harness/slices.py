"""Slices: a metric on parts of the held-out examples, where the winner loses there, and whose fault a miss is.

A slice is the examples that carry a tag, or stand in a group. Where variants retrieve, answers are also split by
whether the passage with the answer was in the prompt: an error without it is laid at retrieval's door, an error with
it at generation's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from harness import comparisons, results, stats
from harness.errors import HarnessError, UsageError, did_you_mean
from harness.records import Example
from harness.results import Results, Variant
from harness.store import Store

NO_TAG = "(no tag)"
NO_GROUP = "(no group)"
RETRIEVED = "retrieved"
_KEY = (":", "=")


def names(found: Results) -> list[str]:
    """Return by what these examples can be sliced: "tags", "group", "retrieved", where the data and the variants have
    them; then the keys of tags written "key:value" or "key=value"."""
    possible = ["tags"] if any(example.tags for example in found.examples) else []
    possible += ["group"] if found.grouped else []
    retrieves = any("index" in run.steps for variant in found.variants for run in variant.runs)
    possible += [RETRIEVED] if retrieves and any(example.sources for example in found.examples) else []
    return possible + sorted({key for example in found.examples for tag in example.tags if (key := _key(tag))})


def places(found: Results, by: str) -> dict[str, list[int]]:
    """Return the slices `by` "tags", "group", a key of tags, or one tag (with it and without it): places of examples,
    in the order of the first example of each. An example stands in every slice whose tag it carries.

    Raises UsageError for a `by` that these examples do not have.
    """
    tags = {tag for example in found.examples for tag in example.tags}
    ways = [name for name in names(found) if name != RETRIEVED]
    if by not in ways and by not in tags:
        raise UsageError(f"the examples of {found.snapshot.ref} cannot be sliced by {by!r}.{_hint(found, by, tags)}")
    slices: dict[str, list[int]] = {}
    for place, example in enumerate(found.examples):
        for name in _slices_of(example, by, key=by in ways):
            slices.setdefault(name, []).append(place)
    return slices


def _hint(found: Results, by: str, tags: set[str]) -> str:
    known = [*names(found), *tags]
    return did_you_mean(by, known) if known else " They have no tags and no groups: name fields in [data] of the spec."


def _slices_of(example: Example, by: str, *, key: bool) -> Sequence[str]:
    if by == "tags":
        return example.tags or (NO_TAG,)
    if by == "group":
        return (example.group or NO_GROUP,)
    if key:
        return [tag[len(by) + 1 :] for tag in example.tags if _key(tag) == by] or (NO_TAG,)
    return (by,) if by in example.tags else (f"not {by}",)


def _key(tag: str) -> str:
    """The key of a tag written "key:value" or "key=value", or ""."""
    cut = min((place for mark in _KEY if (place := tag.find(mark)) > 0), default=0)
    return tag[:cut]


# ---------------------------------------------------------------------------------------------------------- the table


def table(found: Results, metric: str, by: str) -> dict[str, Any]:
    """Return the metric of every complete variant on every slice, with intervals and counts, and where the overall
    winner loses: the other variants that do better there, with the paired test inside the slice and its p adjusted by
    Holm over all slices and variants that could be tested, ahead or not.

    Raises UsageError where there is no such metric or no such slice.
    """
    known(found, metric)
    variants = [variant for variant in found.variants if metric in variant.scores]
    best = winner(found, metric)
    rows = []
    tests: list[tuple[str, Variant, comparisons.Comparison]] = []
    for name, chosen in places(found, by).items():
        part = found.only(chosen)
        measured = {one.name: asdict(results.estimate(part, part_of(part, one), metric)) for one in variants}
        groups = len(set(part.groups)) if found.grouped else None
        rows.append({"slice": name, "n": len(chosen), "groups": groups, "variants": measured})
        if best is not None:
            others = [other for other in variants if other.name != best.name]
            pairs = [(part_of(part, other), part_of(part, best)) for other in others]
            made = comparisons.pairwise(part, metric, pairs)
            tests += [(name, other, one) for other, one in zip(others, made, strict=True)]
    adjusted = comparisons.holm([made.p for _, _, made in tests])
    return {
        **_about(found, metric, by),
        "slices": rows,
        "winner": best.name if best else None,
        "tests": sum(made.p is not None for _, _, made in tests),
        "loses": [
            {
                "slice": name,
                "variant": other.name,
                "difference": asdict(made.difference),
                "test": made.test,
                "p": made.p,
                "p_adjusted": p,
                "verdict": comparisons.verdict(made, p),
                "n": made.n,
            }
            for (name, other, made), p in zip(tests, adjusted, strict=True)
            if _ahead(made)
        ],
    }


def _ahead(made: comparisons.Comparison) -> bool:
    value = made.difference.value
    return value is not None and value != 0 and (value > 0) == made.higher


def _about(found: Results, metric: str, by: str) -> dict[str, Any]:
    about = found.metrics[metric]
    notes = dict.fromkeys(note for variant in found.variants for run in variant.runs for note in run.leak_notes)
    return {"metric": metric, "by": by, "unit": about.unit, "direction": about.direction, "notes": list(notes)}


def part_of(part: Results, variant: Variant) -> Variant:
    """The same variant in a part of the results."""
    return part.variants[[one.name for one in part.variants].index(variant.name)]


def winner(found: Results, metric: str) -> Variant | None:
    """The variant with the best value on all examples, the first of equals; None where no value is there."""
    sign = 1 if found.metrics[metric].direction == "higher" else -1
    valued = [(value, variant) for variant in found.variants if (value := variant.value(metric)) is not None]
    return max(valued, key=lambda one: sign * one[0])[1] if valued else None


def known(found: Results, metric: str) -> None:
    """Raise UsageError where `found` has no such metric."""
    if metric not in found.metrics:
        have = found.metrics
        what = did_you_mean(metric, have) if have else f" No run of {found.snapshot.ref} is complete."
        raise UsageError(f"no metric {metric!r} in {found.snapshot.ref}.{what}")


# ------------------------------------------------------------------------------------ retrieval's or generation's fault


def retrieved(found: Results, store: Store, metric: str) -> dict[str, Any]:
    """Return, for each complete variant that retrieves, the answer metric split by whether the passages in the prompt
    came from the documents that hold the answer (`sources` of the example).

    Keys of a variant: `retrieved` is the share of examples with sources whose gold document was there (several: all
    of them); `there`, `partly` (some of several), `missing` and `unanswerable` (the example names no source) are the
    metric on those examples; `faults` says what share of all that was lost on examples with sources, against the
    metric's best value, fell where gold was missing ("retrieval"), partly there ("partly") or there ("generation").
    Of a right-or-wrong metric that is the share of errors. The shares are ratios of sums, with the linearised standard
    error clustered by group (Cochran 1977, Sampling Techniques, 2.11 and 9A); None where nothing was lost or the
    metric has no best value.

    Each seed counts as an observation of its own, in the group of its example. Raises UsageError where no variant
    retrieves or no example names a source.
    """
    known(found, metric)
    if RETRIEVED not in names(found):
        raise UsageError(
            f"{found.snapshot.ref} cannot be split by what was retrieved: that needs a variant with `retrieve`, and "
            "examples that name the document with the answer (`source` in [data])."
        )
    told = {}
    for variant in found.variants:
        if metric in variant.scores and all("index" in run.steps for run in variant.runs):
            told[variant.name] = _split(found, variant, store, metric)
    return {**_about(found, metric, RETRIEVED), "variants": told}


def _split(found: Results, variant: Variant, store: Store, metric: str) -> dict[str, Any]:
    about = found.metrics[metric]
    classes = _classes(found, variant, store)
    # What is retrieved seldom depends on the seed: then each example counts once.
    seeds = classes[:1] if all(seed == classes[0] for seed in classes) else classes
    counted = [pair for seed in seeds for pair in zip(seed, found.groups, strict=True)]
    sourced = [(one == "there", group) for one, group in counted if one != "unanswerable"]
    told: dict[str, Any] = {
        RETRIEVED: asdict(
            stats.interval(
                [float(hit) for hit, _ in sourced], [group for _, group in sourced], binary=True, bounds=(0.0, 1.0)
            )
        )
    }
    for name in ("there", "partly", "missing", "unanswerable"):
        told[name] = asdict(_on_class(found, variant, metric, classes, name))
    best = about.ceiling if about.direction == "higher" else about.floor
    told["faults"] = _faults(variant, metric, classes, found.groups, best) if about.reducer == "mean" else None
    return told


def _classes(found: Results, variant: Variant, store: Store) -> list[list[str]]:
    """For each seed and example: whether the gold documents were among the passages."""
    told = []
    for run in variant.runs:
        seed = []
        predictions = store.step(run.steps["predict"]).predictions()
        for example, prediction in zip(found.examples, predictions, strict=True):
            if example.id != prediction.id:
                raise HarnessError(
                    f"the answers of {variant.name!r} are not in the order of the held-out examples ({prediction.id!r} "
                    f"stands for {example.id!r}): run the experiment again."
                )
            gold, seen = set(example.sources), {passage.document for passage in prediction.passages}
            seed.append(
                "unanswerable" if not gold else "there" if gold <= seen else "partly" if gold & seen else "missing"
            )
        told.append(seed)
    return told


def _on_class(
    found: Results, variant: Variant, metric: str, classes: Sequence[Sequence[str]], name: str
) -> stats.Interval:
    """The metric on the examples of one class. Where passages do not depend on the seed, that is a slice like others;
    else each seed's answers count where they belong."""
    about = found.metrics[metric]
    if all(seed == classes[0] for seed in classes):
        part = found.only([place for place, one in enumerate(classes[0]) if one == name])
        return results.estimate(part, part_of(part, variant), metric)
    if about.reducer != "mean":
        return stats.Interval(None, None, None, 0, 0, "n/a (passages differ between seeds)")
    values, groups = [], []
    for seed, score in zip(classes, variant.scores[metric], strict=True):
        for row, one, group in zip(score.statistics, seed, found.groups, strict=True):
            if row is not None and one == name:
                values.append(row[0])
                groups.append(group)
    return stats.interval(values, groups, binary=False, bounds=(about.floor, about.ceiling))


_CAUSES = {"missing": "retrieval", "partly": "partly", "there": "generation"}


def _faults(
    variant: Variant, metric: str, classes: Sequence[Sequence[str]], groups: Sequence[str], best: float | None
) -> Mapping[str, Any] | None:
    """Where what was lost against the best value was lost: shares that sum to one."""
    if best is None:
        return None
    lost: list[tuple[float, str, str]] = []
    for seed, score in zip(classes, variant.scores[metric], strict=True):
        for row, name, group in zip(score.statistics, seed, groups, strict=True):
            if row is not None and name in _CAUSES and (loss := abs(best - row[0])) > 0:
                lost.append((loss, _CAUSES[name], group))
    told: dict[str, Any] = {"n": len(lost)}
    for cause in _CAUSES.values():
        told[cause] = asdict(_ratio([(loss, loss if of == cause else 0.0, group) for loss, of, group in lost]))
    return told


def _ratio(rows: Sequence[tuple[float, float, str]]) -> stats.Interval:
    """The sum of the second numbers over that of the first (all above 0), with its interval.

    With R the ratio and w the mean of the first numbers, z_i = R + (y_i - R x_i) / w has the mean R, and the standard
    error of that mean is the linearised one of R. Where all first numbers are alike, z_i = y_i / x_i.
    """
    if not rows:
        return stats.Interval(None, None, None, 0, 0, "n/a (nothing was lost)")
    total = math.fsum(x for x, _, _ in rows)
    ratio, weight = math.fsum(y for _, y, _ in rows) / total, total / len(rows)
    values = [ratio + (y - ratio * x) / weight for x, y, _ in rows]
    binary = all(value in (0.0, 1.0) for value in values)
    return stats.interval(values, [group for _, _, group in rows], binary=binary, bounds=(0.0, 1.0))
