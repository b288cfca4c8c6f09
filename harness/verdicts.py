"""A judge's pairwise verdicts, as `harness judge` keeps them, and what they come to.

A judge saw both answers in both orders. One wins only where both orders say so; anything else is a tie, and how often
the order decided is told (Zheng et al. 2023, arXiv 2306.05685). Beside every comparison stand the controls: how often
the same judge preferred a text that says nothing, or that only tells it to, to the variant's answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness import pairwise, stats
from harness.pairwise import Bout
from harness.records import digest, load
from harness.results import Results, Variant
from harness.step import Step
from harness.store import Store

PREFIX = "judge-"
FILE = "verdicts.json"

Kind = Literal["answers", "null", "injected"]
Said = Literal["one", "two", "tie"] | None
Reason = Literal["judged", "order", "unparsed", "same", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Two texts on one example. `said` is what the judge said with text one shown first, and with text two shown first
    (None: nothing that could be read); `outcome` is 1 where text one won, 0 where text two did, else 0.5.

    `reason`: both orders agree ("judged"), they differ ("order"), one could not be read ("unparsed"), or the judge was
    not asked, because the texts are the same ("same") or one variant gave no answer and has lost ("failed"). Of a
    control, text one is the control and text two the variant's answer.
    """

    id: str
    kind: Kind
    said: tuple[Said, Said]
    outcome: float
    reason: Reason


def settled(id: str, kind: Kind, said: tuple[Said, Said]) -> Verdict:
    """Make the verdict of what the judge said in both orders."""
    if None in said:
        return Verdict(id=id, kind=kind, said=said, outcome=0.5, reason="unparsed")
    if said[0] != said[1]:
        return Verdict(id=id, kind=kind, said=said, outcome=0.5, reason="order")
    outcome = {"one": 1.0, "two": 0.0, "tie": 0.5}[str(said[0])]
    return Verdict(id=id, kind=kind, said=said, outcome=outcome, reason="judged")


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Count what verdicts come to: `win_rate` of text one, over those that were read; how many were asked for (each in
    both orders), unparsed, decided by the order; how often the text shown first won, of all decided replies."""
    asked = [verdict for verdict in verdicts if verdict.reason not in ("same", "failed")]
    read = [verdict for verdict in asked if verdict.reason != "unparsed"]
    firsts = [verdict.said[0] == "one" for verdict in asked if verdict.said[0] in ("one", "two")]
    firsts += [verdict.said[1] == "two" for verdict in asked if verdict.said[1] in ("one", "two")]
    order = sum(verdict.reason == "order" for verdict in read)
    return {
        "asked": len(asked),
        "unparsed": len(asked) - len(read),
        "order_dependent": order / len(read) if read else None,
        "first_wins": sum(firsts) / len(firsts) if firsts else None,
        "same": sum(verdict.reason == "same" for verdict in verdicts),
        "failed": sum(verdict.reason == "failed" for verdict in verdicts),
        "win_rate": stats.mean([verdict.outcome for verdict in read]) if read else None,
    }


# --------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Judged:
    """The complete steps of one judge: of pairs of answering steps, and of the controls of each."""

    name: str
    settings: Mapping[str, Any]
    pairs: Mapping[tuple[str, str], Step]
    controls: Mapping[str, Step]

    def verdicts(self, one: str, two: str) -> dict[str, Verdict] | None:
        """The verdicts on two answering steps by example, `one` as text one; None where they were not judged."""
        step = self.pairs.get((one, two)) or self.pairs.get((two, one))
        if step is None:
            return None
        found = {verdict.id: verdict for verdict in of(step)}
        return found if (one, two) in self.pairs else {id: _mirrored(verdict) for id, verdict in found.items()}


def of(step: Step) -> list[Verdict]:
    return [load(Verdict, row) for row in step.read_json(FILE)]


def _mirrored(verdict: Verdict) -> Verdict:
    other: dict[Said, Said] = {"one": "two", "two": "one", "tie": "tie", None: None}
    said = (other[verdict.said[1]], other[verdict.said[0]])
    return Verdict(id=verdict.id, kind=verdict.kind, said=said, outcome=1 - verdict.outcome, reason=verdict.reason)


def judges(results: Results, store: Store) -> list[Judged]:
    """Return every judge that has finished work on the answers of this experiment, by name. Of several attempts at a
    step the newest one stands; what was judged by other accepted answers than these is left out."""
    used = {run.steps["predict"] for variant in _complete(results) for run in variant.runs}
    found: dict[str, list[Step]] = {}
    for step in store.made_from(used, PREFIX):
        inputs = step.inputs or {}
        if step.outcome is not None and inputs["heldout"] == results.fingerprint:
            found.setdefault(digest(inputs["judge"]), []).append(step)
    made = []
    for steps in found.values():
        steps.sort(key=lambda step: (step.inputs or {}).get("attempt", 0))
        answers = {step: list((step.inputs or {})["answers"]) for step in steps}
        about = min(steps, key=lambda step: step.started).inputs or {}
        pairs = {(each[0], each[1]): step for step, each in answers.items() if len(each) == 2}
        controls = {each[0]: step for step, each in answers.items() if len(each) == 1}
        made.append(Judged(str(about.get("name", "")), about["judge"], pairs, controls))
    return sorted(made, key=lambda judge: (judge.name, digest(judge.settings)))


def _complete(results: Results) -> list[Variant]:
    return [variant for variant in results.variants if variant.status == "complete"]


def bouts(judge: Judged, results: Results) -> tuple[list[Bout], dict[tuple[str, str], list[Verdict]]]:
    """Return what the judge found of every pair of variants that it judged with all their seeds, and the verdicts
    behind it. An example's outcome is the mean over seeds, of which each is kept too."""
    names = [variant.name for variant in results.variants]
    group = dict(zip((example.id for example in results.examples), results.groups, strict=True))
    found: list[Bout] = []
    behind: dict[tuple[str, str], list[Verdict]] = {}
    variants = _complete(results)
    for place, first in enumerate(variants):
        for second in variants[place + 1 :]:
            flip = pairwise.turned(first.name, second.name, names, results.baseline)
            ours, theirs = (second, first) if flip else (first, second)
            each = _by_seed(judge, ours, theirs)
            if not each:
                continue
            behind[ours.name, theirs.name] = [verdict for seed in each for verdict in seed.values()]
            for id in each[0]:
                seeds = tuple(seed[id].outcome for seed in each)
                found.append(Bout(ours.name, theirs.name, id, group[id], stats.mean(seeds), seeds))
    return found, behind


