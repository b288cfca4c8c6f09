"""Scoring stored answers anew: nothing is answered, nothing but the answers is needed, what cannot be is told."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from comparison import Comparison, Done

from harness import rescore
from harness.errors import SpecError, UsageError
from harness.step import Step

TWO = """
[[variant]]
name = "plain"

[[variant]]
name     = "rag"
retrieve = { kind = "toys:Words", top_k = 1 }
"""
CONTAINS = '{kind = "contains"}'


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    made = Comparison(tmp_path_factory.mktemp("rescore") / "one", TWO)
    assert made.run().status == 0
    return made


@pytest.fixture
def ran(once: Comparison, tmp_path: Path) -> Comparison:
    """A comparison that has been run, in a folder of the test's own."""
    shutil.copytree(once.folder, tmp_path / "one")
    made = object.__new__(Comparison)
    folder = tmp_path / "one"
    made.folder, made.results = folder, folder / "results"
    made.spec, made.log, made.broken = folder / "fruit.toml", folder / "log.txt", folder / "broken.txt"
    made.forget()
    return made


def score(comparison: Comparison, *arguments: str) -> Done:
    return comparison.call("score", *arguments, "--display", "none")


def values(board: dict[str, Any], metric: str) -> dict[str, float | None]:
    return {row["variant"]: (row["metrics"][metric] or {"value": None})["value"] for row in board["rows"]}


def message(done: Done, status: int = 1) -> str:
    assert (done.status, done.out) == (status, ""), done
    return done.err.strip()


# ----------------------------------------------------------------------------------------------------------- choosing


def test_metrics_are_named_as_tables_as_their_content_or_as_kinds() -> None:
    tables = ['{kind = "recall", k = 1}', 'kind = "recall", k = 2', "contains"]
    chosen = rescore.choose(None, tables)
    assert [metric.name for metric, _ in chosen.metrics] == ["recall@1", "recall@2", "contains"]
    assert not chosen.alone
    assert all(f"# harness score --metric '{table}'" in chosen.text for table in tables)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        (['{kind = "contain"}'], "unknown kind 'contain' for metrics. Did you mean 'contains'?"),
        (['{kind = "recall", kk = 3}'], "unknown key 'kk'. Did you mean 'k'?"),
        (['{kind = "recall", k = 0}'], "must be a number of at least 1, not 0"),
        (['{kind = "recall"'], "is not a TOML table"),
        (["contains", "contains"], "metric 'contains' stands twice"),
        (['{kind = "nowhere:Metric"}'], "cannot load 'nowhere:Metric'"),
        (["{k = 3}"], "`kind` is missing"),
    ],
)
def test_a_faulty_metric_is_told_with_what_is_allowed(tables: list[str], told: str) -> None:
    with pytest.raises(SpecError) as refused:
        rescore.choose(None, tables)
    assert told in str(refused.value)
    assert str(refused.value).startswith("--metric")


def test_no_metric_at_all_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="name what to score"):
        rescore.choose(None, [])


# ------------------------------------------------------------------------------------------------------------- scoring


def test_a_metric_is_added_without_answering_or_loading_anything(ran: Comparison) -> None:
    before = ran.board()
    for name in ("pages", "train.jsonl", "heldout.jsonl"):  # neither data nor index is needed
        path = ran.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(ran.step("rag", "index").path)
    done = score(ran, "fruit", "--metric", CONTAINS, "--json")
    assert done.status == 0, done.err
    assert ran.logged("") == []
    board = done.json
    assert (board["snapshot"], before["snapshot"]) == (2, 1)
    answers = {variant: ran.step(variant, "predict") for variant in ("plain", "rag")}
    for variant, step in answers.items():
        rows = ran.store.snapshot("fruit").examples()
        right = [example.targets[0].rstrip(".") in (step.prediction(example.id).text or "") for example in rows]
        assert values(board, "contains")[variant] == pytest.approx(sum(right) / len(right))
    for metric in ("exact_match", "recall@1"):
        assert values(board, metric) == values(before, metric)
    costs = [{row["variant"]: row["cost"] for row in each["rows"]} for each in (before, board)]
    assert costs[0] == costs[1]
    assert not any("has been used" in note for note in board["notes"]), "to score again is no new look at the answers"
    assert board["total"] == before["total"]  # the index is gone; what it took is not forgotten
    old, new = ran.store.snapshot("fruit@1"), ran.store.snapshot("fruit@2")
    assert old.leaderboard == before and new.state == "complete"
    assert [run.steps["predict"] for run in old.runs()] == [run.steps["predict"] for run in new.runs()]
    assert f"# harness score --metric '{CONTAINS}'" in new.text


