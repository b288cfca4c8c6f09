"""What ppo, grpo and rloo share, on a tiny random model."""

from __future__ import annotations

import inspect
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError
from rewarding import REWARD, asked, reward_model, rewarded_job
from training import curves, row, same, silent, stop_after, weights

from harness.adapters.full import Full
from harness.adapters.lora import Lora
from harness.errors import DataError, ModelError
from harness.methods.grpo import Grpo
from harness.methods.ppo import Ppo
from harness.methods.rloo import Rloo
from harness.plugins import Adapter, TrainJob
from harness.records import Example

LORA = Lora(rank=4, dropout=0.1)
SHARED: dict[str, Any] = {
    "reward": REWARD, "adapter": LORA, "learning_rate": 2e-3, "max_tokens": 4, "batch_size": 4, "eval_every": 4,
    "checkpoint_every": 3, "epochs": 2,
}  # fmt: skip
# Each is eight steps on eight prompts. Those of ppo come in rounds of four; those of grpo two by two on the same
# answers, so that stopping in the middle of them has to keep the answers.
QUICK: dict[str, Any] = {
    "ppo": Ppo(**SHARED | {"rollouts": 8, "rollout_epochs": 2, "kl_gain": 2}),
    "grpo": Grpo(**SHARED | {"num_generations": 2, "num_iterations": 2, "micro_batch": 2, "epochs": 1}),
    "rloo": Rloo(**SHARED | {"num_generations": 2, "micro_batch": 4}),
}
KINDS = pytest.mark.parametrize("kind", QUICK)
ADAPTED = {"learning_rate": 3e-3, "schedule": "constant", "warmup": 0, "adapter": Full(), "max_tokens": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    """One training of each kind: its job, and what was reported."""
    found = {}
    for kind, method in QUICK.items():
        job = rewarded_job(tmp_path_factory.mktemp(kind) / "job", tiny_model, dev=asked(4, 8))
        found[kind] = job, method.fit(job, silent)
    return found


# -------------------------------------------------------------------------------------------------------- learning


LEARNERS: dict[str, Any] = {
    "ppo": Ppo(**SHARED | ADAPTED | {"rollouts": 32, "batch_size": 32, "kl_coef": 0.01, "epochs": 20}),
    "grpo": Grpo(**SHARED | ADAPTED | {"batch_size": 64, "epochs": 10, "beta": 0.001}),
    "rloo": Rloo(**SHARED | ADAPTED | {"batch_size": 64, "num_generations": 8, "epochs": 12, "beta": 0.001}),
}


@KINDS
def test_the_mean_reward_rises_over_its_start_on_prompts_that_were_not_trained_on(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    method = LEARNERS[kind].model_copy(update={"eval_every": 100, "keep_best": False, "max_steps": 40})
    job = rewarded_job(tmp_path / "job", tiny_model, dev=asked(48, 8))
    outcome = method.fit(job, silent)
    details = outcome.details
    assert details["reward_after"] > details["reward_before"] + 0.12
    found = [line["reward"] for line in curves(job.out) if "reward" in line]
    assert sum(found[-2:]) > sum(found[:2]) + 0.2
    assert details["kl"] > 0.1
    assert details["dev_answers"] == "sampled at temperature 1"
    assert details["dev_prompts"] == 48


@KINDS
def test_what_was_measured_is_reported_and_followed(trained: Any, kind: str) -> None:
    job, outcome = trained[kind]
    lines = curves(job.out)
    measured = {line["step"]: line for line in lines if "dev_reward" in line}
    assert sorted(measured) == [0, 4, 8], "dev is measured before the first step as well"
    assert measured[0]["dev_kl"] == pytest.approx(0, abs=1e-6)
    assert measured[8]["dev_kl"] > 0
    details = outcome.details
    assert outcome.best_step == max((4, 8), key=lambda step: measured[step]["dev_reward"])
    kept = measured[outcome.best_step]
    assert details["reward_before"] == measured[0]["dev_reward"]
    assert details["reward_after"] == kept["dev_reward"]
    assert details["kl"] == kept["dev_kl"]
    assert details["answer_tokens_before"] == measured[0]["dev_answer_tokens"]
    assert details["answer_tokens_after"] == kept["dev_answer_tokens"]
    assert details["ended_before"] == measured[0]["dev_ended"]
    assert details["ended_after"] == kept["dev_ended"]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 9))
    for name in ("loss", "learning_rate", "grad_norm", "entropy", "clip_fraction"):
        assert all(math.isfinite(line[name]) for line in steps), name
    for name in ("reward", "kl", "answer_tokens", "ended"):
        assert any(name in line for line in steps), name
    assert outcome.steps == 8
    assert outcome.tokens > 0


