"""Near-copies of texts: which pairs say almost the same, word for word.

MinHash signatures with banding propose pairs (Broder 1997, "On the resemblance and containment of documents"; Leskovec,
Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4); what is proposed is then compared exactly, so that no
estimate ever accuses a row. Small data are compared pair by pair, without signatures.

A text is its words (`words.py`). Two texts that put another number or another name in the same place ask different
questions, however alike they look: see `another`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from harness import words
from harness.words import Words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

BANDS, ROWS = 42, 3
PERMUTATIONS = BANDS * ROWS
"""126 hash functions in 42 bands of 3: a pair of resemblance 0.65 is missed once in a million times, one of 0.5 in
270 times, and one of 0.1 is proposed in 24."""

_BUCKET = 500
"""A bucket that holds more rows is one of a template, which says nothing about copies: rarer buckets of the pair do."""
_LIKELY = 0.4
"""Estimated resemblance (standard error at most 0.045) from which a pair is compared exactly."""
_EXACTLY = 250_000
"""Up to so many pairs all of them are compared: quicker than signatures, and than loading numpy."""

_NUMBER = re.compile(
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(thir|four|fif|six|seven|eigh|nine)teen|"
    "(twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|million|billion|half|third|quarter|twice|thrice|double|"
    "triple|first|second|fourth|fifth"
)


# ------------------------------------------------------------------------------------------------------- comparing


def shingles(text: Words) -> set[Any]:
    """The words of a text and its pairs of neighbours: what its resemblance to another is counted over."""
    return {*text, *pairwise(text)}


def resemblance(one: Words, other: Words) -> float:
    """Return the Jaccard index of the shingles of two texts, 0 to 1; 1 for two texts without any word."""
    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b) if a or b else 1.0


def similarity(one: Words, other: Words, least: float = 0.0) -> float:
    """Return how alike two texts are, 0 to 1: the larger of 1 - edits / words of the longer one, and `resemblance`.

    One edit is a word put in, left out or replaced, or two neighbours swapped (optimal string alignment); a slip of
    one letter in a longer word counts a quarter. The second measure sees through passages that were moved.
    What is certain to be below `least` may be given too low.
    """
    longest = max(len(one), len(other))
    if not longest:
        return 1.0
    found = resemblance(one, other)
    shared = sum((Counter(one) & Counter(other)).values())
    if max(found, least) <= 1 - _SLIP * (longest - shared) / longest:
        found = max(found, 1 - edits(one, other) / longest)
    return found


_SLIP = 0.25


def edits(one: Words, other: Words, *, within: bool = False) -> float:
    """Return the edits that turn `one` into `other`, or `within`: into the passage of `other` that is most like it."""
    if not within:
        one, other = _trimmed(one, other)
    before: list[float] = []
    row: list[float] = [0.0] * (len(other) + 1) if within else [float(i) for i in range(len(other) + 1)]
    for i, word in enumerate(one, 1):
        last, before, row = before, row, [float(i)]
        for j, theirs in enumerate(other, 1):
            cost = before[j - 1]
            if word != theirs:
                # Words that a slip makes of each other begin or end alike; most others are told apart by that.
                slipped = (word[0] == theirs[0] or word[-1] == theirs[-1]) and slip(word, theirs)
                cost += _SLIP if slipped else 1.0
                if (dropped := before[j] + 1) < cost:
                    cost = dropped
                if (put_in := row[j - 1] + 1) < cost:
                    cost = put_in
            if i > 1 and j > 1 and word == other[j - 2] and one[i - 2] == theirs and last[j - 2] + 1 < cost:
                cost = last[j - 2] + 1
            row.append(cost)
    return min(row) if within else row[-1]


def _trimmed(one: Words, other: Words) -> tuple[Words, Words]:
    """Both without the words that they begin and end with alike."""
    least = min(len(one), len(other))
    start = next((i for i in range(least) if one[i] != other[i]), least)
    end = next((i for i in range(least - start) if one[-1 - i] != other[-1 - i]), least - start)
    return one[start : len(one) - end], other[start : len(other) - end]


@lru_cache(maxsize=65_536)
def slip(word: str, other: str) -> str:
    """Return what one letter makes of `word` to give `other`: "swapped", "dropped" (or put in), "changed", else "".

    Words below five letters and words with digits have no slips: another letter makes them another word. So does
    another accent.
    """
    if abs(len(word) - len(other)) > 1 or max(len(word), len(other)) < 5 or is_number(word) or is_number(other):
        return ""
    if words.bare(word) == words.bare(other):
        return ""
    least = min(len(word), len(other))
    start = next((i for i in range(least) if word[i] != other[i]), least)
    end = next((i for i in range(least - start) if word[-1 - i] != other[-1 - i]), least - start)
    left, right = word[start : len(word) - end], other[start : len(other) - end]
    if len(left) == len(right) == 2 and left == right[::-1]:
        return "swapped"
    if len(left) + len(right) == 1:
        return "dropped"
    return "changed" if len(left) == len(right) == 1 else ""


def is_number(word: str) -> bool:
    """Whether a word is a number or a code (holds a digit), or an English word for a number."""
    return _NUMBER.fullmatch(word) is not None or any(character.isdigit() for character in word)


def another(one: Words, other: Words, names: Names | NamesHere) -> bool:
    """Whether two texts that look alike ask different questions: another number, or another name, in its place.

    That is, each side has a number (or one of `names`) that the other lacks. One that is only left out is an edit.
    """
    gone = list((Counter(one) - Counter(other)).elements())
    come = list((Counter(other) - Counter(one)).elements())
    if any(map(is_number, gone)) and any(map(is_number, come)):
        return True
    for word in list(gone):
        twin = next((theirs for theirs in come if _misspelt(word, theirs)), None)
        if twin is not None:
            gone.remove(word)
            come.remove(twin)
    return any(map(names.__contains__, gone)) and any(map(names.__contains__, come))


def _misspelt(word: str, other: str) -> bool:
    """Whether one may be the other without its accents, or with a slip that leaves no doubt."""
    kind = slip(word, other)
    return (
        words.plain((word,)) == (other,)
        or words.plain((other,)) == (word,)
        or (bool(kind) and (kind != "changed" or len(word) > 6))
    )


class Names:
    """The words that these texts write with a capital within a sentence, at least as often as without: names, mostly.

    So that `larkin` is one where a hurried customer writes it small. Nothing is read until the first question. In
    German all nouns are names in this sense.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts: Iterable[str] = texts
        self._counts: Counter[tuple[str, str]] | None = None

    def __contains__(self, word: str) -> bool:
        return 0 < self.count(word, "capital") >= self.count(word, "small")

    def count(self, word: str, how: Literal["capital", "small", "first"]) -> int:
        """How often `word` is written with a capital within a sentence, small, or with one as its first word."""
        if self._counts is None:
            self._counts = Counter(each for text in self._texts for each in _written(text))
        return self._counts[word, how]

    def of(self, *texts: str) -> NamesHere:
        """These names, and what these very texts write with a capital: within a sentence, or as the first word of one
        that no text writes small."""
        found = [each for text in texts for each in _written(text)]
        return NamesHere(
            self,
            frozenset(word for word, how in found if how == "capital"),
            frozenset(word for word, how in found if how == "first"),
        )


