from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny_model
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from training import curves, make_job, row, rows, same, silent, stop_after, weights

from harness import models
from harness.adapters.full import Full
from harness.adapters.lora import Lora
from harness.backends.transformers import Transformers, TransformersSession
from harness.errors import DataError, ModelError
from harness.methods import _rows
from harness.methods.sft import Sft
from harness.records import Decoding, Message, Request

LORA = Lora(rank=4, dropout=0.1)
QUICK: dict[str, Any] = {"adapter": LORA, "learning_rate": 5e-3, "epochs": 1, "batch_size": 4}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    """One LoRA training of 12 steps with a dev split: the job, the settings, what was reported, every progress call."""
    job = make_job(tmp_path_factory.mktemp("trained") / "job", tiny_model, dev=rows(30)[24:])
    method = Sft(**QUICK | {"epochs": 2, "eval_every": 0.5, "checkpoint_every": 2})
    calls: list[tuple[int, int, dict[str, float]]] = []
    outcome = method.fit(job, lambda step, steps, figures: calls.append((step, steps, dict(figures))))
    return job, method, outcome, calls


# ------------------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("template", ["own", "other", "none"])
def test_prompts_are_the_token_ids_that_the_model_is_asked_with(tmp_path: Path, template: str) -> None:
    path = make_tiny_model(tmp_path / "m", **({"template": None} if template == "none" else {}))
    other = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}" if template == "other" else None
    session = Transformers(id=str(path), dtype="float32", device="cpu", chat_template=other).open()
    assert isinstance(session, TransformersSession)
    messages = (Message("system", "be  brief"), Message("user", "how long?\n\nyears?"))
    renderer = _rows.Renderer(session.tokenizer, other)
    asked = session.chat.prompts([messages])[0]
    made = renderer.row([{"role": m.role, "content": m.content} for m in messages], "2 years")
    assert list(made.ids[: made.prompt]) == asked
    assert session.count(messages) == made.prompt
    assert session.tokenizer.decode(made.ids[made.prompt : -1]) == "2 years"
    assert made.ids[-1] in session._ends


def test_the_end_of_a_turn_is_the_templates_own_token(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_tiny_model(tmp_path / "m"))
    ids = tokenizer.convert_tokens_to_ids
    assert _rows.Renderer(tokenizer, None).end == ids("<|im_end|>")
    other = "{% for m in messages %}{{ m['content'] }} <|endoftext|>{% endfor %}"
    assert _rows.Renderer(tokenizer, other).end == ids("<|endoftext|>")


def test_answers_that_the_length_limit_cuts_are_counted(tmp_path: Path, tiny_model: Path) -> None:
    # In the ChatML template a question of one token makes a prompt of some 20; the answer has a token a letter or less.
    values = [row(0, "?", "!" * 4), row(1, "?", "?" * 40), row(2, "?" * 200, "!")]
    job = make_job(tmp_path / "job", tiny_model, train=values, dev=values[:2])
    outcome = Sft(**QUICK | {"max_length": 40}).fit(job, silent)
    from transformers import AutoTokenizer

    renderer = _rows.Renderer(AutoTokenizer.from_pretrained(tiny_model), None)
    made = [renderer.row(value["messages"], value["completion"]) for value in values]
    assert len(made[0].ids) <= 40 < len(made[1].ids)
    lost = len(made[1].ids) - 40
    counts = {name: outcome.details[f"train_{name}"] for name in ("rows", "cut", "dropped", "lost_answer_tokens")}
    assert counts == {
        "rows": 3,
        "cut": 1,
        "dropped": 1,
        "lost_answer_tokens": lost + len(made[2].ids) - made[2].prompt,
    }
    assert outcome.details["dev_lost_answer_tokens"] == lost
    assert outcome.tokens == len(made[0].ids) + 40


def test_rows_without_any_answer_left_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(DataError, match=r"every row has 8 tokens or more.*max_length"):
        Sft(**QUICK | {"max_length": 8}).fit(make_job(tmp_path / "job", tiny_model), silent)
    with pytest.raises(DataError, match="no rows"):
        Sft(**QUICK).fit(make_job(tmp_path / "empty", tiny_model, train=[]), silent)


lengths_of_rows = st.lists(st.integers(1, 300), min_size=1, max_size=200)


