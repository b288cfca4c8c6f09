"""The results of one experiment as analyses read them: runs, held-out examples and scores, checked to be alike.

The leaderboard, comparisons, slices and the decision all start from `read`; `estimate` is how all of them give a
value with its interval.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness import bootstrap, stats
from harness.errors import HarnessError
from harness.records import Example, Run, Score
from harness.reducers import REDUCERS
from harness.store import Snapshot, Store


@dataclass(frozen=True)
class Variant:
    """A variant's runs, one a seed, and their scores once all are complete: `scores[name]` is in the order of seeds."""

    name: str
    runs: tuple[Run, ...]
    scores: Mapping[str, tuple[Score, ...]]

    @property
    def status(self) -> str:
        found = {run.status for run in self.runs}
        if len(found) == 1:
            return found.pop()
        return next((status for status in ("failed", "running") if status in found), "waiting")

    @property
    def state(self) -> str:
        """The status in a sentence: "has failed", "is running"."""
        return f"{'has' if self.status == 'failed' else 'is'} {self.status}"

    @property
    def error(self) -> str | None:
        several = len(self.runs) > 1
        failed = [run for run in self.runs if run.status == "failed"]
        texts = [f"seed {run.seed}: {run.error}" if several else run.error or "failed" for run in failed]
        return "\n".join(dict.fromkeys(texts)) or None

    def value(self, metric: str) -> float | None:
        """What the metric's reducer makes of all examples, averaged over seeds; None where it speaks of none."""
        made = []
        for score in self.scores.get(metric, ()):
            known = [row for row in score.statistics if row is not None]
            value = REDUCERS[score.reducer](known, score.labels) if known else None
            made += [] if value is None else [value]
        return stats.mean(made) if made else None

    def values(self, metric: str) -> list[float | None] | None:
        """The metric of each held-out example, averaged over seeds; None for one that it does not speak of. Only a
        metric whose value is the mean has any."""
        if metric not in self.scores:
            return None
        rows = zip(*(score.statistics for score in self.scores[metric]), strict=True)
        return [None if row[0] is None else stats.mean([one[0] for one in row if one is not None]) for row in rows]

    def only(self, places: Sequence[int]) -> Variant:
        """The same variant on the examples at `places`. The runs, and `errors` of the scores, stay those of all."""
        return replace(
            self, scores={name: tuple(_only(s, places) for s in found) for name, found in self.scores.items()}
        )


@dataclass(frozen=True)
class Results:
    """One experiment. `metrics[name]` is one score of each metric, for its name, direction, bounds and signature;
    `groups` are the clusters of the held-out examples, in their order."""

    snapshot: Snapshot
    variants: tuple[Variant, ...]
    examples: tuple[Example, ...]
    fingerprint: str
    metrics: Mapping[str, Score]
    primary: str
    baseline: str
    groups: tuple[str, ...]
    whole: Results | None = None
    """What these are a part of, where `only` made them."""

    @property
    def grouped(self) -> bool:
        """Whether the data names groups: else each example is its own, by the name of its id."""
        return any(example.group not in ("", example.id) for example in self.examples)

    @property
    def data_notes(self) -> list[str]:
        """What was allowed or noticed when the data were checked: a leak, `same_facts`, a limit."""
        runs = [run for variant in self.variants for run in variant.runs]
        return list(dict.fromkeys(note for run in runs for note in run.provenance.get("data_notes", ())))

    def variant(self, name: str) -> Variant | None:
        return next((variant for variant in self.variants if variant.name == name), None)

    def only(self, places: Sequence[int]) -> Results:
        """The same results on the examples at `places`: a slice, or what two experiments share."""
        return replace(
            self,
            variants=tuple(variant.only(places) for variant in self.variants),
            examples=tuple(self.examples[place] for place in places),
            metrics={name: _only(score, places) for name, score in self.metrics.items()},
            groups=tuple(self.groups[place] for place in places),
            whole=self.whole or self,
        )

    def binary(self, metric: str) -> bool:
        """Whether each example of every variant is wholly right or wrong, seen with one seed: a proportion.

        A part of the examples is what the whole is: a graded metric is no proportion on a slice that happens to hold
        its ends alone.
        """
        if self.whole is not None:
            return self.whole.binary(metric)
        about = self.metrics[metric]
        if (about.floor, about.ceiling) != (0, 1) or about.reducer != "mean":
            return False
        scores = [variant.scores[metric] for variant in self.variants if metric in variant.scores]
        return all(len(seeds) == 1 for seeds in scores) and all(
            values is None or values[0] in (0, 1) for (score,) in scores for values in score.statistics
        )


