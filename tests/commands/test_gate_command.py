"""`harness gate`: exit statuses, and the files for continuous integration."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import written_store as written

from harness.cli import main

HOLDS, FAILS = ["--rule", "memory_gib <= 64"], ["--rule", "exact_match >= 0.999"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gate")
    written.write(root)
    return root


@pytest.fixture(autouse=True)
def outside_github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def called(capsys: pytest.CaptureFixture[str], root: Path, *arguments: str) -> tuple[int, str, str]:
    status = main(["gate", *arguments, "--results", str(root)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_it_exits_with_0_when_all_rules_hold_and_100_when_one_fails(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = called(capsys, root, *HOLDS)
    assert status == 0 and out.startswith("pass memory_gib <= 64: memory_gib is 2.0 GiB")
    status, out, _ = called(capsys, root, *HOLDS, *FAILS)
    assert status == 100 and "FAIL exact_match >= 0.999" in out and "1 of 2 rules failed." in out


def test_without_rules_it_is_used_wrongly(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capsys, root)
    assert (status, out) == (2, "") and "there is no rule to check" in err


def test_json_says_of_each_rule_what_it_was_judged_by(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(capsys, root, *FAILS, "--variant", "rag", "--json")
    made = json.loads(out)
    assert status == 100 and made["passed"] is False and made["variant"] == "rag"
    assert {"rule", "value", "low", "high", "bound", "certain", "passed"} <= set(made["outcomes"][0])


def test_junit_is_written_anew(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "gate.xml"
    file.write_text("old")
    assert called(capsys, root, *FAILS, "--junit", str(file))[0] == 100
    assert ElementTree.parse(file).getroot().find("testsuite/testcase/failure") is not None


def test_markdown_is_appended_to_a_file(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    file.write_text("before\n")
    assert called(capsys, root, *HOLDS, "--markdown", str(file))[0] == 0
    assert file.read_text(encoding="utf-8").startswith("before\n### ✅ Gate passed: support@1\n")


def test_markdown_of_a_dash_goes_to_the_summary_of_github_or_to_the_terminal(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, out, _ = called(capsys, root, *HOLDS, "--markdown", "-")
    assert status == 0 and out.startswith("### ✅ Gate passed")
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    status, out, _ = called(capsys, root, *HOLDS, "--markdown", "-")
    assert out.startswith("pass ") and summary.read_text(encoding="utf-8").startswith("### ✅")


def test_a_file_that_cannot_be_written_is_told(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = called(capsys, root, *HOLDS, "--junit", str(tmp_path / "no" / "gate.xml"))
    assert status == 1 and "cannot be written" in err
