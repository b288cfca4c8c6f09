from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rewarding import REWARD, asked, rewarded_job
from training import silent, stop_after

from harness import artifacts, models
from harness.errors import DataError, ModelError
from harness.methods.make_preferences import MakePreferences
from harness.methods.sft import Sft

QUICK: dict[str, Any] = {"reward": REWARD, "answers": 3, "max_tokens": 6}


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    job = rewarded_job(tmp_path_factory.mktemp("made") / "job", tiny_model, train=asked(20), dev=asked(24)[20:])
    return job, MakePreferences(**QUICK).fit(job, silent)


def test_the_better_rewarded_answer_is_preferred(made: Any) -> None:
    job, outcome = made
    pairs = read(job.out / "preferences.jsonl")
    assert len(pairs) == outcome.details["train_pairs"] > 10
    letters = "abcdefghijklmnopqrstuvwxyz"
    for pair in pairs:
        better, worse = (
            sum(one in letters for one in pair[name]) / max(1, len(pair[name])) for name in ("chosen", "rejected")
        )
        assert better == pytest.approx(pair["chosen_reward"])
        assert worse == pytest.approx(pair["rejected_reward"])
        assert better > worse
    prompts = {row["id"]: row["messages"] for row in asked(20)}
    assert all(pair["messages"] == prompts[pair["group"]] for pair in pairs)
    assert {pair["group"] for pair in read(job.out / "preferences_dev.jsonl")} <= {row["id"] for row in asked(24)[20:]}
    assert outcome.details["train_prompts"] == 20
    assert outcome.details["train_prompts_without_pair"] == 20 - len(pairs)
    assert 0 < outcome.tokens <= 24 * 3 * 6


def test_the_best_of_the_answers_stands_against_the_worst_or_each_against_each(
    made: Any, tmp_path: Path, tiny_model: Path
) -> None:
    job, _ = made
    every = rewarded_job(tmp_path / "all", tiny_model, train=asked(20), dev=asked(24)[20:])
    MakePreferences(**QUICK | {"pairs": "all"}).fit(every, silent)
    one, all_of_them = read(job.out / "preferences.jsonl"), read(every.out / "preferences.jsonl")
    assert len(one) < len(all_of_them)
    for pair in one:
        same = [other for other in all_of_them if other["group"] == pair["group"]]
        assert pair["chosen_reward"] == max(other["chosen_reward"] for other in same)
        assert pair["rejected_reward"] == min(other["rejected_reward"] for other in same)


def test_a_margin_leaves_close_pairs_out(made: Any, tmp_path: Path, tiny_model: Path) -> None:
    job, _ = made
    apart = [pair["chosen_reward"] - pair["rejected_reward"] for pair in read(job.out / "preferences.jsonl")]
    margin = sorted(apart)[len(apart) // 2]
    wide = rewarded_job(tmp_path / "wide", tiny_model, train=asked(20), dev=asked(24)[20:])
    MakePreferences(**QUICK | {"margin": margin}).fit(wide, silent)
    assert len(read(wide.out / "preferences.jsonl")) == sum(each >= margin for each in apart)
    never = rewarded_job(tmp_path / "never", tiny_model, train=asked(16))
    with pytest.raises(DataError, match=r"none of the 16 prompts differ in reward by 5 or more.*raise temperature"):
        MakePreferences(**QUICK | {"margin": 5}).fit(never, silent)


def test_a_seed_and_an_interruption_lead_to_the_same_pairs(made: Any, tmp_path: Path, tiny_model: Path) -> None:
    job, outcome = made
    again = rewarded_job(tmp_path / "job", tiny_model, train=asked(20), dev=asked(24)[20:])
    with pytest.raises(KeyboardInterrupt):
        MakePreferences(**QUICK).fit(again, stop_after(1))
    kept = again.work / "answers-train.jsonl"
    assert len(kept.read_text().splitlines()) == 1
    with kept.open("a") as file:
        file.write('[{"text": "half a li')  # as a killed process leaves it
    assert MakePreferences(**QUICK).fit(again, silent) == outcome
    assert (again.out / "preferences.jsonl").read_bytes() == (job.out / "preferences.jsonl").read_bytes()
    other = rewarded_job(tmp_path / "other", tiny_model, train=asked(20), seed=1)
    MakePreferences(**QUICK).fit(other, silent)
    assert (other.out / "preferences.jsonl").read_bytes() != (job.out / "preferences.jsonl").read_bytes()


def test_answers_are_those_of_the_stage_before(tmp_path: Path, tiny_model: Path) -> None:
    from harness.adapters.full import Full

    before = rewarded_job(tmp_path / "sft", tiny_model, train=[row | {"completion": "aaa 7"} for row in asked(16)])
    Sft(adapter=Full(), learning_rate=1e-2, epochs=8, batch_size=8, schedule="constant").fit(before, silent)
    job = rewarded_job(tmp_path / "job", tiny_model, train=asked(16), incoming=before.out)
    outcome = MakePreferences(**QUICK | {"pairs": "all"}).fit(job, silent)
    said = [text for pair in read(job.out / "preferences.jsonl") for text in (pair["chosen"], pair["rejected"])]
    assert sum("aaa" in text for text in said) > len(said) / 3
    assert outcome.details["train_answers_ended"] > 0.3


def test_what_it_leaves_is_no_model(made: Any, tiny_model: Path) -> None:
    job, _ = made
    with pytest.raises(ModelError, match="holds preferences, and no model"):
        artifacts.kind(job.out, models.fingerprint(tiny_model), "tiny")


def test_a_judge_cannot_rank_them(tmp_path: Path, tiny_model: Path) -> None:
    judge = {"kind": "llm_judge", "judge": {"kind": "canned"}, "rubric": "Is it right?"}
    job = rewarded_job(tmp_path / "job", tiny_model, references={"metric:llm_judge": {"metric": judge}})
    with pytest.raises(ModelError, match="the metric 'llm_judge' cannot be a reward: it asks a model of its own"):
        MakePreferences(**QUICK | {"reward": "metric:llm_judge"}).fit(job, silent)


def test_rewards_and_weights_come_in_pairs() -> None:
    with pytest.raises(ValidationError, match="2 rewards and 1 reward_weights"):
        MakePreferences(reward=("metric:a", "metric:b"), reward_weights=(1.0,))
