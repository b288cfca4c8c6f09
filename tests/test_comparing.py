"""Two runs or two experiments side by side: what is compared, what is refused, and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import decided
import pytest
import written_store as written

from harness import comparing, comparisons, results, stats
from harness.comparing import Side, side
from harness.errors import HarnessError, StoreError, UsageError
from harness.records import Example
from harness.store import Store

ALL = written.examples()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Experiments on the same examples, on fewer, on changed ones and in another order; `apart` shares none."""
    root = tmp_path_factory.mktemp("comparing")
    changed = [replace(ALL[0], targets=("36 months [KB-003]",)), replace(ALL[1], input="Sold it: cover?"), *ALL[2:]]
    tagged = [replace(example, tags=("odd",)) for example in ALL]
    apart = [replace(example, id=f"x-{example.id}") for example in ALL]
    splits: dict[str, Sequence[Example]] = {
        "support": ALL,
        "again": ALL,
        "fewer": ALL[6:],
        "changed": changed,
        "turned": ALL[::-1],
        "tagged": tagged,
        "apart": apart,
    }
    for name, rows in splits.items():
        written.write(root, name=name, rows=rows)
    return Store(root, write=False)


def pair(store: Store, a: str, b: str, metric: str | None = None, **options: Any) -> dict[str, Any]:
    found = comparing.compare(side(a, store), side(b, store), metric, **options)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    (only,) = found["pairs"]
    return {**found, **only}


def values(store: Store, ref: str, variant: str, metric: str) -> dict[str, float]:
    """The metric of each example, averaged over seeds, read without any of the code under test."""
    runs = [run for run in store.snapshot(ref).runs() if run.variant == variant]
    scores = [store.step(run.steps[f"score.{metric}"]).score() for run in runs]
    return {
        identity: sum(score.statistics[place][0] for score in scores) / len(scores)  # type: ignore[index]
        for place, identity in enumerate(scores[0].ids)
    }


def test_the_difference_is_b_minus_a_with_the_test_of_the_library(store: Store) -> None:
    made = pair(store, "support:zero-shot", "support:raft")
    a, b = (values(store, "support", name, "exact_match") for name in ("zero-shot", "raft"))
    groups = [example.group for example in ALL]
    assert made["value_a"]["value"] == pytest.approx(stats.mean(list(a.values())))
    assert made["value_b"]["value"] == pytest.approx(stats.mean(list(b.values())))
    expected = comparisons.compare(list(b.values()), list(a.values()), groups, bounds=(0.0, 1.0), binary=True)
    assert made["difference"]["value"] == expected.difference.value > 0
    assert (made["difference"]["low"], made["difference"]["high"]) == (
        expected.difference.low,
        expected.difference.high,
    )
    assert (made["test"], made["p"], made["p_adjusted"]) == (expected.test, expected.p, expected.p)
    assert (made["wins"], made["ties"], made["losses"]) == (expected.wins, expected.ties, expected.losses)
    assert made["verdict"] == "better"
    assert made["examples"] == {"n": 24, "groups": 8, "only_common": False}
    turned = pair(store, "support:raft", "support:zero-shot")
    assert turned["difference"]["value"] == -made["difference"]["value"] and turned["verdict"] == "worse"
    assert turned["p"] == made["p"]


def test_changed_examples_are_those_whose_score_changed(store: Store) -> None:
    made = pair(store, "support:rag", "support:raft", examples=30)["changed"]
    a, b = (values(store, "support", name, "exact_match") for name in ("rag", "raft"))
    expected = {
        "fixed": {one for one in a if b[one] > a[one]},
        "broken": {one for one in a if b[one] < a[one]},
        "both_wrong": {one for one in a if b[one] == a[one] == 0},
    }
    for kind, ids in expected.items():
        assert made[kind]["count"] == len(ids)
        assert {one["id"] for one in made[kind]["examples"]} == ids
    assert made["both_right"]["count"] == len(ALL) - sum(map(len, expected.values()))
    first = made["fixed"]["examples"][0]
    example = next(one for one in ALL if one.id == first["id"])
    assert (first["question"], first["gold"]) == (example.input, list(example.targets))
    assert first["b"]["answers"] == [{"seed": 0, "text": example.targets[0], "error": None}]
    assert first["a"]["answers"][0]["text"] != example.targets[0]


