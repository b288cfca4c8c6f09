"""The loop of proximal policy optimisation: answers are sampled and judged, then learned from in several steps.

TRL has no PPO any more; transformers' Trainer takes the steps, so that curves, checkpoints, stopping and resuming are
those of every other stage. Imported where a training begins and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from harness.methods import _ppo, _rows
from harness.methods._following import Followed
from harness.methods._rollouts import Rolling, Rollouts, parts
from harness.methods._rows import Row
from harness.methods._sampling import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The settings of the loop, as `Ppo` explains them; `target_kl` is None where the coefficient is fixed."""

    batch_size: int
    micro_batch: int
    rollout_epochs: int
    kl_coef: float
    target_kl: float | None
    kl_gain: float
    gamma: float
    lam: float
    clip_range: float
    value_clip: float
    value_coef: float
    value_rate: float
    whiten: bool


@dataclass(slots=True)
class Round:
    """The answers of one round, by row: each tensor has a number a token. `order` are the rows of each step."""

    ids: list[list[int]]
    prompt: list[int]
    logprobs: list[Tensor]
    values: list[Tensor]
    gains: list[Tensor]
    returns: list[Tensor]
    order: list[list[int]]


class ActorCritic(torch.nn.Module):
    """A policy and the head that reads values from its last hidden states: one module, so that one optimizer steps and
    one limit holds for the gradients of both."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy
        self.head = _ppo.ValueHead(policy.config.get_text_config().hidden_size).to(policy.device)

    def forward(self, rollouts: Rollouts, rows: Sequence[Row]) -> tuple[Any, Tensor]:
        """What the policy thinks of the answers of `rows`, and the value before each of their tokens."""
        read = rollouts.likelihood.read(rows)
        return read, self.head(read.hidden)


class PpoTrainer(Followed, Rolling, Trainer):  # type: ignore[misc]
    """A step is one batch's; the first step of a round samples and judges its answers."""

    def __init__(
        self, policy: Any, config: TrainingArguments, rules: Rules, *,
        prompts: Sequence[Prompt], plan: Sequence[Sequence[int]], rollouts: Rollouts,
    ) -> None:  # fmt: skip
        """`plan` are the prompts of each round."""
        actor = ActorCritic(policy)
        super().__init__(model=actor, args=config, data_collator=list)
        self.rules, self.prompts, self.plan = rules, prompts, plan
        self.kl_coef = rules.kl_coef
        self.round: Round | None = None
        self.per_round = len(plan[0]) // rules.batch_size * rules.rollout_epochs
        self._figures: dict[str, float] = {}

    # ------------------------------------------------------------------------------------------------------- one step

    def get_train_dataloader(self) -> Any:
        steps = range(len(self.plan) * self.per_round)
        return DataLoader(steps, batch_sampler=[[step] for step in steps], collate_fn=list)  # type: ignore[arg-type]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """The head learns at a rate of its own: it starts from nothing, the policy does not."""
        optimizer = super().create_optimizer(*args, **kwargs)
        head = list(self.model.head.parameters())
        apart = set(map(id, head))
        for group in optimizer.param_groups:
            group["params"] = [weight for weight in group["params"] if id(weight) not in apart]
        optimizer.add_param_group({"params": head, "lr": self.rules.value_rate, "weight_decay": 0.0})
        return optimizer

    def training_step(self, model: Any, inputs: list[int], num_items_in_batch: Any = None) -> Tensor:
        turn, place = divmod(inputs[0], self.per_round)
        if self.round is None or place == 0:
            self.round = self._new_round([self.prompts[number] for number in self.plan[turn]])
        chosen = self.round.order[place]
        lengths = [len(self.round.ids[row]) for row in chosen]
        self.state.num_input_tokens_seen += sum(lengths)
        tokens = sum(len(self.round.values[row]) for row in chosen)
        most = _rows.CPU_TOKENS if self.args.device.type == "cpu" else sum(lengths) * len(chosen)
        loss = torch.zeros((), device=self.args.device)
        for part in _rows.parts(lengths, self.rules.micro_batch, most):
            rows = torch.tensor([chosen[number] for number in part])
            loss += super().training_step(model, {"rows": rows}, tokens)
        return loss

    def compute_loss(
        self, model: Any, inputs: Mapping[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """The share of some rows in the loss of a step: the mean over the `num_items_in_batch` tokens of the step."""
        assert self.round is not None
        places, rules, kept = inputs["rows"].tolist(), self.rules, self.round

        def joined(of: Sequence[Tensor]) -> Tensor:
            return torch.cat([of[place] for place in places])

        read, values = self.model(self.rollouts, [Row(tuple(kept.ids[place]), kept.prompt[place]) for place in places])
        policy, clipped = _ppo.policy_loss(read.logprobs, joined(kept.logprobs), joined(kept.gains), rules.clip_range)
        value = _ppo.value_loss(values, joined(kept.values), joined(kept.returns), rules.value_clip)
        sums = {"policy_loss": policy, "value_loss": value, "clip_fraction": clipped, "entropy": read.entropy()}
        for name, each in sums.items():
            self._figures[name] = self._figures.get(name, 0.0) + float(each.detach().sum()) / num_items_in_batch
        total: Tensor = policy.sum() + rules.value_coef * value.sum()
        return total / float(num_items_in_batch)

    # ------------------------------------------------------------------------------------------------------ one round

    @torch.no_grad()
    def _new_round(self, prompts: Sequence[Prompt]) -> Round:
        """Sample and judge an answer to each prompt; adapt the coefficient for the next round."""
        rules, rollouts = self.rules, self.rollouts
        answers = rollouts.sampler.answer(prompts)
        scores, lessened = rollouts.worth(answers)
        rows = [answer.row for answer in answers]
        logprobs, ratios, values = ([torch.empty(0)] * len(rows) for _ in range(3))
        for part in parts(answers, len(answers)):
            read, worth = self.model(rollouts, [rows[place] for place in part])
            with rollouts.reference.active():
                reference = rollouts.likelihood.read([rows[place] for place in part])
            sizes = [len(answers[place].ids) for place in part]
            pieces = (each.split(sizes) for each in (read.logprobs, read.logprobs - reference.logprobs, worth))
            for place, own, ratio, value in zip(part, *pieces, strict=True):
                logprobs[place], ratios[place], values[place] = own.clone(), ratio.clone(), value.clone()
        made = [
            _ppo.advantages(_ppo.token_rewards(score, ratio, self.kl_coef), value, rules.gamma, rules.lam)
            for score, ratio, value in zip(lessened, ratios, values, strict=True)
        ]
        gains = [gain for gain, _ in made]
        kl = sum(float(ratio.sum()) for ratio in ratios) / len(rows)
        self._figures |= {
            "reward": sum(scores) / len(scores),
            "kl": kl,
            "kl_coef": self.kl_coef,
            "answer_tokens": sum(len(answer.ids) for answer in answers) / len(answers),
            "ended": sum(answer.ended for answer in answers) / len(answers),
        }
        if rules.target_kl is not None:
            self.kl_coef = _ppo.adapted(self.kl_coef, kl, rules.target_kl, rules.kl_gain)
        order = [torch.randperm(len(rows)).tolist() for _ in range(rules.rollout_epochs)]
        return Round(
            ids=[list(row.ids) for row in rows],
            prompt=[row.prompt for row in rows],
            logprobs=logprobs,
            values=values,
            gains=_ppo.whiten(gains) if rules.whiten else gains,
            returns=[back for _, back in made],
            order=[
                epoch[first : first + rules.batch_size]
                for epoch in order
                for first in range(0, len(rows), rules.batch_size)
            ],
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs |= self._figures
            self._figures = {}
        super().log(logs, start_time)

    # ---------------------------------------------------------------------------------------------------- checkpoints

    def to_keep(self) -> Mapping[str, Any]:
        over = self.state.global_step % self.per_round == 0
        kept = None if over else {each.name: getattr(self.round, each.name) for each in fields(Round)}
        return {"kl_coef": self.kl_coef, "round": kept}

    def keep(self, kept: Mapping[str, Any]) -> None:
        self.kl_coef = kept["kl_coef"]
        self.round = None if kept["round"] is None else Round(**kept["round"])

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Always what is trained alone: of weights that layers share, a whole state would hold each several times."""
        self.save_trained(Path(output_dir or self.args.output_dir))

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Weights that went beyond the target are never the best."""
        if self.rules.target_kl is None or metrics["eval_kl"] <= self.rules.target_kl:
            better: bool = super()._determine_best_metric(metrics, trial)
            return better
        self.control.should_training_stop |= self.waited_enough()
        return False