@KINDS
def test_the_steps_that_are_foretold_are_those_that_are_taken(trained: Any, kind: str) -> None:
    assert QUICK[kind].total_steps(8) == trained[kind][1].steps == 8


@KINDS
def test_a_metric_may_choose_the_best_weights_in_place_of_the_reward(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    metric = {"metric:length": {"metric": {"kind": "length", "of": "characters"}}}
    method = QUICK[kind].model_copy(update={"metric": "metric:length", "eval_every": 1, "max_steps": 3})
    job = rewarded_job(tmp_path / "job", tiny_model, dev=asked(4, 8), references=metric)
    outcome = method.fit(job, silent)
    name = "dev_length_characters"
    lengths = {line["step"]: line[name] for line in curves(job.out) if name in line}
    assert sorted(lengths) == [0, 1, 2, 3]
    assert outcome.best_step == min((1, 2, 3), key=lambda step: lengths[step])
    assert outcome.details["reward_after"] is not None


@KINDS
def test_frozen_weights_do_not_move(trained: Any, tmp_path: Path, tiny_model: Path, kind: str) -> None:
    from safetensors.torch import load_file

    job, _ = trained[kind]
    assert all(".lora_" in name for name in weights(job.out))
    assert json.loads((job.out / "artifact.json").read_text())["kind"] == "adapter"
    assert sorted(one.name for one in job.out.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "artifact.json", "curves.jsonl",
    ]  # fmt: skip
    # The incoming adapter is merged and then frozen; what is written holds the new one merged as well. With an adapter
    # on one layer, all the other weights have to be those of the merged model in every digit.
    one = Lora(rank=2, targets=("layers.1.mlp.down_proj",))
    method = QUICK[kind].model_copy(update={"adapter": one, "max_steps": 2})
    after = rewarded_job(tmp_path / "after", tiny_model, incoming=job.out)
    method.fit(after, silent)
    merged, written = merge(tiny_model, job.out), load_file(after.out / "model.safetensors")
    moved = [name for name in written if not torch_equal(written[name], merged[name])]
    assert moved == ["model.layers.1.mlp.down_proj.weight"]


def merge(model: Path, adapter: Path) -> dict[str, Any]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), adapter)
        return dict(loaded.merge_and_unload().state_dict())


def torch_equal(one: Any, other: Any) -> bool:
    import torch

    return torch.equal(one, other)


# -------------------------------------------------------------------------------------------- seeds, stops and resumes


@KINDS
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    trained: Any, tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    job, outcome = trained[kind]
    for seed in (0, 1):
        again = rewarded_job(tmp_path / str(seed), tiny_model, dev=asked(4, 8), seed=seed)
        assert (QUICK[kind].fit(again, silent) == outcome) == (seed == 0)
        assert same(weights(again.out), weights(job.out)) == (seed == 0)


