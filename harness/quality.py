"""The quality of data: what is counted in every split before it is used, with examples.

    findings = quality.of(dataset, spec)

Each finding says its kind, split, count and share, and shows a few rows; personal data in them are masked. "warning" is
what makes results wrong or unlawful, "note" what a reader should know.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from harness import personal
from harness.folding import fold
from harness.records import Document, Example, Preference

if TYPE_CHECKING:
    from harness.data import Dataset
    from harness.spec import Spec

_SHOWN = 5
_CLIP = 80
# A control character, half a character, or one that only steers how others are shown.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufff9-\ufffc]")
# UTF-8 read as Latin-1 or Windows-1252: lead byte, then what its continuation bytes become.
_CONTINUED = "[\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]"
_MOJIBAKE = re.compile(f"[\xc2-\xdf]{_CONTINUED}|[\xe0-\xef]{_CONTINUED}{{2}}|[\xf0-\xf4]{_CONTINUED}{{3}}")


@dataclass(frozen=True, slots=True)
class Limits:
    """What cuts texts off: `max_tokens` of an answer, and `max_length` of a training row, where known."""

    max_tokens: int | None = None
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """`count` rows of the `of` rows of `split`; `examples` are pairs of an id and what is to be seen there."""

    kind: str
    split: str
    count: int
    of: int
    text: str
    severity: Literal["warning", "note"]
    examples: tuple[tuple[str, str], ...] = ()

    @property
    def share(self) -> float:
        return self.count / self.of if self.of else 0.0

    def __str__(self) -> str:
        return f"{self.split}: {self.text}"

    def record(self) -> dict[str, Any]:
        """As JSON-able values."""
        return {
            "kind": self.kind,
            "split": self.split,
            "severity": self.severity,
            "count": self.count,
            "of": self.of,
            "share": self.share,
            "text": self.text,
            "examples": [{"id": name, "text": text} for name, text in self.examples],
        }


def of(dataset: Dataset, spec: Spec, find: Callable[[str], list[personal.Found]] = personal.find) -> list[Finding]:
    """Return what is to be said of `dataset`, measured by the limits that `spec` sets to its texts: of several variants
    the one with the least room counts."""
    stages = [stage for variant in spec.variants for stage in variant.train]
    written = [variant.decode.max_tokens for variant in spec.variants if variant.decode.kind == "generate"]
    sizes = [size for stage in stages if (size := getattr(stage, "max_length", None))]
    limits = Limits(max_tokens=min(written, default=None), max_length=min(sizes, default=None))
    splits = {"train": dataset.train, "dev": dataset.dev, "heldout": dataset.heldout}
    judged = {"preferences": dataset.preferences, "preferences_dev": dataset.preferences_dev}
    return check(splits, dataset.documents, limits, find, judged)


def check(
    splits: Mapping[str, Sequence[Example]],
    documents: Sequence[Document] = (),
    limits: Limits = Limits(),
    find: Callable[[str], list[personal.Found]] = personal.find,
    preferences: Mapping[str, Sequence[Preference]] = MappingProxyType({}),
) -> list[Finding]:
    """Return what is to be said of each split, of the documents and of preferences, warnings first. `find` looks for
    personal data."""
    found: list[Finding] = []
    for name, rows in splits.items():
        if rows:
            texts = [(row.id, "\n".join((row.input, *row.targets))) for row in rows]
            found += [
                *_repeated(name, rows),
                *_conflicts(name, rows),
                *_empty(name, rows),
                *_encoding(name, texts),
                *_lengths(name, rows),
                *_cut(name, rows, limits),
                *_personal(name, texts, find),
            ]
    found += _classes(splits)
    for name, judged in preferences.items():
        if judged:
            found += _judged(name, judged, limits, find)
    pages = [(document.id, document.text) for document in documents]
    found += [*_encoding("documents", pages), *_personal("documents", pages, find)] if pages else []
    return sorted(found, key=lambda finding: finding.severity != "warning")


def tokens(text: str) -> int:
    """Estimate the tokens of `text` without its tokenizer: one for 4.2 characters of an alphabet, one for each
    ideograph or kana. Off by a fifth and more for single texts."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text) if not text.isascii() else 0
    return round(wide + (len(text) - wide) / 4.2)


