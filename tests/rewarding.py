"""What the tests of stages that learn from rewards share: a metric to learn from, and jobs that have it as a reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training import make_job, row

from harness.plugins import Metric, TrainJob
from harness.records import Example, Prediction, dump

REWARD = "metric:letters"


class Letters(Metric):
    """The share of an answer's characters that are lower-case letters; 0 for an empty answer."""

    def measure(self, example: Example, prediction: Prediction) -> float:
        text = prediction.text or ""
        return sum(one.isascii() and one.islower() for one in text) / max(1, len(text))


class Broken(Metric):
    """A metric that fails once an answer has anything in it."""

    def measure(self, example: Example, prediction: Prediction) -> float:
        return 1 / (0 if prediction.text else 1)


def asked(count: int = 8, first: int = 0) -> list[dict[str, Any]]:
    """Prompts of unlike length with their examples."""
    made = [row(n, f"how long {n}?" + " please" * (n % 5), f"{n % 5} years") for n in range(first, first + count)]
    return [
        one
        | {"example": dump(Example(id=one["id"], input=one["messages"][0]["content"], targets=(one["completion"],)))}
        for one in made
    ]


def rewarded_job(folder: Path, model: Path, **settings: Any) -> TrainJob:
    """A job of prompts whose answers are rewarded for their letters."""
    references = {REWARD: {"metric": {"kind": "rewarding:Letters"}}} | settings.pop("references", {})
    return make_job(folder, model, **{"train": asked(), "references": references} | settings)


def reward_model(folder: Path, model: Path) -> Path:
    """Write a reward model with random weights, made from the tiny model, into `folder`."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from harness import models
    from harness.methods import _model, _reward

    with _model.quiet():
        torch.manual_seed(3)
        made = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
        torch.nn.init.normal_(made.score.weight)
        _reward.save(made, AutoTokenizer.from_pretrained(model), folder, models.fingerprint(model), "float32")
    return folder
