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

from harness.errors import ModelError
from harness.methods import _rows
from harness.methods._following import Followed
from harness.methods._padding import IGNORED, pack, pad
from harness.methods._rows import Row

DEV_TOKENS = 4096
"""Tokens of dev rows in one forward pass where it is not on a CPU."""

MOST_TAGS = 24
"""With more tags than these there is no dev loss of each."""

TAGGED = "eval_metric/loss/"
"""How the dev loss of a tag begins in the log; `_following` calls it "dev_loss/TAG"."""


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
        packing: bool = False,
        label_smoothing: float = 0.0,
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
        self.packing, self.label_smoothing = packing, label_smoothing
        most = _rows.CPU_TOKENS if self.args.device.type == "cpu" else DEV_TOKENS
        self.dev = [
            [dev[place] for place in part]
            for part in _rows.parts([len(row.ids) for row in dev], max(1, len(dev)), most)
        ]
        self.chosen = ChosenLogits(self.model)

    # --------------------------------------------------------------------------------------------------- the loss

    def get_train_dataloader(self) -> Any:
        return DataLoader(range(len(self.rows)), batch_sampler=self.batches, collate_fn=list)  # type: ignore[arg-type]

    def _get_num_items_in_batch(self, batch_samples: Any, device: Any) -> None:
        """Answer tokens are counted in `training_step`."""

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    def training_step(self, model: Any, inputs: list[int], num_items_in_batch: Any = None) -> torch.Tensor:
        rows = self.rows_of(inputs)
        self._tokens = sum(len(row.ids) for row in rows)
        answers = sum(row.answers for row in rows)
        most = _rows.CPU_TOKENS if self.args.device.type == "cpu" else self._tokens * len(rows)
        lengths = [len(row.ids) for row in rows]
        lay_out, cut = (pack, _rows.fills) if self.packing else (pad, _rows.parts)
        loss = torch.zeros((), device=self.args.device)
        for part in cut(lengths, self.micro_batch, most):
            loss += super().training_step(model, lay_out([rows[place] for place in part]), answers)
        return loss

    def rows_of(self, places: Sequence[int]) -> list[Row]:
        """The rows of a step."""
        return [self.rows[place] for place in places]

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        losses, _ = self.token_losses(model, inputs)
        return losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)

    def token_losses(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss of each learned token, and the row of `inputs` in which it stands; both of shape (tokens,)."""
        targets = inputs["labels"][:, 1:]
        wanted = targets != IGNORED
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.autocast):
            logits = self.chosen.logits(model, inputs, wanted)
        return self.losses(logits.float(), targets[wanted], inputs, wanted), wanted.nonzero()[:, 0]

    def losses(
        self, logits: torch.Tensor, targets: torch.Tensor, inputs: Mapping[str, torch.Tensor], wanted: torch.Tensor
    ) -> torch.Tensor:
        """The loss of each learned token (tokens,) by its `logits` (tokens, vocabulary) and `targets` (tokens,).

        In training a share `label_smoothing` of the target is spread over the vocabulary (Szegedy et al. 2016,
        arXiv 1512.00567); what is measured on dev is the plain cross entropy.
        """
        smoothing = self.label_smoothing if self.model.training else 0.0
        return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The mean loss of a learned token over the dev rows, and over those of each tag where there are several."""
        self.model.eval()
        sums: dict[str, list[float]] = {"": [0.0, 0]}
        with torch.no_grad():
            for part in self.dev:
                losses, places = self.token_losses(self.model, self._prepare_inputs(pad(part)))
                for place, row in enumerate(part):
                    total = losses[places == place].sum().item()
                    for tag in ("", *row.tags):
                        held = sums.setdefault(tag, [0.0, 0])
                        held[0] += total
                        held[1] += row.answers
        self.model.train()
        means = {tag: total / answers for tag, (total, answers) in sums.items()}
        figures = {"eval_loss": means.pop("")}
        if 1 < len(means) <= MOST_TAGS:
            figures |= {f"{TAGGED}{tag}": means[tag] for tag in sorted(means)}
        self.log(dict(figures))
        figures |= self.dev_metric()
        self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        return figures

    def tagged(self, step: int) -> dict[str, float]:
        """The dev loss of each tag as it was measured after `step`, under the names that the curves have."""
        entries = (entry for entry in self.state.log_history if entry["step"] == step)
        return {
            f"dev_loss/{name.removeprefix(TAGGED)}": value
            for entry in entries
            for name, value in entry.items()
            if name.startswith(TAGGED)
        }

    def step_tokens(self) -> int:
        return self._tokens


class ChosenLogits:
    """The logits of a model at chosen places only: of the other places nothing goes through the output layer."""

    def __init__(self, model: Any) -> None:
        self._wanted: torch.Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._only_wanted)

    def logits(self, model: Any, inputs: Mapping[str, torch.Tensor], wanted: torch.Tensor) -> torch.Tensor:
        """The logits (chosen tokens, vocabulary) that predict the tokens `wanted` (rows, tokens - 1) of `inputs`."""
        # The last position predicts nothing that is known.
        self._wanted = functional.pad(wanted, (0, 1))
        known = {name: inputs[name] for name in ("input_ids", "position_ids") if name in inputs}
        try:
            logits: torch.Tensor = model(**known, use_cache=False).logits
        finally:
            self._wanted = None
        return logits

    def _only_wanted(self, layer: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        """Before the output layer: keep of the hidden states (rows, tokens, width) those that predict an answer. An
        adapter may have put tokens of its own before the row."""
        return None if self._wanted is None else (inputs[0][:, -self._wanted.shape[1] :][self._wanted],)


def check_packing(model: Any, *, autocast: bool) -> None:
    """Raise ModelError where rows that are laid end to end would see each other: an architecture may not tell them
    apart by their positions. Tried out: a row's logits must be those that it has alone."""
    size = model.config.get_text_config().vocab_size
    chance = torch.Generator().manual_seed(0)
    rows = [Row(tuple(torch.randint(size, (count,), generator=chance).tolist()), 1) for count in (7, 9)]
    training = model.training
    model.eval()
    with torch.no_grad(), torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
        together, alone = (
            model(
                **{name: ids.to(model.device) for name, ids in pack(part).items() if name != "labels"}, use_cache=False
            ).logits[0, -9:]
            for part in (rows, rows[1:])
        )
    model.train(training)
    apart = (together.float() - alone.float()).abs().max().item()
    if apart > (0.1 if autocast else 1e-3) * alone.float().std().item():
        raise ModelError(
            f"packing: in a {model.config.model_type!r} model rows that are laid end to end see each other (logits "
            f"differ by {apart:.2g}), so it would be trained on something else. Leave packing out; group_by_length "
            "saves most of the padding too"
        )
