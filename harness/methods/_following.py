"""What every training through a transformers or TRL trainer shares: following, stopping, keeping and resuming.

`Followed` is mixed into a trainer's class; `run` trains it to the end, from the newest complete checkpoint where there
is one. Imported where a training begins and nowhere else.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import PrinterCallback, TrainerCallback, TrainerState

from harness.errors import ModelError

if TYPE_CHECKING:
    from harness.methods._dev_metric import DevMetric

COMPLETE = "complete"
"""The file that is written last into a checkpoint: a folder without it was being written when the process died."""

TRAINED = "trained.safetensors"
"""The weights that are trained, in the checkpoint of a model some of whose weights are frozen."""

COMPANION = "companion.pt"
"""What goes along with the steps, as it stood at a checkpoint."""

SPAN, DIVERGED = 10, 2.0
"""Steps whose mean loss is compared with the lowest such mean before, and by how much it may be above, in nats: a model
that knows nothing of its text is some eight above one that does. It has to be twice as high as well."""

Progress = Callable[[int, int, Mapping[str, float]], None]

NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "eval_loss": "dev_loss",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "accuracy": "accuracy",
    "margin": "margin",
    "reward": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "answer_tokens",
    "answer_tokens": "answer_tokens",
    "ended": "ended",
    "clip_ratio/region_mean": "clip_fraction",
    "clip_fraction": "clip_fraction",
    "policy_loss": "policy_loss",
    "value_loss": "value_loss",
    "kl_coef": "kl_coef",
}
"""How figures that trainers log are called in a curve; "eval_" before one becomes "dev_". Others are left out."""


class Follower(TrainerCallback):  # type: ignore[misc]
    """Writes each step's figures to the file of curves, tells `progress`, asks for evaluations and checkpoints after
    the steps in `due`, and stops a training that broke. A KeyboardInterrupt of `progress` saves and stops it."""

    def __init__(self, trainer: Followed, due: frozenset[int]) -> None:
        self.trainer, self.due = trainer, due
        self._begun = time.perf_counter()
        self._losses: list[float] = []
        self._seen, self._lowest = 0, math.inf

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.due:
            control.should_evaluate = control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        figures = named(logs or {})
        if not figures:
            return
        step = state.global_step
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        if bad:
            rate = self.trainer._get_learning_rate()
            raise ModelError(
                f"training broke at step {step}: {bad[0]} became {figures[bad[0]]} (learning rate {rate:.1e}). "
                'Lower learning_rate, raise warmup, or set dtype = "float32".'
            )
        if "loss" in figures and (tokens := self.trainer.step_tokens()):
            figures["tokens_per_second"] = tokens / (time.perf_counter() - self._begun)
        if "loss" in figures:
            self._stop_diverged(step)
        line = {"step": step, "epoch": step / self.trainer.steps_per_epoch, **figures}
        with self.trainer.curves.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        try:
            self.trainer.progress(step, state.max_steps, figures)
        except KeyboardInterrupt:
            # Saved first, so that nothing of the work is lost; `run` raises it again.
            self.trainer.interrupted = control.should_training_stop = control.should_save = True

    def _stop_diverged(self, step: int) -> None:
        """A loss that falls by nature, and has come to be far above where it was, no longer comes back."""
        if not getattr(self.trainer, "falls", True):
            return
        history = self.trainer.state.log_history
        # All of a training that was resumed, then the newest.
        self._losses += [entry["loss"] for entry in (history[-1:] if self._losses else history) if "loss" in entry]
        for end in range(self._seen + 1, len(self._losses) + 1):
            mean = sum(self._losses[max(0, end - SPAN) : end]) / SPAN
            self._lowest = min(self._lowest, mean) if end >= SPAN else self._lowest
            self._seen = end
        if self._seen >= SPAN and mean > 2 * self._lowest and mean > self._lowest + DIVERGED:
            raise ModelError(
                f"training diverged: over the {SPAN} steps up to step {step} the loss is {mean:.3g}, and it was "
                f"{self._lowest:.3g} before (learning rate now {self.trainer._get_learning_rate():.1e}). Lower "
                "learning_rate or raise warmup."
            )


def named(logs: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a log under their names in a curve."""
    found: dict[str, float] = {}
    for key, value in logs.items():
        bare = key.removeprefix("eval_")
        name = NAMES.get(key) or (f"dev_{NAMES[bare]}" if bare != key and bare in NAMES else None)
        if name is None and key.startswith("eval_metric/"):
            name = f"dev_{key.removeprefix('eval_metric/')}"
        if name is not None and value is not None:  # TRL says None where a figure was nowhere a number.
            found[name] = float(value)
    return found


