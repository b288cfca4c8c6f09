"""Stages that refer to each other: what a text stands for, and the faults that a spec's check tells."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from comparison import Comparison
from toys import Steps, log

from harness import data, plan, spec, stages
from harness.errors import SpecError
from harness.plugins import Makes, Refers, Trained, TrainJob, find
from harness.records import digest
from harness.stages import Source
from harness.store import Store


class Marks(Steps):
    """A stage that leaves a reward model."""

    makes: ClassVar[Makes] = "reward"


class Rewarded(Steps):
    reward: tuple[Annotated[str, Refers("reward")], ...] = ()
    teacher: Annotated[str, Refers("policy", models=True)] | None = None

    def fit(self, job: TrainJob, progress: Callable[[int, int, Mapping[str, float]], None]) -> Trained:
        log(f"references {json.dumps(job.references)}")
        return super().fit(job, progress)


SFT, MARKS = Steps(name="sft"), Marks(name="marks")


def test_a_stage_starts_from_the_last_policy_before_it() -> None:
    trains = {"a": (SFT, MARKS, Rewarded()), "b": (MARKS,)}
    assert stages.before(trains, "a", 2) == Source("stage", variant="a", number=0)
    assert stages.before(trains, "a", 0) is None
    assert stages.before(trains, "b", 1) is None


def test_a_name_is_a_stage_a_metric_a_folder_a_model_or_the_base(tmp_path: Path) -> None:
    trains = {"a": (SFT, MARKS, Rewarded()), "b.c": (Steps(name="sft"), Marks())}
    reward, policy, teacher = Refers("reward"), Refers("policy"), Refers("policy", models=True)

    def found(text: str, mark: Refers) -> Source:
        return stages.find(trains, "a", 2, text, mark)

    assert found("marks", reward) == Source("stage", variant="a", number=1)
    assert found("b.c.test_stages:Marks", reward) == Source("stage", variant="b.c", number=1)
    assert found("b.c.sft", policy) == Source("stage", variant="b.c", number=0)
    assert found("metric:exact_match", reward) == Source("metric", name="exact_match")
    assert found(str(tmp_path), reward) == Source("folder", name=str(tmp_path))
    assert found("owner/large", teacher) == Source("model", name="owner/large")
    assert found("base", policy) == Source("base")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mark", r"there is no stage 'mark' before this one\. Did you mean 'marks'\?.*metric:NAME"),
        ("sft", "'sft' makes a model that answers, and a reward model is asked for"),
    ],
)
def test_a_name_that_stands_for_nothing_fitting_is_refused(text: str, said: str) -> None:
    with pytest.raises(LookupError, match=said):
        stages.find({"a": (SFT, MARKS, Rewarded())}, "a", 2, text, Refers("reward"))


VARIANTS = """
[[variant]]
name = "plain"

[[variant]]
name  = "sft"
train = [{ kind = "toys:Steps", steps = 3 }]

[[variant]]
name  = "marked"
train = [{ kind = "test_stages:Marks", name = "marks", start = "sft.toys:Steps" }]

[[variant]]
name  = "rewarded"
train = [
  { kind = "toys:Steps", steps = 3, name = "first" },
  { kind = "test_stages:Rewarded", reward = ["marked.marks", "metric:exact_match"] },
]
"""


def test_what_another_variant_trained_is_planned_once_and_before_what_needs_it(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", VARIANTS)
    found = spec.load(comparison.spec)
    dataset = data.load(found.data)
    _, sft, marked, rewarded = plan.plan(found, dataset, Store(comparison.results, write=False))
    assert [role for role in rewarded.steps if "train" in role] == [
        "train.0",
        "train.sft.0",
        "train.marked.0",
        "train.1",
    ]
    assert rewarded.steps["train.sft.0"].name == rewarded.steps["train.0"].name == sft.steps["train.0"].name
    assert rewarded.steps["train.marked.0"].name == marked.steps["train.0"].name
    assert rewarded.weights == "train.1"
    assert marked.weights is None, "a reward model answers nothing"
    assert rewarded.stages["train.1"].incoming == "train.0"
    inputs = rewarded.steps["train.1"].inputs
    assert inputs["method"]["reward"][0] == marked.steps["train.0"].name
    assert inputs["method"]["reward"][1]["metric"]["kind"] == "exact_match"


def test_renaming_a_stage_changes_no_step(tmp_path: Path) -> None:
    def names(text: str) -> str:
        comparison = Comparison(tmp_path / digest(text, 6), text)
        found = spec.load(comparison.spec)
        runs = plan.plan(found, data.load(found.data), Store(comparison.results, write=False))
        return "\n".join(sorted(named.name for run in runs for named in run.steps.values()))

    assert names(VARIANTS) == names(VARIANTS.replace("marks", "judge").replace("first", "one"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("marked.marks", "marked.mark", "rewarded.train.1.reward: there is no stage 'marked.mark' before this one"),
        ("metric:exact_match", "metric:exact", r"there is no \[\[metric\]\] 'exact' that gives each answer a number"),
        ("marked.marks", "first", "'first' makes a model that answers, and a reward model is asked for"),
        ('start = "sft.toys:Steps"', 'start = "rewarded.test_stages:Rewarded"', "these stages wait for each other: "),
    ],
)
def test_a_spec_with_a_reference_that_leads_nowhere_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    comparison = Comparison(tmp_path / "one", VARIANTS.replace(old, new))
    with pytest.raises(SpecError, match=said):
        spec.load(comparison.spec)


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ('kind = "recall"\nk = 3\nlabel = "m"', "it needs the passages that were retrieved"),
        ('kind = "mcc"\nlabel = "m"', "it gives no number for a single answer"),
    ],
)
def test_a_metric_that_needs_more_than_an_answer_cannot_be_a_reward(tmp_path: Path, metric: str, said: str) -> None:
    text = f"[[metric]]\n{metric}\n" + VARIANTS.replace("metric:exact_match", "metric:m")
    comparison = Comparison(tmp_path / "one", text)
    with pytest.raises(SpecError, match=f"rewarded.train.1.reward: the metric 'm' cannot be a reward: {said}"):
        spec.load(comparison.spec)


JUDGE = """
[[metric]]
kind   = "llm_judge"
label  = "helpful"
judge  = { kind = "judges:Fair", lead = "So." }
rubric = "Is it right?"

