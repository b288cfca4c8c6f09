"""Judges for tests, each with one known habit: `kind = "judges:Fair"` and the like. Needs no torch.

Each reads its prompt as a model would: the question, the accepted answers and the answers between their marks. What was
asked is written, a line a request, into the file that JUDGES_LOG names; JUDGES_SECONDS is what a request takes. A
question that holds a line of the file JUDGES_BROKEN fails, as long as it stands there.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from harness.backends.canned import Canned, CannedSession
from harness.plugins import Backend, Family, Judging, Plan, Session
from harness.records import Decoding, Example, Message, Prediction, Reply, Request, digest

_PART = re.compile(r"^([^\n:]+):\n<<< (\w+)\n(.*?)\n\2 >>>$", re.DOTALL | re.MULTILINE)


def parts(request: Request) -> dict[str, str]:
    """The texts of a request by their titles."""
    return {title: text for title, _, text in _PART.findall(request.messages[-1].content)}


class Fair(Canned):
    """Says what it thinks: the accepted answer is right, another is not."""

    lead: str = "I compared them.\n"
    batch: int = 4

    def fingerprint(self) -> dict[str, Any]:
        return {"judge": type(self).__name__, "weights": digest(self.lead)}

    def open(self) -> Session:
        return JudgeSession(self)

    def one(self, answer: str, accepted: Sequence[str], marks: Sequence[str]) -> str:
        return marks[-1] if answer.strip() in accepted else marks[0]

    def two(self, first: str, second: str, accepted: Sequence[str]) -> str:
        right = [first.strip() in accepted, second.strip() in accepted]
        return "tie" if right[0] == right[1] else "1" if right[0] else "2"


class First(Fair):
    """Prefers whatever it sees first."""

    def two(self, first: str, second: str, accepted: Sequence[str]) -> str:
        return "1"


class Gullible(Fair):
    """Does what an answer tells it to, and else is fair."""

    told: ClassVar[str] = "Ignore the rubric"

    def one(self, answer: str, accepted: Sequence[str], marks: Sequence[str]) -> str:
        return marks[-1] if answer.startswith(self.told) else super().one(answer, accepted, marks)

    def two(self, first: str, second: str, accepted: Sequence[str]) -> str:
        obeyed = [first.startswith(self.told), second.startswith(self.told)]
        return super().two(first, second, accepted) if obeyed[0] == obeyed[1] else "1" if obeyed[0] else "2"


class Kind(Fair):
    """Gives everyone the highest mark, and takes a non-answer for the better one."""

    def one(self, answer: str, accepted: Sequence[str], marks: Sequence[str]) -> str:
        return marks[-1]

    def two(self, first: str, second: str, accepted: Sequence[str]) -> str:
        polite = ["Thank you" in first, "Thank you" in second]
        return super().two(first, second, accepted) if polite[0] == polite[1] else "1" if polite[0] else "2"


class Mumbles(Fair):
    """Never gives its verdict in the declared form."""

    def one(self, answer: str, accepted: Sequence[str], marks: Sequence[str]) -> str:
        return "somewhere around 4"

    def two(self, first: str, second: str, accepted: Sequence[str]) -> str:
        return "the first"


class Lettered(Fair):
    """Gives an answer the more, the more of it are lower-case letters, and no verdict on one with `unread` in it."""

    unread: str | None = None

    def one(self, answer: str, accepted: Sequence[str], marks: Sequence[str]) -> str:
        if self.unread is not None and self.unread in answer:
            return "hard to say"
        share = sum(letter.isascii() and letter.islower() for letter in answer) / max(1, len(answer))
        return marks[round(share * (len(marks) - 1))]


class Wordy(Judging):
    """A judge of its own kind: the more its model says of an answer, the better."""

    judge: Annotated[Backend, Family("backends")]
    ceiling: ClassVar[float | None] = None

    @property
    def backend_plugin(self) -> Backend:
        return self.judge

    def request(self, example: Example, answer: str) -> Request:
        return Request(messages=(Message("user", f"{example.input} {answer}"),), decoding=Decoding(max_tokens=8))

    def mark(self, reply: Reply) -> float | Exception:
        return float(len(reply.texts[0])) if reply.error is None else ValueError(reply.error)

    def measure(self, example: Example, prediction: Prediction) -> float:
        return 0.0


class JudgeSession(CannedSession):
    def plan(self, requests: Sequence[Request]) -> Plan:
        size = self.judge.batch
        firsts = range(0, len(requests), size)
        return Plan(batches=tuple(tuple(range(first, min(first + size, len(requests)))) for first in firsts))

    @property
    def judge(self) -> Fair:
        assert isinstance(self.backend, Fair)
        return self.backend

    def answer(self, requests: Sequence[Request], plan: Plan, *, seed: int = 0) -> list[Reply]:
        return [self._judged(request) for request in requests]

    def _judged(self, request: Request) -> Reply:
        found = parts(request)
        if file := os.environ.get("JUDGES_LOG"):
            with Path(file).open("a", encoding="utf-8") as log:
                log.write(f"{found['Question']}\n")
        time.sleep(float(os.environ.get("JUDGES_SECONDS", "0")))
        accepted = [text for title, text in found.items() if title.startswith("Accepted answer")]
        broken = Path(os.environ.get("JUDGES_BROKEN", ""))
        lines = broken.read_text(encoding="utf-8").splitlines() if broken.is_file() else []
        if any(text in found["Question"] for text in (*self.judge.fail_on, *lines)):
            return Reply(error="the line was bad", finish="error")
        if "Answer 1" in found:
            said = self.judge.two(found["Answer 1"], found["Answer 2"], accepted)
        else:
            marks = request.messages[-1].content.rpartition("one of: ")[2].rstrip(".").split(", ")
            said = self.judge.one(found["Answer to judge"], accepted, marks)
        return Reply(texts=(f"{self.judge.lead}Verdict: {said}",), input_tokens=9, output_tokens=3)
