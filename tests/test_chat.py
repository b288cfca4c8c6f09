"""Prompts as token ids, with and without a chat template."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import make_tiny_model

from harness.chat import Chat, context_length, read_template
from harness.errors import ModelError
from harness.records import Message

ASKED = (Message("system", "be brief"), Message("user", "how long?"))


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def test_the_prompt_is_what_the_template_writes_up_to_the_answer(tokenizer: Any) -> None:
    chat = Chat(tokenizer, None)
    values = [{"role": message.role, "content": message.content} for message in ASKED]
    expected = tokenizer.apply_chat_template(values, add_generation_prompt=True, return_dict=False)
    assert chat.prompts([ASKED, ASKED[1:]])[0] == expected
    assert chat.text(ASKED).endswith("<|im_start|>assistant\n")
    assert chat.text(ASKED, answer_follows=False).endswith("how long?<|im_end|>\n")
    assert chat.prompts([]) == []


def test_a_named_template_goes_before_the_tokenizers_own(tokenizer: Any) -> None:
    chat = Chat(tokenizer, "{% for message in messages %}{{ message['content'] }}|{% endfor %}")
    assert chat.text(ASKED) == "be brief|how long?|"
    assert chat.prompts([ASKED]) == [tokenizer("be brief|how long?|", add_special_tokens=False)["input_ids"]]


def test_without_a_template_the_contents_stand_alone_after_the_tokenizers_own_start(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    bare = AutoTokenizer.from_pretrained(make_tiny_model(tmp_path / "model", template=None))
    start = bare.convert_tokens_to_ids("<|im_start|>")
    bare.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", start)]
    )
    chat = Chat(bare, None)
    assert chat.text(ASKED) == "be brief\n\nhow long?\n"
    (ids,) = chat.prompts([ASKED])
    assert ids[0] == start and ids[1:] == chat.encode(["be brief\n\nhow long?\n"])[0]


def test_a_template_that_refuses_messages_names_their_roles(tokenizer: Any) -> None:
    chat = Chat(tokenizer, "{{ raise_exception('no system here') }}")
    with pytest.raises(ModelError, match=r"does not take these messages \(system, user\): no system here"):
        chat.prompts([ASKED])


def test_a_template_is_itself_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert read_template(None) is None
    assert read_template("{{ messages }}") == read_template(str(tmp_path / "chat.jinja")) == "{{ messages }}"
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for named in (str(tmp_path / "nowhere.jinja"), str(tmp_path / "bytes")):
        with pytest.raises(ModelError, match="neither a Jinja template nor a file"):
            read_template(named)


@pytest.mark.parametrize(
    ("positions", "longest", "expected"),
    [(512, 10**30, 512), (512, 256, 256), (None, 1024, 1024), (None, 10**30, 2048)],
)
def test_the_context_is_the_shorter_of_model_and_tokenizer(positions: Any, longest: int, expected: int) -> None:
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=positions))
    assert context_length(config, SimpleNamespace(model_max_length=longest)) == expected
