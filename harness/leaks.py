"""What a variant must never have learned from: held-out questions and groups that also stand in train or dev."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from harness.errors import LeakError
from harness.records import Example

_SHOWN = 10
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


def check(
    train: Sequence[Example], dev: Sequence[Example], heldout: Sequence[Example], *, same_facts: bool = False
) -> list[str]:
    """Raise LeakError with the pairs where a held-out input or group also stands in train or dev; return notes to show.

    Inputs and groups are compared as `fold` leaves them. With `same_facts` groups may be shared (a trial of memory, not
    of new cases), inputs never. Dev decides when training stops, but nothing is scored on it: what it shares with
    train is only noted. Targets and documents may be shared by all.
    """
    pairs: list[str] = []
    notes: list[str] = []
    guarded = _by_input(heldout)
    groups = _by_group(heldout)
    copies: set[str] = set()
    shared: set[str] = set()
    parts = [(name, _by_input(rows), _by_group(rows)) for name, rows in (("train", train), ("dev", dev))]
    for name, by_input, by_group in parts:
        for key in (key for key in guarded if key in by_input):
            copies |= {twin.id for twin in guarded[key]}
            first = by_input[key][0]
            pairs += [f"  input  heldout {_named(twin)} = {name} {_named(first)}" for twin in guarded[key]]
        for key in (key for key in groups if key in by_group):
            shared.add(key)
            ours, theirs = groups[key], by_group[key]
            counts = f"{len(ours)} in heldout ({ours[0].id}, ...), {len(theirs)} in {name} ({theirs[0].id}, ...)"
            if not same_facts:
                pairs.append(f"  group  {ours[0].group!r}: {counts}")
    if pairs:
        raise LeakError(_message(pairs, len(copies), 0 if same_facts else len(shared)))
    if same_facts:
        notes.append(
            f"same_facts: {len(shared)} of {len(groups)} held-out groups also stand in train or dev, so these results "
            "show memory of known facts, not answers about new ones"
        )
    (_, train_inputs, train_groups), (_, dev_inputs, dev_groups) = parts
    both, both_groups = len(train_inputs.keys() & dev_inputs.keys()), len(train_groups.keys() & dev_groups.keys())
    if both or both_groups:
        notes.append(f"{both} inputs and {both_groups} groups of dev also stand in train: training may stop too late")
    return notes


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


def _named(example: Example) -> str:
    text = example.input if len(example.input) <= 80 else example.input[:77] + "..."
    return f"{text!r} (id {example.id})"


def _message(pairs: Sequence[str], copies: int, groups: int) -> str:
    counts = [f"{copies} held-out input{'s' * (copies != 1)}"] * bool(copies)
    counts += [f"{groups} held-out group{'s' * (groups != 1)}"] * bool(groups)
    verb = "stands" if copies + groups == 1 else "stand"
    head = (
        f"{' and '.join(counts)} also {verb} where the variants learn from (Unicode, case, space, punctuation folded):"
    )
    more = [f"  ... and {len(pairs) - _SHOWN} more pairs"] if len(pairs) > _SHOWN else []
    advice = "Take them out of one side, or split one file by group (`rows` with `heldout = 0.2`)."
    if groups and not copies:
        advice += " If knowing the same facts is what you want to measure, set same_facts = true."
    return "\n".join([head, *pairs[:_SHOWN], *more, advice])
