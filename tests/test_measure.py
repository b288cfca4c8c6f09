"""Measuring: seconds over several processes, memory, and what a result was made with."""

from __future__ import annotations

import getpass
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import measure
from harness.measure import Meter, processor, provenance, release_memory, resident_bytes


def test_seconds_are_those_inside_the_block(tmp_path: Path) -> None:
    with Meter(tmp_path / "meter.json") as meter:
        time.sleep(0.1)
    measured = meter.seconds
    time.sleep(0.05)
    assert 0.1 <= measured < 5
    assert meter.seconds == measured
    assert meter.figures() == {"seconds": measured, "peak_memory_bytes": meter.peak}


def test_a_step_that_goes_on_counts_the_time_and_memory_from_before(tmp_path: Path) -> None:
    file = tmp_path / "meter.json"
    file.write_text(json.dumps({"seconds": 100.0, "peak": 2**50}))
    with Meter(file) as meter:
        pass
    assert 100 <= meter.seconds < 101
    assert meter.peak == 2**50
    assert json.loads(file.read_text())["seconds"] == pytest.approx(meter.seconds, abs=1)


def test_the_time_so_far_is_kept_every_second(tmp_path: Path) -> None:
    file = tmp_path / "meter.json"
    with Meter(file):
        end = time.monotonic() + 10
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert 0.9 < json.loads(file.read_text())["seconds"] < 10


def test_time_counts_where_the_block_fails_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="slip"), Meter(tmp_path / "meter.json"):
        time.sleep(0.05)
        raise ValueError("slip")
    with Meter(tmp_path / "meter.json") as meter:
        pass
    assert meter.seconds >= 0.05


@pytest.mark.parametrize("torn", ["", '{"seconds": 1', "[]", '{"seconds": null, "peak": 1}'])
def test_a_torn_file_counts_as_nothing(tmp_path: Path, torn: str) -> None:
    file = tmp_path / "meter.json"
    file.write_text(torn)
    with Meter(file) as meter:
        pass
    assert meter.seconds < 1


def test_a_total_that_cannot_be_kept_stops_nothing(tmp_path: Path) -> None:
    with Meter(tmp_path / "missing" / "meter.json") as meter:
        pass
    assert meter.seconds < 1


def test_the_peak_is_at_least_what_was_held_in_the_block(tmp_path: Path) -> None:
    release_memory()
    before = resident_bytes()
    with Meter(tmp_path / "meter.json") as meter:
        held = bytearray(64 * 2**20)
        time.sleep(0.15)
        del held
    assert meter.peak >= before + 60 * 2**20


def test_what_gpus_held_counts_and_measuring_loads_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; from harness.measure import gpu_peak_bytes as g; assert g() == 0 and 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    monkeypatch.setattr(measure, "gpu_peak_bytes", lambda: 2**45)
    with Meter(tmp_path / "meter.json") as meter:
        pass
    assert 2**45 < meter.peak < 2**45 + 2**40
    assert json.loads((tmp_path / "meter.json").read_text())["peak"] == meter.peak


def test_provenance_tells_versions_and_processor_and_nothing_of_who_and_where() -> None:
    told = provenance()
    assert told["processor"] == processor() != ""
    assert {"harness", "python", "system", "cores", "versions"} <= told.keys()
    text = json.dumps(told)
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
    assert f"/{getpass.getuser()}" not in text