[[metric]]
kind  = "perplexity"
label = "gold"
"""
MAKES = """{ kind = "make-preferences", name = "pairs", reward = "metric:helpful" }"""
LEARNS = """{ kind = "dpo", preferences = "pairs", adapter = "lora" }"""


def ranked(folder: Path, stages: str, judge: str = JUDGE) -> Comparison:
    return Comparison(
        folder, f'{judge}\n[[variant]]\nname = "plain"\n\n[[variant]]\nname = "ranked"\ntrain = [{stages}]\n'
    )


def test_a_judge_may_rank_answers_and_is_part_of_what_the_step_is(tmp_path: Path) -> None:
    def step(name: str, judge: str) -> plan.Named:
        comparison = ranked(tmp_path / name, f"{MAKES}, {LEARNS}", judge)
        found = spec.load(comparison.spec)
        runs = plan.plan(found, data.load(found.data), Store(comparison.results, write=False))
        return runs[-1].steps["train.0"]

    one = step("one", JUDGE)
    (told,) = one.inputs["method"]["reward"]
    assert told["metric"]["rubric"] == "Is it right?"
    assert told["metric"]["judge"]["lead"] == "So."
    assert told["judge"]["judge"] == "Fair"
    assert told["judge"]["weights"] == digest("So.")
    assert step("same", JUDGE).name == one.name
    assert step("rubric", JUDGE.replace("right", "kind")).name != one.name
    assert step("judge", JUDGE.replace("So.", "Well.")).name != one.name


@pytest.mark.parametrize("kind", ["ppo", "grpo", "rloo"])
def test_a_stage_that_learns_from_rewards_says_what_a_judge_can_do_instead(tmp_path: Path, kind: str) -> None:
    comparison = ranked(
        tmp_path / "one", f'{MAKES}, {{ kind = "{kind}", adapter = "lora", reward = "metric:helpful" }}'
    )
    with pytest.raises(SpecError) as refused:
        spec.load(comparison.spec)
    lines = comparison.spec.read_text(encoding="utf-8").splitlines()
    said = str(refused.value)
    assert f"fruit.toml:{next(n for n, line in enumerate(lines, start=1) if kind in line)} " in said
    assert "ranked.train.1.reward: the metric 'helpful' cannot be a reward: its model would be asked" in said
    assert '{ kind = "make-preferences", name = "pairs", reward = "metric:helpful" }' in said


def test_a_judge_is_offered_only_where_it_may_rank(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"'helpfull' that gives .* Did you mean 'helpful'\? Available: exact_match, helpful"
    ):
        spec.load(ranked(tmp_path / "one", MAKES.replace("helpful", "helpfull")).spec)
    rewards = '{ kind = "grpo", adapter = "lora", reward = "metric:helpfull" }'
    with pytest.raises(SpecError, match=r"'helpfull' that gives each answer a number\. Available: exact_match\."):
        spec.load(ranked(tmp_path / "two", rewards).spec)
    with pytest.raises(SpecError, match="'gold' cannot be a reward: it needs the likelihood"):
        spec.load(ranked(tmp_path / "three", MAKES.replace("helpful", "gold")).spec)
    stops = '{ kind = "sft", adapter = "lora", metric = "helpful" }'
    with pytest.raises(
        SpecError, match=r"'helpful' cannot say when to stop: its model would be asked about every answer$"
    ):
        spec.load(ranked(tmp_path / "four", stops).spec)


@pytest.mark.parametrize("absolute", [True, False])
def test_preferences_come_from_a_stage_and_never_from_a_folder(tmp_path: Path, absolute: bool) -> None:
    comparison = ranked(tmp_path / "one", f"{MAKES}, {LEARNS.replace('pairs', 'FOLDER')}")
    folder = comparison.folder / "left"
    folder.mkdir()
    comparison.edit("FOLDER", str(folder) if absolute else "left")
    said = (
        r"ranked\.train\.1\.preferences: there is no stage '.*left' before this one\. Name a stage `make-preferences`; "
    )
    with pytest.raises(
        SpecError, match=said + r"preferences in a file are `\[data\] preferences`\. Available: pairs\."
    ):
        spec.load(comparison.spec)


CHAIN = """
[[variant]]
name = "plain"

