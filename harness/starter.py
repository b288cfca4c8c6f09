"""What `harness init` writes: a commented spec and a small data set of our own (CC0) that it runs on."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from harness.errors import HarnessError, UsageError

SPEC = "comparison.toml"


def write(folder: Path) -> list[Path]:
    """Write the sample into `folder` and return its files. Raises UsageError, with nothing written, where one of
    them is there already, and HarnessError where the folder cannot be written."""
    wanted = {folder / path: text for path, text in _sample(files("harness") / "sample", Path())}
    if there := [str(file) for file in wanted if file.exists()]:
        raise UsageError(
            f"nothing was written, since these are there already: {', '.join(there)}. Choose another folder."
        )
    try:
        for file, text in wanted.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HarnessError(f"cannot write {error.filename}: {error.strerror}. Choose another folder.") from error
    return list(wanted)


def _sample(place: Traversable, path: Path) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    for entry in sorted(place.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _sample(entry, path / entry.name)
        else:
            found.append((path / entry.name, entry.read_text(encoding="utf-8")))
    return found
