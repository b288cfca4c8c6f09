"""length and repetition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from means import NO_MEANS
from metric_cases import measured
from pydantic import ValidationError

from harness.metrics.length import Length
from harness.metrics.repetition import Repetition
from harness.records import Call, Example, Prediction, Reply
from harness.scoring import score

EXAMPLE = Example(id="q", input="?")


def test_characters_and_words_of_the_answer_are_counted() -> None:
    assert measured(Length(of="characters"), "two wörds\n") == 10
    assert measured(Length(), "  two\twörds\n") == 2
    assert measured(Length(), "") == 0
    assert measured(Length(), None) == 0


def test_tokens_are_those_of_all_calls() -> None:
    calls = tuple(Call(messages=(), reply=Reply(texts=("x",), output_tokens=tokens)) for tokens in (3, 4))
    assert Length(of="tokens").measure(EXAMPLE, Prediction(id="q", text="x", calls=calls)) == 7


def test_a_failed_answer_counts_as_the_longest_there_is() -> None:
    answers = [Prediction(id="a", text="one two three"), Prediction(id="b", text=None, error="too long")]
    made, _ = score(Length(limit=50), [Example(id=name, input="?") for name in "ab"], answers, NO_MEANS)
    assert (made.statistics, made.errors) == (((3.0,), (50.0,)), 1)
    assert (made.direction, made.unit, made.floor, made.ceiling) == ("lower", "words", 0, 50)


def test_longer_answers_count_as_the_limit() -> None:
    assert measured(Length(limit=2), "one two three") == 2
    with pytest.raises(ValidationError):
        Length(limit=0)


def test_the_name_says_what_is_counted() -> None:
    assert [Length(of=of).name for of in ("characters", "words", "tokens")] == [
        "length_characters",
        "length_words",
        "length_tokens",
    ]
    assert Length(of="tokens").unit == "tokens"


@pytest.mark.parametrize(
    ("answer", "n", "expected"),
    [
        ("a b c d", 4, 0),
        ("a b c", 4, 0),
        ("", 1, 0),
        ("a a a a", 1, 3 / 4),
        ("a b a b a b", 2, 3 / 5),
        ("to be or not to be", 2, 1 / 5),
        ("I do not know. I do not know.", 4, 1 / 5),
        ("a " * 100, 4, 96 / 97),
    ],
)
def test_repetition_is_the_share_of_ngrams_that_stood_there_before(answer: str, n: int, expected: float) -> None:
    assert measured(Repetition(n=n), answer) == pytest.approx(expected, abs=1e-12)


@given(words=st.lists(st.sampled_from(["a", "b", "c"]), max_size=30), n=st.integers(1, 5))
def test_repetition_counts_each_ngram_after_its_first_time(words: list[str], n: int) -> None:
    grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    again = sum(gram in grams[:place] for place, gram in enumerate(grams))
    assert measured(Repetition(n=n), " ".join(words)) == pytest.approx(again / len(grams) if grams else 0, abs=1e-12)


def test_a_failed_answer_repeats_itself_wholly() -> None:
    made, _ = score(Repetition(), [EXAMPLE], [Prediction(id="q", text=None, error="too long")], NO_MEANS)
    assert (made.name, made.direction, made.statistics) == ("repetition-4", "lower", ((1.0,),))
