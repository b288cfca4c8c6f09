"""Pairwise judging: a judge reads two variants' stored answers side by side, and its verdicts are kept as steps.

A judge is a TOML file of its own, so that it can be kept, shared and used again: judging changes nothing of the
experiment. A step holds one pair of answering steps, or the controls of one; its name is the digest of the judge's
settings, its model and the answers, so nothing is asked twice, whichever experiment asks.

`verdicts.py` reads what is kept here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from harness import pairwise, plan, replies, results, rubric, verdicts
from harness.errors import HarnessError, SpecError
from harness.layers import assemble, shown
from harness.measure import Meter, provenance
from harness.pipeline import Event, Watch
from harness.plan import Named
from harness.plugins import Backend, Family, Session
from harness.records import Example, Prediction, Request, digest, dump
from harness.results import Results, Variant
from harness.shape import Table, explain, fit
from harness.step import Step
from harness.store import Snapshot, Store
from harness.verdicts import Said, Verdict, settled

__all__ = ["Judge", "judge", "load"]


class Judge(Table):
    """A judge's file: who judges what by which rubric."""

    name: str = Field(min_length=1)
    """What the results call it; by default the file's name."""
    model: Annotated[Backend, Family("backends")]
    """The model that judges, as in a spec's `[model]`."""
    rubric: str = Field(min_length=1)
    """What makes an answer the better one."""
    pairs: Literal["baseline", "all"] = "baseline"
    """Which variants meet: each the baseline, or every two."""
    accepted: bool = True
    """Whether the judge sees the accepted answers."""
    ties: bool = True
    """Whether it may say that neither answer is better."""
    reasons: bool = True
    """Whether it is asked for its reasons before the verdict."""
    max_tokens: int = Field(256, ge=1)
    """How many tokens its reply has at most; one that is cut off has no verdict."""
    controls: int = Field(20, ge=1)
    """With how many examples of each variant the control answers are judged."""
    limit: int | None = Field(None, ge=1)
    """How many held-out examples are judged at most: a draw by `seed`."""
    seed: int = Field(0, ge=0)
    """Which examples are drawn."""

    def settings(self) -> dict[str, Any]:
        """Return all that can change a verdict, as a step keeps it."""
        plain = ("rubric", "accepted", "ties", "reasons", "max_tokens", "controls", "limit", "seed")
        model = self.model.identity() | self.model.fingerprint()
        return {"version": rubric.VERSION, "model": model, **{key: getattr(self, key) for key in plain}}


