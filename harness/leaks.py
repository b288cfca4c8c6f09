"""What a variant must never have learned from: held-out questions that also stand in what it trains on or reads.

Six kinds, each found exactly (an estimate only proposes). The parts are train, dev, preferences, conversations and the
text of continued pretraining:

    exact      the same after `fold`                                            never permitted
    group      a group of held-out rows in a part                               permitted by same_facts
    near       at most `similarity` short of the same words (`near.py`)         permitted by same_facts, or allowed
    embedded   inside a longer row of a part, or such a row inside it           allowed
    documents  word for word in a document, or one of the questions asked there allowed
    meaning    by an embedder, where the spec names one                         permitted by same_facts, or allowed

Shots are drawn from train. Held-out *answers* in the documents are what retrieval is for: they are counted, no leak.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness import near, overlap, words
from harness.errors import LeakError
from harness.folding import fold
from harness.near import Names
from harness.records import Document, Example
from harness.words import Words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

KINDS = ("exact", "group", "near", "embedded", "documents", "meaning")
SIMILARITY = 0.88
"""Texts are near-copies from here on: of nine words one may differ, of 25 three."""

_SHOWN = 10
_SAMPLE = 5_000
_CITATION = re.compile(r"\s*\[[^\[\]]*\]\s*$")
# The end may be absent, or a long text without one would be searched from each of its characters.
_SENTENCE = re.compile(r"[^.!?\n。！？؟]+[.!?\n。！？؟]?")
_LIKE = 3
"""Text of more than so many times the characters of the longest held-out input is no copy of one as a whole."""
_ASKED_LEAST = 12
"""Letters and digits of a question that stands in a document as a sentence of its own: "Where is it?" says nothing."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What counts as a leak and what is permitted, as `[data]` says. `embed` turns texts into unit vectors."""

    similarity: float = SIMILARITY
    allow: frozenset[str] = frozenset()
    same_facts: bool = False
    embed: Callable[[Sequence[str]], npt.NDArray[np.float32]] | None = None
    meaning: float = 0.95

    @property
    def permitted(self) -> frozenset[str]:
        """The kinds that do not stop a run."""
        return self.allow | ({"group", "near", "meaning"} if self.same_facts else set())


STRICT = Rules()
"""What holds where a spec says nothing."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A held-out example and its closest fellow in `part` ("train", "dev", ..., "documents"): ids and texts.

    `similarity` is from 0 to 1 (see `near.similarity`; of "meaning" the cosine). A pair of kind "group" has the group
    as its texts and the first row of each side as its ids.
    """

    kind: str
    heldout: str
    text: str
    part: str
    other: str
    other_text: str
    similarity: float = 1.0
    rows: tuple[int, int] = (1, 1)
    """How many rows of each side it speaks of: more than one for a group."""

    def record(self) -> dict[str, Any]:
        """As JSON-able values."""
        return asdict(self)

    def __str__(self) -> str:
        if self.kind == "group":
            sides = (
                f"{self.rows[0]} in heldout ({self.heldout}, ...), {self.rows[1]} in {self.part} ({self.other}, ...)"
            )
            return f"group  {self.text!r}: {sides}"
        sign = {"exact": "=", "near": "~", "meaning": "~"}.get(self.kind, "in")
        if self.kind == "embedded" and len(self.other_text) < len(self.text):
            sign = "holds"
        how = f" ({self.similarity:.2f})" if self.kind != "exact" else ""
        ours, theirs = f"{_clip(self.text)!r} (id {self.heldout})", f"{_clip(self.other_text)!r} (id {self.other})"
        return f"{self.kind}{how}  heldout {ours} {sign} {self.part} {theirs}"


