"""Two runs, or two whole experiments, side by side: is B better than A, by how much, at what price, on which examples?

`A` comes before `B`: differences are B - A, "fixed" is what A had wrong and B has right. Sides may lie in different
snapshots or results folders. They are compared only where both answered the same held-out examples and were scored
with the same settings; `only_common` compares on the examples that both hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness import changes, comparisons, figures, margins, results
from harness.errors import HarnessError, UsageError, did_you_mean
from harness.records import Example, Score
from harness.results import Results, Variant, settings_that_differ
from harness.store import Store

_SIDE = re.compile(r"(?P<ref>[^:]+)(?::(?P<variant>[^:@]+)(?:@(?P<seed>\d+))?)?")
_NAMED = 3
"""How many ids of differing examples a message names."""
_INNER = ("error", "degrees", "higher", "binary", "group_size")
"""Fields of a comparison that a reader has no use for."""
_FIELDS = ("input", "targets", "group", "tags", "sources")


@dataclass(frozen=True)
class Side:
    """One of the two: an experiment's results, and the one variant that was asked for, if any."""

    results: Results
    store: Store
    variant: str | None = None
    seed: int | None = None

    @property
    def ref(self) -> str:
        return self.results.snapshot.ref

    @property
    def label(self) -> str:
        seed = "" if self.seed is None else f"@{self.seed}"
        return self.ref if self.variant is None else f"{self.ref}:{self.variant}{seed}"

    def named(self, variant: Variant) -> str:
        """What a variant of this side is called beside the other side's."""
        return self.label if self.variant else f"{self.ref}:{variant.name}"


def side(text: str, store: Store) -> Side:
    """Return the side that `text` names: EXPERIMENT, EXPERIMENT:VARIANT or EXPERIMENT:VARIANT@SEED, where EXPERIMENT is
    a name, a snapshot NAME@N or "latest".

    Raises UsageError for another form, StoreError for an unknown experiment, HarnessError for an unknown variant or
    seed, with what there is.
    """
    found = _SIDE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} names no run. Write EXPERIMENT, EXPERIMENT:VARIANT or EXPERIMENT@N:VARIANT@SEED.")
    read = results.read(store.snapshot(found["ref"]), store)
    seed = None if found["seed"] is None else int(found["seed"])
    if found["variant"] is not None:
        _variant(Side(read, store, found["variant"], seed))
    return Side(read, store, found["variant"], seed)


def _variant(side: Side) -> Variant:
    """The variant that a side names, with the seed asked for alone."""
    names = [variant.name for variant in side.results.variants]
    found = side.results.variant(side.variant or "")
    if found is None:
        raise HarnessError(f"no variant {side.variant!r} in {side.ref}.{did_you_mean(side.variant or '', names)}")
    if side.seed is None:
        return found
    seeds = [run.seed for run in found.runs]
    if side.seed not in seeds:
        raise HarnessError(
            f"{side.variant!r} has no seed {side.seed} in {side.ref}. Available: {', '.join(map(str, seeds))}."
        )
    place = seeds.index(side.seed)
    scores = {name: each[place : place + 1] for name, each in found.scores.items()}
    return Variant(found.name, found.runs[place : place + 1], scores)


def compare(
    a: Side,
    b: Side,
    metric: str | None = None,
    *,
    only_common: bool = False,
    examples: int = 3,
    margin: float | None = None,
) -> dict[str, Any]:
    """Return the comparison as JSON-able values, with up to `examples` changed examples of each kind.

    Two runs make one pair; two experiments are compared variant by variant, by name, with Holm's adjustment over the
    pairs. `margin`, in the metric's unit, is how much worse still counts as no worse (default: 2 % of its range; none
    for a metric whose range has no end). Raises HarnessError where the sides cannot be compared, and says which example
    or setting differs; UsageError for a margin that no difference could exceed.
    """
    if (a.variant is None) != (b.variant is None):
        whole = a if a.variant is None else b
        raise UsageError(f"{whole.label} is a whole experiment, the other side one run: name a variant of both or none")
    if a.label == b.label and a.store.root.resolve() == b.store.root.resolve():
        raise UsageError(f"{a.label} is on both sides: name two that differ")
    shared = _shared(a, b, only_common=only_common)
    name = metric or _primary(a, b)
    pairs, left_out = _pairs(a, b, name)
    for mine, its in pairs:
        _comparable(a, b, mine, its, name)
    joined = _joined(a, b, pairs, name, shared)
    couples = list(zip(joined.variants[::2], joined.variants[1::2], strict=True))
    made = comparisons.pairwise(joined, name, [(after, before) for before, after in couples])
    family = sum(one.p is not None for one in made)
    about = joined.variants[0].scores[name][0]
    margin = margins.usual(about) if margin is None else _possible(margin, about)
    told = [
        {
            **_measured(joined, couple, name, one, p, family),
            **within,
            "a": a.named(mine),
            "b": b.named(its),
            "variant": mine.name if mine.name == its.name else None,
            "settings": changes.settings((a.results, mine), (b.results, its)),
            "cost": changes.costs((a.results, mine), (b.results, its)),
            "changed": changes.examples(joined, couple, name, (a.store, b.store), shared, examples),
        }
        for (mine, its), couple, one, p, within in zip(
            pairs,
            couples,
            made,
            comparisons.holm([one.p for one in made]),
            margins.families(made, margin),
            strict=True,
        )
    ]
    return {
        "a": {"name": a.label, "examples": len(a.results.examples), "fingerprint": a.results.fingerprint},
        "b": {"name": b.label, "examples": len(b.results.examples), "fingerprint": b.results.fingerprint},
        "metric": {key: getattr(about, key) for key in ("name", "direction", "unit", "signature", "floor", "ceiling")},
        "examples": {
            "n": len(shared),
            "groups": len(set(joined.groups)) if joined.grouped else None,
            "only_common": only_common,
        },
        "family": family,
        "margin": margin,
        "pairs": told,
        "left_out": left_out,
        "notes": list(dict.fromkeys([*a.results.data_notes, *b.results.data_notes])),
    }


