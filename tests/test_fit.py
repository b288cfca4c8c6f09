"""A training stage in a process of its own: what it reports, how it fails, how it ends with its parent."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from comparison import TESTS
from safetensors import SafetensorError
from toys import Steps
from training import make_job, same, weights

from harness import files, fit
from harness.adapters.lora import Lora
from harness.errors import ModelError, StoreError
from harness.methods.sft import Sft
from harness.plugins import Trained, TrainJob


class Stage:
    """A folder with what a stage needs, and its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("out", "work"):
            (folder / name).mkdir()
        rows = [{"id": "a", "messages": [{"role": "user", "content": "How?"}], "completion": "So."}]
        (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
        self.lock = files.Lock(folder / "lock")
        self.seen: list[tuple[int, int, Mapping[str, float]]] = []

    def fit(self, method: Steps | None = None, then: Callable[[int], None] = lambda step: None) -> tuple[Trained, int]:
        job = TrainJob(
            train=self.folder / "train.jsonl",
            dev=None,
            model={"kind": "canned"},
            incoming=None,
            out=self.folder / "out",
            work=self.folder / "work",
            seed=0,
        )

        def progress(step: int, steps: int, figures: Mapping[str, float]) -> None:
            self.seen.append((step, steps, figures))
            then(step)

        self.lock.acquire()
        try:
            return fit.run(method or Steps(steps=3), job, self.folder / "work", progress, self.lock.handle)
        finally:
            self.lock.release()

    def logged(self, start: str) -> list[str]:
        lines = (self.folder / "log").read_text().splitlines()
        return [line.removeprefix(start).strip() for line in lines if line.startswith(start)]

    @property
    def child(self) -> int:
        return int(self.logged("train from")[-1].split()[-1])


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setenv("TOYS_LOG", str(tmp_path / "log"))
    return Stage(tmp_path)


def state(pid: int) -> str:
    """The letter that Linux gives a process: T stopped, Z dead but not waited for; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def alive(pid: int) -> bool:
    return state(pid) not in ("", "Z", "X")


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to it"
        time.sleep(0.01)


def test_a_stage_reports_each_step_and_its_outcome(stage: Stage) -> None:
    trained, peak = stage.fit()
    assert trained == Trained(trainable_parameters=7, steps=3, tokens=300)
    assert stage.seen == [(1, 3, {"loss": 1.0}), (2, 3, {"loss": 0.5}), (3, 3, {"loss": 1 / 3})]
    assert json.loads((stage.folder / "out" / "artifact.json").read_text())["ending"] == "."
    assert 5 * 2**20 < peak < 2**33


def test_a_fault_that_the_user_can_act_on_comes_back_as_one_message(stage: Stage) -> None:
    with pytest.raises(ModelError, match=r"^the rank must be smaller$"):
        stage.fit(Steps(fault="user"))


def test_a_fault_of_the_code_comes_back_with_its_traceback(stage: Stage) -> None:
    with pytest.raises(RuntimeError, match="ValueError: a slip in the method") as caught:
        stage.fit(Steps(fault="bug"))
    assert "toys.py" in "".join(caught.value.__notes__)
    assert "\n" not in str(caught.value)


def test_a_killed_child_is_told_with_what_to_try(stage: Stage) -> None:
    with pytest.raises(ModelError, match="memory ran out"):
        stage.fit(Steps(fault="killed"))


class Hungry(Steps):
    """Is killed after its second step, as for lack of memory, while it computes more than `fits` rows at once."""

    micro_batch: int = 8
    fits: int = 4

    def fewer_at_once(self) -> Hungry | None:
        return self.model_copy(update={"micro_batch": self.micro_batch // 2}) if self.micro_batch > 1 else None

    def fit(self, job: TrainJob, progress: Callable[[int, int, Mapping[str, float]], None]) -> Trained:
        def killed(step: int, steps: int, figures: Mapping[str, float]) -> None:
            progress(step, steps, figures)
            if step >= 2 and self.micro_batch > self.fits:
                os.kill(os.getpid(), signal.SIGKILL)

        return super().fit(job, killed)


def test_a_child_that_is_killed_for_memory_goes_on_with_fewer_rows_at_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    trained, _ = stage.fit(Hungry(steps=3))
    assert trained.details == {"out_of_memory": 1, "micro_batch": 4}
    assert stage.logged("train from")[0].split()[0] == "0"
    assert stage.logged("train from")[1].split()[0] == "2", "from the last checkpoint"
    assert [step for step, _, _ in stage.seen] == [1, 2, 3]
    assert "fewer rows at once" in caplog.text


def test_a_child_that_finds_no_memory_for_one_row_is_told_with_what_to_try(stage: Stage) -> None:
    with pytest.raises(fit.OutOfMemory, match=r"memory ran out.*gradient_checkpointing"):
        stage.fit(Hungry(steps=9, fits=0))


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
    ],
)
def test_what_libraries_raise_without_memory_is_no_fault_of_the_code(fault: Exception) -> None:
    assert fit._no_memory(fault)
    assert not fit._no_memory(ValueError("a slip"))


class Cramped(Sft):
    """Finds no room for a file of more than 20 kB after its fifth step, while the file that CRAMPED names is there."""

    def fit(self, job: TrainJob, progress: Callable[[int, int, Mapping[str, float]], None]) -> Trained:
        def cramped(step: int, steps: int, figures: Mapping[str, float]) -> None:
            progress(step, steps, figures)
            if step == 5 and Path(os.environ["CRAMPED"]).exists():
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

        return super().fit(job, cramped)


def test_a_full_disk_at_a_checkpoint_is_told_and_nothing_before_it_is_lost(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Cramped(adapter=Lora(rank=4), learning_rate=5e-3, batch_size=4, max_steps=8, checkpoint_every=3)
    monkeypatch.setenv("CRAMPED", str(tmp_path / "full"))
    seen: list[int] = []

    def fit_in(job: TrainJob) -> None:
        lock = files.Lock(tmp_path / "lock")
        lock.acquire()
        try:
            fit.run(method, job, job.work, lambda step, steps, figures: seen.append(step), lock.handle)
        finally:
            lock.release()

    job, undisturbed = make_job(tmp_path / "job", tiny_model), make_job(tmp_path / "undisturbed", tiny_model)
    (tmp_path / "full").touch()
    with pytest.raises(StoreError, match=r"No space left on device \(ENOSPC\)\. Free some space"):
        fit_in(job)
    assert seen[-1] in (5, 6)
    (tmp_path / "full").unlink()
    seen.clear()
    fit_in(job)
    assert seen == [4, 5, 6, 7, 8], "from the last checkpoint that was written whole"
    fit_in(undisturbed)
    assert same(weights(job.out), weights(undisturbed.out))


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
)
def test_what_libraries_raise_on_a_full_disk_is_no_fault_of_the_code(fault: Exception) -> None:
    if "unexpected pos" in str(fault):  # as torch.save says it
        fault.__context__ = RuntimeError("basic_ios::clear: iostream error")
    assert fit._no_room(fault)
    assert not fit._no_room(ValueError("a slip"))
    assert not fit._no_room(OSError(errno.ENOENT, "No such file"))


def test_a_child_that_cannot_start_is_told_with_what_it_wrote(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Steps, "table", lambda self: {"kind": "toys:Missing"})
    with pytest.raises(RuntimeError, match="status 1") as caught:
        stage.fit()
    assert "toys:Missing" in "".join(caught.value.__notes__)


def test_an_outcome_of_an_attempt_before_is_not_taken_for_this_ones(stage: Stage) -> None:
    stage.fit()
    with pytest.raises(ModelError):
        stage.fit(Steps(fault="killed", steps=9))


def test_modules_in_the_working_folder_do_not_get_in_the_way(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (stage.folder / "json.py").write_text("raise RuntimeError('not me')")
    monkeypatch.chdir(stage.folder)
    assert stage.fit()[0].steps == 3


# --------------------------------------------------------------------------------------------------- interruptions


def interrupt_at(step: int) -> Callable[[int], None]:
    def then(done: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    return then


def test_an_interrupted_stage_saves_and_goes_on_from_there(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOYS_STEP", "0.05")
    with pytest.raises(KeyboardInterrupt):
        stage.fit(Steps(steps=50), interrupt_at(2))
    assert not alive(stage.child)
    stopped = json.loads((stage.folder / "work" / "checkpoint.json").read_text())["step"]
    assert 2 <= stopped < 50
    monkeypatch.setenv("TOYS_STEP", "0")
    stage.fit(Steps(steps=50))
    steps = [int(text) for text in stage.logged("train") if not text.startswith("from")]
    assert steps == list(range(1, 51))


def test_a_second_interrupt_ends_the_stage_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one waits for the step in work, here for a minute."""
    again = threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT))

    def then(done: int) -> None:
        (stage.folder / "slow").touch()
        again.start()
        raise KeyboardInterrupt

    monkeypatch.setenv("TOYS_STEP", "0.5")
    monkeypatch.setenv("TOYS_SLOW", str(stage.folder / "slow"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            stage.fit(Steps(steps=3), then)
    finally:
        again.cancel()
        again.join()
        signal.signal(signal.SIGINT, before)
    assert not alive(stage.child)
    assert stage.logged("train")[1:] == ["1"], "the slow step was not waited for"


def test_a_fault_of_the_watcher_ends_the_child(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def then(done: int) -> None:
        raise ValueError("nobody can be told")

    monkeypatch.setenv("TOYS_STEP", "0.2")
    with pytest.raises(ValueError, match="nobody can be told"):
        stage.fit(Steps(steps=500), then)
    assert not alive(stage.child)


# ---------------------------------------------------------------------------------------------- with the parent

PARENT = """
import sys
from pathlib import Path
from test_fit import Stage
from toys import Steps
stage = Stage(Path(sys.argv[1]))
stage.fit(Steps(steps=1000))
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that trains, in step 2 or later."""
    environment = os.environ | {"PYTHONPATH": str(TESTS), "TOYS_LOG": str(tmp_path / "log"), "TOYS_STEP": "0.05"}
    process = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env=environment)
    until(lambda: (tmp_path / "log").exists() and "train 2\n" in (tmp_path / "log").read_text())
    yield process
    process.kill()
    process.wait()


def logged_child(folder: Path) -> int:
    line = next(line for line in (folder / "log").read_text().splitlines() if line.startswith("train from"))
    return int(line.split()[-1])


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_the_child_ends_with_its_parent(parent: subprocess.Popen[bytes], tmp_path: Path, death: signal.Signals) -> None:
    child = logged_child(tmp_path)
    assert alive(child)
    parent.send_signal(death)
    parent.wait()
    until(lambda: not alive(child), 10)
    assert not files.is_held(tmp_path / "lock")


def test_the_step_stays_locked_until_the_child_is_gone(parent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    child = logged_child(tmp_path)
    os.kill(child, signal.SIGSTOP)
    until(lambda: state(child) == "T")  # Now it cannot notice that its parent dies.
    parent.kill()
    parent.wait()
    assert alive(child)
    assert files.is_held(tmp_path / "lock")
    os.kill(child, signal.SIGCONT)
    until(lambda: not alive(child), 10)
    assert not files.is_held(tmp_path / "lock")
