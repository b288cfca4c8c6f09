"""What makes no other question of a text: Unicode form, case, white space, punctuation."""

from __future__ import annotations

import re
import unicodedata

# Signs that carry meaning of their own: "C" is not "C#", 8/2 not 8*2.
_SIGNS = frozenset("#%&*/@\\")
_BEFORE_DIGIT = re.compile(r"(?:\s*-\s*|[.,:']|\s+)(?=\d)")
_KEPT = {".": "\ue000", ",": "\ue001", ":": "\ue002", "'": "\ue003", "-": "\ue004", "": "\ue005"}


class _Folding(dict[int, str | None]):
    """Deletes punctuation and white space, as a table for `str.translate` that fills itself."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        dropped = character.isspace() or (unicodedata.category(character)[0] == "P" and character not in _SIGNS)
        self[code] = None if dropped else character
        return self[code]


_FOLDING = _Folding()


def fold(text: str) -> str:
    """Return `text` without what does not make it another question: Unicode form, case, white space, punctuation.

    Marks that belong to a number stay (1.5 is not 15, 7-5 not 75, -5 not 5), and so do signs such as # and /. A text
    of nothing but punctuation keeps it.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _BEFORE_DIGIT.sub(_marked, folded).translate(_FOLDING) or folded.strip()


def _marked(found: re.Match[str]) -> str:
    """Keep a mark between two digits, and a minus sign (at a digit, not at a word), under the fold."""
    before = found.string[found.start() - 1] if found.start() else ""
    text = found[0]
    minus = text[-1] == "-" and (text[0].isspace() or not before.isalnum())
    return _KEPT[text.strip()] if before.isdigit() or minus else text
