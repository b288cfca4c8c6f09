"""Cut Markdown where its author did: at headings first, then paragraphs, then sentences, then words."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from harness.plugins import Chunker
from harness.records import Document, Passage

_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
# Where a piece may end, from the best place to the worst. The text between the places is never changed.
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(r"(?<=[.!?…])[\"')\]*_’”]*\s+(?=[^a-z\s])|(?<=[。！？])|\n+")
_WORD = re.compile(r"\s+")


@dataclass
class _Section:
    """A heading, the text right under it, and the sections below it, also as the one text they were."""

    level: int
    heading: str
    body: str = ""
    below: list[_Section] = field(default_factory=list)
    source: str = ""


class Headings(Chunker):
    """Passages of at most `max_tokens` tokens that begin with the headings they stand under ("Title > Section").

    A section that fits stays whole, its own sub-sections included; a larger one is cut, and its pieces overlap by
    whole sentences. Apart from overlap and headings every character stands in exactly one passage.
    """

    max_tokens: int = Field(200, ge=8)
    """How many tokens of the embedder a passage has at most, its headings included."""
    overlap: int = Field(30, ge=0)
    """How many tokens of the passage before it a piece repeats at most; whole sentences only. At most a quarter of the
    room is used."""

    def split(self, document: Document, count: Callable[[str], int]) -> list[Passage]:
        top = _sections(document.text)
        while not top.body.strip() and len(top.below) == 1 and top.heading == "":
            top = top.below[0]
        above = (document.title,) if document.title not in ("", top.heading) else ()
        texts = self._texts(top, above, count)
        return [Passage(id=f"{document.id}#{n}", document=document.id, text=text) for n, text in enumerate(texts)]

    def _texts(self, section: _Section, above: tuple[str, ...], count: Callable[[str], int]) -> list[str]:
        path = (*above, section.heading) if section.heading else above
        whole = _under(" > ".join(path), section.body + section.source)
        if count(whole) <= self.max_tokens:
            return [whole] if section.heading or (section.body + section.source).strip() else []
        below = [text for part in section.below for text in self._texts(part, path, count)]
        if section.body.strip():
            return [*self._pieces(*self._head(path, section.body, count), count), *below]
        # The headings below say it too, unless they had to leave it out.
        if not section.heading or (below and section.heading in below[0]):
            return below
        return [*self._pieces("", section.heading, count), *below]

    def _head(self, path: tuple[str, ...], body: str, count: Callable[[str], int]) -> tuple[str, str]:
        """The headings that stand above each piece, the outermost left out first, in at most half of the room. A
        heading that is too long by itself is text like any other."""
        for start in range(len(path)):
            head = " > ".join(path[start:])
            if count(head) <= self.max_tokens // 2:
                return head, body
        return "", f"{path[-1]}\n\n{body}" if path else body

    def _pieces(self, head: str, text: str, count: Callable[[str], int]) -> Iterator[str]:
        """Cut `text` into pieces that fit, each under `head`."""

        def tokens(start: int, end: int) -> int:
            return count(_under(head, text[start:end]))

        kinds = (_PARAGRAPH, _SENTENCE, _WORD)
        places = [[*(found.end() for found in kind.finditer(text)), len(text)] for kind in kinds]
        sentences = sorted({0, *places[0], *places[1]})
        room = self.max_tokens - count(head)
        start = repeated = 0
        while text[start:].strip():
            end = self._end(repeated, start, places, room, tokens)
            yield _under(head, text[repeated:end])
            last, start, repeated = start, end, end
            for place in reversed(sentences[bisect_right(sentences, last) : bisect_left(sentences, end)]):
                if count(text[place:end].strip()) > min(self.overlap, room // 4):
                    break
                repeated = place

    def _end(
        self, repeated: int, start: int, places: list[list[int]], room: int, tokens: Callable[[int, int], int]
    ) -> int:
        """The furthest good place up to which text[repeated:] fits, at least one character after `start`."""

        def fits(place: int) -> bool:
            return tokens(repeated, place) <= self.max_tokens

        for number, kind in enumerate(places):
            end = _furthest(kind, start, fits)
            # A short paragraph before a long one is no passage of its own.
            if end is not None and (number > 0 or end == kind[-1] or tokens(repeated, end) >= room // 2):
                return end
        return _furthest(range(places[0][-1] + 1), start, fits) or start + 1


def _furthest(places: Sequence[int], start: int, fits: Callable[[int], bool]) -> int | None:
    """The last of the rising `places` after `start` that fits. What fits is taken to go on fitting when shortened."""
    low, step = bisect_right(places, start), 1
    if low == len(places) or not fits(places[low]):
        return None
    # Doubling steps first, so that a long document is not counted whole for each of its pieces.
    while low + step < len(places) and fits(places[low + step]):
        low, step = low + step, step * 2
    high = min(low + step, len(places))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(places[middle]) else (low, middle)
    return places[low]


def _under(head: str, text: str) -> str:
    return "\n".join(part for part in (head, text.strip()) if part)


def _sections(text: str) -> _Section:
    """Read the headings (`# ...`; not those in code fences) into a tree whose root holds what stands before them."""
    top = _Section(0, "")
    open_ = [top]
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""
        found = None if fence else _HEADING.match(line.rstrip("\r\n"))
        if found and found[2]:
            section = _Section(len(found[1]), found[2])
            while open_[-1].level >= section.level:
                open_.pop()
            open_[-1].below.append(section)
            for parent in open_:
                parent.source += line
            open_.append(section)
        else:
            open_[-1].body += line
            for parent in open_[:-1]:
                parent.source += line
    return top
