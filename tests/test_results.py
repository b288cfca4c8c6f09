"""What every analysis reads: parts of it, and refusals that say which example or setting differs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import written_store as written
from hypothesis import given
from hypothesis import strategies as st

from harness import results, stats
from harness.errors import HarnessError
from harness.results import settings_that_differ
from harness.store import Store

NAMES = st.from_regex(r"[a-z_]{1,6}", fullmatch=True)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(max_size=6), st.lists(st.text(max_size=3)))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> results.Results:
    store, snapshot = written.write(tmp_path_factory.mktemp("results"))
    return results.read(snapshot, store)


def signature(kind: str, settings: dict[str, object]) -> str:
    return "|".join([kind, *(f"{name}:{json.dumps(value)}" for name, value in settings.items())])


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.dictionaries(NAMES, VALUES, max_size=4))
def test_settings_that_differ_are_those_that_do(one: dict[str, object], other: dict[str, object]) -> None:
    differing = settings_that_differ(signature("regex", one), signature("regex", other))
    expected = {
        name for name in one.keys() | other.keys() if json.dumps(one.get(name, 1.5)) != json.dumps(other.get(name, 1.5))
    }
    assert {name for name, _, _ in differing} == expected
    for name, mine, its in differing:
        assert mine == (json.dumps(one[name]) if name in one else "–")
        assert its == (json.dumps(other[name]) if name in other else "–")


def test_signatures_of_other_libraries_are_read_too() -> None:
    one, other = "bleu|nrefs:1|case:mixed|tok:13a|version:2.6.0", "bleu|nrefs:1|case:lc|tok:13a|version:2.5.1"
    assert settings_that_differ(one, other) == [("case", "mixed", "lc"), ("version", "2.6.0", "2.5.1")]
    assert settings_that_differ("bleu|x:1", "chrf|x:1") == [("kind", "bleu", "chrf")]
    assert settings_that_differ(one, one) == []


def test_a_part_holds_the_examples_asked_for_and_is_as_binary_as_the_whole(found: results.Results) -> None:
    places = [5, 2, 11]
    part = found.only(places)
    assert [example.id for example in part.examples] == [found.examples[place].id for place in places]
    assert part.groups == tuple(found.groups[place] for place in places)
    for variant in found.variants:
        cut = part.variant(variant.name)
        assert cut is not None and cut.runs == variant.runs
        for metric in variant.scores:
            whole, values = variant.values(metric), cut.values(metric)
            assert whole is not None and values == [whole[place] for place in places]
    ends = [place for place, value in enumerate(found.variants[0].values("token_f1") or []) if value in (0, 1)]
    assert not found.binary("token_f1") and not found.only(ends).binary("token_f1")
    assert found.only(places).only([0]).examples == (found.examples[5],)


def test_the_estimate_of_a_part_is_that_of_its_values_alone(found: results.Results) -> None:
    part = found.only([0, 1, 2, 6, 7, 8])
    raft = part.variant("raft")
    assert raft is not None
    values = [value for value in raft.values("token_f1") or [] if value is not None]
    expected = stats.interval(values, part.groups, binary=False, bounds=(0.0, 1.0))
    made = results.estimate(part, raft, "token_f1")
    assert (made.value, made.low, made.high, made.n) == (expected.value, expected.low, expected.high, 6)


def test_the_estimate_on_no_example_and_on_one_group_has_no_interval(found: results.Results) -> None:
    raft = found.only([]).variant("raft")
    assert raft is not None
    made = results.estimate(found.only([]), raft, "exact_match")
    assert (made.value, made.low, made.high, made.n) == (None, None, None, 0)
    raft = found.only([0, 1, 2]).variant("raft")
    assert raft is not None
    made = results.estimate(found.only([0, 1, 2]), raft, "exact_match")
    assert made.value is not None and (made.low, made.high) == (None, None)


def test_runs_of_other_examples_are_refused_by_the_examples_that_differ(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot, runs = written.begin(store)
    other = written.write_run(store, written.VARIANTS[2], 0, written.examples()[2:], "support")
    for run in runs:
        snapshot.save_run(other if run.variant == "rag" else run)
    with pytest.raises(HarnessError, match="only 'zero-shot' answered 'kb-003-1', 'kb-003-2'"):
        results.read(snapshot, store)


def test_runs_of_examples_with_other_texts_are_refused_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot, runs = written.begin(store)
    for run in runs:
        changed = {"fingerprints": {"heldout": "0" * 64}}
        snapshot.save_run(replace(run, provenance=changed) if run.variant == "rag" else run)
    with pytest.raises(HarnessError, match="the same ids, so a question, an answer, a group or a tag differs"):
        results.read(snapshot, store)


def test_runs_scored_with_another_setting_are_refused_by_the_setting(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot, runs = written.begin(store)
    for run in runs:
        if run.variant == "rag":
            score = replace(store.step(run.steps["score.token_f1"]).score(), signature='token_f1|rules:"v2"|version:1')
            name = written.write_step(store, "score", {"x": 1}, {}, lambda step, score=score: step.write_score(score))
            run = replace(run, steps={**run.steps, "score.token_f1": name})
        snapshot.save_run(run)
    with pytest.raises(HarnessError, match=r"rules is \"v2\" for 'rag' but – for 'raft'"):
        results.read(snapshot, store)
