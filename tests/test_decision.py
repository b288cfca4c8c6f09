"""The decision and its sentences, on results whose every number is chosen."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import written_store
from decided import Given, write

from harness import advice, decision
from harness.errors import HarnessError, UsageError
from harness.terms import of as terms_of

GOOD, FAIR, POOR = [1] * 45 + [0] * 5, [1] * 30 + [0] * 20, [0] * 48 + [1] * 2
MANY = [1] * 450 + [0] * 50
NEAR = [1] * 449 + [0] * 51
"""As good as MANY, and shown to be: one example of 500 differs."""
PRICED = {"cost": {"machine_hour": 3.6, "currency": "EUR"}}


def decide(tmp_path: Path, variants: Mapping[str, Given], *settings: str, **more: Any) -> tuple[dict[str, Any], str]:
    """The decision, and all that is said of it in one text."""
    store, snapshot = write(tmp_path, variants, **more)
    made = decision.build(snapshot, store, terms_of(snapshot.spec, settings))
    json.dumps(made, allow_nan=False)
    return made, "\n".join(f"{heading}\n" + "\n".join(lines) for heading, lines in advice.sections(made))


def row(made: dict[str, Any], name: str) -> dict[str, Any]:
    return next(found for found in made["variants"] if found["variant"] == name)


# ------------------------------------------------------------------------------------------------- what is shipped


def test_the_best_is_shipped_where_the_evidence_tells_it_from_all_others(tmp_path: Path) -> None:
    made, said = decide(tmp_path, {"a": Given(POOR), "b": Given(GOOD), "c": Given(POOR)})
    assert (made["recommended"], made["reason"], made["tied"]) == ("b", "the best", [])
    assert said.startswith("\nShip b.")
    assert "b scores 90.0 % (95 % interval 78.6 to 95.7) on exact_match, the best, over 50 held-out examples." in said
    assert "a: worse than b by 86.0 points" in said
    assert (
        "exact McNemar; p is adjusted by Holm over the 2 pairs that differ at all" in said
    )  # a and c are equal on every example


def test_of_those_that_are_shown_to_be_as_good_the_cheapest_is_shipped(tmp_path: Path) -> None:
    variants = {"a": Given(POOR * 10, answer=10), "b": Given(MANY, answer=200), "c": Given(NEAR, answer=100)}
    made, said = decide(tmp_path, variants, spec=PRICED)
    assert (made["recommended"], made["reason"], made["best"], made["tied"]) == ("c", "the cheapest", "b", ["c"])
    assert (made["as_good"], made["margin"]) == (["c"], 0.02)
    assert "Ship c: c is shown to be no worse than b by more than 2.0 points, and of the two c costs the least" in said
    assert "Not enough evidence" not in said
    assert "b did better by 0.2 points" in said and "shipping c gives up" in said
    assert "1,000 answers cost 0.40 EUR, not 0.20 EUR" in said
    near = row(made, "c")["non_inferior_to_best"]
    assert near["holds"] and near["p"] < near["p_adjusted"] < 0.05, "adjusted over a and c"
    how = f"shown (non-inferiority: score test of paired shares, p = {near['p_adjusted']:.2g} by Holm over those"
    assert f"That c is no worse than b by more than 2.0 points is {how} that meet the constraints)." in said
    assert "the cheapest per answer" in said


def test_cost_never_outweighs_a_difference_that_was_shown_but_a_small_one_is_told(tmp_path: Path) -> None:
    """Eight of 2,000 are told apart, and shown to be fewer than 2 of 100."""
    best, little = [1] * 1800 + [0] * 200, [1] * 1792 + [0] * 208
    variants = {"a": Given(best, "hybrid", answer=200), "b": Given(little, answer=50)}
    made, said = decide(tmp_path, variants, spec=PRICED)
    assert (made["recommended"], made["reason"], made["tied"], made["as_good"]) == ("a", "the best", [], [])
    assert "b: worse than a by 0.4 points" in said
    assert "b is worse than a, but by no more than 2.0 points: shown (non-inferiority: score test" in said
    assert "If that is near enough, 1,000 answers cost 0.025 EUR, not 0.10 EUR." in said
    _, said = decide(tmp_path / "2", variants)
    assert "If that is near enough, it has 0 moving parts, not 2." in said
    _, said = decide(tmp_path / "3", {"a": variants["b"], "b": variants["a"]}, "constraints.min_quality=0.899")
    assert "near enough" not in said, "it does not meet the constraint"


def test_showing_one_to_be_as_good_may_take_fewer_examples_than_telling_them_apart(tmp_path: Path) -> None:
    one = [1] * 30 + [0] * 20 + [1, 0] * 75
    other = [1] * 20 + [0] * 10 + [1] * 9 + [0] * 11 + [1, 0] * 75
    made, said = decide(tmp_path, {"a": Given(one), "b": Given(other)})
    apart, alike = made["examples_to_settle"]["b"], made["examples_to_accept"]["b"]
    assert made["reason"] == "the best so far" and 200 < alike < apart
    assert (
        f"about {apart - 200:,} more examples needed to tell a from b, or {alike - 200:,} to show that b is as" in said
    )


def test_costs_that_are_not_known_for_all_rank_none(tmp_path: Path) -> None:
    """The cheapest of those with a price is not the cheapest."""
    variants = {"b": Given(MANY, "RAG", answer=50), "c": Given(NEAR, answer=None)}
    made, said = decide(tmp_path, variants, spec=PRICED)
    assert (made["recommended"], made["reason"], made["ranked_by"]) == ("c", "the simplest", "parts")
    assert "the one with the fewest moving parts." in said and "cheapest per answer" not in said


def test_several_seeds_count_as_a_source_of_variation(tmp_path: Path) -> None:
    seeds = [[1] * (450 + shift) + [0] * (50 - shift) for shift in (0, 8, -8)]
    made, said = decide(tmp_path, {"a": Given(seeds), "b": Given([1] * 451 + [0] * 49)})
    assert made["best"] == "b" and made["tied"] == ["a"]
    assert "paired t over seeds and examples" in said
    single, _ = decide(tmp_path / "2", {"a": Given([1] * 450 + [0] * 50), "b": Given([1] * 451 + [0] * 49)})
    alike, alone = (row(one, "a")["non_inferior_to_best"]["p"] for one in (made, single))
    assert alike > alone, "other seeds may give another answer"


def test_what_was_allowed_of_the_data_stands_with_the_decision(tmp_path: Path) -> None:
    made, said = decide(tmp_path, {"a": Given(GOOD), "b": Given(POOR)}, notes=["3 leaks were allowed"])
    assert made["notes"] == ["3 leaks were allowed"] and "\nNotes\n3 leaks were allowed" in said


def test_what_was_not_told_apart_is_not_taken_for_equal(tmp_path: Path) -> None:
    """Four of six against none is a lot, and yet no proof; the cheap one has not been shown to do."""
    variants = {"a": Given([0] * 6, answer=1), "b": Given([1] * 4 + [0] * 2, "RAG", answer=20)}
    made, said = decide(tmp_path, variants, spec=PRICED)
    assert (made["recommended"], made["reason"], made["tied"]) == ("b", "the best so far", ["a"])
    assert made["as_good"] == []
    assert "Not enough evidence to say which of b and a has the best exact_match: about" in said
    assert "Until then b is the best guess: it is ahead of a by 66.7 points" in said
    assert "nor is it shown to be as good" in said


def test_how_many_more_examples_it_takes_is_said_and_agrees_with_the_power_of_the_test(tmp_path: Path) -> None:
    made, said = decide(tmp_path, {"a": Given([1, 0, 1, 1, 0, 1, 1, 0] * 4), "b": Given([1, 0, 0, 1, 0, 1, 1, 0] * 4)})
    needed = made["examples_to_settle"]["b"]
    # d = 1/8, its standard error sqrt(p(1-p)/(n-1)); (1.96 + 0.84)^2 = 7.85
    assert needed == pytest.approx(7.849 * (1 / 8) * (7 / 8) / (1 / 8) ** 2 * 32 / 31, abs=2)
    assert f"about {needed - 32:,} more examples needed to tell a from b" in said


def test_costs_within_a_tenth_count_as_equal_and_the_simpler_one_is_shipped(tmp_path: Path) -> None:
    variants = {"rag": Given(MANY, "RAG", answer=10.0), "plain": Given(NEAR, answer=10.9)}
    made, said = decide(tmp_path, variants, spec=PRICED)
    assert (made["recommended"], made["reason"]) == ("plain", "the simplest of the cheapest")
    assert "rag: best by the measured exact_match" in said and "1 moving part, not 0" in said


def test_without_prices_the_simplest_of_the_tied_is_shipped(tmp_path: Path) -> None:
    variants = {"tuned": Given(MANY, "fine-tuning", train=60), "plain": Given(NEAR, answer=99)}
    made, said = decide(tmp_path, variants)
    assert (made["recommended"], made["reason"]) == ("plain", "the simplest")
    assert "There is no money without prices" in said


def test_moving_parts_are_counted_from_the_spec(tmp_path: Path) -> None:
    parts: dict[str, dict[str, Any]] = {
        "a": {"prompt": {"kind": "zero-shot"}, "retrieve": None, "train": []},
        "b": {"prompt": {"kind": "few-shot"}, "retrieve": {"kind": "dense"}, "train": [{}, {}], "adapter": "x"},
    }
    spec = {"variants": [{"name": name, **table} for name, table in parts.items()]}
    made, _ = decide(tmp_path, {"a": Given(GOOD), "b": Given(GOOD)}, spec=spec)
    assert (row(made, "a")["parts"], row(made, "b")["parts"]) == (0, 5)


def test_of_a_metric_that_is_better_the_lower_the_lowest_is_the_best(tmp_path: Path) -> None:
    made, said = decide(tmp_path, {"a": Given(GOOD), "b": Given(POOR)}, direction="lower")
    assert made["recommended"] == "b" and "a: worse than b by 86.0 points" in said
    made, _ = decide(
        tmp_path / "2", {"a": Given(GOOD), "b": Given(POOR)}, "constraints.min_quality=0.5", direction="lower"
    )
    assert row(made, "a")["meets"] is False and row(made, "b")["meets"] is True


# ------------------------------------------------------------------------------------------------- little to go by


def test_all_scores_equal_is_no_evidence(tmp_path: Path) -> None:
    made, said = decide(tmp_path, {name: Given([0] * 20) for name in "abc"})
    assert made["recommended"] == "a" and made["tied"] == ["b", "c"]
    assert "how many more examples are needed cannot be said" in said
    assert "No difference could be tested: equal on every example." in said
    assert "All 3 variants have the same exact_match." in said and made["fit_for_use"] is False
    assert "none has fewer moving parts than a." in said and "the better score" not in said
    assert said.startswith("\nAll that completed have the worst possible exact_match: none of them is fit for use.")
    assert "If one has to ship, a: " in said and "Ship a" not in said
    assert "nan" not in said and "inf " not in said


def test_equal_scores_are_never_said_to_be_ahead_or_behind(tmp_path: Path) -> None:
    variants = {"a": Given([0, 1] * 20, answer=20.0), "b": Given([0, 1] * 20, answer=5.0), "c": Given([1, 0] * 20)}
    made, said = decide(tmp_path, variants, spec=PRICED)
    assert (made["best"], made["recommended"]) == ("a", "b")
    assert "a scored the same, a difference of 0.0 points (95 % interval −7.2 to 7.2)" in said
    assert "a: as good as b by the measured exact_match 50.0 %" in said
    assert "did better" not in said and "0.0 points behind" not in said
    assert "scored better" not in said and "behind by 0.0" not in said


def test_a_dearer_tied_one_is_said_to_cost_more(tmp_path: Path) -> None:
    trained = {"family": "fine-tuning", "train": 100.0}
    variants = {
        "a": Given(GOOD, answer=10.0, family="hybrid", train=100.0),
        "b": Given(GOOD, answer=10.8, **trained),  # type: ignore[arg-type]
        "c": Given(GOOD, answer=11.5),
    }
    made, said = decide(tmp_path, variants, spec=PRICED)
    assert (made["recommended"], made["reason"]) == ("b", "the simplest of the cheapest")
    assert "no simpler and no better" not in said.partition("c: ")[2].partition("\n")[0]
    assert "c: cannot be told from a" in said and "1,000 answers cost 0.23 EUR, not 0.22 EUR" in said


def test_figures_of_no_share_have_their_own_words(tmp_path: Path) -> None:
    rng = random.Random(5)
    variants = {
        name: Given([scale * (rng.random() < 0.5) for _ in range(60)]) for name, scale in (("a", 2), ("b", 0.2))
    }
    made, said = decide(tmp_path, variants, direction="lower", bounds=(0.0, None))
    assert made["recommended"] == "b" and made["fronts"][0]["margin"] is None
    assert "nothing points" not in said and "is better by the adjusted paired test; it is open" in said
    assert "Against the baseline" not in said  # the next one is the baseline


def test_the_baseline_is_said_to_be_worse_in_the_direction_of_the_metric(tmp_path: Path) -> None:
    variants = {"a": Given([2] * 40 + [0] * 10), "b": Given([0] * 40 + [1] * 10), "c": Given([0] * 30 + [1] * 20)}
    _, said = decide(tmp_path, variants, direction="lower", bounds=(0.0, None))
    assert "Against the baseline a: better by 140.0 points" in said


def test_a_constraint_on_the_primary_metric_says_its_value_once(tmp_path: Path) -> None:
    _, said = decide(tmp_path, {"a": Given(POOR)}, spec={"constraints": {"min_quality": 0.7}})
    line = next(line for line in said.split("\n") if line.startswith("a: "))
    assert line.count("4.0 %") == 1


def test_one_variant_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    made, said = decide(tmp_path, {"a": Given(FAIR)})
    assert (made["recommended"], made["reason"]) == ("a", "the only one that completed")
    assert "a is the only variant, so there was nothing to compare it with" in said
    assert made["comparisons"]["pairs"] == []


@pytest.mark.parametrize(("scores", "groups", "why"), [(1, 1, "one example"), (3, 1, "one group")])
def test_one_example_or_one_group_gives_no_interval_and_no_test(
    tmp_path: Path, scores: int, groups: int, why: str
) -> None:
    made, said = decide(tmp_path, {"a": Given([1] * scores), "b": Given([0] * scores)}, groups=["g"] * scores)
    assert made["tied"] == ["b"] and row(made, "a")["quality"]["ci_low"] is None
    assert f"(no interval: {why})" in said and f"No difference could be tested: {why}." in said
    assert "cannot be said" in said


def test_a_failed_baseline_is_told_and_the_others_are_decided_on(tmp_path: Path) -> None:
    made, said = decide(tmp_path, {"a": Given([], failed="out of memory"), "b": Given(GOOD), "c": Given(POOR)})
    assert made["recommended"] == "b" and row(made, "a")["meets"] is None
    assert "a: failed: out of memory." in said
    assert "The baseline a has failed, so nothing is compared with it." in said


def test_nothing_completed_decides_nothing(tmp_path: Path) -> None:
    made, said = decide(tmp_path, {"a": Given([], failed="no disk"), "b": Given([], failed="no disk")})
    assert made["recommended"] is None
    assert said.startswith("\nNothing can be decided: no variant has completed") and "a: failed: no disk." in said


def test_a_single_completed_one_is_no_winner(tmp_path: Path) -> None:
    _, said = decide(tmp_path, {"a": Given(FAIR), "b": Given([], failed="no disk")})
    assert "a is the only one of 2 variants that completed" in said


# ------------------------------------------------------------------------------------------------------ constraints


def test_a_constraint_turns_the_better_one_away_and_says_what_it_would_take(tmp_path: Path) -> None:
    variants = {"slow": Given(GOOD, p95=900), "fast": Given(POOR, p95=500)}
    made, said = decide(tmp_path, variants, "constraints.latency_p95_ms=800")
    assert (made["recommended"], made["reason"]) == ("fast", "the only one left")
    assert "slow: p95 latency is 900 ms, at most 800 ms is asked (exact_match 90.0 %" in said
    assert "With p95 latency of 900 ms accepted (800 ms is asked now), slow would be a candidate" in said
    assert "a candidate, which scores better: 90.0 %" in said
    assert "Of its constraints it keeps p95 latency by the least: 38 % of room." in said


def test_every_number_can_be_a_constraint(tmp_path: Path) -> None:
    variant = Given(GOOD, answer=50, train=3600, p95=700, memory=4 << 30)
    settings = [
        "constraints.latency_p95_ms=600",
        "constraints.cost_per_1000_answers=0.5",
        "constraints.training_cost=1",
        "constraints.training_hours=0.5",
        "constraints.memory_gib=3",
        "constraints.min_quality=0.95",
    ]
    made, said = decide(tmp_path, {"a": variant}, *settings, spec=PRICED)
    judged = {item["name"]: item for item in row(made, "a")["constraints"]}
    assert {name: item["value"] for name, item in judged.items()} == pytest.approx(
        {
            "latency_p95_ms": 700,
            "cost_per_1000_answers": 1.0,
            "training_cost": 3.6,
            "training_hours": 1.0,
            "memory_gib": 4.0,
            "exact_match": 0.9,
        }
    )
    assert {item["status"] for item in judged.values()} == {"failed"}
    assert judged["training_cost"]["miss"] == pytest.approx(2.6)
    assert "Ship none: no variant meets every constraint." in said


def test_a_minimum_whose_interval_straddles_it_cannot_be_sure(tmp_path: Path) -> None:
    made, said = decide(tmp_path, {"a": Given(FAIR), "b": Given(POOR)}, "constraints.min_quality=0.55")
    assert made["recommended"] == "a" and row(made, "a")["constraints"][0]["certain"] is False
    assert (
        "It cannot be sure of one constraint, as the interval does not rule out a miss: exact_match is 60.0 %" in said
    )
    made, _ = decide(tmp_path / "2", {"a": Given(FAIR)}, "constraints.min_quality=0.3")
    assert row(made, "a")["constraints"][0]["certain"] is True
    made, _ = decide(tmp_path / "3", {"a": Given([1])}, "constraints.min_quality=0.3")
    assert row(made, "a")["constraints"][0]["certain"] is None


def test_where_nothing_meets_the_constraints_the_nearest_is_named(tmp_path: Path) -> None:
    variants = {"a": Given(GOOD, p95=2000), "b": Given(FAIR, p95=850), "c": Given(POOR, p95=900)}
    made, said = decide(tmp_path, variants, "constraints.latency_p95_ms=800")
    assert (made["recommended"], made["nearest"]) == (None, "b")
    assert "The nearest is b: p95 latency is 850 ms, at most 800 ms is asked." in said
    assert "With p95 latency of 850 ms accepted (800 ms is asked now), b would be a candidate." in said


def test_what_was_not_measured_does_not_meet_a_constraint(tmp_path: Path) -> None:
    made, said = decide(tmp_path, {"a": Given(GOOD, memory=None)}, "constraints.memory_gib=4")
    assert made["recommended"] is None and row(made, "a")["constraints"][0]["status"] == "unknown"
    assert "memory is n/a: not measured" in said


def test_answers_must_cite_by_the_metric_that_tells(tmp_path: Path) -> None:
    spec = {"metrics": [{"name": "exact_match", "kind": "exact_match"}, {"name": "house_format", "kind": "regex"}]}
    variants = {
        "loose": Given(GOOD, also={"house_format": [1] * 40 + [0] * 10}),
        "strict": Given(FAIR, also={"house_format": [1] * 49 + [0]}),
    }
    made, said = decide(tmp_path, variants, "constraints.must_cite=house_format", spec=spec)
    assert made["recommended"] == "strict"
    assert "loose: house_format is 80.0 % (95 % interval 67.0 to 88.8), at least 95.0 % is asked" in said


def test_new_facts_without_training_refuse_only_what_learned_its_facts(tmp_path: Path) -> None:
    families = {"p": "prompting", "r": "RAG", "f": "fine-tuning", "h": "hybrid"}
    variants = {name: Given(FAIR, family) for name, family in families.items()}  # type: ignore[arg-type]
    made, said = decide(tmp_path, variants, "constraints.needs_updates_without_training=true")
    assert {name: row(made, name)["meets"] for name in families} == {"p": True, "r": True, "f": False, "h": True}
    assert "f: it knows only what it was trained on, so new facts need training again" in said


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ({"kind": "transformers"}, "met"),
        ({"kind": "canned"}, "met"),
        ({"kind": "openai"}, "failed"),
        ({"kind": "openai", "base_url": "https://api.example.com/v1"}, "failed"),
        ({"kind": "openai", "base_url": "http://localhost:8000/v1"}, "met"),
        ({"kind": "openai", "base_url": "http://10.1.2.3/v1"}, "met"),
        ({"kind": "openai", "base_url": "http://8.8.8.8/v1"}, "failed"),
        ({"kind": "mine:Model"}, "unknown"),
        ({"kind": "transformers", "draft": {"kind": "openai"}}, "failed"),
        ({}, "unknown"),
    ],
)
def test_data_may_leave_only_to_machines_of_ones_own(tmp_path: Path, model: dict[str, Any], status: str) -> None:
    setting = "constraints.data_may_not_leave=true"
    made, _ = decide(tmp_path, {"a": Given(GOOD)}, setting, spec={"model": model})
    assert row(made, "a")["constraints"][0]["status"] == status
    assert (made["recommended"] == "a") == (status == "met")


def test_a_retriever_that_asks_an_outside_service_lets_data_leave_too(tmp_path: Path) -> None:
    spec = {
        "model": {"kind": "transformers"},
        "variants": [{"name": "a"}, {"name": "b", "retrieve": {"kind": "dense", "embedder": {"kind": "openai"}}}],
    }
    variants = {"a": Given(POOR), "b": Given(GOOD)}
    made, _ = decide(tmp_path, variants, "constraints.data_may_not_leave=true", spec=spec)
    assert (row(made, "a")["meets"], row(made, "b")["meets"]) == (True, False)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("constraints.cost_per_1000_answers=1", "constraints.cost_per_1000_answers: money needs a price"),
        ("constraints.min_quality.exact_macht=1", "Did you mean 'exact_match'?"),
        ("constraints.min_quality=70", "Did you mean 0.7?"),
    ],
)
def test_terms_that_do_not_fit_the_results_are_refused(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        decide(tmp_path, {"a": Given(GOOD)}, setting)
    assert message in str(error.value)


# ------------------------------------------------------------------------------------------------- costs and fronts


def test_break_even_points_are_said_for_the_shipped_variant(tmp_path: Path) -> None:
    variants = {
        "tuned": Given(GOOD, "fine-tuning", answer=5, train=500),
        "shots": Given(FAIR, answer=10),
        "plain": Given(POOR, answer=1),
    }
    made, said = decide(tmp_path, variants, spec=PRICED)
    assert made["recommended"] == "tuned"
    assert "tuned costs less in all than shots from 5,001 answers on." in said
    assert "tuned costs less in all than plain at no number of answers." in said


def test_costs_of_different_devices_are_not_ranked(tmp_path: Path) -> None:
    variants = {"a": Given(MANY, answer=50), "b": Given(NEAR, "RAG", answer=1, device="a GPU · cuda")}
    made, said = decide(tmp_path, variants, spec=PRICED)
    assert made["fronts"] == [] and (made["recommended"], made["reason"]) == ("a", "the simplest")
    assert "Answers come from different devices (a processor · cpu float32; a GPU · cuda)" in said


def test_a_front_for_each_cost(tmp_path: Path) -> None:
    made, said = decide(tmp_path, {"a": Given(GOOD, p95=900), "b": Given(POOR, p95=100)}, spec=PRICED)
    assert [front["cost"] for front in made["fronts"]] == ["cost_per_1000_answers", "latency_p95_ms", "latency_p50_ms"]
    assert "By latency p95 ms, on the front: b (100 ms, 100 %), a (900 ms, 100 %)." in said


def test_every_pair_is_adjusted_together(tmp_path: Path) -> None:
    draw = random.Random(5)
    variants = {
        name: Given([float(draw.random() < share) for _ in range(60)])
        for name, share in zip("abcd", (0.4, 0.5, 0.6, 0.8), strict=True)
    }
    made, _ = decide(tmp_path, variants)
    pairs = made["comparisons"]["pairs"]
    assert made["comparisons"]["family"] == len(pairs) == 6
    ordered = sorted(pairs, key=lambda pair: pair["p"])
    highest = 0.0
    for place, pair in enumerate(ordered):
        highest = max(highest, min(1.0, (6 - place) * pair["p"]))
        assert pair["p_adjusted"] == pytest.approx(highest)


def test_results_as_a_run_leaves_them_are_decided_on(tmp_path: Path) -> None:
    store, snapshot = written_store.write(tmp_path)
    made = decision.build(snapshot, store)
    said = "\n".join(line for _, lines in advice.sections(made) for line in lines)
    assert made["recommended"] is not None and made["baseline"] == "zero-shot"
    assert "lora-64: failed: ModelError: out of memory while training" in said
    assert decision.build(snapshot, store) == made


def test_an_experiment_without_runs_is_an_error(tmp_path: Path) -> None:
    store, snapshot = write(tmp_path, {})
    with pytest.raises(HarnessError, match="plans no runs"):
        decision.build(snapshot, store)


def test_what_was_not_measured_is_never_said_to_cost_nothing(tmp_path: Path) -> None:
    _, said = decide(tmp_path, {"a": Given(GOOD, answer=None, train=0.0)})
    assert "1,000 answers: not measured, in batches." in said and "Training and indexing, once: none." in said
    by_token = {"cost": {"million_input_tokens": 1, "million_output_tokens": 1}}
    _, said = decide(tmp_path / "2", {"a": Given(GOOD, train=60, tokens=(9, 0, 9))}, spec=by_token)
    assert "Training and indexing, once: 1 min 0 s of machine time." in said
    assert "Some costs are n/a: training and indexing have no price" in said
