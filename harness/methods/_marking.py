"""TRL's RewardTrainer on a reward model made of a policy. Imported where a training begins and nowhere else."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from trl import RewardTrainer

from harness.errors import ModelError
from harness.methods import _model, _reward
from harness.methods._model import Policy
from harness.methods._planned import Planned
from harness.methods._preferences import Pair


@dataclass(frozen=True, slots=True)
class Marking(Policy):
    """A policy whose layers are also those of the reward model `marker`."""

    marker: Any = None

    @property
    def trainable_parameters(self) -> int:
        return sum(weight.numel() for weight in self.marker.parameters() if weight.requires_grad)


def marking(policy: Policy) -> Marking:
    """Put a value head in place of the output layer of `policy`'s model, whose layers are shared, adapters included.

    Its weights are drawn from N(0, 1 / (width + 1)), as in Stiennon et al. 2020 (arXiv 2009.01325). Raises ModelError
    where transformers has no reward model of the architecture.
    """
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    causal = policy.model.get_base_model() if isinstance(policy.model, PeftModel) else policy.model
    config = copy.deepcopy(causal.config)
    config.num_labels = 1
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # What is written is whole again.
    try:
        with torch.device("meta"):
            marker = AutoModelForSequenceClassification.from_config(config)
        setattr(marker, marker.base_model_prefix, getattr(causal, causal.base_model_prefix))
        width = marker.score.in_features
    except (ValueError, AttributeError) as error:
        raise ModelError(
            f"no reward model can be made of {type(causal).__name__}: transformers has no classifier of this "
            "architecture with a value head `score`"
        ) from error
    marker.score = torch.nn.Linear(width, 1, bias=False, device=causal.device, dtype=torch.float32)
    torch.nn.init.normal_(marker.score.weight, std=(1 / (width + 1)) ** 0.5)
    own = {one.name: getattr(policy, one.name) for one in fields(policy)}
    return Marking(**own | {"kind": "reward", "marker": marker})


def save(policy: Marking, out: Path, dtype: str) -> None:
    """Write the reward model into `out`, with what an adapter learned in its weights."""
    marker, whole = policy.marker, _model.whole(policy)
    setattr(marker, marker.base_model_prefix, getattr(whole, whole.base_model_prefix))
    _reward.save(marker, policy.tokenizer, out, policy.base, dtype)


class MarkTrainer(Planned, RewardTrainer):  # type: ignore[misc]
    """Its rows are `Pair`s; the reward of an answer is the value at its last token, the end of its turn."""

    _metrics: dict[str, dict[str, list[float]]]

    def __init__(self, model: Any, tokenizer: Any, config: Any) -> None:
        super().__init__(
            model=model,
            args=config,
            processing_class=tokenizer,
            data_collator=list,
            # TRL looks at one; the rows come through get_train_dataloader as token ids.
            train_dataset=Dataset.from_dict({"chosen_ids": [[0]], "rejected_ids": [[0]]}),
        )

    @property
    def kept_figures(self) -> dict[str, list[float]]:
        return self._metrics["train" if self.model.training else "eval"]

    def collate(self, rows: Sequence[Pair]) -> dict[str, torch.Tensor]:
        return _reward.padded([*(pair.chosen.ids for pair in rows), *(pair.rejected.ids for pair in rows)])

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        return super().compute_loss(self._marks, inputs)

    def _marks(self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=_reward.marks(self.model, input_ids, attention_mask)[:, None])