def same_preference(pairs: Sequence[tuple[str, str, str]], split: str = "preferences") -> Finding | None:
    """Return the preference pairs (id, chosen, rejected) that prefer an answer to itself, as `fold` sees it."""
    hits = [(name, chosen) for name, chosen, rejected in pairs if fold(chosen) == fold(rejected)]
    return _finding("same_preference", split, hits, len(pairs), "pairs whose chosen answer is the rejected one")


# --------------------------------------------------------------------------------------------------------- content


def _finding(
    kind: str,
    split: str,
    hits: Sequence[tuple[str, str]],
    of: int,
    what: str,
    severity: Literal["warning", "note"] = "warning",
) -> Finding | None:
    if not hits:
        return None
    text = f"{len(hits):,} of {of:,} {what}"
    return Finding(kind, split, len(hits), of, text, severity, _seen(hits))


def _repeated(split: str, rows: Sequence[Example]) -> Iterator[Finding]:
    first: dict[tuple[str, ...], str] = {}
    hits = []
    for row in rows:
        key = (fold(row.input), *sorted(map(fold, row.targets)))
        if key in first:
            hits.append((row.id, f"as {first[key]}: {row.input}"))
        first.setdefault(key, row.id)
    if hits:
        text = f"{len(hits)} row{'s repeat' if len(hits) > 1 else ' repeats'} another one's input and targets"
        yield Finding("duplicate", split, len(hits), len(rows), text, "warning", _seen(hits))


def _conflicts(split: str, rows: Sequence[Example]) -> Iterator[Finding]:
    """Rows of one input that have no accepted answer in common."""
    first: dict[str, tuple[Example, set[str]]] = {}
    hits = []
    for row in rows:
        if not row.targets:
            continue
        answers = set(map(fold, row.targets))
        other, theirs = first.setdefault(fold(row.input), (row, answers))
        if not answers & theirs:
            hits.append((row.id, f"{_safe(row.targets[0])!r}, but {_safe(other.targets[0])!r} in {other.id}"))
    if found := _finding("conflict", split, hits, len(rows), "rows answer an input otherwise than an earlier row does"):
        yield found


def _empty(split: str, rows: Sequence[Example]) -> Iterator[Finding]:
    hits = [(row.id, repr(row.input)) for row in rows if not any(map(str.isalnum, row.input))]
    if found := _finding("empty_input", split, hits, len(rows), "inputs hold no letter and no digit"):
        yield found
    hits = [(row.id, row.input) for row in rows if row.targets and not any(map(str.strip, row.targets))]
    if found := _finding(
        "empty_target", split, hits, len(rows), "rows accept the empty answer alone: nothing is to be said", "note"
    ):
        yield found


