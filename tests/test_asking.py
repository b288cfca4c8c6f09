"""Asking: what a prompt may look at, what a training prompt holds, and the waves of requests."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import HashedEmbedding, Steps, WordIndex, Words

from harness.asking import Asking, answer
from harness.backends.canned import Canned, CannedSession
from harness.errors import ModelError
from harness.plugins import Context, Index, Plan, Prompt, Retriever
from harness.prompts.few_shot import FewShot
from harness.prompts.zero_shot import ZeroShot
from harness.records import Decoding, Document, Example, Message, Passage, Prediction, Reply, Request

KB = [
    Document(id="apple", text="the apple is red"),
    Document(id="banana", text="the banana is yellow and long and bent"),
    Document(id="cherry", text="the cherry is red"),
    Document(id="damson", text="damson jam"),
]


def example(id: str, text: str = "", group: str = "", sources: Sequence[str] = ()) -> Example:
    return Example(id=id, input=text or f"what of {id}", targets=("x",), group=group, sources=tuple(sources))


def asking(train: Sequence[Example] = (), *, seed: int = 0, **settings: Any) -> Asking:
    retriever: Retriever | None = Words(**settings) if settings else None
    return Asking(
        session=CannedSession(Canned()),
        decoding=Decoding(max_tokens=10),
        train=train,
        seed=seed,
        retriever=retriever,
        index=WordIndex(KB) if retriever else None,
        embedding=HashedEmbedding(),
    )


# ------------------------------------------------------------------------------------------------------------ shots

TRAIN = [example(f"t{i}", group=f"g{i % 5}") for i in range(20)]


def test_first_shots_are_the_first_of_other_groups() -> None:
    chosen = asking(TRAIN).choose(example("q", group="g0"), "first", 3)
    assert [shot.id for shot in chosen] == ["t1", "t2", "t3"]


@pytest.mark.parametrize("select", ["first", "random", "similar"])
def test_no_shot_is_of_the_questions_own_group_or_the_question_itself(select: Any) -> None:
    context = asking(TRAIN)
    chosen = context.choose(TRAIN[7], select, 100)
    assert len(chosen) == 16
    assert {shot.group for shot in chosen} == {"g0", "g1", "g3", "g4"}
    alone = [example("a"), example("b")]
    assert [shot.id for shot in asking(alone).choose(alone[0], select, 5)] == ["b"]


def test_random_shots_are_one_draw_a_seed_the_same_for_every_question() -> None:
    one, two = example("q1"), example("q2")
    context = asking(TRAIN, seed=3)
    assert context.choose(one, "random", 4) == context.choose(two, "random", 4)
    assert context.choose(one, "random", 4) == asking(TRAIN, seed=3).choose(one, "random", 4)
    draws = {asking(TRAIN, seed=seed).choose(one, "random", 4) for seed in range(5)}
    assert len(draws) == 5


def test_similar_shots_come_nearest_first_and_equal_ones_as_in_the_file() -> None:
    train = [
        example("a", "cats purr"),
        example("b", "dogs bark loudly"),
        example("c", "dogs bark"),
        example("d", "dogs bark"),
    ]
    chosen = asking(train).choose(example("q", "dogs bark"), "similar", 3)
    assert [shot.id for shot in chosen] == ["c", "d", "b"]


def test_similar_shots_do_not_depend_on_what_was_prepared_before() -> None:
    questions = [example(f"q{i}", f"what of t{i} and t{i + 1}") for i in range(5)]
    prepared = asking(TRAIN)
    prepared.prepare(questions)
    for question in questions:
        assert prepared.choose(question, "similar", 4) == asking(TRAIN).choose(question, "similar", 4)


def test_an_empty_train_split_gives_no_shots() -> None:
    for select in ("first", "random", "similar"):
        assert asking().choose(example("q"), select, 3) == ()  # type: ignore[arg-type]


def test_shots_by_likeness_need_an_embedder() -> None:
    context = Asking(session=CannedSession(Canned()), decoding=Decoding(), train=TRAIN, seed=0)
    with pytest.raises(ModelError, match="embedder"):
        context.choose(example("q"), "similar", 2)


# --------------------------------------------------------------------------------------------------------- passages


def test_passages_stop_before_the_first_that_exceeds_the_budget() -> None:
    question = example("q", "the apple is red yellow")
    assert [p.document for p in asking(top_k=3).passages(question)] == ["apple", "banana", "cherry"]
    assert [p.document for p in asking(top_k=3, max_tokens=11).passages(question)] == ["apple"]
    assert [p.document for p in asking(top_k=3, max_tokens=12).passages(question)] == ["apple", "banana"]
    assert asking(top_k=3, max_tokens=3).passages(question) == ()
    assert asking().passages(question) == ()


def drawn(method: Steps, question: Example, seed: int = 0, **settings: Any) -> list[str]:
    context = asking(seed=seed, **settings)
    context.train_on([question], method)
    return [passage.document for passage in context.passages(question)]


def test_a_training_prompt_holds_the_gold_passage_among_others() -> None:
    question = example("q", "what is red", sources=["cherry"])
    for seed in range(8):
        found = drawn(Steps(), question, seed, top_k=3)
        assert len(found) == 3
        assert "cherry" in found
    assert len({tuple(drawn(Steps(), question, seed, top_k=3)) for seed in range(8)}) > 1, "its place is drawn"
    assert drawn(Steps(), question, 5, top_k=3) == drawn(Steps(), question, 5, top_k=3)


def test_a_gold_passage_that_was_not_retrieved_stands_in_the_prompt_all_the_same() -> None:
    question = example("q", "what is red", sources=["damson"])
    assert drawn(Steps(shuffle=False), question, top_k=1) == ["damson"]
    assert drawn(Steps(shuffle=False), question, top_k=2) == ["apple", "damson"], "behind those with a rank"


def test_without_shuffling_passages_keep_the_retrievers_order() -> None:
    question = example("q", "what is red", sources=["cherry"])
    assert drawn(Steps(shuffle=False, distractors=2), question, top_k=3) == ["apple", "cherry", "banana"]


def test_an_oracle_share_of_none_leaves_only_others() -> None:
    question = example("q", "what is red", sources=["cherry"])
    for seed in range(8):
        assert set(drawn(Steps(oracle_share=0), question, seed, top_k=3)) == {"apple", "banana", "damson"}


def test_the_oracle_share_is_kept_over_many_examples() -> None:
    questions = [example(f"q{i}", "what is red", sources=["cherry"]) for i in range(300)]
    held = sum("cherry" in drawn(Steps(oracle_share=0.6), question, top_k=2) for question in questions)
    assert 150 < held < 210


def test_distractors_are_counted_beside_the_gold_passage() -> None:
    question = example("q", "what is red", sources=["cherry"])
    assert drawn(Steps(distractors=0), question, top_k=3) == ["cherry"]
    assert len(drawn(Steps(distractors=1), question, top_k=3)) == 2


def test_an_example_without_a_source_is_trained_on_what_is_retrieved() -> None:
    assert drawn(Steps(shuffle=False), example("q", "what is red"), top_k=2) == ["apple", "cherry"]


def test_the_budget_never_leaves_out_the_gold_passage_first() -> None:
    question = example("q", "yellow bent", sources=["apple"])
    for seed in range(8):
        assert drawn(Steps(), question, seed, top_k=3, max_tokens=5) == ["apple"]


# ---------------------------------------------------------------------------------------------------- conversations


class Logged(CannedSession):
    def __init__(self, **settings: Any) -> None:
        super().__init__(Canned(max_batch=3, default="{input}!", **settings))
        self.asked: list[list[str]] = []

    def answer(self, requests: Sequence[Request], plan: Plan, *, seed: int = 0) -> list[Reply]:
        self.asked.append([request.messages[-1].content for request in requests])
        return super().answer(requests, plan, seed=seed)


class Twice(ZeroShot):
    """Asks about the first answer again; asks nothing of what begins with "mute" and gives up what begins with "no"."""

    def ask(self, example: Example, context: Context) -> Generator[Request, Reply, str | None]:
        if example.input.startswith("mute"):
            return "silence"
        first = yield Request(messages=(Message("user", example.input),), decoding=context.decoding)
        if example.input.startswith("no"):
            return None
        second = yield Request(messages=(Message("user", first.texts[0]),), decoding=context.decoding)
        return second.texts[0]


def answered(
    texts: Sequence[str], prompt: Prompt, session: CannedSession, done: Sequence[Sequence[Prediction]] = ()
) -> list[list[Prediction]]:
    saved: list[list[Prediction]] = []
    context = Asking(session=session, decoding=Decoding(), train=(), seed=0)
    examples = [example(f"e{i}", text) for i, text in enumerate(texts)]
    answer(examples, prompt, context, session, seed=0, done=done, save=lambda batch: saved.append(list(batch)))
    return saved


def test_batches_are_saved_one_by_one_as_they_were_planned() -> None:
    session = Logged()
    saved = answered(["a", "b", "c", "d"], ZeroShot(), session)
    assert [[p.id for p in batch] for batch in saved] == [["e0", "e1", "e2"], ["e3"]]
    assert [p.text for batch in saved for p in batch] == ["a!", "b!", "c!", "d!"]
    assert session.asked == [["a", "b", "c"], ["d"]]


def test_conversations_of_a_batch_go_on_in_waves() -> None:
    session = Logged()
    saved = answered(["a", "no", "c", "d"], Twice(), session)
    assert session.asked == [["a", "no", "c"], ["a!", "c!"], ["d"], ["d!"]]
    first, gave_up, *_ = saved[0]
    assert (first.text, len(first.calls)) == ("a!!", 2)
    assert first.calls[1].messages == (Message("user", "a!"),)
    assert (gave_up.text, gave_up.error) == (None, "the prompt gave no answer")


def test_what_needs_no_model_is_saved_without_asking_it() -> None:
    session = Logged()
    saved = answered(["a", "mute"], Twice(), session)
    assert [(p.id, p.text, len(p.calls)) for p in saved[0]] == [("e1", "silence", 0)]
    assert answered(["mute"], Twice(), session)[0][0].text == "silence"


def test_a_failed_reply_ends_its_conversation_and_no_other() -> None:
    session = Logged(fail_on=("bad",))
    (batch,) = answered(["a", "bad"], Twice(), session)
    assert [(p.text, p.error) for p in batch] == [("a!!", None), (None, "this message is in `fail_on`")]
    assert len(batch[1].calls) == 1


@given(texts=st.lists(st.sampled_from(["a", "no", "mute", "bad", "long " * 9]), max_size=12), kept=st.integers(0, 5))
def test_going_on_after_any_number_of_batches_gives_what_an_undisturbed_run_gives(texts: list[str], kept: int) -> None:
    whole = answered(texts, Twice(), Logged(fail_on=("bad",)))
    session = Logged(fail_on=("bad",))
    rest = answered(texts, Twice(), session, done=whole[:kept])

    def content(batches: Sequence[Sequence[Prediction]]) -> list[list[tuple[Any, ...]]]:
        return [[(p.id, p.text, p.error, [call.messages for call in p.calls]) for p in batch] for batch in batches]

    assert content(rest) == content(whole[kept:])
    assert not session.asked or len(whole) > kept


def test_shots_carry_passages_of_their_own() -> None:
    context = asking([example("s", "what is yellow")], top_k=1)
    messages = FewShot(shots=1, embedder={"kind": "toys:Hashed"}).messages(example("q", "what jam"), context)  # type: ignore[arg-type]
    assert [message.content for message in messages] == [
        "[banana] the banana is yellow and long and bent\n\nwhat is yellow",
        "x",
        "[damson] damson jam\n\nwhat jam",
    ]


def test_the_budget_of_a_prompt_is_the_context_less_the_answer() -> None:
    assert asking().budget == 4096 - 10


def test_an_index_may_find_fewer_than_were_asked_for() -> None:
    class Empty(Index):
        def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            return [[] for _ in queries]

        def passages(self) -> Sequence[Passage]:
            return ()

    context = Asking(
        session=CannedSession(Canned()), decoding=Decoding(), train=(), seed=0, retriever=Words(), index=Empty()
    )
    assert context.passages(example("q")) == ()
    context.train_on([example("q", sources=["apple"])], Steps())
    assert context.passages(example("q", sources=["apple"])) == ()


def test_an_answer_cites_the_gold_passage_where_it_stands_in_the_prompt() -> None:
    context = asking(top_k=2)
    asked = replace(example("q", "what of the banana fruit", sources=("banana",)), targets=("long",))
    context.train_on([asked], Steps(context="retrieved", distractors=1))
    template = '"{quote}" [{document}]: '
    assert context.citation(asked, template) == '"the banana is yellow and long and bent" [banana]: '
    absent = replace(asked, id="absent")
    context.train_on([absent], Steps(context="retrieved", distractors=1, oracle_share=0))
    assert context.citation(absent, template) == "", "nothing is cited that the reader cannot see"


def test_a_quote_is_the_sentence_that_holds_most_of_the_answers_words() -> None:
    page = Document(id="kettle", text="The kettle is red. It has a warranty of two years! {document} is only text.")
    context = Asking(
        session=CannedSession(Canned()),
        decoding=Decoding(),
        train=(),
        seed=0,
        retriever=Words(),
        index=WordIndex([page]),
    )
    asked = Example(id="q", input="how long is the warranty", targets=("two years",), sources=("kettle",))
    context.prepare([asked])
    assert context.citation(asked, "{quote} [{document}]") == "It has a warranty of two years! [kettle]"
