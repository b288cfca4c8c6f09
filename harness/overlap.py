"""Questions that stand inside longer texts, and answers that do: overlap of word runs, for short items too.

A fixed run of 8 or 13 words, as it is used to clean training data, is blind to a question of six. Here the run is short
(four words) and only proposes a place; there the whole question must be found, so that its length decides nothing:
from ten words on up to one word in ten may differ, below that all must stand there, and below five words (or twelve
characters) nothing is said, since "reset my password" stands in many texts that are no copy of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import eq

from harness import near, words
from harness.words import Words

RUN = 4
_LEAST_WORDS, _LEAST_CHARACTERS = 5, 12
_LEAST_PART = 8
"""A row of fewer words inside a held-out input is a phrase, not a question that was taken from it."""
_PROBES = 8
"""Runs of a question that are looked for, its rarest: all eight are lost to edits of a tenth of its words in less than
one case in a thousand."""
_COMMON = 200
"""A run that so many held-out questions share proposes nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Held-out question `index` and text `row`, of which one stands in the other: `part`, where the other has
    `there`. From ten words on the two may differ. `held` says that it is the row that stands in the question."""

    index: int
    row: int
    similarity: float
    part: Words
    there: Words
    held: bool = False


class Questions:
    """The held-out questions, ready to be looked for."""

    def __init__(self, texts: Sequence[Words], least: float) -> None:
        self._texts, self._least = texts, least
        # Accents count where texts are compared, not where places are proposed.
        self._plain = [words.plain(text) for text in texts]
        self._all: dict[int, list[int]] = {}
        for i, text in enumerate(self._plain):
            for run in dict.fromkeys(_runs(text)):
                self._all.setdefault(run, []).append(i)
        self._probes: dict[int, list[int]] = {}
        for i, text in enumerate(self._plain):
            if long_enough(text):
                for run in sorted(dict.fromkeys(_runs(text)), key=lambda run: len(self._all[run]))[:_PROBES]:
                    if len(self._all[run]) <= _COMMON:
                        self._probes.setdefault(run, []).append(i)

    def within(self, rows: Iterable[tuple[Words, int]]) -> Iterator[Place]:
        """Yield where a question stands in a row, or a row word for word in a question.

        Each row comes with how many of its words may be looked for in a question (its input; 0 for a document).
        """
        for row, (text, size) in enumerate(rows):
            yield from self._questions_in(text, row)
            if size >= _LEAST_PART:
                yield from self._holding(text[:size], row)

    def _questions_in(self, text: Words, row: int) -> Iterator[Place]:
        plain = words.plain(text)
        runs = _runs(plain)
        known = self._probes.keys() & set(runs)
        if not known:
            return
        first = {run: j for j, run in reversed(list(enumerate(runs))) if run in known}
        for i in sorted({i for run in known for i in self._probes[run]}):
            question = self._texts[i]
            if len(text) > len(question):
                # Where a run of the question that stands here would have it begin.
                asked = self._plain[i]
                starts = {j - place for place, run in enumerate(_runs(asked)) if (j := first.get(run)) is not None}
                found, _, start = max(
                    (self._alike(question, text, at), _matches(asked, plain, at), at) for at in starts
                )
                if found:
                    yield Place(i, row, found, question, text[max(0, start) : max(0, start + len(question))])

    def _holding(self, part: Words, row: int) -> Iterator[Place]:
        holders = [self._all.get(run, ()) for run in _runs(words.plain(part))]
        for i in min(holders, key=len):
            if len(self._texts[i]) > len(part) and _stands_in(part, self._texts[i]):
                yield Place(i, row, 1.0, part, part, held=True)

    def _alike(self, part: Words, whole: Words, start: int) -> float:
        """How well `part` stands in `whole` at about `start`, or 0."""
        size = len(part)
        if start >= 0 and words.same(part, whole[start : start + size]):
            return 1.0
        room = max(2, size // 8)
        window = whole[max(0, start - room) : max(0, start + size + room)]
        if size < 10:
            return 1.0 if _stands_in(part, window) else 0.0
        part, window = words.agreed(part, window)
        shared = sum((Counter(part) & Counter(window)).values())
        if shared < self._least * size - 0.75 * (size - shared):
            return 0.0
        found = 1 - near.edits(part, window, within=True) / size
        return found if found >= self._least else 0.0


def long_enough(text: Words) -> bool:
    """Whether finding these words together in a longer text says that they come from one another."""
    return len(text) >= _LEAST_WORDS and sum(map(len, text)) >= _LEAST_CHARACTERS


def _runs(text: Words) -> list[int]:
    """The runs of a text, as hashes: a third of the memory, and what they propose is compared in full."""
    return list(map(hash, zip(*(text[i:] for i in range(RUN)), strict=False)))


def _matches(part: Words, whole: Words, start: int) -> int:
    """How many words stand in their places if `part` begins at `start` of `whole`."""
    return sum(map(eq, part[max(0, -start) :], whole[max(0, start) :]))


def _stands_in(part: Words, whole: Words) -> bool:
    size = len(part)
    return any(words.same(part, whole[i : i + size]) for i in range(len(whole) - size + 1))


def boilerplate(texts: Sequence[Words], share: float = 0.1, least: int = 20) -> frozenset[Words]:
    """Return the runs of five words that stand in so large a share of `texts` (and in at least `least`): instructions
    and templates, which say nothing about copies."""
    if len(texts) < least:
        return frozenset()
    counts = Counter(run for text in texts for run in set(_fives(text)))
    return frozenset(run for run, n in counts.items() if n >= max(least, share * len(texts)))


def without(text: Words, common: frozenset[Words]) -> Words:
    """Return `text` without the words that runs of `common` cover."""
    if not common:
        return text
    covered: set[int] = set()
    for i, run in enumerate(_fives(text)):
        if run in common:
            covered.update(range(i, i + 5))
    return tuple(word for i, word in enumerate(text) if i not in covered) if covered else text


def _fives(text: Words) -> Iterator[Words]:
    return zip(*(text[i:] for i in range(5)), strict=False)


def answers_in(answers: Sequence[Sequence[Words]], documents: Sequence[Words]) -> int:
    """Return how many of `answers`, each a list of accepted ones, have one that stands word for word in a document."""
    wanted: dict[int, set[Words]] = {}
    for accepted in answers:
        for answer in accepted:
            if answer:
                wanted.setdefault(len(answer), set()).add(answer)
    there: set[Words] = set()
    for text in documents:
        for size, looked_for in wanted.items():
            if size <= len(text) and looked_for:
                found = looked_for & set(zip(*(text[i:] for i in range(size)), strict=False))
                there |= found
                looked_for -= found
    return sum(any(answer in there for answer in accepted) for accepted in answers)
