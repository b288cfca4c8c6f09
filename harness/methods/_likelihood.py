"""What a model thinks of answers that are given: logits at their tokens alone. And its reference: the model as it came.

Imported where a training begins and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from harness.methods._padding import IGNORED, pad
from harness.methods._rows import Row


@dataclass(frozen=True, slots=True)
class Read:
    """What stands at the n answer tokens of some rows, row after row: `logits` (n, vocabulary) and the last `hidden`
    states (n, width) from which each was predicted, in float32, and the tokens that came, `targets` (n,). The logits
    are divided by the temperature that answers are sampled at, so they are those of the policy that is trained."""

    logits: Tensor
    hidden: Tensor
    targets: Tensor

    @property
    def logprobs(self) -> Tensor:
        """Natural log-probabilities of `targets`, shape (n,)."""
        chosen: Tensor = self.logits.gather(-1, self.targets[:, None]).squeeze(-1)
        return chosen - self.logits.logsumexp(-1)

    @torch.no_grad()
    def entropy(self) -> Tensor:
        """Entropy in nats of the distribution that each token was drawn from, shape (n,)."""
        logs = self.logits.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1)


class Likelihood:
    """Reads answers with a causal model. Logits over prompts are never computed: with tens of thousands of tokens they
    would cost more than the rest. Rows are padded on the right, where causal attention never looks."""

    def __init__(self, model: Any, *, temperature: float, autocast: bool) -> None:
        self.model, self.temperature, self.autocast = model, temperature, autocast
        self._wanted: Tensor | None = None
        self._hidden: Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._narrow)

    def read(self, rows: Sequence[Row]) -> Read:
        """Read the answers of `rows` together; each has one token or more."""
        device = self.model.device
        padded = pad(rows)
        wanted = (padded["labels"][:, 1:] != IGNORED).to(device)
        # The last position predicts nothing that is known.
        self._wanted = functional.pad(wanted, (0, 1))
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=self.autocast):
                logits = self.model(input_ids=padded["input_ids"].to(device), use_cache=False).logits
            assert self._hidden is not None
            hidden = self._hidden
        finally:
            self._wanted = self._hidden = None
        return Read(logits.float() / self.temperature, hidden.float(), padded["labels"][:, 1:].to(device)[wanted])

    def _narrow(self, layer: Any, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        """Before the output layer: keep of the hidden states (rows, tokens, width) those that predict an answer."""
        if self._wanted is None:
            return None
        # Prompt tuning puts trained tokens before each row.
        before = inputs[0].shape[1] - self._wanted.shape[1]
        self._hidden = inputs[0][functional.pad(self._wanted, (before, 0))]
        return (self._hidden,)


class Reference:
    """A model as its stage received it, beside the one that is trained: the same model with the weights that are
    trained as they were, so only these are in memory twice. Called as the model is.

    `fresh` is whether the stage has put an adapter of its own on the model. Fresh adapters leave the model's answers as
    they were, but for those that put random tokens before the text: these are turned off instead.
    """

    def __init__(self, model: Any, *, fresh: bool) -> None:
        self.model = model
        added = bool(getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False))
        self._off = added and fresh
        self._received = {} if self._off else {
            name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad
        }  # fmt: skip

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let the model be its reference for a while. Without gradients."""
        with torch.no_grad():
            if self._off:
                with self.model.disable_adapter():
                    yield
                return
            self._swap()
            try:
                yield
            finally:
                self._swap()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.active():
            return self.model(*args, **kwargs)

    def _swap(self) -> None:
        for name, weight in self.model.named_parameters():
            if name in self._received:
                weight.data, self._received[name] = self._received[name], weight.data
        # Autocast keeps 16-bit copies of weights by the tensor, not by what is in it.
        torch.clear_autocast_cache()


def divergence(policy: Read, reference: Read) -> Tensor:
    """The Kullback-Leibler divergence KL(policy || reference) in nats of the next token's distribution at each answer
    token, shape (n,), over the whole vocabulary. Summed over an answer that the policy wrote, it estimates the
    divergence of the two distributions over answers without bias (chain rule), and with less variance than the log
    ratio of the tokens that came."""
    own, other = policy.logits.log_softmax(-1), reference.logits.log_softmax(-1)
    return (own.exp() * (own - other)).sum(-1)


def without_dropout(model: Any) -> None:
    """Turn dropout off: the policy that is trained has to be the one that answered."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
