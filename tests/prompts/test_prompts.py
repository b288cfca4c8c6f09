"""What zero-shot and few-shot put to the model."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.errors import DataError
from harness.plugins import Context, Prompt, Select
from harness.prompts.few_shot import FewShot
from harness.prompts.zero_shot import ZeroShot
from harness.records import Decoding, Example, Message, Passage, Reply


class Small(Context):
    """Counts words; retrieves by the example's id; chooses the first of the train split."""

    def __init__(self, train: Sequence[Example] = (), *, retrieves: bool = False, budget: int = 1000) -> None:
        self.decoding = Decoding(max_tokens=7, stop=("\n",))
        self.budget = budget
        self.retrieves = retrieves
        self.asked: list[tuple[Select, int]] = []
        self._train = train

    def passages(self, example: Example) -> tuple[Passage, ...]:
        if not self.retrieves:
            return ()
        texts = [f"first of {example.id}", f"second of {example.id}"]
        return tuple(Passage(id=f"KB-{i}#0", document=f"KB-{i}", text=text) for i, text in enumerate(texts))

    def choose(self, example: Example, select: Select, n: int) -> tuple[Example, ...]:
        self.asked.append((select, n))
        return tuple(self._train[:n])

    def count(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.split()) for message in messages)


QUESTION = Example(id="q", input="How long?", targets=("2 years",))
TRAIN = [Example(id=f"t{i}", input=f"question {i}", targets=(f"answer {i}", "other")) for i in range(4)]


def user(text: str) -> Message:
    return Message("user", text)


def test_zero_shot_is_the_system_text_and_the_question() -> None:
    assert ZeroShot().messages(QUESTION, Small()) == (user("How long?"),)
    messages = ZeroShot(system="Be brief.", template="Q: {input}\nA:").messages(QUESTION, Small())
    assert messages == (Message("system", "Be brief."), user("Q: How long?\nA:"))
    assert ZeroShot(system="").messages(QUESTION, Small())[0] == Message("system", "")


def test_passages_are_shown_best_first_by_the_ids_of_their_documents() -> None:
    (message,) = ZeroShot().messages(QUESTION, Small(retrieves=True))
    assert message == user("[KB-0] first of q\n\n[KB-1] second of q\n\nHow long?")
    prompt = ZeroShot(context_template="Read:\n{passages}\nAnswer: {input}", passage_template="- {text} ({document})")
    (message,) = prompt.messages(QUESTION, Small(retrieves=True))
    assert message == user("Read:\n- first of q (KB-0)\n\n- second of q (KB-1)\nAnswer: How long?")


@given(st.text("{}inputpassagestextdocument \n", max_size=30))
def test_braces_in_a_question_or_a_passage_are_only_text(text: str) -> None:
    example = Example(id=text, input=text)
    assert ZeroShot(template="<{input}>").messages(example, Small()) == (user(f"<{text}>"),)
    (message,) = ZeroShot().messages(example, Small(retrieves=True))
    assert message == user(f"[KB-0] first of {text}\n\n[KB-1] second of {text}\n\n{text}")


@pytest.mark.parametrize(
    ("field", "value", "lacks"),
    [
        ("template", "Question:", "{input}"),
        ("context_template", "{input}", "{passages}"),
        ("context_template", "{passages}", "{input}"),
        ("passage_template", "[{document}]", "{text}"),
    ],
)
def test_a_template_that_would_hide_what_it_is_for_is_refused(field: str, value: str, lacks: str) -> None:
    for cls in (ZeroShot, FewShot):
        with pytest.raises(ValidationError, match=r"the template must hold \{" + lacks[1:-1]):
            cls.model_validate({field: value})


def test_asking_yields_one_request_and_returns_the_first_text() -> None:
    asking = ZeroShot().ask(QUESTION, Small())
    request = next(asking)
    assert (request.messages, request.decoding, request.n) == ((user("How long?"),), Small().decoding, 1)
    with pytest.raises(StopIteration) as end:
        asking.send(Reply(texts=("2 years", "3 years")))
    assert end.value.value == "2 years"
    asking = ZeroShot().ask(QUESTION, Small())
    next(asking)
    with pytest.raises(StopIteration) as end:
        asking.send(Reply(error="out of memory"))
    assert end.value.value is None


