from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import decided
import pytest
import written_store as written
from rich.console import Console

from harness import board as shown
from harness import comparisons, leaderboard, results, stats
from harness.errors import HarnessError
from harness.records import Run, Score
from harness.reducers import REDUCERS
from harness.store import Snapshot, Store


def rows_of(board: dict[str, Any]) -> dict[str, Any]:
    return {row["variant"]: row for row in board["rows"]}


def rendered(board: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width, color_system=None, force_terminal=False, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(leaderboard.table(board))
        return console.export_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Snapshot]:
    return written.write(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def board(finished: tuple[Store, Snapshot]) -> dict[str, Any]:
    store, snapshot = finished
    return leaderboard.build(snapshot, store)


Begun = tuple[Store, Snapshot, list[Run]]


@pytest.fixture(scope="module")
def begun_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run]]:
    root = tmp_path_factory.mktemp("begun")
    snapshot, runs = written.begin(Store(root))
    snapshot.close()
    return root, runs


@pytest.fixture
def begun(begun_once: tuple[Path, list[Run]], tmp_path: Path) -> Begun:
    """An experiment whose steps are done and whose runs are not saved yet, in a folder of the test's own."""
    root, runs = begun_once
    shutil.copytree(root, tmp_path / "results")
    store = Store(tmp_path / "results")
    return store, store.snapshot("support"), runs


def test_the_board_has_every_key_that_users_build_on(board: dict[str, Any]) -> None:
    assert {"experiment", "question", "snapshot", "heldout", "primary", "baseline", "notes", "rows"} <= board.keys()
    assert board["heldout"].keys() == {"n", "fingerprint", "groups"}
    row = board["rows"][0]
    assert {"variant", "family", "seeds", "status", "error", "rank", "metrics", "cost", "vs_baseline"} <= row.keys()
    assert {"value", "ci_low", "ci_high", "n", "errors", "method"} == row["metrics"]["exact_match"].keys()
    assert {"rank_low", "rank_high"} <= row.keys()
    assert row["vs_baseline"].keys() == {
        "difference",
        "ci_low",
        "ci_high",
        "method",
        "test",
        "p",
        "p_holm",
        "effect",
        "effect_size",
        "wins",
        "ties",
        "losses",
        "minimum_detectable",
        "needed",
        "verdict",
        "non_inferiority",
        "equivalence",
    }
    assert row["vs_baseline"]["non_inferiority"].keys() == {"margin", "holds", "p", "p_adjusted", "test", "low", "high"}
    assert row["vs_baseline"]["non_inferiority"]["margin"] == 0.02
    assert board["comparisons"].keys() == {
        "alpha",
        "power",
        "correction",
        "family",
        "tests",
        "pairs",
        "pair_tests",
        "told_apart",
    }
    assert set(row["cost"]) == {
        "train_seconds",
        "index_seconds",
        "answer_seconds",
        "latency_p50_ms",
        "latency_p95_ms",
        "input_tokens",
        "output_tokens",
        "trainable_parameters",
        "artifact_bytes",
        "peak_memory_bytes",
    }
    assert json.loads(json.dumps(board, allow_nan=False)) == board


def test_what_finish_kept_is_what_build_makes_again(finished: tuple[Store, Snapshot], board: dict[str, Any]) -> None:
    store, snapshot = finished
    assert snapshot.leaderboard == board
    assert store.experiments()[0].winner == "raft"


def test_values_are_over_the_whole_held_out_split_and_errors_count_as_the_floor(
    finished: tuple[Store, Snapshot], board: dict[str, Any]
) -> None:
    rag = rows_of(board)["rag"]["metrics"]["exact_match"]
    store, snapshot = finished
    run = next(run for run in snapshot.runs() if run.variant == "rag")
    score = store.step(run.steps["score.exact_match"]).score()
    assert rag["n"] == 24 and rag["errors"] == 1
    assert rag["value"] == sum(values[0] for values in score.statistics if values) / 24
    expected = stats.interval(
        [values[0] for values in score.statistics if values],
        [example.group for example in written.examples()],
        binary=True,
        bounds=(0, 1),
    )
    assert (rag["ci_low"], rag["ci_high"], rag["method"]) == (expected.low, expected.high, expected.method)