@dataclass(frozen=True)
class Leaks:
    """What `find` found: for each held-out example and kind the closest pair in each part."""

    pairs: tuple[Pair, ...] = ()
    rules: Rules = STRICT
    groups: int = 0
    """Held-out groups that the data names."""

    @cached_property
    def blocking(self) -> tuple[Pair, ...]:
        return tuple(pair for pair in self.pairs if pair.kind not in self.rules.permitted)

    def count(self, kind: str) -> int:
        """How many held-out examples (or groups) have a pair of `kind`."""
        return len({pair.text if kind == "group" else pair.heldout for pair in self.pairs if pair.kind == kind})

    @property
    def counts(self) -> dict[str, int]:
        return {kind: n for kind in KINDS if (n := self.count(kind))}

    def summary(self) -> dict[str, Any]:
        """What is recorded with every run, JSON-able."""
        return {
            "counts": self.counts,
            "allowed": sorted(self.rules.allow),
            "same_facts": self.rules.same_facts,
            "notes": self.notes,
        }

    def refuse(self) -> None:
        """Raise LeakError, with the pairs, where there is one that is not permitted."""
        if self.blocking:
            raise LeakError(_message(self))

    @property
    def notes(self) -> list[str]:
        """What was permitted, to be shown wherever the results are."""
        notes = []
        if self.rules.same_facts:
            copies = len({pair.heldout for pair in self.pairs if pair.kind in ("near", "meaning")})
            also = f", {copies} inputs rephrase one of theirs" if copies else ""
            notes.append(
                f"same_facts: {self.count('group')} of {self.groups} held-out groups also stand in what variants learn "
                f"from{also}, so these results show memory of known facts, not answers about new ones"
            )
        for kind in KINDS:
            if kind in self.rules.allow and not (self.rules.same_facts and kind in ("near", "meaning")):
                found = [pair for pair in self.pairs if pair.kind == kind]
                said = f"leaks of kind {kind!r} are allowed by the spec: "
                if found:
                    inputs = f"{self.count(kind)} held-out input{'s' * (self.count(kind) != 1)}"
                    first = f"{found[0].heldout} with {found[0].part} {found[0].other}"
                    said += f"{inputs}, such as {first}; scores on them may show memory"
                notes.append(said if found else said + "none was found")
        return notes


NONE = Leaks()
"""Nothing was found."""


def find(
    heldout: Sequence[Example],
    parts: Mapping[str, Sequence[Example]],
    documents: Sequence[Document] = (),
    rules: Rules = STRICT,
    *,
    text: Sequence[Document] = (),
) -> Leaks:
    """Return every leak between `heldout` and the named `parts` (train, dev, ...), the documents to retrieve from and
    the `text` to pretrain on, which is searched as a part is: it is learned, not read.

    Targets and groups without a name may be shared by all. Nothing is raised: see `Leaks.refuse`.
    """
    learned = {**parts, "text": [Example(id=one.id, input=one.text, group=one.id) for one in text]}
    found = list(_exact(heldout, learned))
    search = _Search(heldout, learned, documents, rules, {(pair.heldout, pair.part, pair.other) for pair in found})
    found += [*_groups(heldout, parts), *search.near(), *search.embedded(), *search.documents(), *search.meaning()]
    return Leaks(tuple(sorted(found, key=lambda pair: KINDS.index(pair.kind))), rules, len(_by_group(heldout)))


def shared(one: Sequence[Example], other: Sequence[Example]) -> tuple[int, int]:
    """Return how many inputs (as `fold` leaves them) and named groups stand in both."""
    if not one or not other:
        return 0, 0
    inputs = {fold(example.input) for example in one} & {fold(example.input) for example in other}
    return len(inputs), len(_by_group(one).keys() & _by_group(other).keys())


def same(examples: Sequence[Example], *, groups: bool) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows with one input (as `fold` leaves it) or, with `groups`, of one group that the data name."""
    first: dict[str, int] = {}
    for i, example in enumerate(examples):
        keys = [f"input {fold(example.input)}"]
        if groups and example.group != example.id:
            keys.append(f"group {fold(example.group)}")
        for key in keys:
            if (j := first.setdefault(key, i)) != i:
                yield i, j


def alike(examples: Sequence[Example], rules: Rules) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows that must not be cut apart: one on each side would be a leak that `rules` do not permit."""
    yield from same(examples, groups=not rules.same_facts)
    search = _Search(examples, {"rows": examples}, (), rules, set())
    if "near" not in rules.permitted:
        yield from ((i, j) for i, j, _ in search.near_copies() if i != j)
    if "embedded" not in rules.permitted:
        yield from ((place.index, place.row) for place in search.places() if place.index != place.row)


