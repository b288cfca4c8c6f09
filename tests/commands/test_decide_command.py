"""`harness decide`: what it prints, and how terms are tried on results that are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import written_store as written

from harness.cli import main


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("decide")
    written.write(root)
    return root


def called(capsys: pytest.CaptureFixture[str], root: Path, *arguments: str) -> tuple[int, str, str]:
    status = main(["decide", *arguments, "--results", str(root)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_answer_comes_first_then_its_reasons(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capsys, root, "support")
    assert (status, err) == (0, "")
    assert out.startswith("support@1 Prompt, retrieve or fine-tune for support answers?\n")
    headings = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert {"Why", "How sure", "What it costs", "The others", "What would change the answer"} <= set(headings)
    assert all(len(line) <= 100 for line in out.splitlines())


def test_json_holds_the_decision_and_its_sentences(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(capsys, root, "--json")
    made = json.loads(out)
    assert status == 0 and made["recommended"] and made["sentences"][0]["lines"]
    assert [row["status"] for row in made["variants"]].count("failed") == 1


def test_other_terms_are_tried_without_a_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terms = ["--set", "constraints.latency_p95_ms=1100", "--set", "cost.machine_hour=0.5", "--set", "cost.currency=EUR"]
    status, out, _ = called(capsys, root, "support", *terms)
    assert status == 0 and "at most 1.1 s is asked" in out and "EUR" in out


def test_wrong_terms_are_wrong_usage(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capsys, root, "--set", "constraints.latency=5")
    assert (status, out) == (2, "") and "Did you mean 'latency_p95_ms'?" in err
