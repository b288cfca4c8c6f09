"""The store: what it acknowledged is there after SIGKILL, done once, and never silently wrong."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from harness import archive
from harness.errors import StoreError
from harness.records import Call, Example, Message, Passage, Prediction, Reply, Run, Score
from harness.rows import Rows, write_rows
from harness.store import Snapshot, Step, Store

STEPS = ("train-" + "a" * 24, "predict-" + "b" * 24, "score-" + "c" * 24)


def answer(name: str, text: str = "") -> Prediction:
    call = Call(
        messages=(Message("user", f"question {name} — Ünïcode\u2028"),), reply=Reply(texts=(text,), seconds=0.5)
    )
    return Prediction(id=name, text=text, calls=(call,), passages=(Passage(id="d#0", document="d", text="p"),))


def short(name: str, text: str = "") -> Prediction:
    return Prediction(id=name, text=text)


def planned(variant: str = "rag", seed: int = 0, steps: tuple[str, ...] = STEPS) -> Run:
    roles = dict(zip(("train.0", "predict", "score.exact_match"), steps, strict=False))
    return Run(experiment="desk", variant=variant, family="RAG", seed=seed, status="waiting", steps=roles)


def score(ids: tuple[str, ...]) -> Score:
    return Score(
        name="exact_match",
        signature="exact_match|v1",
        direction="higher",
        unit="share",
        floor=0.0,
        ceiling=1.0,
        reducer="mean",
        ids=ids,
        statistics=tuple((1.0,) if number % 2 else None for number in range(len(ids))),
    )


def do_steps(store: Store, names: tuple[str, ...] = STEPS) -> None:
    """Leave a training, an answering and a scoring step, complete."""
    ids = tuple(f"q{number}" for number in range(7))
    for name in names:
        step = store.step(name)
        with step.lock():
            if step.outcome is not None:
                continue
            step.start({"settings": {"seed": 0}})
            if name.startswith("train-"):
                (step.path / "artifact").mkdir()
                (step.path / "artifact" / "adapter.safetensors").write_bytes(bytes(range(256)) * 4)
            elif name.startswith("predict-"):
                step.write_predictions(answer(identity, f"text {identity}") for identity in ids)
            else:
                step.write_score(score(ids))
            step.complete({"seconds": 1.25, "n": len(ids)})


BOARD = {
    "primary": "exact_match",
    "heldout": {"n": 7, "fingerprint": "f" * 24},
    "rows": [{"variant": "rag", "status": "complete", "metrics": {"exact_match": {"value": 0.43}}}],
}


def finished(store: Store, name: str = "desk", question: str = "which?", steps: tuple[str, ...] = STEPS) -> Snapshot:
    """Leave a whole experiment."""
    snapshot = store.begin(
        name, {"question": question, "baseline": "rag"}, f'name = "{name}"\n', [planned(steps=steps)]
    )
    do_steps(store, steps)
    snapshot.write_examples([Example(id=f"q{number}", input="q", targets=("a",)) for number in range(7)])
    snapshot.save_run(replace(planned(steps=steps), status="complete"))
    snapshot.finish(BOARD, "| rag |\n")
    return snapshot


def everything(store: Store, ref: str = "desk") -> Any:
    """Read all that a snapshot and its steps hold."""
    snapshot = store.snapshot(ref)
    found = [snapshot.spec, snapshot.text, snapshot.state, snapshot.runs(), snapshot.leaderboard]
    found += [list(snapshot.examples()), snapshot.ended]
    for name in sorted(snapshot.steps()):
        step = store.step(name)
        step.verify()
        found += [step.inputs, step.outcome]
        if name.startswith("predict-"):
            found += [list(step.predictions()), step.prediction("q3"), step.prediction(6)]
        if name.startswith("score-"):
            found.append(step.score())
    return found


def python(script: str, *words: object, stop_s: float = 60) -> str:
    """Run a script that may fork and kill, alone in its process; return what it printed."""
    head = "import os, random, signal, sys, time\nfrom pathlib import Path\nfrom test_store import *\n"
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(script), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=stop_s,
        env=where,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --------------------------------------------------------------------------------------------------------- opening


def test_a_new_folder_becomes_a_store_and_reading_never_makes_one(tmp_path: Path) -> None:
    assert Store(tmp_path / "none", write=False).experiments() == []
    assert not (tmp_path / "none").exists()
    Store(tmp_path / "a" / "b")
    assert json.loads((tmp_path / "a" / "b" / "VERSION").read_text()) == {"format": 1}
    with pytest.raises(StoreError, match="opened for reading only"):
        Store(tmp_path / "a" / "b", write=False).begin("x", {}, "", [])


def test_a_store_of_a_newer_harness_is_refused_with_what_to_do(tmp_path: Path) -> None:
    Store(tmp_path)
    (tmp_path / "VERSION").write_text('{"format": 2}')
    for write in (True, False):
        with pytest.raises(StoreError, match=r"newer harness \(format 2; this one reads up to 1\): upgrade"):
            Store(tmp_path, write=write)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "one"}', "null"])
def test_a_broken_version_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "VERSION").write_text(text)
    with pytest.raises(StoreError, match="VERSION is damaged"):
        Store(tmp_path)


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    for write in (True, False):
        with pytest.raises(StoreError, match="results"):
            Store(tmp_path / "results", write=write)
    with pytest.raises(StoreError, match="file is in the way"):
        Store(tmp_path / "results" / "inner")


def test_a_folder_that_may_not_be_written_is_a_store_error() -> None:
    """chmod does not stop root: the script gives up its rights (uid 65534) once it has read everything."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "results"
        finished(Store(root))
        root.chmod(0o555)
        script = """
            root = Path(sys.argv[1])
            everything(Store(root, write=False))
            if os.getuid() == 0:
                os.setgroups([]); os.setgid(65534); os.setuid(65534)
            try:
                Store(root)
            except StoreError as error:
                print(error)
            print(Store(root, write=False).experiments()[0].state, len(everything(Store(root, write=False))))
        """
        printed = python(script, root)
        root.chmod(0o755)
    assert f"cannot write {root}: Permission denied (EACCES). Choose a folder that you may use" in printed
    assert "complete" in printed


