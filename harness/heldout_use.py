"""How often an experiment has used its held-out set: every look at it makes the best variant look better than it is."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import StoreError
from harness.snapshot import Snapshot
from harness.store import Store


@dataclass(frozen=True, slots=True)
class Use:
    """Of one held-out set (by its fingerprint) under one experiment's name: the `snapshots` (numbers, rising) that
    answered it in a way that no earlier one had, and how many ways of answering (`predict` steps) they tried. To score
    the same answers with another metric is no new use."""

    snapshots: tuple[int, ...] = ()
    answers: int = 0

    @property
    def note(self) -> str:
        """What to say beside a ranking, or "" after the first use."""
        if len(self.snapshots) < 2:
            return ""
        return (
            f"This held-out set has been used by {len(self.snapshots)} snapshots of this experiment ({self.answers} "
            "different runs): choices made on it flatter the winner."
        )


def of(store: Store, experiment: str, fingerprint: str, upto: int | None = None) -> Use:
    """Return how the held-out set with `fingerprint` was used by `experiment`, up to snapshot number `upto`.

    Reads the plan and the runs of each snapshot, no prediction. What is damaged is not counted.
    """
    used: list[int] = []
    answers: set[str] = set()
    for number in store.numbers(experiment):
        if upto is None or number <= upto:
            try:
                found = _answers(store.snapshot(f"{experiment}@{number}"), fingerprint)
            except StoreError:
                continue
            if found - answers:
                used.append(number)
                answers |= found
    return Use(tuple(used), len(answers))


def _answers(snapshot: Snapshot, fingerprint: str) -> set[str]:
    """The names of the steps that answered this held-out set."""
    return {
        run.steps["predict"]
        for run in snapshot.runs()
        if run.status == "complete"
        and "predict" in run.steps
        and run.provenance.get("fingerprints", {}).get("heldout") == fingerprint
    }