def _encoding(split: str, texts: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    kinds = {
        "replacement": ("texts hold U+FFFD, what is left of a character that was read in the wrong encoding", []),
        "mojibake": ("texts look like UTF-8 that was read as Latin-1 or Windows-1252", []),
        "control": ("texts hold control or invisible characters", []),
    }  # type: dict[str, tuple[str, list[tuple[str, str]]]]
    for name, text in texts:
        if "\ufffd" in text:
            kinds["replacement"][1].append((name, _around(text, text.index("\ufffd"))))
        if not text.isascii() and (match := _misread(text)):
            kinds["mojibake"][1].append((name, _around(text, match.start())))
        elif match := _CONTROL.search(text):
            kinds["control"][1].append((name, f"U+{ord(match[0]):04X} in {_around(text, match.start())!a}"))
    for kind, (what, hits) in kinds.items():
        if found := _finding(kind, split, hits, len(texts), what):
            yield found


def _misread(text: str) -> re.Match[str] | None:
    """The first run of characters that, written as Windows-1252 (or Latin-1), is right UTF-8 of other characters."""
    for match in _MOJIBAKE.finditer(text):
        for encoding in ("cp1252", "latin-1"):
            try:
                match[0].encode(encoding).decode("utf-8")
            except (UnicodeEncodeError, UnicodeDecodeError):
                continue
            return match
    return None


def _lengths(split: str, rows: Sequence[Example]) -> Iterator[Finding]:
    """Texts far out by Tukey's rule: more than three interquartile ranges above the upper quartile (Tukey 1977)."""
    for what, sizes in (
        ("inputs", [len(row.input) for row in rows]),
        ("targets", [max(map(len, row.targets), default=0) for row in rows]),
    ):
        ordered = sorted(sizes)
        low, high = ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]
        limit = high + 3 * max(high - low, high // 10, 1)
        order = sorted((-size, row.id) for size, row in zip(sizes, rows, strict=True) if size > limit)
        hits = [(name, f"{-size:,} characters") for size, name in order]
        said = f"{what} are far longer than the others (more than {limit:,} characters; the middle one has "
        said += f"{ordered[len(ordered) // 2]:,})"
        if len(rows) >= 20 and (found := _finding("length", split, hits, len(rows), said, "note")):
            yield found


def _cut(split: str, rows: Sequence[Example], limits: Limits) -> Iterator[Finding]:
    how = "estimated at 4.2 characters a token"
    if limits.max_tokens is not None:
        sizes = [(row, min(map(tokens, row.targets), default=0)) for row in rows]
        hits = [(row.id, f"about {n} tokens: {min(row.targets, key=len)}") for row, n in sizes if n > limits.max_tokens]
        said = f"answers are longer than max_tokens = {limits.max_tokens} lets the model write ({how})"
        severity: Literal["warning", "note"] = "warning" if split == "heldout" else "note"
        if found := _finding("cut_answer", split, hits, len(rows), said, severity):
            yield found
    if limits.max_length is not None and split in ("train", "dev"):
        lost = [(row, tokens(row.input) + max(map(tokens, row.targets), default=0)) for row in rows]
        hits = [(row.id, f"about {n} tokens: {row.input}") for row, n in lost if n > limits.max_length]
        said = f"rows are longer than max_length = {limits.max_length}: the end of their answer is lost ({how})"
        if found := _finding("cut_row", split, hits, len(rows), said):
            yield found


def _personal(
    split: str, texts: Sequence[tuple[str, str]], find: Callable[[str], list[personal.Found]]
) -> Iterator[Finding]:
    hits: dict[str, list[tuple[str, str]]] = {}
    for name, text in texts:
        if found := find(text):
            whole = personal.masked(text, found)
            for each in {each.kind: each for each in reversed(found)}.values():
                hits.setdefault(each.kind, []).append(
                    (name, _around(whole, whole.index(each.masked), len(each.masked)))
                )
    for kind, shown in hits.items():
        what = f"texts hold what looks like personal data or a secret: {kind}"
        # Pages name the addresses of who wrote them; a secret belongs nowhere.
        severity: Literal["warning", "note"] = "note" if split == "documents" and kind != "key" else "warning"
        if finding := _finding("personal", split, shown, len(texts), what, severity):
            yield finding


# ----------------------------------------------------------------------------------------------------- preferences


def _judged(
    split: str, rows: Sequence[Preference], limits: Limits, find: Callable[[str], list[personal.Found]]
) -> Iterator[Finding]:
    texts = [(row.id, "\n".join(text for text in (row.input, row.chosen, row.rejected) if text)) for row in rows]
    pairs = [(row, row.chosen, row.rejected) for row in rows if row.chosen is not None and row.rejected is not None]
    for finding in (
        _repeated_preferences(split, rows),
        same_preference([(row.id, chosen, rejected) for row, chosen, rejected in pairs], split),
        _contradictions(split, rows),
        _longer(split, pairs),
        _cut_preferences(split, rows, limits),
    ):
        if finding is not None:
            yield finding
    yield from _encoding(split, texts)
    yield from _personal(split, texts, find)


def _repeated_preferences(split: str, rows: Sequence[Preference]) -> Finding | None:
    first: dict[tuple[str, ...], str] = {}
    hits = []
    for row in rows:
        key = (fold(row.input), _answer(row.chosen), _answer(row.rejected))
        if key in first:
            hits.append((row.id, f"as {first[key]}: {row.input}"))
        first.setdefault(key, row.id)
    return _finding("duplicate", split, hits, len(rows), "preferences repeat another one's prompt and answers")


def _contradictions(split: str, rows: Sequence[Preference]) -> Finding | None:
    """Preferences of which an earlier one says the opposite: the same two answers the other way round, or the same
    answer with the other thumb."""
    said: dict[tuple[str, ...], str] = {}
    hits = []
    for row in rows:
        chosen, rejected = _answer(row.chosen), _answer(row.rejected)
        if (other := said.get((fold(row.input), rejected, chosen))) and chosen != rejected:
            hits.append((row.id, f"the opposite of {other}: {row.input}"))
        said.setdefault((fold(row.input), chosen, rejected), row.id)
    return _finding("contradiction", split, hits, len(rows), "preferences say the opposite of an earlier one")


def _answer(text: str | None) -> str:
    """An answer as `fold` sees it; one that was not given is like no other."""
    return "\0" if text is None else fold(text)


def _longer(split: str, pairs: Sequence[tuple[Preference, str, str]]) -> Finding | None:
    """Whether the better answer is the longer one more often, or less often, than chance would have it in 95 of 100
    data sets (normal approximation to the sign test): a model may then learn length instead of what was judged
    (Singhal et al. 2023, arXiv 2310.03716)."""
    unlike = [(row, chosen, rejected) for row, chosen, rejected in pairs if len(chosen) != len(rejected)]
    longer = [(row.id, chosen) for row, chosen, rejected in unlike if len(chosen) > len(rejected)]
    shorter = [(row.id, chosen) for row, chosen, rejected in unlike if len(chosen) < len(rejected)]
    if len(unlike) < 20 or abs(len(longer) / len(unlike) - 0.5) <= 1.96 * (0.25 / len(unlike)) ** 0.5:
        return None
    word, hits = ("longer", longer) if len(longer) > len(shorter) else ("shorter", shorter)
    text = (
        f"the better answer is the {word} one in {len(hits):,} of {len(pairs):,} pairs ({len(hits) / len(pairs):.0%}): "
        "a model may learn length instead of what was judged"
    )
    return Finding("length_bias", split, len(hits), len(pairs), text, "note", _seen(hits))


def _cut_preferences(split: str, rows: Sequence[Preference], limits: Limits) -> Finding | None:
    if limits.max_length is None:
        return None
    sizes = [
        (row, tokens(row.input) + max(tokens(text) for text in (row.chosen, row.rejected) if text is not None))
        for row in rows
    ]
    hits = [(row.id, f"about {size} tokens: {row.input}") for row, size in sizes if size > limits.max_length]
    what = f"preferences are longer than max_length = {limits.max_length} (estimated at 4.2 characters a token)"
    return _finding("cut_row", split, hits, len(rows), what)


# --------------------------------------------------------------------------------------------------------- classes


def _classes(splits: Mapping[str, Sequence[Example]]) -> Iterator[Finding]:
    """How often each target stands, where targets repeat like classes: at most 200, of five rows each on average."""
    counts = {
        name: Counter(fold(row.targets[0]) for row in rows if len(row.targets) == 1) for name, rows in splits.items()
    }
    everything: Counter[str] = sum(counts.values(), Counter())
    if not 1 < len(everything) <= 200 or everything.total() < 5 * len(everything):
        return
    written = {fold(row.targets[0]): row.targets[0] for rows in splits.values() for row in rows if row.targets}
    for split, count in counts.items():
        if not count:
            continue
        most = count.most_common(1)[0]
        text = (
            f"{len(count)} classes; the most frequent, {_safe(written[most[0]], 40)!r}, is {most[1]:,} of "
            f"{count.total():,} ({most[1] / count.total():.0%}): what always giving it would score"
        )
        shown = tuple((_safe(written[key], 40), f"{n:,}") for key, n in count.most_common(_SHOWN))
        yield Finding("classes", split, most[1], count.total(), text, "note", shown)
    if counts.get("train") and counts.get("heldout"):
        for split, other, what in (
            ("heldout", "train", "rows are of classes that train has no row of"),
            ("train", "heldout", "rows are of classes that held-out has no row of"),
        ):
            absent = {key: n for key, n in counts[split].items() if key not in counts[other]}
            if absent:
                listed = tuple((_safe(written[key], 40), f"{n:,}") for key, n in list(absent.items())[:_SHOWN])
                total = sum(absent.values())
                text = f"{total:,} of {counts[split].total():,} {what} ({len(absent)} classes)"
                severity: Literal["warning", "note"] = "warning" if split == "heldout" else "note"
                yield Finding("absent_class", split, total, counts[split].total(), text, severity, listed)


# ----------------------------------------------------------------------------------------------------------- shown


def _seen(hits: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, _safe(text, _CLIP)) for name, text in hits[:_SHOWN])


def _safe(text: str, size: int = 30) -> str:
    """The beginning of `text`, personal data masked."""
    return _clip(personal.masked(text, personal.find(text)), size)


def _clip(text: str, size: int = _CLIP) -> str:
    text = " ".join(text.split())
    return text if len(text) <= size else text[: size - 3] + "..."


def _around(text: str, at: int, size: int = 1) -> str:
    return text[max(0, at - 25) : at + size + 25]