@dataclass(frozen=True, slots=True)
class NamesHere:
    """What `Names.of` gives."""

    names: Names
    here: frozenset[str]
    first: frozenset[str]

    def __contains__(self, word: str) -> bool:
        if word in self.here or word in self.names:
            return True
        return word in self.first and not self.names.count(word, "small")


def _written(text: str) -> Iterator[tuple[str, str]]:
    """(word, how it is written) of a text; none of one all in capitals."""
    first, loud = True, text.isupper()
    for token in text.split():
        begins, first = first, not (token[-1].isalnum() or token[-1] in ",;'’")
        letter = next(filter(str.isalpha, token), "")
        if letter and not loud:
            how = "small" if not letter.isupper() else "first" if begins else "capital"
            for word in _in_token(token):
                if len(word) > 1:
                    yield word, how


_in_token = lru_cache(maxsize=65_536)(words.of)


# ------------------------------------------------------------------------------------------------------ candidates


def pairs(heldout: Sequence[Words], rows: Sequence[Words]) -> Iterator[tuple[int, int]]:
    """Yield the pairs (index of `heldout`, index of `rows`) that may be near-copies, each once.

    Texts come without accents (`words.plain`), so that one that lacks them is proposed too.
    All whose resemblance is 0.65 or more, but for one in a million; of 0.5, but for one in 270.
    """
    if len(heldout) * len(rows) <= _EXACTLY:
        return _resembling(heldout, rows)
    return _proposed(heldout, rows)