def test_a_full_disk_loses_nothing_acknowledged_and_names_the_file(tmp_path: Path) -> None:
    """A limit on file size stands for the full disk: the system refuses the write part of the way."""
    script = """
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        step = Store(Path(sys.argv[1])).step(STEPS[1])
        step.start({})
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        answers, kept = step.answers(), 0
        try:
            while True:
                answers.append([answer(str(kept), "x" * 300)])
                kept += 1
        except StoreError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert len(step.recovered()) == kept > 3
        with step.answers() as again:
            again.append([answer("last")])
        print(len(step.recovered()) - kept, (step.work / "answers.jsonl").stat().st_size > 4000)
    """
    printed = python(script, tmp_path)
    assert "cannot write" in printed and "answers.jsonl: File too large (EFBIG)" in printed
    assert printed.endswith("1 True\n")


# ----------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../up",
        "/etc",
        "a/b",
        "a\\b",
        "a\0b",
        "-a",
        ".hidden",
        "a" * 101,
        "con",
        "NUL.txt",
        "a.",
        "ü",
        "a b",
    ],
)
def test_a_name_that_could_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "results")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="cannot be the name of"):
        store.step(name)
    with pytest.raises(StoreError, match="cannot be the name of"):
        store.begin(name, {}, "", [])
    with pytest.raises(StoreError):
        store.snapshot(name)
    with pytest.raises(StoreError):
        archive.delete(store, name)
    after = [path for path in sorted(tmp_path.rglob("*")) if path.name not in ("locks", "@drafts.lock", "tmp")]
    assert after == before


@given(st.text(max_size=20))
@settings(max_examples=300, deadline=None)
def test_no_name_at_all_leads_out_of_the_folder(name: str) -> None:
    store = Store(Path("nowhere/results"), write=False)
    try:
        path = store.step(name).path
    except StoreError:
        return
    assert path.parent == Path("nowhere/results/steps") and path.name == name


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    (tmp_path / "outside").mkdir()
    (tmp_path / "results" / "steps").mkdir()
    (tmp_path / "results" / "steps" / STEPS[0]).symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="leads out of the results folder"):
        store.step(STEPS[0])


