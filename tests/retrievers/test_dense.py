"""The dense retriever: exact, in a fixed order, kept on disk in plain files."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.chunkers.headings import Headings
from harness.errors import DataError, ModelError, StoreError
from harness.plugins import Embedding
from harness.records import Document
from harness.retrievers.dense import Dense

KB = Path(__file__).parents[2] / "specs" / "helpdesk" / "kb"


class Bags(Embedding):
    """A real, if simple, embedder: hashed bags of words, as unit vectors."""

    dimension = 64
    max_tokens = 50

    def embed(self, texts: Sequence[str], *, role: Literal["query", "document"]) -> npt.NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                vectors[row, hashlib.sha256(word.encode()).digest()[0] % self.dimension] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def count(self, text: str) -> int:
        return len(text.split())


def documents(*texts: str) -> list[Document]:
    return [Document(id=f"d{number}", text=text) for number, text in enumerate(texts)]


RETRIEVER = Dense(chunker=Headings(max_tokens=40, overlap=0))
TEXTS = ("the parcel is late", "the machine leaks water", "late fees are charged", "water filters for the machine")


def built(folder: Path, *texts: str) -> Path:
    folder.mkdir()
    RETRIEVER.build(documents(*texts), folder, Bags())
    return folder


def test_the_nearest_passages_come_first_with_rank_and_score(tmp_path: Path) -> None:
    index = RETRIEVER.open(built(tmp_path / "index", *TEXTS), Bags())
    (found,) = index.search(["machine leaks"], 3)
    assert [passage.document for passage in found][:2] == ["d1", "d3"]
    assert [passage.rank for passage in found] == [1, 2, 3]
    assert found[0].score == pytest.approx(2 / np.sqrt(2 * 4), abs=1e-5)
    assert found[0].id == "d1#0"
    assert found[0].text == TEXTS[1]


def test_the_index_is_plain_files_and_names_what_made_it(tmp_path: Path) -> None:
    folder = built(tmp_path / "index", *TEXTS)
    assert sorted(file.name for file in folder.iterdir()) == ["index.faiss", "index.json", "passages.jsonl"]
    about = json.loads((folder / "index.json").read_text())
    assert (about["documents"], about["passages"], about["dimension"]) == (4, 4, 64)
    assert about["settings"] == RETRIEVER.settings(built=True)
    lines = (folder / "passages.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["d0#0", "d1#0", "d2#0", "d3#0"]
    assert [passage.id for passage in RETRIEVER.open(folder, Bags()).passages()] == ["d0#0", "d1#0", "d2#0", "d3#0"]


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = built(tmp_path / "one", *TEXTS), built(tmp_path / "other", *TEXTS)
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes(), file.name


def test_equal_scores_stand_in_the_order_of_passage_ids_however_many_there_are(tmp_path: Path) -> None:
    index = RETRIEVER.open(built(tmp_path / "index", *["same words here"] * 50, "same words"), Bags())
    (found,) = index.search(["same words here"], 4)
    assert [passage.id for passage in found] == ["d0#0", "d1#0", "d10#0", "d11#0"]
    (nothing_alike,) = index.search(["zebra"], 3)
    assert len(nothing_alike) == 3


def test_more_than_there_are_gives_all_and_no_questions_give_nothing(tmp_path: Path) -> None:
    index = RETRIEVER.open(built(tmp_path / "index", *TEXTS), Bags())
    (found,) = index.search(["late"], 100)
    assert len(found) == 4
    assert index.search([], 3) == []


def test_an_answer_does_not_depend_on_the_questions_asked_with_it(tmp_path: Path) -> None:
    index = RETRIEVER.open(built(tmp_path / "index", *TEXTS), Bags())
    queries = [
        f"{a} {b}" for a in ("parcel", "machine", "water", "late", "fees") for b in ("the", "is", "for", "leaks", "x")
    ]
    together = index.search(queries, 2)
    assert together == [index.search([query], 2)[0] for query in queries]


@settings(deadline=None, max_examples=30)
@given(
    texts=st.lists(
        st.lists(st.sampled_from(["red", "kettle", "mill", "beans", "water"]), min_size=1).map(" ".join), min_size=1
    ),
    query=st.lists(st.sampled_from(["red", "kettle", "mill", "tea"]), min_size=1).map(" ".join),
    k=st.integers(1, 6),
)
def test_search_is_exact(texts: list[str], query: str, k: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    texts = [" ".join(text.split()[:30]) for text in texts]
    index = RETRIEVER.open(built(tmp_path_factory.mktemp("exact") / "index", *texts), Bags())
    scores = (Bags().embed(texts, role="document") @ Bags().embed([query], role="query")[0]).tolist()
    (found,) = index.search([query], k)
    assert [passage.score for passage in found] == pytest.approx(sorted(scores, reverse=True)[:k], abs=2e-5)
    assert [scores[int(passage.document[1:])] for passage in found] == pytest.approx([p.score for p in found], abs=2e-5)
    assert found == sorted(found, key=lambda passage: (-(passage.score or 0), passage.id))
    left_out = {f"d{i}#0" for i in range(len(texts))} - {passage.id for passage in found}
    last = found[-1]
    assert all(scores[int(name[1:-2])] <= (last.score or 0) + 2e-5 for name in left_out)
    assert not any(round(scores[int(name[1:-2])], 5) == last.score and name < last.id for name in left_out)


def test_a_passage_that_the_embedder_would_not_see_whole_is_refused(tmp_path: Path) -> None:
    retriever = Dense(chunker=Headings(max_tokens=80))
    with pytest.raises(
        ModelError, match=r"1 of 2 passages are longer than the 50 tokens .*\(d0#0: 70\).*max_tokens to 50"
    ):
        retriever.build(documents("word " * 70, "short"), tmp_path, Bags())


def test_documents_without_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text to retrieve"):
        RETRIEVER.build(documents(" \n"), tmp_path, Bags())


@pytest.mark.parametrize("name", ["index.faiss", "passages.jsonl", "index.json"])
@pytest.mark.parametrize("how", ["missing", "short", "changed"])
def test_a_damaged_index_is_named(name: str, how: str, tmp_path: Path) -> None:
    folder = built(tmp_path / "index", *TEXTS)
    file = folder / name
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "short":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(content.replace(b"late", b"soon") if name == "passages.jsonl" else b"\x00" + content[1:])
    with pytest.raises(StoreError, match=r"the index in .* Delete the folder and run again"):
        RETRIEVER.open(folder, Bags())


def test_an_index_made_by_another_embedder_is_refused(tmp_path: Path) -> None:
    class Wider(Bags):
        dimension = 128

    with pytest.raises(ModelError, match="vectors of 64 numbers, this embedder makes 128"):
        RETRIEVER.open(built(tmp_path / "index", *TEXTS), Wider())


def test_without_faiss_the_extra_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = built(tmp_path / "index", *TEXTS)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModelError, match=r"faiss.*pip install -e '\.\[retrieve\]'"):
        RETRIEVER.open(folder, Bags())
    with pytest.raises(ModelError, match=r"faiss.*pip install -e '\.\[retrieve\]'"):
        built(tmp_path / "other", *TEXTS)


def test_an_index_may_be_moved(tmp_path: Path) -> None:
    folder = built(tmp_path / "index", *TEXTS)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    assert RETRIEVER.open(Path(moved), Bags()).search(["parcel"], 1)[0][0].document == "d0"


def test_defaults_are_plugins_and_only_what_builds_the_index_is_in_its_name() -> None:
    retriever = Dense()
    assert (retriever.chunker.kind, retriever.embedder.kind) == ("headings", "sentence-transformers")
    assert retriever.embedder_plugin is retriever.embedder
    assert Dense(top_k=9, max_tokens=99).settings(built=True) == retriever.settings(built=True)
    assert Dense(top_k=9).settings() != retriever.settings()
    chosen = Dense.model_validate({"chunker": {"max_tokens": 100}, "embedder": {"id": "owner/name"}})
    assert chosen.settings(built=True)["chunker"] == {
        "kind": "headings",
        "version": 1,
        "max_tokens": 100,
        "overlap": 30,
    }
    assert chosen.settings(built=True)["embedder"]["id"] == "owner/name"
    assert Dense.model_json_schema()["properties"]["chunker"]["default"] == {"kind": "headings"}


@pytest.mark.skipif(not KB.is_dir(), reason="the help-desk articles are not there")
def test_minilm_finds_the_articles_that_answer(builtin_embedder: Path, tmp_path: Path) -> None:
    retriever = Dense.model_validate({"embedder": {"id": str(builtin_embedder)}})
    embedding = retriever.embedder.open()
    files = sorted(KB.glob("*.md"))[:8]
    retriever.build([Document(id=file.stem, text=file.read_text()) for file in files], tmp_path, embedding)
    index = retriever.open(tmp_path, embedding)
    assert {passage.document for passage in index.passages()} == {file.stem for file in files}
    assert all(embedding.count(passage.text) <= 200 for passage in index.passages())
    titles = [file.read_text().splitlines()[0].lstrip("# ") for file in files]
    ranked = [[passage.document for passage in passages] for passages in index.search(titles, 6)]
    # Some articles are near-twins of another: their titles may find the other one first.
    assert all(file.stem in found for file, found in zip(files, ranked, strict=True))
    assert sum(file.stem == found[0] for file, found in zip(files, ranked, strict=True)) >= len(files) - 2
