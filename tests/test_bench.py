"""The benchmarks start without settings of the environment."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


def test_the_data_lie_beside_the_checkout_unless_a_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = runpy.run_path(str(BENCH / "evaluation.py"))["data_folder"]
    monkeypatch.delenv("HARNESS_SHARED_DATA", raising=False)
    assert folder() == BENCH.parent.parent / "shared" / "data"
    monkeypatch.setenv("HARNESS_SHARED_DATA", "/data")
    assert folder() == Path("/data")
