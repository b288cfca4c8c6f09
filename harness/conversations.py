"""Conversations from files: rows {"messages": [...], "tools": [...]}, as OpenAI's API and TRL write them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, get_args

from harness.data_spec import Named
from harness.fields import field_of, group_of
from harness.readers import raise_faults, read
from harness.records import Conversation, Example, Role, digest

_FORM = (
    'A row is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}; a turn '
    'of the assistant may hold "tool_calls": [{"function": {"name": "...", "arguments": {...}}}].'
)


def load(source: str, role: str = "conversations", group: Named | None = None) -> tuple[Conversation, ...]:
    """Return the conversations of `source`, in the order of its rows; the field `group` names their groups. Raises
    DataError with every broken row."""
    table = read(source, role)
    field = field_of(table, group)
    found: list[Conversation] = []
    faults: list[str] = []
    for index, row in enumerate(table.rows):
        try:
            messages, tools = _messages(row), _tables(row.get("tools") or (), "tools")
            named = group_of(row, field)
        except ValueError as fault:
            faults.append(f"{table.place(index)}: {fault}")
            continue
        name = digest([messages, tools, named] if named else [messages, tools], 12)
        found.append(Conversation(id=name, messages=messages, tools=tools, group=named or name))
    raise_faults(faults, _FORM)
    return tuple({one.id: one for one in found}.values())


def question(one: Conversation) -> Example:
    """What the users say in `one`, as one text; where they say nothing, what all say."""
    asked = [turn["content"] for turn in one.messages if turn["role"] == "user"]
    told = asked if any(map(str.strip, asked)) else [text for turn in one.messages for text in _said(turn)]
    return Example(id=one.id, input="\n".join(told), group=one.group)


def as_examples(found: Iterable[Conversation]) -> list[Example]:
    """What is learned from conversations, for the search for leaks: each turn of a user as an input, with what is said
    until the next one as its targets (what stands before the first is a target of the first). Targets that many
    conversations repeat, system turns mostly, count once."""
    examples: list[Example] = []
    known: set[str] = set()
    for one in found:
        rows: list[list[str]] = []
        before: list[str] = []
        for turn in one.messages:
            texts = _said(turn)
            if turn["role"] == "user":
                rows += [texts] if texts else []
                continue
            fresh = [text for text in texts if text not in known]
            known.update(fresh)
            (rows[-1] if rows else before).extend(fresh)
        rows = [[*rows[0], *before], *rows[1:]] if rows else [before]
        examples += [Example(id=one.id, input=row[0], targets=tuple(row[1:]), group=one.group) for row in rows if row]
    return examples


def _said(turn: dict[str, Any]) -> list[str]:
    """What a turn says, and what it hands to the tools that it calls."""
    handed = [call["function"].get("arguments") for call in turn.get("tool_calls", ())]
    texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in handed if value]
    return [text for text in (turn["content"], *texts) if text.strip()]


def _messages(row: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Raises ValueError, with the reason, where the row is no conversation that can be learned from."""
    messages = _tables(row.get("messages") or (), "messages")
    if not any(message.get("role") == "assistant" for message in messages):
        raise ValueError("'messages' is missing, or the assistant says nothing in it")
    return tuple(_message(message, f"message {number}") for number, message in enumerate(messages, start=1))


def _message(message: dict[str, Any], where: str) -> dict[str, Any]:
    """The message with its fields as they are needed: others, and those without a value, are left out."""
    role, content = message.get("role"), message.get("content")
    if role not in get_args(Role):
        raise ValueError(f"{where}: 'role' must be one of {', '.join(get_args(Role))}, not {role!r}")
    calls = _tables(message.get("tool_calls") or (), f"{where}: 'tool_calls'")
    if calls and role != "assistant":
        raise ValueError(f"{where}: only the assistant calls tools")
    for call in calls:
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f"{where}: a call is {{'function': {{'name', 'arguments'}}}}, not {call!r}")
    if not isinstance(content, str) and not (calls and content is None):
        raise ValueError(f"{where}: 'content' is missing or no text")
    kept = {key: message[key] for key in ("name", "tool_call_id") if isinstance(message.get(key), str)}
    return {"role": role, "content": content or "", **kept} | ({"tool_calls": list(calls)} if calls else {})


def _tables(value: Any, name: str) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, dict) for each in value):
        raise ValueError(f"{name!r} must be a list of tables")
    return tuple(value)
