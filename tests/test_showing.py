"""What `harness show` tells: runs in short, their answers, and one example with all that was asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparison import Comparison

from harness import showing
from harness.errors import StoreError
from harness.snapshot import Snapshot
from harness.store import Store

VARIANTS = """
[[variant]]
name = "plain"

[[variant]]
name     = "rag"
retrieve = { kind = "toys:Words", top_k = 2 }

[[variant]]
name   = "faulty"
prompt = "toys:Faulty"
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    comparison = Comparison(tmp_path_factory.mktemp("showing") / "one", VARIANTS)
    comparison.broken.write_text("ripe apple")
    comparison.run()
    return comparison.store


@pytest.fixture(scope="module")
def snapshot(store: Store) -> Snapshot:
    return store.snapshot("latest")


def test_runs_are_chosen_by_variant_and_seed(snapshot: Snapshot) -> None:
    assert [run.variant for run in showing.runs(snapshot, None, None)] == ["plain", "rag", "faulty"]
    assert [run.variant for run in showing.runs(snapshot, "rag", 0)] == ["rag"]


def test_an_unknown_variant_or_seed_is_told_with_what_there_is(snapshot: Snapshot) -> None:
    with pytest.raises(StoreError, match=r"no variant 'rags' in fruit@1\. Did you mean 'rag'\?"):
        showing.runs(snapshot, "rags", None)
    with pytest.raises(StoreError, match=r"no run with seed 7 in fruit@1\. Available: 0\."):
        showing.runs(snapshot, "rag", 7)


def test_a_run_shows_its_first_answers_with_their_scores(store: Store, snapshot: Snapshot) -> None:
    (run,) = showing.runs(snapshot, "rag", 0)
    shown = showing.run(run, store, 2, snapshot)
    assert [answer["example"]["id"] for answer in shown["examples"]] == ["apple", "banana"]
    failed, good = shown["examples"]
    assert (failed["answer"], failed["error"]) == (None, "the line was bad")
    assert (good["answer"], good["scores"]) == ("yellow", {"exact_match": (0.0,), "recall@1": (1.0,)})
    text = showing.run_text(shown)
    assert "rag  (RAG, seed 0): complete" in text
    assert "  note: 1 of 8 examples have no answer and count as wrong" in text
    assert "    answer: FAILED: the line was bad" in text
    assert "    scores: exact_match 0, recall@1 1" in text
    assert run.steps["index"] in text
    assert "input_tokens" in text


def test_a_failed_run_shows_why_and_has_no_answers(store: Store, snapshot: Snapshot) -> None:
    (run,) = showing.runs(snapshot, "faulty", 0)
    shown = showing.run(run, store, 2, snapshot)
    assert shown["examples"] == []
    assert "the template names no question" in showing.run_text(shown)
    with pytest.raises(StoreError, match=r"faulty \(seed 0\) has no answers: it is failed\. the template"):
        showing.example(run, snapshot, store, "apple")


def test_a_run_that_failed_at_a_metric_shows_its_answers_and_the_scores_that_are_there(tmp_path: Path) -> None:
    broken = '[[metric]]\nkind = "toys:Length"\nfails_on = ""\n[[variant]]\nname = "plain"\n'
    comparison = Comparison(tmp_path / "one", broken)
    assert comparison.run().status == 1
    snapshot = comparison.store.snapshot("latest")
    (run,) = showing.runs(snapshot, "plain", 0)
    assert run.status == "failed"
    shown = showing.example(run, snapshot, comparison.store, "apple")
    assert (shown["answer"], shown["scores"]) == ("red", {"exact_match": (0.0,)})
    assert len(showing.run(run, comparison.store, 3, snapshot)["examples"]) == 3


def test_an_example_shows_all_that_was_asked_and_answered(store: Store, snapshot: Snapshot) -> None:
    (run,) = showing.runs(snapshot, "rag", 0)
    shown = showing.example(run, snapshot, store, "banana")
    text = showing.example_text(shown)
    for part in (
        "rag (seed 0)",
        "banana: What colour is a ripe banana?",
        "  gold:   yellow.",
        "  answer: yellow",
        "passage 1, banana#0, 3.000:\nThe banana is yellow when it is ripe.",
        "call 1: ",
        "[user] [banana] The banana is yellow when it is ripe.",
        "[answer] yellow",
    ):
        assert part in text


def test_an_answer_by_choice_shows_all_choices_with_their_log_probabilities_the_likeliest_first(tmp_path: Path) -> None:
    choosing = """
[[variant]]
name   = "plain"
decode = { kind = "choices", choices = ["green", "red", "bright red"], normalise = "bytes" }
"""
    comparison = Comparison(tmp_path / "one", choosing)
    comparison.run()
    snapshot = comparison.store.snapshot("latest")
    (run,) = showing.runs(snapshot, "plain", 0)
    text = showing.example_text(showing.example(run, snapshot, comparison.store, "apple"))
    assert text.partition("choices, the likeliest first:\n")[2].partition("\n\n")[0].splitlines() == [
        "  log-probability -0.6931 (1 tokens, 3 bytes; ranked by -0.2310): red",
        "  log-probability -7.6246 (2 tokens, 10 bytes; ranked by -0.7625): bright red",
        "  log-probability -14.5561 (1 tokens, 5 bytes; ranked by -2.9112): green",
    ]


def test_an_answer_that_was_written_has_no_choices_to_show(store: Store, snapshot: Snapshot) -> None:
    (run,) = showing.runs(snapshot, "rag", 0)
    assert "choices" not in showing.example_text(showing.example(run, snapshot, store, "banana"))


def test_an_unknown_example_is_told_with_what_is_near(store: Store, snapshot: Snapshot) -> None:
    (run,) = showing.runs(snapshot, "rag", 0)
    with pytest.raises(StoreError, match="Did you mean 'banana'"):
        showing.example(run, snapshot, store, "bananna")


def test_passages_without_a_score_and_hostile_text_are_shown_plainly(store: Store, snapshot: Snapshot) -> None:
    (run,) = showing.runs(snapshot, "rag", 0)
    shown = showing.example(run, snapshot, store, "banana")
    shown["prediction"]["passages"][0] |= {"score": None, "text": "\x1b[31mred"}
    assert "passage 1, banana#0:\nred\n" in showing.example_text(shown)
