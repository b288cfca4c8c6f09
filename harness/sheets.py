"""Sheets for human raters: blank, blinded CSV files, and reading them back when they were filled in.

A sheet names no variant: each row has a code, rows stand in an order drawn by the seed, and so do the two answers of a
pair. What the codes stand for (the key) is kept in the results folder, as a step that is named by all of it. The same
answer of several variants is rated once and counts for all of them.
"""

from __future__ import annotations

import csv
import io
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import figures, files, pairwise
from harness.errors import DataError, HarnessError, UsageError
from harness.records import Example, Prediction, digest, dump, load
from harness.results import Results, Variant
from harness.store import Store

PREFIX = "rate-"
FILE = "key.json"
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""What a spreadsheet takes for the beginning of a formula, full-width forms too (OWASP, "CSV Injection")."""
_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One row. `steps` are the answering steps that gave the answer; of a pair, those of answer 1 and of answer 2."""

    code: str
    example: str
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A pair that nobody has to rate: `outcome` is 1 where the first step's answer wins. `reason` as of a verdict."""

    example: str
    steps: tuple[str, str]
    outcome: float
    reason: pairwise.Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """What a sheet's codes stand for. `scale` is the lowest and highest rating, None for "yes" and "no"; `examples` are
    the held-out examples on the sheet, `answers` the answering step of each variant (its first seed)."""

    sheet: str
    pairwise: bool
    scale: tuple[int, int] | None
    examples: tuple[str, ...]
    answers: dict[str, str]
    items: tuple[Item, ...]
    known: tuple[Known, ...] = ()

    @property
    def allowed(self) -> dict[str, float]:
        """What a rater may write, and what it counts."""
        if self.pairwise:
            return {"1": 1.0, "2": 0.0, "tie": 0.5}
        if self.scale is None:
            return {"yes": 1.0, "no": 0.0}
        return {str(mark): float(mark) for mark in range(self.scale[0], self.scale[1] + 1)}

    @property
    def bounds(self) -> tuple[float, float]:
        return (0.0, 1.0) if self.scale is None else (float(self.scale[0]), float(self.scale[1]))


