"""Ask directly: the system text, then the question, with the retrieved passages above it where there are any."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import ValidationInfo, field_validator

from harness.plugins import Context, Prompt
from harness.records import Example, Message, Passage

_HOLDS = {"template": ["{input}"], "context_template": ["{passages}", "{input}"], "passage_template": ["{text}"]}


class ZeroShot(Prompt):
    system: str | None = None
    """The system message. Without one, the model's own default stands."""
    template: str = "{input}"
    """The user's message where nothing is retrieved; `{input}` is the question."""
    context_template: str = "{passages}\n\n{input}"
    """The user's message where the variant retrieves; `{passages}` are the passages, best first."""
    passage_template: str = "[{document}] {text}"
    """One passage: `{document}` is its document's id, `{text}` its text."""

    @field_validator("template", "context_template", "passage_template")
    @classmethod
    def _holds_what_it_is_for(cls, value: str, info: ValidationInfo) -> str:
        for name in _HOLDS[str(info.field_name)]:
            if name not in value:
                raise ValueError(f"the template must hold {name}, or it would never be shown")
        return value

    def user(self, text: str, passages: Sequence[Passage], retrieves: bool) -> Message:
        """One user message. Plain substitution: braces in a question or a passage are only text."""
        if not retrieves:
            return Message("user", _fill(self.template, {"input": text}))
        shown = "\n\n".join(_fill(self.passage_template, {"document": p.document, "text": p.text}) for p in passages)
        return Message("user", _fill(self.context_template, {"passages": shown, "input": text}))

    def messages(self, example: Example, context: Context) -> tuple[Message, ...]:
        system = (Message("system", self.system),) if self.system is not None else ()
        passages = context.passages(example) if context.retrieves else ()
        return (*system, self.user(example.input, passages, context.retrieves))


def _fill(template: str, values: dict[str, str]) -> str:
    """Replace each `{name}` once, in one pass: what is filled in is never searched again."""
    names = "|".join(re.escape("{" + name + "}") for name in values)
    return re.sub(names, lambda match: values[match.group()[1:-1]], template)
