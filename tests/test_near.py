"""Near-copies: exact similarity, and the estimate that proposes pairs."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import near, words

WORDS = st.lists(
    st.sampled_from(["the", "a", "cat", "dog", "sees", "hears", "house", "tree", "under", "over", "green"]), max_size=12
)
NOBODY = near.Names([])


def osa(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Optimal string alignment from its definition, by recursion over the ends."""
    if not one or not other:
        return len(one) + len(other)
    best = min(osa(one[1:], other) + 1, osa(one, other[1:]) + 1, osa(one[1:], other[1:]) + (one[0] != other[0]))
    if len(one) > 1 and len(other) > 1 and one[:2] == other[:2][::-1]:
        best = min(best, osa(one[2:], other[2:]) + 1)
    return best


def test_edits_are_the_optimal_string_alignment() -> None:
    rng = random.Random(3)
    for _ in range(300):
        one, other = (tuple(rng.choices("abc", k=rng.randrange(6))) for _ in range(2))
        assert near.edits(one, other) == osa(one, other), (one, other)
        passages = [other[i:j] for i, j in product(range(len(other) + 1), repeat=2) if i <= j]
        assert near.edits(one, other, within=True) == min(osa(one, passage) for passage in passages)


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("weeks", "wekes", "swapped"),
        ("weeks", "week", "dropped"),
        ("weeks", "weeds", "changed"),
        ("cat", "cats", ""),
        ("form", "from", ""),
        ("x1000", "x1001", ""),
        ("drucken", "drücken", ""),
        ("герой", "герои", ""),
        ("zurück", "zurükc", "swapped"),
        ("repair", "mending", ""),
    ],
)
def test_a_slip_is_one_letter_of_a_longer_word(one: str, other: str, kind: str) -> None:
    assert near.slip(one, other) == near.slip(other, one) == kind
    assert near.edits((one,), (other,)) == (0.25 if kind else 1)


@given(WORDS, WORDS)
def test_similarity_is_symmetric_and_one_for_equal_texts_alone(one: list[str], other: list[str]) -> None:
    a, b = tuple(one), tuple(other)
    found = near.similarity(a, b)
    assert 0 <= found <= 1
    assert found == pytest.approx(near.similarity(b, a))
    assert (near.similarity(a, a), a == b or found < 1 or near.shingles(a) == near.shingles(b)) == (1, True)
    least = near.similarity(a, b, 0.8)
    assert least == pytest.approx(found) or found < 0.8


def test_passages_that_were_moved_do_not_hide_a_copy() -> None:
    parts = [" ".join(f"w{n}{i}" for i in range(20)) for n in range(3)]
    one, other = words.of(" ".join(parts)), words.of(" ".join(reversed(parts)))
    assert near.similarity(one, other) == near.resemblance(one, other) > 0.9


@given(WORDS.filter(bool), WORDS.filter(bool))
def test_the_estimate_is_the_resemblance_within_its_standard_error(one: list[str], other: list[str]) -> None:
    a, b = tuple(one), tuple(other)
    exact = near.resemblance(a, b)
    first, second = near.signatures([a, b])
    estimate = float((first == second).mean())
    assert abs(estimate - exact) <= 5 * (0.25 / near.PERMUTATIONS) ** 0.5
    if exact in (0.0, 1.0):
        assert estimate == pytest.approx(exact, abs=0.01)


def test_the_estimate_has_no_bias_and_the_error_that_theory_gives() -> None:
    rng = random.Random(7)
    errors = []
    for _ in range(400):
        one = [f"w{rng.randrange(10**6)}" for _ in range(30)]
        other = [word if rng.random() > 0.15 else f"w{rng.randrange(10**6)}" for word in one]
        a, b = tuple(one), tuple(other)
        exact = near.resemblance(a, b)
        first, second = near.signatures([a, b])
        errors.append(
            (float((first == second).mean()) - exact) / (max(exact * (1 - exact), 1e-3) / near.PERMUTATIONS) ** 0.5
        )
    assert abs(np.mean(errors)) < 4 / len(errors) ** 0.5
    assert 0.8 < np.std(errors) < 1.2


def test_signatures_do_not_depend_on_the_texts_beside_them() -> None:
    texts = [tuple(f"w{i * j}" for j in range(i % 40)) for i in range(3_000)]
    together = near.signatures(texts)
    for i in (0, 1, 41, 1_499, 2_999):
        assert (near.signatures([texts[i]])[0] == together[i]).all()


def test_both_ways_to_candidates_find_the_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(1)
    vocabulary = [f"w{i}" for i in range(400)]
    rows = [tuple(rng.choices(vocabulary, k=rng.randrange(8, 40))) for _ in range(1_500)]
    heldout = []
    for row in rows[:150]:
        copy = list(row)
        for place in rng.sample(range(len(copy)), max(1, len(copy) // 10)):
            copy[place] = "other"
        heldout.append(tuple(copy))
    wanted = {(i, i) for i in range(150)}
    assert wanted <= set(near.pairs(heldout, rows))
    monkeypatch.setattr(near, "_EXACTLY", 0)
    proposed = list(near.pairs(heldout, rows))
    assert wanted <= set(proposed)
    assert len(proposed) == len(set(proposed))


@pytest.mark.parametrize(
    ("one", "other", "different"),
    [
        ("a fee of 5 euros", "a fee of 6 euros", True),
        ("a fee of five euros", "a fee of six euros", True),
        ("a fee of 5 euros", "a fee of euros", False),
        ("the brio leaks", "the marlo leaks", True),
        ("the brio leaks", "the machine leaks", False),
        ("the sorrel leaks", "the sorel leaks", False),
        ("the lid leaks", "the hose leaks", False),
        ("the café leaks", "the cafe leaks", False),
        ("the hà leaks", "the hạ leaks", True),
    ],
)
def test_another_number_or_name_makes_another_question(one: str, other: str, different: bool) -> None:
    names = near.Names(
        [
            "My Brio and my Marlo leak. The Sorrel, the Sorel.",
            "Lid or hose? The lid and the hose.",
            "In Café Hà: Cafe Hạ.",
        ]
    )
    assert near.another(words.of(one), words.of(other), names) is different
    assert near.another(words.of(other), words.of(one), names) is different


def test_names_are_words_with_a_capital_within_a_sentence() -> None:
    names = near.Names(["Where is Anna's cup? Cups are here. The NASA cup.", "WHY IS THIS LOUD", "- Lists begin so"])
    assert {word for word in ("annas", "nasa", "cup", "cups", "loud", "lists", "where") if word in names} == {
        "annas",
        "nasa",
    }
    assert "anything" not in NOBODY


def test_the_first_word_of_a_sentence_is_a_name_here_where_nobody_writes_it_small() -> None:
    names = near.Names(["James sold it. Then what?", "But then Nora came."])
    here = names.of("James sold it. Then what? My Sorrel leaks.")
    assert {word for word in ("james", "then", "sorrel", "sold", "nora") if word in here} == {"james", "sorrel", "nora"}
