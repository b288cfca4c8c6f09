"""Heading-aware chunks: budget, order, overlap, and that nothing is lost."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.chunkers.headings import Headings
from harness.records import Document, Passage

KB = Path(__file__).parents[2] / "specs" / "helpdesk" / "kb"


def words(text: str) -> int:
    """A stand-in for an embedder's tokenizer: words and marks, long words in pieces of four letters."""
    return sum(-(-len(piece) // 4) for piece in re.findall(r"\w+|[^\w\s]", text))


def cut(text: str, title: str = "", **fields: int) -> list[Passage]:
    return Headings(**fields).split(Document(id="doc", text=text, title=title), words)


def bare(text: str) -> str:
    """Only what a reader reads: no white space, no heading marks."""
    return re.sub(r"\s|#| > ", "", text)


ARTICLE = """# Returns

You have thirty days. Keep the box.

## How to send it back

Print the label. Put it on the parcel. Hand the parcel in at any shop.

## What it costs

### Small parcels

Nothing at all.

### Large parcels

Four euros each.
"""


def test_a_document_that_fits_is_one_passage_under_its_title() -> None:
    (passage,) = cut(ARTICLE, max_tokens=200)
    assert passage.id == "doc#0"
    assert passage.document == "doc"
    assert passage.text.startswith("Returns\nYou have thirty days.")
    assert "## How to send it back\n\nPrint the label." in passage.text


def test_a_longer_document_is_cut_at_headings_and_each_passage_names_its_own() -> None:
    texts = [passage.text for passage in cut(ARTICLE, max_tokens=36, overlap=0)]
    assert texts == [
        "Returns\nYou have thirty days. Keep the box.",
        "Returns > How to send it back\nPrint the label. Put it on the parcel. Hand the parcel in at any shop.",
        "Returns > What it costs\n### Small parcels\n\nNothing at all.\n\n### Large parcels\n\nFour euros each.",
    ]
    deepest = [passage.text for passage in cut(ARTICLE, max_tokens=22, overlap=0)]
    assert deepest[-2:] == [
        "Returns > What it costs > Small parcels\nNothing at all.",
        "Returns > What it costs > Large parcels\nFour euros each.",
    ]


def test_the_document_s_title_stands_first_unless_it_is_the_first_heading() -> None:
    assert cut("Denver won.", "Super Bowl 50")[0].text == "Super Bowl 50\nDenver won."
    assert cut("# A\n\nDenver won.", "Super Bowl 50")[0].text == "Super Bowl 50 > A\nDenver won."
    assert cut("# Super Bowl 50\n\nDenver won.", "Super Bowl 50")[0].text == "Super Bowl 50\nDenver won."


def test_cuts_fall_between_paragraphs_then_sentences_then_words() -> None:
    paragraphs = "One two three four five six.\n\nSeven eight nine ten eleven twelve."
    assert [p.text for p in cut(paragraphs, max_tokens=14, overlap=0)] == paragraphs.split("\n\n")
    sentences = "One two three four. Five six seven eight. Nine ten eleven twelve."
    assert [p.text for p in cut(sentences, max_tokens=13, overlap=0)] == [
        "One two three four. Five six seven eight.",
        "Nine ten eleven twelve.",
    ]
    run = " ".join(["word"] * 40)
    assert [words(p.text) for p in cut(run, max_tokens=16, overlap=0)] == [16, 16, 8]
    letters = "x" * 200
    assert [p.text for p in cut(letters, max_tokens=10, overlap=0)] == ["x" * 40] * 5


def test_a_short_paragraph_is_no_passage_of_its_own() -> None:
    text = "Updated today.\n\n" + " ".join(f"Sentence number {i} says little." for i in range(12))
    first, *_ = cut(text, max_tokens=40, overlap=0)
    assert first.text.startswith("Updated today.\n\nSentence number 0")


def test_pieces_repeat_whole_sentences_of_the_one_before() -> None:
    text = " ".join(f"Fact {i} holds here." for i in range(20))
    pieces = [passage.text for passage in cut(text, max_tokens=40, overlap=10)]
    assert len(pieces) > 2
    for before, after in pairwise(pieces):
        shared = next(n for n in range(len(after), 0, -1) if before.endswith(after[:n].strip()))
        assert after[:shared].strip().startswith("Fact")
        assert after[:shared].strip().endswith("here.")
        assert 0 < words(after[:shared]) <= 10


def test_headings_in_code_are_code() -> None:
    text = "# Setup\n\n```sh\n# install\nmake\n```\n\n~~~\n# more\n~~~\n\n## Next\n\nDone.\n"
    texts = [passage.text for passage in cut(text, max_tokens=24, overlap=0)]
    assert texts == ["Setup\n```sh\n# install\nmake\n```\n\n~~~\n# more\n~~~", "Setup > Next\nDone."]


def test_headings_without_text_and_documents_without_text() -> None:
    assert cut("") == []
    assert cut(" \n\n ", "Title") == []
    assert [p.text for p in cut("# Only a heading")] == ["Only a heading"]
    texts = [p.text for p in cut("# A\n\n# B\n\n" + "Word. " * 40, max_tokens=20, overlap=0)]
    assert texts[0] == "A"
    assert all(text.startswith("B\n") for text in texts[1:])


def test_a_very_long_heading_is_cut_like_text_and_outer_ones_are_left_out_first() -> None:
    long = " ".join(["heading"] * 60)
    passages = cut(f"# {long}\n\nBody text.", max_tokens=20, overlap=0)
    assert all(words(p.text) <= 20 for p in passages)
    assert bare("".join(p.text for p in passages)) == bare(long + "Body text.")
    nested = "# " + "outer " * 5 + "\n\n## inner\n\n" + "Word. " * 30
    assert all(p.text.startswith("inner\n") for p in cut(nested, max_tokens=18, overlap=0)[1:])


_SPACES = st.sampled_from([" ", " ", " ", "\n", "\n\n", ".\n\n", ". ", "? "])
_HEADS = st.integers(1, 4).map(lambda level: "\n\n" + "#" * level + " ")
_TEXT = st.lists(st.one_of(st.text("abcXYZ019,;:-()é", min_size=1, max_size=30), _SPACES, _HEADS), max_size=120).map(
    "".join
)


@settings(deadline=None)
@given(text=_TEXT, title=st.sampled_from(["", "Title"]), budget=st.integers(8, 60))
def test_every_word_stands_in_the_passages_in_order_and_within_the_budget(text: str, title: str, budget: int) -> None:
    passages = cut(text, title, max_tokens=budget, overlap=0)
    assert [p.id for p in passages] == [f"doc#{n}" for n in range(len(passages))]
    assert all(0 < words(p.text) <= budget for p in passages)
    # Headings are repeated above their pieces, so each word of the text must come again, in order, among the passages.
    wanted, given_ = bare(text), iter(bare("".join(p.text for p in passages)))
    assert all(letter in given_ for letter in wanted)


@settings(deadline=None)
@given(text=st.text(max_size=400), budget=st.integers(8, 40), overlap=st.integers(0, 20))
def test_any_text_at_all_is_cut_within_the_budget(text: str, budget: int, overlap: int) -> None:
    passages = cut(text, max_tokens=budget, overlap=overlap)
    assert all(words(p.text) <= budget for p in passages)
    kept, found = iter(bare("".join(p.text for p in passages))), bare(text)
    assert all(letter in kept for letter in found)


@settings(deadline=None)
@given(text=st.text("ab .\n?", max_size=400), budget=st.integers(8, 40))
def test_without_headings_and_overlap_the_passages_are_the_text(text: str, budget: int) -> None:
    passages = cut(text, max_tokens=budget, overlap=0)
    assert "".join("".join(p.text.split()) for p in passages) == "".join(text.split())


def test_a_long_document_is_cut_in_reasonable_time() -> None:
    calls = 0

    def counted(text: str) -> int:
        nonlocal calls
        calls += len(text)
        return words(text)

    text = "\n\n".join(" ".join(f"Sentence {j} of part {i} is here." for j in range(8)) for i in range(400))
    passages = Headings(max_tokens=100, overlap=20).split(Document(id="d", text=text), counted)
    assert len(passages) > 200
    assert calls < 40 * len(text), "the counted text grows with the document, not with its square"


@pytest.mark.skipif(not KB.is_dir(), reason="the help-desk articles are not there")
def test_real_articles_keep_every_word() -> None:
    for file in sorted(KB.glob("*.md")):
        text = file.read_text(encoding="utf-8")
        for budget in (60, 200):
            passages = Headings(max_tokens=budget, overlap=0).split(Document(id=file.stem, text=text), words)
            title = text.splitlines()[0].lstrip("# ")
            assert all(p.text.startswith(title) for p in passages)
            body = "".join(p.text.partition("\n")[2] for p in passages)
            kept = iter(bare(body))
            plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
            assert all(letter in kept for letter in bare(plain))