# ----------------------------------------------------------------------------------------------------------- steps


def test_a_step_is_done_once_and_stays_as_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    step = store.step(STEPS[1])
    assert (step.outcome, step.inputs, step.started, step.recovered()) == (None, None, "", [])
    do_steps(store)
    assert step.outcome == {"seconds": 1.25, "n": 7}
    assert step.inputs == {"settings": {"seed": 0}} and step.started < Store(tmp_path).step(STEPS[2]).started
    assert not step.work.exists()
    with pytest.raises(StoreError, match="is complete and stays as it is"):
        step.start({})
    assert [found.name for found in store.steps()] == sorted(STEPS)


def test_starting_again_removes_what_a_killed_attempt_left_but_keeps_its_work(tmp_path: Path) -> None:
    step = Store(tmp_path).step(STEPS[0])
    step.start({"a": 1})
    (step.path / "artifact").mkdir()
    (step.path / "artifact" / "half.safetensors").write_bytes(b"half")
    (step.path / "stray.json").write_text("{")
    (step.work / "checkpoint").write_text("5")
    began = step.started
    step.start({"a": 1})
    assert sorted(path.name for path in step.path.iterdir()) == ["step.json", "work"]
    assert (step.work / "checkpoint").read_text() == "5" and step.started == began


def test_json_files_refuse_numbers_that_are_not_finite(tmp_path: Path) -> None:
    step = Store(tmp_path).step(STEPS[0])
    step.start({})
    with pytest.raises(ValueError, match=r"not JSON compliant|Out of range"):
        step.write_json("figures.json", {"loss": float("nan")})
    with pytest.raises(ValueError, match="not finite"):
        step.write_score(replace(score(("a", "b")), statistics=((float("nan"),), None)))
    with pytest.raises(ValueError):
        step.complete({"loss": float("inf")})
    assert step.outcome is None
    step.write_json("inner/figures.json", {"text": "half a pair \ud83d, ü"})
    assert step.read_json("inner/figures.json") == {"text": "half a pair \ud83d, ü"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), st.text(st.characters(codec="utf-8")) | st.none()),
        unique_by=lambda pair: pair[0],
        max_size=12,
    )
)
def test_rows_come_back_as_written_by_place_and_by_id(tmp_path: Path, pairs: list[tuple[str, str | None]]) -> None:
    written = [Prediction(id=name, text=text) for name, text in pairs]
    assert write_rows(tmp_path / "rows.jsonl", written) == len(written)
    rows = Rows(tmp_path / "rows.jsonl", Prediction)
    assert list(rows) == written and len(rows) == len(written)
    for row, prediction in enumerate(written):
        assert rows[row] == prediction == rows[row - len(written)] == rows.find(prediction.id)
    with pytest.raises(IndexError):
        rows[len(written)]
    with pytest.raises(StoreError, match="no example"):
        rows.find("an id longer than any")


def test_two_rows_with_one_id_are_a_fault(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"two rows of rows\.jsonl have the id 'a'"):
        write_rows(tmp_path / "rows.jsonl", [answer("a"), answer("a")])
    assert list(tmp_path.iterdir()) == []


def test_one_of_many_rows_opens_without_reading_the_others(tmp_path: Path) -> None:
    count = 20_000
    write_rows(tmp_path / "rows.jsonl", (Example(id=f"example-{row}", input="x" * 200) for row in range(count)))
    rows = Rows(tmp_path / "rows.jsonl", Example)
    damaged = (tmp_path / "rows.jsonl").read_bytes()
    (tmp_path / "rows.jsonl").write_bytes(b"?" * 1000 + damaged[1000:])
    assert rows.find("example-19999").id == "example-19999" and rows[12_345].id == "example-12345"
    with pytest.raises(StoreError, match="line 1 is not what was written"):
        rows[0]


