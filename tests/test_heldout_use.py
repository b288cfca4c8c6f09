"""How often a held-out set was used, counted from the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import written_store
from written_store import VARIANTS, begin, examples, write

from harness import heldout_use, leaderboard
from harness.records import digest
from harness.store import Store


def heldout(rows: list[written_store.Example]) -> str:
    return digest([row.id for row in rows], 64)


def test_snapshots_that_answered_the_same_set_are_counted_and_told(tmp_path: Path) -> None:
    rows = examples()
    store, first = write(tmp_path, VARIANTS[:2])
    assert heldout_use.of(store, "support", heldout(rows)) == heldout_use.Use((1,), 2)
    assert not any("has been used" in note for note in first.leaderboard["notes"])
    _, second = write(tmp_path, VARIANTS[:3])
    write(tmp_path, VARIANTS[:2], rows=rows[:12])
    write(tmp_path, VARIANTS[:2], name="other")
    use = heldout_use.of(store, "support", heldout(rows))
    assert use == heldout_use.Use((1, 2), 3), "shared answers count once, other sets and experiments not at all"
    note = "This held-out set has been used by 2 snapshots of this experiment (3 different runs)"
    assert [each for each in second.leaderboard["notes"] if each.startswith(note)] == [use.note]
    assert "choices made on it flatter the winner" in use.note
    assert heldout_use.of(store, "support", heldout(rows[:12])).snapshots == (3,)
    assert heldout_use.of(store, "nowhere", heldout(rows)) == heldout_use.Use()


def test_an_old_snapshot_says_what_was_so_when_it_was_made(tmp_path: Path) -> None:
    store, first = write(tmp_path, VARIANTS[:2])
    before = leaderboard.build(first, store)["notes"]
    write(tmp_path, VARIANTS[:3])
    assert leaderboard.build(first, store)["notes"] == before


def test_planned_and_failed_runs_and_damaged_snapshots_are_no_use(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot, runs = begin(store, VARIANTS[:1])
    assert heldout_use.of(store, "support", heldout(examples())) == heldout_use.Use()
    snapshot.save_run(replace(runs[0], status="failed", error="no"))
    assert heldout_use.of(store, "support", heldout(examples())) == heldout_use.Use()
    snapshot.save_run(runs[0])
    assert heldout_use.of(store, "support", heldout(examples())) == heldout_use.Use((1,), 1)
    (snapshot.path / "snapshot.json").write_text("{")
    assert heldout_use.of(store, "support", heldout(examples())) == heldout_use.Use()
