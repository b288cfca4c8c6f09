"""Reward models as artifacts: written by `reward`, and loaded to mark answers by the stages that learn from rewards.

The folder holds what transformers' AutoModelForSequenceClassification and AutoTokenizer load (one label; an adapter is
merged), and artifact.json with {"kind": "reward", "base": the base model's fingerprint, "tokenizer": `vocabulary`}.
Imported where a training begins and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from harness import artifacts
from harness.devices import pick_device
from harness.errors import ModelError
from harness.methods import _model, _rows

TOKENS = 4096
"""Tokens in one forward pass, padding included, at most (a longer row stands alone)."""


class Scorer:
    """A loaded reward model. `model` is the transformers model, `renderer` turns a prompt and an answer into tokens."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.renderer = _rows.Renderer(tokenizer, None)

    @torch.no_grad()
    def score(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """Return the reward of each row of token ids (prompt, answer and the end of its turn, unpadded), in order: the
        value at its last token. No row may be empty. Unbounded; only differences between answers to one prompt mean
        anything (Bradley and Terry 1952)."""
        found = [0.0] * len(rows)
        self.model.eval()
        for part in _rows.parts([len(row) for row in rows], max(1, len(rows)), TOKENS):
            inputs = {name: value.to(self.model.device) for name, value in padded([rows[p] for p in part]).items()}
            values = marks(self.model, **inputs)
            for place, value in zip(part, values.tolist(), strict=True):
                found[place] = value
        return found

    def score_answers(self, answers: Sequence[tuple[Sequence[dict[str, str]], str]]) -> list[float]:
        """The same for pairs of messages ({"role", "content"}) and an answer, rendered as this model was trained."""
        return self.score([self.renderer.row(messages, answer).ids for messages, answer in answers])


def load(folder: Path, *, tokenizer: Any = None, device: str = "auto", dtype: str | None = None) -> Scorer:
    """Load the reward model in `folder`, in its own dtype or in `dtype` ("float32", "bfloat16").

    `tokenizer` is that of the policy whose token ids will be scored; without one, texts alone may be. A folder that
    TRL or transformers wrote is read too. Raises ModelError where `folder` holds no reward model, or one whose
    vocabulary is not that of `tokenizer`.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    said = artifacts.described(folder)
    if said.get("kind", "reward") != "reward":
        raise ModelError(f"{folder} is no reward model but of the kind {said['kind']!r}: name a stage `reward`")
    own = _model.load_tokenizer(folder, False)
    if tokenizer is not None and vocabulary(tokenizer) != vocabulary(own):
        raise ModelError(
            f"the reward model {folder} has another vocabulary than the model that is trained ({len(own):,} tokens, "
            f"not {len(tokenizer):,}, or other ones), so it cannot mark its tokens. Train a reward model from the same "
            "base model."
        )
    try:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype="auto" if dtype is None else getattr(torch, dtype),
            use_safetensors=True,
            local_files_only=True,
        )
    except (OSError, SafetensorError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the reward model {folder} cannot be loaded: {reason}") from error
    if model.config.num_labels != 1 or not hasattr(model, "score"):
        raise ModelError(f"{folder} does not hold a reward model: a decoder with one label (its weight is `score`)")
    return Scorer(model.to(pick_device(device)).requires_grad_(False).eval(), own)


def save(model: Any, tokenizer: Any, out: Path, base: str, dtype: str) -> None:
    """Write the reward model into `out`, `artifact.json` last. `base` is the fingerprint of the base model."""
    out.mkdir(parents=True, exist_ok=True)
    for weight in model.parameters():
        weight.data = weight.data.to(getattr(torch, dtype))
    model.config.dtype = getattr(torch, dtype)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    said = {"kind": "reward", "base": base, "tokenizer": vocabulary(tokenizer)}
    (out / "artifact.json").write_text(json.dumps(said) + "\n", encoding="utf-8")


def vocabulary(tokenizer: Any) -> str:
    """A digest of which text each token id stands for: two tokenizers of one vocabulary may exchange token ids."""
    listed = sorted((number, token) for token, number in tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def padded(rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, both (rows, tokens), padded on the right."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros((len(rows), int(lengths.max())), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}


def marks(model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The values of the reward model `model` at the last token of each row that is padded on the right, in float32;
    shape (rows,).

    transformers itself takes the last token that is not the padding token: with a tokenizer whose padding is its end of
    turn, that is the token before it.
    """
    layers = getattr(model, model.base_model_prefix)
    # Causal attention never looks to the right, where the padding is.
    hidden = layers(input_ids=input_ids, use_cache=False).last_hidden_state
    last = hidden[torch.arange(len(hidden), device=hidden.device), attention_mask.sum(dim=1) - 1]
    with torch.autocast(hidden.device.type, enabled=False):
        # In 16 bits a reward would keep three digits, and differences between like answers none.
        return torch.nn.functional.linear(last.float(), model.score.weight.float()).squeeze(-1)
