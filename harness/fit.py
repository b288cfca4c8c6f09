"""One training stage in a process of its own: `python -m harness.fit JOB.json`.

A process of its own keeps the stage's memory apart from everything else, and the runner alive when the stage is
killed. The job file holds the method's settings and the paths of a `TrainJob`; progress goes to standard output, a JSON
line a step; the outcome, or the fault that ended the stage, goes to `outcome.json` beside the job.

The child never outlives its parent: its standard input is a pipe that nothing is written to and that the system closes
when the parent dies, however it dies. The child also keeps the lock of its step open, so that no other process begins
the step before the child is gone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import HarnessError, ModelError
from harness.measure import gpu_peak_bytes
from harness.plugins import Method, Trained, TrainJob, find

log = logging.getLogger(__name__)


class OutOfMemory(ModelError):
    """The stage was killed, or gave up, because memory ran out."""


Progress = Callable[[int, int, Mapping[str, float]], None]


def run(method: Method, job: TrainJob, folder: Path, progress: Progress, lock: int) -> tuple[Trained, int]:
    """Train in a child process. Returns what the stage reports and the child's highest memory in bytes, GPUs included.

    A child that is killed for lack of memory is followed by another one that computes fewer rows at once, for the same
    step of the optimizer, as long as the method can do with fewer; the details then hold "micro_batch", and how often
    memory ran out as "out_of_memory". It goes on from the last checkpoint.

    `progress` may raise KeyboardInterrupt: the child then saves what it has and ends, and a second interrupt ends it at
    once. `lock` is the open handle of the step's lock. Raises the child's HarnessError as a ModelError, OutOfMemory
    where not even one row at a time fits, and RuntimeError with the child's traceback as a note where it met a fault of
    the code.
    """
    failures = 0
    while True:
        try:
            trained, peak = _once(method, job, folder, progress, lock)
        except OutOfMemory as error:
            fewer = method.fewer_at_once()
            if fewer is None:
                raise
            failures += 1
            log.warning("memory ran out; trying again with fewer rows at once: %s", error)
            method = fewer
            continue
        if failures:
            again = {"out_of_memory": failures, "micro_batch": method.table().get("micro_batch")}
            trained = replace(trained, details=trained.details | again)
        return trained, peak


def _once(method: Method, job: TrainJob, folder: Path, progress: Progress, lock: int) -> tuple[Trained, int]:
    file, outcome = folder / "job.json", folder / "outcome.json"
    outcome.unlink(missing_ok=True)
    paths = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(job).items()}
    file.write_text(json.dumps({"method": method.table(), "job": paths}), encoding="utf-8")
    # The same modules as here, found at the same places, and nothing of the working folder besides (-P).
    modules = {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    with (
        (folder / "stage.log").open("ab") as written,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.fit", str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=written,
            env={**ENVIRONMENT, **os.environ, **modules},
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C reaches the runner alone; it decides what the child does.
        ) as child,
    ):
        try:
            _follow(child, progress)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
    if child.returncode == FULL:
        with files.disk(folder):
            raise OSError(FULL, os.strerror(FULL))
    return _outcome(outcome, child.returncode, folder / "stage.log")


ENVIRONMENT = {"THP_MEM_ALLOC_ENABLE": "1"}
"""What torch is told in the child: to take large tensors in huge pages of Linux. Aligned alike, one fits where another
was freed; as they are taken otherwise, the heap falls to pieces and grows to several times what is in use."""

FULL = errno.ENOSPC
"""The exit status of a child that found no room on the disk, where it may find none to tell so either."""
_FULL = (FULL, errno.EDQUOT, errno.EFBIG)

_TRY = "Try a smaller micro_batch or max_length, or gradient_checkpointing = true"


def _follow(child: subprocess.Popen[bytes], progress: Progress) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(b'{"step"'):
            event = json.loads(line)
            try:
                progress(event["step"], event["steps"], event["figures"])
            except KeyboardInterrupt:
                child.send_signal(signal.SIGINT)
                child.stdout.read()  # It saves, however long that takes.
                child.wait()
                raise
    child.wait()


def _outcome(file: Path, status: int, log: Path) -> tuple[Trained, int]:
    if not file.exists():
        if status == -signal.SIGKILL:
            raise OutOfMemory(f"the training process was killed, most likely because memory ran out. {_TRY}")
        fault = RuntimeError(f"the training process ended with status {status}")
        fault.add_note("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:]))
        raise fault
    said = json.loads(file.read_text(encoding="utf-8"))
    if "memory" in said:
        raise OutOfMemory(f"memory ran out in training ({said['memory']}). {_TRY}")
    if "fault" in said:
        raise ModelError(said["fault"])
    if "bug" in said:
        fault = RuntimeError(f"the training process met a fault: {said['bug']}")
        fault.add_note(said["traceback"])
        raise fault
    return Trained(**said["trained"]), int(said["peak_memory_bytes"])


# ------------------------------------------------------------------------------------------------------ the child


def main(file: Path) -> int:
    """Run the stage of the job in `file` and return the exit status: 0 with an outcome beside it, 130 interrupted."""
    threading.Thread(target=_die_with_parent, args=(os.dup(0),), daemon=True).start()
    written = json.loads(file.read_text(encoding="utf-8"))
    settings = written["method"]
    method = find("methods", settings.pop("kind")).model_validate(settings)
    assert isinstance(method, Method)
    values: dict[str, Any] = written["job"]
    for name in ("train", "dev", "dev_examples", "incoming", "out", "work"):
        values[name] = Path(values[name]) if values[name] is not None else None
    stopping = False

    def stop(signum: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGINT, stop)
    # Libraries print to standard output as they like; only our own lines may go through the pipe.
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)

    def progress(step: int, steps: int, figures: Mapping[str, float]) -> None:
        values = {name: float(value) for name, value in figures.items()}
        pipe.write(json.dumps({"step": step, "steps": steps, "figures": values}) + "\n")
        if stopping:
            raise KeyboardInterrupt

    try:
        trained = method.fit(TrainJob(**values), progress)
        said: dict[str, Any] = {"trained": asdict(trained), "peak_memory_bytes": _peak() + gpu_peak_bytes()}
    except KeyboardInterrupt:
        return 130
    except HarnessError as error:
        said = {"fault": str(error)}
    except Exception as error:
        if _no_room(error):
            return FULL
        said = {"bug": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        if _no_memory(error):
            said = {"memory": str(error).splitlines()[0] if str(error) else type(error).__name__}
    temporary = file.with_name("outcome.tmp")
    try:
        temporary.write_text(json.dumps(said), encoding="utf-8")
        temporary.replace(file.with_name("outcome.json"))
    except OSError as error:
        if _no_room(error):
            return FULL
        raise
    return 0


def _no_memory(error: Exception) -> bool:
    """Whether it is what Python or torch raise where memory cannot be had (torch.OutOfMemoryError on a GPU)."""
    said = str(error)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "not enough memory" in said


def _no_room(error: BaseException | None) -> bool:
    """Whether it is what Python, safetensors or torch raise where a disk is full, or something that came of it."""
    if error is None:
        return False
    said = str(error)
    return (
        getattr(error, "errno", None) in _FULL
        or any(f"(os error {number})" in said for number in _FULL)
        or "iostream error" in said  # torch's writer tells no more.
        or _no_room(error.__context__)
    )


def _die_with_parent(leash: int) -> None:
    """Kill this process, and those it has started, when the other end of `leash` is closed."""
    os.read(leash, 1)
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _peak() -> int:
    """The highest resident size of this process, in bytes."""
    try:
        # Not ru_maxrss: after vfork and exec Linux counts the parent's memory into it.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