def test_a_misspelt_id_gets_a_near_one(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", (Example(id=f"example-{row}", input="") for row in range(300)))
    with pytest.raises(StoreError, match=r"no example 'exmple-17' in .*Did you mean 'example-17'\?$"):
        Rows(tmp_path / "rows.jsonl", Example).find("exmple-17")


# ------------------------------------------------------------------------------------------------- kill and resume


def test_a_torn_tail_of_any_length_gives_back_exactly_the_whole_batches(tmp_path: Path) -> None:
    batches = [[short("1", "a\nü"), short("2")], [short("3")], [Prediction(id="4", text=None, error="no")]]
    step = Store(tmp_path).step(STEPS[1])
    ends = [0]
    with step.answers() as answers:
        for batch in batches:
            answers.append(batch)
            ends.append((step.work / "answers.jsonl").stat().st_size)
    path = step.work / "answers.jsonl"
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = sum(end <= length for end in ends[1:])
        assert step.recovered() == batches[:whole]
        if length % 29 == 0 or length in ends:
            with step.answers() as answers:
                assert answers.batches == batches[:whole]
                for batch in batches[whole:]:
                    answers.append(batch)
            assert path.read_bytes() == data


def test_a_changed_byte_in_the_answers_so_far_is_never_taken_for_an_answer(tmp_path: Path) -> None:
    batches = [[short("1")], [short("2")], [short("3")]]
    step = Store(tmp_path).step(STEPS[1])
    with step.answers() as answers:
        for batch in batches:
            answers.append(batch)
    path = step.work / "answers.jsonl"
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        found = step.recovered()
        assert found == batches[: len(found)]


def test_damage_before_whole_batches_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    step = Store(tmp_path).step(STEPS[1])
    with step.answers() as answers:
        for name in "1234":
            answers.append([answer(name)])
    path = step.work / "answers.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"id":"2"', b'"id":"9"'))
    assert [batch[0].id for batch in step.recovered()] == ["1"]
    assert "is damaged after batch 1: the answers after it are given again" in caplog.text


def test_sigkill_at_any_time_loses_no_acknowledged_batch(tmp_path: Path) -> None:
    script = """
        root, kills, random = Path(sys.argv[1]), 0, random.Random(7)
        store, done, batches = Store(root), 0, 0

        def work(step, report):
            with step.lock():
                if step.outcome is not None:
                    return
                step.start({"n": 40})
                with step.answers() as answers:
                    for number in range(len(answers.batches), 40):
                        answers.append([answer(f"{number}-{row}", "x" * 50) for row in range(3)])
                        os.write(report, b".")
                step.write_predictions(row for batch in step.recovered() for row in batch)
                step.complete({"n": 120})

        write_rows(root / "warm.jsonl", [answer("warm")])  # so that no child needs the time to build its validators
        list(Rows(root / "warm.jsonl", Prediction))
        expected = [answer(f"{number}-{row}", "x" * 50) for number in range(40) for row in range(3)]
        deadline = time.time() + 40
        while (kills < 50 or done < 2) and time.time() < deadline:
            step = store.step(f"predict-{done:024d}")
            acknowledged = sum(map(len, step.recovered())) if step.outcome is None else 120
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                work(step, writing)
                os._exit(0)
            os.close(writing)
            time.sleep(random.uniform(0, 0.04 + 0.002 * kills))  # longer and longer: the machine may be busy
            os.kill(child, signal.SIGKILL)
            killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
            kills += killed
            batches += (new := len(os.read(reading, 1000)))
            acknowledged += 3 * new
            os.close(reading)
            assert not step.busy
            if step.outcome is None:
                found = [row for batch in step.recovered() for row in batch]
                assert len(found) >= acknowledged, (len(found), acknowledged)
                assert found == expected[: len(found)]
            else:
                assert list(step.predictions()) == expected and step.outcome == {"n": 120}
                step.verify()
                done += 1
        print(kills, done, batches)
    """
    kills, done, batches = map(int, python(script, tmp_path).split())
    assert kills >= 40 and done >= 1 and batches >= 40


def test_several_processes_that_want_one_step_do_it_once_and_say_that_they_wait(tmp_path: Path) -> None:
    script = """
        step, children = Store(Path(sys.argv[1])).step(STEPS[0]), []
        for number in range(5):
            child = os.fork()
            if child == 0:
                waited = []
                with step.lock(lambda: waited.append(number)):
                    did = step.outcome is None
                    if did:
                        step.start({})
                        time.sleep(0.2)
                        step.complete({"by": number})
                assert len(waited) <= 1
                os.write(1, f"{'did' if did else 'found'} {len(waited)}\\n".encode())
                os._exit(0)
            children.append(child)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
    """
    lines = sorted(python(script, tmp_path).split("\n")[:-1])
    assert lines == ["did 0", *["found 1"] * 4]


def test_threads_exclude_each_other_too(tmp_path: Path) -> None:
    step, inside, most, waits = Store(tmp_path).step(STEPS[0]), 0, 0, 0

    def waiting() -> None:
        nonlocal waits
        waits += 1

    def work() -> None:
        nonlocal inside, most
        ready.wait()
        with step.lock(waiting):
            inside += 1
            most = max(most, inside)
            time.sleep(0.1)
            inside -= 1

    ready = threading.Barrier(4)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and 1 <= waits <= 3


def test_a_killed_run_is_interrupted_even_while_a_child_of_it_lives(tmp_path: Path) -> None:
    script = """
        store = Store(Path(sys.argv[1]))
        reading, writing = os.pipe()
        runner = os.fork()
        if runner == 0:
            snapshot = store.begin("desk", {}, "", [planned()])
            child = os.fork()
            if child == 0:
                os.write(writing, f"{os.getpid()}\\n".encode())
                time.sleep(30)
                os._exit(0)
            time.sleep(30)
            os._exit(0)
        child = int(os.read(reading, 100))
        print(store.snapshot("desk").state)
        os.kill(runner, signal.SIGKILL)
        os.waitpid(runner, 0)
        os.kill(child, 0)
        print(store.snapshot("desk").state)
        os.kill(child, signal.SIGKILL)
        print(store.begin("desk", {}, "", [planned()]).ref)
    """
    assert python(script, tmp_path).split() == ["running", "interrupted", "desk@1"]


# ------------------------------------------------------------------------------------------------------- snapshots


def test_the_same_plan_goes_on_and_another_plan_is_a_new_number(tmp_path: Path) -> None:
    store = Store(tmp_path)
    runs = [planned("rag", 0), planned("rag", 1), planned("zero/shot: ü", 0)]
    first = store.begin("desk", {"shots": (1, 2)}, "text", runs)
    assert (first.ref, first.state, first.runs()) == ("desk@1", "running", runs)
    first.save_run(replace(runs[2], status="complete"))
    first.close()
    assert first.state == "interrupted"
    again = store.begin("desk", {"shots": [1, 2]}, "text, with another comment", runs)
    assert again.ref == "desk@1" and [run.status for run in again.runs()] == ["waiting", "waiting", "complete"]
    again.close()
    assert store.begin("desk", {"shots": [1, 3]}, "text", runs).ref == "desk@2"
    assert store.begin("desk", {"shots": [1, 3]}, "text", runs[:2]).ref == "desk@3"
    assert store.begin("desk", {"shots": [1, 2]}, "text", runs).ref == "desk@4"


def test_a_complete_snapshot_is_found_again_and_never_changes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot = finished(store)
    before = {path: path.read_bytes() for path in snapshot.path.rglob("*") if path.is_file()}
    again = store.begin("desk", snapshot.spec, "", snapshot.planned)
    assert (again.ref, again.state, again.leaderboard) == ("desk@1", "complete", BOARD)
    again.save_run(replace(planned(), status="failed", error="late"))
    again.finish({"rows": []}, "")
    again.write_examples([])
    assert {path: path.read_bytes() for path in snapshot.path.rglob("*") if path.is_file()} == before


def test_a_snapshot_with_failed_runs_is_tried_anew(tmp_path: Path) -> None:
    store = Store(tmp_path)
    snapshot = store.begin("desk", {}, "", [planned()])
    with pytest.raises(ValueError, match="neither complete nor failed: rag"):
        snapshot.finish({}, "")
    with pytest.raises(ValueError, match="plans no run of rog"):
        snapshot.save_run(planned("rog"))
    snapshot.save_run(replace(planned(), status="failed", error="no memory"))
    snapshot.finish({"rows": []}, "")
    assert snapshot.state == "failed" and store.experiments()[0].failed == 1
    again = store.begin("desk", {}, "", [planned()])
    assert (again.ref, again.state, again.leaderboard) == ("desk@1", "running", None)
    again.save_run(replace(planned(), status="complete"))
    again.finish(BOARD, "")
    assert again.state == "complete" and store.experiments()[0].failed == 0


def test_many_processes_that_begin_at_once_get_one_snapshot_for_each_plan(tmp_path: Path) -> None:
    script = """
        children = []
        for number in range(8):
            child = os.fork()
            if child == 0:
                store = Store(Path(sys.argv[1]))
                snapshot = store.begin("desk", {"plan": number if number > 3 else 0}, "", [planned()])
                assert snapshot.running
                store.experiments()
                os._exit(0)
            children.append(child)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        store = Store(Path(sys.argv[1]))
        print(sorted(store.snapshot(f"desk@{n}").spec["plan"] for n in store.numbers("desk")))
        print(len(list((store.root / "tmp").iterdir())))
    """
    plans, drafts = python(script, tmp_path).splitlines()
    assert sorted(set(json.loads(plans))) == [0, 4, 5, 6, 7] and drafts == "0"


def test_two_processes_on_one_snapshot_leave_one_sound_result(tmp_path: Path) -> None:
    script = """
        store, children = Store(Path(sys.argv[1])), []
        for number in range(4):
            child = os.fork()
            if child == 0:
                snapshot = store.begin("desk", {}, "", [planned()])
                do_steps(store)
                snapshot.save_run(replace(planned(), status="complete", notes=(f"by {number}",)))
                snapshot.finish({**BOARD, "by": number}, f"by {number}")
                os._exit(0)
            children.append(child)
        for child in children:
            assert os.waitpid(child, 0)[1] == 0
        from harness.files import verify
        verify(store.snapshot("desk").path)
        print([summary.ref for summary in store.experiments()], store.snapshot("desk").state)
    """
    assert python(script, tmp_path) == "['desk@1'] complete\n"


def test_refs_are_found_and_a_wrong_one_is_told_what_exists(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreError, match=r"no result in .* yet"):
        store.snapshot("latest")
    with pytest.raises(StoreError, match=r"no experiment 'desk' .*makes the first"):
        store.snapshot("desk")
    finished(store)
    store.begin("desk", {"other": 1}, "", []).close()
    finished(store, "triage", steps=())
    assert store.snapshot("desk").number == 2 and store.snapshot("desk@1").number == 1
    assert store.snapshot("latest").ref == "triage@1"
    with pytest.raises(StoreError, match=r"no experiment 'dask' .*Did you mean 'desk'\? Available: desk, triage"):
        store.snapshot("dask")
    for ref in ("desk@9", "desk@", "desk@x", "desk@01x", "desk@²"):
        with pytest.raises(StoreError, match="Available: desk@1, desk@2"):
            store.snapshot(ref)
    with pytest.raises(StoreError, match="'latest' cannot be the name"):
        store.begin("latest", {}, "", [])


def test_a_list_shows_what_a_person_needs_newest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished(store)
    going_on = store.begin("triage", {"question": "and?"}, "", [planned(), planned(seed=1), planned("lora")])
    triage, desk = store.experiments()
    assert (triage.ref, triage.state, triage.runs, triage.done, triage.winner) == ("triage@1", "running", 3, 0, "")
    assert triage.variants == ("rag", "lora")
    assert (desk.state, desk.winner, desk.value, desk.primary) == ("complete", "rag", 0.43, "exact_match")
    assert (desk.heldout_n, desk.question, desk.baseline, desk.done) == (7, "which?", "rag", 1)
    assert desk.created < desk.ended < triage.created == going_on.created


# ----------------------------------------------------------------------------------------------------------- index


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", '{"format": 9, "snapshots": {}}', '{"format": 1, "snapshots": 3}']
)
def test_the_index_is_made_anew_when_it_is_missing_or_wrong(tmp_path: Path, text: str | None) -> None:
    store = Store(tmp_path)
    finished(store)
    before = store.experiments()
    if text is None:
        (tmp_path / "index.json").unlink()
    else:
        (tmp_path / "index.json").write_text(text)
    assert store.experiments() == Store(tmp_path, write=False).experiments() == before
    store.refresh_index()
    assert json.loads((tmp_path / "index.json").read_text())["snapshots"].keys() == {"desk@1"}


