"""What human ratings come to: means, win rates, agreement, and how the judges compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import written_store as written
from test_judging import judge_file
from test_sheets import BETTER, RATING, THREE, filled

from harness import judging, ratings, results, sheets, stats
from harness.agreement import alpha, kappa
from harness.cli import main
from harness.records import Score
from harness.results import Results
from harness.sheets import Item, Key, Wanted
from harness.store import Store

Once = tuple[Results, Store]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    store, snapshot = written.write(tmp_path_factory.mktemp("rated"), THREE)
    return results.read(snapshot, store), store


def right(once: Once, item: Item, step: str) -> bool:
    example = next(example for example in once[0].examples if example.id == item.example)
    return once[1].step(step).prediction(item.example).text == example.targets[0]


def rated(once: Once, wanted: Wanted, folder: Path, mark: Callable[[Item], str], name: str = "anna") -> Any:
    """Write a sheet, fill it in as `mark` says, and read it back."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.csv"
    key = sheets.write(wanted, *once, file)
    column = BETTER if wanted.pairwise else RATING
    filled(file, column, "", **{item.code: mark(item) for item in key.items})
    return file, key


def told(once: Once, files: list[Path], key: Key) -> dict[str, Any]:
    found, given = sheets.read(files, [key])
    return ratings.scored(found, given, *once)


def test_marks_become_means_with_clustered_intervals_and_paired_differences(once: Once, tmp_path: Path) -> None:
    file, key = rated(once, Wanted(), tmp_path, lambda item: "5" if right(once, item, item.steps[0]) else "1")
    found = told(once, [file], key)
    assert [row["variant"] for row in found["variants"]] == ["zero-shot", "few-shot", "raft"]
    for row in found["variants"]:
        variant = once[0].variant(row["variant"])
        assert variant is not None
        marks = [1 + 4 * (value or 0) for value in variant.values("exact_match") or []]
        expected = stats.interval(marks, once[0].groups, binary=False, bounds=(1, 5))
        assert (row["value"], row["ci_low"], row["ci_high"]) == pytest.approx(
            (expected.value, expected.low, expected.high)
        )
        assert (row["n"], row["failed"]) == (24, 0)
    raft = found["variants"][2]
    assert raft["vs_baseline"]["difference"] == pytest.approx(raft["value"] - found["variants"][0]["value"])
    assert raft["vs_baseline"]["verdict"] == "better"
    assert found["variants"][0]["vs_baseline"] is None


def test_choices_become_win_rates_and_a_ranking_whatever_side_an_answer_stood_on(once: Once, tmp_path: Path) -> None:
    def better(item: Item) -> str:
        one, two = (right(once, item, step) for step in item.steps)
        return "tie" if one == two else "1" if one else "2"

    file, key = rated(once, Wanted(pairwise=True, everyone=True), tmp_path, better)
    found = told(once, [file], key)
    values = {variant.name: variant.values("exact_match") or [] for variant in once[0].variants}
    for row in found["comparisons"]:
        pairs = zip(values[row["ours"]], values[row["theirs"]], strict=True)
        expected = [0.5 + 0.5 * (a or 0) - 0.5 * (b or 0) for a, b in pairs]
        assert row["win_rate"] == pytest.approx(stats.mean(expected))
        assert row["n"] == 24
    assert found["ranking"]["rows"][0]["variant"] == "raft"


def test_an_item_that_nobody_rated_does_not_count_and_is_told(once: Once, tmp_path: Path) -> None:
    file, key = rated(once, Wanted(), tmp_path, lambda item: "" if item.code.endswith("1") else "3")
    found = told(once, [file], key)
    missing = sum(item.code.endswith("1") for item in key.items)
    assert found["rated"] == found["items"] - missing
    assert sum(24 - row["n"] for row in found["variants"]) == sum(
        len(item.steps) for item in key.items if item.code.endswith("1")
    )
    assert f"{missing} of {len(key.items)} items are not rated by anybody: not counted." in found["notes"]


def test_an_answer_that_failed_counts_as_the_worst_and_as_lost(tmp_path: Path) -> None:
    failing = replace(written.VARIANTS[4], name="rag")  # its eighth answer fails, as written_store has it
    store, snapshot = written.write(tmp_path / "results", (written.VARIANTS[0], failing))
    here = results.read(snapshot, store), store
    file, key = rated(here, Wanted(), tmp_path / "marks", lambda item: "5")
    rag = told(here, [file], key)["variants"][1]
    assert (rag["failed"], rag["n"], rag["value"]) == (1, 24, pytest.approx((23 * 5 + 1) / 24))
    file, key = rated(here, Wanted(pairwise=True), tmp_path / "pairs", lambda item: "tie")
    row = told(here, [file], key)["comparisons"][0]
    assert (row["losses"], row["ties"]) == (1, 23)


