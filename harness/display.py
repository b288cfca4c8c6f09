"""How a run shows itself while it works: a live display, plain lines, JSON lines, or nothing."""

from __future__ import annotations

import json
import math
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TextIO

from harness import figures

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from harness.pipeline import Event

Style = Literal["full", "plain", "none", "json"]

_QUIET = ("score",)
_EVERY = 10.0
"""Seconds between two plain lines about one step."""


class Display:
    """Receives the events of a run. Progress goes to standard error, JSON lines to standard output."""

    def __init__(self, style: Style, stream: TextIO | None = None) -> None:
        self._style = style
        self._stream = stream or (sys.stdout if style == "json" else sys.stderr)
        self._stack = ExitStack()
        self._bars: Progress | None = None
        self._bar: TaskID | None = None
        self._began = self._said = 0.0
        self._first: tuple[int, float] | None = None
        self._newest: dict[str, float] = {}
        """The newest of each figure of a training: a step tells of some, an evaluation of others."""

    def __enter__(self) -> Display:
        if self._style == "full":
            self._bars = self._stack.enter_context(_bars())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def say(self, text: str) -> None:
        """Show a line beside the progress, without what a terminal would take for a command."""
        text = figures.plain(text)
        if self._bars is not None:
            self._bars.console.print(text, markup=False, highlight=False)
        elif self._style == "plain":
            self._write(text)

    def _write(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except BrokenPipeError:
            self._style = "none"  # The reader has gone: the run goes on without it.

    def watch(self, event: Event) -> None:
        if self._style == "json":
            finite = {name: value for name, value in event.figures.items() if math.isfinite(value)}
            self._write(json.dumps(asdict(replace(event, figures=finite))))
        elif self._style != "none" and not (event.role.startswith(_QUIET) and event.kind != "failed"):
            getattr(self, f"_{event.kind}")(event)

    # -------------------------------------------------------------------------------------------------- the events

    def _begin(self, event: Event) -> None:
        self._began = self._said = time.monotonic()
        self._first = None
        self._newest = {}
        if self._bars is not None:
            self._bar = self._bars.add_task(_what(event), total=None, rate="")
        else:
            self.say(f"{_what(event)} …")

    def _progress(self, event: Event) -> None:
        now = time.monotonic()
        self._newest |= event.figures
        # The rate counts from the first report: neither what an earlier process had done nor the start is part of it.
        first, since = self._first = self._first or (event.done, now)
        rate = (event.done - first) / max(1e-9, now - since)
        if self._bars is not None and self._bar is not None:
            shown = "" if not rate else f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
            shown += "".join(f"  {told}" for told in self._figures())
            self._bars.update(self._bar, completed=event.done, total=event.total, rate=shown)
        elif now - self._said >= _EVERY and event.total:
            self._said = now
            left = figures.seconds((event.total - event.done) / rate) if rate else "?"
            self.say(", ".join([f"{_what(event)}: {event.done} of {event.total}", *self._figures(), f"{left} left"]))

    def _figures(self) -> list[str]:
        return [f"{name.replace('_', ' ')} {self._newest[name]:.3g}" for name in _SHOWN if name in self._newest]

    def _wait(self, event: Event) -> None:
        self.say(f"{_what(event)}: another process is doing it; waiting for it")

    def _end(self, event: Event) -> None:
        took = figures.seconds(time.monotonic() - self._began)
        if self._bars is not None and self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None
        self.say(f"{_what(event)}: done in {took}")

    def _failed(self, event: Event) -> None:
        if self._bars is not None and self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None
        self.say(f"{figures.plain(event.variant, line=True)} FAILED: {figures.plain(event.text)}")


_SHOWN = ("loss", "dev_loss", "reward", "dev_reward", "kl")
"""What the progress of a training tells, where it is measured."""

_VERBS = {
    "index": "index documents",
    "train": "train",
    "predict": "answer",
    "gold": "weigh accepted answers",
    "latency": "time single answers",
}


def _what(event: Event) -> str:
    kind, _, rest = event.role.partition(".")
    of, _, number = rest.rpartition(".")
    stage = f" stage {int(number) + 1}" if kind == "train" and number != "0" else ""
    stage += f" of {figures.plain(of, line=True)}" if kind == "train" and of else ""
    seed = f" (seed {event.seed})" if event.seed else ""
    return f"{figures.plain(event.variant, line=True)}{seed}: {_VERBS.get(kind, kind)}{stage}"


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