class Followed:
    """Mixed in before a trainer's class; `follow` is called once it is made."""

    args: Any
    state: Any
    control: Any
    measure: DevMetric | None = None
    """What is measured at each evaluation besides what the trainer itself measures."""
    model: Any
    companion: Any = None

    def follow(
        self,
        *,
        curves: Path,
        progress: Progress,
        patience: int | None,
        due: frozenset[int],
        steps_per_epoch: float,
        companion: Any = None,
    ) -> None:
        """`curves` is the file of figures, written as they come; `patience` counts evaluations without a better one
        after which training stops; `due` are the steps after which there is an evaluation and a checkpoint. What an
        adapter has go along with the steps is its `companion`."""
        self.curves, self.progress, self.patience = curves, progress, patience
        self.steps_per_epoch = steps_per_epoch
        self.interrupted = False
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]
        self.companion = companion
        if companion is not None:
            self.add_callback(companion)  # type: ignore[attr-defined]
        self.add_callback(Follower(self, due))  # type: ignore[attr-defined]
        for weight in self.model.parameters():
            if weight.requires_grad:
                # TRL brings adapters on quantised weights down to 16 bits, which a step is often too small for.
                weight.data = weight.data.float()

    def step_tokens(self) -> int | None:
        """Tokens that the last step trained on, padding left out; None where the trainer does not count them."""
        return None

    def dev_metric(self) -> dict[str, float]:
        """Measure and log what `measure` is. Every `evaluate` adds it to its figures, before it tells them on."""
        if self.measure is None:
            return {}
        found = {f"eval_metric/{self.measure.name}": self.measure()}
        self.log(dict(found))  # type: ignore[attr-defined]
        return found

    def _get_learning_rate(self) -> float:
        rate: float = super()._get_learning_rate()  # type: ignore[misc]
        return rate

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        better: bool = super()._determine_best_metric(metrics, trial)  # type: ignore[misc]
        if self.waited_enough():
            self.control.should_training_stop = True
        return better

    @property
    def best_key(self) -> str:
        """What the best checkpoint is chosen by, as it stands in the log."""
        name = str(self.args.metric_for_best_model or "loss")
        return name if name.startswith("eval_") else f"eval_{name}"

    def waited_enough(self) -> bool:
        """Whether the last `patience` evaluations brought nothing better, by the state, which checkpoints hold."""
        if self.patience is None:
            return False
        best = self.state.best_global_step or 0
        since = [entry for entry in self.state.log_history if self.best_key in entry and entry["step"] > best]
        return len(since) >= self.patience

    def dev_figure(self, step: int, key: str = "eval_loss") -> float | None:
        """What was measured on dev after `step`, None where nothing was."""
        entries = (entry for entry in self.state.log_history if entry["step"] == step)
        return next((entry[key] for entry in entries if key in entry), None)

    def lowest_dev_loss(self) -> float | None:
        """The lowest loss on dev of all evaluations after a step."""
        entries = (entry for entry in self.state.log_history if entry["step"] > 0)
        return min((entry["eval_loss"] for entry in entries if "eval_loss" in entry), default=None)

    def train_loss(self, step: int) -> float | None:
        """The mean loss of the last steps up to `step`, ten at most: one batch alone says little."""
        losses = [entry["loss"] for entry in self.state.log_history if "loss" in entry and entry["step"] <= step][-10:]
        return sum(losses) / len(losses) if losses else None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        folder = Path(self.args.output_dir)
        newest = folder / f"checkpoint-{self.state.global_step}"
        if hasattr(self.companion, "state_dict"):
            torch.save(self.companion.state_dict(), newest / COMPANION)
        (newest / COMPLETE).touch()
        kept = {newest.name, f"checkpoint-{self.state.best_global_step}"}
        for other in folder.glob("checkpoint-*"):
            if other.name not in kept:
                shutil.rmtree(other)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Write the trained weights alone where others are frozen: what PEFT writes is the adapter as it answers, which
        does not hold all that training needs, such as the network that makes virtual tokens."""
        if all(weight.requires_grad for weight in self.model.parameters()):
            super()._save(output_dir, state_dict)  # type: ignore[misc]
            return
        self.save_trained(Path(output_dir or self.args.output_dir))

    def save_trained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.detach().contiguous() for name, weight in self._trained()}, folder / TRAINED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        if hasattr(self.companion, "load_state_dict"):
            self.companion.load_state_dict(torch.load(folder / COMPANION, weights_only=True))
        if not (folder / TRAINED).is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        kept = load_file(folder / TRAINED)
        with torch.no_grad():
            for name, weight in self._trained():
                weight.copy_(kept[name])

    def _trained(self) -> list[tuple[str, Any]]:
        return [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]

    def take(self, step: int) -> None:
        """Put the weights of the checkpoint after `step` into the model."""
        self._load_from_checkpoint(str(Path(self.args.output_dir) / f"checkpoint-{step}"))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: it would name folders of this machine."""

    def _send_telemetry(self) -> None:
        """Nothing is sent."""


def run(trainer: Any) -> None:
    """Train a `Followed` trainer to the end, from the newest complete checkpoint where there is one.

    Raises KeyboardInterrupt, after a checkpoint was written, where `progress` did.
    """
    newest = newest_checkpoint(Path(trainer.args.output_dir))
    if newest is not None:
        file = newest / "trainer_state.json"
        trainer.state = TrainerState.load_from_json(str(file))
        # A trainer would go on with the micro-batch of the checkpoint, which memory may have been too small for.
        trainer.state.train_batch_size = trainer.args.train_batch_size
        trainer.state.save_to_json(str(file))
    # Where nothing is resumed, what was measured before the first step is measured again.
    keep_lines(trainer.curves, -1 if newest is None else trainer.state.global_step)
    if trainer.state.global_step < trainer.args.max_steps and not trainer.waited_enough():
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
