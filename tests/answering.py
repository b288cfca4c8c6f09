"""What the tests of answering share: questions, a session's answers to them, and transformers' own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.plugins import Plan
from harness.records import Decoding, Message, Reply, Request

QUESTIONS = (
    "how long does the warranty of a grinder last?",
    "water",
    "the red light blinks and the machine boils no water ! ! !",
    "parcels within thirty days",
    "is the price 4 5 6 or 7 8 9 for a clean filter and a number of burrs and coffee and tea and repairs?",
    "no",
)
SHOTS = "return parcels within thirty days cover repairs price machine burrs clean filter light " * 6


def asks(questions: Sequence[str] = QUESTIONS, system: str = "", **decoding: Any) -> list[Request]:
    decoding = {"max_tokens": 16, **decoding}
    before = (Message("system", system),) if system else ()
    return [Request(messages=(*before, Message("user", text)), decoding=Decoding(**decoding)) for text in questions]


def answer_all(session: Any, requests: Sequence[Request], plan: Plan | None = None, seed: int = 0) -> list[Reply]:
    plan = plan or session.plan(requests)
    replies: dict[int, Reply] = {}
    for batch in plan.batches:
        found = session.answer([requests[index] for index in batch], plan, seed=seed)
        replies.update(zip(batch, found, strict=True))
    return [replies[index] for index in range(len(requests))]


def texts(replies: Sequence[Reply]) -> list[tuple[str, ...]]:
    return [reply.texts for reply in replies]


class Reference:
    """transformers' own greedy `generate`, one prompt at a time in float32."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        from harness import _bottleneck  # noqa: F401 - so that PEFT knows it

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        if adapter is not None:
            self.model = PeftModel.from_pretrained(self.model, adapter)
        self.model.eval()

    def answers(self, session: Any, requests: Sequence[Request]) -> list[tuple[str, ...]]:
        import torch

        found = []
        for request in requests:
            tokens = torch.tensor(session.chat.prompts([request.messages]))
            output = self.model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=request.decoding.max_tokens,
                do_sample=False,
                pad_token_id=2,
            )
            found.append((session._decode(output[0, tokens.shape[1] :].tolist()),) * request.n)
        return found
