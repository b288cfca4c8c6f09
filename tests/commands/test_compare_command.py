"""`harness compare`: what it prints of two runs and of two experiments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import written_store as written

from harness.cli import main


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare")
    written.write(root)
    written.write(root, name="fewer", rows=written.examples()[6:])
    return root


def called(capsys: pytest.CaptureFixture[str], root: Path, *arguments: str) -> tuple[int, str, str]:
    status = main(["compare", *arguments, "--results", str(root)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_two_variants_of_one_experiment_in_words(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capsys, root, "support", "zero-shot", "raft", "--examples", "1")
    assert (status, err) == (0, "")
    assert out.startswith("A support@1:zero-shot\nB support@1:raft\n")
    assert "exact_match (higher is better) on 24 held-out examples in 8 groups. Differences are B − A." in out
    assert "B is better than A: sign-flip permutation by group" in out and ", p = " in out
    lines = out.splitlines()
    for start, parts in {
        "A ": ("%", "Wilson"),
        "B − A": ("+", "paired t, clustered by group"),
        "p50 latency": ("610 ms", "1.3 s", "2.15 times"),
        "training": ("0 s", "7 min 12 s"),
        "fixed in B:": (),
        "broken in B:": (),
        "wrong in both:": (),
        "right in both:": (),
    }.items():
        assert any(line.startswith(start) and all(part in line for part in parts) for line in lines), start
    assert sum(line.startswith("    gold ") for line in lines) <= 3
    # What a model wrote is shown as text, never as codes.
    assert "\x1b" not in out


def test_the_three_ways_to_name_two_runs_come_to_the_same(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = called(capsys, root, "support", "rag", "raft")
    assert called(capsys, root, "support:rag", "support:raft") == first
    assert called(capsys, root, "support@1:rag", "support:raft") == first


def test_json_holds_what_is_printed_and_more(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(capsys, root, "support", "rag", "raft", "--metric", "token_f1", "--json")
    found = json.loads(out)
    assert status == 0 and found["metric"]["name"] == "token_f1"
    (pair,) = found["pairs"]
    assert pair["difference"]["value"] == pytest.approx(pair["value_b"]["value"] - pair["value_a"]["value"])
    assert {"p", "p_adjusted", "test", "verdict", "wins", "losses", "ties", "effect_size", "minimum_detectable",
            "needed", "cost", "settings", "changed", "non_inferiority", "equivalence"} <= pair.keys()  # fmt: skip


def test_what_is_shown_within_a_margin_is_said_and_stands_in_the_json(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = called(capsys, root, "support", "zero-shot", "raft")
    assert (
        "B is no worse than A by more than 2.0 points: shown (score test of paired shares, clustered by group, " in out
    )
    assert "That B is within 2.0 points of A is not shown (two one-sided score tests" in out
    _, out, _ = called(capsys, root, "support", "raft", "zero-shot", "--margin", "0.1", "--json")
    found = json.loads(out)
    (pair,) = found["pairs"]
    assert found["margin"] == pair["non_inferiority"]["margin"] == 0.1
    assert (pair["non_inferiority"]["holds"], pair["equivalence"]["holds"]) == (False, False)
    _, out, _ = called(capsys, root, "support", "fewer", "--only-common")
    assert "B to A: shown to be no worse by more than 2.0 points, or as good: within 2.0 points either way" in out
    assert "p adjusted by Holm; --margin" in out


@pytest.mark.parametrize(
    ("margin", "message"),
    [("-1", "must be a number of at least 0"), ("two", "must be a number"), ("2", "2 points are 0.02")],
)
def test_a_margin_that_says_nothing_is_wrong_usage(
    root: Path, capsys: pytest.CaptureFixture[str], margin: str, message: str
) -> None:
    try:
        status, _, err = called(capsys, root, "support", "rag", "raft", f"--margin={margin}")
    except SystemExit as end:
        status, err = int(end.code or 0), capsys.readouterr().err
    assert status == 2 and message in err


def test_two_experiments_in_one_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(capsys, root, "support", "fewer", "--only-common")
    assert status == 0
    assert "on only the 18 common examples in 6 groups (of 24 and of 18)" in out
    assert "adjusted by Holm over 5 variants" in out
    assert "Not compared: lora-64 has failed in support@1 and has failed in fewer@1." in out
    names = [planned.name for planned in written.VARIANTS if not planned.failed]
    shown = [line.split()[0] for line in out.splitlines() if line]
    assert [word for word in shown if word in names] == names


def test_words_of_the_table_of_pairs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A detectable difference has no sign, a seed's lone comparison no adjustment."""
    _, out, _ = called(capsys, root, "support", "fewer", "--only-common")
    assert "+" not in "".join(line[-12:] for line in out.splitlines() if line.startswith(("few-shot", "rag")))
    _, out, _ = called(capsys, root, "support:rag", "support:rag@0")
    assert "no test (equal on every example)" in out and "test n/a" not in out


def test_other_examples_are_refused_with_the_way_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = called(capsys, root, "support:rag", "fewer:rag")
    assert (status, out) == (1, "")
    assert "only support@1 has kb-003-1" in err and "--only-common compares them on the 18" in err


@pytest.mark.parametrize("sides", [["support"], ["support", "a", "b", "c"], ["support:rag", "a", "b"]])
def test_any_other_number_of_sides_is_wrong_usage(
    root: Path, capsys: pytest.CaptureFixture[str], sides: list[str]
) -> None:
    status, out, err = called(capsys, root, *sides)
    assert (status, out) == (2, "") and "harness compare helpdesk rag raft" in err


def test_another_results_folder_for_b(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written.write(tmp_path, written.VARIANTS[:2], name="other")
    status, out, _ = called(capsys, root, "support:few-shot", "other:few-shot", "--other-results", str(tmp_path))
    assert status == 0 and "B other@1:few-shot" in out
    assert "It cannot be told which is better" in out and "fixed in B: 0" in out