def test_shots_are_turns_with_the_best_one_next_to_the_question() -> None:
    context = Small(TRAIN)
    messages = FewShot(shots=2, system="Be brief.").messages(QUESTION, context)
    assert messages == (
        Message("system", "Be brief."),
        user("question 1"),
        Message("assistant", "answer 1"),
        user("question 0"),
        Message("assistant", "answer 0"),
        user("How long?"),
    )
    assert context.asked == [("first", 2)]


def test_each_shot_carries_its_own_passages() -> None:
    context = Small(TRAIN, retrieves=True)
    whole = FewShot(shots=1).messages(QUESTION, context)
    assert whole[0] == user("[KB-0] first of t0\n\n[KB-1] second of t0\n\nquestion 0")
    assert whole[2] == user("[KB-0] first of q\n\n[KB-1] second of q\n\nHow long?")
    one = FewShot(shots=1, shot_passages=1).messages(QUESTION, context)
    assert one[0] == user("[KB-0] first of t0\n\nquestion 0")
    assert one[2] == whole[2]
    none = FewShot(shots=1, shot_passages=0).messages(QUESTION, context)
    assert none[0] == user("\n\nquestion 0")


def test_shots_that_do_not_fit_are_left_out_the_worst_first() -> None:
    # The question has two words and each shot four.
    for limit, kept in ((18, 4), (17, 3), (10, 2), (9, 1), (6, 1), (5, 0), (1, 0)):
        messages = FewShot(shots=4, max_prompt_tokens=limit).messages(QUESTION, Small(TRAIN))
        assert len(messages) == 2 * kept + 1
        assert messages[-1] == user("How long?"), "the question always stays whole"
        assert kept == 0 or messages[-3] == user("question 0")


def test_the_model_s_context_limits_the_shots_too() -> None:
    assert len(FewShot(shots=4).messages(QUESTION, Small(TRAIN, budget=11))) == 5
    assert len(FewShot(shots=4, max_prompt_tokens=100).messages(QUESTION, Small(TRAIN, budget=11))) == 5
    assert len(FewShot(shots=4).messages(QUESTION, Small())) == 1, "no train split, no shots"


def test_a_shot_without_a_target_is_refused() -> None:
    with pytest.raises(DataError, match="train example 't' has no target"):
        FewShot().messages(QUESTION, Small([Example(id="t", input="?")]))


def test_what_a_prompt_depends_on_is_told() -> None:
    assert (ZeroShot().reads_train, ZeroShot().random, ZeroShot().embedder_plugin) == (False, False, None)
    for select, random, embeds in (("first", False, False), ("random", True, False), ("similar", False, True)):
        prompt = FewShot.model_validate({"select": select})
        assert (prompt.reads_train, prompt.random, prompt.embedder_plugin is not None) == (True, random, embeds)


@pytest.mark.parametrize("prompt", [ZeroShot(system="x"), FewShot(shots=2, select="similar")])
def test_settings_are_json_and_lead_back_to_the_same_prompt(prompt: Prompt) -> None:
    settings = json.loads(json.dumps(prompt.settings()))
    assert settings["kind"] == prompt.kind
    table = {key: value for key, value in prompt.table().items() if key != "kind"}
    assert type(prompt).model_validate(json.loads(json.dumps(table))) == prompt


def test_the_default_embedder_of_few_shot_is_a_plugin_and_stands_in_settings_and_schema() -> None:
    prompt = FewShot()
    assert prompt.embedder.kind == "sentence-transformers"
    assert prompt.settings()["embedder"]["id"] == "all-minilm-l6-v2"
    assert prompt.model_dump(mode="json")["embedder"]["id"] == "all-minilm-l6-v2"
    schema = FewShot.model_json_schema()["properties"]["embedder"]
    assert schema["default"] == {"kind": "sentence-transformers"}
    chosen = FewShot.model_validate({"embedder": {"id": "other/model", "query_prefix": "query: "}})
    assert chosen.settings()["embedder"]["id"] == "other/model"
    with pytest.raises(ValidationError, match="Did you mean 'sentence-transformers'"):
        FewShot.model_validate({"embedder": {"kind": "sentence-transformer"}})
