"""TRL's DPOTrainer and KTOTrainer, whose losses compare the policy with a reference: itself, as the stage received it.

The reference never changes, so its log-probabilities are computed once, before the first step, by the very model that
will be trained: neither a second model nor a second adapter is kept, and nothing could move it. Imported where a
training begins and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from datasets import Dataset
from trl import DPOTrainer, KTOTrainer
from trl.trainer import utils

from harness.methods import _rows
from harness.methods._padding import IGNORED, pad
from harness.methods._planned import Planned
from harness.methods._preferences import Judged, Pair
from harness.methods._rows import Row

# Where there is no Triton, TRL puts prompts through the output layer as well, for devices that compile for each shape.
# On a CPU that is a third of a step with prompts of 250 tokens (measured), and changes nothing.
utils._use_triton = lambda device: True


class _NoReference(torch.nn.Module):
    """Stands where TRL's trainers would load the base model again, or copy the adapter, to have a reference."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self) -> None:
        raise NotImplementedError


class Referenced(Planned):
    """`refer` is called once after `plan`."""

    _metrics: dict[str, dict[str, list[float]]]

    def __init__(self, model: Any, tokenizer: Any, config: Any, column: str) -> None:
        super().__init__(  # type: ignore[call-arg]
            model=model,
            ref_model=_NoReference(model.config),
            args=config,
            processing_class=tokenizer,
            data_collator=list,
            # TRL looks at one; the rows come through get_train_dataloader as token ids.
            train_dataset=Dataset.from_dict({column: [[0]]}),
        )
        self.ref_model = None
        self.precompute_ref_logps = True
        self._reference: dict[Row, float] = {}

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    @property
    def kept_figures(self) -> dict[str, list[float]]:
        return self._metrics["train" if self.model.training else "eval"]

    def refer(self, rows: Sequence[Row], *, without_adapter: bool) -> None:
        """Keep the reference's log-probabilities of the answers in `rows`: those of the policy as it is before the
        first step, or `without_adapter`."""
        unlike = list(dict.fromkeys(rows))
        with self.model.disable_adapter() if without_adapter else nullcontext():
            self._reference = dict(zip(unlike, self.log_probabilities(unlike), strict=True))

    @torch.no_grad()
    def log_probabilities(self, rows: Sequence[Row]) -> list[float]:
        """Of each row's answer after its prompt, summed over its tokens, by the policy as it is now."""
        training = self.model.training
        self.model.eval()
        found = [0.0] * len(rows)
        sizes = [len(row.ids) for row in rows]
        for part in _rows.parts(sizes, self.micro_batch, self.most_tokens(sizes)):
            inputs = self._prepare_inputs(answers([rows[place] for place in part]))  # type: ignore[attr-defined]
            labels = inputs["input_ids"].masked_fill(inputs.pop("completion_mask") == 0, IGNORED)
            with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.autocast):
                sums = self.model(**inputs, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(dim=1)
            for place, value in zip(part, sums.tolist(), strict=True):
                found[place] = value
        self.model.train(training)
        return found

    def reference(self, rows: Sequence[Row]) -> torch.Tensor:
        """The reference's log-probability of each row's answer, shape (rows,)."""
        return torch.tensor([self._reference[row] for row in rows])


def answers(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """`input_ids`, `attention_mask` and `completion_mask` (1 at an answer's tokens), all (rows, tokens)."""
    padded = pad(rows)
    lengths = torch.tensor([len(row.ids) for row in rows])
    return {
        "input_ids": padded["input_ids"],
        "attention_mask": (torch.arange(padded["input_ids"].shape[1]) < lengths[:, None]).long(),
        "completion_mask": (padded["labels"] != IGNORED).long(),
    }


class PairTrainer(Referenced, DPOTrainer):  # type: ignore[misc]
    """Its rows are `Pair`s."""

    def __init__(self, model: Any, tokenizer: Any, config: Any) -> None:
        super().__init__(model, tokenizer, config, "prompt_ids")

    def collate(self, rows: Sequence[Pair]) -> dict[str, torch.Tensor]:
        chosen, rejected = [pair.chosen for pair in rows], [pair.rejected for pair in rows]
        return answers([*chosen, *rejected]) | {
            "ref_chosen_logps": self.reference(chosen),
            "ref_rejected_logps": self.reference(rejected),
        }


class JudgedTrainer(Referenced, KTOTrainer):  # type: ignore[misc]
    """Its rows are `Judged`.

    How far the policy has moved is estimated over a whole batch, from each prompt with another row's answer, before its
    parts are computed (Ethayarajh et al. 2024, section 4.1).
    """

    beta: float

    def __init__(self, model: Any, tokenizer: Any, config: Any) -> None:
        super().__init__(model, tokenizer, config, "prompt_ids")
        self._moved = 0.0
        self._logps = torch.zeros(0)
        self._rewards: list[tuple[Judged, float]] = []
        self.model.register_forward_hook(self._keep)

    def begin(self, rows: Sequence[Judged]) -> None:
        mismatched = [row.mismatched for row in rows]
        if self.calculate_KL:
            now = torch.tensor(self.log_probabilities(mismatched))
            self._moved = (now - self.reference(mismatched)).mean().item()

    def collate(self, rows: Sequence[Judged]) -> dict[str, torch.Tensor]:
        own = [row.row for row in rows]
        return answers(own) | {
            "label": torch.tensor([row.good for row in rows]),
            "ref_logps": self.reference(own),
            "ref_KL_logps": self.reference([row.mismatched for row in rows]),
        }

    def _compute_kl_logps(self, model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """What TRL subtracts the reference from and takes the mean of: the estimate over the whole batch."""
        return batch["ref_KL_logps"] + self._moved if self.calculate_KL else None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        loss = super().compute_loss(model, inputs)
        rewards = self.beta * (self._logps - inputs["ref_logps"])
        self._rewards += zip(self.part, rewards.tolist(), strict=True)
        return loss

    def _keep(self, model: Any, inputs: Any, outputs: Any) -> None:
        if getattr(outputs, "log_probs", None) is not None:  # Other forward passes have none.
            self._logps = outputs.log_probs.detach().sum(dim=1)

    def measured(self) -> dict[str, float]:
        """The mean implied reward of good and of bad answers, their difference, and the share of pairs whose better
        answer has the higher one (where there are pairs)."""
        rewards, self._rewards = self._rewards, []
        found: dict[str, float] = {}
        for name, good in (("rewards/chosen", True), ("rewards/rejected", False)):
            values = [reward for row, reward in rewards if row.good == good]
            if values:
                found[name] = sum(values) / len(values)
        if len(found) == 2:
            found["rewards/margins"] = found["rewards/chosen"] - found["rewards/rejected"]
        halves = {(row.pair, row.good): reward for row, reward in rewards if row.pair is not None}
        whole = [pair for pair, good in halves if good and (pair, False) in halves]
        if whole:
            found["rewards/accuracies"] = sum(halves[pair, True] > halves[pair, False] for pair in whole) / len(whole)
        return found