def test_scoring_twice_makes_nothing_the_second_time(ran: Comparison) -> None:
    assert "2 scores were made" in score(ran, "fruit", "--metric", CONTAINS).err
    again = score(ran, "fruit", "--metric", CONTAINS)
    assert "0 scores were made" in again.err and "Kept as fruit@2" in again.err
    # From the first snapshot it comes to the same.
    assert "Kept as fruit@2" in score(ran, "fruit@1", "--metric", CONTAINS).err


def test_what_is_scored_is_what_a_run_of_the_changed_spec_would_score(ran: Comparison) -> None:
    ran.edit('[[variant]]\nname = "plain"', '[[metric]]\nkind = "contains"\n\n[[variant]]\nname = "plain"')
    scored = score(ran, str(ran.spec))
    assert "2 scores were made" in scored.err and "Kept as fruit@2" in scored.err
    board = ran.board()
    run = ran.run()
    assert "Nothing was missing" in run.err and "fruit@2" in run.err
    assert ran.board() == board
    assert ran.logged("answer") == []


def test_a_spec_leaves_only_its_own_metrics(ran: Comparison) -> None:
    metrics = ran.folder / "metrics.toml"  # its metrics alone are enough
    metrics.write_text('[[metric]]\nkind = "contains"\n[[metric]]\nkind = "exact_match"\nnormalise = "none"\n')
    board = score(ran, "fruit", str(metrics), "--json").json
    assert [metric["name"] for metric in board["metrics"]] == ["contains", "exact_match"]
    assert board["primary"] == "contains"
    assert ran.store.snapshot("fruit").text == metrics.read_text()


def test_a_metric_of_a_name_that_is_there_takes_its_place_and_goes_on_ranking(ran: Comparison) -> None:
    before = ran.board()
    board = score(ran, "fruit", "--metric", '{kind = "exact_match", normalise = "squad"}', "--json").json
    assert [metric["name"] for metric in board["metrics"]] == ["exact_match", "recall@1"]
    assert board["primary"] == "exact_match"
    assert values(board, "exact_match") != values(before, "exact_match")
    board = score(ran, "fruit", "--metric", '{kind = "token_f1", primary = true}', "--json").json
    assert board["primary"] == "token_f1"
    board = score(ran, "fruit", "--metric", '{kind = "token_f1", rules = "v2.0"}', "--json").json
    assert board["primary"] == "token_f1"


def test_a_metric_of_ones_own_is_scored_where_it_lies(ran: Comparison) -> None:
    (ran.folder / "own.py").write_text(
        "from harness.plugins import Metric\n\n\nclass Short(Metric):\n    most: int = 3\n\n"
        "    def measure(self, example, prediction):\n        return float(len(prediction.text or '') <= self.most)\n"
    )
    done = ran.command("score", "fruit", "--metric", '{kind = "own:Short", most = 3, label = "short"}', "--json")
    assert done.status == 0, done.err
    assert values(done.json, "short")["plain"] == pytest.approx(1 / 8)


def test_an_embedder_of_a_metric_is_loaded_for_it_and_the_model_is_not(ran: Comparison) -> None:
    table = '{kind = "semantic_similarity", embedder = {kind = "toys:Hashed"}}'
    done = score(ran, "fruit", "--metric", table, "--json")
    assert done.status == 0, done.err
    assert ran.logged("embed") and not ran.logged("open")
    # A run of the same metric finds these scores by their name.
    metric = '[[metric]]\nkind = "semantic_similarity"\nembedder = {kind = "toys:Hashed"}\n\n'
    ran.edit('[[variant]]\nname = "plain"', f'{metric}[[variant]]\nname = "plain"')
    ran.forget()
    assert "Nothing was missing" in ran.run().err
    assert ran.logged("embed") == []


def test_metrics_that_stay_need_no_plugin_any_more(ran: Comparison) -> None:
    (ran.folder / "gone.py").write_text(
        "from harness.plugins import Metric\n\n\nclass Gone(Metric):\n"
        "    def measure(self, example, prediction):\n        return 1.0\n"
    )
    assert ran.command("score", "fruit", "--metric", "gone:Gone").status == 0
    (ran.folder / "gone.py").unlink()
    done = ran.command("score", "fruit", "--metric", CONTAINS, "--json")
    assert done.status == 0, done.err
    assert values(done.json, "Gone") == {"plain": 1.0, "rag": 1.0}


def test_a_run_without_answers_stays_failed(tmp_path: Path) -> None:
    made = Comparison(tmp_path / "one", TWO + '\n[[variant]]\nname = "bad"\nprompt = { kind = "toys:Faulty" }\n')
    assert made.run().status == 1
    done = score(made, "fruit", "--metric", CONTAINS, "--json")
    board = done.json
    assert {row["variant"]: row["status"] for row in board["rows"]} == {
        "plain": "complete",
        "rag": "complete",
        "bad": "failed",
    }
    assert values(board, "contains")["bad"] is None
    assert "not complete, so not scored: bad. `harness run`" in score(made, "fruit", "--metric", CONTAINS).err


