"""Pareto fronts: what the measured values say, what the evidence says, and how sure a place is."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from decided import Given, write

from harness import comparisons, pareto, results
from harness.pareto import Point


def front(
    tmp_path: Path,
    scores: Mapping[str, Sequence[float]],
    costs: Mapping[str, float | None],
    *,
    groups: Sequence[str] = (),
    margin: float | None = 0.02,
    **more: object,
) -> dict[str, Point]:
    given = {name: Given(values) for name, values in scores.items()}
    store, snapshot = write(tmp_path, given, groups=groups, **more)  # type: ignore[arg-type]
    found = results.read(snapshot, store)
    couples = list(itertools.permutations(found.variants, 2))
    made = comparisons.pairwise(found, "exact_match", couples)
    adjusted = comparisons.holm([one.p for one in made])
    pairs = {(a.name, b.name): (c, p) for (a, b), c, p in zip(couples, made, adjusted, strict=True)}
    return {point.variant: point for point in pareto.front(found, found.variants, costs, pairs, margin)}


def test_the_cheaper_and_better_one_dominates(tmp_path: Path) -> None:
    found = front(tmp_path, {"good": [1] * 40 + [0] * 10, "bad": [0] * 45 + [1] * 5}, {"good": 1, "bad": 2})
    assert (found["good"].place, found["good"].share) == ("front", 1.0)
    assert (found["bad"].place, found["bad"].by, found["bad"].share) == ("dominated", "good", 0.0)


def test_who_is_better_and_dearer_is_on_the_front_too(tmp_path: Path) -> None:
    found = front(tmp_path, {"good": [1] * 40 + [0] * 10, "bad": [0] * 45 + [1] * 5}, {"good": 2, "bad": 1})
    assert {point.place for point in found.values()} == {"front"}
    assert list(found) == ["bad", "good"]  # cheapest first


def test_little_evidence_leaves_a_place_open(tmp_path: Path) -> None:
    found = front(tmp_path, {"one": [1, 1, 1, 0, 0, 1], "two": [1, 0, 1, 0, 1, 0]}, {"one": 1, "two": 2})
    assert (found["two"].place, found["two"].by) == ("open", "one")
    assert found["two"].share is not None and 0 < found["two"].share < 1


def test_a_cheaper_one_that_is_shown_to_be_no_worse_dominates(tmp_path: Path) -> None:
    draw = random.Random(3)
    base = [float(draw.random() < 0.6) for _ in range(3000)]
    alike = [1 - value if draw.random() < 0.004 else value for value in base]
    found = front(tmp_path, {"cheap": alike, "dear": base}, {"cheap": 1, "dear": 2})
    assert (found["dear"].place, found["dear"].by) == ("dominated", "cheap")
    found = front(tmp_path / "2", {"cheap": alike, "dear": base}, {"cheap": 1, "dear": 2}, margin=None)
    assert found["dear"].place != "dominated"


def test_equal_scores_are_open_as_few_examples_show_no_equality(tmp_path: Path) -> None:
    found = front(tmp_path, {"a": [0] * 10, "b": [0] * 10}, {"a": 1, "b": 2})
    assert (found["a"].place, found["b"].place, found["b"].share) == ("front", "open", 0.0)


def test_of_equal_cost_the_better_one_is_ahead_and_equals_share_the_front(tmp_path: Path) -> None:
    found = front(tmp_path, {"a": [1, 1, 0, 1], "b": [1, 0, 0, 0], "c": [1, 1, 0, 1]}, {"a": 1, "b": 1, "c": 1})
    assert [found[name].place for name in "abc"] == ["front", "open", "front"]
    assert found["a"].share == found["c"].share == 1.0


def test_without_a_cost_there_is_no_place(tmp_path: Path) -> None:
    found = front(tmp_path, {"a": [1, 0], "b": [0, 1]}, {"a": None, "b": 2})
    assert (found["a"].place, found["a"].share, found["b"].place) == ("n/a", None, "front")


@pytest.mark.parametrize("scores", [{"a": [1], "b": [0]}, {"a": [1, 1], "b": [0, 0]}])
def test_one_group_gives_no_share(tmp_path: Path, scores: dict[str, list[float]]) -> None:
    found = front(tmp_path, scores, {"a": 1, "b": 2}, groups=["g"] * len(scores["a"]))
    assert found["a"].share is None and found["b"].share is None
    assert found["b"].place == "open"


def test_of_a_metric_that_is_better_the_lower_the_lower_is_ahead(tmp_path: Path) -> None:
    scores = {"low": [0.1, 0.0, 0.1, 0.2] * 10, "high": [0.9, 0.8, 1.0, 0.9] * 10}
    found = front(tmp_path, scores, {"low": 1, "high": 2}, direction="lower")
    assert (found["low"].place, found["high"].place, found["high"].by) == ("front", "dominated", "low")


def test_whole_groups_are_resampled(tmp_path: Path) -> None:
    # Two groups decide all: "a" wins one of them whole, so a quarter of the draws hold only the other.
    scores = {"dear": [1.0] * 10 + [0.0] * 10, "cheap": [0.0] * 10 + [0.5] * 10}
    found = front(tmp_path, scores, {"dear": 2, "cheap": 1}, groups=["x"] * 10 + ["y"] * 10)
    share = found["dear"].share
    assert share is not None and share == pytest.approx(0.75, abs=0.03)


def test_the_same_results_give_the_same_digits(tmp_path: Path) -> None:
    scores = {"a": [1, 0, 1, 1, 0], "b": [0, 1, 1, 0, 0]}
    assert front(tmp_path, scores, {"a": 2, "b": 1}) == front(tmp_path / "2", scores, {"a": 2, "b": 1})