def test_a_failed_answer_is_shown_as_failed(store: Store) -> None:
    made = pair(store, "support:rag", "support:raft", examples=30)["changed"]
    shown = [one for kind in made.values() for one in kind["examples"] if one["id"] == ALL[7].id]
    if not shown:  # raft may have it wrong as well: then it stands among the wrong ones
        raise AssertionError("the failed example is nowhere")
    assert shown[0]["a"]["answers"][0] == {
        "seed": 0,
        "text": None,
        "error": "the prompt has 9,000 tokens, the model takes 8,192",
    }


def test_graded_scores_are_fixed_where_they_rise_the_largest_rise_first(store: Store) -> None:
    made = pair(store, "support:zero-shot", "support:raft", "token_f1", examples=30)["changed"]
    a, b = (values(store, "support", name, "token_f1") for name in ("zero-shot", "raft"))
    rises = [one["b"]["value"] - one["a"]["value"] for one in made["fixed"]["examples"]]
    assert rises == sorted(rises, reverse=True) and rises[-1] > 0
    assert made["fixed"]["count"] == sum(b[one] > a[one] for one in a)


def test_several_seeds_are_averaged_one_can_be_asked_for_and_each_answer_is_shown(store: Store) -> None:
    made = pair(store, "support:few-shot", "support:lora", examples=1)
    assert made["b"] == "support@1:lora"
    b = values(store, "support", "lora", "exact_match")
    assert made["value_b"]["value"] == pytest.approx(stats.mean(list(b.values())))
    answers = made["changed"]["fixed"]["examples"][0]["b"]["answers"]
    assert [one["seed"] for one in answers] == [0, 1]
    made = pair(store, "support:lora@0", "support:lora@1")
    assert made["settings"] == [{"setting": "seeds", "a": [0], "b": [1]}]
    run = next(run for run in store.snapshot("support").runs() if (run.variant, run.seed) == ("lora", 1))
    score = store.step(run.steps["score.exact_match"]).score()
    assert made["value_b"]["value"] == pytest.approx(sum(row[0] for row in score.statistics if row) / 24)


def test_costs_stand_beside_each_other_with_their_ratio(store: Store) -> None:
    cost = pair(store, "support:zero-shot", "support:rag")["cost"]
    assert cost["comparable"]
    latency = cost["figures"]["latency_p50_ms"]
    assert latency == {"a": 610, "b": 1240, "difference": 630, "ratio": pytest.approx(1240 / 610)}
    assert cost["figures"]["input_tokens_per_answer"]["a"] == 48
    assert cost["figures"]["input_tokens_per_answer"]["b"] > 400
    assert cost["figures"]["train_seconds"]["ratio"] is None


def test_costs_of_different_devices_have_no_difference(store: Store) -> None:
    a, b = side("support:rag", store), side("support:raft", store)
    (variant,) = [one for one in b.results.variants if one.name == "raft"]
    runs = tuple(replace(run, cost=replace(run.cost, device="a GPU")) for run in variant.runs)
    moved = replace(b.results, variants=(replace(variant, runs=runs),))
    cost = comparing.compare(a, replace(b, results=moved))["pairs"][0]["cost"]
    assert not cost["comparable"]
    assert cost["figures"]["latency_p50_ms"]["difference"] is None
    assert cost["figures"]["latency_p50_ms"]["b"] == 1310
    assert cost["figures"]["output_tokens_per_answer"]["difference"] is not None


def test_two_experiments_are_compared_by_variant_with_holm_over_them(store: Store) -> None:
    found = comparing.compare(side("support", store), side("again", store))
    assert [one["variant"] for one in found["pairs"]] == ["zero-shot", "few-shot", "rag", "lora", "raft"]
    assert found["left_out"] == ["lora-64 has failed in support@1 and has failed in again@1"]
    adjusted = comparisons.holm([one["p"] for one in found["pairs"]])
    assert [one["p_adjusted"] for one in found["pairs"]] == adjusted
    # The same answers: nothing is better, nothing was fixed.
    assert {one["verdict"] for one in found["pairs"]} == {"cannot tell"}
    assert all(one["changed"]["fixed"]["count"] == one["changed"]["broken"]["count"] == 0 for one in found["pairs"])


