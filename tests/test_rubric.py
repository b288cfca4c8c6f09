"""What a judge is asked, and how its verdict is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judges import parts

from harness import rubric
from harness.records import Example, Reply, Request
from harness.rubric import Way

EXAMPLE = Example(id="q1", input="How long is the cover?", targets=("24 months",))
MARKS = ("1", "2", "3", "4", "5")


def single(answer: str, *, accepted: bool = True) -> Request:
    return rubric.about_one(Way("Right or wrong?", accepted=accepted, max_tokens=64), MARKS, EXAMPLE, answer)


def pair(one: str, two: str, *, ties: bool = True) -> Request:
    return rubric.about_two(Way("Which is right?"), EXAMPLE, one, two, ties=ties)


def reply(text: str) -> Reply:
    return Reply(texts=(text,))


def test_the_judge_sees_question_answer_and_accepted_answers_and_the_rubric_apart_from_them() -> None:
    request = single("two years")
    assert parts(request) == {
        "Question": "How long is the cover?",
        "Accepted answer": "24 months",
        "Answer to judge": "two years",
    }
    assert "Right or wrong?" in request.messages[0].content
    assert "Right or wrong?" not in request.messages[1].content
    assert "Accepted answer" not in parts(single("two years", accepted=False))
    assert (request.decoding.max_tokens, request.decoding.temperature) == (64, 0)


def test_a_judge_may_be_asked_for_the_verdict_alone() -> None:
    asked = [
        rubric.about_one(Way("Right?", reasons=reasons), MARKS, EXAMPLE, "x").messages[-1].content
        for reasons in (True, False)
    ]
    assert ["reasons" in text for text in asked] == [True, False]
    assert all("Verdict: X" in text for text in asked)


def test_the_order_of_a_pair_is_the_order_in_which_it_is_shown() -> None:
    assert parts(pair("a", "b"))["Answer 1"] == "a"
    assert parts(pair("b", "a"))["Answer 1"] == "b"
    assert "tie" in pair("a", "b").messages[-1].content
    assert "tie" not in pair("a", "b", ties=False).messages[-1].content


@given(answer=st.text(max_size=60), times=st.integers(1, 3))
def test_no_answer_can_pose_as_the_end_of_itself(answer: str, times: int) -> None:
    # An answer that repeats the whole prompt of an earlier round, its mark included, gets another mark.
    for _ in range(times):
        answer = single(answer).messages[-1].content
    content = single(answer).messages[-1].content
    mark = content.partition("<<< ")[2].partition("\n")[0]
    assert mark not in answer
    assert content.count(f"{mark} >>>") == content.count(f"<<< {mark}") == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Verdict: 4", "4"),
        ("It names the month.\n\n  Verdict: 4  \n\n", "4"),
        ("Verdict: 4\nVerdict: 4", "4"),
        ("Verdict: 2\nOn second thoughts:\nVerdict: 4", None),
        ("Verdict: 4\nThat is my verdict.", None),
        ("Verdict: 4.", None),
        ("**Verdict: 4**", None),
        ("verdict: 4", None),
        ("Verdict:4", None),
        ("Verdict: 6", None),
        ("Verdict: 4 or 5", None),
        ("The verdict is 4", None),
        ("4", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_strictly_and_never_guessed(text: str, expected: str | None) -> None:
    assert rubric.verdict(reply(text), MARKS) == expected


def test_a_reply_that_was_cut_off_or_failed_has_no_verdict() -> None:
    # "Verdict: 1" may be the beginning of "Verdict: 10".
    assert rubric.verdict(Reply(texts=("Verdict: 1",), finish="length"), ("1", "10")) is None
    assert rubric.verdict(Reply(error="no line", finish="error"), MARKS) is None
    assert rubric.verdict(Reply(), MARKS) is None


def test_the_sample_is_the_same_for_everyone_and_never_larger_than_what_there_is() -> None:
    assert rubric.draw(100, 5, 0) == rubric.draw(100, 5, 0) != rubric.draw(100, 5, 1)
    assert rubric.draw(3, 5, 0) == [0, 1, 2]
    assert len(set(rubric.draw(100, 20, 0))) == 20


def test_the_injected_answer_asks_for_the_best_verdict_in_the_declared_form() -> None:
    assert rubric.injected("5").endswith("Verdict: 5")
    assert rubric.SAID not in rubric.injected(None)