# -------------------------------------------------------------------------------------------------------------- faults


def test_what_cannot_be_scored_is_told_and_leaves_no_snapshot(ran: Comparison) -> None:
    assert "no experiment 'fruits'" in message(score(ran, "fruits", "--metric", CONTAINS))
    assert "name what to score" in message(score(ran, "fruit"), 2)
    told = message(score(ran, "fruit", "--metric", '{kind = "mrr", primary = true}'))
    assert told.startswith("'mrr' needs what was retrieved, so it cannot rank variants that have none (plain)")
    told = message(score(ran, "fruit", "--metric", "brier"))
    assert told.startswith("'brier' needs the probabilities of choices") and "no variant of fruit@1 has that" in told
    told = message(score(ran, "fruit", "--metric", '{kind = "toys:Length", fails_on = ""}'))
    assert told.startswith("Length failed on all 8 answers that it speaks of; the first, apple: ValueError: nothing is")
    assert "(toys.py:" in told and told.endswith("(scoring 'plain'; no snapshot was made)")
    assert ran.store.numbers("fruit") == [1]


def test_a_results_folder_that_is_not_there_is_not_made(ran: Comparison) -> None:
    told = message(score(ran, "fruit", "--metric", CONTAINS, "--results", "nowhere"), 2)
    assert "there are no results in nowhere" in told
    assert not (ran.folder / "nowhere").exists()


def test_damaged_answers_are_told_with_the_way_out(ran: Comparison) -> None:
    step = ran.step("plain", "predict")
    path = step.path / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    told = message(score(ran, "fruit", "--metric", CONTAINS))
    assert f"`harness delete {step.name}`" in told
    assert ran.store.numbers("fruit") == [1]


def test_answers_that_are_gone_are_told(ran: Comparison) -> None:
    shutil.rmtree(ran.step("rag", "predict").path)
    told = message(score(ran, "fruit", "--metric", CONTAINS))
    assert "the answers of 'rag' (seed 0) are not in" in told and "`harness run SPEC` makes them" in told


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to the superuser")
def test_a_folder_that_cannot_be_written_is_told(ran: Comparison) -> None:
    ran.results.chmod(0o500)
    try:
        assert str(ran.results) in message(score(ran, "fruit", "--metric", CONTAINS))
    finally:
        ran.results.chmod(0o700)


def test_likelihoods_that_were_never_weighed_are_told_with_the_command_that_weighs_them(ran: Comparison) -> None:
    (ran.folder / "likely.py").write_text(
        "from harness.plugins import Metric\n\n\nclass Likely(Metric):\n    needs_gold = True\n\n"
        "    def measure_all(self, examples, predictions, means):\n        return [1.0 for _ in means.gold()]\n"
    )
    done = ran.command("score", "fruit", "--metric", "likely:Likely", "--display", "none")
    assert done.status == 1
    assert "needs the likelihood of the accepted answers, which fruit@1 does not hold for plain, rag" in done.err
    assert "`harness run SPEC`" in done.err


def test_without_sources_what_was_retrieved_cannot_be_measured(tmp_path: Path) -> None:
    made = Comparison(tmp_path / "one", TWO)
    made.edit('source    = "fruit"\n', "")
    made.edit('[[metric]]\nkind = "recall"\nk    = 1\n', "")
    assert made.run().status == 0
    told = message(score(made, "fruit", "--metric", "mrr"))
    assert "the held-out examples of fruit@1 name no document with the answer" in told


def test_a_stopped_score_goes_on_where_it_stopped(ran: Comparison) -> None:
    stopped = {"n": 0}

    def stop(event: Any) -> None:
        if event.kind == "end":
            stopped["n"] += 1
            raise KeyboardInterrupt

    from harness.store import Store

    store = Store(ran.results)
    chosen = rescore.choose(None, [CONTAINS])
    with pytest.raises(KeyboardInterrupt):
        rescore.score(store, store.snapshot("fruit"), chosen, stop)
    assert ran.store.numbers("fruit") == [1]
    outcome = rescore.score(store, store.snapshot("fruit"), chosen, lambda event: None)
    assert (stopped["n"], outcome.made) == (1, 1)
    steps = [Step(ran.results, run.steps["score.contains"]) for run in outcome.snapshot.runs()]
    assert all(step.outcome is not None for step in steps)
    assert json.loads((ran.results / "index.json").read_text())["snapshots"].keys() == {"fruit@1", "fruit@2"}
