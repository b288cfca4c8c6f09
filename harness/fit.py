"""One training stage in a process of its own: `python -m harness.fit JOB.json`.

A process of its own keeps the stage's memory apart from everything else, and the runner alive when the stage is
killed. The job file holds the method's settings and the paths of a `TrainJob`; progress goes to standard output, a JSON
line a step; the outcome, or a fault that the user can act on, goes to `outcome.json` beside the job.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, ModelError
from harness.plugins import Method, TrainJob, Trained, find

Progress = Callable[[int, int, Mapping[str, float]], None]


def run(method: Method, job: TrainJob, folder: Path, progress: Progress) -> tuple[Trained, int]:
    """Train in a child process. Returns what the stage reports and the child's highest memory in bytes.

    `progress` may raise KeyboardInterrupt: the child then saves what it has and ends. Raises the child's HarnessError
    as a ModelError, and RuntimeError with the child's traceback where it met a fault of the code.
    """
    file, outcome = folder / "job.json", folder / "outcome.json"
    outcome.unlink(missing_ok=True)
    paths = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(job).items()}
    file.write_text(json.dumps({"method": method.table(), "job": paths}), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with (folder / "stage.log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "harness.fit", str(file)],
            stdout=subprocess.PIPE,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the runner alone; it decides what the child does.
        )
        try:
            _follow(child, progress)
        except BaseException:
            _end(child)
            raise
    return _outcome(outcome, child.returncode, folder / "stage.log")


def _follow(child: subprocess.Popen[bytes], progress: Progress) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith(b'{"step"'):
            event = json.loads(line)
            progress(event["step"], event["steps"], event["figures"])
    child.wait()


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask the child to save and end; kill it where it does not within half a minute."""
    child.send_signal(signal.SIGINT)
    try:
        child.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()


def _outcome(file: Path, status: int, log: Path) -> tuple[Trained, int]:
    if not file.exists():
        if status == -signal.SIGKILL:
            raise ModelError(
                "the training process was killed, most likely because memory ran out. "
                "Try a smaller micro_batch or max_length, or gradient_checkpointing = true"
            )
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
        raise RuntimeError(f"the training process ended with status {status}:\n{tail}")
    said = json.loads(file.read_text(encoding="utf-8"))
    if "fault" in said:
        raise ModelError(said["fault"])
    return Trained(**said["trained"]), int(said["peak_memory_bytes"])


# ------------------------------------------------------------------------------------------------------ the child


def main(file: Path) -> int:
    written = json.loads(file.read_text(encoding="utf-8"))
    settings = written["method"]
    method = find("methods", settings.pop("kind")).model_validate(settings)
    assert isinstance(method, Method)
    values: dict[str, Any] = written["job"]
    for name in ("train", "dev", "incoming", "out", "work"):
        values[name] = Path(values[name]) if values[name] is not None else None
    stopping = False

    def stop(signum: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGINT, stop)
    # Libraries print to standard output as they like; only our own lines may go through the pipe.
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def progress(step: int, steps: int, figures: Mapping[str, float]) -> None:
        pipe.write(json.dumps({"step": step, "steps": steps, "figures": dict(figures)}) + "\n")
        if stopping:
            raise KeyboardInterrupt

    try:
        trained = method.fit(TrainJob(**values), progress)
        said: dict[str, Any] = {"trained": asdict(trained), "peak_memory_bytes": _peak()}
    except KeyboardInterrupt:
        return 130
    except HarnessError as error:
        said = {"fault": str(error)}
    temporary = file.with_name("outcome.tmp")
    temporary.write_text(json.dumps(said), encoding="utf-8")
    temporary.replace(file.with_name("outcome.json"))
    return 0


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
