"""Show worked examples of the train split before the question, as turns of the chat.

Source: Brown et al. 2020, arXiv 2005.14165.

With retrieval each shot carries its own retrieved passages. Shots that do not fit are left out, the worst first: the
question and its passages always stay whole.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.errors import DataError
from harness.plugins import Context, Embedder, Family, Select
from harness.prompts.zero_shot import ZeroShot
from harness.records import Example, Message


class FewShot(ZeroShot):
    shots: int = Field(4, ge=1)
    """How many worked examples stand before the question."""
    select: Select = "first"
    """Which ones: the first of the train split, random ones (one draw a seed), or the most similar to the question."""
    shot_passages: int | None = Field(None, ge=0)
    """How many of its own passages each shot carries where the variant retrieves; by default all of them."""
    max_prompt_tokens: int | None = Field(None, ge=1)
    """Shots are left out until the prompt has this many tokens at most; by default the model's context less the
    answer."""
    embedder: Annotated[Embedder, Family("embedders", "sentence-transformers")] = Field(
        {"kind": "sentence-transformers"}, validate_default=True
    )
    """What `select = "similar"` measures likeness with."""

    @property
    def embedder_plugin(self) -> Embedder | None:
        return self.embedder if self.select == "similar" else None

    @property
    def random(self) -> bool:
        return self.select == "random"

    @property
    def reads_train(self) -> bool:
        return True

    def messages(self, example: Example, context: Context) -> tuple[Message, ...]:
        *system, question = super().messages(example, context)
        limit = min(self.max_prompt_tokens or context.budget, context.budget)
        chosen = [self._turns(shot, context) for shot in context.choose(example, self.select, self.shots)]
        while True:
            # The best shot stands last, next to the question.
            turns = [message for shot in reversed(chosen) for message in shot]
            messages = (*system, *turns, question)
            if not chosen or context.count(messages) <= limit:
                return messages
            chosen.pop()

    def _turns(self, shot: Example, context: Context) -> tuple[Message, Message]:
        passages = context.passages(shot)[: self.shot_passages] if context.retrieves else ()
        if not shot.targets:
            raise DataError(f"train example {shot.id!r} has no target to show as a shot: few-shot needs data.target")
        return self.user(shot.input, passages, context.retrieves), Message("assistant", shot.targets[0])