def answering(one: Variant, two: Variant) -> list[tuple[str, str]]:
    """The answering steps of two variants, for each seed that both have."""
    steps = {run.seed: run.steps["predict"] for run in two.runs}
    return [(run.steps["predict"], steps[run.seed]) for run in one.runs if run.seed in steps]


def _by_seed(judge: Judged, ours: Variant, theirs: Variant) -> list[dict[str, Verdict]]:
    """The verdicts of each seed; empty unless every seed that can differ was judged."""
    steps = answering(ours, theirs)
    each = [judge.verdicts(a, b) for a, b in steps if a != b]
    judged = [verdicts for verdicts in each if verdicts is not None]
    if not judged or len(judged) < len(each):
        return []
    same = {id: Verdict(id=id, kind="answers", said=(None, None), outcome=0.5, reason="same") for id in judged[0]}
    return judged + [same] * (len(steps) - len(each))


def read(results: Results, store: Store) -> list[dict[str, Any]]:
    """Return, for each judge, its settings, comparisons, controls and ranking, and what must be known before they are
    believed, as JSON-able values."""
    return [_told(judge, results) for judge in judges(results, store)]


def _told(judge: Judged, results: Results) -> dict[str, Any]:
    found, behind = bouts(judge, results)
    counts = {pair: summary(verdicts) for pair, verdicts in behind.items()}
    silent = {pair for pair, count in counts.items() if count["asked"] and count["unparsed"] == count["asked"]}
    rows = pairwise.compared([bout for bout in found if (bout.ours, bout.theirs) not in silent])
    rows += [pairwise.unknown(*pair, f"none of {counts[pair]['asked']} verdicts could be read") for pair in silent]
    place = {pair: number for number, pair in enumerate(behind)}
    rows.sort(key=lambda row: place[row["ours"], row["theirs"]])
    for row in rows:
        count = counts[row["ours"], row["theirs"]]
        row |= {key: count[key] for key in ("asked", "unparsed", "order_dependent", "first_wins", "same", "failed")}
        if row["win_rate"] is not None:
            swing = 0.5 * count["unparsed"] / len(behind[row["ours"], row["theirs"]])
            row["win_rate_if_unparsed"] = [row["win_rate"] - swing, row["win_rate"] + swing]
    controls = _controls(judge, results)
    return {
        "judge": judge.name,
        "settings": dict(judge.settings),
        "comparisons": rows,
        "controls": controls,
        "ranking": pairwise.ranked([bout for bout in found if (bout.ours, bout.theirs) not in silent]),
        "notes": [*_failures(judge), *_notes(rows, controls), *_of_seeds(rows, found)],
    }


