"""Slices: values on parts of the examples, where the winner loses, and whose fault a miss is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import written_store as written

from harness import comparisons, results, slices, stats
from harness.errors import UsageError
from harness.records import Example, Passage, Prediction, Run, Score
from harness.results import Results, Variant
from harness.store import Snapshot, Store


def made(
    scores: dict[str, Sequence[float]],
    tags: Sequence[tuple[str, ...]] = (),
    groups: Sequence[str] = (),
    metric: str = "exact_match",
    **about: Any,
) -> Results:
    """Results of one seed, without a store: one number for each variant and example."""
    n = len(next(iter(scores.values())))
    examples = tuple(
        Example(
            id=str(place),
            input=f"question {place}",
            tags=tags[place] if tags else (),
            group=groups[place] if groups else "",
        )
        for place in range(n)
    )
    variants = []
    settings: dict[str, Any] = {"direction": "higher", "floor": 0.0, "ceiling": 1.0, "unit": "share"} | about
    for name, values in scores.items():
        score = Score(
            name=metric,
            signature=metric,
            reducer="mean",
            ids=tuple(example.id for example in examples),
            statistics=tuple((float(value),) for value in values),
            **settings,
        )
        run = Run(experiment="x", variant=name, family="prompting", seed=0, status="complete")
        variants.append(Variant(name, (run,), {metric: (score,)}))
    return Results(
        snapshot=cast(Snapshot, SimpleNamespace(ref="x@1", spec={})),
        variants=tuple(variants),
        examples=examples,
        fingerprint="",
        metrics={metric: variants[0].scores[metric][0]},
        primary=metric,
        baseline=variants[0].name,
        groups=tuple(example.group or f"\0{example.id}" for example in examples),
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Store]:
    store, snapshot = written.write(tmp_path_factory.mktemp("slices"))
    return results.read(snapshot, store), store


# --------------------------------------------------------------------------------------------------- which slices


def test_an_example_stands_in_the_slice_of_each_of_its_tags() -> None:
    found = made({"a": [1, 0, 1, 0]}, tags=[("x", "y"), ("y",), (), ("x",)])
    assert slices.places(found, "tags") == {"x": [0, 3], "y": [0, 1], slices.NO_TAG: [2]}
    assert slices.places(found, "x") == {"x": [0, 3], "not x": [1, 2]}


def test_tags_with_a_key_are_sliced_by_their_values() -> None:
    found = made({"a": [1, 0, 1, 0]}, tags=[("level:hard", "new"), ("level:easy",), ("level=hard",), ("new",)])
    assert slices.places(found, "level") == {"hard": [0, 2], "easy": [1], slices.NO_TAG: [3]}
    assert slices.places(found, "new") == {"new": [0, 3], "not new": [1, 2]}
    assert slices.names(found) == ["tags", "level"]


def test_groups_make_slices_of_their_own() -> None:
    found = made({"a": [1, 0, 1, 0]}, groups=["p", "q", "p", ""])
    assert slices.places(found, "group") == {"p": [0, 2], "q": [1], slices.NO_GROUP: [3]}


@pytest.mark.parametrize("by", ["group", "colour", "retrieved"])
def test_a_slice_that_the_data_do_not_have_is_told(by: str) -> None:
    found = made({"a": [1, 0]}, tags=[("x",), ("y",)])
    with pytest.raises(UsageError, match=f"x@1 cannot be sliced by '{by}'.*Available: tags, x, y"):
        slices.places(found, by)
    with pytest.raises(UsageError, match="no tags and no groups"):
        slices.places(made({"a": [1, 0]}), by)


def test_an_unknown_metric_is_told(stored: tuple[Results, Store]) -> None:
    for call in (lambda: slices.table(stored[0], "f1", "group"), lambda: slices.retrieved(*stored, "f1")):
        with pytest.raises(UsageError, match="no metric 'f1' in support@1"):
            call()


# ------------------------------------------------------------------------------------------------------- the table


def test_every_value_of_the_table_is_that_of_the_slice_alone(stored: tuple[Results, Store]) -> None:
    found, _ = stored
    for metric in found.metrics:
        told = slices.table(found, metric, "group")
        assert [row["slice"] for row in told["slices"]] == list(dict.fromkeys(one.group for one in found.examples))
        for row in told["slices"]:
            here = [place for place, one in enumerate(found.examples) if one.group == row["slice"]]
            assert (row["n"], row["groups"]) == (len(here), 1)
            for variant in found.variants:
                if metric not in variant.scores:
                    assert variant.name not in row["variants"]
                    continue
                values = variant.values(metric) or []
                expected = stats.mean([value for place in here if (value := values[place]) is not None])
                measured = row["variants"][variant.name]
                assert measured["value"] == pytest.approx(expected)
                # One group says nothing of others.
                assert (measured["low"], measured["high"]) == (None, None)
        assert told["tests"] == 0 and all(one["verdict"] == "cannot tell" for one in told["loses"])


def test_intervals_are_those_of_the_slice_and_its_groups() -> None:
    values = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1]
    groups = ["p", "p", "q", "q", "r", "r", "s", "s", "t", "t"]
    tags = [("x",) if place < 8 else ("y",) for place in range(10)]
    told = slices.table(made({"a": values, "b": [1] * 10}, tags, groups), "exact_match", "tags")
    expected = stats.interval([float(one) for one in values[:8]], groups[:8], binary=True, bounds=(0, 1))
    measured = told["slices"][0]["variants"]["a"]
    assert (measured["value"], measured["low"], measured["high"]) == (expected.value, expected.low, expected.high)
    assert (told["slices"][0]["groups"], told["slices"][1]["groups"]) == (4, 1)


def test_where_the_winner_loses_is_found_with_holm_over_all_tests_in_slices() -> None:
    easy, hard = 200, 60
    winner = [1.0] * easy + [0.0] * hard
    rival = [0.0] * easy + [1.0] * hard
    third = [0.0] * easy + [1.0 if place < 2 else 0.0 for place in range(hard)]
    tags = [("easy",)] * easy + [("hard",)] * hard
    found = made({"winner": winner, "rival": rival, "third": third}, tags)
    told = slices.table(found, "exact_match", "tags")
    assert told["winner"] == "winner" and told["tests"] == 4
    assert [(one["slice"], one["variant"], one["verdict"]) for one in told["loses"]] == [
        ("hard", "rival", "better"),
        ("hard", "third", "cannot tell"),
    ]
    part = found.only(range(easy, easy + hard))
    pairs = [
        comparisons.compare(theirs[cut], winner[cut], found.groups[cut], bounds=(0.0, 1.0), binary=True)
        for cut in (slice(0, easy), slice(easy, None))
        for theirs in (rival, third)
    ]
    assert len(part.examples) == hard
    adjusted = comparisons.holm([pair.p for pair in pairs])
    assert [one["p_adjusted"] for one in told["loses"]] == adjusted[2:]
    assert [one["p"] for one in told["loses"]] == [pair.p for pair in pairs[2:]]
    assert told["loses"][0]["difference"]["value"] == 1.0


def test_a_lower_value_wins_where_the_metric_says_so() -> None:
    found = made(
        {"short": [3, 4, 3, 9], "long": [9, 8, 9, 5]},
        tags=[("x",), ("x",), ("y",), ("y",)],
        metric="length",
        direction="lower",
        ceiling=None,
        unit="words",
    )
    told = slices.table(found, "length", "tags")
    assert told["winner"] == "short" and told["loses"] == []


def test_equal_variants_lose_nowhere() -> None:
    told = slices.table(made({"a": [1, 0, 1], "b": [1, 0, 1]}, [("x",), ("x",), ("y",)]), "exact_match", "tags")
    assert told["winner"] == "a" and told["loses"] == []


# ------------------------------------------------------------------------------------ retrieval's or generation's fault


def test_the_split_is_that_of_the_stored_passages(stored: tuple[Results, Store]) -> None:
    found, store = stored
    told = slices.retrieved(found, store, "exact_match")
    assert list(told["variants"]) == ["rag", "raft"]
    for name, split in told["variants"].items():
        (run,) = [run for run in found.snapshot.runs() if run.variant == name]
        values = store.step(run.steps["score.exact_match"]).score().statistics
        hits, wrong = [], []
        for example, prediction, row in zip(
            found.examples, store.step(run.steps["predict"]).predictions(), values, strict=True
        ):
            assert row is not None
            hits.append(example.sources[0] in {passage.document for passage in prediction.passages})
            wrong.append(row[0] == 0)
        assert split["retrieved"]["value"] == pytest.approx(sum(hits) / 24) and split["retrieved"]["n"] == 24
        assert split["there"]["n"] == sum(hits) and split["missing"]["n"] == 24 - sum(hits)
        right = sum(hit and not bad for hit, bad in zip(hits, wrong, strict=True))
        assert split["there"]["value"] == pytest.approx(right / sum(hits))
        missed = sum(not hit and bad for hit, bad in zip(hits, wrong, strict=True))
        assert split["faults"]["n"] == sum(wrong)
        assert split["faults"]["retrieval"]["value"] == pytest.approx(missed / sum(wrong))
        assert split["faults"]["generation"]["value"] == pytest.approx(1 - missed / sum(wrong))
        # Of right or wrong answers it is the share of errors, with the interval of one.
        kept = [float(not hit) for hit, bad in zip(hits, wrong, strict=True) if bad]
        where = [group for group, bad in zip(found.groups, wrong, strict=True) if bad]
        expected = stats.interval(kept, where, binary=True, bounds=(0.0, 1.0))
        shown = split["faults"]["retrieval"]
        assert (shown["low"], shown["high"]) == (pytest.approx(expected.low), pytest.approx(expected.high))
        assert (split["partly"]["n"], split["unanswerable"]["n"]) == (0, 0)


def test_the_classes_are_told_apart(tmp_path: Path) -> None:
    rows = [
        replace(example, sources=((), (example.group, "KB-none"), (example.group,))[place % 3])
        for place, example in enumerate(written.examples())
    ]
    store, snapshot = written.write(tmp_path, [replace(written.VARIANTS[4], skill=1.0)], rows=rows)
    split = slices.retrieved(results.read(snapshot, store), store, "exact_match")["variants"]["raft"]
    assert {name: split[name]["n"] for name in ("there", "partly", "missing", "unanswerable")} == {
        "there": 8,
        "partly": 8,
        "missing": 0,
        "unanswerable": 8,
    }
    assert split["missing"]["value"] is None
    assert split["retrieved"]["value"] == 0.5 and split["retrieved"]["n"] == 16
    # One answer is wrong (the hostile one, whose gold was partly there): the fault is neither one's nor the other's.
    assert split["faults"]["n"] == 1
    assert [split["faults"][cause]["value"] for cause in ("retrieval", "partly", "generation")] == [0.0, 1.0, 0.0]


def test_nothing_lost_lays_no_blame(tmp_path: Path) -> None:
    found, store = planted(tmp_path, [("there", 1.0), ("missing", 1.0)])
    split = slices.retrieved(found, store, "exact_match")["variants"]["rag"]
    assert split["faults"]["n"] == 0
    assert split["faults"]["retrieval"]["value"] is None and split["faults"]["generation"]["low"] is None


def planted(root: Path, rows: Sequence[tuple[str, float]], seeds: int = 1) -> tuple[Results, Store]:
    """Results of one retrieving variant, whose gold passages are there or missing as `rows` say. With several seeds
    the second one retrieves the opposite."""
    store = Store(root)
    found = made({"rag": [value for _, value in rows]})
    examples = tuple(replace(example, sources=("gold",)) for example in found.examples)
    variant = found.variants[0]
    runs = []
    for seed in range(seeds):
        predictions = [
            Prediction(
                id=example.id,
                text="",
                passages=(Passage(id="p", document="gold" if (kind == "there") == (seed == 0) else "other", text="."),),
            )
            for example, (kind, _) in zip(examples, rows, strict=True)
        ]
        name = written.write_step(
            store, "predict", {"seed": seed, "rows": list(rows)}, {},
            lambda step, predictions=predictions: step.write_predictions(predictions),
        )  # fmt: skip
        runs.append(replace(variant.runs[0], seed=seed, steps={"index": "index-1", "predict": name}))
    scores = {name: each * seeds for name, each in variant.scores.items()}
    return replace(found, examples=examples, variants=(Variant("rag", tuple(runs), scores),)), store


def test_of_graded_scores_what_was_lost_is_shared_out(tmp_path: Path) -> None:
    rows = [("there", 0.9), ("missing", 0.2), ("there", 1.0), ("missing", 0.6), ("there", 0.5), ("missing", 1.0)]
    found, store = planted(tmp_path, rows)
    faults = slices.retrieved(found, store, "exact_match")["variants"]["rag"]["faults"]
    lost = [1 - value for _, value in rows if value < 1]
    missed = [1 - value if kind == "missing" else 0.0 for kind, value in rows if value < 1]
    ratio = sum(missed) / sum(lost)
    assert faults["retrieval"]["value"] == pytest.approx(ratio)
    assert faults["generation"]["value"] == pytest.approx(1 - ratio)
    # The linearised standard error of a ratio, written out (Cochran 1977, 2.11), each example a group of its own.
    n = len(lost)
    residuals = [y - ratio * x for x, y in zip(lost, missed, strict=True)]
    error = math.sqrt(n / (n - 1) * sum(one * one for one in residuals)) / sum(lost)
    # Any numbers with this mean and this error have the interval.
    apart = error * math.sqrt(n - 1)
    same = [ratio + apart, ratio - apart] * (n // 2)
    expected = stats.interval(same, list("abcd"), binary=False, bounds=(0.0, 1.0))
    assert n == 4 and expected.low is not None and expected.high is not None
    assert faults["retrieval"]["low"] == pytest.approx(expected.low)
    assert faults["retrieval"]["high"] == pytest.approx(expected.high)


def test_seeds_that_retrieve_differently_count_where_their_answers_belong(tmp_path: Path) -> None:
    found, store = planted(tmp_path, [("there", 1.0), ("missing", 0.0), ("there", 0.0)], seeds=2)
    split = slices.retrieved(found, store, "exact_match")["variants"]["rag"]
    assert (split["there"]["n"], split["missing"]["n"]) == (3, 3)
    assert split["there"]["value"] == pytest.approx(1 / 3)
    assert split["missing"]["value"] == pytest.approx(1 / 3)
    assert split["retrieved"]["n"] == 6 and split["retrieved"]["groups"] == 3
    assert split["faults"]["retrieval"]["value"] == pytest.approx(2 / 4)


def test_without_a_best_value_no_share_of_faults_is_made_up(tmp_path: Path) -> None:
    found, store = planted(tmp_path, [("there", 1.0), ("missing", 0.0)])
    score = replace(found.metrics["exact_match"], ceiling=None)
    variant = replace(found.variants[0], scores={"exact_match": (score,)})
    open_ended = replace(found, metrics={"exact_match": score}, variants=(variant,))
    split = slices.retrieved(open_ended, store, "exact_match")["variants"]["rag"]
    assert split["faults"] is None and split["there"]["value"] == 1.0


def test_without_sources_or_retrieval_there_is_nothing_to_split(tmp_path: Path) -> None:
    plain, snapshot = written.write(tmp_path / "a", written.VARIANTS[:2])
    with pytest.raises(UsageError, match="needs a variant with `retrieve`"):
        slices.retrieved(results.read(snapshot, plain), plain, "exact_match")
    rows = [replace(example, sources=()) for example in written.examples()]
    sourceless, snapshot = written.write(tmp_path / "b", written.VARIANTS[:3], rows=rows)
    with pytest.raises(UsageError, match="name the document with the answer"):
        slices.retrieved(results.read(snapshot, sourceless), sourceless, "exact_match")
