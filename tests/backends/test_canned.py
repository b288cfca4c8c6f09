"""The canned backend: a fake that ships with the package and behaves like a backend."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.backends.canned import Canned
from harness.errors import ModelError
from harness.records import Decoding, Message, Reply, Request


def ask(backend: Canned, text: str, system: str = "", n: int = 1, **decoding: Any) -> Reply:
    session = backend.open()
    before = (Message("system", system),) if system else ()
    request = Request(messages=(*before, Message("user", text)), decoding=Decoding(**decoding), n=n)
    (reply,) = session.answer([request], session.plan([request]))
    return reply


def test_an_equal_message_wins_over_the_longest_part_over_the_default() -> None:
    backend = Canned(
        answers={"red light": "unplug it", "light": "lamp", "why a red light?": "heat"}, default="<{input}>"
    )
    assert ask(backend, "why a red light?").texts == ("heat",)
    assert ask(backend, "a red light!").texts == ("unplug it",)
    assert ask(backend, "a light").texts == ("lamp",)
    assert ask(backend, "tea").texts == ("<tea>",)


def test_only_the_last_user_message_counts() -> None:
    session = Canned(answers={"tea": "leaves"}).open()
    messages = (Message("system", "tea"), Message("user", "tea"), Message("assistant", "tea"), Message("user", "water"))
    request = Request(messages=messages, decoding=Decoding())
    assert session.answer([request], session.plan([request]))[0].texts == ("I don't know.",)


def test_failures_and_long_prompts_are_errors_in_the_reply() -> None:
    backend = Canned(fail_on=("bomb",), context_length=5)
    failed, long = ask(backend, "a bomb"), ask(backend, "one two three", system="four five six")
    assert failed.texts == () and failed.finish == "error" and "fail_on" in (failed.error or "")
    assert "6 words" in (long.error or "") and long.texts == ()


def test_decoding_limits_apply() -> None:
    backend = Canned(default="one two three. four")
    cut = ask(backend, "x", max_tokens=2, n=3)
    assert cut.texts == ("one two",) * 3 and cut.finish == "length" and cut.output_tokens == 6
    stopped = ask(backend, "x", stop=(".",))
    assert stopped.texts == ("one two three",) and stopped.finish == "stop"


def test_answers_take_as_long_as_they_are_told_to() -> None:
    begun = time.perf_counter()
    reply = ask(Canned(delay_seconds=0.05), "x")
    assert 0.05 <= reply.seconds <= time.perf_counter() - begun


@given(st.integers(0, 50), st.integers(1, 20))
def test_a_plan_holds_every_request_once_in_order(count: int, size: int) -> None:
    session = Canned(max_batch=size).open()
    plan = session.plan([Request(messages=(Message("user", "x"),), decoding=Decoding())] * count)
    assert [index for batch in plan.batches for index in batch] == list(range(count))
    assert all(1 <= len(batch) <= size for batch in plan.batches)


def test_the_fingerprint_follows_what_is_answered_not_how_fast() -> None:
    base = Canned(answers={"a": "b"}).fingerprint()
    assert Canned(answers={"a": "b"}, delay_seconds=1, max_batch=3).fingerprint() == base
    assert Canned(answers={"a": "c"}).fingerprint() != base


def test_there_is_nothing_to_train_or_attach(tmp_path: Path) -> None:
    session = Canned().open()
    session.attach(None)
    with pytest.raises(ModelError, match="no weights"):
        session.attach(tmp_path)
    assert not Canned.trainable


def test_it_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, harness.backends.canned as c; c.Canned().open(); print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
