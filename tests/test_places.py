from __future__ import annotations

from pathlib import Path

import written_store as written

from harness import places, results
from harness.places import Place


def test_one_variant_or_none_has_a_place_without_a_test(tmp_path: Path) -> None:
    store, snapshot = written.write(tmp_path, written.VARIANTS[:1])
    found = results.read(snapshot, store)
    assert places.places(found, "exact_match", found.variants) == places.Places({"zero-shot": Place(1, 1, 1)}, [])
    assert places.places(found, "exact_match", []).places == {}


def test_one_group_tells_nothing_apart(tmp_path: Path) -> None:
    store, snapshot = written.write(tmp_path, written.VARIANTS[:3], rows=written.examples()[:3])
    found = results.read(snapshot, store)
    made = places.places(found, "exact_match", found.variants)
    assert set(made.places.values()) == {Place(1, 1, 3)}
    assert {pair[2].test for pair in made.pairs} == {"n/a (one group)"} and {pair[3] for pair in made.pairs} == {None}
