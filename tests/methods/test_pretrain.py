from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from training import curves, make_job, same, silent, stop_after, weights

from harness.adapters.full import Full
from harness.adapters.lora import Lora
from harness.errors import DataError, ModelError
from harness.methods import pretrain
from harness.methods.pretrain import Pretrain

QUICK: dict[str, Any] = {"adapter": Lora(rank=4), "learning_rate": 5e-3, "batch_size": 2, "max_length": 32}


def documents(count: int = 12) -> list[dict[str, Any]]:
    return [{"id": f"d{n}", "text": f"The kettle {n} boils water. " * (3 + n % 4)} for n in range(count)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    job = make_job(tmp_path_factory.mktemp("pretrain") / "job", tiny_model, train=documents(), dev=documents(15)[12:])
    method = Pretrain(**QUICK | {"epochs": 3})
    return job, method, method.fit(job, silent)


def test_documents_become_one_stream_cut_into_blocks(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = pretrain.stream(["tea", "coffee 1"], tokenizer, 0)
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("tea", "coffee 1"))
    assert ids == [*one, 0, *two, 0]
    cut = pretrain.blocks(list(range(10)), 4)
    assert [row.ids for row in cut] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    assert [row.answers for row in cut] == [3, 3, 1], "the first token of a block follows nothing"
    assert [row.ids for row in pretrain.blocks(list(range(9)), 4)] == [(0, 1, 2, 3), (4, 5, 6, 7)]


def test_the_loss_on_the_text_falls_and_is_the_mean_over_all_its_tokens(trained: Any, tiny_model: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job, _, outcome = trained
    losses = [line["loss"] for line in curves(job.out) if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), job.out).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    texts = [json.loads(line)["text"] for line in job.dev.read_text(encoding="utf-8").splitlines()]
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    total, count = 0.0, 0
    for block in pretrain.blocks(pretrain.stream(texts, tokenizer, end), 32):
        ids = torch.tensor([block.ids])
        with torch.no_grad():
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    assert outcome.details["dev_loss"] == pytest.approx(total / count, rel=1e-5)
    assert outcome.details["train_documents"] == 12
    assert outcome.tokens == 3 * outcome.details["train_tokens"]


def test_a_seed_and_an_interruption_lead_to_the_same_weights(trained: Any, tmp_path: Path, tiny_model: Path) -> None:
    job, method, outcome = trained
    again = make_job(tmp_path / "job", tiny_model, train=documents(), dev=documents(15)[12:])
    with pytest.raises(KeyboardInterrupt):
        method.fit(again, stop_after(4))
    assert method.fit(again, silent) == outcome
    assert same(weights(again.out), weights(job.out))
    other = make_job(tmp_path / "other", tiny_model, train=documents(), dev=documents(15)[12:], seed=1)
    method.fit(other, silent)
    assert not same(weights(other.out), weights(job.out))


def test_the_end_of_text_is_the_one_of_pretraining_or_the_one_that_is_named(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer.convert_tokens_to_ids
    assert Pretrain()._end_of_text(tokenizer) == ids("<|endoftext|>") != tokenizer.eos_token_id
    assert Pretrain(end_of_text="<|im_end|>")._end_of_text(tokenizer) == ids("<|im_end|>")
    with pytest.raises(
        ModelError, match=r"end_of_text '<eot>' is no token of the model\. Its special tokens: .*im_end"
    ):
        Pretrain(end_of_text="<eot>")._end_of_text(tokenizer)


def test_text_that_teaches_nothing_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(DataError, match="no token to learn"):
        Pretrain(**QUICK).fit(make_job(tmp_path / "one", tiny_model, train=[{"id": "d", "text": ""}]), silent)
    with pytest.raises(DataError, match="no rows"):
        Pretrain(**QUICK).fit(make_job(tmp_path / "two", tiny_model, train=[]), silent)


def test_a_loss_that_breaks_is_told(tmp_path: Path, tiny_model: Path) -> None:
    job = make_job(tmp_path / "job", tiny_model, train=documents())
    with pytest.raises(ModelError, match="training broke at step"):
        Pretrain(**QUICK | {"adapter": Full(), "learning_rate": 1e30, "schedule": "constant", "epochs": 3}).fit(
            job, silent
        )
