"""Metrics of classes: values are scikit-learn's, and a class without examples never makes a false number."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from means import NO_MEANS
from pydantic import ValidationError

from harness.errors import HarnessError
from harness.metrics.accuracy import Accuracy
from harness.metrics.label_f1 import LabelF1
from harness.metrics.label_precision import LabelPrecision
from harness.metrics.label_recall import LabelRecall
from harness.metrics.mcc import Mcc
from harness.plugins import Metric
from harness.records import Example, Prediction, Score
from harness.reducers import CLASS_REDUCERS, REDUCERS
from harness.scoring import score


def examples(targets: Sequence[str | tuple[str, ...]]) -> list[Example]:
    each = ((target,) if isinstance(target, str) else target for target in targets)
    return [Example(id=str(place), input="?", targets=target) for place, target in enumerate(each)]


def scored(metric: Metric, targets: Sequence[str | tuple[str, ...]], answers: Sequence[str | None]) -> Score:
    given = [
        Prediction(id=str(place), text=text, error=None if text is not None else "failed")
        for place, text in enumerate(answers)
    ]
    return score(metric, examples(targets), given, NO_MEANS)[0]


def value(metric: Metric, targets: Sequence[str | tuple[str, ...]], answers: Sequence[str | None]) -> float | None:
    made = scored(metric, targets, answers)
    rows = [row for row in made.statistics if row is not None]
    return REDUCERS[made.reducer](rows, made.labels)


# ----------------------------------------------------------------------------------------------- as in scikit-learn


def reference(right: Sequence[int], named: Sequence[int]) -> dict[str, float]:
    from sklearn.metrics import matthews_corrcoef, precision_recall_fscore_support

    found = {"mcc": float(matthews_corrcoef(right, named))}
    for average in ("macro", "micro", "weighted"):
        figures = precision_recall_fscore_support(
            right, named, labels=sorted(set(right)), average=average, zero_division=0
        )
        found |= {f"{average}_{name}": float(figures[i]) for i, name in enumerate(("precision", "recall", "f1"))}
    return found


def cases(count: int, seed: int) -> list[tuple[list[int], list[int], int]]:
    """Right and named classes: few and many, some absent from either side, skewed, some answers that name none."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        classes, size = int(rng.integers(1, 9)), int(rng.integers(1, 40))
        weights = rng.dirichlet(np.full(classes, 0.5))
        right = rng.choice(classes, size, p=weights)
        named = np.where(rng.random(size) < rng.random(), right, rng.integers(-1, classes, size))
        made.append((right.tolist(), named.tolist(), classes))
    return made


