"""What `harness show` tells of a run: in short, with some answers, or one example with all that was asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness import figures, training_notes
from harness.errors import StoreError, did_you_mean
from harness.records import Example, Run, dump, trainings
from harness.store import Snapshot, Store


def runs(snapshot: Snapshot, variant: str | None, seed: int | None) -> list[Run]:
    """Return the runs asked for. Raises StoreError, with what there is, where there is none."""
    every = snapshot.runs()
    names = list(dict.fromkeys(run.variant for run in every))
    if variant is not None and variant not in names:
        raise StoreError(f"no variant {variant!r} in {snapshot.ref}.{did_you_mean(variant, names)}")
    found = [run for run in every if variant in (None, run.variant) and seed in (None, run.seed)]
    if not found:
        seeds = ", ".join(str(number) for number in dict.fromkeys(run.seed for run in every))
        raise StoreError(f"no run with seed {seed} in {snapshot.ref}. Available: {seeds}.")
    return found


def run(run: Run, store: Store, examples: int, snapshot: Snapshot) -> dict[str, Any]:
    """One run as JSON-able values, with its first `examples` answers."""
    shown = [example for example, _ in zip(snapshot.examples(), range(examples), strict=False)]
    outcomes = {role: store.step(name).outcome for role, name in trainings(run.steps).items()}
    trained = {role: dict(training_notes.facts(outcome)) for role, outcome in outcomes.items() if outcome}
    answers = [_answer(run, store, example) for example in shown if _answered(run, store)]
    return {**dump(run), "training": trained, "examples": answers}


def example(run: Run, snapshot: Snapshot, store: Store, id: str) -> dict[str, Any]:
    """One example of a run with every call, passage and score. Raises StoreError for an unknown id."""
    found = snapshot.examples().find(id)
    if not _answered(run, store):
        raise StoreError(
            f"{run.variant} (seed {run.seed}) has no answers: it is {run.status}. {run.error or ''}".strip()
        )
    return {**_answer(run, store, found), "prediction": dump(store.step(run.steps["predict"]).prediction(id))}


def _answered(run: Run, store: Store) -> bool:
    """Whether the answers are there: also of a run that failed later, at a metric."""
    return "predict" in run.steps and store.step(run.steps["predict"]).outcome is not None


def _answer(run: Run, store: Store, example: Example) -> dict[str, Any]:
    prediction = store.step(run.steps["predict"]).prediction(example.id)
    return {
        "variant": run.variant,
        "seed": run.seed,
        "example": dump(example),
        "answer": prediction.text,
        "error": prediction.error,
        "scores": _scores(run, store, example.id),
    }


def _scores(run: Run, store: Store, id: str) -> dict[str, Sequence[float] | None]:
    steps = (store.step(name) for role, name in run.steps.items() if role.startswith("score."))
    scores = (step.score() for step in steps if step.outcome is not None)
    return {score.name: score.statistics[score.ids.index(id)] for score in scores}


# ------------------------------------------------------------------------------------------------------------ text


def run_text(shown: dict[str, Any]) -> str:
    lines = [f"{shown['variant']}  ({shown['family']}, seed {shown['seed']}): {shown['status']}"]
    lines += [f"  {shown['error']}"] if shown["error"] else []
    lines += [f"  note: {note}" for note in shown["notes"]]
    lines += [f"  cost: {_pairs(shown['cost'])}"] if shown["status"] == "complete" else []
    lines += [f"  {role}: {_pairs(trained)}" for role, trained in shown["training"].items()]
    lines += [f"  made with: {_pairs(shown['provenance'])}", "  steps:"]
    lines += [f"    {role}: {name}" for role, name in shown["steps"].items()]
    for entry in shown["examples"]:
        lines += ["", *(f"  {line}" for line in _answer_lines(entry))]
    return figures.plain("\n".join(lines))


def example_text(shown: dict[str, Any]) -> str:
    prediction = shown["prediction"]
    lines = [f"{shown['variant']} (seed {shown['seed']})", *_answer_lines(shown)]
    if prediction["choices"]:
        lines += ["", "choices, the likeliest first:", *map(_choice_line, _by_score(prediction["choices"]))]
    for passage in prediction["passages"]:
        score = "" if passage["score"] is None else f", {passage['score']:.3f}"
        lines += ["", f"passage {passage['rank']}, {passage['id']}{score}:", passage["text"]]
    for number, call in enumerate(prediction["calls"], start=1):
        reply = call["reply"]
        lines += ["", f"call {number}: {reply['input_tokens']} tokens in, {reply['output_tokens']} out"]
        lines += [f"[{message['role']}] {message['content']}" for message in call["messages"]]
        lines += [f"[answer] {text}" for text in reply["texts"]]
    return figures.plain("\n".join(lines))


def _answer_lines(entry: dict[str, Any]) -> list[str]:
    asked = entry["example"]
    return [
        f"{asked['id']}: {asked['input']}",
        f"  gold:   {' | '.join(asked['targets'])}",
        f"  answer: {entry['answer'] if entry['error'] is None else 'FAILED: ' + entry['error']}",
        f"  scores: {_pairs({k: v[0] if v and len(v) == 1 else v for k, v in entry['scores'].items()})}",
    ]


def _by_score(choices: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choices as they were ranked; of equal ones the first of the set won."""
    return sorted(
        choices, key=lambda choice: choice["logprob"] if choice["score"] is None else choice["score"], reverse=True
    )


def _choice_line(choice: dict[str, Any]) -> str:
    size = f"{choice['tokens']} tokens, {choice['bytes']} bytes"
    ranked = f"; ranked by {choice['score']:.4f}" if choice["score"] not in (None, choice["logprob"]) else ""
    return f"  log-probability {choice['logprob']:.4f} ({size}{ranked}): {choice['text']}"


def _pairs(values: dict[str, Any]) -> str:
    shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in values.items()}
    return ", ".join(f"{key} {_pairs_or(value)}" for key, value in shown.items() if value not in (None, "", {}, []))


def _pairs_or(value: Any) -> str:
    return f"({_pairs(value)})" if isinstance(value, dict) else str(value)
