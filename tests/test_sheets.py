"""Sheets for raters: blank, blinded, safe to open, and read back with every fault named by its line."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
import written_store as written
from hypothesis import given
from hypothesis import strategies as st

from harness import archive, results, sheets
from harness.errors import DataError, HarnessError, UsageError
from harness.results import Results
from harness.sheets import Key, Wanted
from harness.store import Store

THREE = (written.VARIANTS[0], written.VARIANTS[1], written.VARIANTS[4])


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Store]:
    store, snapshot = written.write(tmp_path_factory.mktemp("rated"), THREE)
    return results.read(snapshot, store), store


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline="")))


def filled(file: Path, column: str, value: str = "4", **changes: str) -> Path:
    """Fill in a sheet: `value` everywhere, but for the items in `changes` (by code)."""
    found = rows(file)
    for row in found:
        row[column] = changes.get(row["item"], value)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(found[0]))
    writer.writeheader()
    writer.writerows(found)
    file.write_text(text.getvalue(), encoding="utf-8")
    return file


RATING, BETTER = "rating: 1 to 5", "better: 1, 2 or tie"


# --------------------------------------------------------------------------------------------------------- writing


def test_a_sheet_names_no_variant_and_shows_each_answer_once(once: tuple[Results, Store], tmp_path: Path) -> None:
    found, store = once
    key = sheets.write(Wanted(), found, store, tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text(encoding="utf-8-sig")
    assert all(variant.name not in text for variant in found.variants)
    shown = rows(tmp_path / "a.csv")
    assert list(shown[0]) == ["item", "question", "accepted answers", "answer", RATING, "rater"]
    assert len({(row["question"], row["answer"]) for row in shown}) == len(shown) == len(key.items) < 3 * 24
    assert all(row[RATING] == row["rater"] == "" for row in shown)
    assert sum(len(item.steps) for item in key.items) == 3 * 24


def test_the_key_tells_whose_answer_each_row_holds(once: tuple[Results, Store], tmp_path: Path) -> None:
    found, store = once
    key = sheets.write(Wanted(), found, store, tmp_path / "a.csv")
    by_code = {item.code: item for item in key.items}
    for row in rows(tmp_path / "a.csv"):
        item = by_code[row["item"]]
        for step in item.steps:
            answer = store.step(step).prediction(item.example).text or ""
            assert row["answer"] == sheets.cell(answer)
    assert key in sheets.keys(found, store)


def test_the_order_is_drawn_by_the_seed_and_the_same_request_gives_the_same_sheet(
    once: tuple[Results, Store], tmp_path: Path
) -> None:
    found, store = once
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        sheets.write(Wanted(pairwise=True, seed=seed), found, store, tmp_path / f"{name}.csv")
    a, b, c = ((tmp_path / f"{name}.csv").read_bytes() for name in "abc")
    assert a == b != c
    questions = [row["question"] for row in rows(tmp_path / "a.csv")]
    assert questions != sorted(questions, key=questions.index)  # the rows of one question do not stand together


def test_a_pair_shows_its_answers_on_either_side_and_equal_ones_are_not_asked(
    once: tuple[Results, Store], tmp_path: Path
) -> None:
    found, store = once
    key = sheets.write(Wanted(pairwise=True), found, store, tmp_path / "a.csv")
    base = key.answers["zero-shot"]
    sides = {item.steps.index(base) for item in key.items}
    assert sides == {0, 1}
    assert len(key.items) + len(key.known) == 2 * 24
    assert all(row["answer 1"] != row["answer 2"] for row in rows(tmp_path / "a.csv"))
    everyone = sheets.write(Wanted(pairwise=True, everyone=True), found, store, tmp_path / "b.csv")
    assert len(everyone.items) + len(everyone.known) == 3 * 24


def test_a_sample_takes_the_same_examples_of_every_variant(once: tuple[Results, Store], tmp_path: Path) -> None:
    found, store = once
    key = sheets.write(Wanted(sample=5), found, store, tmp_path / "a.csv")
    assert len(key.examples) == 5
    assert {item.example for item in key.items} == set(key.examples)
    assert sum(len(item.steps) for item in key.items) == 15


def test_a_file_that_is_there_is_never_overwritten(once: tuple[Results, Store], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("ratings of a week")
    with pytest.raises(UsageError, match="is there already, and may hold ratings"):
        sheets.write(Wanted(), *once, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "ratings of a week"


def test_where_all_answers_are_equal_there_is_nothing_to_rate(tmp_path: Path) -> None:
    answers = [replace(written.VARIANTS[0], skill=1.0), replace(written.VARIANTS[0], name="zero-shot", skill=1.0)]
    store, snapshot = written.write(tmp_path / "results", answers[:1])
    with pytest.raises(HarnessError, match="1 complete variants: too few"):
        sheets.write(Wanted(pairwise=True), results.read(snapshot, store), store, tmp_path / "a.csv")


def test_a_key_is_in_use_as_long_as_the_answers(once: tuple[Results, Store], tmp_path: Path) -> None:
    sheets.write(Wanted(seed=9), *once, tmp_path / "a.csv")
    assert archive.gc(once[1]) == []


# ------------------------------------------------------------------------------------------------- hostile answers


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\n=1", "\r=1", "\x1b[31m=1", "\uff1dcmd", "=cmd|' /C calc'!A0"],
)
def test_what_would_be_a_formula_is_text(text: str) -> None:
    assert sheets.cell(text).startswith("'")


def test_what_is_no_formula_stays_as_it_is() -> None:
    for text in ("24 months", "EUR 14.50", "a = b", "5 - 3", "", "l'été"):
        assert sheets.cell(text) == text


@given(st.text(max_size=40))
def test_no_cell_begins_a_formula_or_holds_control_characters(text: str) -> None:
    shown = sheets.cell(text)
    assert not shown.lstrip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert not any(ord(character) < 32 and character not in "\n\t" for character in shown)


def test_hostile_answers_stay_in_their_cells(once: tuple[Results, Store], tmp_path: Path) -> None:
    key = sheets.write(Wanted(), *once, tmp_path / "a.csv")
    assert len(rows(tmp_path / "a.csv")) == len(key.items)
    assert "\x1b" not in (tmp_path / "a.csv").read_text(encoding="utf-8-sig")
    assert any("<script>" in row["answer"] for row in rows(tmp_path / "a.csv"))


# --------------------------------------------------------------------------------------------------------- reading


def sheet(once: tuple[Results, Store], file: Path, wanted: Wanted | None = None) -> Key:
    return sheets.write(wanted or Wanted(), *once, file)


def test_ratings_come_back_by_rater_and_item(once: tuple[Results, Store], tmp_path: Path) -> None:
    key = sheet(once, tmp_path / "anna.csv")
    first, second = key.items[0].code, key.items[1].code
    (tmp_path / "ben.csv").write_bytes((tmp_path / "anna.csv").read_bytes())
    filled(tmp_path / "anna.csv", RATING, "4", **{first: "1", second: ""})
    filled(tmp_path / "ben.csv", RATING, "", **{first: " 5.0 "})
    found, ratings = sheets.read([tmp_path / "anna.csv", tmp_path / "ben.csv"], [key])
    assert found == key
    assert ratings["anna"][first] == 1 and second not in ratings["anna"]
    assert ratings["anna"][key.items[2].code] == 4
    assert ratings["ben"] == {first: 5}


def test_choices_and_yes_or_no_are_numbers(once: tuple[Results, Store], tmp_path: Path) -> None:
    key = sheet(once, tmp_path / "a.csv", Wanted(pairwise=True))
    one, two, three = (item.code for item in key.items[:3])
    filled(tmp_path / "a.csv", BETTER, "", **{one: "1", two: "Tie", three: "2"})
    assert sheets.read([tmp_path / "a.csv"], [key])[1]["a"] == {one: 1, two: 0.5, three: 0}
    key = sheet(once, tmp_path / "b.csv", Wanted(scale=None))
    filled(tmp_path / "b.csv", "rating: yes or no", "", **{key.items[0].code: "Yes", key.items[1].code: "no"})
    assert list(sheets.read([tmp_path / "b.csv"], [key])[1]["b"].values()) == [1, 0]


def test_a_column_may_name_the_rater_and_a_spreadsheet_may_change_the_separator(
    once: tuple[Results, Store], tmp_path: Path
) -> None:
    key = sheet(once, tmp_path / "a.csv")
    code = key.items[0].code
    (tmp_path / "a.csv").write_text(
        f"item;question;accepted answers;answer;{RATING};rater\n{code};q;a;b;3;Zoe\n{code};q;a;b;2,0;Yan\n;;;;;\n"
    )
    assert sheets.read([tmp_path / "a.csv"], [key])[1] == {"Yan": {code: 2}, "Zoe": {code: 3}}


def test_an_answer_of_any_length_is_read_back(once: tuple[Results, Store], tmp_path: Path) -> None:
    key = sheet(once, tmp_path / "a.csv")
    before = csv.field_size_limit(131_072)  # Python's own, which another reader in this process may have raised
    code = key.items[0].code
    (tmp_path / "b.csv").write_text(f'item,answer,rating\n{code},"{"long " * 40_000}",4\n')
    try:
        assert sheets.read([tmp_path / "b.csv"], [key])[1] == {"b": {code: 4}}
    finally:
        csv.field_size_limit(before)


def test_every_fault_is_named_by_its_line(once: tuple[Results, Store], tmp_path: Path) -> None:
    key = sheet(once, tmp_path / "a.csv")
    one, two = key.items[0].code, key.items[1].code
    lines = [
        f"item,question,{RATING}",
        f'{one},"two\nlines",6',
        f"{two},q,good",
        f"{two},q,3",
        f"{two},q,4",
        "zzz-0001,q,4",
        f"{one.partition('-')[0]}-9999,q,4",
    ]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        sheets.read([tmp_path / "a.csv"], [key])
    told = str(caught.value).splitlines()
    assert [line.partition("a.csv:")[2].partition(":")[0] for line in told] == ["2", "4", "6", "7", "8"]
    assert "'6' is no rating; allowed are 1, 2, 3, 4, 5, or nothing" in told[0]
    assert f"a has rated {two} before" in told[2]
    assert "no item 'zzz-0001'" in told[3]


def test_two_sheets_are_not_mixed_and_an_empty_one_is_told(once: tuple[Results, Store], tmp_path: Path) -> None:
    one, two = sheet(once, tmp_path / "a.csv"), sheet(once, tmp_path / "b.csv", Wanted(seed=3))
    with pytest.raises(DataError, match="no item is rated yet"):
        sheets.read([tmp_path / "a.csv"], [one, two])
    filled(tmp_path / "a.csv", RATING)
    filled(tmp_path / "b.csv", RATING)
    with pytest.raises(DataError, match="several sheets"):
        sheets.read([tmp_path / "a.csv", tmp_path / "b.csv"], [one, two])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the columns `item` and `rating` or `better` are not there"),
        (b"question,answer\nq,a\n", "the columns `item` and `rating` or `better` are not there"),
        (b"item,rating\nx,\xff\n", "is not UTF-8"),
        # How large a cell may be is one figure for the whole process, which reading data raises.
        (b'item,rating\n"' + b"x" * 200_000 + b'",1\n', "cannot be read as CSV: field larger|:2: no item 'x{39}…'"),
    ],
    ids=["empty", "columns", "encoding", "a huge cell"],
)
def test_a_file_that_is_no_sheet_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=said):
        sheets.read([tmp_path / "a.csv"], [])


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused_with_a_message(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "a.csv")
        file.write_bytes(b"item,rating\n" + content)
        with pytest.raises(DataError):
            sheets.read([file], [])
