from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import written_store as written
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference
from statsmodels.stats.multitest import multipletests

from harness import comparisons, margins, results
from harness.comparisons import Comparison

SHARE = (0.0, 1.0)


def right_wrong(wins: int, losses: int, ties: int = 10, size: int = 1) -> Comparison:
    ours = [1.0] * wins + [0.0] * losses + [1.0] * ties
    theirs = [0.0] * wins + [1.0] * losses + [1.0] * ties
    return comparisons.compare(ours, theirs, [str(i // size) for i in range(len(ours))], bounds=SHARE, binary=True)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_equals_statsmodels(ps: list[float]) -> None:
    assert comparisons.holm(ps) == pytest.approx(multipletests(ps, method="holm")[1].tolist())


def test_holm_leaves_out_what_has_no_p() -> None:
    assert comparisons.holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert comparisons.holm([]) == [] and comparisons.holm([None]) == [None]


def test_right_and_wrong_answers_of_single_examples_are_tested_by_mcnemar() -> None:
    made = right_wrong(15, 5)
    assert (made.test, made.wins, made.ties, made.losses) == ("exact McNemar", 15, 10, 5)
    assert made.p == pytest.approx(reference.binomtest(5, 20).pvalue)
    assert (made.effect, made.effect_size) == ("odds ratio of the discordant pairs", 3.0)
    assert made.difference.value == pytest.approx(10 / 30)
    assert comparisons.needed(made, made.p) is None, "p is 0.041: settled"
    assert made.minimum_detectable == pytest.approx((1.959964 + 0.841621) * math.sqrt(20 / 30 / 30), rel=1e-5)


def test_grouped_answers_are_tested_by_sign_flips_of_groups() -> None:
    made = right_wrong(15, 5, size=5)
    assert made.test == "sign-flip permutation by group (all flips)"
    assert made.p == pytest.approx(0.625), "sums of 5, 5, 5, -5: 10 of 16 flips reach at least 10"
    assert made.groups == 6 and (comparisons.needed(made, made.p) or 0) > 30


def test_graded_scores_are_tested_by_sign_flips_and_scaled_by_their_deviation() -> None:
    generator = np.random.default_rng(3)
    ours, theirs = generator.random(50), generator.random(50) - 0.1
    made = comparisons.compare(
        ours.tolist(), theirs.tolist(), [str(i) for i in range(50)], bounds=(None, None), binary=False
    )
    assert made.test == "sign-flip permutation (9,999 random flips)"
    assert made.p == pytest.approx(reference.ttest_rel(ours, theirs).pvalue, abs=0.02)
    difference = ours - theirs
    assert made.effect_size == pytest.approx(difference.mean() / difference.std(ddof=1))
    assert made.effect == "Cohen's d of the paired differences"


def test_examples_that_a_metric_does_not_speak_of_are_left_out() -> None:
    full = comparisons.compare([1.0, 0.0, 1.0], [0.0, 0.0, 1.0], list("abc"), bounds=SHARE, binary=True)
    gaps = comparisons.compare([1.0, None, 0.0, 1.0], [0.0, None, 0.0, 1.0], list("axbc"), bounds=SHARE, binary=True)
    assert gaps == full


@pytest.mark.parametrize(
    ("ours", "theirs", "groups", "test"),
    [
        ([], [], "", "n/a (no examples)"),
        ([1.0], [0.0], "a", "n/a (one example)"),
        ([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], "aaa", "n/a (one group)"),
        ([1.0, 0.0, 1.0], [1.0, 0.0, 1.0], "abc", "n/a (equal on every example)"),
        ([None, None], [None, None], "ab", "n/a (no examples)"),
    ],
)
def test_where_there_is_nothing_to_go_by_there_is_no_p(
    ours: list[float | None], theirs: list[float | None], groups: str, test: str
) -> None:
    for binary in (True, False):
        made = comparisons.compare(ours, theirs, list(groups), bounds=SHARE, binary=binary)
        assert (made.test, made.p, comparisons.needed(made, made.p), made.minimum_detectable) == (
            test,
            None,
            None,
            None,
        )
        assert comparisons.verdict(made, made.p) == "cannot tell"
        assert margins.non_inferior(made, 0.1).holds is None or "equal" in test


def test_a_metric_where_lower_is_better_turns_wins_and_verdicts_round() -> None:
    made = comparisons.compare([0.1] * 8, [0.9] * 8, list("abcdefgh"), bounds=SHARE, binary=False, higher=False)
    assert (made.wins, made.losses) == (8, 0)
    assert made.difference.value == pytest.approx(-0.8)
    assert comparisons.verdict(made, made.p) == "better"
    assert comparisons.verdict(replace(made, higher=True), made.p) == "worse"
    assert comparisons.verdict(made, 0.051) == "cannot tell"


def test_a_constant_difference_is_tested_though_nothing_varies() -> None:
    made = comparisons.compare([1.0] * 8, [0.0] * 8, list("abcdefgh"), bounds=SHARE, binary=True)
    assert made.p == pytest.approx(2 / 2**8) and made.difference.low is not None


def test_rounding_is_no_difference() -> None:
    """Thirds of three seeds, the same ones in another order, do not sum to zero."""
    thirds = [0.1 + 0.2, 1 / 3, 2 / 3, 1.0, 0.7]
    made = comparisons.compare(
        [*thirds, 0.0], [*thirds[::-1], 1e-17], [str(i) for i in range(6)], bounds=SHARE, binary=False
    )
    assert made.difference.value == 0
    assert comparisons.needed(made, made.p) is None, "and no number of examples settles it"


def test_one_seed_of_a_store_is_compared_like_plain_numbers(tmp_path: Path) -> None:
    store, snapshot = written.write(tmp_path)
    found = results.read(snapshot, store)
    raft, base, lora = (found.variant(name) for name in ("raft", "zero-shot", "lora"))
    assert raft and base and lora
    made = comparisons.between(found, "exact_match", raft, base)
    plain = comparisons.compare(
        raft.values("exact_match") or [], base.values("exact_match") or [], found.groups, bounds=SHARE, binary=True
    )
    assert made == plain and made.test == "sign-flip permutation by group (all flips)"
    mirrored = comparisons.between(found, "exact_match", base, raft)
    assert (mirrored.p, mirrored.wins) == (made.p, made.losses)
    together = comparisons.pairwise(found, "exact_match", [(raft, base), (lora, base)])
    assert together[0] == made
    seeds = together[1]
    assert seeds.test == "paired t over seeds and examples" and seeds.degrees is not None
    assert seeds.difference.method == "paired t, clustered by group, over seeds and examples"
    nothing = comparisons.between(found, "recall@3", raft, base)
    assert nothing.test == "n/a (not measured)" and nothing.p is None


def test_seeds_that_all_gave_the_same_count_as_one(tmp_path: Path) -> None:
    twins = [replace(written.VARIANTS[0], seeds=(0, 1)), replace(written.VARIANTS[2], seeds=(0, 1))]
    store, snapshot = written.write(tmp_path, twins)
    found = results.read(snapshot, store)
    first = [
        replace(one, scores={name: (scores[0], scores[0]) for name, scores in one.scores.items()})
        for one in found.variants
    ]
    alike = replace(found, variants=tuple(first))
    single = replace(
        found,
        variants=tuple(replace(one, scores={n: s[:1] for n, s in one.scores.items()}) for one in first),
    )
    made = comparisons.between(alike, "exact_match", *alike.variants[::-1])
    assert made == comparisons.between(single, "exact_match", *single.variants[::-1])
    assert made.test.startswith("sign-flip")
