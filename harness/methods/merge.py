"""Merges of adapters: several LoRA adapters of one base become one, without any training.

The combinations are those of PEFT's `add_weighted_adapter`, by its names: TIES (Yadav et al. 2023, arXiv 2306.01708)
keeps each adapter's largest changes and leaves out those whose sign is outvoted; DARE (Yu et al. 2024,
arXiv 2311.03099) drops changes at random and scales up the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from harness import artifacts, extras, models
from harness.errors import ModelError
from harness.plugins import Local, Method, Reads, Refers, Trained, TrainJob

Combination = Literal[
    "cat", "svd", "linear", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd"
]
_SVD = "_svd"
_OF_FACTORS = frozenset({"linear", "ties", "dare_linear", "dare_ties"})
"""Combinations that are made of the factors A and B apart, which therefore need one shape."""


class Merge(Method):
    merge: tuple[Annotated[str, Refers("policy"), Local(or_name=True, or_stage=True)], ...] = Field(min_length=2)
    """The adapters: stages, or folders."""
    weights: tuple[float, ...] | None = None
    """How much of each; None is their mean. A negative weight takes what an adapter learned away (task arithmetic)."""
    combination: Combination = "cat"
    """How they are merged. "cat" is the exact weighted sum of the changes that they make, its rank the sum of theirs;
    "svd" the same cut to `rank`. "ties", "dare_linear" and "dare_ties" with "_svd" work on those changes, as their
    papers do; without it, and with "linear", on the factors A and B one by one, whose product then also has parts of
    one adapter times another: quicker, and only near what the papers do."""
    density: float | None = Field(None, gt=0, le=1)
    """Share of each adapter's numbers that TIES (the largest) or DARE (random ones) keeps."""
    rank: int | None = Field(None, ge=1)
    """Rank of what the "svd" combinations make; None is the highest of the merged ones."""

    sparse: ClassVar[tuple[str, ...]] = ("ties", "dare")

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Merge:
        if self.start is not None:
            raise ValueError("a merge starts from what `merge` names: leave `start` out")
        if self.weights is not None and len(self.weights) != len(self.merge):
            raise ValueError(f"there are {len(self.merge)} adapters to merge and {len(self.weights)} weights")
        if self.combination.startswith(self.sparse) and self.density is None:
            raise ValueError(f"{self.combination} needs a `density`, such as 0.2")
        if not self.combination.startswith(self.sparse) and self.density is not None:
            raise ValueError(f"{self.combination} keeps every number: `density` is of TIES and DARE")
        if not self.combination.endswith("svd") and self.rank is not None:
            raise ValueError(f'{self.combination} has no choice of `rank`: it is of "svd" and what ends in it')
        return self

    @property
    def reads(self) -> Reads:
        return "nothing"

    def passes(self, rows: int) -> float:
        return 0.0

    def fit(self, job: TrainJob, progress: Callable[[int, int, Mapping[str, float]], None]) -> Trained:
        with extras.needed("train"):
            import torch

            from harness.methods import _merging

        folders = {text: self._adapter(job, text) for text in self.merge}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(job.seed)  # DARE drops at random.
            count = _merging.merge(
                job,
                [folders[text] for text in self.merge],
                names=self.merge,
                weights=self.weights or [1 / len(self.merge)] * len(self.merge),
                combination=self.combination,
                density=self.density,
                rank=self.rank,
                same_ranks=self.combination in _OF_FACTORS,
            )
        progress(1, 1, {})
        return Trained(trainable_parameters=count, steps=0, tokens=0, details={"artifact": "adapter"})

    def _adapter(self, job: TrainJob, text: str) -> Path:
        """The folder of an adapter of the job's own base. Raises ModelError where there is none."""
        meaning = job.references[text]
        if "artifact" not in meaning:
            raise ModelError(f"merge: {text!r} is a whole model, and adapters are merged: name stages that leave one")
        folder = Path(meaning["artifact"])
        code = bool(job.model.get("trust_remote_code"))
        path = models.resolve(job.model["id"], revision=job.model.get("revision"), code=code)
        if artifacts.kind(folder, models.fingerprint(path, code=code), job.model["id"]) != "adapter":
            raise ModelError(
                f"merge: {text!r} left a whole model, and adapters are merged. Train it with an adapter alone"
            )
        said = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if (kind := said.get("peft_type")) != "LORA":
            raise ModelError(f"merge: {text!r} is an adapter of the kind {kind}; those of the kind LORA can be merged")
        if said.get("use_dora"):
            raise ModelError(f"merge: {text!r} was trained with DoRA, whose magnitudes do not add up. Train it without")
        return folder
