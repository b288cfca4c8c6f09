"""Prefix, prompt and P-tuning: the room that their tokens take, and models that the fast engine does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from answering import QUESTIONS, SHOTS, Reference, answer_all, asks, texts
from conftest import make_tiny_model
from training import make_job, rows, silent, weights

from harness.backends.transformers import Transformers
from harness.errors import DataError
from harness.methods.sft import Sft
from harness.plugins import Adapter, find
from harness.records import Decoding, Message, Request

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
]

KINDS = ("prefix", "prompt", "p-tuning")


def adapter(kind: str, **settings: Any) -> Adapter:
    made = find("adapters", kind).model_validate(settings)
    assert isinstance(made, Adapter)
    return made


def written(kind: str, folder: Path, out: Path, **settings: Any) -> Path:
    """An adapter with random weights, strong enough to change answers."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = adapter(kind, **settings).wrap(AutoModelForCausalLM.from_pretrained(folder, dtype="float32"))
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.7)
    model.save_pretrained(out, save_embedding_layers=False)
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_they_take_room_of_the_context(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    session: Any = Transformers(id=str(tiny_model), dtype="float32", device="cpu").open()
    words = next(n for n in range(300, 600) if session.count((Message("user", "tea " * n),)) >= 500)
    request = Request(messages=(Message("user", "tea " * words),), decoding=Decoding(max_tokens=30))
    (plain,) = answer_all(session, [request])
    assert plain.input_tokens + plain.output_tokens == 512
    session.attach(written(kind, tiny_model, tmp_path / "few", tokens=7))
    (reply,) = answer_all(session, [request])
    assert reply.input_tokens + reply.output_tokens == 512 - 7
    session.attach(written(kind, tiny_model, tmp_path / "many", tokens=20))
    (reply,) = answer_all(session, [request])
    assert reply.error is not None
    assert "context holds 512, the answer and the adapter's 20 virtual tokens included" in reply.error
    with pytest.raises(DataError, match="every row has 12 tokens or more"):
        job = make_job(tmp_path / "job", make_tiny_model(tmp_path / "short", context=19), train=rows(4))
        Sft(adapter=adapter(kind, tokens=7)).fit(job, silent)


@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_count_them_too(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out = written(kind, tiny_model, tmp_path / "out", tokens=6)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype="float32"), out).eval()
    session: Any = Transformers(id=str(tiny_model), dtype="float32", device="cpu").open()
    session.attach(out)
    choices = ("yes", "yes months", "no years")
    for request in asks(QUESTIONS[:2], SHOTS, choices=choices):
        (reply,) = answer_all(session, [request])
        prompt = session.chat.prompts([request.messages])[0]
        for choice in reply.choices:
            (answer,) = session.chat.encode([choice.text])
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *answer]])).logits[0, -len(answer) - 1 : -1].log_softmax(-1)
            expected = sum(float(logits[place, token]) for place, token in enumerate(answer))
            assert choice.logprob == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, "bottleneck", "layer-norm"])
@pytest.mark.parametrize("architecture", ["gpt2", "mistral"])
def test_other_models_answer_with_them_as_peft_does(
    tmp_path: Path, tiny_model: Path, architecture: str, kind: str
) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 512}
    if architecture == "mistral":
        sizes |= {"num_key_value_heads": 2, "intermediate_size": 128, "sliding_window": 48}
    marks = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "initializer_range": 0.3, "vocab_size": 400}
    torch.manual_seed(3)
    folder = tmp_path / "model"
    AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes, **marks)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    settings = {"tokens": 5} if kind in KINDS else {}
    out = written(kind, folder, tmp_path / "out", **settings)
    session: Any = Transformers(id=str(folder), dtype="float32", device="cpu").open()
    assert not session._fast
    requests = asks(QUESTIONS[:3], max_tokens=8)
    plain = texts(answer_all(session, requests))
    session.attach(out)
    assert texts(answer_all(session, requests)) == Reference(folder, out).answers(session, requests) != plain
    session.attach(None)
    assert texts(answer_all(session, requests)) == plain


@pytest.mark.parametrize(
    ("kind", "settings", "then"),
    [("p-tuning", {"network": "mlp"}, "PROMPT_TUNING"), ("p-tuning", {"network": "lstm", "width": 16}, "PROMPT_TUNING"),
     ("prefix", {"projection": True}, "PREFIX_TUNING")],
)  # fmt: skip
def test_trained_on_they_are_trained_themselves_without_the_network_that_made_them(
    tmp_path: Path, tiny_model: Path, kind: str, settings: dict[str, Any], then: str
) -> None:
    first = make_job(tmp_path / "first", tiny_model, train=rows(8))
    Sft(adapter=adapter(kind, tokens=4, **settings), max_steps=2, learning_rate=1e-2).fit(first, silent)
    second = make_job(tmp_path / "second", tiny_model, train=rows(8), incoming=first.out)
    outcome = Sft(max_steps=2, learning_rate=1e-3, warmup=0).fit(second, silent)
    one, other = weights(first.out)["prompt_embeddings"], weights(second.out)["prompt_embeddings"]
    assert outcome.trainable_parameters == one.numel() == other.numel()
    assert 0 < (one - other).abs().max() < 0.01
    assert json.loads((second.out / "adapter_config.json").read_text())["peft_type"] == then
