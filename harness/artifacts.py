"""What the artifact of a training stage says of itself; a folder that PEFT or transformers wrote is read as one too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from harness.errors import ModelError


def kind(path: Path, base: str, name: str) -> Literal["adapter", "model"]:
    """Return what the folder `path` holds: an adapter for the model `name`, or a whole model to take its place.

    `base` is that model's fingerprint. Raises ModelError where the folder is neither, says that it comes from other
    weights, or is a reward model.
    """
    said = described(path)
    made_from = said.get("base")
    if made_from not in (None, base):
        raise ModelError(
            f"artifact {path} was trained on another model than {name!r} (its base has the fingerprint "
            f"{str(made_from)[:12]}, this one {base[:12]}). Use it with that model, or train again."
        )
    there = {"adapter": (path / "adapter_config.json").is_file(), "model": (path / "config.json").is_file()}
    found = said.get("kind") or next((kind for kind in there if there[kind]), None)
    if found == "reward":
        raise ModelError(
            f"artifact {path} is a reward model: it marks answers and cannot give any. Use it as `reward`."
        )
    if found == "preferences":
        raise ModelError(f"artifact {path} holds preferences, and no model: name it as `preferences`")
    if found == "adapter":
        return "adapter"
    if found == "model":
        return "model"
    raise ModelError(f"{path} holds neither a PEFT adapter (adapter_config.json) nor a model (config.json)")


def described(path: Path) -> dict[str, Any]:
    """Return what artifact.json in the folder `path` says; nothing where PEFT or transformers wrote it. Raises
    ModelError."""
    if not path.is_dir():
        raise ModelError(f"there is no adapter folder {path}")
    return _read(path / "artifact.json")


def _read(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds; an empty one where there is no such file."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file} is not a JSON object")
    return found
