"""Packages of an optional part: imported where they are needed, and named where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from harness.errors import ModelError


@contextmanager
def needed(extra: Literal["train", "retrieve", "metrics"]) -> Iterator[None]:
    """Turn an import inside that finds no package into a ModelError that names the `extra` to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "harness"):
            raise
        raise ModelError(
            f"this needs the package {package}, which is not installed: run `pip install -e '.[{extra}]'` in a checkout"
        ) from error
