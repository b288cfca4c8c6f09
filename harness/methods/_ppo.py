"""The formulas of proximal policy optimisation on answers, each from its source, as plain functions of tensors.

Imported where a training begins and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def token_rewards(score: float, log_ratios: Tensor, kl_coef: float) -> Tensor:
    """The reward of each token of one answer, shape (tokens,): minus `kl_coef` times its log ratio, the natural
    log-probability by the policy that wrote it less that by the reference; the last token gets `score` as well.

    Source: R(x, y) = r(x, y) - beta log(pi(y | x) / rho(y | x)), Ziegler et al. 2019 (arXiv 1909.08593, section 2.2),
    taken token by token as in Ouyang et al. 2022 (arXiv 2203.02155, section 3.5).
    """
    rewards = -kl_coef * log_ratios
    rewards[-1] += score
    return rewards


def advantages(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and returns of one answer, both (tokens,).

    A_t = sum over l >= 0 of (gamma lam)^l delta_(t+l), delta_t = r_t + gamma V_(t+1) - V_t, where V after the last
    token is 0; the return is A_t + V_t. Source: Schulman et al. 2015 (arXiv 1506.02438, equations 11 and 16).
    """
    found = torch.zeros_like(rewards)
    ahead = following = 0.0
    for step in reversed(range(len(rewards))):
        delta = float(rewards[step]) + gamma * following - float(values[step])
        ahead = delta + gamma * lam * ahead
        found[step] = ahead
        following = float(values[step])
    return found, found + values


def whiten(parts: Sequence[Tensor]) -> list[Tensor]:
    """Bring the numbers of all parts together to a mean of 0 and a variance of 1, as the implementation of Ziegler et
    al. 2019 does with the advantages of a batch (their `utils/core.py`, `whiten`)."""
    joined = torch.cat(list(parts))
    scale = torch.rsqrt(joined.var(unbiased=False) + 1e-8)
    return [(part - joined.mean()) * scale for part in parts]


def policy_loss(new: Tensor, old: Tensor, gains: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """The clipped objective's loss at each token, and whether the clip took its gradient away; both (tokens,).

    -min(r A, clip(r, 1 - clip, 1 + clip) A) with r = exp(new - old), of log-probabilities. Source: Schulman et al. 2017
    (arXiv 1707.06347, equation 7).
    """
    ratio = (new - old).exp()
    free, bound = -gains * ratio, -gains * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(free, bound), (bound > free).float()


def value_loss(new: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """The clipped squared error of each token's value, halved, shape (tokens,): max((V - R)^2, (V' - R)^2) / 2, where
    V' is V kept within `clip` of the old value.

    Source: the implementation that goes with Schulman et al. 2017, written down by Engstrom et al. 2020
    (arXiv 2005.12729, section 3).
    """
    near = old + (new - old).clamp(-clip, clip)
    return torch.maximum((new - returns) ** 2, (near - returns) ** 2) / 2


def adapted(kl_coef: float, kl: float, target: float, gain: float) -> float:
    """The coefficient after a batch of answers with a mean divergence of `kl` nats: kl_coef (1 + gain e), where
    e = clip((kl - target) / target, -0.2, 0.2). Source: Ziegler et al. 2019 (arXiv 1909.08593, section 2.2)."""
    error = min(0.2, max(-0.2, (kl - target) / target))
    return kl_coef * (1 + gain * error)


class ValueHead(torch.nn.Module):
    """Tells from a hidden state what reward is still to come: a linear layer that starts at zero, after the state was
    brought to a length that no model's scale can change."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear = torch.nn.Linear(width, 1)
        torch.nn.init.zeros_(self.linear.weight)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, width) to (n,)."""
        value: Tensor = self.linear(functional.layer_norm(hidden, (self.width,)))
        return value.squeeze(-1)