def test_rows_are_ranked_by_the_primary_metric_and_failed_ones_come_last(board: dict[str, Any]) -> None:
    values = [row["metrics"]["exact_match"]["value"] for row in board["rows"][:-1]]
    assert values == sorted(values, reverse=True)
    last = board["rows"][-1]
    assert (last["variant"], last["status"]) == ("lora-64", "failed")
    assert "out of memory" in last["error"]
    assert last["metrics"]["exact_match"] is None and last["vs_baseline"] is None


def test_a_metric_that_does_not_apply_is_absent_and_shown_as_a_dash(board: dict[str, Any]) -> None:
    assert rows_of(board)["zero-shot"]["metrics"]["recall@3"] is None
    assert rows_of(board)["rag"]["metrics"]["recall@3"]["value"] > 0
    assert shown.value(board, rows_of(board)["zero-shot"], "recall@3") == "–"


def test_the_difference_is_paired_with_the_baseline_example_by_example(board: dict[str, Any]) -> None:
    rows = rows_of(board)
    assert rows["zero-shot"]["vs_baseline"] is None
    found = rows["raft"]["vs_baseline"]
    wanted = rows["raft"]["metrics"]["exact_match"]["value"] - rows["zero-shot"]["metrics"]["exact_match"]["value"]
    assert found["difference"] == pytest.approx(wanted)
    assert found["ci_low"] < wanted < found["ci_high"]
    assert found["method"] == "paired t, clustered by group"


def test_several_seeds_are_averaged_and_said_to_be(board: dict[str, Any]) -> None:
    lora = rows_of(board)["lora"]
    assert lora["seeds"] == [0, 1]
    assert lora["metrics"]["exact_match"]["method"].endswith("mean of 2 seeds")
    assert lora["cost"]["train_seconds"] == pytest.approx(250.3)
    assert any(note.startswith("Several seeds") for note in board["notes"])


def test_a_variant_with_one_failed_seed_is_failed_and_unranked(begun: Begun) -> None:
    store, snapshot, runs = begun
    for run in runs:
        broken = run.variant == "lora" and run.seed == 1
        snapshot.save_run(replace(run, status="failed", error="no space left") if broken else run)
    lora = rows_of(leaderboard.build(snapshot, store))["lora"]
    assert (lora["status"], lora["rank"], lora["error"]) == ("failed", None, "seed 1: no space left")
    assert lora["metrics"]["exact_match"] is None


def test_a_running_experiment_has_a_board_too(begun: Begun) -> None:
    store, snapshot, runs = begun
    empty = leaderboard.build(snapshot, store)
    assert {row["status"] for row in empty["rows"]} == {"waiting"} and empty["heldout"]["n"] == 24
    assert "waiting" in rendered(empty) and "waiting" in leaderboard.markdown(empty)
    snapshot.save_run(runs[2])
    snapshot.save_run(next(run for run in runs if run.variant == "lora"))
    half = leaderboard.build(snapshot, store)
    assert rows_of(half)["lora"]["status"] == "waiting", "one of its two seeds is complete, and nothing runs"
    assert half["rows"][0]["variant"] == "rag" and half["rows"][0]["rank"] == 1
    assert half["rows"][0]["vs_baseline"] is None


def test_a_failed_baseline_is_said(tmp_path: Path) -> None:
    failed = replace(written.VARIANTS[0], failed="no such model")
    store, snapshot = written.write(tmp_path, (failed, *written.VARIANTS[1:3]))
    board = leaderboard.build(snapshot, store)
    assert any("baseline zero-shot has failed" in note for note in board["notes"])
    assert all(row["vs_baseline"] is None for row in board["rows"])


def test_variants_that_cannot_be_told_apart_share_a_place(tmp_path: Path) -> None:
    rows = [
        replace(example, id=f"{example.id}-{copy}", group="") for copy in range(4) for example in written.examples()
    ]
    planned = [
        written.Planned(name, "prompting", skill)
        for name, skill in (("zero-shot", 0.9), ("b", 0.88), ("c", 0.1), ("d", 0.12), ("e", 0.5))
    ]
    store, snapshot = written.write(tmp_path, planned, rows=rows)
    board = leaderboard.build(snapshot, store)
    found = {row["variant"]: (row["rank"], row["rank_low"], row["rank_high"]) for row in board["rows"]}
    assert found == {
        "zero-shot": (1, 1, 2),
        "b": (1, 1, 2),
        "e": (3, 3, 3),
        "c": (4, 4, 5),
        "d": (4, 4, 5),
    }
    assert board["comparisons"] | {"tests": []} == {
        "alpha": 0.05,
        "power": 0.8,
        "correction": "Holm",
        "family": 4,
        "tests": [],
        "pairs": 10,
        "pair_tests": ["exact McNemar"],
        "told_apart": 8,
    }
    said = " ".join(shown.legend(board))
    assert "(pairs told apart: 8 of 10, p adjusted by Holm over 10 tests)" in said


