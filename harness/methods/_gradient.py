"""What all stages that train by gradient share: the settings, and the way from the job to the artifact."""

from __future__ import annotations

import math
import shutil
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from harness import adapted, extras
from harness.chat import context_length, end_tokens, read_template
from harness.devices import pick_device, pick_dtype
from harness.errors import DataError, ModelError
from harness.plugins import Adapter, Family, Method, Metric, Refers, Trained, TrainJob, available, find

if TYPE_CHECKING:
    from harness.methods._dev_metric import DevMetric
    from harness.methods._model import Policy

Every = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0)]
WHOLE_RATE = 2e-5
"""The learning rate where all weights are trained and the spec names none."""
LORA_RATE = Adapter.learning_rate
"""That of an adapter of a kind that is not known here."""

Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class Ready:
    """A trainer that has not begun: a `Followed` one whose `args` come from `Gradient.arguments`. `details` of its rows
    are reported with the stage."""

    trainer: Any
    steps_per_epoch: int
    details: dict[str, Any] = field(default_factory=dict)


class Gradient(Method):
    """A stage that takes steps of an optimizer (AdamW). A subclass makes the trainer."""

    query_only = frozenset({"name", "checkpoint_every"})
    rate_scale: ClassVar[float] = 1.0
    """What an adapter's own learning rate is multiplied by: preference losses need smaller steps than imitation."""
    own_loss: ClassVar[bool] = False
    """Whether the loss is computed here, not by TRL, whose trainers refuse some adapters."""

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
    """The highest learning rate; None is the adapter's own (LoRA 2e-4, the whole model 2e-5), or the method's."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    max_length: int | None = Field(None, ge=2)
    """Tokens of prompt and answer together, after which a row is cut; None is the model's context."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What products are computed in; "auto" is what the model answers in. Trained weights are always float32."""
    eval_every: Every = 1.0
    """How often the loss on dev is measured: a whole number counts steps, a decimal number epochs (0.5: twice each)."""
    patience: int | None = Field(None, ge=1)
    """Evaluations without a better one after which training stops; None never stops early."""
    metric: Annotated[str, Refers("metric")] | None = None
    """The metric of the spec that says which weights are best, and when to stop: of the answers that the model writes
    to the dev prompts; None is the loss on dev."""
    metric_tokens: int = Field(64, ge=1)
    """Tokens of such an answer, after which it is cut."""
    keep_best: bool = True
    """Whether the weights with the best evaluation on dev are kept, rather than the last."""
    checkpoint_every: int = Field(25, ge=1)
    """Steps between two checkpoints; each evaluation makes one too."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: less memory, about a quarter slower."""

    @model_validator(mode="after")
    def _a_metric_needs_answers(self) -> Self:
        if self.metric is not None and self.makes != "policy":
            raise ValueError(
                f"metric = {self.metric!r} is measured on answers, and {self.kind} gives none: leave it out"
            )
        return self

    def passes(self, rows: int) -> float:
        steps, per_epoch = self.steps(max(1, rows))
        return min(self.epochs, steps / per_epoch)

    @model_validator(mode="after")
    def _its_adapter_can_be_trained(self) -> Self:
        if self.adapter is not None and (reason := self.refused(self.adapter)):
            raise ValueError(reason)
        return self

    def refused(self, adapter: Adapter) -> str | None:
        """Why `adapter` cannot be trained by this stage, None where it can."""
        if self.gradient_checkpointing and not adapter.gradient_checkpointing:
            return (
                f"the adapter {adapter.kind} cannot be trained with gradient_checkpointing, which drops the keys and "
                "values that it puts before the text. Leave gradient_checkpointing out"
            )
        if not adapter.trl and not self.own_loss:
            said = f"TRL's trainer for {self.kind} cannot train the adapter {adapter.kind}"
            return f"{said}: it works with sft, or take lora"
        if adapter.targets_output:
            return (
                f"{self.kind} takes the output layer's weights as they are, so that an adapter on lm_head would never "
                "be trained: leave it out of the targets"
            )
        return None

    @property
    def rows_at_once(self) -> int:
        """Rows that are computed at once at most."""
        return min(self.micro_batch or self.batch_size, self.batch_size)

    @property
    def texts_at_once(self) -> int:
        return self.rows_at_once

    def total_steps(self, rows: int) -> int | None:
        return self.steps(rows)[0] if rows else None

    def fewer_at_once(self) -> Gradient | None:
        now = self.rows_at_once
        # What divides the batch evenly: a trainer that accumulates gradients takes nothing else.
        fewer = [size for size in range(1, now // 2 + 1) if self.batch_size % size == 0]
        return self.model_copy(update={"micro_batch": fewer[-1]}) if fewer else None

    # --------------------------------------------------------------------------------------------- what a method says

    @abstractmethod
    def ready(self, job: TrainJob, policy: Policy, dtype: str) -> Ready:
        """Make the trainer for the loaded `policy`."""

    def load(self, job: TrainJob, dtype: str) -> Policy:
        """Load the model to train."""
        from harness.methods import _model

        return _model.load(job, self.adapter, dtype)

    def _check(self, policy: Policy) -> None:
        """Refuse an incoming adapter that cannot be trained on so; one of the stage's own is checked in the spec."""
        kinds = _peft_types(policy.model)
        if self.gradient_checkpointing and "PREFIX_TUNING" in kinds:
            raise ModelError("an incoming prefix cannot be trained on with gradient_checkpointing: leave that out")
        if not self.own_loss and "ADAPTION_PROMPT" in kinds:
            raise ModelError(f"an incoming llama-adapter cannot be trained on by {self.kind}: its trainer stops at it")

    def outcome(self, trainer: Any, step: int) -> dict[str, Any]:
        """Further figures of the weights that are kept, those after `step`."""
        return {}

    def save(self, job: TrainJob, policy: Policy, dtype: str) -> None:
        """Write the artifact."""
        from harness.methods import _model

        _model.save(policy, job.out, job.model["id"], dtype)

    def tokens(self, trainer: Any) -> int:
        """How many tokens were trained on."""
        return int(trainer.state.num_input_tokens_seen)

    # ---------------------------------------------------------------------------------------------------- the stage

    def fit(self, job: TrainJob, progress: Progress) -> Trained:
        with extras.needed("train"):
            import datasets  # noqa: F401
            import peft  # noqa: F401
            import trl  # noqa: F401
            from transformers import set_seed

            from harness.methods import _following, _model, _probe

        dtype = self._dtype(job.model)
        set_seed(job.seed)  # Adapters start from random weights.
        with _model.quiet(), warnings.catch_warnings():
            # PEFT and TRL speak of gradient checkpointing under names that transformers is about to drop.
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
            policy = self.load(job, dtype)
            self._check(policy)
            if policy.quantized_from is None:  # Quantised weights lie where they are computed already.
                policy.model.to(pick_device(job.model.get("device", "auto")))
            look = partial(_probe.look, policy.model, policy.tokenizer, autocast=dtype == "bfloat16")
            general = [look()] if self.makes == "policy" else []
            ready = self.ready(job, policy, dtype)
            trainer, steps = ready.trainer, ready.trainer.args.max_steps
            trainer.measure = self._dev_metric(job, policy, dtype)
            companion = self.adapter.companion(policy.model, steps) if self.adapter is not None else None
            trainer.follow(
                curves=job.work / "curves.jsonl",
                progress=progress,
                patience=self.patience,
                due=self._evaluations(steps, ready.steps_per_epoch) if job.dev else frozenset(),
                steps_per_epoch=ready.steps_per_epoch,
                companion=companion,
            )
            _following.run(trainer)
            state = trainer.state
            best = state.best_global_step if self.keep_best else None
            kept = best or state.global_step
            trainer.take(kept)
            if companion is not None and hasattr(companion, "settle"):
                companion.settle()
            general += [look()] if general else []
            trained = Trained(
                trainable_parameters=policy.trainable_parameters,
                steps=state.global_step,
                tokens=self.tokens(trainer),
                best_step=best,
                details={
                    **ready.details,
                    "artifact": policy.kind,
                    "dtype": dtype,
                    "learning_rate": trainer.args.learning_rate,
                    "stopped_early": state.global_step < steps,
                    "train_loss": trainer.train_loss(kept),
                    "dev_loss": trainer.dev_figure(kept),
                    "dev_loss_last": trainer.dev_figure(state.global_step),
                    "dev_loss_lowest": trainer.lowest_dev_loss(),
                    "best_by": trainer.best_key.removeprefix("eval_").removeprefix("metric/") if best else None,
                    **self._measured(trainer, kept),
                    **({"probe": dict(zip(("before", "after"), general, strict=True))} if general else {}),
                    **self.outcome(trainer, kept),
                },
            )
            self.save(job, policy, dtype)
        shutil.copyfile(trainer.curves, job.out / "curves.jsonl")
        return trained

    def _measured(self, trainer: Any, kept: int) -> dict[str, Any]:
        """The metric on dev of the weights after step `kept`, and how many prompts it was measured on."""
        if trainer.measure is None:
            return {}
        return {f"dev_{self.metric}": trainer.dev_figure(kept, trainer.best_key), **trainer.measure.counts}

    # ------------------------------------------------------------------------------------------ what trainers are told

    def steps(self, rows: int) -> tuple[int, int]:
        """The steps of the whole training and of one epoch, for so many rows."""
        per_epoch = math.ceil(rows / self.batch_size)
        steps = math.ceil(self.epochs * per_epoch)
        return (steps if self.max_steps is None else min(steps, self.max_steps)), per_epoch

    def limit(self, policy: Policy) -> int:
        """Tokens after which a row is cut."""
        context = context_length(policy.model.config, policy.tokenizer) - adapted.virtual_tokens(policy.model)
        return min(self.max_length or context, context)

    def arguments(self, job: TrainJob, policy: Policy, steps: int) -> dict[str, Any]:
        """The arguments that every trainer's configuration takes."""
        return {
            "output_dir": str(job.work / "checkpoints"),
            "max_steps": steps,
            "learning_rate": self._learning_rate(policy),
            "lr_scheduler_type": "constant_with_warmup" if self.schedule == "constant" else self.schedule,
            # The first step of a warm-up has no learning rate: a training of one step would change nothing.
            "warmup_steps": min(math.ceil(self.warmup * steps), steps - 1),
            "weight_decay": self.weight_decay,
            "max_grad_norm": self.max_grad_norm,
            "seed": job.seed,
            "use_cpu": pick_device(job.model.get("device", "auto")) == "cpu",
            "bf16": False,  # A trainer's own autocast covers what it computes.
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "save_steps": self.checkpoint_every,
            **self._best(job),
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
        }

    def _best(self, job: TrainJob) -> dict[str, Any]:
        """What the best weights are chosen by."""
        if job.dev is None:
            return {"metric_for_best_model": None, "greater_is_better": None}
        metric = self._metric(job)
        if metric is None:
            return {"metric_for_best_model": "loss", "greater_is_better": False}
        return {
            "metric_for_best_model": f"metric/{metric.name}",
            "greater_is_better": metric.direction == "higher",
        }

    def _metric(self, job: TrainJob) -> Metric | None:
        if self.metric is None:
            return None
        table = dict(job.references[self.metric]["metric"])
        found = find("metrics", table.pop("kind")).model_validate(table)
        assert isinstance(found, Metric)
        return found

    def _dev_metric(self, job: TrainJob, policy: Policy, dtype: str) -> DevMetric | None:
        metric = self._metric(job)
        if metric is None:
            return None
        if job.dev is None or job.dev_examples is None:
            raise DataError(
                f"{self.kind}: metric = {metric.name!r} is measured on the dev examples whenever the loss is, and "
                "there is no dev split, or nothing was kept of what this stage reads"
            )
        from harness.methods import _dev_metric, _rows, _sampling

        renderer = _rows.Renderer(policy.tokenizer, read_template(job.model.get("chat_template")))
        sampler = _sampling.Sampler(
            policy.model,
            renderer,
            end_tokens(policy.tokenizer, policy.model.generation_config.eos_token_id) | {renderer.end},
            temperature=0.0,
            most=self.metric_tokens,
            autocast=dtype == "bfloat16",
        )
        return _dev_metric.DevMetric(metric, job.dev_examples, sampler, self.limit(policy) - self.metric_tokens)

    def _dtype(self, model: Mapping[str, Any]) -> str:
        dtype: str = self.dtype
        if dtype == "auto":
            dtype = pick_dtype(model.get("dtype", "auto"), model.get("device", "auto"))
        # float16 would need its losses scaled; what it is chosen for is old GPUs, which are fast in float32 as well.
        return "bfloat16" if dtype == "bfloat16" else "float32"

    def _learning_rate(self, policy: Policy) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        if self.adapter is not None:
            return self.adapter.learning_rate * self.rate_scale
        return self._incoming_rate(policy) * self.rate_scale

    def _incoming_rate(self, policy: Policy) -> float:
        """The rate of what came in and is trained on."""
        if all(weight.requires_grad for weight in policy.model.parameters()):
            return WHOLE_RATE
        found = [find("adapters", kind) for kind in available("adapters")]
        kinds = _peft_types(policy.model)
        return next(
            (one.learning_rate for one in found if issubclass(one, Adapter) and one.peft_type in kinds), LORA_RATE
        )

    def _evaluations(self, steps: int, per_epoch: int) -> frozenset[int]:
        """The steps after which dev is looked at; the last is one of them."""
        every = self.eval_every if isinstance(self.eval_every, int) else self.eval_every * per_epoch
        return frozenset({max(1, round(count * every)) for count in range(1, int(steps / every) + 1)} | {steps})


def _peft_types(model: Any) -> set[str]:
    """What PEFT calls the adapters in the model."""
    configs = getattr(model, "peft_config", {}).values()
    return {str(getattr(config.peft_type, "value", config.peft_type)) for config in configs}


def one_device(config: Any) -> Any:
    """Return a trainer's configuration made to use one device: TRL refuses the several that it would spread over."""
    config._n_gpu = min(1, config.n_gpu)
    return config
