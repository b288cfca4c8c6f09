"""Continued pretraining: the model goes on reading plain text of the domain (DAPT, Gururangan et al. 2020,
arXiv 2004.10964).

All documents become one stream of tokens with an end of text after each, cut into blocks without any padding; every
token but the first of a block is learned.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from harness.errors import DataError, ModelError
from harness.methods._imitation import Imitation, Lesson
from harness.plugins import Reads, TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rows import Row

BLOCK = 1024

_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
"""What models call the end of a text in pretraining: a chat model's `eos_token` is often the end of a turn instead."""


class Pretrain(Imitation):
    epochs: float = Field(1.0, gt=0)
    """How often the text is gone through."""
    max_length: int | None = Field(None, ge=2)
    """Tokens of a block; None is 1,024, or the model's context where that is shorter."""
    end_of_text: str | None = None
    """The token after each document; None is the end of text that the model knows."""

    @property
    def reads(self) -> Reads:
        return "documents"

    def total_steps(self, rows: int) -> int | None:
        """None: how many blocks the documents make is known once they are read."""
        return None

    def passes(self, rows: int) -> float:
        return self.epochs

    def lesson(self, job: TrainJob, policy: Policy) -> Lesson:
        from harness.methods import _rows

        end = self._end_of_text(policy.tokenizer)
        size = min(self.max_length or BLOCK, self.limit(policy))
        texts = [value["text"] for value in _rows.values(job.train)]
        rows = blocks(stream(texts, policy.tokenizer, end), size)
        if not rows:
            raise DataError(f"{job.train}: the documents hold no token to learn")
        held = [value["text"] for value in _rows.values(job.dev)] if job.dev else []
        dev = blocks(stream(held, policy.tokenizer, end), size)
        tokens = sum(len(row.ids) for row in rows)
        return Lesson(
            rows, dev, details={"train_documents": len(texts), "train_tokens": tokens, "dev_documents": len(held)}
        )

    def _end_of_text(self, tokenizer: Any) -> int:
        known = tokenizer.get_vocab()
        if self.end_of_text is not None and self.end_of_text not in known:
            raise ModelError(
                f"end_of_text {self.end_of_text!r} is no token of the model. Its special tokens: "
                f"{', '.join(tokenizer.all_special_tokens)}"
            )
        names = [self.end_of_text] if self.end_of_text is not None else [*_ENDS, tokenizer.eos_token]
        found = next((known[name] for name in names if name in known), None)
        if found is None:
            raise ModelError(
                "the tokenizer names no end of text; name the token that is to stand between documents, "
                'end_of_text = "..."'
            )
        return int(found)


def stream(texts: Iterable[str], tokenizer: Any, end: int) -> list[int]:
    """The token ids of all `texts`, with `end` after each."""
    found: list[int] = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
        found += [*ids["input_ids"], end]
    return found


def blocks(ids: list[int], size: int) -> list[Row]:
    """Cut a stream of tokens into rows of `size`, the last one shorter; a single token left over teaches nothing."""
    from harness.methods._rows import Row

    cut = (tuple(ids[start : start + size]) for start in range(0, len(ids), size))
    return [Row(block, 1) for block in cut if len(block) > 1]