def answered(heldout: Sequence[Example], documents: Sequence[Document]) -> tuple[int, int]:
    """Return how many held-out examples have an accepted answer that stands word for word in a document, and of how
    many: wanted for retrieval, and no leak. A citation behind the answer, in square brackets, is left out."""
    answers = [[words.of(_CITATION.sub("", target)) for target in example.targets] for example in heldout]
    answers = [accepted for accepted in answers if any(accepted)]
    return overlap.answers_in(answers, [_document(document) for document in documents]), len(answers)


# ----------------------------------------------------------------------------------------------------- exact, group


def _exact(heldout: Sequence[Example], parts: Mapping[str, Sequence[Example]]) -> Iterator[Pair]:
    guarded = _by_input(heldout)
    for part, rows in parts.items():
        theirs: dict[str, Example] = {}
        for row in rows:
            if (key := fold(row.input)) in guarded:
                theirs.setdefault(key, row)
        for key, row in theirs.items():
            for example in guarded[key]:
                yield Pair("exact", example.id, example.input, part, row.id, row.input)


def _groups(heldout: Sequence[Example], parts: Mapping[str, Sequence[Example]]) -> Iterator[Pair]:
    guarded = _by_group(heldout)
    for part, rows in parts.items():
        theirs = _by_group(rows)
        for key in (key for key in guarded if key in theirs):
            mine, other = guarded[key], theirs[key]
            yield Pair(
                "group", mine[0].id, mine[0].group, part, other[0].id, other[0].group, rows=(len(mine), len(other))
            )


