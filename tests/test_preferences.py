"""Preferences: what a row may look like, what is refused, and which are kept from training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import preferences
from harness.errors import DataError


def load(folder: Path, *rows: Any) -> list[tuple[str, str | None, str | None]]:
    file = folder / "prefs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, _ = preferences.load(str(file), "question")
    return [(one.input, one.chosen, one.rejected) for one in found]


def test_a_pair_a_ranked_list_and_a_thumb_are_read(tmp_path: Path) -> None:
    assert load(
        tmp_path,
        {"prompt": "How long?", "chosen": "Two years.", "rejected": "Well, that depends."},
        {"question": "Why?", "ranked": ["a", "b", "c"]},
        {"prompt": "Who?", "completion": "We.", "label": True},
        {"prompt": "Who?", "completion": "They.", "label": 0},
    ) == [
        ("How long?", "Two years.", "Well, that depends."),
        ("Why?", "a", "b"),
        ("Why?", "a", "c"),
        ("Why?", "b", "c"),
        ("Who?", "We.", None),
        ("Who?", None, "They."),
    ]


def test_of_a_conversation_the_last_turn_is_the_answer(tmp_path: Path) -> None:
    turns = {name: [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": name}] for name in "ab"}
    assert load(tmp_path, {"prompt": "Hi", "chosen": turns["a"], "rejected": turns["b"]}) == [("Hi", "a", "b")]


def turns(*roles: str) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{role} {place}"} for place, role in enumerate(roles)]


def test_a_system_turn_is_left_out_and_that_is_told(tmp_path: Path) -> None:
    asked, answered = turns("system", "user"), turns("system", "user", "assistant")
    rows = [
        {"prompt": asked, "chosen": "a", "rejected": "b"},
        {"prompt": asked[1:], "chosen": answered, "rejected": [*answered[:2], {"role": "assistant", "content": "b"}]},
        {"prompt": asked[1:], "chosen": answered[1:], "rejected": "b", "messages": asked},
    ]
    assert load(tmp_path, *rows) == [("user 1", "a", "b"), *[("user 1", "assistant 2", "b")] * 2]
    _, notes = preferences.load(str(tmp_path / "prefs.jsonl"), role="preferences_dev")
    assert notes == ("preferences_dev: the system turns of 2 rows are left out: each variant's prompt writes its own",)


@pytest.mark.parametrize(
    "roles",
    [("user", "assistant", "user"), ("user", "user"), ("user", "assistant"), ("user", "system"), ("system",), ("bot",)],
)
def test_a_prompt_of_several_turns_is_refused_and_not_cut(roles: tuple[str, ...], tmp_path: Path) -> None:
    row = {"prompt": turns("user"), "chosen": "a", "rejected": "b"}
    load(tmp_path, row)
    with pytest.raises(DataError) as raised:
        load(tmp_path, row, row | {"prompt": turns(*roles)})
    assert (
        f"prefs.jsonl:2: 'prompt' has the turns {', '.join(roles)}; allowed is one turn of the user, after at most one "
        "of the system. Write earlier turns into the text of that of the user, or take the row out"
    ) in str(raised.value)


@pytest.mark.parametrize("roles", [("user", "assistant", "user", "assistant"), ("assistant", "user"), ("user",)])
@pytest.mark.parametrize("field", ["chosen", "ranked", "completion"])
def test_an_answer_of_several_turns_is_refused_and_not_cut(roles: tuple[str, ...], field: str, tmp_path: Path) -> None:
    answer = turns(*roles)
    row = {"chosen": {"chosen": answer, "rejected": "b"}, "ranked": {"ranked": ["b", answer]}}.get(
        field, {"completion": answer, "label": True}
    )
    with pytest.raises(
        DataError, match=rf"prefs\.jsonl:1: '{field}' has the turns .* one turn of the assistant, after"
    ):
        load(tmp_path, {"prompt": "Hi", **row})


def test_the_preferences_of_one_prompt_share_a_group(tmp_path: Path) -> None:
    load(tmp_path, {"prompt": "Why?", "ranked": ["a", "b", "c"]}, {"prompt": "How?", "chosen": "a", "rejected": "b"})
    found, _ = preferences.load(str(tmp_path / "prefs.jsonl"))
    assert len({one.group for one in found}) == 2
    assert len({one.id for one in found}) == 4


def test_the_field_that_the_data_names_is_their_group_and_one_prompt_is_one_elsewhere(tmp_path: Path) -> None:
    rows = [{"prompt": prompt, "chosen": "a", "rejected": "b"} for prompt in ("Why?", "Why?", "How?", "Who?")]
    load(tmp_path, rows[0], rows[1], rows[2] | {"meta": {"topic": 7}}, rows[3] | {"meta": {"topic": None}})
    found, _ = preferences.load(str(tmp_path / "prefs.jsonl"), group=("subject", "meta.topic"))
    assert (found[0].group, found[2].group) == (found[1].group, "7")
    assert len({one.group for one in found}) == 3
    assert [one.group == preferences.question(one).id for one in found] == [True, True, False, True]


def test_a_row_of_two_groups_is_refused_with_its_line(tmp_path: Path) -> None:
    load(tmp_path, {"prompt": "Why?", "chosen": "a", "rejected": "b", "topic": ["x", "y"]})
    with pytest.raises(DataError, match=r"prefs\.jsonl:1: 'topic' holds 2 values; a row has one group"):
        preferences.load(str(tmp_path / "prefs.jsonl"), group="topic")


def test_every_broken_row_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        load(
            tmp_path,
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            {"prompt": "a", "chosen": "b"},
            {"chosen": "b", "rejected": "c"},
            {"prompt": "a", "chosen": "b", "rejected": "b"},
            {"prompt": "a", "ranked": ["b"]},
            {"prompt": "a", "ranked": ["b", "b"]},
            {"prompt": "a", "completion": "b", "label": "good"},
            {"prompt": "a", "answer": "b"},
        )
    lines = str(raised.value).splitlines()
    said = [line.partition("prefs.jsonl:")[2] for line in lines if "prefs.jsonl:" in line]
    assert said == [
        "2: 'rejected' is missing or no text",
        "3: 'question' is missing, empty or no text",
        "4: the chosen answer is the rejected one, so nothing can be learned from it",
        "5: 'ranked' must be a list of two answers or more, the best first",
        "6: 'ranked' holds the same answer twice",
        "7: 'label' must be true (good) or false (bad), not 'good'",
        "8: there is no answer in it; its fields are answer, prompt",
    ]
    assert '{"prompt", "chosen", "rejected"}' in lines[-1]


@given(st.lists(st.text(max_size=3), max_size=30), st.floats(0, 0.99), st.integers(0, 3))
def test_some_groups_are_held_back_and_never_all(groups: list[str], share: float, seed: int) -> None:
    back = preferences.divide(groups, share, seed)
    assert back <= set(groups)
    assert back == preferences.divide(reversed(groups), share, seed)
    several = len(set(groups)) > 1
    assert bool(back) == (several and share > 0)
    assert len(back) < max(1, len(set(groups)))