@KINDS
@pytest.mark.parametrize("step", [0, 3, 5, 8])
def test_a_stopped_training_goes_on_to_the_same_weights(
    trained: Any, tmp_path: Path, tiny_model: Path, kind: str, step: int
) -> None:
    job, outcome = trained[kind]
    again = rewarded_job(tmp_path / "job", tiny_model, dev=asked(4, 8))
    with pytest.raises(KeyboardInterrupt):
        QUICK[kind].fit(again, stop_after(step))
    assert QUICK[kind].fit(again, silent) == outcome
    assert same(weights(again.out), weights(job.out))

    def told(one: TrainJob) -> list[dict[str, float]]:
        return [
            {name: value for name, value in line.items() if name != "tokens_per_second"} for line in curves(one.out)
        ]

    assert told(again) == told(job)


KILLED = """
import os, signal, sys
from pathlib import Path
from conftest import *
from rewarding import asked, rewarded_job
from harness.plugins import find
import json, torch
kind, settings = sys.argv[3], json.loads(sys.argv[4])
settings.pop("kind")
job = rewarded_job(Path(sys.argv[1]), Path(sys.argv[2]), dev=asked(4, 8))
save = torch.save
def saves(value, file, *args, **kwargs):
    # In the middle of the checkpoint after step 6: the optimizer's file is half.
    if "checkpoint-6" in str(file) and str(file).endswith("optimizer.pt"):
        Path(file).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return save(value, file, *args, **kwargs)
torch.save = saves
find("methods", kind).model_validate(settings).fit(job, lambda *_: None)
"""


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_a_training_killed_while_it_writes_a_checkpoint_goes_on_to_the_same_weights(
    trained: Any, tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    job, outcome = trained[kind]
    folder = tmp_path / "job"
    tests = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), str(tiny_model), kind, json.dumps(QUICK[kind].table())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = rewarded_job(tmp_path / "again", tiny_model, dev=asked(4, 8))
    shutil.rmtree(again.work)
    shutil.move(folder / "work", again.work)
    seen: list[int] = []
    assert QUICK[kind].fit(again, lambda at, steps, figures: seen.append(at)) == outcome
    assert min(seen) > 3, "the checkpoint before the broken one is gone on from"
    assert same(weights(again.out), weights(job.out))


