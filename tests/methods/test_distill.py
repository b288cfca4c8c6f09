from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import make_tiny_model
from pydantic import ValidationError
from training import curves, make_job, moved, rows, same, silent, stop_after, watch_frozen, weights

from harness import models
from harness.adapters.full import Full
from harness.adapters.lora import Lora
from harness.backends.transformers import Transformers
from harness.errors import DataError, ModelError
from harness.methods import distill
from harness.methods.distill import Distill, Student
from harness.plugins import TrainJob
from harness.records import Decoding, Message, Request

QUICK: dict[str, Any] = {
    "teacher": "large", "adapter": Lora(rank=8), "learning_rate": 1e-2, "epochs": 2, "batch_size": 4, "max_tokens": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model with the vocabulary of the tiny one, and more layers."""
    return make_tiny_model(tmp_path_factory.mktemp("large") / "model", seed=7, layers=3)


def job_of(folder: Path, model: Path, teacher: Path | None, **settings: Any) -> TrainJob:
    meaning = {} if teacher is None else {"model": str(teacher)}
    job = make_job(folder, model, **{"dev": rows(30)[24:]} | settings)
    return replace(job, references={"large": meaning, "base": {}})


# ------------------------------------------------------------------------------------------------------------ the loss


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_the_divergence_is_that_of_trl(beta: float) -> None:
    import torch
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    from harness.methods._distilling import divergence

    torch.manual_seed(0)
    student, teacher = 2 * torch.randn(5, 11), 2 * torch.randn(5, 11)
    expected, _, _ = _chunked_divergence_loss(
        student[None], teacher[None], torch.eye(11), torch.eye(11), torch.ones(1, 5), beta
    )
    assert divergence(student, teacher, beta).mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_divergence_is_what_a_hand_computes() -> None:
    import torch

    from harness.methods._distilling import divergence

    # P = (3/4, 1/4) and Q = (1/2, 1/2), so M = (5/8, 3/8) for a beta of 1/2.
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.log(torch.tensor([[0.75, 0.25]]))
    found = [divergence(student, teacher, beta).item() for beta in (0.0, 1.0, 0.5)]
    # 3/4 ln 3/2 + 1/4 ln 1/2; 1/2 ln 2/3 + 1/2 ln 2; half of each divergence from M.
    assert found == pytest.approx([0.130812, 0.143841, 0.033822], abs=1e-6)


# ---------------------------------------------------------------------------------------------------------- the stage


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, large: Path) -> Any:
    """Half of the steps with answers of the student's own."""
    method = Distill(**QUICK | {"on_policy": 0.5, "checkpoint_every": 2})
    job = job_of(tmp_path_factory.mktemp("distill") / "job", tiny_model, large)
    return job, method, method.fit(job, silent)


@pytest.mark.parametrize("on_policy", [0.0, 1.0], ids=["off", "on"])
def test_the_student_comes_closer_to_the_teacher_and_frozen_weights_stay(
    tmp_path: Path, tiny_model: Path, large: Path, monkeypatch: pytest.MonkeyPatch, on_policy: float
) -> None:
    frozen = watch_frozen(monkeypatch)
    job = job_of(tmp_path / "job", tiny_model, large)
    outcome = Distill(**QUICK | {"on_policy": on_policy, "beta": on_policy, "eval_every": 1}).fit(job, silent)
    losses = [line["dev_loss"] for line in curves(job.out) if "dev_loss" in line]
    assert losses[0] - min(losses) > 0.2
    assert outcome.details["on_policy_steps"] == (12 if on_policy else 0)
    assert moved(frozen[0], tiny_model) == []


def test_a_model_that_is_its_own_teacher_has_nothing_to_learn(tmp_path: Path, tiny_model: Path) -> None:
    job = job_of(tmp_path / "job", tiny_model, None)
    Distill(**QUICK | {"teacher": "base", "max_steps": 1}).fit(job, silent)
    assert curves(job.out)[0]["loss"] == pytest.approx(0, abs=1e-5)


def test_an_earlier_stage_can_be_the_teacher(trained: Any, tmp_path: Path, tiny_model: Path) -> None:
    before, _, _ = trained
    job = replace(job_of(tmp_path / "job", tiny_model, None), references={"large": {"artifact": str(before.out)}})
    Distill(**QUICK | {"max_steps": 1}).fit(job, silent)
    assert curves(job.out)[0]["loss"] > 0.1
    itself = replace(job, incoming=before.out, out=tmp_path / "out", work=tmp_path / "work")
    for folder in (itself.out, itself.work):
        folder.mkdir()
    Distill(**QUICK | {"adapter": None, "max_steps": 1}).fit(itself, silent)
    assert curves(itself.out)[0]["loss"] == pytest.approx(0, abs=1e-4), "the stage that it starts from"


@pytest.mark.parametrize("step", [3, 7])
def test_a_seed_and_an_interruption_lead_to_the_same_weights(
    trained: Any, tmp_path: Path, tiny_model: Path, large: Path, step: int
) -> None:
    job, method, outcome = trained
    assert 0 < outcome.details["on_policy_steps"] < 12
    again = job_of(tmp_path / "job", tiny_model, large)
    with pytest.raises(KeyboardInterrupt):
        method.fit(again, stop_after(step))
    assert method.fit(again, silent) == outcome
    assert same(weights(again.out), weights(job.out))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_higher_temperature_softens_both_distributions(tmp_path: Path, tiny_model: Path, large: Path) -> None:
    import torch

    from harness.methods._distilling import divergence

    method = Distill(**QUICK | {"temperature": 2.0})
    job = job_of(tmp_path / "job", tiny_model, large)
    policy = method.load(job, "float32")
    trainer = method.ready(job, policy, "float32").trainer
    student = torch.randn(1, 400)
    inputs = {"input_ids": torch.tensor([[5, 6]]), "labels": torch.tensor([[-100, 6]])}
    wanted = torch.tensor([[True]])
    with torch.no_grad():
        taught = trainer.teacher(inputs["input_ids"]).logits[:, 0]
    student = student[:, : taught.shape[-1]]
    found = trainer.losses(student, torch.tensor([6]), inputs, wanted)
    torch.testing.assert_close(found, 4 * divergence(student / 2, taught / 2, 0.0))


def test_a_loss_that_breaks_is_told(tmp_path: Path, tiny_model: Path, large: Path) -> None:
    broken = {"adapter": Full(), "learning_rate": 1e30, "schedule": "constant"}
    with pytest.raises(ModelError, match="training broke at step"):
        Distill(**QUICK | broken).fit(job_of(tmp_path / "job", tiny_model, large), silent)


def test_a_teacher_of_another_vocabulary_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    other = make_tiny_model(tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(other)
    with pytest.raises(
        ModelError, match=r"teacher 'large' has another vocabulary.*'<extra>'.*kind = \"sft\" with `teacher`"
    ):
        Distill(**QUICK).fit(job_of(tmp_path / "job", tiny_model, other), silent)


def test_a_folder_with_a_model_of_its_own_is_a_teacher_with_its_own_tokenizer(
    tmp_path: Path, tiny_model: Path, large: Path
) -> None:
    job = job_of(tmp_path / "job", tiny_model, None)
    job.references["large"] = {"artifact": str(large)}
    Distill(**QUICK | {"max_steps": 1}).fit(job, silent)
    named = job_of(tmp_path / "named", tiny_model, large)
    Distill(**QUICK | {"max_steps": 1}).fit(named, silent)
    assert same(weights(job.out), weights(named.out))


class Soft(Full):
    prompt_learning: ClassVar[bool] = True


def test_an_adapter_of_trained_tokens_is_refused() -> None:
    with pytest.raises(ValidationError, match="trains tokens before the text, which distillation cannot compare"):
        Distill(teacher="base", adapter=Soft())


# --------------------------------------------------------------------------------------------------- a smaller student


def test_the_kept_layers_are_evenly_spaced_with_the_first_and_the_last() -> None:
    assert distill.kept_layers(15, 30) == [0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29]
    assert distill.kept_layers(2, 12) == [0, 11]
    assert distill.kept_layers(1, 12) == [0]


def test_a_student_of_fewer_layers_is_a_whole_model_that_answers(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = make_tiny_model(tmp_path / "base", layers=4)
    job = job_of(tmp_path / "job", base, None)
    method = Distill(teacher="base", student=Student(layers=2), learning_rate=1e-3, epochs=3, batch_size=8)
    outcome = method.fit(job, silent)
    losses = [line["loss"] for line in curves(job.out) if "loss" in line]
    assert losses[-1] < losses[0]
    assert json.loads((job.out / "artifact.json").read_text()) == {"kind": "model", "base": models.fingerprint(base)}
    small, large = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (job.out, base))
    assert small.config.num_hidden_layers == len(small.model.layers) == 2
    assert outcome.trainable_parameters == small.num_parameters() < large.num_parameters()
    distance = [
        (small.model.layers[1].mlp.up_proj.weight - large.model.layers[place].mlp.up_proj.weight).abs().max().item()
        for place in (1, 3)
    ]
    assert distance[1] < 0.05 < distance[0], "its last layer comes from the last one"
    # The backend of the large model answers with it, as transformers does.
    asked = Request(messages=(Message("user", "how long?"),), decoding=Decoding(max_tokens=6))
    session = Transformers(id=str(base), dtype="float32", device="cpu").open()
    session.attach(job.out)
    (reply,) = session.answer([asked], session.plan([asked]))
    tokenizer = AutoTokenizer.from_pretrained(job.out)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "how long?"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        made = small.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=6, do_sample=False)
    assert reply.texts[0] == tokenizer.decode(made[0, prompt.shape[1] :], skip_special_tokens=True)
    session.attach(None)
    # A stage after it trains the small model on.
    after = job_of(tmp_path / "after", base, None, incoming=job.out)
    Distill(teacher="base", learning_rate=1e-4, max_steps=1).fit(after, silent)
    assert weights(after.out).keys() == weights(job.out).keys()


def test_a_student_is_cut_from_what_an_adapter_made_of_the_model(
    trained: Any, tmp_path: Path, tiny_model: Path
) -> None:
    before, _, _ = trained
    job = job_of(tmp_path / "job", tiny_model, None, incoming=before.out)
    method = Distill(teacher="base", student=Student(layers=1), adapter=Lora(rank=2), learning_rate=1e-3, max_steps=1)
    assert method.fit(job, silent).details["artifact"] == "model"
    name = "model.layers.0.self_attn.q_proj.weight"
    assert (weights(job.out)[name] - weights(tiny_model)[name]).abs().max() > 0.01


def test_a_student_that_is_not_smaller_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="student: the model has 2 layers, so a smaller one has at most 1, not 2"):
        Distill(teacher="base", student=Student(layers=2)).fit(job_of(tmp_path / "job", tiny_model, None), silent)


def test_a_stage_is_the_same_after_it_was_written_down_for_its_process() -> None:
    method = Distill(teacher="base", student=Student(layers=2), adapter=Lora(rank=2))
    table = json.loads(json.dumps(method.table()))
    assert table.pop("kind") == "distill"
    assert Distill.model_validate(table) == method


def test_a_prompt_that_leaves_the_students_own_answers_no_room_is_told(
    tmp_path: Path, tiny_model: Path, large: Path
) -> None:
    job = job_of(tmp_path / "job", tiny_model, large)
    with pytest.raises(DataError, match=r"max_tokens = 600, and beside the longest prompt .* lower max_tokens"):
        Distill(**QUICK | {"on_policy": 0.5, "max_tokens": 600}).fit(job, silent)
    Distill(**QUICK | {"max_tokens": 600, "max_steps": 1}).fit(job, silent)
