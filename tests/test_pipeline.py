"""The pipeline: each step is done once and keeps what it took; what a run cost is put together from its steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comparison import FRUIT, Comparison

from harness import pipeline
from harness.plan import Named, PlannedRun
from harness.store import Store

ONE = '[[variant]]\nname = "plain"\n'


def test_shared_steps_are_done_once(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one")
    assert comparison.run().status == 0
    assert len(comparison.logged("index")) == 1
    assert len(comparison.logged("train from")) == 2, "for lora and lora+rag together, and for raft"
    assert len(comparison.logged("open")) == 1, "the model is loaded once"
    # Five variants answer eight questions; latency asks two more of each, and one to warm up.
    assert len(comparison.logged("answer")) == 5 * (8 + 3)


def test_training_helps_as_the_toys_were_made(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one")
    comparison.run()
    found = {name: row["metrics"]["exact_match"]["value"] for name, row in comparison.values().items()}
    assert found == {"plain": 0, "rag": 0, "lora": 0.25, "lora+rag": 0.75, "raft": 0.75}


def test_a_raft_prompt_holds_the_gold_passage_and_a_distractor(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one")
    comparison.edit(
        'name     = "raft"\nretrieve = { kind = "toys:Words", top_k = 1 }',
        'name = "raft"\nretrieve = { kind = "toys:Words", top_k = 2 }',
    )
    comparison.run("--only", "raft", "--only", "lora+rag")
    raft = json.loads((comparison.step("raft", "train.0").path / "artifact" / "artifact.json").read_text())["prompts"]
    bare = json.loads((comparison.step("lora+rag", "train.0").path / "artifact" / "artifact.json").read_text())[
        "prompts"
    ]
    assert [len(prompt) for prompt in raft + bare] == [1] * 8
    assert sum(prompt[0]["content"].count("when it is ripe.") for prompt in raft) == 2 * 4
    assert "[lemon] The lemon is golden" in raft[0][0]["content"]
    assert bare[0][0]["content"] == "What colour is a ripe lemon?"


def test_prompts_see_neither_the_answer_nor_its_source(tmp_path: Path) -> None:
    comparison = Comparison(
        tmp_path / "one", '[[variant]]\nname = "plain"\nprompt = "toys:Peeks"\ntrain = ["toys:Steps"]\n'
    )
    assert comparison.run().status == 0
    assert set(comparison.logged("peeked")) == {"() ()"}


def test_similar_shots_are_embedded_in_one_go(tmp_path: Path) -> None:
    shots = 'prompt = { kind = "few-shot", shots = 2, select = "similar", embedder = "toys:Hashed" }'
    comparison = Comparison(tmp_path / "one", f"{ONE}{shots}\n")
    assert comparison.run("--set", "latency.examples=0").status == 0
    assert comparison.logged("embed") == ["4", "8"], "the train split, then all questions"


# ------------------------------------------------------------------------------------------------------------- cost


def finish(store: Store, name: str, outcome: dict[str, object]) -> Named:
    step = store.step(name)
    with step.lock():
        step.start({})
        step.complete(outcome)
    return Named(name, {})


def test_a_runs_cost_counts_each_step_that_it_uses_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    spent = {"seconds": 1.0, "peak_memory_bytes": 5, "bytes": 100, "trainable_parameters": 3}
    steps = {
        "index": finish(store, "index-a", spent | {"seconds": 0.5, "bytes": 7}),
        "train.0": finish(store, "train-a", spent | {"seconds": 10.0, "peak_memory_bytes": 50}),
        "train.1": finish(store, "train-b", spent | {"seconds": 20.0, "bytes": 200, "trainable_parameters": 4}),
        "train.teacher.0": Named("train-a", {}),
        "predict": finish(
            store,
            "predict-a",
            {
                "seconds": 4.0, "peak_memory_bytes": 9, "input_tokens": 60, "output_tokens": 6, "device": "cpu float32",
                "provenance": {"processor": "Abacus 3"},
            },
        ),
        "score.f1": finish(store, "score-a", {"seconds": 99.0}),
        "latency": finish(store, "latency-a", {"seconds_each": [0.5, 0.1, 0.2, 0.3, 0.4], "seconds": 3.0}),
    }  # fmt: skip
    cost = pipeline.cost(PlannedRun(variant=None, seed=0, steps=steps, weights="train.1"), store)  # type: ignore[arg-type]
    assert cost.train_seconds == 30
    assert cost.index_seconds == 0.5
    assert cost.answer_seconds == 4
    assert (cost.latency_p50_ms, cost.latency_n) == (300, 5)
    assert cost.latency_p95_ms == pytest.approx(480), "as numpy.percentile: between the two highest"
    assert (cost.input_tokens, cost.output_tokens) == (60, 6)
    assert cost.trainable_parameters == 4, "those of the last stage"
    assert cost.artifact_bytes == 207, "what it is used with: the last stage's artifact and the index"
    assert cost.peak_memory_bytes == 50
    assert cost.device == "Abacus 3 · cpu float32"


def test_a_prompted_run_has_no_cost_of_training_and_none_of_latency_that_was_not_measured(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", ONE)
    comparison.run("--set", "latency.examples=0")
    cost = comparison.board()["rows"][0]["cost"]
    assert (cost["train_seconds"], cost["index_seconds"], cost["trainable_parameters"], cost["artifact_bytes"]) == (
        0,
        0,
        0,
        0,
    )
    assert (cost["latency_p50_ms"], cost["latency_p95_ms"]) == (None, None)
    assert cost["answer_seconds"] > 0
    assert cost["peak_memory_bytes"] > 2**20


def test_latency_is_of_single_requests_on_a_sample_that_every_variant_shares(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one")
    comparison.run("--only", "plain", "--only", "rag", TOYS_ANSWER="0.02")
    for variant in ("plain", "rag"):
        timed = comparison.step(variant, "latency").outcome or {}
        assert len(timed["seconds_each"]) == 2
        assert all(0.02 <= seconds < 2 for seconds in timed["seconds_each"])
        assert timed["seconds"] >= 0.06, "the one that warms up counts in the total"
    asked = comparison.logged("answer")
    assert asked[8:11] == asked[19:22], "the same examples in the same order"
    assert len(set(asked[9:11])) == 2


def test_latency_is_asked_of_every_example_where_there_are_fewer_than_wanted(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", ONE)
    comparison.run("--set", "latency.examples=100")
    assert len((comparison.step("plain", "latency").outcome or {})["seconds_each"]) == len(FRUIT)


def test_an_answer_that_failed_has_no_latency(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", ONE)
    comparison.broken.write_text("apple\nbanana")
    comparison.run("--set", "latency.examples=8")
    assert len((comparison.step("plain", "latency").outcome or {})["seconds_each"]) == 6
