"""A results folder written through the Store, as a run leaves it: small, readable, with all that must be shown well.

Eight groups of three questions; variants of all four families; one with two seeds, one that failed, one example that
failed; text of a model that would do harm if it were taken for HTML, Markdown or terminal codes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import leaderboard
from harness.records import Call, Cost, Example, Family, Message, Passage, Prediction, Reply, Run, Score, digest
from harness.store import Snapshot, Store

HOSTILE = '<script>alert("x")</script> ![p](http://x.test/p.png) \x1b[31mred\x1b[0m | [bold]cell[/bold] \u202eevil'

QUESTIONS = {
    "KB-003": (
        ("How long is the Brio covered?", "24 months"),
        ("Does cover pass on when I sell my Brio?", "yes"),
        ("Until when must a fault be reported?", "within 14 days"),
    ),
    "KB-007": (
        ("What does it cost to send a Marlo in?", "EUR 14.50"),
        ("Where do repairs go?", "the Westerby workshop"),
        ("How long does a repair take, roughly?", "9 working days"),
    ),
    "KB-011": (
        ("What grind size suits the Larkin?", "setting 22"),
        ("How often do burrs need replacing?", "every 300 kg"),
        ("Which burrs fit a Fennick 40?", "40 mm steel"),
    ),
    "KB-018": (
        ("Can I pause Bean Club over the summer?", "up to 8 weeks"),
        ("On which days are beans roasted?", "Mondays and Thursdays"),
        ("Is there a student price for the club?", "no"),
    ),
    "KB-025": (
        ("How hard may my water be for the Pender?", "12 dH"),
        ("When does a Clearstone filter need changing?", "after 2 months"),
        ("Do I still have to descale with a filter?", "yes"),
    ),
    "KB-031": (
        ("How many Acorns for a bag of beans?", "15 Acorns"),
        ("When do Acorns run out?", "after 18 months"),
        ("Can I give my Acorns to a friend?", "no"),
    ),
    "KB-044": (
        ("Max people in a Taproom class?", "8"),
        ("i cant make it to my class tmrw, money back?", "EUR 20"),
        ("Do you teach latte art to beginners?", "yes"),
    ),
    "KB-052": (
        ("My kettle shows E3, what now?", "empty and cool it"),
        ("How loud is the Sorrel 1.2 when it boils?", "71 dB"),
        ("Does the Sorrel keep its temperature?", "for 30 minutes"),
    ),
}


def examples() -> list[Example]:
    return [
        Example(
            id=f"{group.lower()}-{number}",
            input=question,
            targets=(f"{answer} [{group}]",),
            group=group,
            tags=("plain",),
            sources=(group,),
        )
        for group, rows in QUESTIONS.items()
        for number, (question, answer) in enumerate(rows, 1)
    ]


@dataclass(frozen=True)
class Planned:
    """A variant to write: its share of right answers, and what else there is to show."""

    name: str
    family: Family
    skill: float
    retrieves: bool = False
    seeds: tuple[int, ...] = (0,)
    train_seconds: float = 0.0
    latency: float = 800.0
    failed: str | None = None


VARIANTS = (
    Planned("zero-shot", "prompting", 0.15, latency=610),
    Planned("few-shot", "prompting", 0.3, latency=905),
    Planned("rag", "RAG", 0.6, retrieves=True, latency=1240),
    Planned("lora", "fine-tuning", 0.4, train_seconds=250.3, seeds=(0, 1), latency=640),
    Planned("raft", "hybrid", 0.85, retrieves=True, train_seconds=431.8, latency=1310),
    Planned("lora-64", "fine-tuning", 0.0, failed="ModelError: out of memory while training: lower `batch`"),
)

METRICS = ("exact_match", "token_f1", "recall@3")


def write_step(
    store: Store, kind: str, inputs: Mapping[str, Any], outcome: Mapping[str, Any], write: Any = None
) -> str:
    name = f"{kind}-{digest(dict(inputs))}"
    step = store.step(name)
    with step.lock():
        if step.outcome is None:
            step.start(dict(inputs))
            if write:
                write(step)
            step.complete({"provenance": {"harness": "0.1.0", "versions": {"torch": "2.13.0"}}, **outcome})
    return name


def answers(variant: Planned, seed: int, rows: Sequence[Example]) -> list[Prediction]:
    rng = random.Random(f"{variant.name}{seed}")
    made = []
    for place, example in enumerate(rows):
        right = rng.random() < variant.skill
        text = example.targets[0] if right else rng.choice(["24 months", "no [none]", "I am sorry, please call us."])
        passages = ()
        if variant.retrieves:
            order = [example.group, *rng.sample(sorted(set(QUESTIONS) - {example.group}), 2)]
            order = order if right or place % 2 else order[1:]
            passages = tuple(
                Passage(
                    id=f"{doc}#0", document=doc, text=f"What we say about {doc}.\n\nAll of it.", score=0.9, rank=rank
                )
                for rank, doc in enumerate(order, 1)
            )
        if place == 4:
            text = HOSTILE
        failed = "the prompt has 9,000 tokens, the model takes 8,192" if variant.name == "rag" and place == 7 else None
        messages = (Message("system", "Answer in few words."), Message("user", example.input))
        reply = Reply(
            texts=() if failed else (text,),
            input_tokens=420 if passages else 48,
            output_tokens=9,
            seconds=0.4,
            error=failed,
        )
        made.append(
            Prediction(
                id=example.id,
                text=None if failed else text,
                calls=(Call(messages=messages, reply=reply),),
                passages=passages,
                error=failed,
            )
        )
    return made


def scored(metric: str, rows: Sequence[Example], predictions: Sequence[Prediction]) -> Score:
    values = []
    for example, prediction in zip(rows, predictions, strict=True):
        given, wanted = set((prediction.text or "").split()), set(example.targets[0].split())
        if metric == "recall@3":
            value = float(example.group in {passage.document for passage in prediction.passages})
        elif metric == "exact_match":
            value = float(prediction.text == example.targets[0])
        else:
            value = 2 * len(given & wanted) / (len(given) + len(wanted))
        values.append(0.0 if prediction.error else value)
    return Score(
        name=metric,
        signature=f"{metric}|version:1",
        direction="higher",
        unit="share",
        floor=0.0,
        ceiling=1.0,
        reducer="mean",
        ids=tuple(example.id for example in rows),
        statistics=tuple((value,) for value in values),
        errors=sum(prediction.error is not None for prediction in predictions),
    )


def write_run(store: Store, variant: Planned, seed: int, rows: Sequence[Example], experiment: str) -> Run:
    heldout = digest([example.id for example in rows], 64)
    run = Run(
        experiment=experiment,
        variant=variant.name,
        family=variant.family,
        seed=seed,
        status="failed" if variant.failed else "complete",
        error=variant.failed,
        provenance={"fingerprints": {"heldout": heldout}, "data_notes": []},
    )
    if variant.failed:
        return run
    about = {"variant": variant.name, "seed": seed, "heldout": heldout}
    steps = {}
    if variant.retrieves:
        steps["index"] = write_step(store, "index", {"heldout": heldout}, {"seconds": 12.0})
    if variant.train_seconds:
        steps["train.0"] = write_step(store, "train", about, {"seconds": variant.train_seconds})
    predictions = answers(variant, seed, rows)
    steps["predict"] = write_step(
        store, "predict", about, {"seconds": 30.0}, lambda step: step.write_predictions(predictions)
    )
    for metric in METRICS if variant.retrieves else METRICS[:2]:
        score = scored(metric, rows, predictions)
        inputs = {"metric": metric, "predict": steps["predict"]}
        steps[f"score.{metric}"] = write_step(
            store, "score", inputs, {"seconds": 0.5}, lambda step, score=score: step.write_score(score)
        )
    cost = Cost(
        train_seconds=variant.train_seconds,
        index_seconds=12.0 if variant.retrieves else 0.0,
        answer_seconds=30.0,
        latency_p50_ms=variant.latency,
        latency_p95_ms=1.7 * variant.latency,
        latency_n=8,
        input_tokens=sum(prediction.input_tokens for prediction in predictions),
        output_tokens=sum(prediction.output_tokens for prediction in predictions),
        trainable_parameters=4_884_480 if variant.train_seconds else 0,
        artifact_bytes=19_600_000 if variant.train_seconds else 0,
        peak_memory_bytes=2_100_000_000,
        device="a processor · cpu float32",
    )
    return replace(run, steps=steps, cost=cost)


def begin(
    store: Store, variants: Sequence[Planned] = VARIANTS, name: str = "support", rows: Sequence[Example] | None = None
) -> tuple[Snapshot, list[Run]]:
    """Write every step, plan the snapshot; nothing of its runs is saved yet."""
    rows = examples() if rows is None else rows
    runs = [write_run(store, variant, seed, rows, name) for variant in variants for seed in variant.seeds]
    planned = [replace(run, status="waiting", error=None, cost=Cost()) for run in runs]
    spec = {
        "question": "Prompt, retrieve or fine-tune for support answers?",
        "baseline": "zero-shot",
        "metrics": [{"name": metric, "primary": metric == "exact_match"} for metric in METRICS],
    }
    snapshot = store.begin(name, spec, "# the spec\n", planned)
    snapshot.write_examples(rows)
    return snapshot, runs


def write(
    root: Path, variants: Sequence[Planned] = VARIANTS, name: str = "support", rows: Sequence[Example] | None = None
) -> tuple[Store, Snapshot]:
    """Write a finished experiment."""
    store = Store(root)
    snapshot, runs = begin(store, variants, name, rows)
    for run in runs:
        snapshot.save_run(run)
    board = leaderboard.build(snapshot, store)
    snapshot.finish(board, leaderboard.markdown(board))
    return store, snapshot