def test_places_equal_counting_the_proven_ones(board: dict[str, Any], finished: tuple[Store, Snapshot]) -> None:
    store, snapshot = finished
    found = results.read(snapshot, store)
    ranked = [row["variant"] for row in board["rows"] if row["rank"]]
    pairs = [(a, b) for i, a in enumerate(ranked) for b in ranked[i + 1 :]]
    made = [comparisons.between(found, "exact_match", found.variant(a), found.variant(b)) for a, b in pairs]  # type: ignore[arg-type]
    adjusted = comparisons.holm([one.p for one in made])
    proven = [(a, b) for (a, b), one, p in zip(pairs, made, adjusted, strict=True) if p is not None and p <= 0.05]
    for row in board["rows"][:-1]:
        assert row["rank_low"] == 1 + sum(loser == row["variant"] for _, loser in proven)
        assert row["rank_high"] == len(ranked) - sum(winner == row["variant"] for winner, _ in proven)
        assert row["rank_low"] <= row["rank"] <= row["rank_high"]
    assert board["rows"][-1]["rank_low"] is None


def test_the_comparison_with_the_baseline_says_its_test_and_its_verdict(
    board: dict[str, Any], finished: tuple[Store, Snapshot]
) -> None:
    store, snapshot = finished
    found = results.read(snapshot, store)
    rows = rows_of(board)
    others = [row for row in board["rows"] if row["vs_baseline"]]
    assert comparisons.holm([row["vs_baseline"]["p"] for row in others]) == [
        row["vs_baseline"]["p_holm"] for row in others
    ]
    raft, base = found.variant("raft"), found.variant("zero-shot")
    assert raft and base
    made = comparisons.between(found, "exact_match", raft, base)
    told = rows["raft"]["vs_baseline"]
    assert (told["test"], told["p"], told["wins"], told["ties"], told["losses"]) == (
        "sign-flip permutation by group (all flips)",
        made.p,
        made.wins,
        made.ties,
        made.losses,
    )
    assert told["verdict"] == "better" and told["needed"] is None
    assert told["p_holm"] == pytest.approx(3 * 2 / 2**8), "the second smallest of four, after lora's"
    few = rows["few-shot"]["vs_baseline"]
    assert few["verdict"] == "cannot tell" and few["needed"] > 24 and few["minimum_detectable"] > few["difference"]


def test_a_board_of_an_older_harness_is_still_shown(board: dict[str, Any]) -> None:
    new = ("rank_low", "rank_high")
    old = ("difference", "ci_low", "ci_high", "method")
    rows = [
        {key: value for key, value in row.items() if key not in new}
        | {"vs_baseline": row["vs_baseline"] and {key: row["vs_baseline"][key] for key in old}}
        for row in board["rows"]
    ]
    older = {key: value for key, value in board.items() if key != "comparisons"} | {"rows": rows}
    for text in (rendered(older), leaderboard.markdown(older)):
        assert "raft" in text and "better" not in text.replace("higher is better", "")
    assert "Test:" not in " ".join(shown.legend(older))


def test_the_legend_names_the_test_what_it_can_find_and_what_is_missing(board: dict[str, Any]) -> None:
    for text in (" ".join(shown.legend(board)), " ".join(rendered(board).split()), leaderboard.markdown(board)):
        assert "Test: " in text and "sign-flip permutation by group" in text
        assert "over 4 comparisons" in text and "with 80 % power" in text
        assert "Examples in all that would settle what is open" in text


def test_examples_that_bear_their_own_id_as_group_are_in_no_groups(tmp_path: Path) -> None:
    """Data without groups are read so."""
    store, snapshot = decided.write(tmp_path, {"a": decided.Given([1, 0, 1])}, groups=["e0", "e1", "e2"])
    made = leaderboard.build(snapshot, store)
    assert made["heldout"]["groups"] is None and "on 3 held-out examples." in shown.legend(made)[0]


