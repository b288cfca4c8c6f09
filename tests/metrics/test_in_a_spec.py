"""Every metric runs where a spec asks for it, down to the leaderboard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from comparison import FRUIT, Comparison

METRICS = """
[[metric]]
kind = "token_f1"
primary = true

[[metric]]
kind = "numeric"
relative = 0.01

[[metric]]
kind = "bleu"
effective_order = true

[[metric]]
kind = "chrf"

[[metric]]
kind = "chrf"
word_order = 2

[[metric]]
kind = "ter"

[[metric]]
kind = "rouge"
type = "rouge1"
stemmer = true

[[metric]]
kind = "rouge"

[[metric]]
kind = "semantic_similarity"
embedder = "toys:Hashed"

[[metric]]
kind = "length"

[[metric]]
kind = "repetition"
n = 1

[[metric]]
kind = "json_valid"

[[metric]]
kind = "json_valid"
extract = "block"

[[metric]]
kind = "json_schema"
schema_file = "schema.json"

[[metric]]
kind = "json_schema"
label = "is_text"
schema_table = { type = "string" }

[[metric]]
kind = "citation_precision"

[[metric]]
kind = "citation_precision"
against = "retrieved"

[[metric]]
kind = "citation_recall"

[[metric]]
kind = "precision"
k = 1

[[metric]]
kind = "hit"
k = 1

[[metric]]
kind = "map"

[[metric]]
kind = "ndcg"

[[metric]]
kind = "r_precision"
"""
VARIANTS = """
[[variant]]
name = "plain"

[[variant]]
name     = "rag"
retrieve = { kind = "toys:Words", top_k = 1 }
"""


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    made = Comparison(tmp_path / "c", VARIANTS)
    text = made.spec.read_text().replace('kind      = "toys:Counted"', 'kind      = "canned"')
    head, _, tail = text.partition("[[metric]]")
    made.write(head + METRICS + tail[tail.index("[[variant]]") :])
    made.edit('"cherry is crimson" = "crimson"', '"cherry is crimson" = "crimson [cherry]"')
    made.edit('"damson is blue" = "blue"', '"damson is blue" = "blue. [damson, fig]"')
    made.edit('apple = "red"', 'apple = "{}"')
    (made.folder / "schema.json").write_text(json.dumps({"type": "object"}))
    return made


def test_all_of_them_stand_on_the_leaderboard(comparison: Comparison) -> None:
    done = comparison.run()
    assert done.status == 0, done.err + done.out
    board = comparison.board()
    rows = {row["variant"]: row["metrics"] for row in board["rows"]}
    of_retrieval = {"precision@1", "hit@1", "map", "ndcg@10", "r_precision", "citation_precision_retrieved"}
    names = [
        *("token_f1", "numeric", "bleu", "chrF2", "chrF2++", "ter", "rouge1", "rougeL", "semantic_similarity"),
        *("length_words", "repetition-1", "json_valid", "json_valid_block", "json_schema", "is_text"),
        *("citation_precision", "citation_recall"),
    ]
    assert {metric["name"] for metric in board["metrics"]} == {*names, *of_retrieval}
    assert {name for name, found in rows["plain"].items() if found is None} == of_retrieval
    rag = {name: found["value"] for name, found in rows["rag"].items()}
    assert rag["numeric"] is None, "no colour is a number"
    assert all(rag[name] == 1 for name in ("precision@1", "hit@1", "map", "ndcg@10", "r_precision"))
    assert rag["citation_precision"] == pytest.approx((1 + 1 / 2) / len(FRUIT))
    assert rag["citation_precision_retrieved"] == pytest.approx((1 + 1 / 2) / len(FRUIT))
    assert rag["citation_recall"] == pytest.approx(2 / len(FRUIT))
    assert 0 < rag["bleu"] < 100 and 0 < rag["chrF2"] < 100 and rag["ter"] > 0
    assert 0 < rag["rouge1"] < 1 and 0 < rag["semantic_similarity"] < 1
    plain = {name: found and found["value"] for name, found in rows["plain"].items()}
    assert (plain["json_valid"], plain["json_schema"], plain["is_text"]) == (1 / 8, 1 / 8, 0)
    shown = comparison.call("leaderboard", "latest", COLUMNS="400").out
    assert all(name in shown for name in names)


def test_a_schema_that_is_none_and_a_file_that_is_not_there_are_faults_of_the_spec(comparison: Comparison) -> None:
    comparison.edit('{ type = "string" }', '{ type = "text" }')
    comparison.edit('"schema.json"', '"shema.json"')
    done = comparison.call("check", str(comparison.spec))
    assert done.status == 2
    assert "no JSON Schema: 'text' is not valid" in done.err
    assert "shema.json" in done.err and "metric.13" in done.err


def test_what_is_held_against_the_retrieved_cannot_rank_where_nothing_is_retrieved(comparison: Comparison) -> None:
    comparison.edit("primary = true\n", "")
    comparison.edit('against = "retrieved"', 'against = "retrieved"\nprimary = true')
    done = comparison.call("check", str(comparison.spec))
    assert done.status == 2
    assert "'citation_precision_retrieved' measures what was retrieved, so it cannot rank" in done.err
