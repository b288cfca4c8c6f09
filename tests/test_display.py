"""Displays: what each style shows of a run's events, and where."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pytest

from harness import display
from harness.display import Display, Style
from harness.pipeline import Event


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(display, "time", made)
    return made


def event(kind: Any, role: str = "predict", **values: Any) -> Event:
    return Event(kind, "rag", values.pop("seed", 0), role, **values)


def shown(style: Style, *events: Event) -> list[str]:
    stream = io.StringIO()
    with Display(style, stream) as made:
        for one in events:
            made.watch(one)
    return stream.getvalue().splitlines()


def test_plain_lines_tell_each_step_and_how_long_it_took(clock: Clock) -> None:
    stream = io.StringIO()
    with Display("plain", stream) as made:
        made.watch(event("begin"))
        clock.now = 42
        made.watch(event("end"))
        made.watch(event("begin", "train.1", seed=3))
        made.watch(event("wait", "index"))
        made.watch(event("failed", "", text="no room"))
    assert stream.getvalue().splitlines() == [
        "rag: answer …",
        "rag: answer: done in 42 s",
        "rag (seed 3): train stage 2 …",
        "rag: index documents: another process is doing it; waiting for it",
        "rag FAILED: no room",
    ]


@pytest.mark.parametrize("style", ["plain", "full"])
def test_what_is_said_commands_no_terminal(style: Style, capsys: pytest.CaptureFixture[str]) -> None:
    with Display(style) as made:
        made.say("note: \x1b[2Jgone \x1b]0;title\x07[b]kept[/b]")
    said = capsys.readouterr().err
    assert "note: gone [b]kept[/b]\n" in said
    assert "\x1b]" not in said
    assert "\x1b[2J" not in said


def test_plain_lines_tell_progress_every_ten_seconds_with_what_is_left(clock: Clock) -> None:
    stream = io.StringIO()
    with Display("plain", stream) as made:
        made.watch(event("begin"))
        for second in range(1, 31):
            clock.now = second
            made.watch(event("progress", done=1000 + second, total=1100))
    assert stream.getvalue().splitlines() == [
        "rag: answer …",
        "rag: answer: 1010 of 1100, 1 min 30 s left",
        "rag: answer: 1020 of 1100, 1 min 20 s left",
        "rag: answer: 1030 of 1100, 1 min 10 s left",
    ], "one a second, whatever was done before"


def test_the_first_report_gives_no_rate(clock: Clock) -> None:
    stream = io.StringIO()
    with Display("plain", stream) as made:
        made.watch(event("begin"))
        clock.now = 60
        made.watch(event("progress", done=16, total=32))
    assert stream.getvalue().splitlines()[1] == "rag: answer: 16 of 32, ? left"


def test_scores_are_quiet_but_their_failures_are_not() -> None:
    assert shown("plain", event("begin", "score.f1"), event("wait", "score.f1"), event("end", "score.f1")) == []
    assert shown("plain", event("failed", "score.f1", text="no")) == ["rag FAILED: no"]


def test_none_shows_nothing() -> None:
    stream = io.StringIO()
    with Display("none", stream) as made:
        made.say("something")
        made.watch(event("begin"))
        made.watch(event("failed", text="no"))
    assert stream.getvalue() == ""


def test_json_lines_hold_every_event_and_no_text_beside(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("json") as made:
        made.say("a note")
        made.watch(event("progress", "train.0", done=1, total=2, figures={"loss": 0.5, "norm": math.nan}))
        made.watch(event("begin", "score.f1"))
    out, err = capsys.readouterr()
    first, second = map(json.loads, out.splitlines())
    assert first == {
        "kind": "progress", "variant": "rag", "seed": 0, "role": "train.0", "done": 1, "total": 2,
        "figures": {"loss": 0.5}, "text": "",
    }  # fmt: skip
    assert second["role"] == "score.f1"
    assert err == ""


def test_hostile_names_and_errors_change_no_terminal() -> None:
    (line,) = shown("plain", Event("failed", "\x1b[31mred\n", 0, "", text="\x1b]0;title\x07gone"))
    assert line == "red FAILED: gone"


def test_a_reader_that_has_gone_stops_no_run() -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    lines = shown("json", event("begin"), event("end"))
    stream = Gone()
    with Display("json", stream) as made:
        made.watch(event("begin"))
        made.watch(event("end"))
    assert stream.getvalue().splitlines() == lines[:1], "after that it tells nothing"


def test_the_full_display_shows_bars_and_takes_them_away(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with Display("full") as made:
        made.watch(event("begin", "train.0"))
        assert made._bars is not None
        (task,) = made._bars.tasks
        assert task.description == "rag: train"
        clock.now = 1
        made.watch(event("progress", "train.0", done=10, total=40, figures={"loss": 0.25}))
        assert (task.completed, task.total, task.fields["rate"]) == (10, 40, "  loss 0.25")
        clock.now = 3
        made.watch(event("progress", "train.0", done=14, total=40, figures={"loss": 0.125}))
        assert task.fields["rate"] == "2.0/s  loss 0.125"
        clock.now = 20
        made.watch(event("progress", "train.0", done=15, total=40))
        assert task.fields["rate"] == "3.8 s each  loss 0.125", "what was measured last"
        made.watch(event("end", "train.0"))
        assert made._bars.tasks == []
        made.watch(event("begin"))
        made.watch(event("failed", text="no room"))
        assert made._bars.tasks == []
    err = capsys.readouterr().err
    assert "rag: train: done in 20 s" in err
    assert "rag FAILED: no room" in err


def test_a_training_tells_the_newest_of_its_figures(clock: Clock) -> None:
    stream = io.StringIO()
    with Display("plain", stream) as made:
        made.watch(event("begin", "train.0"))
        for second, figures in enumerate([{"loss": 2.0}, {"dev_loss": 1.5}, {"loss": 1.0, "grad_norm": 3.0}], start=1):
            clock.now = 10 * second
            made.watch(event("progress", "train.0", done=second, total=9, figures=figures))
    assert stream.getvalue().splitlines()[1:] == [
        "rag: train: 1 of 9, loss 2, ? left",
        "rag: train: 2 of 9, loss 2, dev loss 1.5, 1 min 10 s left",
        "rag: train: 3 of 9, loss 1, dev loss 1.5, 1 min 0 s left",
    ]