def differences(count: int, seed: int) -> dict[str, float]:
    worst = dict.fromkeys(CLASS_REDUCERS, 0.0)
    for right, named, classes in cases(count, seed):
        rows = [(float(one), float(other)) for one, other in zip(right, named, strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = reference(right, named)
        for reducer in CLASS_REDUCERS:
            ours = REDUCERS[reducer](rows, [str(label) for label in range(classes)])
            nothing_named = reducer.endswith("precision") and max(named) < 0
            if nothing_named or (reducer == "mcc" and len(set(right)) == 1):
                assert ours is None
            else:
                assert ours is not None
                worst[reducer] = max(worst[reducer], abs(ours - expected[reducer]))
    return worst


def test_generated_cases_have_scikit_learns_values() -> None:
    pytest.importorskip("sklearn")
    assert max(differences(60, seed=1).values()) < 1e-12


@pytest.mark.slow
def test_ten_thousand_generated_cases_have_scikit_learns_values() -> None:
    pytest.importorskip("sklearn")
    assert max(differences(10_000, seed=2).values()) < 1e-12


def test_the_metrics_give_what_their_reducers_make_of_texts() -> None:
    targets, answers = ["a", "a", "b", "c"], ["a", "b", "b", "nothing"]
    assert value(Accuracy(), targets, answers) == 0.5
    assert value(LabelPrecision(), targets, answers) == pytest.approx((1 + 0.5 + 0) / 3)
    assert value(LabelRecall(), targets, answers) == pytest.approx((0.5 + 1 + 0) / 3)
    assert value(LabelF1(), targets, answers) == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert value(LabelF1(average="micro"), targets, answers) == pytest.approx(2 * 2 / (4 + 3))
    assert value(LabelF1(average="weighted"), targets, answers) == pytest.approx((2 * 2 / 3 + 2 / 3) / 4)
    assert value(Mcc(), targets, answers) == pytest.approx(reference([0, 0, 1, 2], [0, 1, 1, -1])["mcc"])


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_the_name_says_how_classes_are_averaged(average: Any) -> None:
    assert LabelF1(average=average).name == f"{average}_f1"
    assert LabelPrecision(average=average).name == f"{average}_precision"
    assert LabelRecall(average=average, label="recall of intents").name == "recall of intents"


# ------------------------------------------------------------------------------------------------------ no false number


def test_a_class_without_examples_is_left_out_of_every_average() -> None:
    metric = LabelRecall(classes=("a", "b", "absent"))
    assert value(metric, ["a", "b"], ["a", "absent"]) == 0.5
    assert value(LabelF1(classes=("a", "b", "absent")), ["a", "b"], ["a", "b"]) == 1
    assert value(LabelPrecision(classes=("a", "b", "absent")), ["a", "b"], ["absent", "absent"]) == 0


def test_where_no_answer_names_a_class_precision_has_no_value_and_recall_is_0() -> None:
    for average in ("macro", "micro", "weighted"):
        assert value(LabelPrecision(average=average), ["a", "b"], ["?", None]) is None
        assert value(LabelRecall(average=average), ["a", "b"], ["?", None]) == 0
        assert value(LabelF1(average=average), ["a", "b"], ["?", None]) == 0


def test_correlation_has_no_value_where_all_examples_are_of_one_class_and_is_0_where_all_answers_are() -> None:
    assert value(Mcc(), ["a", "a"], ["a", "a"]) is None
    assert value(Mcc(), ["a", "a"], ["a", "b"]) is None
    assert value(Mcc(), ["a", "b"], ["a", "a"]) == 0
    assert value(Mcc(), ["a", "b"], ["a", "b"]) == 1
    assert value(Mcc(), ["a", "b"], ["b", "a"]) == -1


def test_one_example_and_no_example_with_an_answer() -> None:
    assert value(LabelF1(), ["a"], ["a"]) == 1
    assert value(LabelF1(), [()], ["a"]) is None
    assert value(Mcc(), [()], ["a"]) is None
    assert scored(Accuracy(), [(), "a"], ["a", "a"]).statistics == (None, (1.0,))


def test_an_answer_that_failed_names_no_class_and_is_counted() -> None:
    made = scored(LabelF1(), ["a", "b"], ["a", None])
    assert (made.statistics, made.errors, made.labels) == (((0, 0), (1, -1)), 1, ("a", "b"))
    assert scored(Accuracy(), ["a", "b"], ["a", None]).statistics == ((1.0,), (0.0,))


# ----------------------------------------------------------------------------------------------------------- extraction


@pytest.mark.parametrize(
    ("settings", "text", "right"),
    [
        ({}, " Card Arrival \n", 1),
        ({"fold_case": False}, "Card Arrival", 0),
        ({}, "card arrival.", 0),
        ({}, "", 0),
        ({"extract": "first"}, "It is CARD ARRIVAL, not top up.", 1),
        ({"extract": "first"}, "top up, no: card arrival", 0),
        ({"extract": "first"}, "a postcard arrivals", 0),
        ({"extract": "first"}, "card arrival late", 1),
        ({"extract": "pattern", "pattern": r"intent: ([\w ]+)"}, "so: intent: Card arrival", 1),
        ({"extract": "pattern", "pattern": r"intent: (\w+)"}, "card arrival", 0),
        ({"extract": "pattern", "pattern": r"x|intent: (\w+)"}, "x card arrival", 0),
    ],
)
def test_a_class_is_found_in_a_free_text_by_the_declared_rule(settings: Any, text: str, right: float) -> None:
    assert value(Accuracy(**settings), ["card arrival", "top up"], [text, "?"]) == right / 2


def test_the_longest_name_that_begins_at_the_first_place_is_meant() -> None:
    metric = Accuracy(extract="first", classes=("card", "card payment", "payment"))
    assert value(metric, ["card payment", "card"], ["a card payment", "card: payment"]) == 1


def test_any_accepted_answer_counts_as_the_class_of_the_first() -> None:
    made = scored(LabelF1(), [("b", "a"), "a", "b"], ["a", "a", "a"])
    assert made.labels == ("a", "b")
    assert made.statistics == ((1, 1), (0, 0), (1, 0))


def test_spellings_that_fold_to_one_are_one_class() -> None:
    assert scored(LabelF1(), ["Yes", "yes", "no"], ["yes", "YES", "no"]).labels == ("Yes", "no")
    assert scored(LabelF1(fold_case=False), ["Yes", "yes"], ["yes", "Yes"]).labels == ("Yes", "yes")


def test_an_accepted_answer_that_is_no_declared_class_is_an_error() -> None:
    with pytest.raises(HarnessError, match=r"'c' of example '1' is none of its `classes` \('a', 'b'\)"):
        scored(LabelF1(classes=("a", "b")), ["a", "c"], ["a", "a"])
    with pytest.raises(HarnessError, match="'' of example '0' is empty"):
        scored(LabelF1(), ["", "c"], ["a", "a"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"extract": "pattern"}, "need each other"),
        ({"pattern": "(a)"}, "need each other"),
        ({"extract": "pattern", "pattern": "a"}, "needs one group"),
        ({"extract": "pattern", "pattern": "(a)(b)"}, "needs one group"),
        ({"extract": "pattern", "pattern": "("}, "no regular expression"),
        ({"classes": ["a", " A"]}, "must differ"),
        ({"classes": ["a", " "]}, "none may be empty"),
    ],
)
def test_settings_that_do_not_go_together(settings: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LabelF1(**settings)
    assert LabelF1(classes=("a", "A"), fold_case=False).classes == ("a", "A")
