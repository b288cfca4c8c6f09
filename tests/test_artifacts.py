"""What the folder of an artifact says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import artifacts
from harness.errors import ModelError

BASE, OTHER = "a" * 64, "b" * 64


def folder(path: Path, **contents: Any) -> Path:
    path.mkdir(exist_ok=True)
    for name, value in contents.items():
        (path / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("contents", "kind"),
    [
        ({"artifact": {"kind": "adapter", "base": BASE}, "adapter_config": {"peft_type": "LORA"}}, "adapter"),
        ({"artifact": {"kind": "model", "base": BASE}, "config": {}}, "model"),
        ({"adapter_config": {"peft_type": "LORA"}}, "adapter"),
        ({"config": {}}, "model"),
        ({"artifact": {"base": BASE}, "config": {}}, "model"),
    ],
)
def test_a_folder_is_an_adapter_or_a_model(tmp_path: Path, contents: dict[str, Any], kind: str) -> None:
    assert artifacts.kind(folder(tmp_path, **contents), BASE, "m") == kind


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "holds neither a PEFT adapter"),
        ({"artifact": {"kind": "model", "base": OTHER}}, "another model than 'm' .*fingerprint b{12}, this one a{12}"),
        ({"artifact": {"kind": "something"}}, "holds neither"),
        ({"artifact": "{"}, "artifact.json cannot be read as JSON"),
        ({"artifact": "[]"}, "artifact.json is not a JSON object"),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path: Path, contents: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        artifacts.kind(folder(tmp_path, **contents), BASE, "m")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no adapter folder .*nowhere"):
        artifacts.kind(tmp_path / "nowhere", BASE, "m")
