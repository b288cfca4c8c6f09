"""Runs that fail, are killed, stopped, repeated, or shared by two processes."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from comparison import VARIANTS, Comparison, Done, finish, kill, wait_for
from test_fit import alive, until

from harness import runner
from harness.methods._rows import Tally
from harness.plan import Named, PlannedRun
from harness.spec import Variant
from harness.store import Store

ONE = '[[variant]]\nname = "plain"\n'
STAGES = {"first": 3, "second": 40, "third": 2}
TRAINED = f'{ONE}\n[[variant]]\nname = "lora"\ntrain = ["toys:Steps"]\n'
LENGTH = '[[metric]]\nkind = "toys:Length"\n'


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return Comparison(tmp_path / "one")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the comparison with a metric of ours comes to."""
    made = Comparison(tmp_path_factory.mktemp("undisturbed") / "one", LENGTH + VARIANTS)
    assert made.run().status == 0
    return made.values()


def check_quiet(done: Done) -> None:
    assert "Traceback" not in done.out + done.err


# ------------------------------------------------------------------------------------------------------------ kills


def acknowledged(comparison: Comparison) -> set[str]:
    """The questions that a killed process had saved answers to."""
    (step,) = (step for step in comparison.store.steps() if step.outcome is None and step.name.startswith("predict"))
    return {call.messages[-1].content for batch in step.recovered() for p in batch for call in p.calls}


def test_killed_while_answering_it_goes_on_and_answers_nothing_twice(
    tmp_path: Path, undisturbed: dict[str, dict[str, Any]]
) -> None:
    comparison = Comparison(tmp_path / "one", LENGTH + VARIANTS)
    process = comparison.start_run(TOYS_ANSWER="0.4")
    wait_for(lambda: len(comparison.logged("answer")) == 5, process)
    kill(process)
    saved = acknowledged(comparison)
    assert len(saved) == 3, "one batch"
    spent = json.loads(next(comparison.results.glob("steps/predict-*/work/meter.json")).read_text())["seconds"]
    before = comparison.logged("answer")
    assert comparison.call("list", "--json").json[0]["state"] == "interrupted"

    assert comparison.run().status == 0
    assert comparison.values() == undisturbed
    # The rest of the eight questions of "plain", then those that time single answers.
    assert saved.isdisjoint(comparison.logged("answer")[len(before) : len(before) + 5])
    assert len(comparison.logged("answer")) == 5 * (8 + 3) + 2, "only the two of the torn batch were asked twice"
    assert comparison.step("plain", "predict").outcome["seconds"] >= spent >= 1  # type: ignore[index]


def test_killed_while_training_it_goes_on_from_the_checkpoint_and_no_child_lives_on(
    tmp_path: Path, undisturbed: dict[str, dict[str, Any]]
) -> None:
    comparison = Comparison(tmp_path / "one", LENGTH + VARIANTS)
    process = comparison.start_run(TOYS_STEP="0.4")
    wait_for(lambda: comparison.logged("train 3"), process)
    child = int(comparison.logged("train from")[-1].split()[-1])
    kill(process)
    until(lambda: not alive(child), 10)
    answers = len(comparison.logged("answer"))

    assert comparison.run().status == 0
    assert comparison.values() == undisturbed
    trained = [line for line in comparison.logged("train") if not line.startswith("from")]
    assert trained[:4] in (["1", "2", "3", "4"], ["1", "2", "3", "3"]), "a step that was in work may be done again"
    assert answers == 2 * (8 + 3)
    assert len(comparison.logged("answer")) == 5 * (8 + 3), "what was answered before stays"
    assert comparison.step("lora", "train.0").outcome["seconds"] >= 1  # type: ignore[index]


def test_killed_while_scoring_it_answers_nothing_again(tmp_path: Path, undisturbed: dict[str, dict[str, Any]]) -> None:
    comparison = Comparison(tmp_path / "one", LENGTH + VARIANTS)
    process = comparison.start_run(TOYS_MEASURE="0.3")
    wait_for(lambda: len(comparison.logged("measure")) == 2, process)
    kill(process)
    assert comparison.run().status == 0
    assert comparison.values() == undisturbed
    assert len(comparison.logged("answer")) == 5 * (8 + 3)


