"""Documents from folders and rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import documents
from harness.errors import DataError
from harness.records import Document

PAGE = """<!doctype html><html><head><title>How to
 return</title><style>p { color: red }</style><script>let a = "<p>no</p>";</script></head>
<body><h1>Returns &amp; refunds</h1><p>Within <b>30</b> days,<br>unused.</p>
<h2>Steps</h2><ul><li>Print the label</li><li>Pack it</li></ul>
<table><tr><th>Zone</th><th>Fee</th></tr><tr><td>A</td><td>EUR 4</td></tr></table>
<pre>code
  kept</pre></body></html>"""


def test_a_folder_gives_its_files_sorted_with_their_titles(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# The Brio #\n\nProse.\n")
    (tmp_path / "a.txt").write_text("plain # text")
    (tmp_path / "c.md").write_text('---\ntitle: "Old note"\ndate: 2023\n---\n# Heading\n\nBody\n')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.html").write_text(PAGE)
    (tmp_path / ".hidden.md").write_text("never read")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    found, notes = documents.load(str(tmp_path))
    assert [(d.id, d.title) for d in found] == [
        ("a", ""),
        ("b", "The Brio"),
        ("c", "Old note"),
        ("sub/b", "How to return"),
    ]
    assert found[2].text == "# Heading\n\nBody\n"
    assert len(notes) == 1
    assert "1 files of other kinds" in notes[0]
    assert ".png" in notes[0]
    assert str(tmp_path) not in notes[0], "results are shown to others"


def test_html_becomes_what_a_reader_would_read_with_headings_and_lists() -> None:
    text, title = documents.markdown(PAGE)
    assert title == "How to return"
    assert text == (
        "# Returns & refunds\n\nWithin 30 days,\nunused.\n\n## Steps\n\n- Print the label\n\n- Pack it\n\n"
        "Zone Fee\n\nA EUR 4\n\ncode\nkept"
    )


@pytest.mark.parametrize(
    "html",
    [
        "<p>one <b>two",
        "<head><title>x<p>lost",
        "one</div></p>",
        "<body><script>if (a < b) {}</script>one",
        "<!-- c -->one",
    ],
)
def test_careless_html_is_read_all_the_same(html: str) -> None:
    text, _ = documents.markdown(html)
    assert "script" not in text
    assert "if (a" not in text
    assert ("one" in text) == ("one" in html)


def test_rows_are_documents_too(tmp_path: Path) -> None:
    path = tmp_path / "kb.jsonl"
    path.write_text('{"id": 7, "text": "Seven", "title": "T"}\n{"_id": "b", "text": "As BEIR writes it"}\n')
    found, notes = documents.load(str(path))
    assert found == (
        Document(id="7", text="Seven", title="T"),
        Document(id="b", text="As BEIR writes it"),
    )
    assert notes == ()


def test_each_paragraph_of_squad_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "squad.json"
    questions = [{"id": str(i), "question": f"q{i}", "answers": [{"text": "x"}]} for i in range(3)]
    paragraphs = [{"context": "One.", "qas": questions}, {"context": "Two.", "qas": []}]
    path.write_text(json.dumps({"data": [{"title": "A_b", "paragraphs": paragraphs}]}))
    found, _ = documents.load(str(path))
    assert [(d.text, d.title) for d in found] == [("One.", "A b"), ("Two.", "A b")]
    assert len({d.id for d in found}) == 2


def test_every_fault_of_the_documents_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "kb.jsonl"
    lines = [{"id": 1, "body": "x"}, {"text": "y"}, {"id": "a", "text": "z"}]
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError) as caught:
        documents.load(str(path))
    assert "kb.jsonl:1: a document needs 'text'. Available: body, id." in str(caught.value)
    assert "kb.jsonl:2: a document needs 'id'." in str(caught.value)
    path.write_text(
        "\n".join(json.dumps({"id": name, "text": text}) for name, text in [("a", "x"), ("a", "y"), ("b", " ")])
    )
    with pytest.raises(DataError) as caught:
        documents.load(str(path))
    assert "kb.jsonl:2: document id 'a' stands twice, first at" in str(caught.value)
    assert "kb.jsonl:3: the document has no text" in str(caught.value)


def test_a_folder_without_documents_and_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no documents\. Allowed: \.md, .*\.html"):
        documents.load(str(tmp_path))
    (tmp_path / "a.md").write_text("one")
    (tmp_path / "a.txt").write_text("two")
    with pytest.raises(DataError, match=r"a\.txt: document id 'a' stands twice, first at .*a\.md"):
        documents.load(str(tmp_path))
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"a\.txt:1: not UTF-8"):
        documents.load(str(tmp_path))
