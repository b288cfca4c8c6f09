"""The command line: what each word prints, where it goes, and the exit status."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from comparison import FRUIT, Comparison, Done, finish

from harness import tracking
from harness.cli import main

TWO = """
[[variant]]
name = "plain"

[[variant]]
name     = "rag"
retrieve = { kind = "toys:Words", top_k = 1 }
"""


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return Comparison(tmp_path / "one", TWO)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """One that has been run: for what only reads."""
    made = Comparison(tmp_path_factory.mktemp("cli") / "one", TWO)
    assert made.run().status == 0
    return made


def one_message(done: Done, status: int) -> str:
    """The only line on standard error."""
    assert (done.status, done.out) == (status, ""), done
    (line,) = done.err.splitlines()
    return line


# ------------------------------------------------------------------------------------------------------------ usage


def test_without_a_command_it_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    words = [
        "init",
        "check",
        "run",
        "list",
        "show",
        "leaderboard",
        "compare",
        "slices",
        "score",
        "models",
        "schema",
        "sync",
        "delete",
        "gc",
        "pack",
        "unpack",
    ]
    assert all(f"\n    {word}" in out for word in words)


@pytest.mark.parametrize(
    "arguments",
    [
        ["rum"],
        ["run"],
        ["run", "x.toml", "--limit", "0"],
        ["run", "x.toml", "--limit", "many"],
        ["run", "x.toml", "--display", "loud"],
        ["show", "latest", "--examples", "-1"],
        ["list", "--all"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage: harness" in capsys.readouterr().err


def test_a_limit_that_is_no_number_is_told_in_plain_words(comparison: Comparison) -> None:
    done = comparison.run("--limit", "many")
    assert "argument --limit: must be a whole number of at least 1, not 'many'" in done.err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("harness ")


# ------------------------------------------------------------------------------------------------------------ check


def test_a_sound_spec_is_told_with_its_variants_and_splits(comparison: Comparison) -> None:
    done = comparison.call("check", str(comparison.spec))
    assert done.status == 0
    assert "in order. 2 variants, 1 seed: 2 runs." in done.out
    assert "  rag  (RAG)" in done.out
    assert "train 4, dev 0, heldout 8, documents 12" in done.out
    assert not comparison.results.exists()


def test_check_gives_json(comparison: Comparison) -> None:
    found = comparison.call("check", str(comparison.spec), "--json").json
    assert found["variants"] == {"plain": "prompting", "rag": "RAG"}
    assert found["splits"] == {"train": 4, "dev": 0, "heldout": 8, "documents": 12}
    assert found["metrics"] == ["exact_match", "recall@1"]


def test_five_faults_are_five_messages_with_their_lines(comparison: Comparison) -> None:
    comparison.edit("max_batch = 3", "max_batch = 'three'")
    comparison.edit('kind = "recall"', 'kind = "recal"')
    comparison.edit('documents = "pages"', 'documents = "page"')
    comparison.edit("top_k = 1", "topk = 1")
    comparison.edit('name     = "rag"', 'name = "plain"')
    done = comparison.command("check", str(comparison.spec))
    assert (done.status, done.out) == (2, "")
    lines = done.err.splitlines()
    text = comparison.spec.read_text().splitlines()
    assert len(lines) == 5
    for line, wrong in zip(lines, ["max_batch", "documents", "recal", "plain", "topk"], strict=True):
        file, number, _ = line.split(":", 2)
        assert file == "fruit.toml"
        assert wrong in text[int(number.split()[0]) - 1], line


def test_notes_on_the_data_command_no_terminal(comparison: Comparison) -> None:
    (comparison.folder / "pages" / "x.\x1b]0;title\x07\x1b[31mred").write_text("")
    checked, ran = comparison.call("check", str(comparison.spec)), comparison.run("--only", "plain")
    for said in (checked.out, ran.err):
        assert "note: 1 files of other kinds" in said
        assert ".red" in said
        assert "\x1b" not in said


def test_messages_of_sync_command_no_terminal(comparison: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [tracking.Sent("\x1b[31mrun", False, "W&B said \x1b[2Jno")]
    monkeypatch.setattr(tracking, "sync", lambda store, experiment: iter(sent))
    done = comparison.call("sync")
    assert (done.status, done.out) == (1, "run: W&B said no\n")


@pytest.mark.parametrize("variant", ['train = ["toys:Steps"]', 'prompt = { kind = "few-shot", shots = 1 }'])
@pytest.mark.parametrize("word", ["check", "run"])
def test_nothing_is_learnt_from_rows_without_an_answer(comparison: Comparison, word: str, variant: str) -> None:
    comparison.edit('id        = "id"', 'id        = "id"\ntarget    = false')
    assert comparison.call(word, str(comparison.spec), "--set", "tracking.mode=off").status == 0
    comparison.write(comparison.spec.read_text() + f'\n[[variant]]\nname = "learns"\n{variant}\n')
    message = one_message(comparison.call(word, str(comparison.spec)), 1)
    assert message.startswith("learns: training and shots need rows with answers")
    assert "data.target" in message


@pytest.mark.parametrize("word", ["check", "run"])
def test_a_missing_spec_is_one_message(comparison: Comparison, word: str) -> None:
    assert "nowhere.toml" in one_message(comparison.call(word, "nowhere.toml"), 2)


def test_a_leak_is_refused_before_anything_runs(comparison: Comparison) -> None:
    shutil.copy(comparison.folder / "heldout.jsonl", comparison.folder / "train.jsonl")
    done = comparison.run()
    assert (done.status, done.out) == (1, "")
    assert "apple" in done.err
    assert "Traceback" not in done.err
    assert comparison.logged("open") == []


# -------------------------------------------------------------------------------------------------------------- run


def test_a_run_prints_its_leaderboard_and_where_the_results_lie(comparison: Comparison) -> None:
    done = comparison.run()
    assert done.status == 0
    assert "fruit@1" in done.out
    assert "exact_match" in done.out
    assert "rag: index documents …" in done.err
    assert done.err.splitlines()[-3:] == [
        f"Results: {comparison.results / 'experiments' / 'fruit' / '1'} (fruit@1)",
        "Page:    make app",
        "Answers: harness show fruit@1 VARIANT",
    ]
    again = comparison.run()
    assert "Nothing was missing" in again.err
    assert again.out == done.out


def test_a_dry_run_tells_the_steps_and_writes_nothing(comparison: Comparison) -> None:
    done = comparison.run("--dry-run")
    assert done.status == 0
    assert "index" in done.out
    assert "assumed rates" in done.out
    assert not comparison.results.exists()
    found = comparison.run("--dry-run", "--json").json
    assert {step["role"] for step in found["steps"]} == {
        "index", "predict", "score.exact_match", "score.recall@1", "latency",
    }  # fmt: skip
    assert found["seconds"] > 0
    assert found["measured"] is False
    assert "held-out examples" in done.out and "80 % power" in done.out
    assert found["statistics"]["n"] == 8 and list(found["statistics"]["minimum_detectable"]) == ["0.1", "0.2", "0.4"]
    only = comparison.run("--dry-run", "--json", "--only", "plain").json
    assert {name for step in only["steps"] for name in step["variants"]} == {"plain"}
    assert comparison.logged("") == []


def test_a_dry_run_after_a_run_finds_nothing_missing(finished: Comparison) -> None:
    first, second = finished.run("--dry-run").out.splitlines()
    assert first == "Nothing is missing: every step is in the store."
    assert second.startswith("Smallest difference between two shares of right answers that 8 held-out examples show")


def test_a_dry_run_says_by_the_variation_of_which_earlier_run_it_plans(comparison: Comparison) -> None:
    comparison.write_rows("heldout", FRUIT, "")
    comparison.run()
    said = comparison.run("--dry-run").out
    assert "If scores vary as in fruit@1 (8 held-out examples, exact_match against plain), the smallest" in said
    earlier = comparison.run("--dry-run", "--json").json["statistics"]["earlier"]
    (row,) = (row["vs_baseline"] for row in comparison.board()["rows"] if row["vs_baseline"])
    assert earlier["variants"]["rag"]["discordant"] == (row["wins"] + row["losses"]) / 8 > 0
    board = comparison.results / "experiments" / "fruit" / "1" / "leaderboard.json"
    board.chmod(0o644)
    board.write_text(board.read_text() + " ")
    assert comparison.run("--dry-run", "--json").json["statistics"]["earlier"] is None, "damaged"


def test_json_lines_end_with_the_leaderboard_and_nothing_else_is_printed(comparison: Comparison) -> None:
    done = comparison.command("run", str(comparison.spec), "--json")
    assert (done.status, done.err) == (0, "")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert {event["kind"] for event in events} == {"begin", "progress", "end", "leaderboard"}
    assert events[-1]["leaderboard"] == comparison.board()


def test_with_no_display_only_the_leaderboard_is_printed(comparison: Comparison) -> None:
    done = comparison.call("run", str(comparison.spec), "--display", "none")
    assert "fruit@1" in done.out
    assert [line.partition(":")[0] for line in done.err.splitlines()] == ["Results", "Page", "Answers"]


def test_only_runs_the_variants_it_names(comparison: Comparison) -> None:
    assert comparison.run("--only", "rag").status == 0
    assert {row["variant"]: row["status"] for row in comparison.board()["rows"]} == {
        "rag": "complete", "plain": "waiting",
    }  # fmt: skip
    comparison.forget()
    assert comparison.run().status == 0
    assert len(comparison.logged("answer")) == 8 + 3
    assert "no such variant. Did you mean 'rag'?" in one_message(comparison.run("--only", "rags"), 2)


def test_a_limit_answers_fewer_examples_in_a_snapshot_of_its_own(comparison: Comparison) -> None:
    assert comparison.run("--limit", "3").status == 0
    board = comparison.board()
    assert board["heldout"]["n"] == 3
    assert any("3 of 8 rows" in note for note in board["notes"])
    assert comparison.run().status == 0
    assert [summary["ref"] for summary in comparison.call("list", "--json").json] == ["fruit@2", "fruit@1"]
    assert comparison.board("fruit@1")["heldout"]["n"] == 3


def test_the_page_of_results_that_lie_elsewhere_is_told_with_their_place(comparison: Comparison) -> None:
    done = comparison.run("--only", "plain", "--results", "else where")
    assert "Page:    streamlit run app.py -- --results 'else where'\n" in done.err


def test_a_limit_never_raises_the_specs_own(comparison: Comparison) -> None:
    comparison.edit("[latency]", "heldout_limit = 4\n\n[latency]")
    for limit, answered in (("6", 4), ("3", 3)):
        assert comparison.run("--limit", limit).status == 0
        assert comparison.board()["heldout"]["n"] == answered
    assert comparison.run("--limit", "3", "--set", "data.heldout_limit=2").status == 0
    assert comparison.board()["heldout"]["n"] == 2


def test_set_changes_a_value_for_this_run(comparison: Comparison) -> None:
    assert comparison.run("--set", "variant.rag.retrieve.top_k=2", "--set", "question=Another?").status == 0
    (passages,) = {len(prediction.passages) for prediction in comparison.step("rag", "predict").predictions()}
    assert passages == 2
    assert comparison.board()["question"] == "Another?"
    assert "--set" in one_message(comparison.run("--set", "variant.rag.retrieve.topk=2"), 2)


def test_a_results_folder_that_cannot_be_made_is_one_message(comparison: Comparison) -> None:
    (comparison.folder / "file").write_text("")
    done = comparison.run("--results", str(comparison.folder / "file" / "results"))
    assert "--results" in one_message(done, 1)


def test_a_read_only_results_folder_is_one_message(comparison: Comparison) -> None:
    closed = Path("/sys/kernel")  # Permissions bind no superuser; this one nobody can write to.
    if os.geteuid():
        closed = comparison.results
        closed.mkdir(mode=0o555)
    done = comparison.run("--results", str(closed))
    message = one_message(done, 1)
    assert message.startswith(f"cannot write {closed}")
    assert "--results" in message


@pytest.mark.parametrize("word", ["run", "list", "show", "leaderboard", "gc"])
def test_results_of_a_newer_version_are_one_message(comparison: Comparison, word: str) -> None:
    comparison.results.mkdir()
    (comparison.results / "VERSION").write_text('{"format": 99}')
    done = comparison.call(word, *([str(comparison.spec)] if word == "run" else []))
    assert "newer harness (format 99" in one_message(done, 1)


def test_a_reader_that_leaves_early_stops_no_run(comparison: Comparison) -> None:
    process = comparison.start("run", str(comparison.spec), "--json", TOYS_ANSWER="0.02")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["kind"] == "begin"
    process.stdout.close()
    process.wait(timeout=60)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert comparison.call("list", "--json").json[0]["state"] == "complete"


# ---------------------------------------------------------------------------------------------- list, show, leaderboard


def test_list_on_no_results_says_how_to_make_some(comparison: Comparison) -> None:
    done = comparison.call("list")
    assert done.status == 0
    assert "No experiments in" in done.out
    assert "harness run SPEC" in done.out
    assert comparison.call("list", "--json").json == []
    assert not comparison.results.exists()


@pytest.mark.parametrize("word", ["show", "leaderboard", "pack"])
def test_latest_of_nothing_is_one_message(comparison: Comparison, word: str) -> None:
    assert "there is no result" in one_message(comparison.call(word), 1)


def test_list_tells_each_snapshot(finished: Comparison) -> None:
    done = finished.call("list")
    assert "fruit@1" in done.out
    assert "complete" in done.out
    assert "2 of 2" in done.out
    assert "Does reading help?" in done.out
    (summary,) = finished.call("list", "--json").json
    assert (summary["ref"], summary["state"], summary["runs"]) == ("fruit@1", "complete", 2)


@pytest.mark.parametrize("ref", ["latest", "fruit", "fruit@1"])
def test_show_takes_every_way_to_name_an_experiment(finished: Comparison, ref: str) -> None:
    done = finished.call("show", ref)
    assert done.status == 0
    assert "plain  (prompting, seed 0): complete" in done.out
    assert "rag  (RAG, seed 0): complete" in done.out
    assert "gold:" not in done.out


def test_show_of_a_variant_shows_as_many_answers_as_asked_for(finished: Comparison) -> None:
    assert finished.call("show", "latest", "rag").out.count("gold:") == 5
    assert finished.call("show", "latest", "rag", "--examples", "2").out.count("gold:") == 2
    (shown,) = finished.call("show", "latest", "rag", "--json").json
    assert [answer["example"]["id"] for answer in shown["examples"]][:2] == ["apple", "banana"]


def test_show_of_an_example_shows_every_variants_answer_to_it(finished: Comparison) -> None:
    done = finished.call("show", "latest", "--example", "fig")
    assert done.out.count("fig: What colour is a ripe fig?") == 2
    assert "passage 1, fig#0" in done.out
    (shown,) = finished.call("show", "latest", "rag", "--example", "fig", "--json").json
    assert shown["prediction"]["passages"][0]["document"] == "fig"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "fruits"], "no experiment 'fruits' in"),
        (["show", "fruits"], "Did you mean 'fruit'?"),
        (["show", "fruit@7"], "Available: fruit@1."),
        (["show", "latest", "rug"], "no variant 'rug' in fruit@1. Did you mean 'rag'?"),
        (["show", "latest", "rag", "--example", "figg"], "Did you mean 'fig'?"),
        (["show", "latest", "rag", "--seed", "3"], "no run with seed 3"),
        (["leaderboard", "nothing"], "no experiment 'nothing'"),
        (["delete", "nothing"], "no experiment or step 'nothing'"),
        (["unpack", "nowhere.zip"], "nowhere.zip"),
    ],
)
def test_what_is_not_there_is_one_message(finished: Comparison, arguments: list[str], said: str) -> None:
    assert said in one_message(finished.call(*arguments), 1)


COST = {
    "train_seconds", "index_seconds", "answer_seconds", "latency_p50_ms", "latency_p95_ms", "input_tokens",
    "output_tokens", "trainable_parameters", "artifact_bytes", "peak_memory_bytes",
}  # fmt: skip


def test_the_leaderboard_as_json_has_the_agreed_keys(finished: Comparison) -> None:
    board: dict[str, Any] = finished.call("leaderboard", "fruit", "--json").json
    assert board["experiment"] == "fruit"
    assert board["primary"] == "exact_match"
    assert board["heldout"]["n"] == 8
    assert len(board["heldout"]["fingerprint"]) == 64
    rows = {row["variant"]: row for row in board["rows"]}
    for name, row in rows.items():
        assert {"variant", "family", "seeds", "status", "metrics", "cost", "vs_baseline"} <= row.keys()
        assert set(row["cost"]) == COST
        for measured in filter(None, row["metrics"].values()):
            assert {"value", "ci_low", "ci_high", "n", "errors"} <= measured.keys()
        if name == "plain":
            assert row["vs_baseline"] is None
        else:
            assert {"difference", "ci_low", "ci_high"} <= row["vs_baseline"].keys()
    assert rows["plain"]["metrics"]["recall@1"] is None, "it does not retrieve"
    assert rows["rag"]["metrics"]["recall@1"]["value"] == 1


def test_the_leaderboard_as_markdown_is_the_one_that_was_saved(finished: Comparison) -> None:
    done = finished.call("leaderboard", "--markdown")
    assert done.status == 0
    assert "| exact" in done.out
    assert done.out.strip() == (finished.results / "experiments/fruit/1/leaderboard.md").read_text().strip()


def test_the_leaderboard_as_a_table_is_what_the_run_printed(comparison: Comparison) -> None:
    assert comparison.run().out == comparison.call("leaderboard").out


# --------------------------------------------------------------------------------------------------- housekeeping


def test_an_experiment_moves_between_machines_as_one_archive(comparison: Comparison, tmp_path: Path) -> None:
    comparison.run()
    board, archive = comparison.board(), str(tmp_path / "moved.zip")
    packed = comparison.call("pack", "fruit", "-o", archive)
    assert (packed.status, packed.out) == (0, "")
    assert archive in packed.err
    comparison.results = tmp_path / "elsewhere"
    assert comparison.call("unpack", archive).err == "unpacked fruit@1\n"
    assert comparison.board() == board
    comparison.forget()
    assert "Nothing was missing" in comparison.run().err
    assert comparison.logged("") == []


def test_a_packed_archive_is_named_after_its_snapshot(comparison: Comparison) -> None:
    comparison.run()
    assert comparison.call("pack").status == 0
    assert (comparison.folder / "fruit-1.zip").is_file()
    assert "is there already" in one_message(comparison.call("pack"), 1)


def test_what_a_deleted_experiment_leaves_is_freed_by_gc_on_request(comparison: Comparison) -> None:
    comparison.run()
    assert comparison.call("gc").out == "Everything in the results is in use.\n"
    done = comparison.call("delete", "fruit")
    assert (done.status, "deleted fruit@1" in done.err) == (0, True)
    listed = comparison.call("gc", "--json").json
    assert {item["name"].split("-")[0] for item in listed} >= {"steps/index", "steps/predict", "steps/score"}
    steps = list((comparison.results / "steps").iterdir())
    assert "harness gc --yes" in comparison.call("gc").out
    assert list((comparison.results / "steps").iterdir()) == steps
    assert "removed" in comparison.call("gc", "--yes").out
    assert list((comparison.results / "steps").iterdir()) == []


def test_what_finds_nothing_to_do_makes_no_results_folder(comparison: Comparison, tmp_path: Path) -> None:
    assert comparison.call("gc").out == "Everything in the results is in use.\n"
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("manifest.json", '{"format": 1, "ref": "x@1", "files": {"../x": [1, "0"]}}')
    (tmp_path / "text.zip").write_text("no archive")
    for name in ("nowhere.zip", "text.zip", "other.zip"):
        assert name in one_message(comparison.call("unpack", str(tmp_path / name)), 1)
        assert not comparison.results.exists()


def test_a_bad_archive_leaves_results_that_were_there(finished: Comparison, tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("no archive")
    assert finished.call("unpack", str(tmp_path / "text.zip")).status == 1
    assert finished.call("list", "--json").json[0]["state"] == "complete"


def test_init_check_and_run_lead_to_a_leaderboard(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", TWO)
    done = comparison.call("init", str(tmp_path / "new"))
    assert done.status == 0
    spec = str(tmp_path / "new" / "comparison.toml")
    assert f"harness check {spec}" in done.err
    assert comparison.call("check", spec).status == 0
    Path(spec).write_text(Path(spec).read_text().partition("[[variant]]")[0] + TWO)
    dry = ["--set", 'model={kind="canned", default="9"}', "--set", "tracking.mode=off"]
    assert comparison.call("run", spec, *dry, "--only", "plain").status == 0
    assert "nothing was written" in one_message(comparison.call("init", str(tmp_path / "new")), 2)


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"


def test_unknown_models_are_one_message(comparison: Comparison) -> None:
    message = one_message(comparison.call("models", "fetch", "smollm2-135m"), 2)
    assert "no built-in model 'smollm2-135m'. Did you mean 'smollm2-135m-instruct'?" in message


def test_it_runs_as_a_module_too(comparison: Comparison) -> None:
    done = finish(comparison.start("--version"))
    assert (done.status, done.out[:8]) == (0, "harness ")