def read(snapshot: Snapshot, store: Store) -> Results:
    """Return what `snapshot` holds.

    Raises HarnessError where its runs cannot be compared: answered on different held-out splits, or scored with
    different settings of a metric.
    """
    variants = _variants(snapshot.runs(), store)
    examples = tuple(snapshot.examples())
    return Results(
        snapshot=snapshot,
        variants=tuple(variants),
        examples=examples,
        fingerprint=_fingerprint(variants),
        metrics=_metrics(variants, examples),
        primary=_primary(snapshot.spec),
        baseline=str(snapshot.spec.get("baseline") or variants[0].name),
        groups=tuple(example.group or f"\0{example.id}" for example in examples),
    )


def estimate(results: Results, variant: Variant, metric: str) -> stats.Interval:
    """Return the value of one variant on `metric`, over its seeds, with its 95 % interval."""
    about, scores = results.metrics[metric], variant.scores[metric]
    bounds = (about.floor, about.ceiling)
    kept = [place for place, row in enumerate(scores[0].statistics) if row is not None]
    groups = [results.groups[place] for place in kept]
    if not kept:
        return stats.Interval(None, None, None, 0, 0, "n/a (no examples)")
    rows = [[row for row in score.statistics if row is not None] for score in scores]
    # Alike under each seed is as good as one.
    rows = rows[:1] if all(seed == rows[0] for seed in rows) else rows
    if about.reducer != "mean":
        return bootstrap.interval(bootstrap.Corpus(about.reducer, about.labels, rows, groups), bounds=bounds)[0]
    values = [stats.mean([row[0] for row in seeds]) for seeds in zip(*rows, strict=True)]
    means = [stats.mean([row[0] for row in seed]) for seed in rows] if len(rows) > 1 else []
    return stats.interval(values, groups, binary=results.binary(metric), bounds=bounds, seeds=means)


def settings_that_differ(one: str, other: str) -> list[tuple[str, str, str]]:
    """Return (setting, its value in signature `one`, its value in `other`) for each that differs; "–" is not there."""
    ours, theirs = _settings(one), _settings(other)
    names = [*ours, *(name for name in theirs if name not in ours)]
    pairs = [(name, ours.get(name, "–"), theirs.get(name, "–")) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def _settings(signature: str) -> dict[str, str]:
    """The settings of a signature, "kind|name:value|...": a value in JSON may hold "|" itself, any other may not."""
    kind, _, rest = signature.partition("|")
    found = {"kind": kind}
    while rest:
        name, _, rest = rest.partition(":")
        try:
            end = json.JSONDecoder().raw_decode(rest)[1]
        except ValueError:
            end = 0
        if not end or rest[end : end + 1] not in ("", "|"):
            end = len(rest.partition("|")[0])
        found[name], rest = rest[:end], rest[end + 1 :]
    return found


def _only(score: Score, places: Sequence[int]) -> Score:
    return replace(
        score,
        ids=tuple(score.ids[place] for place in places),
        statistics=tuple(score.statistics[place] for place in places),
    )


def _variants(runs: Sequence[Run], store: Store) -> list[Variant]:
    if not runs:
        raise HarnessError("this snapshot plans no runs, so there is nothing to rank.")
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run.variant, []).append(run)
    return [_variant(name, tuple(found), store) for name, found in by_name.items()]


def _variant(name: str, runs: tuple[Run, ...], store: Store) -> Variant:
    if any(run.status != "complete" for run in runs):
        return Variant(name, runs, {})
    roles = [role for role in runs[0].steps if role.startswith("score.")]
    return Variant(
        name,
        runs,
        {role.removeprefix("score."): tuple(store.step(run.steps[role]).score() for run in runs) for role in roles},
    )


