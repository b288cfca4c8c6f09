"""What every adapter does, on a tiny model: it learns, moves its own weights alone, answers as PEFT itself does with
what was saved, and an interrupted training goes on to the same weights."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from answering import QUESTIONS, SHOTS, Reference, answer_all, asks, texts
from training import curves, make_job, rows, same, silent, stop_after, weights

from harness.adapters.lora import Lora
from harness.backends.transformers import Transformers
from harness.errors import ModelError
from harness.methods import _model
from harness.methods.sft import Sft
from harness.plugins import TrainJob

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    # What PEFT says of its own ways when it answers by itself.
    pytest.mark.filterwarnings("ignore:.*rank_pattern keys did not match:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
]

TABLES: dict[str, tuple[dict[str, Any], float]] = {
    "lora": ({"kind": "lora", "rank": 4, "dropout": 0.1}, 5e-3),
    "lora-pissa": ({"kind": "lora", "rank": 4, "init": "pissa"}, 2e-3),
    "qlora": ({"kind": "qlora", "rank": 4}, 5e-3),
    "adalora": ({"kind": "adalora", "rank": 6, "target_rank": 3, "dropout": 0.1}, 2e-2),
    "ia3": ({"kind": "ia3"}, 3e-2),
    "vera": ({"kind": "vera", "rank": 32}, 5e-2),
    "oft": ({"kind": "oft", "block_size": 16}, 5e-3),
    "layer-norm": ({"kind": "layer-norm"}, 2e-2),
    "bottleneck": ({"kind": "bottleneck", "size": 16, "dropout": 0.1}, 1e-2),
    "prefix": ({"kind": "prefix", "tokens": 5}, 3e-1),
    "prefix-projection": ({"kind": "prefix", "tokens": 5, "projection": True}, 1e-1),
    "prompt": ({"kind": "prompt", "tokens": 5}, 1e-1),
    "p-tuning": ({"kind": "p-tuning", "tokens": 5}, 1e-2),
    "llama-adapter": ({"kind": "llama-adapter", "tokens": 4, "layers": 2}, 5e-2),
    "full": ({"kind": "full"}, 1e-3),
    "freeze": ({"kind": "freeze", "layers": 1}, 2e-3),
    "peft": ({"kind": "peft", "type": "LOKR", "config": {"r": 4, "target_modules": "all-linear"}}, 1e-2),
}


@dataclass
class Run:
    """One training of eight steps: what was reported, and every weight of the model before and after it."""

    job: TrainJob
    method: Sft
    outcome: Any
    before: dict[str, Any]
    policy: Any


def method_of(name: str) -> Sft:
    table, rate = TABLES[name]
    settings = {"learning_rate": rate, "epochs": 2, "batch_size": 4, "warmup": 0, "schedule": "constant"}
    return Sft.model_validate({"adapter": table, "checkpoint_every": 3, **settings})


@pytest.fixture(scope="module", autouse=True)
def no_garbage_of_imports() -> Iterator[None]:
    """A trainer collects garbage when it begins, and most of what there is to look through are imported modules."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def session(tiny_model: Path) -> Any:
    """One session for all kinds, so that each follows another one."""
    return Transformers(id=str(tiny_model), dtype="float32", device="cpu").open()


@pytest.fixture(scope="module", params=TABLES)
def run(request: Any, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    job = make_job(tmp_path_factory.mktemp(request.param) / "job", tiny_model, train=rows(16))
    method = method_of(request.param)
    seen: dict[str, Any] = {}

    def load(*args: Any, **settings: Any) -> Any:
        seen["policy"] = original(*args, **settings)
        seen["before"] = {name: weight.detach().clone() for name, weight in seen["policy"].model.named_parameters()}
        return seen["policy"]

    original = _model.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_model, "load", load)
        outcome = method.fit(job, silent)
    return Run(job, method, outcome, seen["before"], seen["policy"])


def artifact(run: Run) -> str:
    """What the training left: "adapter" or "model"."""
    kind: str = json.loads((run.job.out / "artifact.json").read_text())["kind"]
    return kind


def logits(model: Any) -> Any:
    """Those of a few tokens, without an adapter's own before them."""
    import torch

    ids = torch.tensor([[5, 60, 7, 80, 9, 10, 110]])
    with torch.no_grad():
        return model.eval()(ids).logits[:, -7:]


