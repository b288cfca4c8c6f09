"""The fields of rows that a spec names: keys or dotted paths into nested values, and what lies there as texts."""

from __future__ import annotations

import json
import math
from typing import Any

from harness.data_spec import Named
from harness.readers import Row, Rows


def field_of(table: Rows, named: Named | None) -> str | None:
    """The field that `named` means in this file: of several the first that a row has."""
    if named is None or isinstance(named, str):
        return named
    return next((field for field in named if any(follow(row, field) is not None for row in table.rows)), named[0])


def follow(value: Any, path: str) -> Any:
    """Return what lies at a dotted path: a key of a table, a number into a list, or a key of every table in a list.

    A key that holds dots itself is found first. None where there is nothing.
    """
    if isinstance(value, dict):
        if path in value:
            return value[path]
        name, _, rest = path.partition(".")
        return follow(value[name], rest) if rest and name in value else None
    if isinstance(value, list | tuple):
        name, _, rest = path.partition(".")
        if name.isdecimal():
            item = value[int(name)] if int(name) < len(value) else None
            return follow(item, rest) if rest else item
        found = [follow(item, path) for item in value]
        return [item for item in found if item is not None] or None
    return None


def texts(value: Any, field: str) -> list[str]:
    """Return the value as texts, each once. Raises ValueError for what is no text."""
    if isinstance(value, str):
        _refuse_surrogates(value, field)
        return [value]
    if value is None or (isinstance(value, float) and math.isnan(value)):  # Tables write NaN for nothing.
        return []
    if isinstance(value, list | tuple):
        return list(dict.fromkeys(text for item in value for text in texts(item, field)))
    if isinstance(value, dict):
        paths = ", ".join(f"{field}.{key}" for key in value)
        raise ValueError(f"{field!r} holds a table; name what is in it: {paths}")
    if isinstance(value, bool | int | float):
        return [json.dumps(value)]
    return [str(value)]


def group_of(row: Row, field: str | None) -> str:
    """The group that `row` names under `field`, or "". Raises ValueError where there are several."""
    found = [text for text in texts(follow(row, field), field) if text] if field is not None else []
    if len(found) > 1:
        raise ValueError(f"{field!r} holds {len(found)} values; a row has one group")
    return "".join(found)


def _refuse_surrogates(text: str, field: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{field!r} holds half a character ({text[error.start]!r}), which is no Unicode text"
        ) from error
