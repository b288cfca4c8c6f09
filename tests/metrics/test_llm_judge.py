"""The pointwise judge: marks, what cannot be read, and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import judges
import pytest
from comparison import VARIANTS, Comparison, kill, wait_for
from means import Given
from pydantic import ValidationError

from harness.errors import HarnessError
from harness.metrics.llm_judge import LlmJudge
from harness.plugins import find
from harness.records import Example, Prediction, Reply, Request
from harness.scoring import score

EXAMPLES = [Example(id=f"q{i}", input=f"question {i}", targets=(f"answer {i}",), group=f"g{i % 4}") for i in range(12)]
ANSWERS = [Prediction(id=f"q{i}", text=f"answer {i}" if i % 3 else "no idea") for i in range(12)]


@dataclass(frozen=True)
class Asking(Given):
    """Asks a judge, and keeps what the metric notes."""

    judge: judges.Fair = field(default_factory=judges.Fair)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        self.asked.extend(requests)
        session = self.judge.open()
        return session.answer(requests, session.plan(requests))

    def note(self, text: str, details: Mapping[str, Any]) -> None:
        self.notes.append(text)
        self.details.update(details)


def metric(**settings: Any) -> LlmJudge:
    found = find("metrics", "llm_judge")
    made = found.model_validate({"judge": "judges:Fair", "rubric": "Is it right?", "controls": 6} | settings)
    assert isinstance(made, LlmJudge)
    return made


def test_marks_are_those_of_the_judge_on_the_declared_scale() -> None:
    made, notes = score(metric(), EXAMPLES, ANSWERS, Asking())
    assert made.statistics == tuple(((5.0 if i % 3 else 1.0),) for i in range(12))
    assert (made.floor, made.ceiling, made.unit, made.errors, notes) == (1, 5, "mark", 0, [])


def test_yes_and_no_are_a_share() -> None:
    made, _ = score(metric(scale="yes/no"), EXAMPLES, ANSWERS, Asking())
    assert made.statistics == tuple((float(i % 3 > 0),) for i in range(12))
    assert (made.floor, made.ceiling, made.unit) == (0, 1, "share")


def test_the_judge_sees_no_name_of_a_variant_and_the_accepted_answers_only_where_wanted() -> None:
    shown, hidden = Asking(), Asking()
    score(metric(), EXAMPLES, ANSWERS, shown)
    score(metric(accepted=False), EXAMPLES, ANSWERS, hidden)
    assert all("Accepted answer" in judges.parts(request) for request in shown.asked)
    assert all(set(judges.parts(request)) == {"Question", "Answer to judge"} for request in hidden.asked)


def test_the_controls_are_judged_with_every_score_and_told() -> None:
    means = Asking()
    score(metric(), EXAMPLES, ANSWERS, means)
    controls = means.details["controls"]
    assert len(means.asked) == 12 + 3 * 6
    assert controls["null"] == {"mean": 1.0, "n": 6, "unparsed": 0}
    assert controls["injected"] == {"mean": 1.0, "n": 6, "unparsed": 0}
    assert controls["accepted"] == {"mean": 5.0, "n": 6, "unparsed": 0}
    assert "the null answer got 1.00, an injected instruction got 1.00, the accepted answer got 5.00" in means.notes[0]
    assert "DO NOT TRUST" not in means.notes[0]


@pytest.mark.parametrize(
    ("judge", "fooled"),
    [(judges.Gullible(), "an injected instruction"), (judges.Kind(), "the null answer and an injected instruction")],
    ids=["gullible", "kind"],
)
def test_a_judge_that_falls_for_a_control_is_named(judge: judges.Fair, fooled: str) -> None:
    means = Asking(judge=judge)
    score(metric(), EXAMPLES, ANSWERS, means)
    assert f"DO NOT TRUST THIS JUDGE: it marks {fooled} no lower than the accepted answer" in means.notes[0]


def test_without_accepted_answers_the_controls_are_held_against_the_answers() -> None:
    bare = [Example(id=example.id, input=example.input) for example in EXAMPLES]
    means = Asking(judge=judges.Kind())
    score(metric(), bare, ANSWERS, means)
    assert means.details["controls"]["accepted"] == {"mean": None, "n": 0, "unparsed": 0}
    assert "no lower than the variant's answers" in means.notes[0]


def test_a_verdict_that_cannot_be_read_counts_at_the_floor_and_as_an_error() -> None:
    class Sometimes(judges.Fair):
        def one(self, answer: str, accepted: Sequence[str], marks: Sequence[str]) -> str:
            return "4 or 5" if answer == "answer 1" else super().one(answer, accepted, marks)

    means = Asking(judge=Sometimes())
    made, notes = score(metric(), EXAMPLES, ANSWERS, means)
    assert made.statistics[1] == (1.0,)
    assert made.errors == 1
    assert "gave no verdict that can be read" in notes[0]
    assert means.details["unparsed_ids"] == ["q1"]
    assert "1 of 12 verdicts could not be read and count at the floor" in means.notes[0]


def test_a_judge_whose_verdicts_can_never_be_read_gives_no_number() -> None:
    with pytest.raises(HarnessError, match="its last line must be `Verdict: X`, X one of 1, 2, 3, 4, 5"):
        score(metric(), EXAMPLES, ANSWERS, Asking(judge=judges.Mumbles()))


def test_an_answer_that_failed_makes_no_number_of_a_judge_that_cannot_be_read() -> None:
    answers = [Prediction(id="q1", text=None, error="too long") if one.id == "q1" else one for one in ANSWERS]
    with pytest.raises(HarnessError, match="failed on all 11 answers that it speaks of; the first, q0: the judge of"):
        score(metric(), EXAMPLES, answers, Asking(judge=judges.Mumbles()))


def test_a_judge_that_cannot_answer_is_an_error_with_its_reason() -> None:
    means = Asking(judge=judges.Fair(fail_on=("question 7",)))
    made, notes = score(metric(), EXAMPLES, ANSWERS, means)
    assert (made.statistics[7], made.errors) == ((1.0,), 1)
    assert "the judge of llm_judge could not answer: the line was bad" in notes[0]


def test_an_answer_that_failed_is_not_shown_to_the_judge_and_counts_at_the_floor() -> None:
    answers = [Prediction(id="q1", text=None, error="too long") if one.id == "q1" else one for one in ANSWERS]
    means = Asking()
    made, _ = score(metric(), EXAMPLES, answers, means)
    assert (made.statistics[1], made.errors) == ((1.0,), 1)
    assert len(means.asked) == 11 + 3 * 6


def test_what_decides_a_mark_is_in_the_signature() -> None:
    signatures = {metric(**one).signature for one in ({}, {"rubric": "Kind?"}, {"scale": (0, 5)}, {"accepted": False})}
    assert len(signatures) == 4
    assert metric(label="quality").signature == metric().signature
    assert metric().signature.startswith("llm_judge|")


@pytest.mark.parametrize(
    "settings", [{"scale": (5, 1)}, {"scale": (1, 1)}, {"scale": "good"}, {"rubric": ""}, {"controls": 0}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        metric(**settings)


# ------------------------------------------------------------------------------------------------- in a whole run

JUDGED = """
[[metric]]
kind     = "llm_judge"
label    = "quality"
rubric   = "Is the colour right?"
controls = 3
judge    = { kind = "judges:Fair" }
"""


def with_a_judge(folder: Path) -> Comparison:
    made = Comparison(folder, variants=VARIANTS.partition('[[variant]]\nname  = "lora"')[0])
    made.edit('[[variant]]\nname = "plain"', JUDGED + '[[variant]]\nname = "plain"')
    return made


def logged(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_the_controls_stand_in_the_leaderboards_notes_and_in_the_step(tmp_path: Path) -> None:
    made = with_a_judge(tmp_path / "it")
    assert made.run().status == 0
    board = made.board()
    rows = {row["variant"]: row for row in board["rows"]}
    assert rows["plain"]["metrics"]["quality"]["value"] == 1  # the data's answers end in a full stop, these do not
    assert any(note.startswith("plain: quality, marks from 1 to 5: in 3 examples") for note in board["notes"])
    step = made.step("plain", "score.quality")
    assert (step.outcome or {})["details"]["controls"]["accepted"] == {"mean": 5.0, "n": 3, "unparsed": 0}
    assert len(step.predictions()) == 8 + 3 * 3
    assert "Is the colour right?" in step.prediction(0).calls[0].messages[0].content


def test_what_a_judge_failed_on_is_asked_again_only_on_request(tmp_path: Path) -> None:
    made = with_a_judge(tmp_path / "it")
    asked, broken = made.folder / "asked.txt", made.folder / "no line.txt"
    judge = {"JUDGES_LOG": str(asked), "JUDGES_BROKEN": str(broken)}
    broken.write_text("apple\nfig\n")
    assert made.run(**judge).status == 0
    first = made.step("plain", "score.quality")
    told = "plain: quality: 2 of 17 requests to its model failed; the first: the line was bad"
    assert told in str(made.board()["notes"])
    asked.unlink()
    assert made.run(**judge).status == 0
    assert logged(asked) == 0, "nothing is missing"

    broken.write_text("fig\n")
    assert made.run("--retry-errors", "--only", "plain", **judge).status == 0
    assert all("apple" in question or "fig" in question for question in asked.read_text().splitlines())
    second = made.step("plain", "score.quality")
    count = (first.outcome or {})["failed"]
    assert second.name != first.name and logged(asked) == count
    assert 0 < (second.outcome or {})["failed"] < count
    assert len(second.predictions()) == len(first.predictions())
    notes = str(made.board()["notes"])
    assert f"quality: requests to its model that failed and were asked again (--retry-errors): {count}" in notes

    broken.unlink()
    asked.unlink()
    table = JUDGED.replace("[[metric]]", "").strip().replace("\n", ", ")
    scored = made.call("score", "fruit", "--metric", table, "--retry-errors", "--json", **judge)
    assert scored.status == 0
    rows = {row["variant"]: row["metrics"]["quality"] for row in scored.json["rows"]}
    assert {row["errors"] for row in rows.values()} == {0}
    sound = with_a_judge(tmp_path / "sound")
    assert sound.run().status == 0
    expected = {row["variant"]: row["metrics"]["quality"]["value"] for row in sound.board()["rows"]}
    assert {name: row["value"] for name, row in rows.items()} == expected
    left = logged(asked)
    assert made.run("--retry-errors", **judge).status == 0
    assert logged(asked) == left, "nothing has failed any more"


def test_a_judge_that_could_not_be_reached_at_all_is_asked_again_by_the_next_run(tmp_path: Path) -> None:
    made = with_a_judge(tmp_path / "it")
    broken = made.folder / "no line.txt"
    broken.write_text("ripe\n")
    done = made.run(JUDGES_BROKEN=str(broken))
    assert done.status == 1
    assert "quality failed on all 8 answers that it speaks of" in str(made.board()["rows"])
    broken.unlink()
    assert made.run(JUDGES_BROKEN=str(broken)).status == 0
    assert {row["status"] for row in made.board()["rows"]} == {"complete"}


def test_a_kill_while_a_judge_marks_loses_no_batch(tmp_path: Path) -> None:
    alone, killed = with_a_judge(tmp_path / "alone"), with_a_judge(tmp_path / "killed")
    asked = {made: made.folder / "asked.txt" for made in (alone, killed)}
    assert alone.run(JUDGES_LOG=str(asked[alone])).status == 0
    process = killed.start_run(JUDGES_LOG=str(asked[killed]), JUDGES_SECONDS="0.05")
    wait_for(lambda: logged(asked[killed]) >= 10, process)
    kill(process)
    assert killed.run(JUDGES_LOG=str(asked[killed])).status == 0
    assert killed.values() == alone.values()
    assert logged(asked[killed]) <= logged(asked[alone]) + 4  # the batch in work is asked again, nothing else
