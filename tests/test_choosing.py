"""Answers chosen by likelihood, and the likelihood of accepted answers, through a whole comparison."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from comparison import FRUIT, Comparison, finish, kill, wait_for

from harness import data, plan, spec
from harness.errors import DataError, Fault, SpecError
from harness.store import Store

COLOURS = {"lemon": "red", "mango": "yellow", "nectarine": "blue", "olive": "black"}
"""What the train split knows: four of the eight colours that held-out asks for."""

VARIANTS = """
[[metric]]
kind = "macro_f1"

[[variant]]
name = "plain"

[[variant]]
name   = "choose"
decode = { kind = "choices" }

[[variant]]
name   = "listed"
decode = { kind = "choices", choices = ["red", "yellow", "crimson", "blue"], normalise = "tokens" }
""".replace('"macro_f1"', '"label_f1"')

CALIBRATION = '\n[[metric]]\nkind = "ece"\n\n[[metric]]\nkind = "brier"\n'
GOLD = '\n[[metric]]\nkind = "perplexity"\n\n[[metric]]\nkind = "bits_per_byte"\n'


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    made = Comparison(tmp_path / "one", VARIANTS)
    made.write_rows("train", COLOURS, "")
    made.write_rows("heldout", FRUIT, "")
    return made


def predictions(comparison: Comparison, variant: str, role: str = "predict") -> dict[str, Any]:
    return {one.id: one for one in comparison.step(variant, role).predictions()}


def names(comparison: Comparison, *overrides: str) -> dict[str, str]:
    found = spec.load(comparison.spec, overrides)
    runs = plan.plan(found, data.load(found.data), Store(comparison.results, write=False))
    return {f"{run.variant.name} {role}": named.name for run in runs for role, named in run.steps.items()}


def faults(comparison: Comparison, *overrides: str) -> list[Fault]:
    with pytest.raises(SpecError) as caught:
        spec.load(comparison.spec, overrides)
    return list(caught.value.faults)


# ------------------------------------------------------------------------------------------------------------- choosing


def test_an_answer_is_the_likeliest_target_of_the_train_split_or_of_the_listed_texts(comparison: Comparison) -> None:
    assert comparison.run().status == 0
    chosen, listed = predictions(comparison, "choose"), predictions(comparison, "listed")
    assert {choice.text for choice in chosen["apple"].choices} == set(COLOURS.values())
    assert [choice.text for choice in chosen["apple"].choices] == sorted(COLOURS.values())
    assert [choice.text for choice in listed["apple"].choices] == ["red", "yellow", "crimson", "blue"]
    assert (chosen["apple"].text, chosen["banana"].text, listed["banana"].text) == ("red", "yellow", "yellow")
    assert chosen["apple"].calls[0].reply.choices == (), "they are kept once"
    assert predictions(comparison, "plain")["apple"].choices == ()
    rows = {row["variant"]: row for row in comparison.board()["rows"]}
    assert rows["choose"]["metrics"]["exact_match"]["value"] == pytest.approx(3 / 8), "black is guessed"


def test_choosing_costs_what_is_read_and_nothing_that_is_written(comparison: Comparison) -> None:
    comparison.run()
    costs = {row["variant"]: row["cost"] for row in comparison.board()["rows"]}
    assert costs["choose"]["output_tokens"] == 0 < costs["plain"]["output_tokens"]
    assert costs["choose"]["input_tokens"] == costs["plain"]["input_tokens"] + 8 * 4
    assert costs["choose"]["latency_p50_ms"] > 0


def test_a_run_that_is_killed_goes_on_with_the_next_batch(comparison: Comparison, tmp_path: Path) -> None:
    whole = Comparison(tmp_path / "whole", VARIANTS)
    whole.write_rows("train", COLOURS, "")
    whole.write_rows("heldout", FRUIT, "")
    whole.run("--only", "choose")
    process = comparison.start_run("--only", "choose", TOYS_ANSWER="0.3")
    wait_for(lambda: len(comparison.logged("answer")) > 4, process)
    kill(process)
    comparison.forget()
    assert finish(comparison.start_run("--only", "choose")).status == 0
    assert 0 < len(comparison.logged("answer")) < 8 + 3
    one, other = predictions(comparison, "choose"), predictions(whole, "choose")
    assert {id: (p.text, p.choices) for id, p in one.items()} == {id: (p.text, p.choices) for id, p in other.items()}


def test_only_what_can_change_the_answer_names_the_step(comparison: Comparison) -> None:
    before = names(comparison)
    settings = 'variant.choose.decode={kind="choices", choices=["black", "blue", "red", "yellow"]}'
    assert names(comparison, settings) == before, "the train split's targets, listed"
    changed = names(comparison, 'variant.choose.decode.normalise="bytes"')
    assert {key for key in before if before[key] != changed[key]} == {key for key in before if key.startswith("choose")}
    longer = names(comparison, "decode.max_tokens=3")
    assert {key for key in before if before[key] != longer[key]} == {key for key in before if key.startswith("plain")}


def test_steps_that_write_answers_are_named_as_before_there_were_choices(comparison: Comparison) -> None:
    found = spec.load(comparison.spec)
    runs = plan.plan(found, data.load(found.data), Store(comparison.results, write=False))
    (inputs,) = (run.steps["predict"].inputs for run in runs if run.variant.name == "plain")
    assert inputs["decode"] == {"max_tokens": 64, "temperature": 0.0, "top_p": 1.0, "stop": []}


def test_without_targets_in_train_there_is_nothing_to_choose_from(comparison: Comparison) -> None:
    found = spec.load(comparison.spec)
    dataset = data.load(found.data)
    chosen = next(variant for variant in found.variants if variant.name == "choose")
    bare = type(dataset)((), dataset.dev, dataset.heldout, dataset.documents, dataset.fingerprints)
    with pytest.raises(DataError, match="'choose' chooses among the targets of the train split, and there are none"):
        plan.decoding(chosen, bare)
    alone = type(dataset)(dataset.train[:1], dataset.dev, dataset.heldout, dataset.documents, dataset.fingerprints)
    with pytest.raises(DataError, match="of the train split, which holds 'red' alone: name them"):
        plan.decoding(chosen, alone)


# --------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("override", "path", "words"),
    [
        ('variant.choose.decode={kind="choices", max_tokens=3}', "variant.choose.decode", "`max_tokens` is"),
        ('variant.plain.decode={normalise="bytes"}', "variant.plain.decode", "`normalise` is about another"),
        ('variant.plain.decode={choices=["a","b"]}', "variant.plain.decode", 'it needs kind = "choices"'),
        ('variant.listed.decode.choices=["a"]', "variant.listed.decode.choices", "at least two texts"),
        ('variant.listed.decode.choices=["a", "a"]', "variant.listed.decode.choices", "each named once"),
        ('variant.listed.decode.kind="likely"', "variant.listed.decode.kind", "unknown value 'likely'"),
        ('variant.listed.decode.normalise="chars"', "variant.listed.decode.normalise", "unknown value 'chars'"),
    ],
)
def test_settings_that_do_not_belong_together_are_faults(
    override: str, path: str, words: str, comparison: Comparison
) -> None:
    (found,) = faults(comparison, override)
    assert (found.path, words in found.message) == (path, True), found


def test_a_fault_written_in_the_file_is_told_where_it_stands(comparison: Comparison) -> None:
    comparison.edit('decode = { kind = "choices" }', 'decode = { kind = "choices", stop = ["x"] }')
    (found,) = faults(comparison)
    assert found.path == "variant.choose.decode.stop" and "`stop` is about another way to answer" in found.message
    assert found.line is not None


def test_settings_of_the_other_kind_that_are_inherited_do_not_count(comparison: Comparison) -> None:
    comparison.edit("[latency]", '[decode]\nmax_tokens = 5\nstop = ["x"]\n\n[latency]')
    found = spec.load(comparison.spec)
    made = {variant.name: variant.decode.decoding for variant in found.variants}
    assert (made["plain"].max_tokens, made["choose"].max_tokens, made["choose"].stop) == (5, 64, ())
    resolved = {variant["name"]: variant["decode"] for variant in found.resolved()["variants"]}
    assert set(resolved["choose"]) == {"kind", "choices", "normalise"}
    assert set(resolved["plain"]) == {"kind", "max_tokens", "temperature", "top_p", "stop"}
    comparison.edit("[decode]\nmax_tokens", '[decode]\nkind = "choices"\nmax_tokens')
    assert {found.path for found in faults(comparison)} == {"decode.max_tokens", "decode.stop"}


def test_choices_and_gold_need_a_model_with_likelihoods(comparison: Comparison) -> None:
    comparison.edit('kind      = "toys:Counted"', 'kind      = "test_spec:Open"')
    text = comparison.spec.read_text()
    start, end = text.index("max_batch"), text.index("[data]")
    comparison.write(text[:start] + text[end:] + GOLD)
    found = {fault.path: fault.message for fault in faults(comparison)}
    assert set(found) == {"variant.choose.decode.kind", "variant.listed.decode.kind", "metric.3", "metric.4"}
    assert all("[model] kind = \"transformers\"; not 'test_spec:Open'" in message for message in found.values())


def test_without_train_the_choices_must_be_listed(comparison: Comparison) -> None:
    comparison.edit('train     = "train.jsonl"\n', "")
    (found,) = faults(comparison)
    assert (found.path, "there is nothing to choose from" in found.message) == ("variant.choose.decode.kind", True)


def test_calibration_speaks_only_of_variants_that_choose(comparison: Comparison) -> None:
    comparison.write(comparison.spec.read_text() + CALIBRATION)
    assert comparison.run().status == 0
    rows = {row["variant"]: row["metrics"] for row in comparison.board()["rows"]}
    assert rows["plain"]["ece"] is None and rows["plain"]["brier"] is None
    assert 0 <= rows["choose"]["ece"]["value"] <= 1
    assert 0 <= rows["choose"]["brier"]["value"] <= 2
    (found,) = faults(comparison, "metric.ece.primary=true")
    assert "cannot rank variants that write their answers (plain)" in found.message


def test_calibration_without_any_choices_is_a_fault(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", CALIBRATION + '[[variant]]\nname = "plain"\n')
    assert [fault.path for fault in faults(comparison)] == ["metric.2", "metric.3"]
    assert all("no variant has them" in fault.message for fault in faults(comparison))


# ----------------------------------------------------------------------------------------------------------------- gold


def test_accepted_answers_are_weighed_once_for_all_metrics_that_ask(comparison: Comparison) -> None:
    comparison.write(comparison.spec.read_text() + GOLD)
    done = comparison.run()
    assert done.status == 0, done.err
    gold = predictions(comparison, "plain", "gold")
    assert list(gold) == list(FRUIT)
    assert [choice.text for choice in gold["fig"].choices] == ["purple"]
    # "no idea" is what the model answers of a fig: both words must go and one must come.
    assert gold["fig"].choices[0].logprob == pytest.approx(-math.log(2) - 3 * math.log(1024))
    rows = {row["variant"]: row["metrics"] for row in comparison.board()["rows"]}
    rights, wrongs = 2, 6
    expected = (rights * math.log(2) + wrongs * (math.log(2) + 3 * math.log(1024))) / 8
    assert rows["plain"]["perplexity"]["value"] == pytest.approx(math.exp(expected), rel=1e-4)
    assert "weigh accepted answers" in done.err


def test_a_metric_of_gold_changes_no_other_step_and_follows_the_accepted_answers(comparison: Comparison) -> None:
    before = names(comparison)
    comparison.write(comparison.spec.read_text() + GOLD)
    after = names(comparison)
    assert {key: after[key] for key in before} == before
    assert set(after) - set(before) >= {"plain gold", "plain score.perplexity", "choose gold"}
    comparison.write_rows("heldout", FRUIT | {"apple": "pink"}, "")
    again = names(comparison)
    assert again["plain predict"] == after["plain predict"]
    assert again["plain gold"] != after["plain gold"]


def test_the_dry_run_counts_what_is_weighed(comparison: Comparison) -> None:
    comparison.write(comparison.spec.read_text() + GOLD)
    steps = comparison.run("--dry-run", "--json").json["steps"]
    found = {(step["role"], variant): step for step in steps for variant in step["variants"]}
    assert found["gold", "plain"]["output_tokens"] == found["predict", "choose"]["output_tokens"] == 0
    assert found["gold", "plain"]["input_tokens"] > 8 * 5
    assert found["predict", "choose"]["input_tokens"] > found["predict", "plain"]["input_tokens"]
    assert found["gold", "plain"]["seconds"] > 0
