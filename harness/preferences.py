"""Preferences from files: pairs of answers of which one is better, ranked lists, and single answers with a thumb.

The fields are those of TRL's formats, whatever a row has of them: {"prompt", "chosen", "rejected"},
{"prompt", "ranked": [best, ..., worst]}, or {"prompt", "completion", "label"}.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from harness.data_spec import Named
from harness.fields import field_of, group_of
from harness.figures import counted
from harness.readers import raise_faults, read
from harness.records import Example, Preference, digest

_FORMS = (
    'A row is {"prompt", "chosen", "rejected"}, {"prompt", "ranked": [best, ..., worst]} or '
    '{"prompt", "completion", "label": true or false}.'
)
_BEFORE = {"user": ("system",), "assistant": ("system", "user")}
"""The turns that may stand, once each, before the one that a conversation is read for."""


def load(
    source: str, fields: Named = "input", role: str = "preferences", group: Named | None = None
) -> tuple[tuple[Preference, ...], tuple[str, ...]]:
    """Return the preferences of `source`, in the order of its rows, and notes to show.

    A ranked list of n answers becomes its n (n - 1) / 2 pairs (comparative ranking, Ouyang et al. 2022, arXiv
    2203.02155). Rows without "prompt" have it under one of `fields`. The field `group` names their group; where a row
    has none, all preferences of its prompt share one.

    Prompts and answers may also be conversations ([{"role", "content"}], as TRL writes them) of a single question: one
    turn of the user and one of the assistant. A system turn before them is left out, with a note, because a variant's
    own prompt writes it. Raises DataError with every broken row, and those of several questions are.
    """
    table = read(source, role)
    names = ("prompt", *([fields] if isinstance(fields, str) else fields))
    field = field_of(table, group)
    found: list[Preference] = []
    faults: list[str] = []
    systems = 0
    for index, row in enumerate(table.rows):
        try:
            prompt, pairs, named = _text(row, names), _pairs(row), group_of(row, field)
        except ValueError as fault:
            faults.append(f"{table.place(index)}: {fault}")
            continue
        systems += _has_system(row, names)
        for chosen, rejected in pairs:
            name = digest([prompt, chosen, rejected], 12)
            group_name = named or _own_group(prompt)
            found.append(Preference(id=name, input=prompt, chosen=chosen, rejected=rejected, group=group_name))
    raise_faults(faults, _FORMS)
    left_out = (
        f"{role}: the system turns of {counted(systems, 'row')} are left out: each variant's prompt writes its own"
    )
    return tuple(found), (left_out,) if systems else ()


def question(one: Preference) -> Example:
    """What `one` asks, without answers; its group is its id where the data name none."""
    return Example(id=_own_group(one.input), input=one.input, group=one.group)


def as_examples(found: Iterable[Preference]) -> list[Example]:
    """What is learned from preferences, for the search for leaks: each prompt once in each of its groups, all answers
    to it as targets, the worse ones too."""
    answers: dict[Example, dict[str, None]] = {}
    for one in found:
        given = (text for text in (one.chosen, one.rejected) if text)
        answers.setdefault(question(one), {}).update(dict.fromkeys(given))
    return [replace(example, targets=tuple(texts)) for example, texts in answers.items()]


def _own_group(prompt: str) -> str:
    """The group of a prompt for which the data name none."""
    return digest([prompt], 12)


def divide(groups: Iterable[str], share: float, seed: int) -> frozenset[str]:
    """Draw the groups to keep from training, about a `share` of them: at least one, and not all, where there are two or
    more. The seed and the groups' names decide."""
    order = sorted(set(groups), key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    count = min(max(1, round(share * len(order))), len(order) - 1) if share else 0
    return frozenset(order[: max(0, count)])


def _pairs(row: dict[str, Any]) -> list[tuple[str | None, str | None]]:
    """What of the row's answers is better than what. Raises ValueError, with the reason, where nothing is."""
    if "ranked" in row:
        ranked = row["ranked"]
        if not isinstance(ranked, list | tuple) or len(ranked) < 2:
            raise ValueError("'ranked' must be a list of two answers or more, the best first")
        answers = [_answer(each, "ranked") for each in ranked]
        if len(set(answers)) < len(answers):
            raise ValueError("'ranked' holds the same answer twice")
        return list(itertools.combinations(answers, 2))
    if "chosen" in row or "rejected" in row:
        chosen, rejected = _answer(row.get("chosen"), "chosen"), _answer(row.get("rejected"), "rejected")
        if chosen == rejected:
            raise ValueError("the chosen answer is the rejected one, so nothing can be learned from it")
        return [(chosen, rejected)]
    if "completion" in row:
        label = row.get("label")
        if not isinstance(label, bool | int) or label not in (0, 1):
            raise ValueError(f"'label' must be true (good) or false (bad), not {label!r}")
        answer = _answer(row["completion"], "completion")
        return [(answer, None) if label else (None, answer)]
    raise ValueError(f"there is no answer in it; its fields are {', '.join(sorted(row)) or 'none'}")


def _text(row: dict[str, Any], names: tuple[str, ...]) -> str:
    """The prompt, under the first of the names that the row has."""
    name = next((name for name in names if name in row), names[-1])
    value = _content(row.get(name), name, "user")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name!r} is missing, empty or no text")
    return value


def _answer(value: Any, name: str) -> str:
    """An empty text is an answer too: saying nothing may be the worse one."""
    text = _content(value, name, "assistant")
    if not isinstance(text, str):
        raise ValueError(f"{name!r} is missing or no text")
    return text


def _content(value: Any, name: str, role: str) -> Any:
    """What the last turn says where `value` is a conversation, else `value`. Raises ValueError where there are turns
    that would be lost: an answer is judged by all that was said before it."""
    if not (isinstance(value, list) and value and isinstance(value[-1], dict)):
        return value
    roles = [turn.get("role") if isinstance(turn, dict) else None for turn in value]
    if roles != [*(each for each in _BEFORE[role] if each in roles[:-1]), role]:
        before = " and ".join(f"one of the {each}" for each in _BEFORE[role])
        raise ValueError(
            f"{name!r} has the turns {', '.join(map(str, roles))}; allowed is one turn of the {role}, after at most "
            f"{before}. Write earlier turns into the text of that of the user, or take the row out"
        )
    return value[-1].get("content")


def _has_system(row: dict[str, Any], names: tuple[str, ...]) -> bool:
    prompt = next(name for name in names if name in row)
    values = [*(row.get(name) for name in (prompt, "chosen", "rejected", "completion")), *row.get("ranked", ())]
    firsts = [value[0] for value in values if isinstance(value, list) and value]
    return any(isinstance(turn, dict) and turn.get("role") == "system" for turn in firsts)
