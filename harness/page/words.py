"""Words of others where Streamlit takes Markdown only, as in a title."""

from __future__ import annotations

import re

from harness import figures

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_LINK = re.compile(r"(://|@|www)", re.IGNORECASE)
_NOTHING = "\u2060"
"""A word joiner: shows nothing, and keeps an address from becoming a link."""


def title(text: str) -> str:
    """Return `text` as one line of Markdown that shows it as it is: no markup, image, formula, icon or link."""
    return _PUNCTUATION.sub(r"\\\1", _LINK.sub(rf"\1{_NOTHING}", figures.plain(text, line=True)))