def _measured(
    joined: Results,
    couple: tuple[Variant, Variant],
    metric: str,
    made: comparisons.Comparison,
    p_adjusted: float | None,
    family: int,
) -> dict[str, Any]:
    """The values of a pair, their difference, and what may be said of it in a `family` of comparisons."""
    return {
        "value_a": asdict(results.estimate(joined, couple[0], metric)),
        "value_b": asdict(results.estimate(joined, couple[1], metric)),
        **{key: value for key, value in asdict(made).items() if key not in _INNER},
        "p_adjusted": p_adjusted,
        "verdict": comparisons.verdict(made, p_adjusted),
        "needed": comparisons.needed(made, p_adjusted, family),
    }


def _possible(margin: float, about: Score) -> float:
    if about.floor is not None and about.ceiling is not None and margin >= about.ceiling - about.floor:
        reach = about.ceiling - about.floor
        points = "; 2 points are 0.02" if about.unit == "share" else ""
        ends = " to ".join(figures.score(end, about.unit) for end in (about.floor, about.ceiling))
        raise UsageError(
            f"--margin {margin:g} is as much as {about.name} can differ at all ({ends}): "
            f"give a number below {reach:g}, in its own unit{points}"
        )
    return margin


def _primary(a: Side, b: Side) -> str:
    ours, theirs = a.results.primary, b.results.primary
    if ours != theirs:
        raise UsageError(f"{a.ref} ranks by {ours}, {b.ref} by {theirs}: name one with --metric")
    return ours


def _pairs(a: Side, b: Side, metric: str) -> tuple[list[tuple[Variant, Variant]], list[str]]:
    """The variants to compare, and why others are not."""
    if a.variant is not None:
        both = (_variant(a), _variant(b))
        for side, variant in zip((a, b), both, strict=True):
            if variant.status != "complete":
                reason = f": {variant.error}" if variant.error else ""
                raise HarnessError(f"{side.label} {variant.state}, so it has no answers to compare{reason}")
        return [both], []
    known = {*a.results.metrics, *b.results.metrics}
    if known and metric not in known:
        raise UsageError(f"no metric {metric!r} in {a.ref} or {b.ref}.{did_you_mean(metric, known)}")
    pairs, left_out = [], []
    for mine in a.results.variants:
        its = b.results.variant(mine.name)
        if its is None:
            left_out.append(f"{mine.name} is in {a.ref} only")
        elif mine.status != "complete" or its.status != "complete":
            left_out.append(f"{mine.name} {mine.state} in {a.ref} and {its.state} in {b.ref}")
        elif metric not in mine.scores and metric not in its.scores:
            left_out.append(f"{mine.name} has no score {metric!r}")
        else:
            pairs.append((mine, its))
    alone = [variant.name for variant in b.results.variants if a.results.variant(variant.name) is None]
    left_out += [f"{name} is in {b.ref} only" for name in alone]
    if not pairs:
        raise HarnessError(
            f"{a.ref} and {b.ref} share no complete variant of one name with {metric!r} ({'; '.join(left_out)}). "
            "Two runs of different names are compared as EXPERIMENT:VARIANT EXPERIMENT:VARIANT."
        )
    return pairs, left_out


# -------------------------------------------------------------------------------------------------- the same examples


def _shared(a: Side, b: Side, *, only_common: bool) -> list[tuple[int, int]]:
    """The places (in A, in B) of the examples to compare on, in A's order.

    Raises HarnessError where the held-out splits differ, unless `only_common` takes the ids with equal input and
    targets on both sides, and where there is none of those.
    """
    ours, theirs = a.results.examples, b.results.examples
    if ours == theirs and a.results.fingerprint == b.results.fingerprint:
        return [(place, place) for place in range(len(ours))]
    there = {example.id: place for place, example in enumerate(theirs)}
    common = [
        (place, there[example.id])
        for place, example in enumerate(ours)
        if example.id in there and _content(example) == _content(theirs[there[example.id]])
    ]
    if only_common and common:
        return common
    told = "; ".join(_differences(a, b, there)) or "the same examples by other fingerprints: a split was damaged"
    if only_common:
        raise HarnessError(f"{a.ref} and {b.ref} have no held-out example in common: {told}.")
    raise HarnessError(
        f"cannot compare {a.label} and {b.label}: they answered different held-out splits "
        f"({len(ours):,} and {len(theirs):,} examples): {told}. "
        + (f"--only-common compares them on the {len(common):,} that both answered." if common else "None is in both.")
    )


