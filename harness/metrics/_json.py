"""JSON in answers: what is read, and how strictly."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

Extract = Literal["raw", "block"]

# What `*+` has matched is not given back: each of the three would match blanks, and try all ways to share them.
_FENCE = re.compile(r"```[ \t]*+([\w+-]*+)[^\n`]*+\n(.*?)(?:```|\Z)", re.DOTALL)
_QUOTED_OR_BRACE = re.compile(r'"(?:[^"\\]|\\.)*"|[{}]', re.DOTALL)


class NoJson(Exception):
    """The text is not JSON."""


def parse(text: str, extract: Extract) -> Any:
    """Return the JSON value that is the whole of `text` ("raw"), or that `block` finds in it. Raises NoJson.

    As RFC 8259 has it: NaN and Infinity are none, white space around is allowed, and of names that stand twice in an
    object the last counts. What is nested too deep for Python is refused.
    """
    piece = text if extract == "raw" else block(text)
    if piece is None:
        raise NoJson
    try:
        return json.loads(piece, parse_constant=_refused, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise NoJson from error


def block(text: str) -> str | None:
    """Return the piece of `text` that is meant as JSON: the first fenced block marked `json`, else the first fenced
    one, else the first object whose braces balance, else None."""
    fenced = _FENCE.findall(text)
    if fenced:
        marked = [body for tag, body in fenced if tag.lower() == "json"]
        return str((marked or [body for _, body in fenced])[0])
    start = text.find("{")
    if start < 0:
        return None
    depth = 0
    for found in _QUOTED_OR_BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(found.group(), 0)
        if depth == 0:
            return text[start : found.end()]
    return None


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _integer(digits: str) -> int | float:
    """Python refuses to read whole numbers of thousands of digits; JSON does not."""
    return int(digits) if len(digits) < 1000 else float(digits)
