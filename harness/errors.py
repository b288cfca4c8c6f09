"""The errors a user can meet, each with the exit status that the command line gives it.

    HarnessError                 1   anything the user can act on; shown as one message, without a traceback
    ├── UsageError               2   the command line was used wrongly
    ├── SpecError                2   one or more faults in a spec, each with its place
    ├── DataError                1   a data file cannot be used as the spec says
    │   └── LeakError            1   held-out examples also stand where the variants learn from
    ├── ModelError               1   a model, adapter or embedder cannot be loaded or used
    └── StoreError               1   the results folder cannot be read or written

Any other exception is a fault of the harness itself and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class HarnessError(Exception):
    """A fault that the user can act on. Its text says what, where, what was allowed and what to do."""

    exit_status = 1


class UsageError(HarnessError):
    exit_status = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of an input: `message` at `file`:`line`, under the dotted `path` of keys."""

    message: str
    file: str = ""
    line: int | None = None
    path: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        where = " ".join(part for part in (place, self.path) if part)
        return f"{where}: {self.message}" if where else self.message


class SpecError(HarnessError):
    """Every fault found in a spec at once."""

    exit_status = 2

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class DataError(HarnessError):
    pass


class LeakError(DataError):
    pass


class ModelError(HarnessError):
    pass


class StoreError(HarnessError):
    pass


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return " Did you mean 'x'? Available: x, y." for an unknown `word` (without the guess where none is near)."""
    names = sorted(allowed)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"{guess} Available: {', '.join(names)}." if names else guess
