"""The sample that `harness init` writes: it is whole, sound, and never written over."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import data, spec, starter
from harness.errors import HarnessError, SpecError, UsageError


def test_the_sample_is_a_spec_that_checks_with_its_data(tmp_path: Path) -> None:
    written = starter.write(tmp_path / "new" / "folder")
    assert all(file.is_file() for file in written)
    found = spec.load(tmp_path / "new" / "folder" / starter.SPEC)
    dataset = data.load(found.data)
    assert dataset.counts["train"] >= 8
    assert dataset.counts["heldout"] >= 4
    assert dataset.counts["documents"] >= 5
    assert {variant.family for variant in found.variants} == {"prompting", "RAG", "fine-tuning", "hybrid"}


def test_the_sample_explains_itself(tmp_path: Path) -> None:
    starter.write(tmp_path)
    lines = (tmp_path / starter.SPEC).read_text().splitlines()
    assert sum("#" in line for line in lines) > len(lines) / 4


def test_every_line_of_the_sample_changes_what_is_run(tmp_path: Path) -> None:
    starter.write(tmp_path)
    file = tmp_path / starter.SPEC
    lines = file.read_text().splitlines(keepends=True)
    whole = spec.load(file).resolved()
    idle = []
    for i, line in enumerate(lines):
        if " = " in line and not line.startswith("#"):
            file.write_text("".join(lines[:i] + lines[i + 1 :]))
            try:
                idle += [line] if spec.load(file).resolved() == whole else []
            except SpecError:
                continue
    assert idle == []


def test_nothing_is_written_where_a_file_of_the_sample_is_already(tmp_path: Path) -> None:
    (tmp_path / "heldout.jsonl").write_text("mine")
    with pytest.raises(UsageError, match=r"nothing was written.*heldout\.jsonl.*Choose another folder"):
        starter.write(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["heldout.jsonl"]
    assert (tmp_path / "heldout.jsonl").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HarnessError, match=r"cannot write .*file.*Choose another folder"):
        starter.write(tmp_path / "file")
