"""Odds ratio preference optimization: its loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training import log_probabilities, make_job, opened, preferences, silent

from harness.adapters.lora import Lora
from harness.methods._rows import Renderer
from harness.methods.orpo import Orpo


def test_the_loss_is_the_papers(tmp_path: Path, tiny_model: Path) -> None:
    """Hong et al. 2024, equations 3 to 7: odds p / (1 - p) of the mean log-probability of an answer's tokens. Its
    likelihood term is a mean over prompts and answers, as its authors and TRL compute it."""
    from transformers import AutoTokenizer

    dev = preferences(5, start=40)
    job = make_job(tmp_path / "job", tiny_model, train=preferences(8), dev=dev)
    method = Orpo(adapter=Lora(rank=4), learning_rate=5e-3, max_steps=3, batch_size=4, keep_best=False, beta=0.5)
    outcome = method.fit(job, silent)
    model, tokenizer = opened(tiny_model, job.out), AutoTokenizer.from_pretrained(tiny_model)
    odds = []
    for name in ("chosen", "rejected"):
        p = torch.stack([one.mean() for one in log_probabilities(model, tokenizer, dev, name)]).exp()
        odds.append(p / (1 - p))
    ratio = torch.log(torch.sigmoid(torch.log(odds[0] / odds[1])))
    total, count = 0.0, 0
    for value in dev:
        ids = torch.tensor(Renderer(tokenizer, None).row(value["messages"], value["chosen"]).ids)
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum").item()
        count += len(ids) - 1
    by_hand = total / count - 0.5 * ratio.mean().item()
    assert outcome.details["dev_loss"] == pytest.approx(by_hand, rel=1e-3)