def test_variants_that_are_shown_to_be_as_good_as_the_baseline_are_named(tmp_path: Path) -> None:
    scores = {"a": [1] * 400 + [0] * 100, "b": [1] * 399 + [0] * 101, "c": [0] * 20 + [1] * 440 + [0] * 40}
    variants = {name: decided.Given(one) for name, one in scores.items()}
    store, snapshot = decided.write(tmp_path, {**variants, "d": decided.Given([1] * 340 + [0] * 160)})
    made = leaderboard.build(snapshot, store)
    said = " ".join(shown.legend(made))
    test = "equivalence: two one-sided score tests of paired shares, p adjusted by Holm"
    assert f"Shown to be within 2.0 points of a: b ({test})." in said, "c is better, d worse"
    rows = rows_of(made)
    assert rows["c"]["vs_baseline"]["non_inferiority"]["holds"] and not rows["c"]["vs_baseline"]["equivalence"]["holds"]
    assert rows["b"]["vs_baseline"]["verdict"] == "cannot tell" and rows["d"]["vs_baseline"]["verdict"] == "worse"


def test_what_was_not_tested_is_named_and_shared_places_are_explained_though_nothing_differs(tmp_path: Path) -> None:
    store, snapshot = decided.write(tmp_path, {name: decided.Given([1] * 20) for name in "abc"})
    said = " ".join(shown.legend(leaderboard.build(snapshot, store)))
    assert "Not tested against a: b, c (equal on every example)." in said and "Test: " not in said
    assert "(pairs told apart: 0 of 3); below it, the ranks that a variant may have" in said


def test_all_pairs_are_counted_and_the_tests_that_were_made(tmp_path: Path) -> None:
    scores = {"a": [0, 1] * 20, "b": [0, 1] * 20, "c": [1, 0] * 20}
    store, snapshot = decided.write(tmp_path, {name: decided.Given(values) for name, values in scores.items()})
    said = " ".join(shown.legend(leaderboard.build(snapshot, store)))
    assert "(pairs told apart: 0 of 3, p adjusted by Holm over 2 tests)" in said
    assert "Test: exact McNemar; better" in said and "Not tested against a: b (equal on every example)." in said


def test_one_is_no_plural(tmp_path: Path) -> None:
    store, snapshot = decided.write(tmp_path, {"a": decided.Given([1])}, groups=["g"])
    assert "on 1 held-out example in 1 group." in shown.legend(leaderboard.build(snapshot, store))[0]


def test_costs_count_shared_steps_once_in_the_total_and_whole_in_each_row(board: dict[str, Any]) -> None:
    assert rows_of(board)["rag"]["cost"]["index_seconds"] == rows_of(board)["raft"]["cost"]["index_seconds"] == 12
    total = board["total"]
    assert total["index_seconds"] == 12
    assert total["train_seconds"] == pytest.approx(2 * 250.3 + 431.8)
    assert total["answer_seconds"] == 6 * 30
    assert total["seconds"] == pytest.approx(sum(value for key, value in total.items() if key != "seconds"))


def test_mixed_devices_and_library_versions_are_noted(begun: Begun) -> None:
    store, snapshot, runs = begun
    for place, run in enumerate(runs):
        cost = replace(run.cost, device=f"device {place % 2}") if run.status == "complete" else run.cost
        snapshot.save_run(replace(run, cost=cost))
    other = written.write_step(store, "latency", {"n": 1}, {"provenance": {"versions": {"torch": "2.12.0"}}})
    notes = leaderboard.build(snapshot, store)["notes"]
    assert any(note.startswith("Answers come from different devices: device 0; device 1.") for note in notes)
    assert not any("library versions" in note for note in notes)
    snapshot.save_run(replace(runs[0], steps={**runs[0].steps, "latency": other}))
    notes = leaderboard.build(snapshot, store)["notes"]
    assert "Steps were made with different library versions: torch 2.12.0, 2.13.0." in notes


def test_training_on_different_devices_is_noted(begun: Begun) -> None:
    store, snapshot, runs = begun
    devices = iter(("cpu float32", "cuda bfloat16"))
    for run in runs:
        if run.variant == "lora":
            outcome = {"device": next(devices), "provenance": {"processor": "a processor"}}
            step = written.write_step(store, "train", {"seed": run.seed, "other": 1}, outcome)
            run = replace(run, steps={**run.steps, "train.0": step})
        snapshot.save_run(run)
    notes = leaderboard.build(snapshot, store)["notes"]
    assert "Training ran on different devices: a processor · cpu float32; a processor · cuda bfloat16." in notes