def test_killed_again_and_again_it_ends_the_same(tmp_path: Path, undisturbed: dict[str, dict[str, Any]]) -> None:
    comparison = Comparison(tmp_path / "one", LENGTH + VARIANTS)
    for lines in (4, 14, 19, 30, 50):
        process = comparison.start_run(TOYS_ANSWER="0.02", TOYS_STEP="0.05")
        log = comparison.log
        wait_for(lambda: log.exists() and len(log.read_text().splitlines()) >= lines, process)  # noqa: B023
        kill(process)
    assert comparison.run().status == 0
    assert comparison.values() == undisturbed


# ----------------------------------------------------------------------------------------------------------- Ctrl-C


def test_the_first_interrupt_finishes_the_batch_and_saves(comparison: Comparison, tmp_path: Path) -> None:
    process = comparison.start_run(TOYS_ANSWER="0.3")
    wait_for(lambda: comparison.logged("answer"), process)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.status == 130
    check_quiet(done)
    assert "stopping after this batch" in done.err
    assert "goes on from there" in done.err
    assert len(acknowledged(comparison)) == len(comparison.logged("answer")) == 3
    comparison.forget()
    assert comparison.run("--only", "plain").status == 0
    assert len(comparison.logged("answer")) == 5 + 3


def test_the_second_interrupt_stops_at_once(comparison: Comparison) -> None:
    process = comparison.start_run(TOYS_ANSWER="3600")
    wait_for(lambda: comparison.logged("answer"), process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.status == 130
    check_quiet(done)


def test_an_interrupt_while_training_saves_the_checkpoint(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", TRAINED)
    process = comparison.start_run("--set", "variant.lora.train.0.steps=100", TOYS_STEP="0.1")
    wait_for(lambda: comparison.logged("train 2"), process)
    child = int(comparison.logged("train from")[-1].split()[-1])
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.status == 130
    check_quiet(done)
    assert not alive(child)
    assert comparison.run("--set", "variant.lora.train.0.steps=100").status == 0
    steps = [int(line) for line in comparison.logged("train") if not line.startswith("from")]
    assert steps == list(range(1, 101)), "no step was done twice"


def test_an_interrupt_in_the_second_of_three_stages_loses_none_of_them(tmp_path: Path) -> None:
    stages = ", ".join(f'{{ kind = "toys:Steps", name = "{name}", steps = {n} }}' for name, n in STAGES.items())
    comparison = Comparison(tmp_path / "one", f'{ONE}\n[[variant]]\nname = "three"\ntrain = [{stages}]\n')
    process = comparison.start_run(TOYS_STEP="0.05")
    wait_for(lambda: len(comparison.logged("train")) > STAGES["first"] + 6, process)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.status == 130
    check_quiet(done)
    assert comparison.run().status == 0
    steps = [line.split()[0] for line in comparison.logged("train") if not line.startswith("from")]
    assert steps == [str(step) for count in STAGES.values() for step in range(1, count + 1)], "none was done twice"
    assert len(comparison.logged("train from")) == 4
    assert {run["status"] for run in comparison.call("show", "fruit", "--json").json} == {"complete"}


def test_a_second_interrupt_while_training_ends_the_child_at_once(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", TRAINED)
    process = comparison.start_run(TOYS_STEP="3600")
    wait_for(lambda: comparison.logged("train from"), process)
    child = int(comparison.logged("train from")[-1].split()[-1])
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert (done.status, alive(child)) == (130, False)
    check_quiet(done)


# ------------------------------------------------------------------------------------------------- two processes


def test_two_processes_on_one_spec_do_each_step_once(tmp_path: Path, undisturbed: dict[str, dict[str, Any]]) -> None:
    comparison = Comparison(tmp_path / "one", LENGTH + VARIANTS)
    both = [comparison.start_run(TOYS_ANSWER="0.02", TOYS_STEP="0.1") for _ in range(2)]
    for done in [finish(process) for process in both]:
        assert done.status == 0, done.err
    assert comparison.values() == undisturbed
    assert len(comparison.logged("index")) == 1
    assert len(comparison.logged("train from")) == 2
    assert len(comparison.logged("answer")) == 5 * (8 + 3)
    assert len(comparison.logged("measure")) == 5 * 8
    assert [summary["ref"] for summary in comparison.call("list", "--json").json] == ["fruit@1"]


def test_who_waits_for_another_process_says_so_and_can_be_stopped_at_once(comparison: Comparison) -> None:
    working = comparison.start_run(TOYS_ANSWER="1")
    wait_for(lambda: comparison.logged("answer"), working)
    waiting = comparison.start_run()
    assert waiting.stderr is not None
    said = next(line for line in waiting.stderr if "waiting" in line)
    assert said == "plain: answer: another process is doing it; waiting for it\n"
    time.sleep(0.2)
    waiting.send_signal(signal.SIGINT)
    done = finish(waiting, timeout=10)
    assert done.status == 130
    check_quiet(done)
    kill(working)


# ---------------------------------------------------------------------------------------------------------- failures

FAILING = f"""
{ONE}
[[variant]]
name   = "faulty"
prompt = "toys:Faulty"

[[variant]]
name   = "slip"
prompt = {{ kind = "toys:Faulty", fault = "bug" }}

[[variant]]
name  = "trained"
train = [{{ kind = "toys:Steps", fault = "bug" }}]

[[variant]]
name     = "rag"
retrieve = {{ kind = "toys:Words", top_k = 1 }}
"""


def test_a_variant_that_fails_stops_no_other_and_is_kept_as_failed(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", FAILING)
    done = comparison.run()
    assert done.status == 1
    rows = {row["variant"]: row for row in comparison.board()["rows"]}
    assert {name: row["status"] for name, row in rows.items()} == {
        "plain": "complete", "rag": "complete", "faulty": "failed", "slip": "failed", "trained": "failed",
    }  # fmt: skip
    assert rows["faulty"]["error"] == "the template names no question"
    assert rows["slip"]["error"] == "ValueError: a slip in the prompt"
    assert rows["trained"]["error"].endswith("met a fault: ValueError: a slip in the method")
    assert "faulty FAILED: the template names no question" in done.err
    assert done.err.count("Traceback") == 3, "of the slip; of the training, and of its child"
    assert "toys.py" in done.err


def test_running_again_tries_only_what_failed(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", FAILING)
    comparison.run()
    comparison.forget()
    assert comparison.run().status == 1
    assert comparison.logged("answer") == []
    assert comparison.logged("index") == []
    assert len(comparison.logged("train from")) == 1
    assert [summary["ref"] for summary in comparison.call("list", "--json").json] == ["fruit@1"]


def test_a_failed_run_that_succeeds_later_takes_its_place_in_the_same_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    comparison = Comparison(tmp_path / "one", TRAINED)
    comparison.edit('"toys:Steps"', '{ kind = "toys:Steps", fault = "memory" }')
    assert comparison.run(TOYS_NO_MEMORY="1").status == 1
    assert comparison.call("list", "--json").json[0]["state"] == "failed"
    assert comparison.run().status == 0
    (summary,) = comparison.call("list", "--json").json
    assert (summary["state"], summary["failed"], summary["winner"]) == ("complete", 0, "lora")


def test_failed_examples_stay_in_the_denominator_and_are_counted(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", TRAINED)
    comparison.edit("max_batch = 3", 'max_batch = 3\nfail_on = ["apple", "fig"]')
    done = comparison.run()
    assert done.status == 0
    row = next(row for row in comparison.board()["rows"] if row["variant"] == "lora")
    assert {key: row["metrics"]["exact_match"][key] for key in ("value", "n", "errors")} == {
        "value": 1 / 8, "n": 8, "errors": 2,
    }  # fmt: skip
    assert row["notes"] == ["2 of 8 examples have no answer and count as wrong"]
    assert "2 of 8 examples have no answer" in done.out


def test_a_run_of_which_every_example_failed_is_a_failed_run(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", TRAINED)
    comparison.broken.write_text("What")
    done = comparison.run()
    assert done.status == 1
    (row, _) = comparison.board()["rows"]
    assert row["status"] == "failed"
    assert row["error"] == (
        "not one of 8 examples was answered; the first: the line was bad. `harness run --retry-errors` asks them again."
    )
    comparison.broken.unlink()
    assert comparison.run("--retry-errors").status == 0


def test_failed_examples_are_asked_again_only_on_request_and_the_leaderboard_says_so(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", TRAINED)
    comparison.broken.write_text("apple\nfig")
    comparison.run()
    first = comparison.step("plain", "predict").outcome or {}
    comparison.forget()
    assert comparison.run().status == 0
    assert comparison.logged("answer") == [], "nothing is missing"

    comparison.broken.write_text("fig")
    assert comparison.run("--retry-errors").status == 0
    asked = ["What colour is a ripe apple?", "What colour is a ripe fig?"]
    assert comparison.logged("answer") == asked * 2
    row = next(row for row in comparison.board()["rows"] if row["variant"] == "lora")
    assert row["notes"] == [
        "failed examples that were answered again (--retry-errors): 2",
        "1 of 8 examples have no answer and count as wrong",
    ]
    assert (row["metrics"]["exact_match"]["value"], row["metrics"]["exact_match"]["errors"]) == (2 / 8, 1)
    second = comparison.step("plain", "predict").outcome or {}
    assert second["seconds"] > first["seconds"], "the answers that were kept had their cost too"
    assert second["input_tokens"] == first["input_tokens"] + 6

    comparison.forget()
    comparison.broken.unlink()
    assert comparison.run().status == 0
    assert comparison.logged("answer") == []
    assert comparison.call("leaderboard", "--json").json["rows"][0]["notes"] == row["notes"], "it keeps the attempt"
    assert comparison.run("--retry-errors").status == 0
    assert comparison.logged("answer") == asked[1:] * 2
    row = next(row for row in comparison.board()["rows"] if row["variant"] == "lora")
    assert row["notes"] == ["failed examples that were answered again (--retry-errors): 2"]


def test_only_the_variants_that_are_named_are_asked_again(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", TRAINED)
    comparison.broken.write_text("apple")
    comparison.run()
    comparison.broken.unlink()
    assert comparison.run("--retry-errors", "--only", "lora").status == 0
    errors = {row["variant"]: row["metrics"]["exact_match"]["errors"] for row in comparison.board()["rows"]}
    assert errors == {"lora": 0, "plain": 1}
    assert {row["status"] for row in comparison.board()["rows"]} == {"complete"}


def test_a_metric_that_fails_on_an_example_counts_it_at_the_floor_with_a_note(tmp_path: Path) -> None:
    metric = '[[metric]]\nkind = "toys:Length"\nfails_on = "red"\n'
    comparison = Comparison(tmp_path / "one", metric + TRAINED)
    assert comparison.run().status == 0
    row = next(row for row in comparison.board()["rows"] if row["variant"] == "plain")
    assert (row["metrics"]["Length"]["n"], row["metrics"]["Length"]["errors"]) == (8, 1)
    assert row["notes"] == ["Length failed on 1 of 8 examples; the first, apple: ValueError: nothing is known of red"]


def test_a_metric_that_fails_on_every_example_fails_the_run_with_one_message(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", '[[metric]]\nkind = "toys:Length"\nfails_on = ""\n' + TRAINED)
    done = comparison.run()
    assert done.status == 1 and "Traceback" not in done.err
    row = next(row for row in comparison.board()["rows"] if row["variant"] == "plain")
    assert row["status"] == "failed"
    assert row["error"].startswith("Length failed on all 8 answers that it speaks of; the first, apple: ValueError")


def test_rows_that_a_length_limit_took_are_told(tmp_path: Path) -> None:
    store, steps = Store(tmp_path / "results"), {}
    counts = {
        "train.0": Tally(rows=352, cut=12, dropped=0, lost_answer_tokens=40).named("train"),
        "train.1": Tally(rows=352, cut=0, dropped=3, lost_answer_tokens=9).named("train")
        | Tally(rows=24, cut=2, dropped=1, lost_answer_tokens=9).named("dev"),
        "train.2": {"stopped_early": False},
    }
    for role, details in counts.items():
        steps[role] = Named(f"train-{role}", {})
        store.step(steps[role].name).start({})
        store.step(steps[role].name).complete({"details": details})
    run = PlannedRun(Variant(name="lora"), 0, steps)
    assert runner._notes(run, store) == (
        "12 of 352 training rows lost the end of their answer to max_length",
        "3 of 352 training rows lost their whole answer to max_length and were left out in stage 2",
        "2 of 24 dev rows lost the end of their answer to max_length in stage 2",
        "1 of 24 dev rows lost their whole answer to max_length and were left out in stage 2",
    )


def test_a_step_that_was_deleted_is_done_again(tmp_path: Path) -> None:
    """What the message about a damaged step promises."""
    comparison = Comparison(tmp_path / "one", ONE)
    comparison.run()
    before = comparison.values()
    step = comparison.step("plain", "predict")
    (step.path / "complete.json").write_text("{}")
    done = comparison.run()
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert f"`harness delete {step.name}` removes the step; the next run does it again" in done.err
    assert comparison.call("delete", step.name).status == 0
    comparison.forget()
    assert comparison.run().status == 0
    assert len(comparison.logged("answer")) == 8
    assert comparison.values() == before


# ----------------------------------------------------------------------------------------------------------- privacy


def test_results_hold_nothing_of_the_machine(tmp_path: Path) -> None:
    variants = VARIANTS + '\n[[variant]]\nname = "from-elsewhere"\nadapter = "elsewhere"\n' + FAILING.replace(ONE, "")
    comparison = Comparison(
        tmp_path / "one", variants.replace('name     = "rag"\nretrieve = { kind', 'name = "rag2"\nretrieve = { kind', 1)
    )
    elsewhere = comparison.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "adapter_model.safetensors").write_text("weights")
    (elsewhere / "artifact.json").write_text('{"ending": "."}')
    comparison.write(comparison.spec.read_text().replace('fault = "bug"', 'fault = "path"'))
    assert comparison.run().status == 1
    assert comparison.board()["rows"][-1]["error"] == "cannot read ./secret or RESULTS/thing or ~/thing"
    told = [str(tmp_path), str(tmp_path.name), str(Path.home()), socket.gethostname()]
    held = [file for file in comparison.results.rglob("*") if file.is_file() and "/work/" not in str(file)]
    assert len(held) > 50
    for file in held:
        content = file.read_text(encoding="utf-8", errors="replace")
        assert not [word for word in told if word in content], file
    assert '"adapter": "elsewhere"' in (comparison.results / "experiments/fruit/1/snapshot.json").read_text()


def test_notes_hold_nothing_of_the_machine_either(tmp_path: Path) -> None:
    metric = f'[[metric]]\nkind = "toys:Length"\nfails_on = "{Path.home()}"\n'
    comparison = Comparison(tmp_path / "one", metric + ONE)
    comparison.edit('default   = "no idea"', f'default   = "{Path.home()}/thing"')
    assert comparison.run().status == 0
    (note,) = comparison.board()["rows"][0]["notes"]
    assert note.endswith("ValueError: nothing is known of ~")


def test_two_seeds_are_two_runs_in_one_row(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", TRAINED)
    comparison.edit('baseline = "plain"', 'baseline = "plain"\nseeds = [0, 1]')
    done = comparison.run()
    assert done.status == 0
    assert [row["seeds"] for row in comparison.board()["rows"]] == [[0, 1], [0, 1]]
    assert len(comparison.logged("train from")) == 2
    assert len(comparison.logged("answer")) == 3 * (8 + 3), "the untrained variant answers for both seeds at once"
    assert "lora (seed 1): train" in done.err


def test_variants_can_be_run_one_by_one_in_any_order(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", TRAINED)
    for variant, state in (("lora", "interrupted"), ("plain", "complete")):
        assert comparison.run("--only", variant).status == 0
        assert comparison.call("list", "--json").json[0]["state"] == state
    whole = Comparison(tmp_path / "two", TRAINED)
    whole.run()
    assert comparison.values() == whole.values()
    assert not list(comparison.results.glob("steps/*/work")), "no partial work is left"
