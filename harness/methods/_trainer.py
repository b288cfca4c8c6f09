"""TRL's SFTTrainer, made to compute logits at answers only and to survive being killed.

Imported where a training begins and nowhere else: TRL and torch are loaded with it.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback, TrainerState
from trl import SFTConfig, SFTTrainer

from harness.errors import ModelError
from harness.methods import _rows
from harness.methods._rows import Row

IGNORED = -100
"""The label of a token that is not trained, as in torch's cross entropy."""

CPU_TOKENS = 1024
"""Tokens in one forward pass on a CPU: enough to fill its matrix units; rows of like length leave little padding."""

DEV_TOKENS = 4096

COMPLETE = "complete"
"""The file that is written last into a checkpoint: a folder without it was being written when the process died."""

Progress = Callable[[int, int, Mapping[str, float]], None]


class Due(TrainerCallback):  # type: ignore[misc]
    """Asks for an evaluation and a checkpoint after the given steps."""

    def __init__(self, steps: frozenset[int]) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            control.should_evaluate = control.should_save = True


class AnswerTrainer(SFTTrainer):  # type: ignore[misc]
    """Trains on answers alone, as SFTTrainer with completion-only loss does, to the same loss within rounding.

    Only the hidden states before an answer's tokens go through the output layer: with tens of thousands of tokens,
    logits over prompts cost more than the rest of a short step and change nothing. Rows are padded on the right, where
    causal attention never looks, so no mask is needed. A batch is computed in parts of rows of like length; its loss is
    the mean over all its answer tokens, whatever the parts.

    `batches` are the rows of each step of the whole training, `curves` the file of figures, written as they come;
    `patience` counts evaluations.
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
        evaluations: frozenset[int],
        micro_batch: int,
        autocast: bool,
        patience: int | None,
        steps_per_epoch: int,
        curves: Path,
        progress: Progress,
    ) -> None:
        super().__init__(
            model=model,
            args=config,
            processing_class=tokenizer,
            data_collator=list,
            # SFTTrainer looks at one; the rows come through get_train_dataloader and are padded in training_step.
            train_dataset=Dataset.from_dict({"input_ids": [rows[0].ids]}),
            callbacks=[Due(evaluations)],
        )
        self.remove_callback(PrinterCallback)
        self.rows, self.batches, self.micro_batch, self.autocast = rows, batches, micro_batch, autocast
        self.patience, self.curves, self.progress = patience, curves, progress
        self.steps_per_epoch = steps_per_epoch
        self.interrupted = False
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
        self._begun = time.perf_counter()
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
        """Before the output layer: keep of the hidden states (rows, tokens, width) those that predict an answer."""
        return None if self._wanted is None else (inputs[0][self._wanted],)

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

    # --------------------------------------------------------------------------------- following, stopping, keeping

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Check and pass on the figures of a step or an evaluation; those of the whole training are left out."""
        super().log(logs, start_time)
        names = {"loss": "loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm", "eval_loss": "dev_loss"}
        figures = {names[name]: float(value) for name, value in logs.items() if name in names}
        if not figures:
            return
        step = self.state.global_step
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        if bad:
            raise ModelError(
                f"training broke at step {step}: {bad[0]} became {figures[bad[0]]} (learning rate "
                f'{self._get_learning_rate():.1e}). Lower learning_rate, raise warmup, or set dtype = "float32".'
            )
        if "loss" in figures:
            figures["tokens_per_second"] = self._tokens / (time.perf_counter() - self._begun)
        line = {"step": step, "epoch": step / self.steps_per_epoch, **figures}
        with self.curves.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        try:
            self.progress(step, self.state.max_steps, figures)
        except KeyboardInterrupt:
            # Saved first, so that nothing of the work is lost; `fit` raises it again.
            self.interrupted = self.control.should_training_stop = self.control.should_save = True

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        better: bool = super()._determine_best_metric(metrics, trial)
        if self.waited_enough():
            self.control.should_training_stop = True
        return better

    def waited_enough(self) -> bool:
        """Whether the last `patience` evaluations brought nothing better, by the state, which checkpoints hold."""
        best = self.state.best_global_step
        if self.patience is None or best is None:
            return False
        since = [entry for entry in self.state.log_history if "eval_loss" in entry and entry["step"] > best]
        return len(since) >= self.patience

    def dev_loss(self, step: int) -> float | None:
        """The dev loss that was measured after `step`, None where none was."""
        entries = (entry for entry in self.state.log_history if entry["step"] == step)
        return next((entry["eval_loss"] for entry in entries if "eval_loss" in entry), None)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self.args.output_dir)
        newest = folder / f"checkpoint-{self.state.global_step}"
        (newest / COMPLETE).touch()
        kept = {newest.name, f"checkpoint-{self.state.best_global_step}"}
        for other in folder.glob("checkpoint-*"):
            if other.name not in kept:
                shutil.rmtree(other)

    def take(self, step: int) -> None:
        """Put the weights of the checkpoint after `step` into the model."""
        self._load_from_checkpoint(str(Path(self.args.output_dir) / f"checkpoint-{step}"))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: it would name folders of this machine."""

    def _send_telemetry(self) -> None:
        """Nothing is sent."""


def pad(rows: Sequence[Row]) -> dict[str, torch.Tensor]:
    """Return `input_ids` and `labels`, both (rows, tokens), padded on the right."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    labels = torch.full_like(ids, IGNORED)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        labels[place, row.prompt : len(row.ids)] = ids[place, row.prompt : len(row.ids)]
    return {"input_ids": ids, "labels": labels}


def run(trainer: AnswerTrainer) -> None:
    """Train to the end, from the newest complete checkpoint where there is one.

    Raises KeyboardInterrupt, after a checkpoint was written, where `progress` did.
    """
    newest = newest_checkpoint(Path(trainer.args.output_dir))
    if newest is not None:
        trainer.state = TrainerState.load_from_json(str(newest / "trainer_state.json"))
    keep_lines(trainer.curves, trainer.state.global_step)
    if trainer.state.global_step < len(trainer.batches) and not trainer.waited_enough():
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if trainer.interrupted:
        raise KeyboardInterrupt


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint; half-written ones are deleted."""
    found = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).is_file():
            found.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(found, key=lambda checkpoint: int(checkpoint.name.rpartition("-")[2]), default=None)


def keep_lines(curves: Path, step: int) -> None:
    """Drop from the file of figures what came after `step`: it will come again."""
    if not curves.is_file():
        return
    lines = curves.read_text(encoding="utf-8").splitlines(keepends=True)
    # A killed process may have left half a line.
    kept = [line for line in lines if line.endswith("}\n") and json.loads(line)["step"] <= step]
    curves.write_text("".join(kept), encoding="utf-8")