def _by_input(examples: Iterable[Example]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for example in examples:
        found.setdefault(fold(example.input), []).append(example)
    return found


def _by_group(examples: Iterable[Example]) -> dict[str, list[Example]]:
    """Only groups that the data names: without one, an example is a group of its own, under its id."""
    found: dict[str, list[Example]] = {}
    for example in examples:
        if example.group != example.id:
            found.setdefault(fold(example.group), []).append(example)
    return found


# -------------------------------------------------------------------------------------------------- near, embedded


class _Search:
    """The searches that compare words. `known` are (held-out id, part, other id) that need no second mention."""

    def __init__(
        self,
        heldout: Sequence[Example],
        parts: Mapping[str, Sequence[Example]],
        documents: Sequence[Document],
        rules: Rules,
        known: set[tuple[str, str, str]],
    ) -> None:
        self._heldout, self._rules, self._known = heldout, rules, known
        rows = [(part, row) for part, rows in parts.items() for row in rows]
        most = _LIKE * max((len(example.input) for example in heldout), default=0)
        # Long texts come last and are only looked through, one at a time: a corpus need not fit into memory as words.
        long = [part == "text" and len(row.input) > most for part, row in rows]
        self._rows = [row for row, is_long in zip(rows, long, strict=True) if not is_long]
        self._inputs = [words.of(row.input) for _, row in self._rows]
        self._rows += [row for row, is_long in zip(rows, long, strict=True) if is_long]
        self._documents = documents
        self._questions = [words.of(example.input) for example in heldout]
        texts = [*self._questions, *self._inputs]
        self._common = overlap.boilerplate(texts[:: len(texts) // _SAMPLE + 1])
        self._names = Names(self._texts())

    def _texts(self) -> Iterator[str]:
        yield from (example.input for example in self._heldout)
        yield from (text for _, row in self._rows for text in (row.input, *row.targets))
        yield from (document.text for document in self._documents)

    def near_copies(self) -> Iterator[tuple[int, int, float]]:
        """(held-out, row, similarity) of every near-copy: alike as a whole, and in what is not a template's."""
        least = self._rules.similarity
        for i, j in near.pairs(list(map(words.plain, self._questions)), list(map(words.plain, self._inputs))):
            ours, theirs = self._questions[i], self._inputs[j]
            if self._heldout[i] is self._rows[j][1]:
                continue
            hurried = words.hurried(self._heldout[i].input) != words.hurried(self._rows[j][1].input)
            one, other = words.agreed(ours, theirs, hurried=hurried)
            found = near.similarity(one, other, least)
            if found < least:
                continue
            ours, theirs = overlap.without(ours, self._common), overlap.without(theirs, self._common)
            if (ours, theirs) != (self._questions[i], self._inputs[j]):
                ours, theirs = words.agreed(ours, theirs, hurried=hurried)
                found = near.similarity(ours, theirs, least) if ours and theirs else 0.0
            if found >= least and (one == other or not self._another(i, j, one, other)):
                yield i, j, found

    def _another(self, i: int, j: int, one: Words, other: Words) -> bool:
        """Whether these words of held-out input `i` and row `j` ask different questions."""
        row = self._rows[j][1]
        here = self._names.of(self._heldout[i].input, row.input, *row.targets)
        return near.another(one, other, here)

    def near(self) -> Iterator[Pair]:
        best: dict[tuple[int, str], tuple[float, int]] = {}
        for i, j, found in self.near_copies():
            part, row = self._rows[j]
            if (self._heldout[i].id, part, row.id) not in self._known:
                best[i, part] = max(best.get((i, part), (0.0, 0)), (found, -j))
        for (i, _), (found, minus_j) in sorted(best.items()):
            yield self._pair("near", i, *self._rows[-minus_j], found)

    def places(self) -> Iterator[overlap.Place]:
        """Where a held-out input stands in a row, input and targets together, or a row's input in it."""
        for place in self._finder.within(self._learned()):
            if place.similarity == 1 or not self._another(place.index, place.row, place.part, place.there):
                yield place

    def _learned(self) -> Iterator[tuple[Words, int]]:
        """The words of each row, input and targets, and how many of them are its input's."""
        for text, (_, row) in itertools.zip_longest(self._inputs, self._rows):
            mine = overlap.without(words.of(row.input) if text is None else text, self._common)
            targets = (word for target in row.targets for word in words.of(target))
            yield (*mine, *targets), len(mine)

    def embedded(self) -> Iterator[Pair]:
        asked = {
            key: place for place, (part, row) in enumerate(self._rows) if part == "text" for key in _asked(row.input)
        }
        keys = ((i, fold(example.input)) for i, example in enumerate(self._heldout)) if asked else ()
        found = [(i, -1.0, asked[key], False) for i, key in keys if key in asked]
        found += [(place.index, -place.similarity, place.row, place.held) for place in self.places()]
        seen = set(self._known)
        for i, similarity, place, held in sorted(found, key=lambda each: each[:2]):
            part, row = self._rows[place]
            example = self._heldout[i]
            if not {(example.id, part, row.id), (example.id, part, "")} & seen:
                seen.add((example.id, part, ""))
                within = held or fold(example.input) in fold(row.input)
                text = row.input if within else "\n".join((row.input, *row.targets))
                yield self._pair("embedded", i, part, row, -similarity, text)

    def documents(self) -> Iterator[Pair]:
        """Held-out inputs that stand in a document, word for word: with an edit they may be the very statement that
        answers a question ("What is the process of ..." and "Construction is the process of ...")."""
        texts = [(overlap.without(_document(document), self._common), 0) for document in self._documents]
        found = {place.index: place.row for place in self._finder.within(texts) if place.similarity == 1}
        asked = {
            key: row
            for row, document in enumerate(self._documents)
            for key in _asked(f"{document.title}\n{document.text}")
        }
        for i, example in enumerate(self._heldout):
            row = found.get(i, asked.get(fold(example.input)))
            if row is not None:
                document = self._documents[row]
                yield Pair("documents", example.id, example.input, "documents", document.id, document.text)

    @cached_property
    def _finder(self) -> overlap.Questions:
        questions = [overlap.without(text, self._common) for text in self._questions]
        return overlap.Questions(questions, self._rules.similarity)

    def meaning(self) -> Iterator[Pair]:
        """Pairs whose vectors point the same way, where the rules hand in an embedder; the closest row of each part."""
        if self._rules.embed is None or not self._heldout or not self._inputs:
            return
        import numpy as np

        ours = self._rules.embed([example.input for example in self._heldout])
        rows = self._rows[: len(self._inputs)]
        theirs = self._rules.embed([row.input for _, row in rows])
        parts = np.array([part for part, _ in rows])
        for part in dict.fromkeys(parts.tolist()):
            places = np.flatnonzero(parts == part)
            for i in range(len(ours)):
                cosines = theirs[places] @ ours[i]
                for place in (p for p in np.argsort(-cosines) if cosines[p] >= self._rules.meaning):
                    j = int(places[place])
                    known = (self._heldout[i].id, part, self._rows[j][1].id) in self._known
                    if not known and not near.another(self._questions[i], self._inputs[j], self._names):
                        yield self._pair("meaning", i, *self._rows[j], float(cosines[place]))
                        break

    def _pair(self, kind: str, i: int, part: str, row: Example, found: float, text: str | None = None) -> Pair:
        example = self._heldout[i]
        self._known.add((example.id, part, row.id))
        return Pair(kind, example.id, example.input, part, row.id, row.input if text is None else text, found)


def _document(document: Document) -> Words:
    return (*words.of(document.title), *words.of(document.text))


def _asked(text: str) -> Iterator[str]:
    """The questions that stand in a text as sentences or headings of their own, folded: short ones too."""
    for sentence in _SENTENCE.findall(text):
        if sentence[-1] in "?？؟":
            key = fold(sentence.lstrip(" \t#>*-+|"))
            if sum(map(str.isalnum, key)) >= _ASKED_LEAST:
                yield key


# ---------------------------------------------------------------------------------------------------------- message


def _clip(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _message(leaks: Leaks) -> str:
    blocking = leaks.blocking
    kinds = [kind for kind in KINDS if any(pair.kind == kind for pair in blocking)]
    inputs = len({pair.heldout for pair in blocking if pair.kind != "group"})
    groups = len({pair.text for pair in blocking if pair.kind == "group"})
    counts = [f"{n} held-out {noun}{'s' * (n != 1)}" for n, noun in ((inputs, "input"), (groups, "group")) if n]
    verb = "stands" if inputs + groups == 1 else "stand"
    lines = [f"{' and '.join(counts)} also {verb} where the variants learn or read from:"]
    listed = Counter[str]()
    for pair in blocking:
        if listed[pair.kind] < max(3, _SHOWN // len(kinds)):
            listed[pair.kind] += 1
            lines.append(f"  {pair}")
    if more := len(blocking) - listed.total():
        lines.append(f"  ... and {more} more pairs (`harness data check SPEC` lists them)")
    lines.append("Take them out of one side, or split one file by group (`rows` with `heldout = 0.2`).")
    if "group" in kinds and "exact" not in kinds:
        lines[-1] += " If knowing the same facts is what you want to measure, set same_facts = true."
    if allowable := [kind for kind in kinds if kind not in ("exact", "group")]:
        listed_kinds = ", ".join(f'"{kind}"' for kind in allowable)
        reasons = ["these are truly other questions"] if allowable != ["documents"] else []
        reasons += ["users will ask the very questions of the documents"] if "documents" in allowable else []
        lines.append(
            f"If {' or '.join(reasons)}, write leaks = {{ allow = [{listed_kinds}] }} in [data]: every result "
            "will say so."
        )
    return "\n".join(lines)
