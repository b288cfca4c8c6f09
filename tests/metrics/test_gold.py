"""Perplexity and bits per byte of the accepted answers, from given likelihoods."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from means import Given

from harness.errors import HarnessError
from harness.metrics.bits_per_byte import BitsPerByte
from harness.metrics.perplexity import Perplexity
from harness.records import Choice, Example, Prediction
from harness.reducers import REDUCERS
from harness.scoring import score

EXAMPLES = [
    Example(id="a", input="?", targets=("four", "4")),
    Example(id="b", input="?", targets=("überlang",)),
    Example(id="c", input="?"),
    Example(id="d", input="?", targets=("",)),
]
GOLD = [
    Prediction(id="a", text="4", choices=(Choice(text="four", logprob=-3.0, tokens=1, bytes=4),
                                          Choice(text="4", logprob=-1.0, tokens=1, bytes=1))),
    Prediction(id="b", text="überlang", choices=(Choice(text="überlang", logprob=-6.0, tokens=3, bytes=9),)),
    Prediction(id="c", text=""),
    Prediction(id="d", text="", choices=(Choice(text="", logprob=0.0, tokens=0, bytes=0),)),
]  # fmt: skip
ANSWERS = [Prediction(id=one.id, text="any") for one in EXAMPLES]


def test_the_first_accepted_answer_counts_by_its_tokens_or_its_bytes() -> None:
    means = Given(weighed=GOLD)
    rows = ((-3.0, 1.0, 4.0), (-6.0, 3.0, 9.0), None, None)
    for metric, expected in ((Perplexity(), math.exp(9 / 4)), (BitsPerByte(), 9 / math.log(2) / 13)):
        made, notes = score(metric, EXAMPLES, ANSWERS, means)
        assert (made.statistics, notes, made.direction) == (rows, [], "lower")
        assert REDUCERS[made.reducer]([row for row in rows if row], ()) == pytest.approx(expected)


def test_what_the_variant_answered_changes_nothing() -> None:
    failed = [Prediction(id=one.id, text=None, error="too long") for one in EXAMPLES]
    one, other = (score(Perplexity(), EXAMPLES, given, Given(weighed=GOLD))[0] for given in (ANSWERS, failed))
    assert one.statistics == other.statistics


def test_an_answer_that_could_not_be_weighed_has_no_false_number() -> None:
    gold = [Prediction(id="a", text=None, error="the prompt has 900 tokens"), *GOLD[1:]]
    with pytest.raises(HarnessError, match=r"failed on example 'a'.*a failure has no value.*the prompt has 900 tokens"):
        score(Perplexity(), EXAMPLES, ANSWERS, Given(weighed=gold))


@pytest.mark.parametrize("rows", [[], [(0.0, 0.0, 0.0)]])
def test_nothing_to_weigh_has_no_value(rows: Sequence[tuple[float, ...]]) -> None:
    for name in ("perplexity", "bits_per_byte"):
        assert REDUCERS[name](rows or [(0.0, 0.0, 0.0)], ()) is None
    assert REDUCERS["perplexity"]([(-1e6, 1.0, 1.0)], ()) is None, "too large for a number"
