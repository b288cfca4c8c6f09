"""Errors: what each says, and the exit status it has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import errors
from harness.errors import Fault, HarnessError, SpecError, did_you_mean

CLASSES = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, HarnessError)]


def test_the_tree_in_the_docstring_names_every_error_with_its_exit_status() -> None:
    told = dict(re.findall(r"(\w+Error) +(\d)", errors.__doc__ or ""))
    assert told == {cls.__name__: str(cls.exit_status) for cls in CLASSES}


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault("too many"), "too many"),
        (Fault("too many", file="x.toml"), "x.toml: too many"),
        (Fault("too many", file="x.toml", line=3, path="data.rows"), "x.toml:3 data.rows: too many"),
        (Fault("too many", path="data.rows"), "data.rows: too many"),
    ],
)
def test_a_fault_names_its_place_as_far_as_it_is_known(fault: Fault, text: str) -> None:
    assert str(fault) == text


def test_a_spec_error_tells_all_its_faults_one_a_line() -> None:
    error = SpecError([Fault("one", "x.toml", 1), Fault("two", "x.toml", 2)])
    assert str(error).splitlines() == ["x.toml:1: one", "x.toml:2: two"]
    assert len(error.faults) == 2


def test_did_you_mean_guesses_only_what_is_near_and_lists_what_there_is() -> None:
    assert did_you_mean("lorra", ["lora", "full"]) == " Did you mean 'lora'? Available: full, lora."
    assert did_you_mean("xyz", ["lora", "full"]) == " Available: full, lora."
    assert did_you_mean("xyz", []) == ""


def test_no_message_asks_for_a_stranger_on_the_package_index() -> None:
    """This project is installed from a checkout; on an index its name is someone else's."""
    files = list(Path(errors.__file__).parent.rglob("*.py"))
    assert len(files) > 50
    assert not [file for file in files if "harness[" in file.read_text(encoding="utf-8")]