def test_the_index_is_never_the_truth(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished(store)
    index = json.loads((tmp_path / "index.json").read_text())
    index["snapshots"]["ghost@1"] = index["snapshots"]["desk@1"]
    index["snapshots"]["desk@1"][0][0] -= 1
    index["snapshots"]["desk@1"][1]["winner"] = "stale"
    (tmp_path / "index.json").write_text(json.dumps(index))
    (found,) = store.experiments()
    assert (found.ref, found.winner) == ("desk@1", "rag")


def test_listing_settled_snapshots_opens_the_index_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for number in range(5):
        finished(store, question=str(number))
    script = """
        root, opened = sys.argv[1], []
        sys.addaudithook(lambda event, words: opened.append(str(words[0])) if event == "open" else None)
        print(len(Store(Path(root), write=False).experiments()))
        print(sorted(Path(path).name for path in opened if path.startswith(root)))
    """
    assert python(script, tmp_path) == "5\n['VERSION', 'index.json']\n"


# ---------------------------------------------------------------------------------------------------------- damage


def test_a_changed_bit_or_a_cut_in_any_file_is_told_and_other_experiments_are_still_listed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    other = tuple(name[:-1] + "0" for name in STEPS)
    finished(store, "other", steps=other)
    finished(store)
    whole, chance, told = everything(store), random.Random(3), 0
    kept = [
        path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock" and "other" not in str(path)
    ]
    for path in sorted(kept):
        if path.name == "VERSION" or path.parent.name in other:
            continue
        data = path.read_bytes()
        cuts = [data[: chance.randrange(len(data))] for _ in range(6)]
        for _ in range(20):
            place = chance.randrange(len(data))
            cuts.append(data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :])
        for changed in cuts:
            path.write_bytes(changed)
            try:
                assert everything(Store(tmp_path, write=False)) == whole, path
            except StoreError as error:
                told += 1
                assert str(tmp_path) in str(error) and ("harness delete" in str(error) or path.name == "VERSION")
            listed = Store(tmp_path, write=False).experiments()
            assert {"other@1": "complete"}.items() <= {entry.ref: entry.state for entry in listed}.items()
            assert len(listed) == 2
        path.write_bytes(data)
    assert told > 200
    assert everything(store) == whole


