"""Records: they survive JSON unchanged, and digests depend on content alone."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.records import (
    Call,
    Cost,
    Decoding,
    Document,
    Example,
    Message,
    Passage,
    Prediction,
    Reply,
    Request,
    Run,
    Score,
    digest,
    dump,
    dump_json,
    load,
    load_json,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
MESSAGE = Message("user", "How?")
REPLY = Reply(texts=("So.",), input_tokens=3, output_tokens=2, seconds=0.5, finish="length")

RECORDS = [
    MESSAGE,
    REPLY,
    Example(id="a", input="How?", targets=("So.", "Thus."), group="g", tags=("t",), sources=("KB-1",)),
    Document(id="KB-1", text="# So\n\nSo it is.", title="So"),
    Passage(id="KB-1#0", document="KB-1", text="So it is.", score=0.5, rank=1),
    Decoding(max_tokens=3, temperature=0.7, top_p=0.9, stop=("\n",)),
    Request(messages=(MESSAGE,), decoding=Decoding(), n=2),
    Call(messages=(MESSAGE,), reply=REPLY),
    Prediction(id="a", text=None, error="too long"),
    Score(
        name="f1", signature="f1|v:1", direction="higher", unit="share", floor=0.0, ceiling=1.0, reducer="mean",
        ids=("a", "b"), statistics=((0.5,), None), errors=1,
    ),
    Cost(train_seconds=1.5, peak_memory_bytes=7, device="cpu"),
    Run(
        experiment="x", variant="rag", family="RAG", seed=1, status="complete", steps={"predict": "predict-1"},
        cost=Cost(latency_n=2), provenance={"versions": {"torch": "2"}}, notes=("one",),
    ),
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_record_comes_back_from_json_as_it_was(record: Any) -> None:
    assert load(type(record), json.loads(json.dumps(dump(record)))) == record
    assert load_json(type(record), dump_json(record)) == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_frozen(record: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, dataclasses.fields(record)[0].name, "changed")


@given(id=TEXT, text=TEXT, asked=TEXT)
def test_any_text_survives_and_stays_on_one_line(id: str, text: str, asked: str) -> None:
    prediction = Prediction(id=id, text=text, calls=(Call(messages=(Message("user", asked),), reply=REPLY),))
    line = dump_json(prediction)
    assert b"\n" not in line
    assert load_json(Prediction, line) == prediction


def test_what_does_not_fit_a_record_is_refused() -> None:
    with pytest.raises(ValidationError):
        load(Example, {"id": "a"})
    with pytest.raises(ValidationError):
        load_json(Reply, '{"input_tokens": "many"}')


@pytest.mark.parametrize("family", ["![x](http://a.test/p.png)", ":material/error: RAG", "", "rag"])
def test_a_run_is_of_one_of_the_four_families(family: str) -> None:
    """The page shows it as Markdown, and records may come from an archive of someone else."""
    run = next(record for record in RECORDS if isinstance(record, Run))
    assert load(Run, dump(run)).family == "RAG"
    with pytest.raises(ValidationError, match="family"):
        load(Run, {**dump(run), "family": family})


def test_a_prediction_sums_what_its_calls_took() -> None:
    call = Call(messages=(MESSAGE,), reply=REPLY)
    prediction = Prediction(id="a", text="So.", calls=(call, call))
    assert (prediction.input_tokens, prediction.output_tokens, prediction.seconds) == (6, 4, 1.0)


def test_a_digest_depends_on_content_and_not_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1, "b": [1, 2]}) != digest({"a": 1, "b": [2, 1]})
    assert digest("\ud800") != digest("\udfff"), "half a surrogate pair has a digest too"
    assert len(digest(None)) == 24
    assert len(digest(None, 64)) == 64


def test_a_digest_of_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest(float("nan"))
