"""TRL's SFTTrainer, made to compute logits at answers only.

Imported where a training begins and nowhere else: TRL and torch are loaded with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional
from torch.utils.data import DataLoader
from trl import SFTConfig, SFTTrainer

from harness.methods import _rows
from harness.methods._following import Followed
from harness.methods._rows import Row

IGNORED = -100
"""The label of a token that is not trained, as in torch's cross entropy."""

CPU_TOKENS = 1024
"""Tokens in one forward pass on a CPU: enough to fill its matrix units; rows of like length leave little padding."""

DEV_TOKENS = 4096


class AnswerTrainer(Followed, SFTTrainer):  # type: ignore[misc]
    """Trains on answers alone, as SFTTrainer with completion-only loss does, to the same loss within rounding.

    Only the hidden states before an answer's tokens go through the output layer: with tens of thousands of tokens,
    logits over prompts cost more than the rest of a short step and change nothing. Rows are padded on the right, where
    causal attention never looks, so no mask is needed. A batch is computed in parts of rows of like length; its loss is
    the mean over all its answer tokens, whatever the parts.

    `batches` are the rows of each step of the whole training.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: SFTConfig,
        *,
        rows: Sequence[Row],
        dev: Sequence[Row],
        batches: Sequence[Sequence[int]],
        micro_batch: int,
        autocast: bool,
    ) -> None:
        super().__init__(
            model=model,
            args=config,
            processing_class=tokenizer,
            data_collator=list,
            # SFTTrainer looks at one; the rows come through get_train_dataloader and are padded in training_step.
            train_dataset=Dataset.from_dict({"input_ids": [rows[0].ids]}),
        )
        self.rows, self.batches, self.micro_batch, self.autocast = rows, batches, micro_batch, autocast
        self.dev = [
            [dev[place] for place in part]
            for part in _rows.parts([len(row.ids) for row in dev], max(1, len(dev)), DEV_TOKENS)
        ]
        self._wanted: torch.Tensor | None = None
        self.model.get_output_embeddings().register_forward_pre_hook(self._only_wanted)

    # --------------------------------------------------------------------------------------------------- the loss

    def get_train_dataloader(self) -> Any:
        return DataLoader(range(len(self.rows)), batch_sampler=self.batches, collate_fn=list)  # type: ignore[arg-type]

    def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> None:
        """Answer tokens are counted in `training_step`."""

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def training_step(self, model: Any, inputs: list[int], num_items_in_batch: Any = None) -> torch.Tensor:
        rows = [self.rows[place] for place in inputs]
        self._tokens = sum(len(row.ids) for row in rows)
        answers = sum(len(row.ids) - row.prompt for row in rows)
        most = CPU_TOKENS if self.args.device.type == "cpu" else self._tokens * len(rows)
        loss = torch.zeros((), device=self.args.device)
        for part in _rows.parts([len(row.ids) for row in rows], self.micro_batch, most):
            loss += super().training_step(model, pad([rows[place] for place in part]), answers)
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        targets = inputs["labels"][:, 1:]
        wanted = targets != IGNORED
        # The last position predicts nothing that is known.
        self._wanted = functional.pad(wanted, (0, 1))
        try:
            with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.autocast):
                logits = model(input_ids=inputs["input_ids"], use_cache=False).logits
        finally:
            self._wanted = None
        total = functional.cross_entropy(logits.float(), targets[wanted], reduction="sum")
        return total / (wanted.sum() if num_items_in_batch is None else num_items_in_batch)

    def _only_wanted(self, layer: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        """Before the output layer: keep of the hidden states (rows, tokens, width) those that predict an answer. An
        adapter may have put tokens of its own before the row."""
        return None if self._wanted is None else (inputs[0][:, -self._wanted.shape[1] :][self._wanted],)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The mean loss of an answer's token over the dev rows."""
        self.model.eval()
        total, answers = 0.0, 0
        with torch.no_grad():
            for part in self.dev:
                total += self.compute_loss(self.model, self._prepare_inputs(pad(part)), num_items_in_batch=1).item()
                answers += sum(len(row.ids) - row.prompt for row in part)
        self.model.train()
        figures = {"eval_loss": total / answers}
        self.log(dict(figures))
        self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def step_tokens(self) -> int:
        return self._tokens


def pad(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `labels`, both (rows, tokens), padded on the right."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        labels[place, row.prompt : len(row.ids)] = ids[place, row.prompt : len(row.ids)]
    return {"input_ids": ids, "labels": labels}