@KINDS
def test_a_training_that_breaks_says_so(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    method = QUICK[kind].model_copy(update={"learning_rate": 1e30, "warmup": 0.0})
    with pytest.raises(ModelError, match=r"training broke.*Lower learning_rate"):
        method.fit(rewarded_job(tmp_path / "job", tiny_model), silent)


# --------------------------------------------------------------------------------------------------- the reference


@KINDS
def test_the_reference_is_the_policy_as_the_stage_received_it(
    trained: Any, tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    """An incoming adapter that is trained on starts at a divergence of zero from itself, not from the base."""
    before, _ = trained[kind]
    job = rewarded_job(tmp_path / "job", tiny_model, incoming=before.out, dev=asked(4, 8))
    QUICK[kind].model_copy(update={"adapter": None, "max_steps": 1}).fit(job, silent)
    first = curves(job.out)[0]
    assert (first["step"], first["dev_kl"]) == (0, pytest.approx(0, abs=1e-6))
    assert first["dev_reward"] == QUICK[kind].fit(
        rewarded_job(tmp_path / "on", tiny_model, incoming=before.out, dev=asked(4, 8)), silent
    ).details["reward_before"], "merged or trained on, the stage starts from the same policy"  # fmt: skip


# ----------------------------------------------------------------------------------------------- prompts and rewards


@KINDS
def test_there_is_no_way_for_held_out_data(kind: str) -> None:
    assert [field.name for field in fields(TrainJob)] == [
        "train", "dev", "model", "incoming", "out", "work", "seed", "references", "dev_examples",
    ]  # fmt: skip
    assert list(inspect.signature(type(QUICK[kind]).fit).parameters) == ["self", "job", "progress"]


@KINDS
def test_prompts_of_preferences_are_answered_each_once(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    pairs = [
        {"id": f"p{n}", "messages": row(n, f"how long {n // 2}?", "")["messages"], "chosen": "a", "rejected": "b"}
        for n in range(8)
    ]
    method = QUICK[kind].model_copy(update={"prompts": "preferences", "max_steps": 1})
    assert method.reads == "preferences"
    assert QUICK[kind].reads == "examples"
    job = rewarded_job(tmp_path / "job", tiny_model, train=pairs)
    outcome = method.fit(job, silent)
    assert outcome.details["prompts"] == 4
    references = {REWARD: {"metric": {"kind": "exact_match"}}}
    with pytest.raises(DataError, match=r"train\.jsonl: the reward metric:letters speaks of none of the 4 prompts"):
        method.fit(rewarded_job(tmp_path / "other", tiny_model, train=pairs, references=references), silent)


@KINDS
def test_a_reward_model_rewards_beside_a_metric(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    references = {"marks": {"artifact": str(reward_model(tmp_path / "rm", tiny_model))}}
    update = {"reward": ("marks", REWARD), "reward_weights": (0.5, 2.0), "max_steps": 1}
    method = QUICK[kind].model_copy(update=update)
    outcome = method.fit(rewarded_job(tmp_path / "job", tiny_model, references=references), silent)
    assert outcome.steps == 1


@KINDS
def test_prompts_that_leave_no_room_are_left_out_and_counted(tmp_path: Path, tiny_model: Path, kind: str) -> None:
    values = asked(4)
    values[1]["messages"][0]["content"] = "how long " * 60
    method = QUICK[kind].model_copy(update={"max_length": 100, "max_steps": 1})
    outcome = method.fit(rewarded_job(tmp_path / "job", tiny_model, train=values), silent)
    assert (outcome.details["prompts"], outcome.details["prompts_too_long"]) == (3, 1)
    with pytest.raises(DataError, match=r"every prompt has more than 4 tokens"):
        method.model_copy(update={"max_length": 8}).fit(rewarded_job(tmp_path / "none", tiny_model), silent)
    with pytest.raises(DataError, match="max_tokens is 4, and prompt and answer together have 4 tokens"):
        method.model_copy(update={"max_length": 4}).fit(rewarded_job(tmp_path / "no", tiny_model), silent)
    with pytest.raises(DataError, match="holds no prompts"):
        method.fit(rewarded_job(tmp_path / "empty", tiny_model, train=[]), silent)


# -------------------------------------------------------------------------------------------------------- settings


class Foreign(Adapter):
    trl: ClassVar[bool] = False

    def wrap(self, model: Any) -> Any:
        return model


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        (Grpo, {"batch_size": 12}, r"batch_size \(12\) counts answers and must be a multiple of num_generations \(8\)"),
        (Rloo, {"batch_size": 6}, r"batch_size \(6\) counts answers and must be a multiple of num_generations \(4\)"),
        (Ppo, {"rollouts": 12}, r"rollouts \(12\) must be a multiple of batch_size \(8\)"),
        (Ppo, {"reward": ()}, "name at least one reward"),
        (Grpo, {"reward_weights": (1.0, 2.0)}, "1 rewards and 2 reward_weights: one each"),
        (Grpo, {"adapter": Foreign()}, "TRL's trainer for grpo cannot train the adapter"),
        (Rloo, {"adapter": Foreign()}, "TRL's trainer for rloo cannot train the adapter"),
        (Ppo, {"kl_gain": 5}, "less than 5"),
        (Ppo, {"temperature": 0}, "greater than 0"),
        (Grpo, {"num_generations": 1}, "greater than or equal to 2"),
    ],
)
def test_settings_without_sense_are_refused(method: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        method(**{"reward": REWARD} | settings)


def test_an_adapter_that_trl_cannot_train_is_fine_where_trl_does_not() -> None:
    assert Ppo(reward=REWARD, adapter=Foreign()).adapter == Foreign()


def test_one_reward_is_written_as_a_text_and_several_as_a_list() -> None:
    assert Grpo(reward="marks").references() == {"reward": ("marks",)}
    assert Grpo(reward=["marks", REWARD]).references() == {"reward": ("marks", REWARD)}
    assert Example(id="a", input="b").targets == ()
