"""How long the answers are, on average."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from harness.plugins import Metric
from harness.records import Example, Prediction


class Length(Metric):
    """The mean length of an answer, in characters, words (what stands between white space) or tokens.

    Less counts as better: of two answers that are equally right, the shorter one is sooner made and read. It says
    nothing of quality, so let another metric rank, and read this one beside it: a difference in length is what judges
    are known to favour (Dubois et al. 2024, arXiv 2404.04475).
    """

    direction = "lower"

    of: Literal["characters", "words", "tokens"] = "words"
    """What is counted: Unicode code points, words, or all new tokens that the model wrote for the answer, in however
    many calls, the end mark included. Tokens of different models are not alike."""
    limit: int = Field(1000, ge=1)
    """The longest that an answer can count: longer ones count as this long, and so does a failed one, which has to
    count as the worst there is."""

    @property
    def default_name(self) -> str:
        return f"length_{self.of}"

    @property
    def unit(self) -> str:  # type: ignore[override]
        return self.of

    @property
    def ceiling(self) -> float | None:  # type: ignore[override]
        return float(self.limit)

    def measure(self, example: Example, prediction: Prediction) -> float:
        text = prediction.text or ""
        match self.of:
            case "characters":
                count = len(text)
            case "words":
                count = len(text.split())
            case _:
                count = prediction.output_tokens
        return float(min(count, self.limit))
