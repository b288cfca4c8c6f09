"""TOML read into a tree in which every value knows its place: file, line and path of keys.

`tomllib` is the parser of record and says what a document means; a small scanner then walks the same, now known to be
valid, text once more and notes on which line each key and each element of an array begins.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import Fault

DEEPEST = 64
"""How many tables and arrays may lie within each other: a spec needs eight, and what reads it calls itself."""

Key = tuple[str | int, ...]
"""The way to a value: names of keys, and indices into arrays from 0."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written. `file` is as shown to the user; `folder` is where its relative paths start."""

    file: str
    line: int | None
    path: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place. A table's values and an array's elements are nodes again. Never changed, only rebuilt.

    `of_kind` is set where a setting was written for another `kind` of plug-in than the one that inherits it.
    """

    value: dict[str, Node] | list[Node] | str | int | float | bool | datetime.date | datetime.time
    place: Place
    of_kind: str | None = None

    @property
    def table(self) -> dict[str, Node]:
        """The values of a table; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Node]:
        """The elements of an array; empty for anything else."""
        return self.value if isinstance(self.value, list) else []

    def text(self, key: str) -> str | None:
        """The text under `key`, or None where there is none or it is no text."""
        child = self.table.get(key)
        return child.value if child is not None and isinstance(child.value, str) else None

    def at(self, path: Key) -> Node:
        """Return the deepest node that exists on the way along `path`."""
        node = self
        for part in path:
            if isinstance(part, str) and part in node.table:
                node = node.table[part]
            elif isinstance(part, int) and part < len(node.items):
                node = node.items[part]
            else:
                break
        return node

    def plain(self) -> Any:
        """Return the bare value, without places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def read(file: Path, shown: str) -> Node | Fault:
    """Read a TOML file, or return the fault that keeps it from being read: absent, not UTF-8, not TOML, too deep."""
    try:
        data = file.read_bytes()
    except OSError as error:
        return Fault(f"cannot be read: {error.strerror or error}", file=shown)
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return Fault("is not UTF-8 text here: save the file as UTF-8", file=shown, line=line)
    try:
        values = tomllib.loads(text)
        return _build(values, (), lines_of(text), shown, file.parent, _names(values))
    except RecursionError:
        return Fault(f"is nested too deeply: at most {DEEPEST} tables and arrays may lie within each other", file=shown)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = re.search(r"\(at line (\d+), column (\d+)\)", message)
        line = int(found[1]) if found else text.count("\n") + 1
        what = message.partition(" (at ")[0]
        column = f", column {found[2]}" if found else ""
        return Fault(f"is not valid TOML{column}: {what[:1].lower()}{what[1:]}", file=shown, line=line)


def node_of(value: Any, place: Place) -> Node:
    """Turn a bare value into nodes that all stand at one `place`."""
    if isinstance(value, dict):
        return Node({key: node_of(child, place) for key, child in value.items()}, place)
    if isinstance(value, list):
        return Node([node_of(child, place) for child in value], place)
    return Node(value, place)


def dotted(path: Key) -> str:
    return ".".join(str(part) for part in path)


def _names(values: dict[str, Any]) -> dict[int, str]:
    """The names of the variants, which are clearer in a message than their numbers."""
    variants = values.get("variant")
    if not isinstance(variants, list):
        return {}
    named = {i: v.get("name") for i, v in enumerate(variants) if isinstance(v, dict)}
    return {i: name for i, name in named.items() if isinstance(name, str) and name}


def _build(value: Any, path: Key, lines: dict[Key, int], file: str, folder: Path, names: dict[int, str]) -> Node:
    """Raises RecursionError below DEEPEST."""
    if len(path) > DEEPEST:
        raise RecursionError
    shown = path
    if len(path) > 1 and path[0] == "variant" and isinstance(path[1], int):
        shown = ("variant", names.get(path[1], path[1]), *path[2:])
    place = Place(file, lines.get(path, 1), dotted(shown), folder)
    if isinstance(value, dict):
        return Node({k: _build(v, (*path, k), lines, file, folder, names) for k, v in value.items()}, place)
    if isinstance(value, list):
        return Node([_build(v, (*path, i), lines, file, folder, names) for i, v in enumerate(value)], place)
    return Node(value, place)


# --------------------------------------------------------------------------------------------------------- scanner

_SPACE = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_PART = re.compile(r"[ \t]*([A-Za-z0-9_-]+|\"(?:\\.|[^\"\\])*\"|'[^']*')[ \t]*")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?!")' + r"|'''.*?'''(?!')" + r'|"(?:\\.|[^"\\])*"' + r"|'[^']*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^\s,\]}#]+")


def lines_of(text: str) -> dict[Key, int]:
    """Return the line, from 1, on which each key and each element of an array of a valid TOML document begins.

    A table that is written in several places counts from its own header, else from where it is first spoken of.
    """
    return _Scanner(text).lines


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.lines: dict[Key, int] = {}
        self._counted = (0, 1)  # a position and its line, so that lines are counted once
        self._tables: dict[Key, int] = {}  # arrays of tables: how many elements each has so far
        self._document()

    def _line(self) -> int:
        position, line = self._counted
        line += self.text.count("\n", position, self.position)
        self._counted = (self.position, line)
        return line

    def _document(self) -> None:
        table: Key = ()
        while self._skip_space():
            if self.text.startswith("[", self.position):
                table = self._header()
            else:
                self._pair(table)

    def _skip_space(self) -> bool:
        """Skip spaces, line ends and comments; return whether anything is left."""
        found = _SPACE.match(self.text, self.position)
        self.position = found.end() if found else self.position
        return self.position < len(self.text)

    def _header(self) -> Key:
        line = self._line()
        array = self.text.startswith("[[", self.position)
        self.position += 2 if array else 1
        *parents, last = self._parts()
        self.position += 2 if array else 1
        path: Key = ()
        for part in parents:
            path = (*path, part)
            self.lines.setdefault(path, line)
            if path in self._tables:
                path = (*path, self._tables[path] - 1)
        path = (*path, last)
        if array:
            self.lines.setdefault(path, line)
            index = self._tables.get(path, 0)
            self._tables[path] = index + 1
            path = (*path, index)
        self.lines[path] = line
        return path

    def _pair(self, table: Key) -> None:
        line = self._line()
        path = table
        for part in self._parts():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self.position += 1  # the equals sign
        self._value(path)

    def _parts(self) -> Iterator[str]:
        """Read a dotted key, up to the character that ends it."""
        while True:
            found = _PART.match(self.text, self.position)
            assert found is not None, "tomllib accepted this text"
            self.position = found.end()
            raw = found[1]
            yield tomllib.loads(f"key = {raw}")["key"] if raw[0] in "\"'" else raw
            if not self.text.startswith(".", self.position):
                return
            self.position += 1

    def _value(self, path: Key) -> None:
        self._skip_space()
        opening = self.text[self.position]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        elif opening in "\"'":
            self._match(_STRING)
        else:
            # A date and its time may have a space between them.
            self._match(_SCALAR)
            if re.match(r" \d\d:\d\d", self.text[self.position : self.position + 6]):
                self.position += 1
                self._match(_SCALAR)

    def _match(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.position)
        assert found is not None, "tomllib accepted this text"
        self.position = found.end()

    def _array(self, path: Key) -> None:
        self.position += 1
        index = 0
        while self._skip_space() and self.text[self.position] != "]":
            if self.text[self.position] == ",":
                self.position += 1
                continue
            self.lines[(*path, index)] = self._line()
            self._value((*path, index))
            index += 1
        self.position += 1

    def _inline_table(self, path: Key) -> None:
        self.position += 1
        while self._skip_space() and self.text[self.position] != "}":
            if self.text[self.position] == ",":
                self.position += 1
                continue
            self._pair(path)
        self.position += 1
