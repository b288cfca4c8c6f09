"""A missing package is one message that names what to install."""

from __future__ import annotations

import sys

import pytest

from harness import devices, extras
from harness.errors import ModelError


def test_a_missing_package_names_itself_and_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with (
        pytest.raises(ModelError, match=r"package faiss, .*`pip install -e '\.\[retrieve\]'`") as caught,
        extras.needed("retrieve"),
    ):
        import faiss  # noqa: F401
    assert isinstance(caught.value.__cause__, ImportError)


def test_a_missing_part_of_the_harness_is_a_fault_of_its_own() -> None:
    with pytest.raises(ModuleNotFoundError), extras.needed("train"):
        import harness.nowhere  # type: ignore[import-not-found]  # noqa: F401


def test_asking_for_a_gpu_without_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ModelError, match=r"package torch, .*\[train\]"):
        devices.pick_dtype("auto", "cuda:7")
