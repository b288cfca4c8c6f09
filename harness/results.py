"""The results of one experiment as analyses read them: runs, held-out examples and scores, checked to be alike.

The leaderboard, comparisons, slices and the decision all start from `read`. Nothing here computes an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import stats
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

    @property
    def grouped(self) -> bool:
        """Whether the data names groups: else each example is its own."""
        return any(example.group for example in self.examples)

    def variant(self, name: str) -> Variant | None:
        return next((variant for variant in self.variants if variant.name == name), None)

    def binary(self, metric: str) -> bool:
        """Whether each example of every variant is wholly right or wrong, seen with one seed: a proportion."""
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


def spoken_of(values: Sequence[float | None], groups: Sequence[str]) -> tuple[list[float], list[str]]:
    """Return the values that are there, and their groups."""
    kept = [(value, group) for value, group in zip(values, groups, strict=True) if value is not None]
    return [value for value, _ in kept], [group for _, group in kept]


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
    found: dict[str, str] = {}
    for variant in variants:
        for run in variant.runs:
            found.setdefault(str(run.provenance.get("fingerprints", {}).get("heldout", "")), variant.name)
    if len(found) > 1:
        sides = ", ".join(f"{name!r} on {digest[:12] or 'an unknown one'}" for digest, name in found.items())
        raise HarnessError(
            f"cannot rank variants of different held-out splits: {sides}. "
            "Run the experiment again, so that all of them answer the same examples."
        )
    return next(iter(found))


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
        raise HarnessError(
            f"cannot rank variants that were scored differently: {metric} is {one[1].signature!r} for {one[0]!r} but "
            f"{two[1].signature!r} for {two[0]!r}. Run the experiment again, so that all are scored with one setting."
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