def test_what_the_costs_hold_is_said_with_the_sample_that_latency_was_measured_on(
    board: dict[str, Any], tmp_path: Path
) -> None:
    assert {row["variant"]: row["latency_examples"] for row in board["rows"]}["raft"] == 8
    assert rows_of(board)["lora-64"]["latency_examples"] == 0, "it failed before it was measured"
    sentence = (
        "p50/p95 latency is of single requests, batch 1, adapters not merged, on 8 held-out questions; "
        "training includes starting its process; answering excludes loading the model."
    )
    assert sentence in shown.legend(board) and sentence in leaderboard.markdown(board)
    assert sentence in " ".join(rendered(board).split())
    store, snapshot = written.write(tmp_path, written.VARIANTS[:2])
    plain = " ".join(shown.legend(leaderboard.build(snapshot, store)))
    assert "batch 1, on 8 held-out" in plain and "training includes" not in plain
    older = {**board, "rows": [{k: v for k, v in row.items() if k != "latency_examples"} for row in board["rows"]]}
    assert "single requests" not in " ".join(shown.legend(older))


def test_a_metric_whose_value_is_no_mean_has_its_reducers_value_and_a_resampled_interval(
    begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ratio(rows: Any, labels: Any) -> float:
        return sum(row[0] for row in rows) / sum(row[1] for row in rows)

    monkeypatch.setitem(REDUCERS, "ratio", ratio)
    store, snapshot, runs = begun
    for run in runs:
        if "score.exact_match" in run.steps:
            score = store.step(run.steps["score.exact_match"]).score()
            # Each example weighs as much as its place: the ratio of sums is not the mean of the first numbers.
            rows = tuple((2.0 * place * row[0], 2.0 * place) for place, row in enumerate(score.statistics, 1) if row)
            changed = replace(score, reducer="ratio", statistics=rows)
            inputs = {"ratio": run.steps["predict"]}
            step = written.write_step(store, "score", inputs, {}, lambda step, made=changed: step.write_score(made))
            run = replace(run, steps={**run.steps, "score.exact_match": step})
        snapshot.save_run(run)
    rows_found = rows_of(leaderboard.build(snapshot, store))

    def expected(variant: str) -> float:
        scores = [store.step(run.steps["score.exact_match"]).score() for run in runs if run.variant == variant]
        weighted = [sum(n * row[0] for n, row in enumerate(score.statistics, 1) if row) for score in scores]
        return sum(value / (24 * 25 / 2) for value in weighted) / len(scores)

    for name in ("raft", "lora"):
        found = rows_found[name]["metrics"]["exact_match"]
        assert found["value"] == pytest.approx(expected(name))
        assert found["n"] == 24 and 0 <= found["ci_low"] < found["value"] < found["ci_high"] <= 1
        assert found["method"].startswith("t of the jackknife over groups"), "there are 8 groups"
        difference = rows_found[name]["vs_baseline"]
        assert difference["difference"] == pytest.approx(expected(name) - expected("zero-shot"))
        assert difference["ci_low"] < difference["difference"] < difference["ci_high"]
        assert (difference["wins"], difference["ties"], difference["losses"]) == (0, 0, 0)
    assert rows_found["raft"]["vs_baseline"]["test"] == "approximate randomisation by group (all swaps)"
    assert rows_found["lora"]["vs_baseline"]["test"] == "paired t over seeds and examples"
    assert rows_found["raft"]["rank"] == 1


def test_notes_on_the_data_are_carried_along(begun: Begun) -> None:
    store, snapshot, runs = begun
    for run in runs:
        snapshot.save_run(replace(run, provenance={**run.provenance, "data_notes": ["same_facts: 8 of 8 groups"]}))
    board = leaderboard.build(snapshot, store)
    assert board["notes"].count("same_facts: 8 of 8 groups") == 1
    assert "same_facts: 8 of 8 groups" in rendered(board)


def test_runs_of_different_held_out_splits_are_refused(begun: Begun) -> None:
    store, snapshot, runs = begun
    for run in runs:
        other = {"fingerprints": {"heldout": "f" * 64}} if run.variant == "rag" else run.provenance
        snapshot.save_run(replace(run, provenance=other))
    with pytest.raises(HarnessError, match=r"different held-out splits: 'zero-shot' on .*'rag' on ffffffffffff"):
        leaderboard.build(snapshot, store)


def rescore(begun: Begun, change: Callable[[Score], Score]) -> None:
    """Save the runs; the variant "rag" carries a changed exact_match."""
    store, snapshot, runs = begun
    changed = change(store.step(next(run for run in runs if run.variant == "rag").steps["score.exact_match"]).score())
    step = written.write_step(store, "score", {"other": 1}, {}, lambda step: step.write_score(changed))
    for run in runs:
        steps = {**run.steps, "score.exact_match": step} if run.variant == "rag" else run.steps
        snapshot.save_run(replace(run, steps=steps))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda score: replace(score, signature="exact_match|case:1"), r"'exact_match\|case:1' for 'rag'"),
        (lambda score: replace(score, ids=("other", *score.ids[1:])), "example 'kb-003-1' is on one side only"),
        (lambda score: replace(score, ids=score.ids[::-1]), "their order differs"),
        (lambda score: replace(score, statistics=(None, *score.statistics[1:])), "speaks of example 'kb-003-1' for"),
        (lambda score: replace(score, statistics=((1.5,), *score.statistics[1:])), r"is 1.5 for example 'kb-003-1'"),
        (lambda score: replace(score, reducer="rouge-9"), "upgrade"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused_with_what_differs(
    begun: Begun, change: Callable[[Score], Score], message: str
) -> None:
    rescore(begun, change)
    store, snapshot, _ = begun
    with pytest.raises(HarnessError, match=message):
        leaderboard.build(snapshot, store)


def test_ungrouped_proportions_get_wilsons_interval(tmp_path: Path) -> None:
    rows = [replace(example, group="") for example in written.examples()]
    store, snapshot = written.write(tmp_path, written.VARIANTS[:3], rows=rows)
    board = leaderboard.build(snapshot, store)
    assert board["heldout"]["groups"] is None
    found = rows_of(board)["few-shot"]["metrics"]["exact_match"]
    assert found["method"] == "Wilson"
    assert (found["ci_low"], found["ci_high"]) == pytest.approx(stats.wilson(found["value"], 24))
    assert "groups" not in rendered(board).partition("Differences")[0].partition("on 24")[2].partition(".")[0]


@pytest.mark.parametrize("count", [1, 3])
def test_one_example_or_one_group_gives_no_interval(tmp_path: Path, count: int) -> None:
    store, snapshot = written.write(tmp_path, written.VARIANTS[:2], rows=written.examples()[:count])
    board = leaderboard.build(snapshot, store)
    assert board["rows"][0]["metrics"]["exact_match"]["ci_low"] is None
    assert "n/a" in rendered(board)


@pytest.mark.parametrize("width", [100, 120, 200])
def test_the_terminal_table_fits_and_says_all(board: dict[str, Any], width: int) -> None:
    text = rendered(board, width)
    assert max(len(line) for line in text.splitlines()) <= width
    for wanted in (
        "raft",
        "hybrid",
        "75.0 %",
        "53.8 to 88.6",
        "better +70.8",
        "+47.6 to +94.1",
        "1 to 5",
        "token_f1",
        "1.3 s",
        "420 + 9",
    ):
        assert wanted in text
    assert "lora-64 failed: ModelError: out of memory" in text
    assert "RAG, 1 error" in text


def test_a_narrow_terminal_leaves_out_columns_and_says_which(board: dict[str, Any]) -> None:
    text = rendered(board, 72)
    assert max(len(line) for line in text.splitlines()) <= 72
    assert "Not shown in this width: tokens, token_f1, recall@3." in text


def test_words_of_others_stay_words(tmp_path: Path) -> None:
    named = replace(written.VARIANTS[1], name="few|shot [red]x[/red] <b>")
    broken = replace(written.VARIANTS[5], failed=written.HOSTILE)
    store, snapshot = written.write(tmp_path, (written.VARIANTS[0], named, broken))
    board = leaderboard.build(snapshot, store)
    text = rendered(board)
    assert "[red]x[/red]" in text and "\x1b" not in text and "\u202e" not in text
    marked = leaderboard.markdown(board)
    table = [line for line in marked.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert "few\\|shot" in marked and "\\<script\\>" in marked and "\\!\\[p\\]" in marked


def test_markdown_and_terminal_show_the_same_figures(board: dict[str, Any]) -> None:
    text, marked = rendered(board, 200), leaderboard.markdown(board)
    for row in board["rows"][:-1]:
        for figure in (
            shown.value(board, row, "exact_match"),
            shown.bounds(board, row, "exact_match"),
            *shown.change(board, row),
        ):
            assert figure in text and figure in marked
