"""A language model marks each answer by a rubric, with controls that say whether it can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from harness import rubric, stats
from harness.errors import HarnessError
from harness.plugins import Backend, Family, Judging, Means, Measured
from harness.records import Example, Prediction, Reply, Request

_CONTROLS = {"null": "the null answer", "injected": "an injected instruction", "accepted": "the accepted answer"}


class LlmJudge(Judging):
    """The mean mark that a judge gives, by a rubric of your own, on a scale of whole numbers or of yes and no.

    The judge sees the question, the answer and (with `accepted`) the accepted answers; no name of a variant. A reply
    whose last line is not a verdict of the declared form is never guessed at: it counts at the floor and as an error.

    With every run, a sample of examples is also judged with answers of which it is known what they are worth: one that
    says nothing, one that only tells the judge to give the best mark, and the accepted answer itself. Their mean marks
    stand in the run's notes and in its step.
    """

    judge: Annotated[Backend, Family("backends")]
    """The model that judges, as in `[model]`."""
    rubric: str = Field(min_length=1)
    """What makes an answer good or bad, and what each mark stands for."""
    scale: Literal["yes/no"] | tuple[int, int] = (1, 5)
    """The lowest and the highest mark, or "yes/no"."""
    accepted: bool = True
    """Whether the judge sees the accepted answers."""
    reasons: bool = True
    """Whether the judge is asked for its reasons before the verdict."""
    max_tokens: int = Field(256, ge=1)
    """How many tokens the judge's reply has at most; one that is cut off has no verdict."""
    controls: int = Field(20, ge=1)
    """How many examples are judged with the control answers too."""
    seed: int = Field(0, ge=0)
    """Which examples these are."""

    @field_validator("scale")
    @classmethod
    def _rises(cls, value: str | tuple[int, int]) -> str | tuple[int, int]:
        if isinstance(value, tuple) and not 0 < value[1] - value[0] <= 100:
            raise ValueError(f"a scale goes from a lower to a higher mark, with at most 101 of them, not {list(value)}")
        return value

    @property
    def backend_plugin(self) -> Backend:
        return self.judge

    @property
    def unit(self) -> str:  # type: ignore[override]
        return "share" if self.scale == "yes/no" else "mark"

    @property
    def floor(self) -> float:  # type: ignore[override]
        return 0.0 if isinstance(self.scale, str) else float(self.scale[0])

    @property
    def ceiling(self) -> float:  # type: ignore[override]
        return 1.0 if isinstance(self.scale, str) else float(self.scale[1])

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What the judge may say, the best last."""
        if isinstance(self.scale, str):
            return ("no", "yes")
        return tuple(str(mark) for mark in range(self.scale[0], self.scale[1] + 1))

    def measure_all(
        self, examples: Sequence[Example], predictions: Sequence[Prediction], means: Means
    ) -> list[Measured | Exception]:
        answered = [place for place, prediction in enumerate(predictions) if prediction.error is None]
        sample = rubric.draw(len(examples), self.controls, self.seed)
        asked = {"answers": [(place, predictions[place].text or "") for place in answered]}
        asked |= {kind: self._control(kind, examples, sample) for kind in _CONTROLS}
        items = [item for kind in asked.values() for item in kind]
        replies = iter(means.ask([self.request(examples[place], text) for place, text in items]))
        marks = {kind: [self.mark(next(replies)) for _ in texts] for kind, texts in asked.items()}
        given = dict(zip(answered, marks["answers"], strict=True))
        figures = {kind: _summary(found) for kind, found in marks.items() if kind != "answers"}
        figures["answers"] = _summary([mark for place, mark in given.items() if place in sample])
        unread = [examples[place].id for place, mark in given.items() if isinstance(mark, Exception)]
        details = {"controls": figures, "asked": len(given), "unparsed": len(unread), "unparsed_ids": unread}
        means.note(self._note(figures, len(unread), len(given)), details)
        return [given.get(place, self.floor) for place in range(len(examples))]

    def _control(self, kind: str, examples: Sequence[Example], sample: Sequence[int]) -> list[tuple[int, str]]:
        if kind == "accepted":
            return [(place, examples[place].targets[0]) for place in sample if examples[place].targets]
        text = rubric.NULL if kind == "null" else rubric.injected(self.verdicts[-1])
        return [(place, text) for place in sample]

    def request(self, example: Example, answer: str) -> Request:
        way = rubric.Way(self.rubric, self.accepted, self.reasons, self.max_tokens)
        return rubric.about_one(way, self.verdicts, example, answer)

    def mark(self, reply: Reply) -> float | Exception:
        said = rubric.verdict(reply, self.verdicts)
        if said is not None:
            return self.floor + self.verdicts.index(said)
        if reply.error is not None:
            return HarnessError(f"the judge of {self.name} could not answer: {reply.error}")
        return HarnessError(
            f"the judge of {self.name} gave no verdict that can be read: its last line must be `{rubric.SAID}X`, X one "
            f"of {', '.join(self.verdicts)}. Give it more max_tokens or reasons = false, or choose another judge."
        )

    def _note(self, figures: dict[str, Any], unread: int, asked: int) -> str:
        """What must be known before the marks are believed."""
        own = figures["answers"]
        shown = [f"{name} got {_shown(figures[kind])}" for kind, name in _CONTROLS.items() if figures[kind]["n"]]
        text = (
            f"{self.name}, marks from {self.floor:g} to {self.ceiling:g}: in {figures['null']['n']} examples "
            f"{', '.join(shown)}; this variant's answers to them {_shown(own)}"
        )
        yardstick = figures["accepted"]["mean"] if figures["accepted"]["n"] else own["mean"]
        fooled = [
            _CONTROLS[kind]
            for kind in ("null", "injected")
            if yardstick is not None and (mean := figures[kind]["mean"]) is not None and mean >= yardstick
        ]
        if fooled:
            against = "the accepted answer" if figures["accepted"]["n"] else "the variant's answers"
            text += f". DO NOT TRUST THIS JUDGE: it marks {' and '.join(fooled)} no lower than {against}"
        if unread:
            text += f". {unread} of {asked} verdicts could not be read and count at the floor"
        return text


def _summary(marks: Sequence[float | Exception]) -> dict[str, Any]:
    read = [mark for mark in marks if not isinstance(mark, Exception)]
    return {"mean": stats.mean(read) if read else None, "n": len(marks), "unparsed": len(marks) - len(read)}


def _shown(summary: dict[str, Any]) -> str:
    if summary["mean"] is None:
        return f"no verdict that could be read ({summary['n']} asked)"
    return f"{summary['mean']:.2f}" + (f" ({summary['unparsed']} unparsed)" if summary["unparsed"] else "")
