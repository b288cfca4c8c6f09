"""A metric of the spec on the answers that a model in training writes to the dev prompts.

Imported where a training begins and nowhere else.
"""

from __future__ import annotations

import math
from pathlib import Path

from harness.errors import DataError
from harness.methods import _rewards, _sampling
from harness.plugins import Metric


class DevMetric:
    """`name` is the metric's; calling it gives its mean over the dev examples that it speaks of, the answers written
    greedily by the model as it is now. An answer that was cut counts as it is, as it does on the leaderboard."""

    def __init__(self, metric: Metric, file: Path, sampler: _sampling.Sampler, most: int) -> None:
        """`file` holds the dev rows, `most` the tokens that a prompt may have. Raises DataError where the metric speaks
        of none of them."""
        self.name, self.higher = metric.name, metric.direction == "higher"
        self._sampler, self._measure = sampler, _rewards.MetricReward(f"metric:{metric.name}", metric)
        read, counts = _sampling.read(file, sampler.renderer, most, setting="metric_tokens")
        self._prompts = [prompt for prompt in read if self._measure.speaks_of(prompt)]
        self.counts = {"metric_prompts": len(self._prompts), "metric_prompts_too_long": counts["prompts_too_long"]}
        if not self._prompts:
            raise DataError(f"{file}: the metric {metric.name} speaks of none of the {len(read)} dev examples")

    def __call__(self) -> float:
        values = self._measure.score(self._sampler.answer(self._prompts))
        known = [value for value in values if not math.isnan(value)]
        mean = sum(known) / len(known)
        return mean if self.higher else -mean
