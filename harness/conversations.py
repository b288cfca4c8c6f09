"""Conversations from files: rows {"messages": [...], "tools": [...]}, as OpenAI's API and TRL write them."""

from __future__ import annotations

from typing import Any, get_args

from harness.readers import raise_faults, read
from harness.records import Conversation, Role, digest

_FORM = (
    'A row is {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}; a turn '
    'of the assistant may hold "tool_calls": [{"function": {"name": "...", "arguments": {...}}}].'
)


def load(source: str, role: str = "conversations") -> tuple[Conversation, ...]:
    """Return the conversations of `source`, in the order of its rows. Raises DataError with every broken row."""
    table = read(source, role)
    found: list[Conversation] = []
    faults: list[str] = []
    for index, row in enumerate(table.rows):
        try:
            messages, tools = _messages(row), _tables(row.get("tools") or (), "tools")
        except ValueError as fault:
            faults.append(f"{table.place(index)}: {fault}")
            continue
        found.append(Conversation(id=digest([messages, tools], 12), messages=messages, tools=tools))
    raise_faults(faults, _FORM)
    return tuple({one.id: one for one in found}.values())


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
