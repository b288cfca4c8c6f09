"""Measuring a step: wall-clock seconds that survive a kill, the highest memory, and what it ran on."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import sys
import threading
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

import harness

_TICK = 0.05
_LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "sentence-transformers", "faiss-cpu", "numpy")


class Meter:
    """Measures the time and memory of one step, over all the processes that work on it one after another.

    Every second the totals so far are written to `file`, so that a step resumed after a kill counts the time spent
    before it (less a second at most). `seconds` is wall-clock; `peak` the highest resident size of a process in bytes,
    and on top of it what torch held on GPUs at most.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._before, self.peak = _read(file)
        self._start = self._ended = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def seconds(self) -> float:
        return self._before + (self._ended or time.perf_counter()) - self._start

    def figures(self) -> dict[str, Any]:
        """What was measured, as a step's outcome holds it."""
        return {"seconds": self.seconds, "peak_memory_bytes": self.peak}

    def __enter__(self) -> Meter:
        release_memory()
        forget_gpu_peak()
        self._start = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._ended = time.perf_counter()
        self._save()

    def _watch(self) -> None:
        saved = time.perf_counter()
        while not self._stop.wait(_TICK):
            self._look()
            if time.perf_counter() - saved >= 1:
                self._save()
                saved = time.perf_counter()

    def _look(self) -> None:
        self.peak = max(self.peak, resident_bytes() + gpu_peak_bytes())

    def _save(self) -> None:
        self._look()
        temporary = self._file.with_suffix(".tmp")
        with contextlib.suppress(OSError):  # A full disk: only what a resumed step would count is lost.
            temporary.write_text(json.dumps({"seconds": self.seconds, "peak": self.peak}), encoding="utf-8")
            temporary.replace(self._file)


def _read(file: Path) -> tuple[float, int]:
    """A missing or torn file counts as nothing measured yet: it is never more than a running total."""
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        return float(saved["seconds"]), int(saved["peak"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, 0


def resident_bytes() -> int:
    """The memory that this process holds now, in bytes."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        # Elsewhere only the highest size ever is to be had without another library (bytes on macOS).
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def gpu_peak_bytes() -> int:
    """The most that this process's tensors took on all NVIDIA GPUs since `forget_gpu_peak`; 0 where torch uses none."""
    cuda = _cuda()
    return sum(int(cuda.max_memory_allocated(number)) for number in range(cuda.device_count())) if cuda else 0


def forget_gpu_peak() -> None:
    if cuda := _cuda():
        for number in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(number)


def _cuda() -> Any:
    """torch.cuda where this process has used it, else None: measuring must not load torch or start a GPU."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # None while another thread imports torch.
    return cuda if cuda is not None and hasattr(cuda, "is_initialized") and cuda.is_initialized() else None


def release_memory() -> None:
    """Give freed memory back to the system, so that one step's memory is not counted against the next."""
    gc.collect()
    # Elsewhere than with glibc the figure of a later step may include what an earlier one freed.
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL("libc.so.6").malloc_trim(0)


@cache
def processor() -> str:
    """The name of this machine's processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def provenance() -> dict[str, Any]:
    """What a result was made with: versions and machine, but no names of hosts, users or folders."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "harness": harness.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": versions,
    }