def test_sides_may_lie_in_different_results_folders(store: Store, tmp_path: Path) -> None:
    other, _ = written.write(tmp_path, written.VARIANTS[:2])
    found = comparing.compare(side("support", store), side("support", other))
    assert [one["variant"] for one in found["pairs"]] == ["zero-shot", "few-shot"]
    assert "raft is in support@1 only" in found["left_out"]


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("fewer", r"24 and 18 examples\): only support@1 has kb-003-1, kb-003-2, kb-003-3 and 3 more"),
        (
            "changed",
            r"kb-003-1 has another target \('24 months \[KB-003\]' / '36 months \[KB-003\]'\), and 1 more differ",
        ),
        ("turned", "the same examples stand in another order"),
        ("tagged", "has another tag"),
        ("apart", "only apart@1 has x-kb-003-1"),
    ],
)
def test_other_held_out_splits_are_refused_by_what_differs(store: Store, other: str, message: str) -> None:
    with pytest.raises(HarnessError, match="they answered different held-out splits") as refused:
        comparing.compare(side("support", store), side(other, store))
    assert refused.match(message)
    assert refused.match("None is in both" if other == "apart" else "--only-common compares them on the")


@pytest.mark.parametrize(("other", "n"), [("fewer", 18), ("changed", 22), ("turned", 24), ("tagged", 24)])
def test_only_common_pairs_equal_ids_with_equal_content(store: Store, other: str, n: int) -> None:
    made = pair(store, "support:raft", f"{other}:raft", only_common=True, examples=30)
    assert made["examples"]["n"] == n and made["examples"]["only_common"]
    a, b = values(store, "support", "raft", "exact_match"), values(store, other, "raft", "exact_match")
    left_out = {"kb-003-1", "kb-003-2"} if other == "changed" else set()
    shared = [one for one in a if one in b and one not in left_out]
    assert len(shared) == n
    assert made["value_b"]["value"] == pytest.approx(stats.mean([b[one] for one in shared]))
    assert made["changed"]["broken"]["count"] == sum(b[one] < a[one] for one in shared)
    # An answer is that of the example's own row, wherever it stands in its split.
    rows = {example.id: example for example in ALL}
    for one in made["changed"]["fixed"]["examples"]:
        assert one["b"]["answers"][0]["text"] == rows[one["id"]].targets[0]


def test_without_a_common_example_there_is_nothing_to_compare(store: Store) -> None:
    with pytest.raises(HarnessError, match="no held-out example in common"):
        comparing.compare(side("support:rag", store), side("apart:rag", store), only_common=True)


def rescored(found: Side, variant: str, signature: str) -> Side:
    """The same side, its exact_match measured with another setting."""
    changed = []
    for one in found.results.variants:
        scores = dict(one.scores)
        if one.name == variant:
            scores["exact_match"] = tuple(replace(score, signature=signature) for score in scores["exact_match"])
        changed.append(replace(one, scores=scores))
    return replace(found, results=replace(found.results, variants=tuple(changed)))


def test_other_settings_of_a_metric_are_refused_by_name_with_the_way_out(store: Store) -> None:
    b = rescored(side("again:rag", store), "rag", 'exact_match|normalise:"none"|version:1')
    with pytest.raises(HarnessError) as refused:
        comparing.compare(side("support:rag", store), b)
    told = str(refused.value)
    assert '(normalise is – in support@1 but "none" in again@1)' in told
    assert "`harness score again@1 SPEC`" in told
    listed = [{"name": "exact_match", "kind": "exact_match", "version": 1, "normalise": "squad", "ignore": None}]
    a = side("support:rag", store)
    a.results.snapshot.spec["metrics"] = listed
    with pytest.raises(
        HarnessError, match=r"harness score again@1 --metric '\{ kind = \"exact_match\", normalise = \"squad\" \}'"
    ):
        comparing.compare(a, b)


def test_another_metric_is_not_touched_by_it(store: Store) -> None:
    b = rescored(side("again:rag", store), "rag", "exact_match|other:1")
    assert comparing.compare(side("support:rag", store), b, "token_f1")["pairs"][0]["verdict"] == "cannot tell"