def _resembling(heldout: Sequence[Words], rows: Sequence[Words]) -> Iterator[tuple[int, int]]:
    """Pairs with a resemblance of 0.4 or more, counted over an index from shingle to held-out text."""
    sizes: list[int] = []
    index: dict[Any, list[int]] = {}
    for i, text in enumerate(heldout):
        parts = shingles(text)
        sizes.append(len(parts))
        for part in parts:
            index.setdefault(part, []).append(i)
    for j, text in enumerate(rows):
        parts = shingles(text)
        shared = Counter(i for part in parts & index.keys() for i in index[part])
        yield from ((i, j) for i, n in shared.items() if n >= _LIKELY * (sizes[i] + len(parts) - n))


def _proposed(heldout: Sequence[Words], rows: Sequence[Words]) -> Iterator[tuple[int, int]]:
    """Pairs that share a bucket of at least one band and have an estimated resemblance of 0.4 or more."""
    import numpy as np

    ours, theirs = signatures(heldout), signatures(rows)
    found: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
    waiting: list[npt.NDArray[np.int64]] = []
    for band in range(0, PERMUTATIONS, ROWS):
        mine, keys = _key(ours[:, band : band + ROWS]), _key(theirs[:, band : band + ROWS])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        low = np.searchsorted(keys, mine, "left")
        counts = np.searchsorted(keys, mine, "right") - low
        counts[counts > _BUCKET] = 0
        first = np.repeat(low - (np.cumsum(counts) - counts), counts)
        waiting.append(np.repeat(np.arange(len(mine)), counts) * len(keys) + order[first + np.arange(counts.sum())])
        if sum(map(len, waiting)) > 5_000_000 or band + ROWS >= PERMUTATIONS:
            found = np.unique(np.concatenate([found, *waiting]))
            waiting = []
    for start in range(0, len(found), 100_000):
        i, j = np.divmod(found[start : start + 100_000], len(rows))
        likely = (ours[i] == theirs[j]).mean(axis=1) >= _LIKELY
        yield from zip(i[likely].tolist(), j[likely].tolist(), strict=True)


def signatures(texts: Sequence[Words]) -> npt.NDArray[np.uint32]:
    """Return the MinHash signature of each text: uint32, shape (len(texts), PERMUTATIONS).

    The share of equal places of two signatures estimates the resemblance of their texts. Shingles are hashed to 32 bits
    (blake2b for words), and permuted by h · a + b modulo 2**32 with fixed draws of odd a and any b.
    """
    import numpy as np

    hashes, ends = _hashes(texts)
    draws = np.random.default_rng(20_260_101)
    factors = draws.integers(0, 2**31, PERMUTATIONS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    offsets = draws.integers(0, 2**32, PERMUTATIONS, dtype=np.uint32)
    made = np.full((len(texts), PERMUTATIONS), np.iinfo(np.uint32).max, dtype=np.uint32)
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    filled = np.flatnonzero(ends > starts)
    at = 0
    while at < len(filled):
        # As many whole texts as make some 8,000 shingles: 126 columns of four bytes each then stay in the caches.
        upto = max(at + 1, int(np.searchsorted(ends[filled], starts[filled[at]] + 8_000)))
        chosen = filled[at:upto]
        block = hashes[starts[chosen[0]] : ends[chosen[-1]], None] * factors
        block += offsets
        made[chosen] = np.minimum.reduceat(block, starts[chosen] - starts[chosen[0]], axis=0)
        at = upto
    return made


def _hashes(texts: Sequence[Words]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """The hashes of all shingles, text after text, and where each text ends. A shingle may stand twice: the smallest
    hash is the same."""
    import numpy as np

    known: dict[str, int] = {}
    numbers = [known.setdefault(word, len(known)) for text in texts for word in text]
    vocabulary = np.fromiter(
        (
            int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
            for word in known
        ),
        dtype=np.uint64,
        count=len(known),
    )
    single = vocabulary[np.array(numbers, dtype=np.int64)] if numbers else np.empty(0, dtype=np.uint64)
    # Each word is followed by its pair with the next; the last of a text has none, and repeats itself.
    double = single.copy()
    double[:-1] = _mixed(single[:-1] * np.uint64(0x9E3779B97F4A7C15) + single[1:])
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    ends = np.cumsum(lengths)
    last = ends[lengths > 0] - 1
    double[last] = single[last]
    both = np.stack([single, double], axis=1).reshape(-1) >> np.uint64(32)
    return both.astype(np.uint32), 2 * ends


def _key(columns: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """One number for the columns of a band."""
    import numpy as np

    key = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        key = _mixed(key * np.uint64(0x9E3779B97F4A7C15) + column)
    return key


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit depends on every bit."""
    import numpy as np

    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: npt.NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed
