"""`harness slices`: what it prints by group, by tag and by what was retrieved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import written_store as written

from harness.cli import main


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slices")
    rows = [
        replace(example, tags=("short",) if len(example.input) < 38 else ("long", "level:hard"))
        for example in written.examples()
    ]
    written.write(root, rows=rows)
    written.write(root, name="bare", rows=[replace(row, tags=(), group="", sources=()) for row in rows])
    return root


def called(capsys: pytest.CaptureFixture[str], root: Path, *arguments: str) -> tuple[int, str, str]:
    status = main(["slices", *arguments, "--results", str(root)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_tags_come_first_and_the_other_ways_are_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(capsys, root, "support")
    assert status == 0
    assert out.startswith("exact_match (higher is better) by tags, with 95 % intervals")
    assert "Also by: group, retrieved, level (--by)." in out
    assert "raft, the first overall, is behind in no slice." in out
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith(("short", "long", "level:hard"))}
    assert len(rows) == 3 and all("%" in row for row in rows.values())
    assert rows["long"].split()[1:] == rows["level:hard"].split()[1:]


def test_by_group_every_interval_is_not_applicable(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(capsys, root, "support", "--by", "group")
    assert status == 0 and "n/a" in out and "Intervals: n/a (one group)." in out
    assert " to " not in out.split("Intervals")[0]


def test_by_what_was_retrieved(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(
        capsys, root, "support", "--by", "retrieved", "--metric", "exact_match", "--metric", "token_f1"
    )
    assert status == 0
    assert "exact_match (higher is better) by whether the gold passage was in the prompt" in out
    assert "gold passage" in out and "lost by" in out and "generation" in out
    assert "part of it" not in out.split("Lost:")[0]  # every example names one document


def test_json_is_a_list_of_one_entry_a_metric(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(capsys, root, "support", "--metric", "exact_match", "--metric", "recall@3", "--json")
    first, second = json.loads(out)
    assert status == 0 and first["metric"] == "exact_match" and second["metric"] == "recall@3"
    assert list(second["slices"][0]["variants"]) == ["rag", "raft"]
    _, out, _ = called(capsys, root, "support", "--metric", "all", "--json")
    assert [entry["metric"] for entry in json.loads(out)] == ["exact_match", "token_f1", "recall@3"]
    _, out, _ = called(capsys, root, "support", "--by", "retrieved", "--json")
    assert json.loads(out)[0]["variants"].keys() == {"rag", "raft"}


def test_data_without_tags_groups_and_sources_cannot_be_sliced(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capsys, root, "bare")
    assert (status, out) == (2, "") and "have no tags and no groups" in err
    assert called(capsys, root, "bare", "--by", "retrieved")[0] == 2
