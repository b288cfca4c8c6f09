"""What counts as the same question, and what is refused."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import leaks
from harness.errors import DataError, LeakError
from harness.leaks import Leaks, Rules
from harness.records import Document, Example

LONG = "Our workshop in Westerby opened in 1987 and has mended machines of every maker since then, most for nothing."
QUESTION = "How many weeks does a repair of the grinder take when the spare part has to be ordered first?"
EDITED = "How many weeks does a repair of the grinder take if the spare part has to be ordered first?"
REPHRASED = "If somebody must order the part, is my grinder back within a month or does mending it take longer?"


def example(id: str, text: str, group: str = "", targets: tuple[str, ...] = ("x",)) -> Example:
    return Example(id=id, input=text, targets=targets, group=group or id)


def found(heldout: Sequence[Example], train: Sequence[Example], **rules: object) -> Leaks:
    return leaks.find(heldout, {"train": train}, rules=Rules(**rules))


def said(result: Leaks) -> str:
    with pytest.raises(LeakError) as caught:
        result.refuse()
    assert isinstance(caught.value, DataError)
    return str(caught.value)


# ----------------------------------------------------------------------------------------------------------- exact


def test_a_held_out_input_in_train_or_dev_is_refused_with_the_pair() -> None:
    heldout = [example("h1", "Where is my order?"), example("h2", "Something else")]
    parts = {"train": [example("t1", "where is MY order")], "dev": [example("d1", "something, else")]}
    message = said(leaks.find(heldout, parts))
    assert "2 held-out inputs also stand" in message
    assert "exact  heldout 'Where is my order?' (id h1) = train 'where is MY order' (id t1)" in message
    assert "exact  heldout 'Something else' (id h2) = dev 'something, else' (id d1)" in message
    assert "allow" not in message, "nothing permits a copy"


def test_nothing_permits_an_exact_copy() -> None:
    for rules in ({"same_facts": True}, {"allow": frozenset({"near", "embedded", "documents", "meaning"})}):
        result = found([example("h", QUESTION)], [example("t", QUESTION.upper())], **rules)
        assert [pair.kind for pair in result.blocking] == ["exact"]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=6), st.data())
def test_any_copy_is_found_however_it_is_dressed(texts: list[str], data: st.DataObject) -> None:
    texts = [text for text in texts if text.strip()] or ["x"]
    copied = data.draw(st.sampled_from(texts))
    form = data.draw(st.sampled_from(["NFC", "NFD"]))
    dressed = f"  {unicodedata.normalize(form, copied)} \n"
    train = [example(f"t{i}", text) for i, text in enumerate(texts)]
    result = found([example("h", dressed), example("h2", "qq zz")], train)
    assert "exact" in result.counts


def test_the_first_ten_pairs_are_listed_and_the_others_counted() -> None:
    heldout = [example(f"h{i}", f"question {i}") for i in range(30)]
    train = [example(f"t{i}", f"Question {i}!") for i in range(30)]
    lines = said(found(heldout, train)).splitlines()
    assert len(lines) == 1 + 10 + 1 + 1
    assert lines[0].startswith("30 held-out inputs")
    assert lines[11].startswith("  ... and 20 more pairs")


def test_targets_and_missing_groups_are_no_leak() -> None:
    train = [Example(id="t", input="a", targets=("yes",), group="t")]
    heldout = [Example(id="h", input="b", targets=("yes",), group="h")]
    assert found(heldout, train).pairs == ()


# ----------------------------------------------------------------------------------------------------------- group


def test_a_group_on_both_sides_is_refused_and_named() -> None:
    train = [example("t1", "a", "KB-1"), example("t2", "b", "KB-2")]
    heldout = [example("h1", "c", "kb-1"), example("h2", "d", "KB-3")]
    message = said(found(heldout, train))
    assert "1 held-out group also stands" in message
    assert "group  'kb-1': 1 in heldout (h1, ...), 1 in train (t1, ...)" in message
    assert "same_facts = true" in message


def test_same_facts_permits_groups_and_rephrasings_with_a_note() -> None:
    train = [example("t1", EDITED, "KB-1")]
    heldout = [example("h1", QUESTION, "KB-1"), example("h2", "d", "KB-2")]
    result = found(heldout, train, same_facts=True)
    result.refuse()
    assert set(result.counts) == {"group", "near"}
    (note,) = result.notes
    assert note.startswith("same_facts: 1 of 2 held-out groups also stand in what variants learn from, 1 inputs rephr")
    assert {pair.kind for pair in found(heldout, train).blocking} == {"group", "near"}


# ----------------------------------------------------------------------------------------------------------- near


@pytest.mark.parametrize(
    "copy",
    [
        EDITED,
        QUESTION.replace("weeks", "wekes"),
        QUESTION.replace("when the", "when"),
        QUESTION.replace("a repair", "a full repair"),
        QUESTION.replace("repair of the", "repair the of"),
    ],
)
def test_a_copy_with_an_edited_word_is_refused_with_its_similarity(copy: str) -> None:
    message = said(found([example("h", QUESTION)], [example("t", copy), example("u", "What else is there?")]))
    assert "near (0." in message or "near (1." in message
    assert f"heldout {QUESTION[:40]!r}"[:-1] in message
    assert "train 'How many" in message
    assert 'leaks = { allow = ["near"] }' in message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "¿Cuánto cuesta el envío urgente a las Islas Canarias?",
            "cuanto cuesta el envio urgente a las islas canarias",
        ),
        ("What is the boiling point of water at 2,000 m?", "What is the boiling point of water at 2000 m?"),
    ],
)
def test_a_copy_without_accents_or_thousands_separators_is_refused(one: str, other: str) -> None:
    assert found([example("h", one)], [example("t", other)]).counts == {"near": 1}
    assert found([example("h", other)], [example("t", one)]).counts == {"near": 1}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tôi muốn bán nhà ở Huế", "Tôi muốn bạn nhà ở Huế"),
        ("Làm sao để mua nhà?", "Làm sao để mùa nhà?"),
        ("Где мой заказ?", "Где мои заказ?"),
        ("Кто мой герой?", "Кто мои герои?"),
        ("Kann ich das Foto drucken?", "Kann ich das Foto drücken?"),
        ("Wann wurde die Karte gesperrt?", "Wann würde die Karte gesperrt?"),
        ("¿Cuántos años tiene la cuenta?", "¿Cuántos anos tiene la cuenta?"),
        ("Où puis-je pêcher ?", "Où puis-je pécher ?"),
    ],
)
def test_another_accent_makes_another_question(one: str, other: str) -> None:
    for ours, theirs in ((one, other), (other, one)):
        document = Document(id="faq", text=f"{LONG} {theirs} {LONG}")
        assert leaks.find([example("h", ours)], {"train": [example("t", theirs)]}, [document]).pairs == ()
        longer = example("t", f"{LONG} {theirs} {LONG}")
        assert found([example("h", ours)], [longer]).pairs == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tôi muốn đổi mật khẩu của tôi", "toi muon doi mat khau cua toi"),
        ("¿Cómo cambio mi PIN?", "como cambio mi pin"),
        ("Où est ma carte ?", "OU EST MA CARTE"),
        ("Πού είναι η κάρτα μου;", "ΠΟΥ ΕΙΝΑΙ Η ΚΑΡΤΑ ΜΟΥ"),
        ("Kartımı nasıl kapatırım?", "KARTIMI NASIL KAPATIRIM?"),
        ("Как получить ещё одну карту?", "Как получить еще одну карту?"),
        ("Which album did Beyoncé release in the next year?", "Which album did Beyonce release in the next year?"),
        ("¿Dónde está la tarjeta que pedí, y cuánto falta?", "¿Donde está la tarjeta que pedi, y cuánto falta?"),
    ],
)  # fmt: skip
def test_accents_that_were_left_out_hide_no_copy(one: str, other: str) -> None:
    for ours, theirs in ((one, other), (other, one)):
        assert found([example("h", ours)], [example("t", theirs)]).counts == {"near": 1}


def test_a_question_without_its_accents_is_found_inside_longer_texts() -> None:
    asked, typed = "¿Cuánto cuesta el envío urgente?", "cuanto cuesta el envio urgente"
    for ours, theirs in ((asked, typed), (typed, asked)):
        assert found([example("h", ours)], [example("t", f"{LONG} {theirs} {LONG}")]).counts == {"embedded": 1}
        faq = Document(id="faq", text=f"{LONG} {theirs} {LONG}")
        assert leaks.find([example("h", ours)], {}, [faq]).counts == {"documents": 1}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How long is the warranty of the Brio?", "How long is the warranty of the Marlo?"),
        ("What would it cost me to have 3 bags sent north?", "What would it cost me to have 5 bags sent north?"),
        (
            "Can I wash the lid of the Sorrel in my dishwasher at home, or will it bend?",
            "Can I wash the lid of the Larkin in my dishwasher at home, or will it bend?",
        ),
        ("If six hens lay two eggs a day, how many a week?", "If nine hens lay two eggs a day, how many a week?"),
        ("How do I activate my card?", "How do I block my card?"),
        ("Where can I find my PIN?", "Where can I change my PIN?"),
    ],
)  # fmt: skip
def test_another_number_or_name_or_a_word_of_a_short_question_makes_another_question(one: str, other: str) -> None:
    assert found([example("h", one)], [example("t", other)]).pairs == ()


def test_a_name_that_somebody_writes_small_is_one_where_others_write_it_with_a_capital() -> None:
    heldout = [example("h", "can i wash the lid of the sorrel in my dishwasher at home, or will it bend?")]
    twin = example("t", "can i wash the lid of the larkin in my dishwasher at home, or will it bend?")
    assert found(heldout, [twin]).counts == {"near": 1}
    others = [example("u", "My Sorrel leaks."), example("v", "Does the Larkin fit, or a Sorrel?")]
    assert found(heldout, [twin, *others]).counts == {}


def test_a_template_around_short_texts_makes_no_copies_of_them() -> None:
    ask = (
        "Classify the sentiment of the following review as positive or negative and answer with one word only. Review:"
    )
    reviews = [
        f"{a} {b}" for a in ("dull", "lovely", "long", "warm", "odd") for b in ("plot", "cast", "end", "score", "set")
    ]
    rows = [example(f"r{i}", f"{ask} {review}") for i, review in enumerate(reviews * 2)]
    heldout, train = rows[:10], rows[10:25]
    assert found(heldout, train).pairs == ()
    copied = example("t", f"{ask.lower()} {reviews[0]}!")
    assert found(heldout, [*train, copied]).counts == {"exact": 1}


def test_the_threshold_is_the_specs() -> None:
    heldout, train = [example("h", QUESTION)], [example("t", EDITED)]
    (pair,) = found(heldout, train).pairs
    assert pair.similarity == pytest.approx(1 - 1 / 19)
    assert found(heldout, train, similarity=0.95).pairs == ()


# ----------------------------------------------------------------------------------------------- embedded, documents


@pytest.mark.parametrize("question", [QUESTION, "Where do repairs go then?", "修理にはどのくらいの時間がかかりますか"])
def test_a_question_inside_a_longer_row_is_refused(question: str) -> None:
    for row in (example("t", f"{LONG} {question} {LONG}"), example("t", "Read this.", targets=(f"{LONG} {question}",))):
        result = found([example("h", question)], [row])
        assert result.counts == {"embedded": 1}
        assert f"embedded (1.00)  heldout {question[:30]!r}"[:-1] in said(result)


def test_a_row_that_is_the_question_of_a_longer_input_is_refused() -> None:
    result = found([example("h", f"{LONG}\n\n{QUESTION}")], [example("t", QUESTION)])
    assert result.counts == {"embedded": 1}
    assert "holds train" in said(result)


def test_a_question_in_the_answer_to_a_short_one_is_told_with_the_answer() -> None:
    (pair,) = found([example("h", QUESTION)], [example("t", "Hi", targets=(f"You asked: {QUESTION}",))]).pairs
    assert "(id h) in train 'Hi\nYou asked: How many weeks" in str(pair).replace("\\n", "\n")


def test_short_phrases_inside_longer_rows_are_no_leak() -> None:
    train = [example("t", f"{LONG} I lost my card. Where is it? {LONG}")]
    assert found([example("h", "lost my card"), example("i", "Where is it?")], train).pairs == ()


def test_a_question_with_another_number_inside_a_longer_row_is_no_leak() -> None:
    question = "How much would I pay for 12 bags of beans if I order them today?"
    assert found([example("h", question)], [example("t", f"{LONG} {question.replace('12', '15')}")]).pairs == ()


def test_a_held_out_question_in_the_documents_is_refused_and_may_be_allowed() -> None:
    heldout, documents = [example("h", QUESTION)], [Document(id="faq", text=f"# FAQ\n\n{QUESTION}\n\n{LONG}")]
    message = said(leaks.find(heldout, {}, documents))
    assert "documents (1.00)  heldout" in message
    assert 'If users will ask the very questions of the documents, write leaks = { allow = ["documents"] }' in message
    assert "(id faq)" in message
    result = leaks.find(heldout, {}, documents, Rules(allow=frozenset({"documents"})))
    result.refuse()
    (note,) = result.notes
    assert note.startswith(
        "leaks of kind 'documents' are allowed by the spec: 1 held-out input, such as h with documents"
    )


@pytest.mark.parametrize(
    ("question", "text", "leak"),
    [
        ("Where is my card?", "## Where is my card?\n\nIn the post.", True),
        ("where is my card", "- **Where is my card?** In the post.", True),
        ("Where is my card?", "Q3. Where is my card? It is in the post.", True),
        ("カードはどこに届きますか？", "送料は無料です。カードはどこに届きますか？三日後です。", True),
        ("Where is my card?", "Ask where is my card and whose.", False),
        ("Where is my card?", "So, where is my card?", False),
        ("Where is it?", "Where is it? In the post.", False),
        ("Lost card", "# Lost card\n\nBlock it at once.", False),
    ],
)
def test_a_short_question_that_a_document_asks_too_is_refused(question: str, text: str, leak: bool) -> None:
    heldout = [example("h", question), example("i", "What else is there to know?")]
    documents = [Document(id="other", text=LONG), Document(id="faq", text=text)]
    assert [(pair.kind, pair.heldout, pair.other) for pair in leaks.find(heldout, {}, documents).blocking] == (
        [("documents", "h", "faq")] if leak else []
    )


def test_a_statement_that_answers_a_question_is_no_copy_of_it() -> None:
    heldout = [example("h", "What is the process of constructing a building or an infrastructure?")]
    document = Document(id="d", text="Construction is the process of constructing a building or an infrastructure.")
    assert leaks.find(heldout, {}, [document]).pairs == ()


def test_answers_in_the_documents_are_counted_and_no_leak() -> None:
    documents = [Document(id="a", text="Repairs take 9 working days."), Document(id="b", text="It costs EUR 14.50.")]
    heldout = [
        example("1", "How long?", targets=("9 Working days [KB-1]",)),
        example("2", "How much?", targets=("14.50 EUR", "eur 14.50")),
        example("3", "Where?", targets=("Westerby",)),
        example("4", "Nothing?", targets=("",)),
    ]
    assert leaks.answered(heldout, documents) == (2, 3)
    assert leaks.find(heldout, {}, documents).pairs == ()


# ------------------------------------------------------------------------------------------- text to pretrain on


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (QUESTION.upper(), "exact"),
        (EDITED, "near"),
        (f"{LONG} {EDITED} {LONG}", "embedded"),
        (f"{LONG} {QUESTION} {LONG * 20}", "embedded"),
        (f"{LONG * 20} {EDITED}", "embedded"),
    ],
)
def test_text_to_pretrain_on_is_searched_as_what_is_learned(text: str, kind: str) -> None:
    heldout, text_part = [example("h", QUESTION)], [Document(id="d", text=LONG), Document(id="page", text=text)]
    result = leaks.find(heldout, {}, rules=Rules(allow=frozenset({"documents"})), text=text_part)
    (pair,) = result.blocking
    assert (pair.kind, pair.part, pair.other) == (kind, "text", "page")


def test_a_short_question_that_the_text_asks_too_is_found_once() -> None:
    heldout = [example("h", "Where is my card?"), example("i", QUESTION)]
    text = f"# Where is my card?\n\n{QUESTION} Where is my card?\n\n{LONG}"
    result = leaks.find(heldout, {}, text=[Document(id="faq", text=text), Document(id="again", text=text)])
    assert [(pair.kind, pair.heldout, pair.part) for pair in result.blocking] == [
        ("embedded", "h", "text"),
        ("embedded", "i", "text"),
    ]


def test_text_is_a_part_beside_the_documents_and_the_rows() -> None:
    heldout, document = [example("h", QUESTION)], Document(id="d", text=f"{LONG} {QUESTION} {LONG * 20}")
    result = leaks.find(heldout, {"train": [example("t", EDITED)]}, [document], text=[document])
    assert [(pair.kind, pair.part) for pair in result.pairs] == [
        ("near", "train"),
        ("embedded", "text"),
        ("documents", "documents"),
    ]


# ---------------------------------------------------------------------------------------------------- meaning, allow


def by_letters(texts: Sequence[str]) -> np.ndarray:
    """A small embedder of its own: how often each of a few words' stems stands in a text, to unit length."""
    stems = ("grind", "order", "week", "month", "part", "lid", "colour")
    vectors = np.array([[text.lower().count(stem) + 1e-3 for stem in stems] for text in texts], dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_rephrasings_are_found_by_an_embedder_that_is_handed_in() -> None:
    heldout = [example("h", QUESTION)]
    train = [example("t", REPHRASED), example("u", "Which colour has the lid?")]
    assert found(heldout, train).pairs == ()
    result = found(heldout, train, embed=by_letters, meaning=0.7)
    assert [(pair.kind, pair.other) for pair in result.blocking] == [("meaning", "t")]
    assert found(heldout, train, embed=by_letters, meaning=0.7, same_facts=True).blocking == ()


def test_what_is_allowed_is_recorded_and_noted_even_where_nothing_was_found() -> None:
    result = found([example("h", QUESTION)], [example("t", EDITED)], allow=frozenset({"near", "embedded"}))
    result.refuse()
    assert result.summary() == {
        "counts": {"near": 1},
        "allowed": ["embedded", "near"],
        "same_facts": False,
        "notes": result.notes,
    }
    assert result.notes == [
        "leaks of kind 'near' are allowed by the spec: 1 held-out input, such as h with train t; scores on them may "
        "show memory",
        "leaks of kind 'embedded' are allowed by the spec: none was found",
    ]


# ------------------------------------------------------------------------------------------------------- splitting


def test_rows_that_would_be_leaks_of_each_other_are_named_for_splitting() -> None:
    rows = [
        example("a", QUESTION),
        example("b", "Something else"),
        example("c", EDITED),
        example("d", f"{LONG} {QUESTION}"),
    ]
    assert {frozenset(pair) for pair in leaks.alike(rows, leaks.STRICT)} >= {frozenset({0, 2}), frozenset({0, 3})}
    assert list(leaks.alike(rows, Rules(same_facts=True, allow=frozenset({"embedded"})))) == []


def test_what_dev_shares_with_train_is_counted() -> None:
    train = [example("t1", "a", "g"), example("t2", "b", "h")]
    assert leaks.shared(train, [example("d1", "A?", "i"), example("d2", "c", "g")]) == (1, 1)
    assert leaks.shared(train, [example("d3", "x")]) == (0, 0)