def _content(example: Example) -> tuple[str, tuple[str, ...]]:
    return example.input, example.targets


def _differences(a: Side, b: Side, there: dict[str, int]) -> list[str]:
    """What differs between two held-out splits, in short sentences."""
    ours, theirs = a.results.examples, b.results.examples
    here = {example.id for example in ours}
    told = []
    for label, alone in (
        (a.ref, [example.id for example in ours if example.id not in there]),
        (b.ref, [example.id for example in theirs if example.id not in here]),
    ):
        if alone:
            more = f" and {len(alone) - _NAMED:,} more" if len(alone) > _NAMED else ""
            told.append(f"only {label} has {', '.join(alone[:_NAMED])}{more}")
    changed = [(one, theirs[there[one.id]]) for one in ours if one.id in there and one != theirs[there[one.id]]]
    if changed:
        one, other = changed[0]
        field = next(name for name in _FIELDS if getattr(one, name) != getattr(other, name))
        values = " / ".join(_short(getattr(example, field)) for example in (one, other))
        more = f", and {len(changed) - 1:,} more differ" if len(changed) > 1 else ""
        told.append(f"{one.id} has another {field.removesuffix('s')} ({values}){more}")
    if not told and [example.id for example in ours] != [example.id for example in theirs]:
        told.append("the same examples stand in another order")
    return told


def _short(value: str | Sequence[str]) -> str:
    text = value if isinstance(value, str) else " | ".join(value)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


# ---------------------------------------------------------------------------------------------- the same measurement


def _comparable(a: Side, b: Side, mine: Variant, its: Variant, metric: str) -> None:
    """Raise HarnessError unless both were scored on `metric` with the same settings."""
    both = [name for name in mine.scores if name in its.scores]
    if metric not in both:
        lacking = [side.named(one) for side, one in ((a, mine), (b, its)) if metric not in one.scores]
        verb = "have" if len(lacking) > 1 else "has"
        raise HarnessError(f"{' and '.join(lacking)} {verb} no score {metric!r}.{did_you_mean(metric, both)}")
    ours, theirs = mine.scores[metric][0], its.scores[metric][0]
    if (ours.signature, ours.labels) == (theirs.signature, theirs.labels):
        return
    differing = settings_that_differ(ours.signature, theirs.signature)
    if not differing:
        raise HarnessError(f"cannot compare {metric}: its classes differ, {ours.labels} and {theirs.labels}.")
    told = "; ".join(f"{name} is {one} in {a.ref} but {other} in {b.ref}" for name, one, other in differing)
    raise HarnessError(
        f"cannot compare {a.named(mine)} and {b.named(its)}: {metric} was measured with different settings ({told}). "
        f"Score one again with the other's settings, without answering again: {_remedy(a, b, metric)}"
    )


def _remedy(a: Side, b: Side, metric: str) -> str:
    listed = a.results.snapshot.spec.get("metrics") or []
    entry = next((one for one in listed if one.get("name") == metric and "kind" in one), None)
    table = "SPEC" if entry is None else f"--metric '{_toml({k: entry[k] for k in entry if k not in _IMPLIED})}'"
    return f"`harness score {b.ref} {table}`."


_IMPLIED = ("name", "version", "source", "primary")


def _toml(value: Any) -> str:
    """A value as TOML writes it in one line; None has no form there and is left out of tables."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(inner)}' for key, inner in value.items() if inner is not None)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _joined(
    a: Side, b: Side, pairs: Sequence[tuple[Variant, Variant]], metric: str, shared: Sequence[tuple[int, int]]
) -> Results:
    """The runs of both sides, A's and B's in turn, as results of one experiment on the shared examples; ids, groups
    and metrics are A's."""
    here, there = [place for place, _ in shared], [place for _, place in shared]
    variants: list[Variant] = []
    for mine, its in pairs:
        before = replace(mine.only(here), name=f"A:{mine.name}")
        after = replace(its.only(there), name=f"B:{its.name}")
        one, other = before.scores[metric][0], after.scores[metric][0]
        for identity, first, second in zip(one.ids, one.statistics, other.statistics, strict=True):
            if (first is None) != (second is None):
                raise HarnessError(
                    f"cannot compare {a.named(mine)} and {b.named(its)}: {metric} speaks of example {identity!r} on "
                    "one side only. Its sources were changed between the two."
                )
        variants += [before, after]
    return replace(a.results.only(here), variants=tuple(variants), whole=None)
