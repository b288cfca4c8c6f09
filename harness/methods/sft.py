"""Supervised fine-tuning: the model learns to write the given answers after their prompts.

Trained through TRL's SFTTrainer and PEFT. Only answers and the end of their turn count in the loss; prompts are the
very token ids that the model is asked with.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from harness import extras
from harness.chat import context_length, read_template
from harness.devices import pick_device, pick_dtype
from harness.plugins import Adapter, Family, Method, Trained, TrainJob

if TYPE_CHECKING:
    from harness.methods._model import Policy
    from harness.methods._rows import Row
    from harness.methods._trainer import AnswerTrainer

Every = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0)]


class Sft(Method):
    query_only = frozenset({"name", "checkpoint_every"})

    adapter: Annotated[Adapter | None, Family("adapters")] = None
    """Without one the incoming adapter is trained on, or the whole model where none comes in; with one, an incoming
    adapter is merged into the model first."""
    epochs: float = Field(3.0, gt=0)
    """How often the training rows are gone through."""
    max_steps: int | None = Field(None, ge=1)
    """Steps after which training ends even where `epochs` would go on."""
    batch_size: int = Field(8, ge=1)
    """Rows whose gradient makes one step."""
    micro_batch: int | None = Field(None, ge=1)
    """Rows that are computed at once at most; less needs less memory and changes a step by rounding only."""
    learning_rate: float | None = Field(None, gt=0)
    """The highest learning rate; None is the adapter's own (LoRA 2e-4, the whole model 2e-5)."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    max_length: int | None = Field(None, ge=2)
    """Tokens of prompt and answer together, after which a row is cut; None is the model's context."""
    group_by_length: bool = True
    """Whether rows of like length go into a batch together, which saves padding."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What products are computed in; "auto" is what the model answers in. Trained weights are always float32."""
    eval_every: Every = 1.0
    """How often the loss on dev is measured: a whole number counts steps, a decimal number epochs (0.5: twice each)."""
    patience: int | None = Field(None, ge=1)
    """Evaluations without a lower dev loss after which training stops; None never stops early."""
    keep_best: bool = True
    """Whether the weights with the lowest dev loss are kept, rather than the last."""
    checkpoint_every: int = Field(25, ge=1)
    """Steps between two checkpoints; each evaluation makes one too."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: less memory, about a quarter slower."""

    def passes(self) -> float:
        return self.epochs

    def fit(self, job: TrainJob, progress: Callable[[int, int, Mapping[str, float]], None]) -> Trained:
        with extras.needed("train"):
            import peft  # noqa: F401
            from transformers import set_seed

            from harness.methods import _model, _trainer

        dtype = self._dtype(job.model)
        set_seed(job.seed)  # Adapters start from random weights.
        with _model.quiet(), warnings.catch_warnings():
            # PEFT asks a model about gradient checkpointing under a name that transformers is about to drop.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            policy = _model.load(job, self.adapter, dtype)
            rows, dev, counts = self._read(job, policy)
            trainer = self._trainer(job, policy, rows, dev, dtype, progress)
            _trainer.run(trainer)
            state = trainer.state
            best = state.best_global_step if self.keep_best else None
            kept = best or state.global_step
            trainer.take(kept)
            trained = Trained(
                trainable_parameters=policy.trainable_parameters,
                steps=state.global_step,
                tokens=sum(len(rows[row].ids) for batch in trainer.batches[: state.global_step] for row in batch),
                best_step=best,
                details={
                    **counts,
                    "artifact": policy.kind,
                    "dtype": dtype,
                    "learning_rate": trainer.args.learning_rate,
                    "stopped_early": state.global_step < len(trainer.batches),
                    "dev_loss": trainer.dev_loss(kept),
                },
            )
            _model.save(policy, job.out, job.model["id"], dtype)
        shutil.copyfile(trainer.curves, job.out / "curves.jsonl")
        return trained

    def _trainer(
        self,
        job: TrainJob,
        policy: Policy,
        rows: Sequence[Row],
        dev: Sequence[Row],
        dtype: str,
        progress: Callable[[int, int, Mapping[str, float]], None],
    ) -> AnswerTrainer:
        from harness.methods import _rows, _trainer

        per_epoch = math.ceil(len(rows) / self.batch_size)
        steps = math.ceil(self.epochs * per_epoch)
        if self.max_steps is not None:
            steps = min(steps, self.max_steps)
        lengths = [len(row.ids) for row in rows]
        return _trainer.AnswerTrainer(
            policy.model,
            policy.tokenizer,
            self._config(job, steps, self._learning_rate(policy)),
            rows=rows,
            dev=dev,
            batches=_rows.batches(lengths, self.batch_size, steps, seed=job.seed, group_by_length=self.group_by_length),
            evaluations=self._evaluations(steps, per_epoch) if dev else frozenset(),
            micro_batch=self.micro_batch or self.batch_size,
            autocast=dtype == "bfloat16",
            patience=self.patience,
            steps_per_epoch=per_epoch,
            curves=job.work / "curves.jsonl",
            progress=progress,
        )

    def _dtype(self, model: Mapping[str, Any]) -> str:
        dtype: str = self.dtype
        if dtype == "auto":
            dtype = pick_dtype(model.get("dtype", "auto"), model.get("device", "auto"))
        # float16 would need its losses scaled; what it is chosen for is old GPUs, which are fast in float32 as well.
        return "bfloat16" if dtype == "bfloat16" else "float32"

    def _read(self, job: TrainJob, policy: Policy) -> tuple[Sequence[Row], Sequence[Row], dict[str, int]]:
        from harness.methods import _rows

        renderer = _rows.Renderer(policy.tokenizer, read_template(job.model.get("chat_template")))
        context = context_length(policy.model.config, policy.tokenizer)
        limit = min(self.max_length or context, context)
        rows, tally = _rows.read(job.train, renderer, limit)
        counts = tally.named("train")
        dev: list[Row] = []
        if job.dev is not None:
            dev, tally = _rows.read(job.dev, renderer, limit)
            counts |= tally.named("dev")
        return rows, dev, counts

    def _learning_rate(self, policy: Policy) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        if self.adapter is not None:
            return self.adapter.learning_rate
        return Adapter.learning_rate if policy.kind == "adapter" else 2e-5

    def _evaluations(self, steps: int, per_epoch: int) -> frozenset[int]:
        """The steps after which the dev loss is measured; the last is one of them."""
        every = self.eval_every if isinstance(self.eval_every, int) else self.eval_every * per_epoch
        return frozenset({max(1, round(count * every)) for count in range(1, int(steps / every) + 1)} | {steps})

    def _config(self, job: TrainJob, steps: int, learning_rate: float) -> Any:
        from trl import SFTConfig

        cpu = pick_device(job.model.get("device", "auto")) == "cpu"
        config = SFTConfig(
            output_dir=str(job.work / "checkpoints"),
            max_steps=steps,
            per_device_train_batch_size=self.batch_size,
            learning_rate=learning_rate,
            lr_scheduler_type="constant_with_warmup" if self.schedule == "constant" else self.schedule,
            # The first step of a warm-up has no learning rate: a training of one step would change nothing.
            warmup_steps=min(math.ceil(self.warmup * steps), steps - 1),
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            activation_checkpointing=self.gradient_checkpointing,
            seed=job.seed,
            use_cpu=cpu,
            bf16=False,  # The trainer's own autocast covers what it computes.
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_steps=self.checkpoint_every,
            metric_for_best_model="loss" if job.dev else None,
            greater_is_better=False if job.dev else None,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        config._n_gpu = min(1, config.n_gpu)  # TRL refuses the several GPUs that it would otherwise spread over.
        return config
