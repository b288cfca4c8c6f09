"""Plans: which steps a comparison needs, and which of them a change makes anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from comparison import Comparison

from harness import data, plan, spec
from harness.plan import PlannedRun
from harness.store import Store

SHOTS = """
[[variant]]
name   = "shots"
prompt = { kind = "few-shot", shots = 2, embedder = { kind = "toys:Hashed" } }

[[variant]]
name   = "random-shots"
prompt = { kind = "few-shot", shots = 2, select = "random", embedder = { kind = "toys:Hashed" } }

[[variant]]
name   = "warm"
decode = { temperature = 0.5 }
"""


def steps(comparison: Comparison, *overrides: str) -> dict[str, str]:
    """The planned steps by "variant seed role"."""
    found = spec.load(comparison.spec, overrides)
    runs = plan.plan(found, data.load(found.data), Store(comparison.results, write=False))
    return {f"{run.variant.name} {run.seed} {role}": named.name for run in runs for role, named in run.steps.items()}


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    made = Comparison(tmp_path / "one")
    made.write(made.spec.read_text() + SHOTS)
    return made


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    assert before.keys() == after.keys()
    return {key for key in before if before[key] != after[key]}


def of(names: dict[str, str], *variants: str, roles: str = "index train predict score latency") -> set[str]:
    return {key for key in names if key.split()[0] in variants and key.split()[2].partition(".")[0] in roles.split()}


ALL = ("plain", "rag", "lora", "lora+rag", "raft", "shots", "random-shots", "warm")
READING = ("rag", "lora+rag", "raft")
ANSWERS = "predict score latency"


def test_variants_share_the_steps_that_are_the_same(comparison: Comparison) -> None:
    names = steps(comparison)
    assert names["lora 0 train.0"] == names["lora+rag 0 train.0"] != names["raft 0 train.0"]
    assert len({names[f"{variant} 0 index"] for variant in READING}) == 1
    assert len({names[f"{variant} 0 predict"] for variant in ALL}) == len(ALL)


def test_steps_come_in_the_order_in_which_they_are_done(comparison: Comparison) -> None:
    found = spec.load(comparison.spec)
    runs = plan.plan(found, data.load(found.data), Store(comparison.results, write=False))
    raft = next(run for run in runs if run.variant.name == "raft")
    assert list(raft.steps) == ["index", "train.0", "predict", "score.exact_match", "score.recall@1", "latency"]


def test_a_metric_of_passages_speaks_only_of_variants_that_retrieve(comparison: Comparison) -> None:
    assert "score.recall@1" not in {key.split()[2] for key in of(steps(comparison), "plain", "lora", "shots")}


def test_two_seeds_are_two_runs_of_which_only_what_is_random_differs(comparison: Comparison) -> None:
    names = steps(comparison, "seeds=[0, 1]")
    zero = {key: name for key, name in names.items() if key.split()[1] == "0"}
    one = {key.replace(" 1 ", " 0 "): name for key, name in names.items() if key.split()[1] == "1"}
    assert zero == steps(comparison)
    trained = of(zero, "lora", "lora+rag", "raft", roles=f"train {ANSWERS}")
    assert changed(zero, one) == trained | of(zero, "random-shots", "warm", roles=ANSWERS)


@pytest.mark.parametrize(
    ("override", "variants", "roles"),
    [
        ("variant.raft.train.0.steps=5", ("raft",), f"train {ANSWERS}"),
        ("variant.lora.train.0.steps=5", ("lora",), f"train {ANSWERS}"),
        ("variant.rag.retrieve.top_k=2", ("rag",), ANSWERS),
        ("variant.rag.retrieve.least=2", ("rag",), f"index {ANSWERS}"),
        ("variant.raft.retrieve.top_k=2", ("raft",), f"train {ANSWERS}"),
        ("variant.shots.prompt.shots=1", ("shots",), ANSWERS),
        ("variant.plain.decode.max_tokens=3", ("plain",), ANSWERS),
        ("variant.lora.decode.max_tokens=3", ("lora",), ANSWERS),
        ("variant.lora.prompt.system=Be brief.", ("lora",), f"train {ANSWERS}"),
        ("decode.max_tokens=3", ALL, ANSWERS),
        ("model.default=no", ALL, f"train {ANSWERS}"),
        ("metric.0.normalise=squad", ALL, ""),
        ("latency.examples=3", ALL, "latency"),
        ("data.heldout_limit=5", ALL, ANSWERS),
        ("model.delay_seconds=1", (), ""),
        ("model.max_batch=2", (), ""),
        ("metric.0.primary=true", (), ""),
        ("question=Or else?", (), ""),
        ("baseline=lora", (), ""),
        ("name=other", (), ""),
        ("variant.lora.train.0.name=first", (), ""),
    ],
)
def test_a_changed_setting_changes_the_steps_that_depend_on_it(
    comparison: Comparison, override: str, variants: tuple[str, ...], roles: str
) -> None:
    before = steps(comparison)
    wanted = of(before, *variants, roles=roles)
    if override.startswith("metric.0.normalise"):
        wanted = {key for key in before if key.endswith("score.exact_match")}
    assert changed(before, steps(comparison, override)) == wanted


def test_renaming_a_variant_changes_no_step(comparison: Comparison) -> None:
    before = steps(comparison)
    comparison.edit('name = "plain"', 'name = "bare"')
    comparison.edit('baseline = "plain"', 'baseline = "bare"')
    assert set(steps(comparison).values()) == set(before.values())


def test_a_new_metric_adds_steps_and_changes_none(comparison: Comparison) -> None:
    before = steps(comparison)
    comparison.edit('[[variant]]\nname = "plain"', '[[metric]]\nkind = "contains"\n\n[[variant]]\nname = "plain"')
    after = steps(comparison)
    assert {key.split()[2] for key in after.keys() - before.keys()} == {"score.contains"}
    assert all(after[key] == name for key, name in before.items())


def rewrite(comparison: Comparison, split: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    rows = [json.loads(line) for line in (comparison.folder / f"{split}.jsonl").read_text().splitlines()]
    rows[1] = change(rows[1])
    (comparison.folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_changed_training_row_changes_training_and_shots(comparison: Comparison) -> None:
    before = steps(comparison)
    rewrite(comparison, "train", lambda row: row | {"target": "another."})
    trained = of(before, "lora", "lora+rag", "raft", roles=f"train {ANSWERS}")
    assert changed(before, steps(comparison)) == trained | of(before, "shots", "random-shots", roles=ANSWERS)


def test_a_changed_question_is_answered_again_and_nothing_is_trained_again(comparison: Comparison) -> None:
    before = steps(comparison)
    rewrite(comparison, "heldout", lambda row: row | {"input": "And bananas?"})
    assert changed(before, steps(comparison)) == of(before, *ALL, roles=ANSWERS)


def test_a_corrected_target_is_scored_again_and_nothing_is_answered_again(comparison: Comparison) -> None:
    before = steps(comparison)
    rewrite(comparison, "heldout", lambda row: row | {"target": "golden."})
    assert changed(before, steps(comparison)) == of(before, *ALL, roles="score")


def test_a_changed_document_changes_the_index_and_what_reads_it(comparison: Comparison) -> None:
    before = steps(comparison)
    (comparison.folder / "pages" / "fig.md").write_text("Figs are purple.")
    wanted = of(before, "rag", "lora+rag", "raft", roles=f"index {ANSWERS}") | of(before, "raft", roles="train")
    assert changed(before, steps(comparison)) == wanted


def test_a_moved_comparison_needs_nothing_done_again(comparison: Comparison, tmp_path: Path) -> None:
    before = steps(comparison)
    moved = Comparison(tmp_path / "elsewhere")
    moved.write(comparison.spec.read_text())
    assert steps(moved) == before


def test_a_file_of_a_plug_in_counts_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    """An adapter from elsewhere too."""

    def made(name: str, weights: str) -> dict[str, str]:
        comparison = Comparison(tmp_path / name, '[[variant]]\nname = "plain"\nadapter = "elsewhere"\n')
        (comparison.folder / "elsewhere").mkdir()
        (comparison.folder / "elsewhere" / "adapter_model.safetensors").write_text(weights)
        return steps(comparison)

    assert made("one", "weights") == made("two", "weights")
    assert made("three", "weights") != made("four", "others")


def runs(comparison: Comparison, *retry: str) -> list[PlannedRun]:
    found = spec.load(comparison.spec)
    return plan.plan(found, data.load(found.data), Store(comparison.results), retry=retry)


def finish(comparison: Comparison, run: PlannedRun, failed: int) -> None:
    step = Store(comparison.results).step(run.steps["predict"].name)
    with step.lock():
        step.start(run.steps["predict"].inputs)
        step.complete({"failed": failed})


def test_the_newest_finished_attempt_stands_for_a_run(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", '[[variant]]\nname = "plain"\n')
    (first,) = runs(comparison)
    assert runs(comparison, "plain") == [first], "there is nothing to retry yet"
    finish(comparison, first, failed=2)
    assert runs(comparison) == runs(comparison, "another") == [first]
    (second,) = runs(comparison, "plain")
    assert second.steps["predict"] != first.steps["predict"]
    assert second.steps["score.exact_match"] != first.steps["score.exact_match"]
    assert second.steps["latency"] == first.steps["latency"]
    assert runs(comparison) == [first], "the second attempt is not finished"
    finish(comparison, second, failed=0)
    assert runs(comparison) == [second]
    assert runs(comparison, "plain") == [second], "no example failed"
