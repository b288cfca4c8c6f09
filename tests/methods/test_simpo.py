"""Simple preference optimization: its loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training import log_probabilities, make_job, opened, preferences, silent

from harness.adapters.lora import Lora
from harness.methods.simpo import Simpo


def test_the_loss_is_the_papers(tmp_path: Path, tiny_model: Path) -> None:
    """Meng et al. 2024, equation 6: -log sigmoid(beta (mean log-probability of the better answer's tokens - that of the
    worse one's) - gamma)."""
    from transformers import AutoTokenizer

    dev = preferences(5, start=40)
    job = make_job(tmp_path / "job", tiny_model, train=preferences(8), dev=dev)
    method = Simpo(adapter=Lora(rank=4), learning_rate=2e-3, max_steps=3, batch_size=4, keep_best=False)
    outcome = method.fit(job, silent)
    model, tokenizer = opened(tiny_model, job.out), AutoTokenizer.from_pretrained(tiny_model)
    chosen, rejected = (
        torch.stack([one.mean() for one in log_probabilities(model, tokenizer, dev, name)])
        for name in ("chosen", "rejected")
    )
    margin = 2.0 * (chosen - rejected)
    by_hand = torch.log1p(torch.exp(-(margin - 1.0))).mean().item()
    assert outcome.details["dev_loss"] == pytest.approx(by_hand, rel=1e-3)
    assert outcome.details["dev_margin"] == pytest.approx(margin.mean().item(), rel=1e-3)
