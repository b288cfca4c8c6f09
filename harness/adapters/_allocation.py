"""What goes along with the steps of an AdaLoRA training: its penalty, and the decisions on ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback


class Allocation(TrainerCallback):  # type: ignore[misc]
    """Tells PEFT's rank allocator of every step, and adds the gradient of the orthogonality penalty.

    The penalty is that of AdaLoRA (arXiv 2303.10512, section 3.1) in PEFT's form: `orthogonality` times the mean over
    all P and Q of |Pᵀ P - I| and |Q Qᵀ - I|, Frobenius norms, whose squares the paper adds up. PEFT adds it to the loss
    that a model computes itself, which no trainer here asks for; its gradient is added instead, after the others were
    clipped. So the loss in the curves is that of the task alone.
    """

    def __init__(self, model: Any, *, steps: int, first: int, last: int, orthogonality: float) -> None:
        self.tuner, self.orthogonality = model.base_model, orthogonality
        self.name = self.tuner.trainable_adapter_name
        config = self.tuner.peft_config[self.name]
        config.total_step, config.tinit, config.tfinal = steps, first, last

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        if self.orthogonality:
            torch.autograd.backward(self.orthogonality * penalty(self._factors()))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The step that is being taken is counted after this.
        self.tuner.update_and_allocate(state.global_step + 1)

    def settle(self) -> None:
        """Bring the ranks that will be saved in line with the weights: between two decisions, entries that were set to
        zero may have grown again."""
        config = self.tuner.peft_config[self.name]
        if config.rank_pattern:
            entries = {name: weight for name, weight in self.tuner.model.named_parameters() if "lora_E." in name}
            config.rank_pattern = {
                name: (next(weight for key, weight in entries.items() if key.endswith(name)) != 0).flatten().tolist()
                for name in config.rank_pattern
            }

    def _factors(self) -> list[Tensor]:
        """Every Q (rank, in), and every P transposed (rank, out)."""
        found = []
        for name, weight in self.tuner.model.named_parameters():
            if f"lora_A.{self.name}" in name:
                found.append(weight)
            elif f"lora_B.{self.name}" in name:
                found.append(weight.t())
        return found

    def state_dict(self) -> dict[str, Any]:
        allocator = self.tuner.rankallocator
        return {
            "ipt": allocator.ipt,
            "exp_avg_ipt": allocator.exp_avg_ipt,
            "exp_avg_unc": allocator.exp_avg_unc,
            "rank_pattern": self.tuner.peft_config[self.name].rank_pattern,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.tuner.peft_config[self.name].rank_pattern = state["rank_pattern"]
        for key in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            setattr(self.tuner.rankallocator, key, state[key])


def penalty(factors: list[Tensor]) -> Tensor:
    """The mean over matrices M with few rows of the Frobenius norm of M Mᵀ - I."""
    apart = [torch.linalg.norm(one @ one.t() - torch.eye(one.shape[0], device=one.device)) for one in factors]
    return torch.stack(apart).mean()