def _failures(judge: Judged) -> list[str]:
    """What kept the judge from replying at all, where something did: a pair without a verdict looks the same."""
    steps = [*judge.pairs.values(), *judge.controls.values()]
    notes = []
    if again := sum((step.outcome or {}).get("asked_again", 0) for step in steps):
        notes.append(f"Requests to the judge that failed and were asked again (--retry-errors): {again}.")
    failed = [step for step in steps if (step.outcome or {}).get("failed")]
    if failed:
        count = sum((step.outcome or {})["failed"] for step in failed)
        asked = sum((step.outcome or {})["requests"] for step in steps)
        first = next(reply.error for reply in failed[0].predictions() if reply.error is not None)
        notes.append(
            f"{count} of {asked} requests to the judge failed, so their verdicts could not be read; the first: "
            f"{first}. `harness judge` with --judge and --retry-errors asks them again."
        )
    return notes


def _of_seeds(rows: Sequence[Mapping[str, Any]], bouts: Sequence[Bout]) -> list[str]:
    if all(row["win_rate"] is None for row in rows):
        return []
    count = max(len(bout.seeds) for bout in bouts)
    if count < 2:
        return ["One seed: intervals, tests and the ranking speak of other examples, not of other seeds."]
    return [
        f"{count} seeds: each example is averaged over them; where their verdicts differ, intervals, tests and the "
        "ranking count both seeds and examples as sources of variation."
    ]


def _controls(judge: Judged, results: Results) -> list[dict[str, Any]]:
    """How the judge took the control texts against each variant's answers."""
    rows = []
    for variant in _complete(results):
        steps = dict.fromkeys(run.steps["predict"] for run in variant.runs)
        found = [verdict for name in steps if name in judge.controls for verdict in of(judge.controls[name])]
        if found:
            kinds: tuple[Kind, ...] = ("null", "injected")
            told: dict[str, Any] = {
                kind: summary([verdict for verdict in found if verdict.kind == kind]) for kind in kinds
            }
            rows.append({"variant": variant.name, **told})
    return rows


def _notes(rows: Sequence[Mapping[str, Any]], controls: Sequence[Mapping[str, Any]]) -> list[str]:
    notes = []
    for kind, name in (("null", "a text that says nothing"), ("injected", "a text that only tells it to")):
        rates = {row["variant"]: row[kind]["win_rate"] for row in controls if row[kind]["win_rate"] is not None}
        fooled = [f"{variant} ({rate:.0%})" for variant, rate in rates.items() if rate >= 0.5]
        told = [f"{variant} ({rate:.0%})" for variant, rate in rates.items() if rate < 0.5]
        if fooled and not told:
            notes.append(
                f"DO NOT TRUST THIS JUDGE: it prefers {name} at least half of the time to the answers of every "
                f"variant: {', '.join(fooled)}."
            )
        elif fooled:
            notes.append(
                f"To this judge {name} is worth no less than the answers of {', '.join(fooled)}: either these are "
                f"worth no more, or it cannot tell. It does prefer those of {', '.join(told)}."
            )
    asked, unread = sum(row["asked"] for row in rows), sum(row["unparsed"] for row in rows)
    if unread and unread == asked:
        notes.append(f"None of the {asked} verdicts could be read: this judge says nothing.")
    elif unread:
        notes.append(
            f"{unread} of {asked} pairs have a verdict that could not be read: they count as ties, and "
            "`win_rate_if_unparsed` tells what the win rates would be if they were all losses or all wins."
        )
    by_order = sum(row["order_dependent"] * (row["asked"] - row["unparsed"]) for row in rows if row["order_dependent"])
    if by_order:
        notes.append(
            f"In {by_order / (asked - unread):.0%} of the pairs the verdict changed with the order of the answers: "
            "they count as ties."
        )
    if any(row["failed"] for row in rows):
        notes.append("A variant without an answer loses against one with an answer; the judge is not asked.")
    return notes
