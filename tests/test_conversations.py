"""Conversations: what a row may look like, what is refused, and which are kept from training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import conversations, data
from harness.data_spec import DataSpec
from harness.errors import DataError, LeakError
from harness.records import Conversation

CALL = {"id": "1", "type": "function", "function": {"name": "price", "arguments": '{"of": "kettle"}'}}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the kettle?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
    {"role": "tool", "tool_call_id": "1", "content": "49"},
    {"role": "assistant", "content": "49 pounds."},
]


def write(folder: Path, *rows: Any, name: str = "talks.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def test_turns_calls_results_and_tools_are_read(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "price"}}
    (found,) = conversations.load(write(tmp_path, {"messages": TALK, "tools": [tool], "source": "x"}))
    assert [message["role"] for message in found.messages] == [message["role"] for message in TALK]
    assert found.messages[2] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert found.messages[3] == {"role": "tool", "content": "49", "tool_call_id": "1"}
    assert found.tools == (tool,)


def test_a_conversation_that_stands_twice_is_learned_once(tmp_path: Path) -> None:
    assert len(conversations.load(write(tmp_path, {"messages": TALK}, {"messages": TALK}))) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "hello"}, "'messages' is missing, or the assistant says nothing in it"),
        ({"messages": TALK[:2]}, "'messages' is missing, or the assistant says nothing in it"),
        ({"messages": "hello"}, "'messages' must be a list of tables"),
        ({"messages": [*TALK, {"role": "bot", "content": "?"}]}, "message 6: 'role' must be one of system, user"),
        ({"messages": [*TALK, {"role": "user"}]}, "message 6: 'content' is missing or no text"),
        ({"messages": [*TALK, {"role": "assistant", "content": None}]}, "message 6: 'content' is missing or no text"),
        ({"messages": [TALK[1] | {"tool_calls": [CALL]}, TALK[4]]}, "message 1: only the assistant calls tools"),
        ({"messages": [TALK[1], TALK[2] | {"tool_calls": [{"name": "x"}]}]}, "message 2: a call is"),
        ({"messages": TALK, "tools": ["price"]}, "'tools' must be a list of tables"),
    ],
)
def test_a_row_that_is_no_conversation_is_told_with_its_place(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"(?s)talks\.jsonl:2: {said}"):
        conversations.load(write(tmp_path, {"messages": TALK}, row))


def talks(count: int) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"number {n}"}, {"role": "assistant", "content": f"{n}"}]}
        for n in range(count)
    ]


def spec(folder: Path, **settings: Any) -> DataSpec:
    heldout = write(folder, {"input": "What does it cost?", "target": "49"}, name="heldout.jsonl")
    return DataSpec(heldout=heldout, conversations=write(folder, *talks(20)), **settings)


def test_a_share_is_kept_from_training_or_another_file(tmp_path: Path) -> None:
    found = data.load(spec(tmp_path))
    assert (len(found.conversations), len(found.conversations_dev)) == (18, 2)
    assert found.counts["conversations"] == 18
    assert found.fingerprints["conversations"] != found.fingerprints["conversations_dev"]
    assert isinstance(found.conversations[0], Conversation)
    other = data.load(spec(tmp_path, conversations_dev=write(tmp_path, {"messages": TALK}, name="dev.jsonl")))
    assert (len(other.conversations), len(other.conversations_dev)) == (20, 1)


def test_a_conversation_of_a_held_out_group_is_a_leak(tmp_path: Path) -> None:
    held = spec(tmp_path, group="topic")
    write(tmp_path, {"input": "What does it cost?", "target": "49", "topic": "prices"}, name="heldout.jsonl")
    (note,) = data.load(held).notes
    assert note.startswith("conversations: no row has a field 'topic' (data.group)")
    write(tmp_path, *talks(20), {"messages": TALK, "topic": "prices"})
    with pytest.raises(LeakError, match=r"group  'prices': .* in conversations"):
        data.load(held)


@pytest.mark.parametrize("turn", [0, 1, 2, 3, 4])
def test_a_held_out_question_in_any_turn_is_a_leak(turn: int, tmp_path: Path) -> None:
    question = "What does the large kettle with the thin spout cost in spring?"
    held = spec(tmp_path)
    write(tmp_path, {"input": question, "target": "49"}, name="heldout.jsonl")
    told = f"Please look for this now: {question} Thanks."
    call = {"function": {"name": "search", "arguments": {"query": told}}}
    changed = TALK[turn] | ({"tool_calls": [call]} if turn == 2 else {"content": told})
    write(tmp_path, *talks(20), {"messages": [*TALK[:turn], changed, *TALK[turn + 1 :]]})
    with pytest.raises(LeakError, match=r"embedded .* in conversations"):
        data.load(held)
    without_user = [message for message in (*TALK[:turn], changed, *TALK[turn + 1 :]) if message["role"] != "user"]
    write(tmp_path, *talks(20), {"messages": without_user})
    if turn != 1:
        with pytest.raises(LeakError, match=r"embedded .* in conversations"):
            data.load(held)


def test_what_those_to_measure_by_share_with_the_others_is_told(tmp_path: Path) -> None:
    write(tmp_path, talks(3)[2], {"messages": TALK}, name="dev.jsonl")
    (note,) = data.load(spec(tmp_path, conversations_dev=str(tmp_path / "dev.jsonl"))).notes
    assert note.startswith("1 inputs and 0 groups of conversations_dev also stand in conversations")


def test_a_share_is_kept_back_in_whole_groups(tmp_path: Path) -> None:
    held = spec(tmp_path, group="topic")
    write(tmp_path, {"input": "What does it cost?", "target": "49", "topic": "prices"}, name="heldout.jsonl")
    write(tmp_path, *(talk | {"topic": n % 10} for n, talk in enumerate(talks(40))))
    found = data.load(held)
    assert len(found.conversations_dev) == 4
    assert len({one.group for one in found.conversations_dev}) == 1
    assert not {one.group for one in found.conversations_dev} & {one.group for one in found.conversations}


def test_a_held_out_question_that_a_user_asks_in_one_is_a_leak(tmp_path: Path) -> None:
    write(tmp_path, {"input": "number 7", "target": "7"}, name="heldout.jsonl")
    held = spec(tmp_path)
    write(tmp_path, {"input": "number 7", "target": "7"}, name="heldout.jsonl")
    with pytest.raises(LeakError, match="conversations"):
        data.load(held)
