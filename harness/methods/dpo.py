"""Direct preference optimization: the policy learns to prefer better answers over worse ones by more than its reference
does, without a reward model (Rafailov et al. 2023, arXiv 2305.18290), and its relatives.

Trained through TRL's DPOTrainer. The reference is the policy as the stage received it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from harness.methods._gradient import Gradient, Ready, one_device
from harness.methods._preferences import Preferring, pairs
from harness.plugins import TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy

SMOOTHED = {"robust": 0.1, "exo_pair": 1e-3, "aot": 0.0, "aot_unpaired": 0.0}
"""The losses that `label_smoothing` means something to, and what it is by default."""
SORTED = ("aot", "aot_unpaired")
"""The losses that compare a batch's answers in order of rank, so that no batch may be computed in parts."""


class Dpo(Preferring):
    loss: Literal[
        "sigmoid",
        "ipo",
        "hinge",
        "robust",
        "exo_pair",
        "nca_pair",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sigmoid_norm",
    ] = "sigmoid"
    """"sigmoid" is DPO's own; "ipo" does not run away where all judges agree (arXiv 2310.12036), "hinge" stops at a
    margin (SLiC, arXiv 2305.10425), "robust" allows for judgements that are the wrong way round (arXiv 2403.00409)."""
    beta: float = Field(0.1, gt=0)
    """How strongly the policy is held to its reference; for "ipo" the paper's tau."""
    label_smoothing: float | None = Field(None, ge=0, lt=0.5)
    """Share of the judgements thought to be the wrong way round: "robust" (by default 0.1), "exo_pair" (0.001), "aot"
    and "aot_unpaired" (0)."""

    @model_validator(mode="after")
    def _settings_fit_the_loss(self) -> Self:
        if self.label_smoothing is not None and self.loss not in SMOOTHED:
            raise ValueError(
                f"label_smoothing changes nothing with loss = {self.loss!r}: take one of {sorted(SMOOTHED)}"
            )
        if self.label_smoothing == 0 and self.loss in ("robust", "exo_pair"):
            raise ValueError(f"loss = {self.loss!r} needs a label_smoothing above 0")
        if self.loss in SORTED and (self.micro_batch or self.batch_size) < self.batch_size:
            raise ValueError(
                f"loss = {self.loss!r} compares all answers of a batch: micro_batch cannot be less than batch_size"
            )
        return self

    def fewer_at_once(self) -> Gradient | None:
        return None if self.loss in SORTED else super().fewer_at_once()

    def ready(self, job: TrainJob, policy: Policy, dtype: str) -> Ready:
        from trl import DPOConfig

        from harness.methods import _referenced

        read = self.read(job, policy, pairs)
        steps, per_epoch = self.steps(len(read.train))
        smoothing = SMOOTHED.get(self.loss, 0.0) if self.label_smoothing is None else self.label_smoothing
        config = DPOConfig(
            **self.arguments(job, policy, steps), loss_type=[self.loss], beta=self.beta, label_smoothing=smoothing
        )
        trainer = _referenced.PairTrainer(policy.model, policy.tokenizer, one_device(config))
        whole = self.loss in SORTED
        size = self.batch_size if whole else max(1, len(read.dev))
        trainer.plan(
            read.train,
            [read.dev[start : start + size] for start in range(0, len(read.dev), size)],
            whole=whole,
            **self.plan(read.train, steps, job, dtype),
        )
        rows = [row for pair in (*read.train, *read.dev) for row in (pair.chosen, pair.rejected)]
        trainer.refer(rows, without_adapter=self.switched_off(policy))
        return Ready(trainer, per_epoch, read.details)
