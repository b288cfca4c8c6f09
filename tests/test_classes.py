"""The classes behind a classification metric, from stored scores."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparison import FRUIT, Comparison
from hypothesis import given
from hypothesis import strategies as st

from harness import classes
from harness.records import Score
from harness.reducers import REDUCERS

VARIANTS = """
[[metric]]
kind    = "label_f1"
classes = ["red", "yellow", "crimson", "blue", "black", "purple", "green", "scarlet", "pink"]

[[metric]]
kind = "ece"

[[variant]]
name = "plain"

[[variant]]
name   = "choose"
decode = { kind = "choices" }
"""


def score(pairs: list[tuple[int, int]], labels: str = "abc", reducer: str = "macro_f1") -> Score:
    return Score(
        name="macro_f1", signature="s", direction="higher", unit="share", floor=0, ceiling=1, reducer=reducer,
        ids=tuple(map(str, range(len(pairs)))), statistics=tuple(pairs), labels=tuple(labels),
    )  # fmt: skip


def test_each_class_has_its_figures_and_the_matrix_its_counts() -> None:
    found = classes.table(score([(0, 0), (0, 1), (1, 1), (1, -1)]))
    a, b, c = found["classes"]
    assert (a["support"], a["named"], a["precision"], a["recall"], a["f1"]) == (2, 1, 1.0, 0.5, pytest.approx(2 / 3))
    assert (b["support"], b["named"], b["precision"], b["recall"], b["f1"]) == (2, 2, 0.5, 0.5, 0.5)
    assert (c["support"], c["precision"], c["recall"], c["f1"]) == (0, None, None, None)
    assert found["confusion"] == [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]
    assert (found["none_named"], found["value"]) == (1, pytest.approx((2 / 3 + 0.5) / 2))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-1, 2)), min_size=1, max_size=30))
def test_the_table_and_the_metric_tell_the_same(pairs: list[tuple[int, int]]) -> None:
    found = classes.table(score(pairs))
    known = [row for row in found["classes"] if row["support"]]
    assert found["value"] == pytest.approx(sum(row["f1"] for row in known) / len(known))
    assert sum(map(sum, found["confusion"])) == len(pairs)
    weighted = REDUCERS["weighted_recall"](pairs, "abc")
    assert weighted == pytest.approx(sum(row["recall"] * row["support"] for row in known) / len(pairs))


def test_many_classes_show_their_most_frequent_confusions() -> None:
    labels = "abcdefghijklmnop"
    pairs = [(0, 1)] * 3 + [(2, 0)] * 2 + [(3, -1), (4, 4)]
    found = {"experiment": "x@1", "variant": "v", "seed": 0, "calibration": None}
    (_, _, rows), (title, columns, confusions) = classes.tables(
        {**found, "classes": classes.table(score(pairs, labels))}
    )
    assert len(rows) == 16 and columns == ["right class", "named class", "examples"]
    assert confusions == [["a", "b", "3"], ["c", "a", "2"], ["d", "(none)", "1"]]
    assert title == "Most frequent confusions (3 of 3 pairs)"


def test_the_reliability_curve_stands_behind_the_calibration_error() -> None:
    rows = [(0.95, 1), (0.96, 0), (0.2, 0), (1.0, 1)]
    found = classes.reliability(score(rows, "", "ece"))  # type: ignore[arg-type]
    assert [(row["examples"], row["confidence"], row["right"]) for row in found["bins"]] == [
        (1, 0.2, 0), (2, pytest.approx(0.955), 0.5), (1, 1.0, 1),
    ]  # fmt: skip
    assert found["value"] == pytest.approx((0.2 + 2 * 0.455) / 4)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    made = Comparison(tmp_path_factory.mktemp("classes") / "one", VARIANTS)
    made.write_rows("train", {"lemon": "red", "mango": "yellow", "nectarine": "blue", "olive": "black"}, "")
    made.write_rows("heldout", FRUIT, "")
    assert made.run().status == 0
    return made


def test_the_command_shows_classes_and_calibration(comparison: Comparison) -> None:
    done = comparison.call("classes", "latest", "choose")
    assert done.status == 0, done.err
    for text in (
        "crimson",
        "Confusion (rows: right class",
        "Reliability (ece",
        "1 of 9 classes have no held-out",
        "n/a",
    ):
        assert text in done.out
    assert "Reliability" not in comparison.call("classes", "latest", "plain").out
    markdown = comparison.call("classes", "fruit", "choose", "--markdown").out
    assert markdown.startswith("## choose in fruit@1 (seed 0)") and "| --- |" in markdown


def test_json_holds_all_of_it(comparison: Comparison) -> None:
    found = comparison.call("classes", "latest", "choose", "--json").json
    assert {row["class"]: row["recall"] for row in found["classes"]["classes"]}["pink"] is None
    assert len(found["classes"]["confusion"]) == 9 and len(found["classes"]["confusion"][0]) == 10
    assert sum(row["examples"] for row in found["calibration"]["bins"]) == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fruit", "nobody"), "there is no variant 'nobody' in fruit@1. Available: plain, choose."),
        (("fruit", "plain", "--seed", "7"), "was not run with seed 7: 0"),
        (
            ("fruit", "plain", "--metric", "recall@1"),
            "'recall@1' counts no classes in 'plain'. Those that do: macro_f1.",
        ),
    ],
)
def test_what_is_not_there_is_said(comparison: Comparison, arguments: tuple[str, ...], said: str) -> None:
    done = comparison.call("classes", *arguments)
    assert (done.status, said in done.err) == (1, True), done.err


def test_an_experiment_without_such_a_metric_says_what_to_add(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", '[[variant]]\nname = "plain"\n')
    comparison.run()
    done = comparison.call("classes", "latest", "plain")
    assert done.status == 1 and 'kind = "label_f1"' in done.err
