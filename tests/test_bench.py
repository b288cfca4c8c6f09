"""The benchmarks start without settings of the environment."""

from __future__ import annotations

import importlib
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


@pytest.mark.slow
def test_the_simulations_of_the_statistics_run_through(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(BENCH / "simulations.py"))["main"]
    monkeypatch.setattr("sys.argv", ["simulations.py", "--quick"])
    assert main() == 0
    told = capsys.readouterr().out
    assert "Promises that were not kept:" in told and "n  1000, 213 groups of 1-8" in told


@pytest.mark.parametrize(("file", "size"), [("references.py", ["--cases", "60"]), ("scoring.py", ["--examples", "60"])])
def test_the_metrics_agree_with_their_references_and_are_timed(
    file: str, size: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.setattr("sys.argv", [file, *size])
    assert importlib.import_module(file.removesuffix(".py")).main() == 0
    told = capsys.readouterr().out
    assert "ndcg@10" in told and "EXCEEDED" not in told
