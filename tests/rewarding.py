"""What the tests of stages that learn from rewards share: a metric to learn from, and jobs that have it as a reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training import make_job, row

from harness.plugins import Metric, TrainJob
from harness.records import Example, Prediction, dump

REWARD = "metric:letters"


class Letters(Metric):
    """The share of an answer's characters that are among `letters`; 0 for an empty answer."""

    letters: str = "abcdefghijklmnopqrstuvwxyz"

    def measure(self, example: Example, prediction: Prediction) -> float:
        text = prediction.text or ""
        return sum(one in self.letters for one in text) / max(1, len(text))


def asked(count: int = 16) -> list[dict[str, Any]]:
    """Prompts of unlike length with their examples."""
    made = [row(n, f"how long {n}?" + " please" * (n % 5), f"{n % 5} years") for n in range(count)]
    return [
        one
        | {"example": dump(Example(id=one["id"], input=one["messages"][0]["content"], targets=(one["completion"],)))}
        for one in made
    ]


def rewarded_job(folder: Path, model: Path, **settings: Any) -> TrainJob:
    """A job of prompts whose answers are rewarded for a letter."""
    references = {REWARD: {"metric": {"kind": "rewarding:Letters"}}} | settings.pop("references", {})
    return make_job(folder, model, **{"train": asked(), "references": references} | settings)
