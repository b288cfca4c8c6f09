"""TRL's GRPOTrainer and RLOOTrainer, made to answer, reward and measure as all our stages do.

Imported where a training begins and nowhere else: TRL and torch are loaded with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from trl import GRPOTrainer, RLOOTrainer

from harness.methods._following import Followed
from harness.methods._rollouts import Rolling, Rollouts
from harness.methods._rows import Row
from harness.methods._sampling import Prompt

READ_ROWS = 8
"""Answers that are read together where no gradient is wanted."""


class Grouped(Rolling):
    """Groups of answers to the same prompt. The losses and advantages are TRL's; ours are the prompts of each step
    (`plan`, so that a resumed training takes the very same), how answers are sampled, the reward, and the reference."""

    _metrics: dict[str, Any]

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: Any,
        *,
        prompts: Sequence[Prompt],
        plan: Sequence[Sequence[int]],
        beta: float,
        rollouts: Rollouts,
        autocast: bool,
    ) -> None:
        """`plan` are the prompts of each round, `config.num_iterations` steps long. `config.beta` must be 0: TRL would
        make a reference of its own, from a folder that holds other weights where an adapter was merged."""
        self.prompts, self.plan, self.autocast = prompts, plan, autocast
        self._figures: dict[str, float] = {}
        self._ids = {prompt.text: list(prompt.ids) for prompt in prompts}
        with no_copy(model):
            super().__init__(  # type: ignore[call-arg]
                model=model,
                reward_funcs=[self.reward],
                args=config,
                processing_class=tokenizer,
                # TRL looks at one; the prompts come through get_train_dataloader.
                train_dataset=Dataset.from_dict({"prompt": [prompts[0].text]}),
            )
        self.beta, self.ref_model = beta, rollouts.reference
        self.eos_token_ids = sorted(rollouts.sampler.ends)

    def reward(self, completion_ids: Sequence[Sequence[int]], place: Sequence[int], **kwargs: Any) -> list[float]:
        answers = [
            self.rollouts.sampler.made(self.prompts[number], ids)
            for number, ids in zip(place, completion_ids, strict=True)
        ]
        scores, lessened = self.rollouts.worth(answers)
        self._figures = {
            "reward": sum(scores) / len(scores),
            "ended": sum(answer.ended for answer in answers) / len(answers),
        }
        return lessened

    # ------------------------------------------------------------------------------------------------ what TRL asks for

    def get_train_dataloader(self) -> Any:
        """TRL takes a round's prompts, each as often as it is answered, anew for each part of each step."""
        often = self.args.num_iterations * self.args.steps_per_generation
        rounds = [
            [number for number in numbers for _ in range(self.args.num_generations)]
            for numbers in self.plan
            for _ in range(often)
        ]
        rows = [{"prompt": prompt.text, "place": number} for number, prompt in enumerate(self.prompts)]
        return DataLoader(rows, batch_sampler=rounds, collate_fn=list)  # type: ignore[arg-type]

    def _tokenize_prompts(self, prompts: Sequence[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self._ids[text] for text in prompts], None, {}

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.autocast):
            return super()._prepare_inputs(generation_batch)  # type: ignore[misc]

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.autocast):
            return super().compute_loss(*args, **kwargs)  # type: ignore[misc]

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        *args: Any,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Log-probabilities and entropies at the answers' tokens, both (answers, logits_to_keep), zero at padding.

        On a CPU TRL's own computes logits over the prompts as well, for shapes that do not change.
        """
        if input_ids.device.type != "cpu" or compute_aux_loss:
            return super()._get_per_token_logps_and_entropies(  # type: ignore[misc, no-any-return]
                model, input_ids, attention_mask, logits_to_keep, *args,
                compute_entropy=compute_entropy, compute_aux_loss=compute_aux_loss, **kwargs,
            )  # fmt: skip
        answered = attention_mask[:, -logits_to_keep:].bool()
        rows = [
            Row(tuple(ids[mask.bool()].tolist()), int(mask.sum() - answer.sum()))
            for ids, mask, answer in zip(input_ids, attention_mask, answered, strict=True)
        ]
        with self.rollouts.reference.active() if model is self.ref_model else nullcontext():
            logprobs = torch.zeros(answered.shape)
            entropies = torch.zeros(answered.shape) if compute_entropy else None
            most = len(rows) if torch.is_grad_enabled() else READ_ROWS
            for first in range(0, len(rows), most):
                read = self.rollouts.likelihood.read(rows[first : first + most])
                places = torch.zeros_like(answered)
                places[first : first + most] = answered[first : first + most]
                logprobs = logprobs.masked_scatter(places, read.logprobs)
                if entropies is not None:
                    entropies = entropies.masked_scatter(places, read.entropy())
        return logprobs, entropies, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self._metrics["train"] |= {name: [value] for name, value in self._figures.items()}
            self._figures = {}
        super().log(logs, start_time)  # type: ignore[misc]

    # ---------------------------------------------------------------------------------- answers that outlive a process

    def begin(self, step: int) -> None:
        # TRL counts the parts of steps from 0 in every process.
        self._step = step * self.args.gradient_accumulation_steps
        super().begin(step)

    def to_keep(self) -> Mapping[str, Any] | None:
        over = self.state.global_step % self.args.num_iterations == 0
        return None if over else {"inputs": self._buffered_inputs}

    def keep(self, kept: Mapping[str, Any]) -> None:
        # A process with less memory may take smaller parts, and then samples again.
        if len(kept["inputs"]) == self.args.steps_per_generation:
            self._buffered_inputs = kept["inputs"]


@contextmanager
def no_copy(model: Any) -> Iterator[None]:
    """Keep TRL from adding a copy of the adapter as its reference. RLOOTrainer does so without need, the copy would be
    saved beside the adapter, and initialisations that change the base weights (PiSSA) would change them twice."""
    model.add_adapter = lambda *args, **kwargs: None
    # What TRL then copies goes from each weight to itself.
    weight = model.get_parameter
    model.get_parameter = lambda name: weight(name.replace(".ref.", ".default."))
    try:
        yield
    finally:
        del model.add_adapter, model.get_parameter


class GroupTrainer(Followed, Grouped, GRPOTrainer):  # type: ignore[misc]
    def _generate_single_turn(self, prompt_ids: Sequence[Sequence[int]], *args: Any, **kwargs: Any) -> Any:
        return self.rollouts.sampler.sample(prompt_ids), None


class LeaveOneOutTrainer(Followed, Grouped, RLOOTrainer):  # type: ignore[misc]
    def _generate_single_turn(self, prompt_ids: Sequence[Sequence[int]], *args: Any, **kwargs: Any) -> Any:
        return self.rollouts.sampler.sample(prompt_ids)
