"""Estimates: each missing step once, with tokens near what a run then measures and rates from what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comparison import FRUIT, Comparison

from harness import data, estimate, plan, spec
from harness.estimate import Estimate
from harness.store import Store

SHOTS = '\n[[variant]]\nname = "shots"\nprompt = { kind = "few-shot", shots = 2, embedder = "toys:Hashed" }\n'


def missing(comparison: Comparison, *overrides: str) -> tuple[list[Estimate], dict[str, Any]]:
    found = spec.load(comparison.spec, overrides)
    dataset = data.load(found.data)
    store = Store(comparison.results, write=False)
    return estimate.missing(plan.plan(found, dataset, store), dataset, store)


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    made = Comparison(tmp_path / "one")
    made.write(made.spec.read_text() + SHOTS)
    return made


def by_role(comparison: Comparison, *overrides: str) -> dict[tuple[str, tuple[str, ...]], Estimate]:
    return {(step.role, step.variants): step for step in missing(comparison, *overrides)[0]}


def test_each_missing_step_is_told_once_with_the_variants_that_use_it(comparison: Comparison) -> None:
    steps = by_role(comparison)
    assert ("index", ("rag", "lora+rag", "raft")) in steps
    assert ("train.0", ("lora", "lora+rag")) in steps
    assert ("train.0", ("raft",)) in steps
    assert len(missing(comparison)[0]) == len({step.name for step in steps.values()})


def test_two_seeds_double_what_is_random_alone(comparison: Comparison) -> None:
    roles = [step.role for step in missing(comparison, "seeds=[0, 1]")[0]]
    assert roles.count("index") == 1
    assert roles.count("train.0") == 4


def test_tokens_follow_the_prompts_that_are_rendered(comparison: Comparison) -> None:
    steps = by_role(comparison)
    plain, rag, shots = (steps[("predict", (name,))] for name in ("plain", "rag", "shots"))
    question = len("What colour is a ripe apple?") / estimate.CHARACTERS_PER_TOKEN + 5
    assert plain.input_tokens == pytest.approx(len(FRUIT) * question, rel=0.15)
    assert rag.input_tokens > plain.input_tokens + len(FRUIT) * 5
    assert shots.input_tokens > 3 * plain.input_tokens
    latency = steps[("latency", ("plain",))]
    assert latency.input_tokens == pytest.approx(plain.input_tokens / 4, rel=0.05), "two of eight examples"
    assert by_role(comparison, "decode.max_tokens=1")[("predict", ("plain",))].output_tokens == len(FRUIT)


def test_training_on_passages_reads_more_tokens(comparison: Comparison) -> None:
    steps = by_role(comparison)
    assert steps[("train.0", ("raft",))].input_tokens > 1.5 * steps[("train.0", ("lora", "lora+rag"))].input_tokens


def test_seconds_stand_on_assumed_rates_until_some_are_measured(comparison: Comparison) -> None:
    steps, rates = missing(comparison)
    assert rates == {"tokens_per_second": estimate.ASSUMED, "measured": False}
    plain = next(step for step in steps if step.role == "predict" and step.variants == ("plain",))
    assert plain.seconds == pytest.approx(plain.input_tokens / 1000 + plain.output_tokens / 150)
    assert all(step.seconds is None for step in steps if step.role.startswith("score"))

    comparison.run("--only", "plain", TOYS_ANSWER="0.01")
    _, rates = missing(comparison)
    assert rates["measured"]
    outcome = comparison.step("plain", "predict").outcome or {}
    work = outcome["input_tokens"] + 7 * outcome["output_tokens"]
    assert rates["tokens_per_second"]["input"] == pytest.approx(work / outcome["seconds"])
    assert rates["tokens_per_second"]["output"] == pytest.approx(work / outcome["seconds"] / 7)
    assert rates["tokens_per_second"]["train"] == estimate.ASSUMED["train"]
    assert not missing(comparison, "model.default=another model")[1]["measured"], "another model is as quick as it is"


def test_nothing_is_missing_after_a_run(comparison: Comparison) -> None:
    comparison.run("--only", "plain", "--only", "lora")
    left = {name for step in missing(comparison)[0] for name in step.variants}
    assert left == {"rag", "lora+rag", "raft", "shots"}
    assert not [step for step in missing(comparison)[0] if step.variants == ("lora", "lora+rag")]