[[variant]]
name  = "one"
train = [{ kind = "sft", name = "first", adapter = "lora" }, { kind = "sft", name = "second" }]

[[variant]]
name  = "other"
train = [{ kind = "sft", start = "one.second", adapter = "lora" }]
"""
FIRST, SECOND, OTHER = '"first", adapter = "lora"', '"second" }', '"one.second", adapter = "lora"'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (OTHER, '"one.second", adapter = "prefix"', "prefix cannot be merged"),
        (FIRST, '"first", adapter = "bottleneck"', "starts from bottleneck, which cannot be merged"),
        (SECOND, '"second", adapter = { kind = "prompt", tokens = 8 } }', "prompt cannot be merged"),
        (OTHER, '"base", adapter = "prefix"', None),
        (FIRST, '"first", adapter = { kind = "lora", rank = 8 }', None),
        (OTHER, '"one.second"', None),
    ],
)
def test_what_cannot_be_merged_is_refused_where_an_adapter_follows_another(
    tmp_path: Path, old: str, new: str, said: str | None
) -> None:
    assert old in CHAIN
    comparison = Comparison(tmp_path / "one", CHAIN.replace(old, new))
    if said is None:
        spec.load(comparison.spec)
        return
    with pytest.raises(SpecError, match=rf"train\.\d\.adapter: .*{said}"):
        spec.load(comparison.spec)


def test_a_run_trains_what_it_refers_to_and_answers_with_its_own_policy(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", VARIANTS)
    done = comparison.run("--only", "rewarded")
    assert done.status == 0, done.err
    assert len(comparison.logged("train from")) == 3, "the shared start, the reward model and the stage itself"
    (said,) = comparison.logged("references")
    references = json.loads(said)
    marks = comparison.step("rewarded", "train.marked.0").path / "artifact"
    assert references["marked.marks"] == {"artifact": str(marks)}
    assert references["metric:exact_match"]["metric"]["kind"] == "exact_match"


@pytest.mark.parametrize("name", ["methods", "rlhf"])
def test_the_stages_of_a_committed_spec_reach_the_process_that_trains_them_unchanged(name: str) -> None:
    found = spec.load(Path(__file__).parent.parent / "specs" / f"{name}.toml")
    for variant in found.variants:
        for method in variant.train:
            written = json.loads(json.dumps(method.table()))
            assert find("methods", written.pop("kind")).model_validate(written) == method


def test_no_reward_model_is_made_of_layers_that_an_adapter_cannot_be_merged_into(tmp_path: Path) -> None:
    chain = CHAIN.replace(FIRST, '"first", adapter = "bottleneck"').replace(OTHER, '"one.second"')
    comparison = Comparison(tmp_path / "one", chain.replace('kind = "sft", name = "second"', 'kind = "reward"'))
    comparison.edit('start = "one.second"', 'start = "one.first"')
    with pytest.raises(SpecError, match=r"starts from bottleneck, which cannot be merged into the model's layers"):
        spec.load(comparison.spec)


def test_a_faulty_stage_is_told_once_and_not_again_where_it_is_named(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", CHAIN.replace(SECOND, '"second", epoch = 3 }'))
    with pytest.raises(SpecError) as caught:
        spec.load(comparison.spec)
    assert "epoch" in str(caught.value)
    assert "there is no stage" not in str(caught.value)


def test_the_name_of_a_stage_is_not_taken_for_a_folder_beside_the_spec(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", CHAIN)
    (comparison.folder / "base").mkdir()
    comparison.edit('start = "one.second", adapter', 'start = "base", adapter')
    found = spec.load(comparison.spec)
    (stage,) = next(variant for variant in found.variants if variant.name == "other").train
    assert stage.start == "base"