def test_a_missing_file_of_a_complete_step_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished(store)
    (tmp_path / "steps" / STEPS[0] / "artifact" / "adapter.safetensors").unlink()
    with pytest.raises(
        StoreError, match=rf"adapter.safetensors is damaged: it is missing. `harness delete {STEPS[0]}`"
    ):
        _ = store.step(STEPS[0]).outcome
    archive.delete(store, STEPS[0])
    assert store.step(STEPS[0]).outcome is None


def test_a_damaged_snapshot_is_listed_as_such_and_can_be_deleted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    finished(store)
    finished(store, "other")
    (tmp_path / "experiments" / "desk" / "1" / "snapshot.json").write_text('{"spec": {}}')
    (tmp_path / "index.json").unlink()
    states = {entry.ref: entry.state for entry in store.experiments()}
    assert states == {"other@1": "complete", "desk@1": "damaged"} and store.snapshot("latest").ref == "other@1"
    assert "snapshot.json is damaged" in store.experiments()[-1].problem
    with pytest.raises(StoreError, match="`harness delete desk@1` removes it"):
        store.snapshot("desk")
    assert archive.delete(store, "desk@1") == ["desk@1"]
    assert [entry.ref for entry in store.experiments()] == ["other@1"]


# ------------------------------------------------------------------------------------------- any order of operations