# --------------------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which sheet: `sample` held-out examples (None: all), drawn by `seed`; of pairs, every two variants (`everyone`)
    or each with the baseline."""

    pairwise: bool = False
    scale: tuple[int, int] | None = (1, 5)
    sample: int | None = None
    seed: int = 0
    everyone: bool = False


def write(wanted: Wanted, results: Results, store: Store, out: Path) -> Key:
    """Write a blank sheet to the new file `out`, keep its key in the store, and return it.

    The same request about the same answers gives the same sheet. Raises UsageError where `out` is there already, and
    HarnessError where there is nothing to rate.
    """
    if out.exists():
        raise UsageError(f"{out} is there already, and may hold ratings: choose another name.")
    ready = [variant for variant in results.variants if variant.status == "complete"]
    if len(ready) < (2 if wanted.pairwise else 1):
        raise HarnessError(f"{results.snapshot.ref} has {len(ready)} complete variants: too few to rate.")
    answers = {variant.name: variant.runs[0].steps["predict"] for variant in ready}
    inputs = {
        "pairwise": wanted.pairwise,
        "scale": wanted.scale if not wanted.pairwise else None,
        "sample": wanted.sample,
        "seed": wanted.seed,
        "everyone": wanted.everyone,
        "baseline": results.baseline,
        "answers": answers,
        "heldout": results.fingerprint,
    }
    name = PREFIX + digest(inputs)
    found = {step: {each.id: each for each in store.step(step).predictions()} for step in set(answers.values())}
    key = _key(wanted, results, ready, found, answers, name.removeprefix(PREFIX)[:6])
    if not key.items:
        raise HarnessError("there is nothing to rate: every answer failed, or all variants answer alike.")
    step = store.step(name)
    with step.lock():
        if step.outcome is None:
            step.start({**inputs, "uses": sorted(set(answers.values()))})
            step.write_json(FILE, dump(key))
            step.complete({"items": len(key.items)})
    files.write_bytes(out, _csv(key, results, found))
    return key


def _key(
    wanted: Wanted,
    results: Results,
    ready: Sequence[Variant],
    found: Mapping[str, Mapping[str, Prediction]],
    answers: dict[str, str],
    sheet: str,
) -> Key:
    rng = random.Random(wanted.seed)
    count = len(results.examples)
    drawn = sorted(rng.sample(range(count), min(wanted.sample or count, count)))
    examples = [results.examples[place] for place in drawn]
    known: list[Known] = []
    if wanted.pairwise:
        places, known = _pairs(wanted, results, ready, found, examples)
        places = [(example, steps if rng.random() < 0.5 else steps[::-1]) for example, steps in places]
    else:
        places = _singles(found, list(dict.fromkeys(answers.values())), examples)
    rng.shuffle(places)
    items = tuple(
        Item(code=f"{sheet}-{number:04d}", example=example, steps=steps)
        for number, (example, steps) in enumerate(places, start=1)
    )
    return Key(
        sheet=sheet,
        pairwise=wanted.pairwise,
        scale=None if wanted.pairwise else wanted.scale,
        examples=tuple(example.id for example in examples),
        answers=answers,
        items=items,
        known=tuple(known),
    )


def _singles(
    found: Mapping[str, Mapping[str, Prediction]], steps: Sequence[str], examples: Sequence[Example]
) -> list[tuple[str, tuple[str, ...]]]:
    """Every answer to every example, once."""
    places = []
    for example in examples:
        same: dict[str, list[str]] = {}
        for step in steps:
            answer = found[step][example.id]
            if answer.error is None:
                same.setdefault((answer.text or "").strip(), []).append(step)
        places += [(example.id, tuple(each)) for each in same.values()]
    return places


def _pairs(
    wanted: Wanted,
    results: Results,
    ready: Sequence[Variant],
    found: Mapping[str, Mapping[str, Prediction]],
    examples: Sequence[Example],
) -> tuple[list[tuple[str, tuple[str, ...]]], list[Known]]:
    """The pairs to rate, and those of which the outcome is known."""
    places: list[tuple[str, tuple[str, ...]]] = []
    known = []
    met = [(one, two) for place, one in enumerate(ready) for two in ready[place + 1 :]]
    if not wanted.everyone:
        met = [pair for pair in met if results.baseline in (pair[0].name, pair[1].name)]
    if not met:
        raise HarnessError(f"the baseline {results.baseline} is not complete, so no variant can meet it: pair all.")
    for one, two in met:
        a, b = one.runs[0].steps["predict"], two.runs[0].steps["predict"]
        for example in examples:
            if settled := pairwise.foregone(found[a][example.id], found[b][example.id]):
                outcome, reason = settled
                known.append(Known(example=example.id, steps=(a, b), outcome=outcome, reason=reason))
            else:
                places.append((example.id, (a, b)))
    return list(dict.fromkeys(places)), list(dict.fromkeys(known))


def cell(text: str) -> str:
    """Return `text` as a cell that a spreadsheet shows and never runs: an apostrophe stands before what would begin a
    formula; control characters and marks that turn the writing direction are left out."""
    plain = figures.plain(text)
    return f"'{plain}" if plain.lstrip().startswith(_FORMULA) else plain


def _csv(key: Key, results: Results, found: Mapping[str, Mapping[str, Prediction]]) -> bytes:
    examples = {example.id: example for example in results.examples}
    words = list(key.allowed)
    ask = f"better: {', '.join(words[:-1])} or {words[-1]}" if key.pairwise else f"rating: {words[0]} to {words[-1]}"
    ask = "rating: yes or no" if not key.pairwise and key.scale is None else ask
    titles = ["answer 1", "answer 2"] if key.pairwise else ["answer"]
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(["item", "question", "accepted answers", *titles, ask, "rater"])
    for item in key.items:
        example = examples[item.example]
        answers = [found[step][item.example].text or "" for step in (item.steps if key.pairwise else item.steps[:1])]
        shown = [example.input, "\n".join(example.targets), *answers]
        writer.writerow([item.code, *map(cell, shown), "", ""])
    # The mark at the beginning tells spreadsheets that it is UTF-8.
    return text.getvalue().encode("utf-8-sig", "replace")


# --------------------------------------------------------------------------------------------------------- reading

Ratings = dict[str, dict[str, float]]
"""What each rater gave each item, by code."""


def read(sources: Sequence[Path], keys: Sequence[Key]) -> tuple[Key, Ratings]:
    """Read sheets that were filled in, and return the key that they belong to.

    A rater is named by the column `rater`, else by the file. An empty rating is none. Raises DataError with every
    fault, each with its file and line: an unknown or repeated item, a rating off the scale, two sheets mixed.
    """
    by_sheet = {key.sheet: key for key in keys}
    faults: list[str] = []
    ratings: Ratings = {}
    used: dict[str, Key] = {}
    for source in sources:
        for place, row, question in _rows(source):
            code = row["item"].strip()
            key = by_sheet.get(code.partition("-")[0])
            if key is None or code not in {item.code for item in key.items}:
                known = ", ".join(sorted(by_sheet)) or "none was written yet"
                faults.append(f"{place}: no item {figures.short(code, 40)!r} in this experiment's sheets ({known})")
                continue
            used[key.sheet] = key
            said = row[question].strip()
            if not said:
                continue
            value = _value(said, key)
            rater = row.get("rater", "").strip() or source.stem
            if value is None:
                faults.append(f"{place}: {said!r} is no rating; allowed are {', '.join(key.allowed)}, or nothing")
            elif code in ratings.setdefault(rater, {}):
                faults.append(f"{place}: {rater} has rated {code} before")
            else:
                ratings[rater][code] = value
    if len(used) > 1:
        faults.append(f"these are ratings of several sheets ({', '.join(sorted(used))}): read one at a time")
    if not faults and not any(ratings.values()):
        faults.append(f"{', '.join(map(str, sources))}: no item is rated yet")
    if faults:
        more = [f"... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        raise DataError("\n".join([*faults[:_SHOWN], *more]))
    return next(iter(used.values())), {rater: given for rater, given in sorted(ratings.items()) if given}


def _value(said: str, key: Key) -> float | None:
    """What a cell counts; a spreadsheet may have made 4 into 4.0."""
    folded = said.casefold()
    if folded in key.allowed:
        return key.allowed[folded]
    try:
        number = float(folded.replace(",", "."))
    except ValueError:
        return None
    return key.allowed.get(f"{number:g}")


def _rows(source: Path) -> list[tuple[str, dict[str, str], str]]:
    """The rows of one file: place, cells by title, and the title of the column with the rating."""
    data = files.read_bytes(source)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8: save it as CSV UTF-8, and read it again.") from error
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a sheet holds whole answers, however long
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    rows: list[tuple[str, dict[str, str], str]] = []
    try:
        titles = [title.strip().casefold() for title in next(reader, [])]
        question = next((title for title in titles if title.startswith(("rating", "better"))), "")
        if "item" not in titles or not question:
            raise DataError(
                f"{source}:1: the columns `item` and `rating` or `better` are not there. "
                "Keep the first line that `harness rate --out` wrote."
            )
        line = reader.line_num + 1
        for cells in reader:
            if any(cells):
                padded = [*cells, *[""] * (len(titles) - len(cells))]
                rows.append((f"{source}:{line}", dict(zip(titles, padded, strict=False)), question))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{source}:{reader.line_num}: it cannot be read as CSV: {error}") from error
    return rows


def keys(results: Results, store: Store) -> list[Key]:
    """Return the keys of the sheets that were written about this experiment's answers."""
    used = {run.steps["predict"] for variant in results.variants for run in variant.runs if "predict" in run.steps}
    steps = [step for step in store.made_from(used, PREFIX) if step.outcome is not None]
    return [_load(step.read_json(FILE)) for step in sorted(steps, key=lambda step: step.started)]


def _load(data: Any) -> Key:
    return load(Key, data)
