"""Kahneman-Tversky optimization: single answers, mismatched ones, and how much each counts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from training import curves, log_probabilities, make_job, opened, preferences, silent, thumbs

from harness.adapters.lora import Lora
from harness.errors import DataError
from harness.methods import kto
from harness.methods._rows import Renderer
from harness.methods.kto import Kto

QUICK: dict[str, Any] = {"adapter": Lora(rank=4), "learning_rate": 5e-3, "batch_size": 4, "warmup": 0.0}


def test_a_batch_of_one_is_refused_with_the_reason() -> None:
    with pytest.raises(ValidationError, match=r"kto needs 2 answers in a batch or more: .* another one's answer"):
        Kto(batch_size=1)
    assert Kto(batch_size=2, micro_batch=1).micro_batch == 1


def test_thumbs_teach_and_the_rarer_kind_counts_more(tmp_path: Path, tiny_model: Path) -> None:
    train = [*thumbs(8, good=True), *thumbs(4, good=False, start=20)]
    job = make_job(tmp_path / "job", tiny_model, train=train, dev=train)
    outcome = Kto(**QUICK, max_steps=6, eval_every=3).fit(job, silent)
    assert (outcome.details["good_weight"], outcome.details["bad_weight"]) == (1.0, 2.0)
    assert outcome.details["dev_accuracy"] is None, "there is no pair in it"
    lines = [line for line in curves(job.out) if "dev_loss" in line]
    assert lines[-1]["dev_loss"] < lines[0]["dev_loss"]
    assert Kto(good_weight=3.0)._weights(()) == (3.0, 1.0)


def test_the_loss_is_the_papers_with_the_policys_move_estimated_over_the_batch(
    tmp_path: Path, tiny_model: Path
) -> None:
    """Ethayarajh et al. 2024, equations 7 and 8: 1 - sigmoid(beta (log ratio - z)) for a good answer, the same with the
    sign turned for a bad one; z is the mean log ratio of mismatched answers, zero at least."""
    from transformers import AutoTokenizer

    dev = preferences(3, start=40)
    job = make_job(tmp_path / "job", tiny_model, train=preferences(8), dev=dev)
    method = Kto(**QUICK | {"batch_size": 6}, max_steps=4, keep_best=False)
    outcome = method.fit(job, silent)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ((batch,), _) = kto.judged(job.dev, Renderer(tokenizer, None), 512, size=6, seed=job.seed)  # type: ignore[arg-type]

    def ratios(which: str) -> torch.Tensor:
        found = []
        for model in (opened(tiny_model, job.out), opened(tiny_model)):
            each = []
            for one in batch:
                row = getattr(one, which)
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([row.ids])).logits[0, :-1]
                picked = logits.log_softmax(-1).gather(1, torch.tensor(row.ids[1:])[:, None])[:, 0]
                each.append(picked[row.prompt - 1 :].sum())
            found.append(torch.stack(each))
        return found[0] - found[1]

    own, z = ratios("row"), ratios("mismatched").mean().clamp(min=0)
    sign = torch.tensor([1.0 if one.good else -1.0 for one in batch])
    by_hand = (1 - torch.sigmoid(method.beta * sign * (own - z))).mean().item()
    assert outcome.details["dev_loss"] == pytest.approx(by_hand, rel=1e-3)
    last = [line for line in curves(job.out) if "dev_loss" in line][-1]
    assert last["dev_kl"] == pytest.approx(z.item(), rel=1e-3, abs=1e-4)
    good = torch.tensor([one.good for one in batch])
    margin = method.beta * (own[good].mean() - own[~good].mean()).item()
    assert outcome.details["dev_margin"] == pytest.approx(margin, rel=1e-3)
    # The mismatched answers of a batch are those of its own rows, each with a prompt that it was not given to.
    found = sorted(one.mismatched.ids[one.mismatched.prompt :] for one in batch)
    assert found == sorted(one.row.ids[one.row.prompt :] for one in batch)
    tokens = log_probabilities(opened(tiny_model), tokenizer, dev, "chosen")
    assert {len(one) for one in tokens} <= {len(one.row.ids) - one.row.prompt for one in batch}


@given(st.integers(2, 60), st.integers(2, 9), st.integers(0, 3))
def test_no_batch_has_one_answer_and_every_epoch_takes_each_once(rows: int, size: int, seed: int) -> None:
    batches = list(kto._batches(list(range(rows)), size))
    assert [row for batch in batches for row in batch] == list(range(rows))
    assert all(2 <= len(batch) <= size + 1 for batch in batches)
    taken = list(kto._epochs(batches, 2 * len(batches), seed))  # type: ignore[arg-type]
    for epoch in (taken[: len(batches)], taken[len(batches) :]):
        assert sorted(epoch) == sorted(map(tuple, batches))


def test_answers_without_room_are_left_out_and_counted(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    renderer = Renderer(AutoTokenizer.from_pretrained(tiny_model), None)
    values = preferences(4)
    values[0] = values[0] | {"messages": [{"role": "user", "content": "!" * 300}]}
    values[1] = values[1] | {"chosen": "?" * 300}
    random.Random(0).shuffle(values)
    file = make_job(tmp_path / "job", tiny_model, train=values).train
    batches, tally = kto.judged(file, renderer, 120, size=4, seed=0)
    assert sum(map(len, batches)) == 6
    assert (tally.rows, tally.dropped, tally.cut) == (4, 2, 1)
    assert max(len(one.mismatched.ids) for batch in batches for one in batch) <= 120
    with pytest.raises(DataError, match=r"two answers at least, and has 0 of 8 whose prompt is shorter than 12 tokens"):
        kto.judged(file, renderer, 12, size=4, seed=0)