class AnyOrder(RuleBasedStateMachine):
    """Whatever is done in whatever order: what was acknowledged is there, and gc takes only what nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name))
        self.plans: dict[str, list[int]] = {}
        self.open: Snapshot | None = None
        self.steps: set[str] = set()

    @staticmethod
    def _step(plan: int) -> str:
        return f"train-{plan:024d}"

    @precondition(lambda self: self.open is None)
    @rule(name=st.sampled_from(["desk", "triage"]), plan=st.integers(0, 3))
    def begin(self, name: str, plan: int) -> None:
        self.open = self.store.begin(name, {"plan": plan}, "", [planned(steps=(self._step(plan),))])
        known = self.plans.setdefault(name, [])
        if not known or known[-1] != plan:
            known.append(plan)
        assert self.open.spec == {"plan": plan}

    @precondition(lambda self: self.open is not None)
    @rule(failed=st.booleans())
    def finish(self, failed: bool) -> None:
        assert self.open is not None
        (run,) = self.open.planned
        do_steps(self.store, tuple(run.steps.values()))
        self.steps.update(run.steps.values())
        was = self.open.state
        self.open.save_run(replace(run, status="failed" if failed else "complete"))
        self.open.finish({"rows": []}, "")
        assert self.open.state == ("complete" if was == "complete" or not failed else "failed")
        self.open = None

    @precondition(lambda self: self.open is not None)
    @rule()
    def interrupt(self) -> None:
        assert self.open is not None
        self.open.close()
        self.open = None

    @rule(plan=st.integers(4, 6))
    def leave_a_step(self, plan: int) -> None:
        do_steps(self.store, (self._step(plan),))
        self.steps.add(self._step(plan))

    @precondition(lambda self: self.open is None)
    @rule(name=st.sampled_from(["desk", "triage"]))
    def delete(self, name: str) -> None:
        if name in self.plans:
            assert len(archive.delete(self.store, name)) == len(self.plans.pop(name))
        else:
            with pytest.raises(StoreError):
                archive.delete(self.store, name)

    @precondition(lambda self: self.open is None)
    @rule()
    def collect(self) -> None:
        used = {self._step(plan) for plans in self.plans.values() for plan in plans}
        foreseen = archive.gc(self.store)
        assert archive.gc(self.store, dry=False) == foreseen
        assert {found.name for found in foreseen} == {f"steps/{name}" for name in self.steps - used}
        self.steps &= used
        assert archive.gc(self.store) == []

    @invariant()
    def all_is_there(self) -> None:
        assert {step.name for step in self.store.steps() if step.outcome} == self.steps
        listed = {entry.ref for entry in self.store.experiments()}
        assert listed == {f"{name}@{n}" for name in self.plans for n in self.store.numbers(name)}
        assert {name: len(self.store.numbers(name)) for name in self.plans} == {
            k: len(v) for k, v in self.plans.items()
        }

    def teardown(self) -> None:
        if self.open is not None:
            self.open.close()
        self.folder.cleanup()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=10, stateful_step_count=16, deadline=None)


def test_a_step_is_the_same_object_to_every_reader(tmp_path: Path) -> None:
    do_steps(Store(tmp_path))
    step = Step(tmp_path, STEPS[1])
    assert step.prediction("q2") == step.prediction(2) == list(step.predictions())[2]


def test_an_experiment_may_be_called_drafts(tmp_path: Path) -> None:
    """Its lock must not be the one that guards drafts."""
    store = Store(tmp_path / "results")
    with store.begin("drafts", {"name": "drafts"}, "", []) as snapshot:
        assert snapshot.ref == "drafts@1"