def test_it_learns_and_moves_its_own_weights_alone(run: Run) -> None:
    import torch

    losses = [line["loss"] for line in curves(run.job.out)]
    assert len(losses) == 8
    assert sum(losses[4:]) < 0.97 * sum(losses[:4]), "the same rows, the second time"
    moved = set()
    for name, weight in run.policy.model.named_parameters():
        if not torch.equal(weight.to(run.before[name].dtype), run.before[name]):
            moved.add(name)
            assert weight.requires_grad, name
    trained = {name for name, weight in run.policy.model.named_parameters() if weight.requires_grad}
    assert moved and len(moved) >= 0.9 * len(trained)
    assert run.outcome.trainable_parameters == sum(run.before[name].numel() for name in trained)
    assert artifact(run) == ("model" if run.method.adapter.kind in ("full", "freeze") else "adapter")  # type: ignore[union-attr]


def test_it_answers_as_peft_does_and_detaching_restores_the_base(run: Run, tiny_model: Path, session: Any) -> None:
    requests = [asks(QUESTIONS[:3], system, max_tokens=8) for system in ("", SHOTS)]
    session.attach(None)
    plain = [texts(answer_all(session, asked)) for asked in requests]
    session.attach(run.job.out)
    adapted = [texts(answer_all(session, asked)) for asked in requests]
    reference = Reference(run.job.out) if artifact(run) == "model" else Reference(tiny_model, run.job.out)
    assert adapted == [reference.answers(session, asked) for asked in requests]
    assert adapted != plain
    bare = Reference(tiny_model)
    assert plain == [bare.answers(session, asked) for asked in requests], "whatever was attached before"
    session.attach(None)
    assert [texts(answer_all(session, asked)) for asked in requests] == plain
    session.attach(run.job.out)
    assert [texts(answer_all(session, asked)) for asked in requests] == adapted


def test_an_interrupted_training_goes_on_to_the_same_weights(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    again = make_job(tmp_path / "job", tiny_model, train=rows(16))
    with pytest.raises(KeyboardInterrupt):
        run.method.fit(again, stop_after(5))
    seen: list[int] = []
    assert run.method.fit(again, lambda at, steps, figures: seen.append(at)) == run.outcome
    assert seen == [6, 7, 8]
    assert same(weights(again.out), weights(run.job.out))
    for file in run.job.out.iterdir():
        assert str(tiny_model).encode() not in file.read_bytes(), file.name


def test_it_is_trained_on_from_where_it_stood(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    import torch

    reference = Reference(run.job.out) if artifact(run) == "model" else Reference(tiny_model, run.job.out)
    policy = _model.load(make_job(tmp_path / "job", tiny_model, incoming=run.job.out), None, "float32")
    assert policy.kind == artifact(run)
    assert policy.trainable_parameters > 0
    torch.testing.assert_close(logits(policy.model), logits(reference.model), rtol=1e-4, atol=1e-4)
    if run.policy.quantized_from is None:
        torch.testing.assert_close(logits(run.policy.model), logits(reference.model), rtol=1e-3, atol=1e-3)
    if policy.kind == "adapter":
        assert policy.trainable_parameters < 0.5 * sum(weight.numel() for weight in policy.model.parameters())


def test_it_is_merged_where_it_can_be_and_else_refused(run: Run, tmp_path: Path, tiny_model: Path) -> None:
    import torch

    job = make_job(tmp_path / "job", tiny_model, incoming=run.job.out)
    adapter = run.method.adapter
    assert adapter is not None
    if not adapter.merges:
        with pytest.raises(ModelError, match=r"cannot be merged into the model's weights.*Train it on"):
            _model.load(job, Lora(rank=2), "float32")
        with pytest.raises(ModelError, match=rf"adapter {adapter.kind} cannot be merged.*start = \"base\""):
            _model.load(job, adapter, "float32")
        return
    policy = _model.load(job, Lora(rank=2), "float32")
    assert policy.kind == "model"
    reference = Reference(run.job.out) if artifact(run) == "model" else Reference(tiny_model, run.job.out)
    torch.testing.assert_close(logits(policy.model), logits(reference.model), rtol=1e-3, atol=1e-3)
