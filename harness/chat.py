"""Prompts as token ids: the one way in which a model is both asked and trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import ModelError
from harness.records import Message


def read_template(named: str | None) -> str | None:
    """Return the Jinja chat template that a `[model]` table names: itself, or what the file holds.

    Raises ModelError where the file cannot be read.
    """
    if named is None or "{" in named:
        return named
    try:
        return Path(named).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(
            f"chat_template {named!r} is neither a Jinja template nor a file that can be read: {error}"
        ) from error


def context_length(config: Any, tokenizer: Any) -> int:
    """The tokens that prompt and answer may have together; `config` is a transformers model's."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    known = [length for length in (longest, tokenizer.model_max_length) if length and length < 1_000_000_000]
    return min(known, default=2048)


def end_tokens(tokenizer: Any, configured: int | Sequence[int] | None) -> frozenset[int]:
    """The tokens after which an answer is over: the model's own (`configured`, its generation configuration's
    `eos_token_id`), the tokenizer's, and the end of a turn in ChatML."""
    own = [configured] if configured is None or isinstance(configured, int) else configured
    ends = {*own, tokenizer.eos_token_id, tokenizer.get_vocab().get("<|im_end|>")}
    return frozenset(token for token in ends if token is not None)


class Chat:
    """Turns messages into text and token ids.

    `template` is a Jinja chat template in place of the tokenizer's own, or None. Without either, the messages' contents
    are joined by blank lines and the answer follows on a new line.
    """

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        self.tokenizer = tokenizer
        self.template = template or getattr(tokenizer, "chat_template", None)

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Return the token ids that each conversation's prompt has."""
        # A template writes its own special tokens; a plain prompt gets those that the tokenizer puts at the start.
        return self.encode([self.text(messages) for messages in conversations], special=self.template is None)

    def text(self, messages: Sequence[Message], *, answer_follows: bool = True) -> str:
        """Return the text of `messages`, by default up to where the answer begins."""
        if self.template is None:
            return "\n\n".join(message.content for message in messages) + "\n"
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in messages],
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=answer_follows,
            )
        except TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            raise ModelError(f"the chat template does not take these messages ({roles}): {error}") from error
        return text

    def encode(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Return the token ids of each text; with `special`, with the tokens that the tokenizer puts around it."""
        if not texts:
            return []
        tokens: list[list[int]] = self.tokenizer(
            list(texts), add_special_tokens=special, return_attention_mask=False, return_token_type_ids=False
        )["input_ids"]
        return tokens
