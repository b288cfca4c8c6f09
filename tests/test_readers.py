"""Rows from files of every kind, and what is said where a file is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import readers
from harness.errors import DataError

ROWS = [{"question": "Where?", "answer": "here"}, {"question": 'Wann, "bitte"?\nHeute?', "answer": "später"}]
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Super_Bowl",
            "paragraphs": [
                {
                    "context": "Denver won.",
                    "qas": [
                        {"id": "q1", "question": "Who won?", "answers": [{"text": "Denver", "answer_start": 0}]},
                        {"id": "q2", "question": "Who sang?", "answers": [], "is_impossible": True},
                    ],
                },
                {"context": "It rained.", "qas": []},
            ],
        }
    ],
}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(path: Path | str, role: str = "rows") -> list[dict[str, object]]:
    return list(readers.read(str(path), role).rows)


def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path) -> None:
    import pandas

    write(tmp_path / "a.jsonl", "\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS))
    write(tmp_path / "b.json", json.dumps(ROWS))
    write(tmp_path / "c.json", json.dumps({"data": ROWS}))
    pandas.DataFrame(ROWS).to_csv(tmp_path / "d.csv", index=False)
    pandas.DataFrame(ROWS).to_csv(tmp_path / "e.tsv", index=False, sep="\t")
    pandas.DataFrame(ROWS).to_parquet(tmp_path / "f.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert rows_of(path) == ROWS, path.name


def test_a_place_names_the_line_on_which_a_row_begins(tmp_path: Path) -> None:
    table = readers.read(str(write(tmp_path / "a.jsonl", '\n{"a": 1}\n\n{"a": 2}\n')))
    assert [table.place(i).rpartition("/")[2] for i in range(2)] == ["a.jsonl:2", "a.jsonl:4"]
    table = readers.read(str(write(tmp_path / "a.csv", 'a,b\n1,"two\nlines"\n3,4\n')))
    assert [table.place(i).rpartition("/")[2] for i in range(2)] == ["a.csv:2", "a.csv:4"]
    table = readers.read(str(write(tmp_path / "a.json", '[{"a": 1}]')))
    assert table.place(0).endswith("a.json row 1")


def test_a_line_separator_inside_json_text_ends_no_line(tmp_path: Path) -> None:
    row = {"text": "one\u2028two\x85three"}
    assert rows_of(write(tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False))) == [row]


@given(
    rows=st.lists(st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.none(), min_size=1), min_size=1)
)
def test_whatever_json_wrote_is_read_back(
    rows: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    expected = [row for row in rows if not ("context" in row and "answers" in row)]
    assert [row for row in rows_of(path) if "paragraph" not in row] == [
        row for row in expected if "paragraph" not in row
    ]


def test_squad_questions_become_rows_with_their_paragraph(tmp_path: Path) -> None:
    path = write(tmp_path / "squad.json", json.dumps(SQUAD))
    first, second = rows_of(path)
    assert first["question"] == "Who won?"
    assert first["answers"] == {"text": ["Denver"]}
    assert first["title"] == "Super Bowl"
    assert second["answers"] == {"text": [""]}, "SQuAD v2.0: the right answer to an unanswerable question is empty"
    assert first["paragraph"] == second["paragraph"]
    assert len(rows_of(path, "documents")) == 3, "a paragraph without questions is a document all the same"


def test_flat_squad_rows_as_the_hub_has_them_name_the_same_paragraph(tmp_path: Path) -> None:
    nested = rows_of(write(tmp_path / "squad.json", json.dumps(SQUAD)))[0]
    flat = {"question": "Who won?", "context": "Denver won.", "answers": {"text": ["Denver"], "answer_start": [0]}}
    assert rows_of(write(tmp_path / "flat.jsonl", json.dumps(flat)))[0]["paragraph"] == nested["paragraph"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "", "is empty"),
        ("a.json", " ", "is empty"),
        ("a.csv", "question,answer\n", "is empty"),
        ("a.json", "[]", "is empty"),
        ("a.jsonl", '{"a": 1}\n{"a": 2,}\n{"a": 3}', r"a\.jsonl:2: broken JSON: .* column \d+: \{\"a\": 2,\}"),
        ("a.jsonl", '{"a": 1}\n[1]\n"x"', r"a\.jsonl:2: a line must hold one object.*\n.*a\.jsonl:3: "),
        ("a.jsonl", b'{"a": "ok"}\n{"a": "caf\xe9"}', r"a\.jsonl:2: not UTF-8 \(byte 0xe9\)"),
        ("a.json", '[\n{"a": 1},\n{"a" 2}]', r"a\.json:3: broken JSON"),
        ("a.json", '{"a": 1}\n{"a": 2}', r"name the file \.jsonl"),
        ("a.json", '{"rows": []}', "must hold a list of rows"),
        ("a.json", '[{"a": 1}, 2]', r"a\.json row 2: must be an object"),
        ("a.json", '{"data": [{"paragraphs": [{"text": "x"}]}]}', r"not SQuAD's format .* KeyError 'context'"),
        ("a.csv", "a,b\n1,2\n3\n4,5,6\n", r"a\.csv:3: 1 field, but the header has 2 \(a, b\)\n.*a\.csv:4: 3 fields"),
        ("a.csv", 'a,b\n1,2\n"3,4\n', r"a\.csv:3: broken CSV"),
        ("a.csv", "a,b,a\n1,2,3\n", "names 'a' more than once"),
        ("a.parquet", "no parquet at all", "broken Parquet"),
        ("a.xlsx", "x", r"Allowed: \.jsonl, .*\.parquet"),
    ],
)
def test_a_broken_file_is_named_with_its_line(name: str, content: str | bytes, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=r"(?s)" + said) as caught:
        readers.read(str(path))
    assert str(path) in str(caught.value)


def test_the_first_ten_broken_lines_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", "\n".join(["{"] * 25))
    with pytest.raises(DataError) as caught:
        readers.read(str(path))
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 15 more"


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        readers.read(str(tmp_path / "nothing.jsonl"))
    with pytest.raises(DataError, match="is a folder"):
        readers.read(str(tmp_path))


def test_a_saved_datasets_folder_is_read_by_the_split_its_role_names(tmp_path: Path) -> None:
    import datasets

    splits = {name: datasets.Dataset.from_list([{"text": name}]) for name in ("train", "validation", "test")}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    roles = {"train": "train", "dev": "validation", "heldout": "test", "rows": "train"}
    assert {role: rows_of(tmp_path / "saved", role)[0]["text"] for role in roles} == roles
    datasets.DatasetDict(a=splits["train"], b=splits["test"]).save_to_disk(str(tmp_path / "odd"))
    with pytest.raises(DataError, match=r"none is named for heldout.*Splits: a, b\."):
        readers.read(str(tmp_path / "odd"), "heldout")


def test_a_hub_id_goes_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`load_dataset` takes a folder "owner/name" below the working folder for the repository of that name: the same
    code path as the Hub's, less the download."""
    import datasets

    repository = tmp_path / "owner" / "name"
    repository.mkdir(parents=True)
    for split in ("train", "test"):
        write(repository / f"{split}.jsonl", json.dumps({"text": split}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    assert rows_of("hf:owner/name:test") == [{"text": "test"}]
    assert rows_of("hf:owner/name", "heldout") == [{"text": "test"}]
    with pytest.raises(DataError, match=r"hf:owner/name:dev could not be loaded from the Hub: .*dev"):
        readers.read("hf:owner/name:dev")


def test_a_hub_id_that_cannot_be_had_is_a_data_error() -> None:
    with pytest.raises(DataError, match="hf:no-such-owner/no-such-name could not be loaded from the Hub"):
        readers.read("hf:no-such-owner/no-such-name")
    with pytest.raises(DataError, match=r"is written hf:owner/name\[/config\]\[:split\]"):
        readers.read("hf:a/b/c/d")
