"""TRL's ORPOTrainer and CPOTrainer, whose losses need no reference. Imported where a training begins and nowhere else.

They stand in TRL's experimental part: what is overridden here is all that is relied on.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from datasets import Dataset

from harness.methods._padding import pad
from harness.methods._planned import Planned
from harness.methods._preferences import Pair

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*trl.experimental.*")
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer


class Unreferenced(Planned):
    """Its rows are `Pair`s."""

    _stored_metrics: dict[str, dict[str, list[float]]]

    def __init__(self, model: Any, tokenizer: Any, config: Any) -> None:
        super().__init__(  # type: ignore[call-arg]
            model=model,
            args=config,
            processing_class=tokenizer,
            data_collator=list,
            # TRL looks at one; the rows come through get_train_dataloader as token ids.
            train_dataset=Dataset.from_dict({"prompt": [""], "chosen": [""], "rejected": [""]}),
        )

    def tokenize_row(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {}

    @property
    def kept_figures(self) -> dict[str, list[float]]:
        return self._stored_metrics.setdefault("train", defaultdict(list))

    def concatenated_forward(self, model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        found: tuple[torch.Tensor, ...] = super().concatenated_forward(partial(_of_the_text, model), batch)  # type: ignore[misc]
        return found

    def collate(self, rows: Sequence[Pair]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = {}
        for name in ("chosen", "rejected"):
            own = [getattr(pair, name) for pair in rows]
            padded = pad(own)
            lengths = torch.tensor([len(row.ids) for row in own])
            batch[f"{name}_input_ids"] = padded["input_ids"]
            batch[f"{name}_labels"] = padded["labels"]
            batch[f"{name}_attention_mask"] = (torch.arange(padded["labels"].shape[1]) < lengths[:, None]).long()
        return batch


class OddsTrainer(Unreferenced, ORPOTrainer):  # type: ignore[misc]
    """The likelihood that it adds is a mean over the tokens of all better answers of a batch, prompts included."""

    configuration = ORPOConfig

    def begin(self, rows: Sequence[Pair]) -> None:
        self._pairs, self._tokens_in_all = len(rows), _predicted(rows)

    def concatenated_forward(self, model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        found = list(super().concatenated_forward(model, batch))
        # A part counts by its pairs, its tokens' mean by its tokens.
        found[4] = found[4] * (_predicted(self.part) / self._tokens_in_all * self._pairs / len(self.part))
        return tuple(found)


class MarginTrainer(Unreferenced, CPOTrainer):  # type: ignore[misc]
    """With `loss_type = "simpo"` and `cpo_alpha = 0` in its configuration."""

    configuration = CPOConfig


def _of_the_text(model: Any, input_ids: torch.Tensor, **settings: Any) -> Any:
    """What `model` gives, its logits in float32, since in bfloat16 a log-probability has three digits, and without
    those of the tokens that an adapter puts before the text."""
    outputs = model(input_ids, **settings)
    outputs.logits = outputs.logits[:, -input_ids.shape[1] :].float()
    return outputs


def _predicted(rows: Sequence[Pair]) -> int:
    """Tokens that are predicted: all but each row's first."""
    return sum(len(pair.chosen.ids) - 1 for pair in rows)