def test_raters_are_averaged_and_their_agreement_is_told(once: Once, tmp_path: Path) -> None:
    one, key = rated(once, Wanted(), tmp_path, lambda item: "4" if right(once, item, item.steps[0]) else "2")
    two, _ = rated(once, Wanted(), tmp_path, lambda item: "5" if right(once, item, item.steps[0]) else "2", "ben")
    found = told(once, [one, two], key)
    table = [[4.0 if right(once, item, item.steps[0]) else 2.0 for item in key.items]]
    table.append([5.0 if mark == 4 else 2.0 for mark in table[0]])
    assert found["agreement"]["alpha"] == {level: alpha(table, level) for level in ("nominal", "ordinal", "interval")}
    (row,) = found["agreement"]["kappa"]
    assert (row["one"], row["two"], row["items"]) == ("anna", "ben", len(key.items))
    assert row["quadratic"] == kappa(table[0], table[1], weights="quadratic", categories=[1, 2, 3, 4, 5])
    assert set(found["raters"]) == {"anna", "ben"}
    assert not any("One rater alone" in note for note in found["notes"])


def test_one_rater_and_one_mark_for_all_have_no_agreement(once: Once, tmp_path: Path) -> None:
    file, key = rated(once, Wanted(), tmp_path, lambda item: "3")
    found = told(once, [file], key)
    assert set(found["agreement"]["alpha"].values()) == {None}
    assert found["agreement"]["kappa"] == []
    assert "One rater alone: how far another would agree is not known." in found["notes"]
    other, _ = rated(once, Wanted(), tmp_path, lambda item: "3", "ben")
    same = told(once, [file, other], key)["agreement"]
    assert set(same["alpha"].values()) == {None} == {same["kappa"][0]["none"]}


def test_a_pairwise_judge_is_compared_with_the_raters(once: Once, tmp_path: Path) -> None:
    judging.judge(judging.load(judge_file(tmp_path)), once[0].snapshot, once[1], lambda event: None)

    def better(item: Item) -> str:
        one, two = (right(once, item, step) for step in item.steps)
        return "tie" if one == two else "1" if one else "2"

    file, key = rated(once, Wanted(pairwise=True), tmp_path, better)
    (row,) = told(once, [file], key)["agreement"]["kappa"]
    assert (row["one"], row["two"], row["none"]) == ("anna", "judge fair", 1)
    assert row["items"] == len(key.items)


def test_a_judge_of_single_answers_is_compared_where_it_could_be_read(once: Once, tmp_path: Path) -> None:
    """A score of `llm_judge` as the pipeline leaves it, with a verdict that could not be read."""
    found, store = once
    variants, unread = [], found.examples[2].id
    for variant in found.variants:
        about = variant.scores["exact_match"][0]
        marks = tuple((1.0 + 4 * row[0],) if row else None for row in about.statistics)
        score = Score(
            name="quality", signature="llm_judge|scale:[1, 5]", direction="higher", unit="mark", floor=1.0, ceiling=5.0,
            reducer="mean", ids=about.ids, statistics=marks, errors=1,
        )  # fmt: skip
        name = written.write_step(
            store, "score", {"quality": variant.name}, {"details": {"unparsed_ids": [unread]}},
            lambda step, score=score: step.write_score(score),
        )  # fmt: skip
        runs = tuple(replace(run, steps={**run.steps, "score.quality": name}) for run in variant.runs)
        variants.append(replace(variant, runs=runs, scores={**variant.scores, "quality": (score,)}))
    metrics = {**found.metrics, "quality": variants[0].scores["quality"][0]}
    here = replace(found, variants=tuple(variants), metrics=metrics), store
    file, key = rated(once, Wanted(), tmp_path, lambda item: "5" if right(once, item, item.steps[0]) else "1")
    (row,) = told(here, [file], key)["agreement"]["kappa"]
    assert (row["two"], row["none"]) == ("judge quality", 1)
    assert row["items"] == sum(item.example != unread for item in key.items)


def test_the_command_writes_reads_and_shows_again(
    once: Once, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, _ = written.write(tmp_path / "results", THREE)
    where = ["rate", "support", "--results", str(store.root)]
    assert main(where) == 0
    assert "Nobody has rated" in capsys.readouterr().out
    file = tmp_path / "anna.csv"
    assert main([*where, "--out", str(file), "--pairwise", "--sample", "9"]) == 0
    assert "--read" in capsys.readouterr().err
    filled(file, BETTER, "1")
    assert main([*where, "--read", str(file)]) == 0
    first = capsys.readouterr().out
    for words in ("win rate", "Bradley-Terry", "Krippendorff's alpha (nominal): n/a", "anna"):
        assert words in first
    assert main(where) == 0
    assert capsys.readouterr().out == first
    assert main([*where, "--out", str(file)]) == 2
    assert main([*where, "--out", "x.csv", "--read", str(file)]) == 2
    assert main([*where, "--sample", "9"]) == 2
    assert "name its file, --out FILE" in capsys.readouterr().err
    file.write_text("item,rating\nx,1\n")
    assert main([*where, "--read", str(file)]) == 1
    assert "anna.csv:2: no item 'x'" in capsys.readouterr().err


def test_the_command_takes_scales_and_refuses_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, _ = written.write(tmp_path / "results", THREE)
    where = ["rate", "support", "--results", str(store.root), "--json"]
    for number, scale in enumerate(("yes/no", "0-10")):
        assert main([*where, "--out", str(tmp_path / f"{number}.csv"), "--scale", scale]) == 0
    assert "rating: 0 to 10" in (tmp_path / "1.csv").read_text(encoding="utf-8-sig")
    for scale in ("5-1", "good", "1"):
        with pytest.raises(SystemExit):
            main([*where, "--out", str(tmp_path / "x.csv"), "--scale", scale])
