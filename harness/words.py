"""The words of a text, as comparisons see them: Unicode form and case folded, punctuation dropped, signs such as + and
% kept, 2,000 read as 2000, one ideograph or kana a word.

Another accent makes another word (Vietnamese "bán" and "bạn", German "drucken" and "drücken"), but hurried typing
leaves accents out. `agreed` tells the two apart: it drops from one text the accents that the other was written without.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import Counter
from functools import lru_cache

Words = tuple[str, ...]

_SIGNS = frozenset("#%&*/@\\")
_MARKS = re.compile("[\u0300-\u036f]")
# The breve of й and ў and the dots of ї make letters of their own, which nobody leaves out.
_ACCENTS = re.compile("(?<![\u0400-\u052f])[\u0306\u0308]|[\u0300-\u0305\u0307\u0309-\u036f]")
_STROKES = str.maketrans("đłøħŧı", "dlohti")
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,]|\.\d+,)")
_MINUS = re.compile(r"(?<![^\s(])-(?=\d)")
_SEVERAL = 2
"""So many words that differ by accents alone, all of them bare on one side: the accents were left out there."""


class _Spacing(dict[int, str | None]):
    """Makes a text one that `str.split` cuts into words, as a table for `str.translate` that fills itself."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        made: str | None = character
        if character in "'’":
            made = None
        elif category[0] == "S" or character in _SIGNS or _stands_alone(code):
            made = f" {character} "
        elif category[0] in "PZC":
            made = " "
        self[code] = made
        return made


def _stands_alone(code: int) -> bool:
    """Scripts without spaces between words: kana, ideographs, Thai, Lao, Khmer, Burmese."""
    return (
        0x3040 <= code <= 0x30FF
        or 0x3400 <= code <= 0x9FFF
        or 0x20000 <= code <= 0x323AF
        or 0x0E00 <= code <= 0x0EFF
        or 0x1000 <= code <= 0x109F
        or 0x1780 <= code <= 0x17FF
    )


_SPACING = _Spacing()


def of(text: str) -> Words:
    """Return the words of `text`, with their accents."""
    return tuple(map(sys.intern, _spaced(text).split()))


def _spaced(text: str) -> str:
    folded = text.lower() if text.isascii() else _folded(text)
    if "," in folded:
        folded = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), folded)
    if "-" in folded:
        folded = _MINUS.sub("\u2212", folded)
    return folded.translate(_SPACING)


def _folded(text: str) -> str:
    """Case and Unicode form folded; ё is е, since Russian writes either."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded.replace("ё", "е")


# ---------------------------------------------------------------------------------------------------------- accents


def plain(text: Words) -> Words:
    """Return the words without the accents that hurried typing leaves out; й and other scripts' marks are letters."""
    return text if all(map(str.isascii, text)) else tuple(map(_plain, text))


@lru_cache(maxsize=65_536)
def _plain(word: str) -> str:
    return word if word.isascii() else _without(_ACCENTS, word)


def bare(word: str) -> str:
    """Return the word without any mark above, below or through its letters: what differs in accents alone is equal."""
    return word if word.isascii() else _without(_MARKS, word)


def _without(marks: re.Pattern[str], word: str) -> str:
    kept = marks.sub("", unicodedata.normalize("NFKD", word))
    return sys.intern(unicodedata.normalize("NFKC", kept).translate(_STROKES))


def hurried(text: str) -> bool:
    """Whether a text looks typed in a hurry, or set in capitals: it is written in one case throughout."""
    return text.islower() or text.isupper()


def agreed(one: Words, other: Words, *, hurried: bool = False) -> tuple[Words, Words]:
    """Return both texts as they are to be compared: without the accents that one of them was written without.

    That is where two words or more lack their accents on one side alone; one is enough where that side has no accent at
    all and `hurried` says that just one of the two texts looks so. Else a word with another accent, or without one, is
    another word.
    """
    if one == other or (all(map(str.isascii, one)) and all(map(str.isascii, other))):
        return one, other
    gone, come = Counter(one) - Counter(other), Counter(other) - Counter(one)
    ours, theirs = _left_out(gone, come), _left_out(come, gone)
    if bool(ours) == bool(theirs):
        return one, other
    lacking = other if ours else one
    found = ours or theirs
    if found.total() < _SEVERAL and not (hurried and plain(lacking) == lacking):
        return one, other
    return _dropped(found, one), _dropped(found, other)


def _left_out(gone: Counter[str], come: Counter[str]) -> Counter[str]:
    """The words of `gone` that stand in `come` without their accents."""
    bares = {word: bare for word in gone if (bare := _plain(word)) != word and bare in come}
    return Counter({word: min(gone[word], come[bare]) for word, bare in bares.items()})


def _dropped(found: Counter[str], text: Words) -> Words:
    return tuple(_plain(word) if word in found else word for word in text)


def same(one: Words, other: Words) -> bool:
    """Whether two texts are the same word for word, but for accents that one of them was written without."""
    if one == other:
        return True
    if len(one) != len(other) or plain(one) != plain(other):
        return False
    ours, theirs = agreed(one, other)
    return ours == theirs
