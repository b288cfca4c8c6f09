"""What several metric tests share: an example, an answer to it, and one metric's number for the two."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from harness.plugins import Measured, Metric
from harness.records import Example, Passage, Prediction
from harness.reducers import REDUCERS

WORDS = st.sampled_from(
    [
        "the",
        "The",
        "cat",
        "sat",
        "mat.",
        "runs",
        "running",
        "don't",
        "é",
        "École",
        "猫",
        "“",
        "–",
        "24",
        "1,000",
        "\n",
        "",
    ]
)
TEXTS = st.lists(WORDS, max_size=9).map(" ".join) | st.text(max_size=12)


def measured(metric: Metric, answer: str | None, *targets: str, sources: Sequence[str] = ()) -> Measured:
    example = Example(id="q", input="?", targets=targets, sources=tuple(sources))
    return metric.measure(example, Prediction(id="q", text=answer))


def value(metric: Metric, cases: Sequence[tuple[str, Sequence[str]]]) -> float | None:
    """What the metric's reducer makes of (answer, accepted answers) together."""
    rows = [measured(metric, answer, *targets) for answer, targets in cases]
    return REDUCERS[metric.reducer]([row if isinstance(row, tuple) else (row,) for row in rows if row is not None], ())


def answered(ranked: Sequence[str], scores: Sequence[float | None] | None = None, text: str = "") -> Prediction:
    """An answer for which these documents were retrieved, best first; without scores, each less than the one before."""
    given = scores or [float(-rank) for rank in range(len(ranked))]
    passages = (
        Passage(id=f"{name}#{i}", document=name, text="", rank=i + 1, score=score)
        for i, (name, score) in enumerate(zip(ranked, given, strict=True))
    )
    return Prediction(id="q", text=text, passages=tuple(passages))
