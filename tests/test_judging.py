"""`harness judge`: pairwise verdicts of judges with known habits, controls, and work that survives a kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import written_store as written

from harness import archive, judging, pairwise, results, verdicts
from harness.cli import main
from harness.errors import HarnessError, SpecError
from harness.store import Snapshot, Store
from harness.verdicts import Verdict

TESTS = Path(__file__).resolve().parent
TWO = (written.VARIANTS[0], written.VARIANTS[4])
PAIR = 24 * 2
CONTROLS = 2 * 2 * 6


def judge_file(folder: Path, kind: str = "Fair", more: str = "") -> Path:
    file = folder / f"{kind.lower()}.toml"
    lines = ['rubric = "Which answer is right?"', "controls = 6", more, "[model]", f'kind = "judges:{kind}"']
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUDGES_LOG", str(tmp_path / "asked.txt"))
    return tmp_path / "asked.txt"


def asked(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


Written = tuple[Store, Snapshot]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Written]:
    """An experiment of two variants, zero-shot (the baseline) and raft, which is much better."""
    store, snapshot = written.write(tmp_path / "results", TWO)
    yield store, snapshot
    snapshot.close()


def run(store: Store, snapshot: Snapshot, file: Path, *settings: str) -> dict[str, Any]:
    judging.judge(judging.load(file, settings), snapshot, store, lambda event: None)
    return told(store, snapshot)[-1]


def told(store: Store, snapshot: Snapshot) -> list[dict[str, Any]]:
    return verdicts.read(results.read(snapshot, store), store)


def outcomes(store: Store, snapshot: Snapshot) -> dict[str, float]:
    found = results.read(snapshot, store)
    bouts, _ = verdicts.bouts(verdicts.judges(found, store)[0], found)
    return {bout.example: bout.outcome for bout in bouts}


# ------------------------------------------------------------------------------------------------------ the verdicts


def test_a_fair_judge_finds_the_better_variant_and_no_control_wins(two: Written, tmp_path: Path) -> None:
    found = run(*two, judge_file(tmp_path))
    (row,) = found["comparisons"]
    scores = {variant.name: variant.values("exact_match") for variant in results.read(two[1], two[0]).variants}
    expected = [0.5 + 0.5 * (a or 0) - 0.5 * (b or 0) for a, b in zip(scores["raft"], scores["zero-shot"], strict=True)]
    assert (row["ours"], row["theirs"], row["n"], row["groups"]) == ("raft", "zero-shot", 24, 8)
    assert row["win_rate"] == pytest.approx(sum(expected) / 24)
    assert (row["wins"], row["losses"]) == (expected.count(1.0), expected.count(0.0))
    assert row["ci_low"] < row["win_rate"] < row["ci_high"]
    assert row["unparsed"] == row["order_dependent"] == 0
    assert row["first_wins"] == 0.5
    assert row["verdict"] == "better" and row["p_adjusted"] < 0.05
    for control in found["controls"]:
        assert control["null"]["win_rate"] <= 0.5 >= control["injected"]["win_rate"]
    raft = next(control for control in found["controls"] if control["variant"] == "raft")
    assert raft["null"]["win_rate"] < 0.3
    assert found["notes"][-1].startswith("One seed: intervals, tests and the ranking speak of other examples")


def test_a_judge_that_prefers_the_first_answer_makes_ties_and_is_found_out(two: Written, tmp_path: Path) -> None:
    found = run(*two, judge_file(tmp_path, "First"))
    (row,) = found["comparisons"]
    assert row["win_rate"] == 0.5
    assert row["ties"] == 24
    assert row["order_dependent"] == row["first_wins"] == 1
    assert row["verdict"] == "cannot tell"
    assert any("In 100% of the pairs the verdict changed with the order" in note for note in found["notes"])
    assert any("DO NOT TRUST" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("kind", "control", "said"),
    [("Gullible", "injected", "a text that only tells it to"), ("Kind", "null", "a text that says nothing")],
)
def test_a_judge_that_falls_for_a_control_is_named(
    two: Written, tmp_path: Path, kind: str, control: str, said: str
) -> None:
    found = run(*two, judge_file(tmp_path, kind))
    assert all(row[control]["win_rate"] == 1 for row in found["controls"])
    assert any(f"DO NOT TRUST THIS JUDGE: it prefers {said}" in note for note in found["notes"])


def test_a_fair_judge_of_a_variant_that_is_no_better_than_nothing_is_not_called_untrustworthy(
    two: Written, tmp_path: Path
) -> None:
    found = run(*two, judge_file(tmp_path))
    assert [control["null"]["win_rate"] for control in found["controls"] if control["variant"] == "zero-shot"] == [0.5]
    assert not any("DO NOT TRUST" in note for note in found["notes"])
    (note, _) = [note for note in found["notes"] if note.startswith("To this judge")]
    assert "a text that says nothing is worth no less than the answers of zero-shot (50%)" in note
    assert "It does prefer those of raft (" in note


def test_verdicts_that_cannot_be_read_are_counted_and_give_no_number(two: Written, tmp_path: Path) -> None:
    found = run(*two, judge_file(tmp_path, "Mumbles"))
    (row,) = found["comparisons"]
    assert row["win_rate"] is row["p"] is None
    assert row["method"] == f"n/a (none of {row['asked']} verdicts could be read)"
    assert row["unparsed"] == row["asked"] > 0
    assert found["ranking"]["rows"] == []
    assert all(control["null"]["win_rate"] is None for control in found["controls"])


def test_a_few_verdicts_that_cannot_be_read_are_ties_with_what_they_could_change(two: Written, tmp_path: Path) -> None:
    found = run(*two, judge_file(tmp_path), 'model.fail_on=["Brio"]')
    (row,) = found["comparisons"]
    assert row["unparsed"] == 2
    low, high = row["win_rate_if_unparsed"]
    assert (low, high) == pytest.approx((row["win_rate"] - 1 / 24, row["win_rate"] + 1 / 24))
    assert any("pairs have a verdict that could not be read" in note for note in found["notes"])


def test_equal_answers_tie_and_failed_ones_lose_without_a_question(tmp_path: Path, log: Path) -> None:
    same = replace(written.VARIANTS[0], name="rag")  # its eighth answer fails, as written_store has it
    store, snapshot = written.write(tmp_path / "results", (written.VARIANTS[0], same))
    found = run(store, snapshot, judge_file(tmp_path))
    (row,) = found["comparisons"]
    assert row["failed"] == 1
    assert row["same"] > 0
    assert row["asked"] + row["same"] + row["failed"] == row["n"] == 24
    assert outcomes(store, snapshot)[written.examples()[7].id] == 0
    assert asked(log) == 2 * (row["asked"] + sum(control["null"]["asked"] * 2 for control in found["controls"]))


def test_several_seeds_are_averaged_and_all_pairs_are_ranked(tmp_path: Path) -> None:
    variants = tuple(replace(written.VARIANTS[i], seeds=(0, 1)) for i in (0, 1, 4))
    store, snapshot = written.write(tmp_path / "results", variants)
    found = run(store, snapshot, judge_file(tmp_path, more='pairs = "all"'))
    assert [(row["ours"], row["theirs"]) for row in found["comparisons"]] == [
        ("few-shot", "zero-shot"),
        ("raft", "zero-shot"),
        ("few-shot", "raft"),
    ]
    assert all(row["n"] == 24 for row in found["comparisons"])
    assert {0.25, 0.75} & set(outcomes(store, snapshot).values())
    assert found["ranking"]["rows"][0]["variant"] == "raft"
    assert {row["games"] for row in found["ranking"]["rows"]} == {48}
    assert {row["test"] for row in found["comparisons"]} == {"paired t over seeds and examples"}
    assert all("over seeds and examples" in row["method"] for row in found["comparisons"])
    assert found["notes"][-1].startswith("2 seeds: each example is averaged over them; where their verdicts differ")


def test_only_the_drawn_examples_are_judged(two: Written, tmp_path: Path, log: Path) -> None:
    found = run(*two, judge_file(tmp_path), "limit=5")
    assert found["comparisons"][0]["n"] == 5
    assert asked(log) <= 2 * 5 + 2 * 2 * 2 * 5


# ----------------------------------------------------------------------------------------------- what is kept and how


def test_nothing_is_asked_twice_and_another_judge_stands_beside_it(two: Written, tmp_path: Path, log: Path) -> None:
    first = run(*two, judge_file(tmp_path))
    count = asked(log)
    assert run(*two, judge_file(tmp_path)) == first
    assert asked(log) == count
    run(*two, judge_file(tmp_path, "First"))
    assert [judge["judge"] for judge in told(*two)] == ["fair", "first"]
    assert asked(log) > count


def test_the_verdicts_do_not_depend_on_who_stands_first(tmp_path: Path) -> None:
    found = []
    for place, variants in enumerate((TWO, TWO[::-1])):
        store, snapshot = written.write(tmp_path / str(place), variants)
        found.append(run(store, snapshot, judge_file(tmp_path))["comparisons"])
    assert found[0] == found[1]


def test_every_reply_is_kept_with_what_was_asked(two: Written, tmp_path: Path) -> None:
    run(*two, judge_file(tmp_path))
    found = results.read(two[1], two[0])
    judge = verdicts.judges(found, two[0])[0]
    step = next(iter(judge.pairs.values()))
    replies = list(step.predictions())
    assert len(replies) == 2 * sum(verdict.reason == "judged" for verdict in verdicts.of(step))
    assert all("Which answer is right?" in reply.calls[0].messages[0].content for reply in replies)
    assert judge.settings["rubric"] == "Which answer is right?"
    for variant in ("zero-shot", "raft"):
        assert all(variant not in message.content for reply in replies for message in reply.calls[0].messages)


def test_a_killed_judge_goes_on_where_it_was(tmp_path: Path, log: Path) -> None:
    store, snapshot = written.write(tmp_path / "results", TWO)
    left = written.write(tmp_path / "left alone", TWO)
    file = judge_file(tmp_path)
    expected = run(*left, file)
    whole = asked(log)
    log.unlink()
    command = [sys.executable, "-m", "harness", "judge", "--results", str(store.root), "--judge", str(file), "--json"]
    environment = os.environ | {"PYTHONPATH": str(TESTS), "JUDGES_SECONDS": "0.05"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while asked(log) < 18:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = asked(log)
    assert before < whole
    assert not told(store, snapshot)
    assert archive.gc(store) == []
    found = run(store, snapshot, file)
    assert found == expected
    assert asked(log) <= whole + 4  # the batch in work is asked again, nothing else


def test_verdicts_are_in_use_as_long_as_the_answers_and_travel_with_them(two: Written, tmp_path: Path) -> None:
    store, snapshot = two
    found = run(store, snapshot, judge_file(tmp_path))
    assert archive.gc(store) == []
    packed = archive.pack(store, snapshot.ref, tmp_path / "it.zip")
    other = Store(tmp_path / "other")
    archive.unpack(other, packed)
    assert told(other, other.snapshot("latest")) == [found]
    archive.delete(store, snapshot.name)
    assert {item.name.partition("-")[0] for item in archive.gc(store)} >= {"steps/judge", "steps/predict"}


@pytest.mark.slow
def test_the_controls_find_a_model_out_that_is_too_small_to_judge(builtin_model: Path, tmp_path: Path) -> None:
    """SmolLM2 of 135 million weights compares real answers of the example: docs/judges.md has the whole run."""
    shutil.copytree(TESTS.parent / "results" / "example", tmp_path / "results")
    store = Store(tmp_path / "results")
    file = tmp_path / "small.toml"
    settings = ['rubric = "The better answer gives the same fact as the accepted answer."', "limit = 6", "controls = 3"]
    settings += ["max_tokens = 16", "reasons = false", "ties = false", "[model]", 'kind = "transformers"']
    file.write_text("\n".join([*settings, 'id = "smollm2-135m-instruct"']))
    found = run(store, store.snapshot("helpdesk"), file)
    assert len(found["comparisons"]) == 6
    for row in found["comparisons"]:
        assert row["asked"] + row["same"] == 6
        assert row["unparsed"] == row["asked"] or row["order_dependent"] is not None
    asked = sum(row["asked"] for row in found["comparisons"])
    bias = sum(
        row["unparsed"] + (row["order_dependent"] or 0) * (row["asked"] - row["unparsed"])
        for row in found["comparisons"]
    )
    assert bias > 0.5 * asked  # it does not judge the answers but their places, if anything
    assert found["notes"]


# -------------------------------------------------------------------------------------------------- faults and words


def test_every_fault_of_a_judges_file_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('rubrik = "x"\npairs = "some"\n[model]\nkind = "cannd"\n')
    with pytest.raises(SpecError) as caught:
        judging.load(file)
    text = str(caught.value)
    assert "bad.toml:1 rubrik" in text and "rubric" in text
    assert "bad.toml:2 pairs" in text
    assert "Did you mean 'canned'?" in text


def test_one_complete_variant_cannot_be_compared(tmp_path: Path) -> None:
    store, snapshot = written.write(tmp_path / "results", TWO[:1])
    with pytest.raises(HarnessError, match="has 1 complete variants, and a judge compares two or more"):
        run(store, snapshot, judge_file(tmp_path))


def test_a_judge_that_could_not_reply_is_told_with_the_reason(
    two: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "broken.toml"
    file.write_text('rubric = "Right?"\ncontrols = 2\n[model]\nkind = "canned"\ncontext_length = 3\n')
    found = run(*two, file)
    (note, *_) = found["notes"]
    count, of, asked, *_ = note.split()
    assert (of, count) == ("of", asked)
    assert "requests to the judge failed, so their verdicts could not be read; the first: the prompt has" in note
    assert main(["judge", "support", "--results", str(two[0].root)]) == 0
    assert "Judge broken (canned): both orders" in capsys.readouterr().out


def test_what_failed_is_asked_again_only_on_request_and_nothing_is_lost(
    two: Written, tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, snapshot = two
    file, broken = judge_file(tmp_path), tmp_path / "broken.txt"
    sound = run(*written.write(tmp_path / "sound", TWO), file)
    monkeypatch.setenv("JUDGES_BROKEN", str(broken))
    broken.write_text("Brio\nburrs\n")
    failed = run(store, snapshot, file)
    assert failed["comparisons"][0]["unparsed"] > 0
    log.unlink()
    assert run(store, snapshot, file) == failed
    assert asked(log) == 0, "only on request"

    broken.write_text("Brio\n")
    where = ["--results", str(store.root), "--judge", str(file)]
    assert main(["judge", "support", *where, "--retry-errors"]) == 0
    (again,) = told(store, snapshot)
    count = asked(log)
    assert all("Brio" in question or "burrs" in question for question in log.read_text().splitlines())
    assert any(f"failed and were asked again (--retry-errors): {count}." in note for note in again["notes"])
    assert 0 < again["comparisons"][0]["unparsed"] < failed["comparisons"][0]["unparsed"]

    broken.unlink()
    assert main(["judge", "support", *where, "--retry-errors"]) == 0
    (mended,) = told(store, snapshot)
    assert mended["comparisons"] == sound["comparisons"]
    assert mended["controls"] == sound["controls"]
    assert any(f"asked again (--retry-errors): {count}." in note for note in mended["notes"])
    log.unlink()
    run(store, snapshot, file)
    assert not log.exists()
    assert main(["judge", "support", *where, "--retry-errors"]) == 0
    assert not log.exists(), "nothing has failed any more"
    steps = list(store.made_from({run.steps["predict"] for run in snapshot.runs()}, verdicts.PREFIX))
    attempts = sorted((step.inputs or {}).get("attempt", 0) for step in steps)
    assert attempts[0] == 0 and attempts[-1] == 2, "the attempts before stay as they were"


def test_verdicts_by_other_accepted_answers_are_left_out(two: Written, tmp_path: Path) -> None:
    store, snapshot = two
    run(store, snapshot, judge_file(tmp_path))
    found = results.read(snapshot, store)
    assert verdicts.read(found, store)
    assert verdicts.read(replace(found, fingerprint="of other answers"), store) == []


def test_the_command_judges_shows_and_shows_again(
    two: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--results", str(two[0].root)]
    assert main(["judge", "support", *where]) == 0
    assert "No judge has compared" in capsys.readouterr().out
    assert main(["judge", "support", *where, "--judge", str(judge_file(tmp_path)), "--set", "limit=9"]) == 0
    first = capsys.readouterr().out
    assert main(["judge", "support", *where]) == 0
    assert capsys.readouterr().out == first
    assert main(["judge", "support", *where, "--set", "limit=9"]) == 2
    assert "--set changes the file of a judge: name it, --judge FILE" in capsys.readouterr().err
    assert main(["judge", "support", *where, "--retry-errors"]) == 2
    assert "--retry-errors asks a judge again: name its file, --judge FILE" in capsys.readouterr().err
    for words in ("raft", "win rate", "injected instruction", "says nothing", "Bradley-Terry", "Holm", "order decided"):
        assert words in first


@pytest.mark.parametrize(
    ("said", "outcome", "reason"),
    [
        (("one", "one"), 1.0, "judged"),
        (("two", "two"), 0.0, "judged"),
        (("tie", "tie"), 0.5, "judged"),
        (("one", "two"), 0.5, "order"),
        (("one", "tie"), 0.5, "order"),
        (("one", None), 0.5, "unparsed"),
        ((None, None), 0.5, "unparsed"),
    ],
)
def test_a_win_needs_both_orders(said: Any, outcome: float, reason: str) -> None:
    assert verdicts.settled("q", "answers", said) == Verdict(
        id="q", kind="answers", said=said, outcome=outcome, reason=reason
    )


def test_the_side_whose_wins_are_shown_is_never_the_baseline() -> None:
    names = ["base", "b", "c"]
    assert pairwise.turned("base", "c", names, "base")
    assert not pairwise.turned("c", "base", names, "base")
    assert not pairwise.turned("b", "c", names, "base")
    assert pairwise.turned("c", "b", names, "base")