def load(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Judge:
    """Read a judge's file; `overrides` are `path=value` texts. Raises SpecError with every fault and its line."""
    file = Path(path)
    written, faults = assemble(file, overrides)
    if written is None:
        raise SpecError(faults)
    root = fit(written, Judge, faults)
    made = None
    try:
        made = Judge.model_validate({"name": file.stem, **root.plain()})
    except ValidationError as error:
        faults += explain(error, root, Judge)
    if faults or made is None:
        raise SpecError(sorted(dict.fromkeys(faults), key=lambda fault: (fault.file != shown(file), fault.line or 0)))
    return made


# ---------------------------------------------------------------------------------------------------- what to judge


@dataclass(frozen=True, slots=True)
class _Case:
    """Two texts on one example, to be shown in both orders."""

    example: Example
    kind: verdicts.Kind
    one: str
    two: str

    @property
    def ids(self) -> tuple[str, str]:
        return f"{self.kind} one-two {self.example.id}", f"{self.kind} two-one {self.example.id}"

    def requests(self, judge: Judge) -> Iterator[tuple[str, Request]]:
        way = rubric.Way(judge.rubric, judge.accepted, judge.reasons, judge.max_tokens)
        texts = ((self.one, self.two), (self.two, self.one))
        for id, (first, second) in zip(self.ids, texts, strict=True):
            yield id, rubric.about_two(way, self.example, first, second, ties=judge.ties)


@dataclass(frozen=True, slots=True)
class _Work:
    """A step to be done: `cases` are to be judged; of the others the verdict is known without asking."""

    label: str
    name: str
    inputs: dict[str, Any]
    cases: tuple[_Case, ...]
    known: tuple[Verdict, ...]
    before: str | None
    """The attempt before, if this is a later one: its good replies are kept."""


def judge(judge: Judge, snapshot: Snapshot, store: Store, watch: Watch, *, retry: bool = False) -> Results:
    """Judge what is missing of the pairs of complete variants and of their controls; return the experiment's results.

    Every batch is kept as it is answered: after a kill the same call goes on from there. With `retry`, requests that
    failed are asked again, by another attempt at their step, which keeps the good replies. Raises HarnessError where
    there are no two complete variants, and KeyboardInterrupt where `watch` did.
    """
    found = results.read(snapshot, store)
    ready = [variant for variant in found.variants if variant.status == "complete"]
    if len(ready) < 2:
        raise HarnessError(f"{snapshot.ref} has {len(ready)} complete variants, and a judge compares two or more.")
    pairs = _pairs(judge, ready, found.baseline)
    worker = _Worker(judge, found, store, watch, retry=retry)
    try:
        for one, two in pairs:
            for a, b in verdicts.answering(one, two):
                if a != b:
                    worker.answers(f"{one.name} against {two.name}", a, b)
        for variant in dict.fromkeys(variant.name for pair in pairs for variant in pair):
            for run in next(each for each in ready if each.name == variant).runs:
                worker.controls(f"{variant} against control answers", run.steps["predict"])
    finally:
        worker.close()
    return found


def _pairs(judge: Judge, ready: Sequence[Variant], baseline: str) -> list[tuple[Variant, Variant]]:
    everyone = [(one, two) for place, one in enumerate(ready) for two in ready[place + 1 :]]
    if judge.pairs == "all":
        return everyone
    found = [pair for pair in everyone if baseline in (pair[0].name, pair[1].name)]
    if not found:
        raise HarnessError(f'the baseline {baseline} is not complete, so no variant can meet it: set pairs = "all".')
    return found


class _Worker:
    """Does the steps of one judge, one after another; its model is loaded when the first request is to be asked."""

    def __init__(self, judge: Judge, found: Results, store: Store, watch: Watch, *, retry: bool) -> None:
        self._judge, self._store, self._watch, self._retry = judge, store, watch, retry
        self._settings = judge.settings()
        self._fingerprint = found.fingerprint
        limit = judge.limit or len(found.examples)
        chosen = rubric.draw(len(found.examples), limit, judge.seed)
        self._examples = [found.examples[place] for place in chosen]
        self._session: Session | None = None

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def answers(self, label: str, first: str, second: str) -> None:
        """Judge the answers of two steps. Their order in the step does not depend on who asks."""
        first, second = sorted((first, second))
        ones, twos = self._predictions(first), self._predictions(second)
        cases, known = [], []
        for example in self._examples:
            one, two = ones[example.id], twos[example.id]
            if known_already := pairwise.foregone(one, two):
                outcome, reason = known_already
                known.append(Verdict(id=example.id, kind="answers", said=(None, None), outcome=outcome, reason=reason))
            else:
                cases.append(_Case(example, "answers", one.text or "", two.text or ""))
        self._once(self._work(label, (first, second), cases, known))

    def controls(self, label: str, name: str) -> None:
        """Judge the control answers against the answers of one step."""
        answers = self._predictions(name)
        cases = []
        for place in rubric.draw(len(self._examples), self._judge.controls, self._judge.seed):
            example = self._examples[place]
            if answers[example.id].error is None:
                text = answers[example.id].text or ""
                cases.append(_Case(example, "null", rubric.NULL, text))
                cases.append(_Case(example, "injected", rubric.injected(None), text))
        self._once(self._work(label, (name,), cases, ()))

    def _predictions(self, name: str) -> dict[str, Prediction]:
        return {prediction.id: prediction for prediction in self._store.step(name).predictions()}

    def _work(self, label: str, answers: tuple[str, ...], cases: Sequence[_Case], known: Sequence[Verdict]) -> _Work:
        inputs = {"judge": self._settings, "answers": list(answers), "heldout": self._fingerprint}
        named = plan.newest(lambda number: _attempt(inputs, number), self._store, retry=self._retry)
        number = named.inputs.get("attempt", 0)
        before = _attempt(inputs, number - 1).name if number else None
        told = {**named.inputs, "uses": list(answers), "name": self._judge.name}
        return _Work(label, named.name, told, tuple(cases), tuple(known), before)

    def _once(self, work: _Work) -> None:
        step = self._store.step(work.name)
        if step.outcome is not None:
            return

        def tell(kind: Literal["begin", "progress", "wait", "end"], done: int = 0, total: int = 0) -> None:
            self._watch(Event(kind, work.label, 0, "judge", done, total))

        with step.lock(lambda: tell("wait")):
            if step.outcome is not None:
                return
            tell("begin")
            step.start(work.inputs)
            outcome = self._do(work, step, lambda done, total: tell("progress", done, total))
            step.complete({**outcome, "provenance": provenance()})
            tell("end")

    def _do(self, work: _Work, step: Step, progress: Callable[[int, int], None]) -> dict[str, Any]:
        requests = {id: request for case in work.cases for id, request in case.requests(self._judge)}
        before = self._store.step(work.before) if work.before else None
        spent = (before.outcome if before else None) or {"seconds": 0.0, "peak_memory_bytes": 0, "failed": 0}
        kept = {reply.id: reply for reply in before.predictions() if reply.error is None} if before else {}
        asked = {id: request for id, request in requests.items() if id not in kept}
        with step.answers() as answers, Meter(step.work / "meter.json") as meter:
            # What failed before a kill stays so: another attempt at the step asks it again.
            said = {reply.id: reply for batch in answers.batches for reply in batch}
            if asked:
                replies.ask(self._opened(), asked, said, answers.append, progress)
        said |= kept
        step.write_predictions(said[id] for id in requests)
        found = {verdict.id: verdict for verdict in work.known}
        made = [_verdict(case, said, self._judge) for case in work.cases]
        step.write_json(verdicts.FILE, [dump(verdict) for verdict in (*found.values(), *made)])
        return {
            # The replies kept from the attempt before had their cost too.
            "seconds": meter.seconds + spent["seconds"],
            "peak_memory_bytes": max(meter.peak, spent["peak_memory_bytes"]),
            "n": len(made) + len(found),
            "requests": len(requests),
            "failed": sum(reply.error is not None for reply in said.values()),
            "asked_again": spent.get("asked_again") or spent["failed"],
            "input_tokens": sum(reply.input_tokens for reply in said.values()),
            "output_tokens": sum(reply.output_tokens for reply in said.values()),
            "device": f"{self._session.device} {self._session.dtype}" if self._session else "",
        }

    def _opened(self) -> Session:
        if self._session is None:
            self._session = self._judge.model.open()
        return self._session


def _attempt(inputs: Mapping[str, Any], number: int) -> Named:
    made = plan.numbered(inputs, number)
    return Named(verdicts.PREFIX + digest(made), made)


def _verdict(case: _Case, replied: dict[str, Prediction], judge: Judge) -> Verdict:
    """What the judge said of a case in both orders, in terms of its texts rather than of their places."""
    allowed = [rubric.FIRST, rubric.SECOND, *([rubric.TIE] if judge.ties else [])]
    heard = [rubric.verdict(replied[id].calls[0].reply, allowed) for id in case.ids]
    forwards: dict[str | None, Said] = {rubric.FIRST: "one", rubric.SECOND: "two", rubric.TIE: "tie", None: None}
    backwards: dict[str | None, Said] = {rubric.FIRST: "two", rubric.SECOND: "one", rubric.TIE: "tie", None: None}
    return settled(case.example.id, case.kind, (forwards[heard[0]], backwards[heard[1]]))
