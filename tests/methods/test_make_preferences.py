from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import judges
import pytest
from pydantic import ValidationError
from rewarding import REWARD, asked, rewarded_job
from training import silent, stop_after

from harness import artifacts, models
from harness.errors import DataError, ModelError
from harness.methods._sampling import Prompt
from harness.methods.make_preferences import MakePreferences, Ranked
from harness.methods.sft import Sft
from harness.plugins import find
from harness.records import Example, Reply, Request

# A random model hardly ever ends an answer.
QUICK: dict[str, Any] = {"reward": REWARD, "answers": 3, "max_tokens": 6, "must_end": False}


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


# ------------------------------------------------------------------------------------------------------------- judges

JUDGE = "metric:marks"
JUDGED: dict[str, Any] = QUICK | {"reward": JUDGE}


def judged_job(folder: Path, model: Path, judge: Any = "judges:Lettered", **settings: Any) -> Any:
    """A job of prompts whose answers are marked by a judge, from 0 to 10."""
    table = {"kind": "llm_judge", "label": "marks", "judge": judge, "rubric": "Is it right?", "scale": [0, 10]}
    references = {JUDGE: {"metric": table | settings.pop("metric", {})}}
    return rewarded_job(folder, model, references=references, **{"train": asked(20)} | settings)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What judges are asked from now on, a request the texts by their titles."""
    found: list[dict[str, str]] = []
    judged = judges.JudgeSession._judged

    def listen(self: judges.JudgeSession, request: Request) -> Reply:
        found.append(judges.parts(request))
        return judged(self, request)

    monkeypatch.setattr(judges.JudgeSession, "_judged", listen)
    return found


def test_a_judge_ranks_the_answers_and_sees_the_question_and_what_is_accepted(
    made: Any, heard: list[dict[str, str]], tmp_path: Path, tiny_model: Path
) -> None:
    job = judged_job(tmp_path / "job", tiny_model, dev=asked(24)[20:])
    outcome = MakePreferences(**JUDGED).fit(job, silent)
    by_marks = read(job.out / "preferences.jsonl")
    assert len(by_marks) > 5
    assert {pair["chosen_reward"] for pair in by_marks} <= set(map(float, range(11)))
    by_letters = {pair["group"]: pair for pair in read(made[0].out / "preferences.jsonl")}
    for pair in by_marks:
        exact = by_letters[pair["group"]]
        assert pair["chosen_reward"] == round(10 * exact["chosen_reward"])
        assert pair["rejected_reward"] == round(10 * exact["rejected_reward"])
    questions = {row["example"]["input"]: row["completion"] for row in asked(24)}
    assert {said["Question"] for said in heard} == set(questions)
    assert all(said["Accepted answer"] == questions[said["Question"]] for said in heard)
    assert len({(said["Question"], said["Answer to judge"]) for said in heard}) == len(heard), "none is asked twice"
    judged = outcome.details["train_answers_judged"] + outcome.details["dev_answers_judged"]
    assert judged == len(heard) == len(read(job.out / "verdicts.jsonl"))
    assert outcome.details["train_verdicts_unread"] == outcome.details["dev_verdicts_unread"] == 0


def test_the_judge_sees_no_accepted_answer_where_its_metric_says_so(
    heard: list[dict[str, str]], tmp_path: Path, tiny_model: Path
) -> None:
    MakePreferences(**JUDGED).fit(judged_job(tmp_path / "job", tiny_model, metric={"accepted": False}), silent)
    assert {title for said in heard for title in said} == {"Question", "Answer to judge"}


def test_an_answer_without_a_verdict_is_left_out_and_counted(tmp_path: Path, tiny_model: Path) -> None:
    judge = {"kind": "judges:Lettered", "unread": "e", "fail_on": ["how long 3?"]}
    job = judged_job(tmp_path / "job", tiny_model, judge)
    outcome = MakePreferences(**JUDGED | {"pairs": "all"}).fit(job, silent)
    pairs, verdicts = read(job.out / "preferences.jsonl"), read(job.out / "verdicts.jsonl")
    unread = [verdict for verdict in verdicts if verdict["mark"] is None]
    failed = [verdict for verdict in unread if verdict["error"] == "the line was bad"]
    assert {verdict["id"] for verdict in failed} == {"q3"}
    assert all("e" in verdict["answer"] and verdict["said"] for verdict in unread if verdict not in failed)
    assert 0 < len(failed) < len(unread) < len(verdicts)
    assert outcome.details["train_answers_judged"] == len(verdicts)
    assert outcome.details["train_verdicts_unread"] == len(unread)
    assert "q3" not in {pair["group"] for pair in pairs}
    ranked = {(pair["group"], pair[name]) for pair in pairs for name in ("chosen", "rejected")}
    assert ranked
    assert not ranked & {(verdict["id"], verdict["answer"]) for verdict in unread}


def test_a_verdict_that_cannot_be_read_is_not_made_up_by_another_reward(tmp_path: Path, tiny_model: Path) -> None:
    job = judged_job(tmp_path / "job", tiny_model, {"kind": "judges:Lettered", "unread": "e"})
    job.references[REWARD] = {"metric": {"kind": "rewarding:Letters"}}
    both = JUDGED | {"reward": (JUDGE, REWARD), "reward_weights": (1.0, 100.0), "pairs": "all"}
    MakePreferences(**both).fit(job, silent)
    assert not any("e" in pair["chosen"] + pair["rejected"] for pair in read(job.out / "preferences.jsonl"))


def test_a_judge_of_whom_nothing_can_be_read_ends_the_stage(tmp_path: Path, tiny_model: Path) -> None:
    said = r"metric:marks: none of the \d+ answers was given a verdict .* the first, to 'q0': .*max_tokens"
    with pytest.raises(ModelError, match=said):
        MakePreferences(**JUDGED).fit(judged_job(tmp_path / "job", tiny_model, "judges:Mumbles"), silent)


def test_a_judge_that_could_not_be_reached_is_asked_again(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.txt"
    broken.write_text("how long\n")
    monkeypatch.setenv("JUDGES_BROKEN", str(broken))
    job = judged_job(tmp_path / "job", tiny_model)
    with pytest.raises(ModelError, match="the judge of marks could not answer: the line was bad"):
        MakePreferences(**JUDGED).fit(job, silent)
    broken.unlink()
    assert MakePreferences(**JUDGED).fit(job, silent).details["train_verdicts_unread"] == 0


@pytest.mark.parametrize("batches", [2, 7, 13])
def test_what_a_judge_has_said_before_a_kill_is_not_asked_again(
    batches: int, heard: list[dict[str, str]], tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = judged_job(tmp_path / "whole", tiny_model)
    outcome = MakePreferences(**JUDGED).fit(whole, silent)
    wanted = list(heard)
    heard.clear()
    job, answer = judged_job(tmp_path / "job", tiny_model), judges.JudgeSession.answer

    def killed(self: judges.JudgeSession, requests: Any, plan: Any, *, seed: int = 0) -> Any:
        if len(heard) >= batches * 4:
            raise KeyboardInterrupt
        return answer(self, requests, plan, seed=seed)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(judges.JudgeSession, "answer", killed)
        MakePreferences(**JUDGED).fit(job, silent)
    assert 0 < len(heard) < len(wanted)
    assert MakePreferences(**JUDGED).fit(job, silent) == outcome
    assert heard == wanted
    assert (job.out / "preferences.jsonl").read_bytes() == (whole.out / "preferences.jsonl").read_bytes()
    assert (job.out / "verdicts.jsonl").read_bytes() == (whole.out / "verdicts.jsonl").read_bytes()


def test_the_policys_own_base_model_may_be_the_judge(tmp_path: Path, tiny_model: Path) -> None:
    judge = {"kind": "transformers", "id": str(tiny_model), "dtype": "float32", "device": "cpu"}
    job = judged_job(tmp_path / "job", tiny_model)
    job.references[JUDGE] = {"metric": {"kind": "judges:Wordy", "label": "marks", "judge": judge}}
    MakePreferences(**JUDGED).fit(job, silent)
    pairs, verdicts = read(job.out / "preferences.jsonl"), read(job.out / "verdicts.jsonl")
    assert len(pairs) > 5
    assert all(verdict["mark"] == len(verdict["said"]) for verdict in verdicts)
    # It answers as the bare model does in a process of its own, and ranking changes no answer.
    session = find("backends", "transformers").model_validate({k: v for k, v in judge.items() if k != "kind"}).open()  # type: ignore[attr-defined]
    metric = find("metrics", "judges:Wordy").model_validate({"judge": judge})
    questions = {row["id"]: row["example"]["input"] for row in asked(20)}
    requests = [
        metric.request(Example(id="x", input=questions[each["id"]]), each["answer"])  # type: ignore[attr-defined]
        for each in verdicts[:8]
    ]
    alone = session.answer(requests, session.plan(requests))
    assert [reply.texts[0] for reply in alone] == [each["said"] for each in verdicts[:8]]
    plain = rewarded_job(tmp_path / "plain", tiny_model, train=asked(20))
    MakePreferences(**QUICK).fit(plain, silent)
    known = {(each["id"], each["answer"]) for each in verdicts}
    assert {(pair["group"], pair["chosen"]) for pair in read(plain.out / "preferences.jsonl")} <= known


def test_a_stage_that_learns_from_rewards_refuses_a_judge(tmp_path: Path, tiny_model: Path) -> None:
    from harness.methods.grpo import Grpo

    job = judged_job(tmp_path / "job", tiny_model)
    with pytest.raises(ModelError, match="the metric 'marks' cannot be a reward: its model would be asked about every"):
        Grpo(reward=JUDGE, max_tokens=6).fit(job, silent)


def test_rewards_and_weights_come_in_pairs() -> None:
    with pytest.raises(ValidationError, match="2 rewards and 1 reward_weights"):
        MakePreferences(reward=("metric:a", "metric:b"), reward_weights=(1.0,))


def test_an_answer_that_was_cut_is_not_the_better_one() -> None:
    cut, whole, worse = ("never ending", 0.9, False), ("It ends.", 0.6, True), ("So it", 0.1, False)
    prompt = Prompt("q", (), "", (), Example(id="q", input="?"))
    ranked = Ranked(prompt, (cut, whole, worse), unread=0, tokens=9, ended=1)

    def pairs(**settings: Any) -> list[tuple[str, str]]:
        return [(row["chosen"], row["rejected"]) for row in MakePreferences(reward=REWARD, **settings)._rows(ranked)]

    assert pairs() == [("It ends.", "So it")]
    assert pairs(pairs="all") == [("It ends.", "So it")]
    assert pairs(must_end=False) == [("never ending", "So it")]
    assert not MakePreferences(reward=REWARD)._rows(Ranked(prompt, (cut, worse), unread=0, tokens=9, ended=0))