def _fingerprint(variants: Sequence[Variant]) -> str:
    """Return the digest of the held-out split that every run is about."""
    found: dict[str, Variant] = {}
    for variant in variants:
        for run in variant.runs:
            found.setdefault(str(run.provenance.get("fingerprints", {}).get("heldout", "")), variant)
    if len(found) > 1:
        sides = ", ".join(f"{one.name!r} on {digest[:12] or 'an unknown one'}" for digest, one in found.items())
        raise HarnessError(
            f"cannot rank variants of different held-out splits: {sides}{_strays(*list(found.values())[:2])}. "
            "Run the experiment again, so that all of them answer the same examples."
        )
    return next(iter(found))


def _strays(one: Variant, other: Variant) -> str:
    """Which examples only one of two variants answered, as far as their scores tell."""
    ids = [next((score.ids for found in side.scores.values() for score in found), None) for side in (one, other)]
    if ids[0] is None or ids[1] is None:
        return ""
    told = [
        f"only {side.name!r} answered {', '.join(map(repr, alone[:3]))}{' and others' if len(alone) > 3 else ''}"
        for side, mine, its in ((one, ids[0], ids[1]), (other, ids[1], ids[0]))
        if (alone := [identity for identity in mine if identity not in set(its)])
    ]
    return f" ({'; '.join(told) or 'the same ids, so a question, an answer, a group or a tag differs'})"


def _metrics(variants: Sequence[Variant], examples: Sequence[Example]) -> dict[str, Score]:
    """Return one score of every metric, by name, after checking that all variants were scored alike."""
    found: dict[str, tuple[str, Score]] = {}
    ids = tuple(example.id for example in examples)
    # The variant with the most metrics names them in the order of the spec: one without retrieval lacks some.
    for variant in sorted(variants, key=lambda variant: -len(variant.scores)):
        for name, scores in variant.scores.items():
            for score in scores:
                _same_settings(name, found.setdefault(name, (variant.name, score)), (variant.name, score))
                _sound(name, variant.name, score, ids)
    return {name: score for name, (_, score) in found.items()}


def _same_settings(metric: str, one: tuple[str, Score], two: tuple[str, Score]) -> None:
    if one[1].signature != two[1].signature:
        differing = settings_that_differ(one[1].signature, two[1].signature)
        told = "; ".join(f"{name} is {a} for {one[0]!r} but {b} for {two[0]!r}" for name, a, b in differing)
        raise HarnessError(
            f"cannot rank variants that were scored differently: {metric} is {one[1].signature!r} for {one[0]!r} but "
            f"{two[1].signature!r} for {two[0]!r} ({told}). Score all of them with one setting: run the experiment "
            "again, or `harness score` it."
        )
    for identity, first, second in zip(one[1].ids, one[1].statistics, two[1].statistics, strict=False):
        if (first is None) != (second is None):
            raise HarnessError(
                f"{metric} speaks of example {identity!r} for only one of {one[0]!r} and {two[0]!r}: a fault of the "
                "metric. Whether it returns None must not depend on the answer."
            )


def _sound(metric: str, variant: str, score: Score, ids: tuple[str, ...]) -> None:
    """Raise HarnessError unless `score` is of the examples `ids` and holds numbers that can be ranked."""
    if score.ids != ids:
        strays = sorted(set(score.ids) ^ set(ids))
        which = f"example {strays[0]!r} is on one side only" if strays else "their order differs"
        raise HarnessError(
            f"{metric} of {variant!r} was not measured on the held-out split of this experiment: {which}. "
            "Run the experiment again."
        )
    if score.reducer not in REDUCERS:
        raise HarnessError(f"{metric} is reduced by {score.reducer!r}, which this harness does not know: upgrade it.")
    low = -math.inf if score.floor is None else score.floor
    high = math.inf if score.ceiling is None else score.ceiling
    for identity, values in zip(score.ids, score.statistics, strict=True):
        if values is None or score.reducer != "mean":
            continue
        if not (math.isfinite(values[0]) and low <= values[0] <= high):
            raise HarnessError(
                f"{metric} of {variant!r} is {values[0]} for example {identity!r}, outside {low} to {high}: "
                "a fault of the metric. Mend it and score again."
            )


def _primary(spec: Mapping[str, Any]) -> str:
    """Return the name of the metric that ranks: the one marked so, or the spec's first."""
    metrics = spec.get("metrics") or [{"name": ""}]
    return str(next((metric for metric in metrics if metric.get("primary")), metrics[0])["name"])