@pytest.mark.parametrize(
    ("a", "b", "error", "message"),
    [
        ("support:ragg", "support:rag", HarnessError, "no variant 'ragg' in support@1. Did you mean 'rag'"),
        ("support:rag@3", "support:rag", HarnessError, "'rag' has no seed 3 in support@1. Available: 0"),
        ("nothing:rag", "support:rag", StoreError, "no experiment 'nothing'"),
        ("support:rag:x", "support:rag", UsageError, "names no run"),
        ("support", "support:rag", UsageError, "support@1 is a whole experiment"),
        ("support:rag", "support@1:rag", UsageError, "is on both sides"),
        ("support:rag", "support:lora-64", HarnessError, "support@1:lora-64 has failed.*out of memory"),
    ],
)
def test_what_cannot_be_compared_is_told(store: Store, a: str, b: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        comparing.compare(side(a, store), side(b, store))


@pytest.mark.parametrize("metric", ["recall@3", "rouge"])
def test_a_metric_that_one_side_lacks_is_told(store: Store, metric: str) -> None:
    with pytest.raises(HarnessError, match=rf"support@1:zero-shot.* no score '{metric}'.*exact_match, token_f1"):
        comparing.compare(side("support:zero-shot", store), side("support:rag", store), metric)


def test_a_misspelt_metric_of_two_experiments_is_guessed(store: Store) -> None:
    with pytest.raises(UsageError, match=r"no metric 'toke_f1' in support@1 or again@1. Did you mean 'token_f1'?"):
        comparing.compare(side("support", store), side("again", store), "toke_f1")


def test_experiments_that_rank_by_different_metrics_need_one_to_be_named(store: Store) -> None:
    a, b = side("support", store), side("again", store)
    b = replace(b, results=replace(b.results, primary="token_f1"))
    with pytest.raises(UsageError, match="ranks by exact_match, again@1 by token_f1: name one with --metric"):
        comparing.compare(a, b)
    assert comparing.compare(a, b, "token_f1")["metric"]["name"] == "token_f1"


def test_experiments_without_a_variant_in_common_are_refused(store: Store, tmp_path: Path) -> None:
    other, _ = written.write(tmp_path, [replace(written.VARIANTS[0], name="else")])
    with pytest.raises(HarnessError, match="share no complete variant of one name"):
        comparing.compare(side("support", store), side("support", other))


def test_only_pairs_that_were_tested_are_counted_in_the_family(tmp_path: Path) -> None:
    found, other = {}, {}
    for name, values in (("a", [0, 1] * 20), ("b", [1, 0] * 20), ("c", [1, 1] * 20)):
        found[name], other[name] = decided.Given(values), decided.Given([1, 0] * 20)
    here, _ = decided.write(tmp_path / "here", found)
    there, _ = decided.write(tmp_path / "there", other)
    told = comparing.compare(side("case", here), side("case", there))
    assert [pair["p"] is None for pair in told["pairs"]] == [False, True, False] and told["family"] == 2
    tested = [pair for pair in told["pairs"] if pair["p"] is not None]
    assert min(pair["p_adjusted"] / pair["p"] for pair in tested if pair["p"] < 0.5) == 2


def test_one_group_or_one_example_gives_no_p_and_no_verdict(tmp_path: Path) -> None:
    for name, rows in (("group", ALL[:3]), ("single", ALL[:1])):
        made, _ = written.write(tmp_path / name, written.VARIANTS[:3], name=name, rows=rows)
        told = pair(made, f"{name}:zero-shot", f"{name}:few-shot")
        assert told["p"] is None and told["verdict"] == "cannot tell"
        assert told["difference"]["low"] is None


def test_a_corpus_figure_has_no_changed_examples(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.reducers import REDUCERS

    monkeypatch.setitem(REDUCERS, "total", lambda rows, labels: sum(value for (value,) in rows))
    a, b = side("support:rag", store), side("support:raft", store)
    sides = []
    for one in (a, b):
        variants = [
            replace(
                variant,
                scores={
                    name: tuple(replace(s, reducer="total") for s in each) for name, each in variant.scores.items()
                },
            )
            for variant in one.results.variants
        ]
        metrics = {name: replace(score, reducer="total") for name, score in one.results.metrics.items()}
        sides.append(replace(one, results=replace(one.results, variants=tuple(variants), metrics=metrics)))
    told = comparing.compare(sides[0], sides[1])["pairs"][0]
    assert told["changed"] is None
    expected = results.read(a.results.snapshot, store).variant("rag")
    assert expected is not None
    assert told["value_a"]["value"] == sum(value or 0 for value in expected.values("exact_match") or [])
