from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from harness import power, randomisation, stats


def alone(n: int) -> list[str]:
    return [str(i) for i in range(n)]


@pytest.mark.parametrize(("n", "points"), [(50, 17.7), (100, 12.5), (200, 8.9), (500, 5.6), (1000, 4.0), (2000, 2.8)])
def test_the_minimum_detectable_effect_equals_the_published_figures(n: int, points: float) -> None:
    found = power.minimum_detectable(alone(n), 0.2)
    assert found is not None and 100 * found == pytest.approx(points, abs=0.05)


def test_groups_count_by_their_design_effect_and_few_groups_by_t() -> None:
    groups = [str(i // 5) for i in range(100)]
    assert stats.design_effect(groups, 0.3) == pytest.approx(1 + 4 * 0.3)
    assert stats.design_effect(["a"] * 6 + ["b"] * 2, 0.5) == pytest.approx(1 + (40 / 8 - 1) * 0.5)
    found = power.minimum_detectable(groups, 0.2, 0.3)
    t = reference.t.ppf(0.975, 19) + reference.t.ppf(0.8, 19)
    assert found == pytest.approx(t * (0.2 / 100 * 2.2) ** 0.5)


def test_what_no_result_could_show_is_not_given_a_number() -> None:
    assert power.minimum_detectable(alone(20), 0.1) is None, "even 2 of 2 discordant pairs are no evidence"
    assert power.minimum_detectable(["a"] * 50, 0.2) is None
    assert power.minimum_detectable(["a"], 0.2) is None
    assert power.needed(100, 100, 0.0, 0.02) is None
    assert power.needed(100, 100, 0.1, float("nan")) is None


@pytest.mark.parametrize(("n", "discordant"), [(50, 0.4), (200, 0.1), (500, 0.2)])
def test_the_exact_test_finds_that_effect_in_four_of_five_cases(n: int, discordant: float) -> None:
    found = power.minimum_detectable(alone(n), discordant)
    assert found is not None

    def finds(effect: float) -> float:
        chance = (1 + effect / discordant) / 2
        total = 0.0
        for m in range(n + 1):
            wins = np.arange(m + 1)
            ps = np.array([randomisation.mcnemar(int(w), m - int(w)) for w in wins]) if m else np.ones(1)
            total += reference.binom.pmf(m, n, discordant) * reference.binom.pmf(wins, m, chance)[ps <= 0.05].sum()
        return total

    assert finds(0.9 * found) < 0.8 < finds(1.1 * found)


def test_the_examples_that_are_needed_bring_the_power_that_was_asked_for() -> None:
    # 30 against 20 of 200: a difference of 0.05, which 200 examples do not settle.
    error = (0.25 / 200 - 0.05**2 / 200) ** 0.5
    n = power.needed(200, 200, 0.05, error)
    assert n is not None
    z = 0.05 / (error * (200 / n) ** 0.5)
    assert reference.norm.cdf(z - reference.norm.ppf(0.975)) == pytest.approx(0.8, abs=0.001)
    assert power.needed(200, 200, 0.05, error, alpha=0.05 / 9) > n  # type: ignore[operator]


def test_a_test_by_group_needs_groups_however_large_the_difference() -> None:
    assert power.needed(12, 3, 1.0, 0.01) == 24, "six groups, so that one of 2^5 flips is below 0.05"


def board(**versus: object) -> dict[str, object]:
    found = {"minimum_detectable": 0.1, "wins": 12, "losses": 6, "ties": 82, "difference": 0.06, **versus}
    about = {"name": "exact_match", "unit": "share", "floor": 0.0, "ceiling": 1.0}
    return {
        "experiment": "fruit",
        "snapshot": 3,
        "primary": "exact_match",
        "baseline": "plain",
        "metrics": [about],
        "heldout": {"n": 100, "groups": None},
        "rows": [{"variant": "plain", "vs_baseline": None}, {"variant": "rag", "vs_baseline": found}],
    }


def test_the_variation_of_an_earlier_run_says_what_this_split_shows() -> None:
    made = power.plan(alone(400), board())
    assert made["earlier"]["snapshot"] == "fruit@3" and made["earlier"]["n"] == 100
    (one,) = made["earlier"]["variants"].values()
    t = [reference.t.ppf(0.975, n - 1) + reference.t.ppf(0.8, n - 1) for n in (400, 100)]
    assert one == {"discordant": 0.18, "minimum_detectable": pytest.approx(0.1 * (100 / 400) ** 0.5 * t[0] / t[1])}
    said = power.sentence(made)
    assert "If scores vary as in fruit@3 (100 held-out examples, exact_match against plain), the smallest" in said
    assert said.endswith("difference that this split shows: rag 5.0 points (scores differ on 18 %).")
    assert power.plan(alone(400), board(difference=0.5))["earlier"] == made["earlier"], "never the difference"


def test_an_earlier_run_in_other_groups_promises_nothing_too_good() -> None:
    """What is the larger error: of as many independent examples, or of as many groups that are wholly alike."""
    alike = board(minimum_detectable=0.05) | {"heldout": {"n": 200, "groups": 40}}
    t = {count: power.multiplier(count - 1) for count in (20, 40, 200)}
    for groups, count, fewer in (
        ([str(i // 5) for i in range(200)], 40, 1.0),
        (alone(20), 20, 200 / 20),
        ([str(i // 10) for i in range(200)], 20, 40 / 20),
        (alone(200), 200, 1.0),
    ):
        found = power.plan(groups, alike)["earlier"]["variants"]["rag"]["minimum_detectable"]
        assert found == pytest.approx(0.05 * fewer**0.5 * t[count] / t[40])


def test_an_earlier_run_too_small_to_show_anything_still_says_how_many_pairs_differ() -> None:
    few = board(minimum_detectable=None, effect="odds ratio of the discordant pairs", wins=2, losses=0, ties=8)
    one = power.plan(alone(400), few)["earlier"]["variants"]["rag"]
    assert one == {"discordant": 0.2, "minimum_detectable": power.minimum_detectable(alone(400), 0.2)}
    graded = power.plan(alone(400), board(minimum_detectable=None, effect="Cohen's d"))["earlier"]["variants"]["rag"]
    assert graded == {"discordant": 0.18, "minimum_detectable": None}


def test_an_earlier_run_that_measured_nothing_says_nothing() -> None:
    assert power.plan(alone(400), board(minimum_detectable=None, wins=0, losses=0))["earlier"] is None
    assert power.plan(["a"] * 5, board())["earlier"] is None
    assert power.plan(alone(400))["earlier"] is None
    few = power.plan(alone(2), board(wins=0, losses=0, ties=0))
    assert few["earlier"]["variants"]["rag"] == {"discordant": None, "minimum_detectable": None}
    assert power.sentence(few).endswith("rag none."), "more than a share can differ at all"


def test_the_plan_in_words_and_numbers() -> None:
    made = power.plan([str(i // 4) for i in range(200)])
    assert made["n"] == 200 and made["groups"] == 50 and list(made["minimum_detectable"]) == ["0.1", "0.2", "0.4"]
    text = power.sentence(made)
    assert "200 held-out examples in 50 groups" in text and "on 40 % of them" in text
    assert "intra-class correlation of 0.2" in text
    few = power.sentence(power.plan(alone(20)))
    assert "none where just one of them is right on 10 %" in few and "groups" not in few