@given(lengths_of_rows, st.integers(1, 20), st.integers(0, 3), st.booleans())
def test_every_epoch_takes_every_row_once(lengths: list[int], size: int, seed: int, group: bool) -> None:
    per_epoch = -(-len(lengths) // size)
    plan = _rows.batches(lengths, size, 2 * per_epoch, seed=seed, group_by_length=group)
    for epoch in (plan[:per_epoch], plan[per_epoch:]):
        assert sorted(number for batch in epoch for number in batch) == list(range(len(lengths)))
        assert all(1 <= len(batch) <= size for batch in epoch)
    assert plan[: per_epoch + 1] == _rows.batches(lengths, size, per_epoch + 1, seed=seed, group_by_length=group)


@given(lengths_of_rows, st.integers(1, 20), st.integers(1, 2000))
def test_parts_hold_every_row_once_within_both_limits(lengths: list[int], most_rows: int, most_tokens: int) -> None:
    parts = _rows.parts(lengths, most_rows, most_tokens)
    assert sorted(place for part in parts for place in part) == list(range(len(lengths)))
    for part in parts:
        longest = max(lengths[place] for place in part)
        assert len(part) == 1 or (len(part) <= most_rows and len(part) * longest <= most_tokens)


def test_grouping_by_length_saves_padding() -> None:
    lengths = [10 + (37 * n) % 290 for n in range(256)]

    def padded(group: bool) -> int:
        plan = _rows.batches(lengths, 8, 32, seed=0, group_by_length=group)
        return sum(len(batch) * max(lengths[number] for number in batch) for batch in plan)

    assert padded(True) < 1.1 * sum(lengths) < 1.5 * sum(lengths) < padded(False)


# -------------------------------------------------------------------------------------------------------- the loss


def plain_trl(method: Sft, folder: Path, tiny_model: Path) -> tuple[list[float], dict[str, Any]]:
    """The losses and final weights of TRL's own SFTTrainer with the batches, start and settings of `method`."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, set_seed
    from trl import SFTTrainer

    from harness.methods import _model

    job = make_job(folder, tiny_model)
    set_seed(job.seed)
    policy = _model.load(job, method.adapter, "float32")
    own = method.ready(job, policy, "float32").trainer
    made = own.rows
    steps = int(method.epochs * len(made) / method.batch_size)
    assert steps * method.batch_size == method.epochs * len(made)
    plan = _rows.batches(
        [len(one.ids) for one in made], method.batch_size, steps, seed=job.seed, group_by_length=method.group_by_length
    )
    flat = [made[number] for batch in plan for number in batch]
    data = Dataset.from_dict(
        {
            "input_ids": [list(one.ids) for one in flat],
            "labels": [[-100] * one.prompt + list(one.ids[one.prompt :]) for one in flat],
        }
    )
    config = own.args
    config.train_sampling_strategy = "sequential"
    config.dataset_kwargs = None
    trainer = SFTTrainer(policy.model, config, train_dataset=data, processing_class=policy.tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, {
        name: value.detach().clone() for name, value in policy.model.named_parameters() if value.requires_grad
    } | {"steps": torch.tensor(len(losses))}


@pytest.mark.parametrize("adapter", [Lora(rank=4), Full()], ids=["lora", "full"])
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_every_step_has_the_loss_that_trl_has(tmp_path: Path, tiny_model: Path, adapter: Any) -> None:
    import torch

    method = Sft(**QUICK | {"adapter": adapter, "epochs": 2, "micro_batch": 3})
    expected, reference = plain_trl(method, tmp_path / "trl", tiny_model)
    job = make_job(tmp_path / "ours", tiny_model)
    method.fit(job, silent)
    ours = [line["loss"] for line in curves(job.out)]
    assert len(ours) == 12
    assert ours == pytest.approx(expected, rel=2e-4)
    assert ours[-1] < 0.8 * ours[0]
    final = weights(job.out)
    for name, value in reference.items():
        key = name.replace(".default", "")
        if key in final:
            torch.testing.assert_close(final[key], value, rtol=0.02, atol=2e-4)
    assert any(name.replace(".default", "") in final for name in reference)


def test_how_many_rows_are_computed_at_once_changes_rounding_only(tmp_path: Path, tiny_model: Path) -> None:
    losses = []
    for micro in (None, 1):
        job = make_job(tmp_path / str(micro), tiny_model)
        Sft(**QUICK | {"adapter": Lora(rank=4), "micro_batch": micro}).fit(job, silent)
        losses.append([line["loss"] for line in curves(job.out)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_dev_loss_is_the_mean_over_answer_tokens(trained: Any, tiny_model: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job, _, outcome, _ = trained
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), job.out).eval()
    renderer = _rows.Renderer(AutoTokenizer.from_pretrained(tiny_model), None)
    total, answers = 0.0, 0
    for line in job.dev.read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        made = renderer.row(value["messages"], value["completion"])
        with torch.no_grad():
            logits = model(torch.tensor([made.ids])).logits[0].log_softmax(-1)
        for place in range(made.prompt, len(made.ids)):
            total -= logits[place - 1, made.ids[place]].item()
            answers += 1
    assert outcome.details["dev_loss"] == pytest.approx(total / answers, rel=1e-5)


def test_bfloat16_and_recomputed_activations_train_to_nearly_the_same_loss(tmp_path: Path, tiny_model: Path) -> None:
    losses = {}
    for name, settings in {
        "float32": {},
        "bfloat16": {"dtype": "bfloat16"},
        "recomputed": {"gradient_checkpointing": True},
    }.items():
        job = make_job(tmp_path / name, tiny_model)
        outcome = Sft(**QUICK | {"adapter": Lora(rank=4)} | settings).fit(job, silent)
        assert outcome.details["dtype"] == ("bfloat16" if name == "bfloat16" else "float32")
        losses[name] = [line["loss"] for line in curves(job.out)]
        assert all(str(value.dtype) == "torch.float32" for value in weights(job.out).values())
    assert losses["recomputed"] == pytest.approx(losses["float32"], rel=1e-4)
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.03)
    assert losses["bfloat16"] != losses["float32"]


def test_a_loss_that_breaks_is_an_error_and_leaves_no_artifact(tmp_path: Path, tiny_model: Path) -> None:
    job = make_job(tmp_path / "job", tiny_model)
    broken = {"adapter": Full(), "learning_rate": 1e30, "schedule": "constant"}
    with pytest.raises(ModelError, match=r"training broke at step \d+.*Lower learning_rate"):
        Sft(**QUICK | broken).fit(job, silent)
    assert not (job.out / "artifact.json").exists()


# ------------------------------------------------------------------------------------------ what is reported and left


def test_progress_and_curves_tell_every_step(trained: Any) -> None:
    job, _, outcome, calls = trained
    lines = curves(job.out)
    assert [(line["step"], "dev_loss" in line) for line in lines] == [(step, "dev_loss" in f) for step, _, f in calls]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert {total for _, total, _ in calls} == {12}
    assert set(steps[0]) == {"step", "epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second"}
    assert steps[-1]["epoch"] == 2
    assert all(line["tokens_per_second"] > 0 for line in steps)
    assert [line["step"] for line in lines if "dev_loss" in line] == [3, 6, 9, 12]
    assert (outcome.steps, outcome.trainable_parameters) == (12, sum(v.numel() for v in weights(job.out).values()))


def test_the_artifact_names_its_base_and_no_folder_of_this_machine(trained: Any, tiny_model: Path) -> None:
    job, _, _, _ = trained
    described = json.loads((job.out / "artifact.json").read_text())
    assert described == {"kind": "adapter", "base": models.fingerprint(tiny_model)}
    assert sorted(file.name for file in job.out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "artifact.json",
        "curves.jsonl",
    ]
    assert json.loads((job.out / "adapter_config.json").read_text())["base_model_name_or_path"] == ""
    for file in job.out.iterdir():
        assert str(tiny_model).encode() not in file.read_bytes(), file.name


@pytest.mark.parametrize("adapter", [Lora(rank=16), Full()], ids=["lora", "full"])
def test_the_model_answers_as_it_was_taught(tmp_path: Path, tiny_model: Path, adapter: Any) -> None:
    values = rows(6)
    job = make_job(tmp_path / "job", tiny_model, train=values)
    method = Sft(adapter=adapter, epochs=60, batch_size=6, learning_rate=1e-2, schedule="constant")
    assert method.fit(job, silent).best_step is None
    session = Transformers(id=str(tiny_model), dtype="float32", device="cpu").open()
    asked = [
        Request(messages=(Message("user", value["messages"][0]["content"]),), decoding=Decoding(max_tokens=12))
        for value in values
    ]

    def answers() -> list[str]:
        plan = session.plan(asked)
        found = {}
        for batch in plan.batches:
            for place, reply in zip(batch, session.answer([asked[place] for place in batch], plan), strict=True):
                found[place] = reply.texts[0]
        return [found[place] for place in range(len(asked))]

    taught = [value["completion"] for value in values]
    assert answers() != taught
    session.attach(job.out)
    if isinstance(adapter, Full):
        assert answers() == taught
    else:
        # The tiny model's end of turn is its padding, whose embedding is zero: only whole training can reach it.
        assert all(answer.startswith(text) for answer, text in zip(answers(), taught, strict=True))


# ------------------------------------------------------------------------------------------- seeds, stops and resumes


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    trained: Any, tmp_path: Path, tiny_model: Path
) -> None:
    job, method, _, _ = trained
    for seed in (0, 1):
        again = make_job(tmp_path / str(seed), tiny_model, dev=rows(30)[24:], seed=seed)
        method.fit(again, silent)
        assert same(weights(again.out), weights(job.out)) == (seed == 0)


@pytest.mark.parametrize("step", [1, 5, 6, 9, 12])
def test_a_stopped_training_goes_on_to_the_same_weights(
    trained: Any, tmp_path: Path, tiny_model: Path, step: int
) -> None:
    job, method, outcome, _ = trained
    again = make_job(tmp_path / "job", tiny_model, dev=rows(30)[24:])
    with pytest.raises(KeyboardInterrupt):
        method.fit(again, stop_after(step))
    seen: list[int] = []
    assert method.fit(again, lambda at, steps, figures: seen.append(at)) == outcome
    assert seen == [line["step"] for line in curves(job.out) if line["step"] > step]
    assert same(weights(again.out), weights(job.out))
    named = [[line["step"], line.get("loss"), line.get("dev_loss")] for line in curves(job.out)]
    assert [[line["step"], line.get("loss"), line.get("dev_loss")] for line in curves(again.out)] == named


def test_a_stopped_training_of_the_whole_model_goes_on_to_the_same_weights(tmp_path: Path, tiny_model: Path) -> None:
    method = Sft(**QUICK | {"adapter": Full(), "learning_rate": 1e-3})
    whole, stopped = make_job(tmp_path / "whole", tiny_model), make_job(tmp_path / "stopped", tiny_model)
    method.fit(whole, silent)
    with pytest.raises(KeyboardInterrupt):
        method.fit(stopped, stop_after(4))
    method.fit(stopped, silent)
    assert same(weights(stopped.out), weights(whole.out))


KILLED = """
import os, signal, sys
from pathlib import Path
from conftest import *
from training import make_job, rows
from harness.adapters.lora import Lora
from harness.methods.sft import Sft
import torch
job = make_job(Path(sys.argv[1]), Path(sys.argv[2]), dev=rows(30)[24:])
save = torch.save
def saves(value, file, *args, **kwargs):
    # In the middle of the checkpoint after step 6: the weights are written, the optimizer's file is half.
    if "checkpoint-6" in str(file) and str(file).endswith("optimizer.pt"):
        Path(file).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return save(value, file, *args, **kwargs)
torch.save = saves
Sft.model_validate_json(sys.argv[3]).fit(job, lambda *_: None)
"""


def test_a_training_killed_while_it_writes_a_checkpoint_goes_on_to_the_same_weights(
    trained: Any, tmp_path: Path, tiny_model: Path
) -> None:
    job, method, outcome, _ = trained
    folder = tmp_path / "job"
    tests = str(Path(__file__).resolve().parent.parent)
    table = method.table()
    table.pop("kind")
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(tiny_model), json.dumps(table)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    checkpoints = folder / "work" / "checkpoints"
    assert (checkpoints / "checkpoint-6" / "optimizer.pt").read_bytes() == b"half"
    again = make_job(tmp_path / "again", tiny_model, dev=rows(30)[24:])
    shutil.rmtree(again.work)
    shutil.move(folder / "work", again.work)
    seen: list[int] = []
    assert method.fit(again, lambda at, steps, figures: seen.append(at)) == outcome
    assert 1 < seen[0] <= 6
    assert same(weights(again.out), weights(job.out))


def test_a_finished_training_whose_artifact_was_lost_is_not_run_again(
    trained: Any, tmp_path: Path, tiny_model: Path
) -> None:
    job, method, outcome, _ = trained
    again = make_job(tmp_path / "job", tiny_model, dev=rows(30)[24:])
    shutil.rmtree(again.work)
    shutil.copytree(job.work, again.work)
    seen: list[int] = []
    assert method.fit(again, lambda at, steps, figures: seen.append(at)) == outcome
    assert seen == []
    assert same(weights(again.out), weights(job.out))


def test_training_stops_early_and_keeps_the_best_weights(tmp_path: Path, tiny_model: Path) -> None:
    train = rows(8)
    dev = [value | {"completion": "no"} for value in train]  # What is learnt makes these worse and worse.
    method = Sft(**QUICK | {"epochs": 20, "eval_every": 1, "patience": 2, "learning_rate": 1e-2})
    job = make_job(tmp_path / "job", tiny_model, train=train, dev=dev)
    outcome = method.fit(job, silent)
    losses = {line["step"]: line["dev_loss"] for line in curves(job.out) if "dev_loss" in line}
    assert outcome.details["stopped_early"]
    assert outcome.best_step == min(losses, key=lambda step: losses[step])
    assert outcome.steps == outcome.best_step + 2 < 40
    assert outcome.details["dev_loss"] == losses[outcome.best_step]
    # The kept weights are those of a training that ends at the best step on its way.
    last = make_job(tmp_path / "last", tiny_model, train=train, dev=dev)
    assert method.model_copy(update={"keep_best": False}).fit(last, silent).best_step is None
    assert not same(weights(job.out), weights(last.out))
    # Stopping early holds over an interruption: nothing more is trained.
    shutil.rmtree(job.out)
    assert method.fit(job, lambda *call: pytest.fail("trained on")) == outcome


# ------------------------------------------------------------------------------------------------ stage after stage


def test_without_an_adapter_the_incoming_one_is_trained_on(trained: Any, tmp_path: Path, tiny_model: Path) -> None:
    before, _, _, _ = trained
    job = make_job(tmp_path / "job", tiny_model, incoming=before.out)
    outcome = Sft(epochs=1, batch_size=4, learning_rate=1e-6).fit(job, silent)
    assert json.loads((job.out / "artifact.json").read_text())["kind"] == outcome.details["artifact"] == "adapter"
    one, other = weights(before.out), weights(job.out)
    assert not same(one, other)
    assert all((one[name] - other[name]).abs().max() < 1e-4 for name in one)
    assert Sft(epochs=1).fit(make_job(tmp_path / "own", tiny_model, incoming=before.out), silent).details[
        "learning_rate"
    ] == pytest.approx(2e-4)


def test_with_an_adapter_the_incoming_one_is_merged_first(trained: Any, tmp_path: Path, tiny_model: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    before, _, _, _ = trained
    job = make_job(tmp_path / "job", tiny_model, incoming=before.out)
    outcome = Sft(adapter=Lora(rank=2), epochs=1, learning_rate=1e-7).fit(job, silent)
    assert json.loads((job.out / "artifact.json").read_text()) == {
        "kind": "model",
        "base": models.fingerprint(tiny_model),
    }
    assert outcome.trainable_parameters < sum(value.numel() for value in weights(before.out).values())
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), before.out).eval()
        merged = AutoModelForCausalLM.from_pretrained(job.out).eval()
        bare = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
        torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, rtol=1e-3, atol=1e-3)
        assert (bare(ids).logits - adapted(ids).logits).abs().max() > 0.1
    # A whole model that comes in is trained on, as a whole.
    for file in job.out.iterdir():
        assert str(tiny_model.parent).encode() not in file.read_bytes(), file.name
    third = make_job(tmp_path / "third", tiny_model, incoming=job.out)
    outcome = Sft(epochs=1, learning_rate=1e-7).fit(third, silent)
    assert outcome.details["artifact"] == "model"
    assert outcome.trainable_parameters == bare.num_parameters()
    one, other = weights(job.out), weights(third.out)
    assert all((one[name] - other[name]).abs().max() < 1e-4 for name in one)


def test_an_artifact_of_another_model_is_refused(trained: Any, tmp_path: Path) -> None:
    before, _, _, _ = trained
    other = make_tiny_model(tmp_path / "other", seed=7)
    job = make_job(tmp_path / "job", other, incoming=before.out)
    with pytest.raises(ModelError, match="was trained on another model"):
        Sft(**QUICK).fit(job, silent)
    foreign = tmp_path / "foreign"
    shutil.copytree(before.out, foreign)
    (foreign / "artifact.json").unlink()
    narrow = make_tiny_model(tmp_path / "narrow", layers=1)
    with pytest.raises(ModelError, match="does not fit model"):
        Sft(epochs=1).fit(make_job(tmp_path / "narrower", narrow, incoming=foreign), silent)


def test_damaged_weights_are_a_model_error(trained: Any, tmp_path: Path, tiny_model: Path) -> None:
    before, _, _, _ = trained
    adapter = shutil.copytree(before.out, tmp_path / "adapter")
    model = shutil.copytree(tiny_model, tmp_path / "model")
    for folder, name in ((adapter, "adapter_model.safetensors"), (model, "model.safetensors")):
        (folder / name).write_bytes((folder / name).read_bytes()[:-50])
    with pytest.raises(ModelError, match="is damaged or cannot be read"):
        Sft(epochs=1).fit(make_job(tmp_path / "one", tiny_model, incoming=adapter), silent)
    with pytest.raises(ModelError, match="cannot be loaded"):
        Sft(**QUICK).fit(make_job(tmp_path / "two", model), silent)


@pytest.mark.parametrize("missing", ["peft", "trl", "transformers", "torch", "datasets"])
def test_without_a_package_the_extra_to_install_is_named(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for inner in ("_model", "_following", "_trainer"):
        monkeypatch.delitem(sys.modules, f"harness.methods.{inner}", raising=False)
        monkeypatch.delattr(f"harness.methods.{inner}", raising=False)
    with pytest.raises(ModelError, match=rf"{missing}.*pip install -e '\.\[train\]'"):
        Sft(**QUICK).fit(make_job(tmp_path / "job", tiny_model), silent)


# -------------------------------------------------------------------------------------------------------- settings


def test_learning_rate_and_steps_follow_from_the_settings(tmp_path: Path, tiny_model: Path) -> None:
    seen: dict[str, Mapping[str, float]] = {}

    def first(name: str, settings: dict[str, Any]) -> Any:
        job = make_job(tmp_path / name, tiny_model)

        def progress(step: int, steps: int, figures: Mapping[str, float]) -> None:
            seen[name] = dict(figures) | {"steps": steps}
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Sft(warmup=0, **settings).fit(job, progress)

    first("lora", {"adapter": {"kind": "lora"}, "epochs": 0.5})
    first("full", {"adapter": "full", "max_steps": 2})
    first("none", {"batch_size": 5, "max_steps": 1000})
    assert [seen[name]["learning_rate"] for name in ("lora", "full", "none")] == pytest.approx([2e-4, 2e-5, 2e-5])
    assert [seen[name]["steps"] for name in ("lora", "full", "none")] == [2, 2, 15]


@pytest.mark.parametrize(
    ("every", "steps"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6, 7]), (1.0, [4, 7]), (0.5, [2, 4, 6, 7]), (9.0, [7])]
)
def test_dev_is_measured_every_so_many_steps_or_epochs(every: float, steps: list[int]) -> None:
    method = Sft(eval_every=every)
    assert type(
        Sft.model_validate(json.loads(json.dumps(method.eval_every and {"eval_every": every}))).eval_every
    ) is type(every)
    assert sorted(method._evaluations(7, 4)) == steps


@pytest.mark.parametrize(
    "settings", [{"epochs": 0}, {"batch_size": 0}, {"eval_every": 0}, {"warmup": 1}, {"dtype": "float16"}, {"rank": 4}]
)
def test_settings_without_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Sft(**settings)


@pytest.mark.parametrize(("batch", "micro", "next"), [(8, None, 4), (8, 4, 2), (6, None, 3), (6, 3, 1), (8, 1, None)])
def test_without_memory_fewer_rows_are_computed_at_once(batch: int, micro: int | None, next: int | None) -> None:
    fewer = Sft(batch_size=batch, micro_batch=micro).fewer_at_once()
    assert (fewer and (fewer.batch_size, fewer.micro_batch)) == (next and (batch, next))


def test_what_changes_no_weights_stays_out_of_the_artifacts_name() -> None:
    one, other = Sft(name="a", checkpoint_every=5), Sft()
    assert one.settings(built=True) == other.settings(built=True)
    assert Sft(epochs=4).settings(built=True) != other.settings(built=True)


@pytest.mark.slow
def test_the_built_in_model_learns_from_whole_weights_and_from_an_adapter(tmp_path: Path, builtin_model: Path) -> None:
    for name, adapter in (("full", Full()), ("lora", Lora())):
        job = make_job(tmp_path / name, builtin_model, train=rows(8))
        Sft(adapter=adapter, epochs=3, batch_size=4).fit(job, silent)
        losses = [line["loss"] for line in curves(job.out)]
        assert losses[-1] < 0.6 * losses[0], name


# ---------------------------------------------------------------------------------------- a metric on answers to dev


def dev_rows(count: int) -> list[dict[str, Any]]:
    """Rows as a training step writes them, with the examples behind them."""
    return [
        value | {"example": {"id": value["id"], "input": value["messages"][0]["content"], "targets": ["2 years"]}}
        for value in (row(n, f"how long is the warranty of kettle {n}?", "2 years") for n in range(count))
    ]


def by_metric(folder: Path, model: Path, **settings: Any) -> tuple[Any, list[dict[str, float]]]:
    """Train rows that all have one answer until the metric on dev no longer rises."""
    kind, name = settings.pop("kind", "token_f1"), settings.pop("name", "token_f1")
    job = make_job(folder, model, train=dev_rows(16), dev=dev_rows(4))
    job = replace(job, references={name: {"metric": {"kind": kind}}})
    method = Sft(**QUICK | {"metric": name, "metric_tokens": 8, "epochs": 12, "eval_every": 4, **settings})
    outcome = method.fit(job, silent)
    return outcome, [line for line in curves(job.out) if f"dev_{name}" in line]


def test_training_stops_when_a_metric_of_generated_answers_no_longer_rises(tmp_path: Path, tiny_model: Path) -> None:
    outcome, measured = by_metric(tmp_path / "job", tiny_model, learning_rate=2e-2, patience=2)
    values = [line["dev_token_f1"] for line in measured]
    assert max(values) > values[0]
    best = next(line["step"] for line in measured if line["dev_token_f1"] == max(values))
    assert outcome.best_step == best
    assert outcome.details["dev_token_f1"] == max(values)
    assert outcome.details["stopped_early"]
    assert outcome.steps == best + 2 * 4, "two more evaluations brought nothing better"


def test_of_a_metric_that_should_be_low_the_lowest_is_the_best(tmp_path: Path, tiny_model: Path) -> None:
    outcome, measured = by_metric(tmp_path / "job", tiny_model, kind="length", name="length_words", epochs=4)
    values = {line["step"]: line["dev_length_words"] for line in measured}
    assert outcome.details["dev_length_words"] == values[outcome.best_step] == min(values.values())


def test_a_metric_without_dev_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    job = replace(make_job(tmp_path / "job", tiny_model), references={"token_f1": {"metric": {"kind": "token_f1"}}})
    with pytest.raises(DataError, match=r"sft: metric = 'token_f1' is measured on the dev examples .* no dev split"):
        Sft(**QUICK, metric="token_f1").fit(job, silent)


def test_a_training_that_diverges_stops_with_what_to_do(tmp_path: Path, tiny_model: Path) -> None:
    method = Sft(
        adapter=Full(), learning_rate=1.0, batch_size=4, max_steps=60, epochs=100, max_grad_norm=1e6, warmup=0.9
    )
    said = r"training diverged: over the 10 steps up to step \d+ .* Lower learning_rate"
    job = make_job(tmp_path / "job", tiny_model)
    with pytest.raises(ModelError, match=said) as caught:
        method.fit(job, silent)
    assert 20 <= len((job.work / "curves.jsonl").read_text().splitlines()) < 60
    stopped = make_job(tmp_path / "stopped", tiny_model)
    with pytest.raises(KeyboardInterrupt):
        method.fit(stopped, stop_after(15))
    with pytest.raises(ModelError, match=said) as again:
        method.fit(stopped, silent)
    assert str(again.value) == str(caught.value), "what was before the interruption counts"
