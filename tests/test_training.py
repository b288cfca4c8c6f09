"""What a training step hands its method: rows of the kind that it reads, and nothing of the held-out split."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import pytest
from comparison import SPEC, Comparison
from toys import Steps, log

from harness.plugins import Makes, Reads, Refers, Trained, TrainJob


class Reader(Steps):
    """Tells which rows it was handed."""

    steps: int = 1
    what: Reads = "examples"

    @property
    def reads(self) -> Reads:
        return self.what

    def fit(self, job: TrainJob, progress: Callable[[int, int, Mapping[str, float]], None]) -> Trained:
        for name, file in (("train", job.train), ("dev", job.dev)):
            for line in file.read_text(encoding="utf-8").splitlines() if file else ():
                log(f"{name} row {line}")
        (job.out / "artifact.json").write_text(json.dumps({"ending": "."}))
        return Trained(trainable_parameters=0, steps=1, tokens=1)


class Maker(Reader):
    """Leaves a pair for each training row."""

    makes: ClassVar[Makes] = "preferences"

    def fit(self, job: TrainJob, progress: Callable[[int, int, Mapping[str, float]], None]) -> Trained:
        rows = [json.loads(line) for line in job.train.read_text(encoding="utf-8").splitlines()]
        pairs = [
            {"id": r["id"], "messages": r["messages"], "chosen": "a", "rejected": "b", "group": r["id"]} for r in rows
        ]
        (job.out / "preferences.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        return Trained(trainable_parameters=0, steps=1, tokens=1)


class Prefers(Reader):
    what: Reads = "preferences"
    preferences: Annotated[str, Refers("preferences")] | None = None


def told(comparison: Comparison, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in comparison.logged(f"{split} row")]


def variant(train: str) -> str:
    return f'[[variant]]\nname = "plain"\n\n[[variant]]\nname = "taught"\ntrain = [{train}]\n'


def test_conversations_are_handed_over_whole(tmp_path: Any) -> None:
    spec = SPEC.replace('id        = "id"', 'conversations = "talks.jsonl"\nid        = "id"')
    comparison = Comparison(
        tmp_path / "one", variant('{ kind = "test_training:Reader", what = "conversations" }'), spec
    )
    talks = [[{"role": "user", "content": f"of {n}"}, {"role": "assistant", "content": "so"}] for n in range(10)]
    (comparison.folder / "talks.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    done = comparison.run()
    assert done.status == 0, done.err
    rows = told(comparison, "train")
    assert len(rows) == 9
    assert len(told(comparison, "dev")) == 1
    assert all(row["messages"] in talks and row["tools"] == [] for row in rows)


def test_a_stage_that_reads_nothing_is_handed_nothing_and_needs_no_data(tmp_path: Any) -> None:
    spec = SPEC.replace('train     = "train.jsonl"\n', "")
    comparison = Comparison(tmp_path / "one", variant('{ kind = "test_training:Reader", what = "nothing" }'), spec)
    done = comparison.run()
    assert done.status == 0, done.err
    assert told(comparison, "train") == []


def test_made_preferences_stand_in_for_those_of_the_data(tmp_path: Any) -> None:
    train = '{ kind = "test_training:Maker", name = "made" }, { kind = "test_training:Prefers", preferences = "made" }'
    comparison = Comparison(tmp_path / "one", variant(train))
    done = comparison.run()
    assert done.status == 0, done.err
    train, dev = told(comparison, "train"), told(comparison, "dev")
    assert len(train) > len(dev) > 0, "some of the prompts are kept to measure by"
    assert {row["chosen"] for row in train + dev} == {"a"}
    assert not {row["group"] for row in train} & {row["group"] for row in dev}
    inputs = comparison.step("taught", "train.1").inputs
    assert inputs["method"]["preferences"] == [comparison.step("taught", "train.0").name]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("preferences", "names no `preferences`"),
        ("conversations", "names no `conversations`"),
    ],
)
def test_a_stage_without_what_it_reads_is_refused(tmp_path: Any, what: str, said: str) -> None:
    comparison = Comparison(tmp_path / "one", variant(f'{{ kind = "test_training:Reader", what = "{what}" }}'))
    done = comparison.run()
    assert done.status != 0
    assert said in done.err
