"""What all stages that learn from preferences have in common."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny_model
from pydantic import ValidationError
from rewarding import asked
from training import curves, make_job, preferences, same, silent, stop_after, thumbs, weights, write

from harness.adapters.full import Full
from harness.adapters.llama_adapter import LlamaAdapter
from harness.adapters.lora import Lora
from harness.adapters.prefix import Prefix
from harness.adapters.prompt import Prompt
from harness.errors import DataError, ModelError
from harness.methods import _preferences
from harness.methods._gradient import Gradient
from harness.methods._rows import Renderer
from harness.methods.dpo import Dpo
from harness.methods.kto import Kto
from harness.methods.orpo import Orpo
from harness.methods.reward import Reward
from harness.methods.sft import Sft
from harness.methods.simpo import Simpo

METHODS: list[type[Gradient]] = [Dpo, Kto, Orpo, Simpo, Reward]
QUICK: dict[str, Any] = {"adapter": Lora(rank=4), "learning_rate": 5e-3, "epochs": 2, "batch_size": 4, "warmup": 0.0}
DEV = preferences(4, start=40)

Make = Callable[[type[Gradient]], Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Make:
    """One training of each method: the job, the method, what was reported, and how far each frozen weight moved."""
    known: dict[type[Gradient], Any] = {}

    def make(cls: type[Gradient]) -> Any:
        if cls not in known:
            job = make_job(tmp_path_factory.mktemp(cls.__name__) / "job", tiny_model, train=preferences(), dev=DEV)
            # Kto's rows are answers, not pairs.
            method = cls(**QUICK | {"checkpoint_every": 2, "batch_size": 8 if cls is Kto else 4})
            known[cls] = (job, method, *watched(method, job, tiny_model))
        return known[cls]

    return make


def watched(method: Gradient, job: Any, tiny_model: Path) -> tuple[Any, dict[str, bool]]:
    """Train, and tell for each frozen weight whether it is digit for digit that of the model's own file."""
    from safetensors.torch import load_file

    moved: dict[str, bool] = {}
    own = load_file(tiny_model / "model.safetensors")
    save = type(method).save

    def look(self: Gradient, job: Any, policy: Any, dtype: str) -> None:
        for name, weight in policy.model.named_parameters():
            if not weight.requires_grad:
                bare = name.removeprefix("base_model.model.").replace(".base_layer", "")
                moved[bare] = not bool((weight == own[bare]).all())
        save(self, job, policy, dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(method), "save", look)
        return method.fit(job, silent), moved


@pytest.mark.parametrize("cls", METHODS)
def test_what_a_stage_optimises_improves_and_frozen_weights_stay(trained: Make, cls: type[Gradient]) -> None:
    job, _, outcome, moved = trained(cls)
    lines = curves(job.out)
    losses = [line["loss"] for line in lines if "loss" in line]
    dev = {line["step"]: line for line in lines if "dev_loss" in line}
    assert losses[-1] < 0.9 * losses[0]
    first, last = (dev[step] for step in (min(dev), max(dev)))
    assert last["dev_loss"] < first["dev_loss"]
    assert last["dev_margin"] > first["dev_margin"]
    assert outcome.details["dev_accuracy"] == last["dev_accuracy"]
    assert cls is Orpo or last["dev_accuracy"] >= 0.75  # Orpo imitates first and contrasts little.
    assert outcome.details["dev_margin"] == last["dev_margin"]
    assert outcome.details["dev_loss"] == last["dev_loss"]
    assert len(moved) > 15
    assert not any(moved.values())


@pytest.mark.parametrize("cls", METHODS)
def test_curves_tell_rewards_and_speed_and_the_job_counts_its_rows(trained: Make, cls: type[Gradient]) -> None:
    job, method, outcome, _ = trained(cls)
    steps = [line for line in curves(job.out) if "loss" in line]
    assert {"loss", "learning_rate", "grad_norm", "accuracy", "margin", "tokens_per_second"} <= set(steps[-1])
    assert len(steps) == outcome.steps == 6
    counts = {name: outcome.details[f"train_{name}"] for name in ("rows", "thumbs", "cut", "dropped")}
    assert counts == {"rows": 12, "thumbs": 0, "cut": 0, "dropped": 0}
    assert outcome.details["dev_rows"] == 4
    from transformers import AutoTokenizer

    renderer = Renderer(AutoTokenizer.from_pretrained(job.model["id"]), None)
    found, _ = _preferences.pairs(job.train, renderer, 512)
    assert outcome.tokens == method.epochs * sum(pair.tokens for pair in found)


@pytest.mark.parametrize("cls", METHODS)
def test_a_stopped_training_goes_on_to_the_same_weights(
    trained: Make, tmp_path: Path, tiny_model: Path, cls: type[Gradient]
) -> None:
    job, method, outcome, _ = trained(cls)
    again = make_job(tmp_path / "again", tiny_model, train=preferences(), dev=DEV)
    with pytest.raises(KeyboardInterrupt):
        method.fit(again, stop_after(3))
    assert method.fit(again, silent) == outcome
    assert same(weights(again.out), weights(job.out))


@pytest.mark.parametrize("cls", [Dpo, Reward])
def test_one_seed_gives_the_same_weights_and_another_others(
    tmp_path: Path, tiny_model: Path, cls: type[Gradient]
) -> None:
    found = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        job = make_job(tmp_path / name, tiny_model, train=preferences(6), seed=seed)
        cls(**QUICK | {"max_steps": 2}).fit(job, silent)
        found.append(weights(job.out))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


@pytest.mark.parametrize("cls", [Dpo, Kto, Orpo, Reward])
def test_a_smaller_micro_batch_changes_a_step_by_rounding_only(
    trained: Make, tmp_path: Path, tiny_model: Path, cls: type[Gradient]
) -> None:
    job, method, _, _ = trained(cls)
    again = make_job(tmp_path / "again", tiny_model, train=preferences())
    method.model_copy(update={"micro_batch": 1, "max_steps": 1}).fit(again, silent)
    whole, parts = ([line for line in curves(one.out) if "loss" in line] for one in (job, again))
    for name in ("loss", "grad_norm", "margin"):
        assert parts[0][name] == pytest.approx(whole[0][name], rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("cls", [Dpo, Orpo, Reward])
def test_a_training_that_breaks_says_where_and_what_to_do(
    tmp_path: Path, tiny_model: Path, cls: type[Gradient]
) -> None:
    job = make_job(tmp_path / "job", tiny_model, train=preferences(8))
    with pytest.raises(ModelError, match=r"training broke at step \d: \w+ became \w+ .*Lower learning_rate"):
        cls(**QUICK | {"adapter": Full(), "learning_rate": 1e30}).fit(job, silent)


# ------------------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("cls", [Dpo, Orpo, Simpo, Reward])
def test_thumbs_are_left_out_and_counted_and_alone_they_are_refused(
    tmp_path: Path, tiny_model: Path, cls: type[Gradient]
) -> None:
    method = cls(**QUICK | {"max_steps": 1})
    only = make_job(tmp_path / "only", tiny_model, train=thumbs(3, good=True))
    with pytest.raises(DataError, match=r"none of the 3 preferences is a pair.*kto alone.*chosen.*rejected"):
        method.fit(only, silent)
    if cls is Dpo:
        dev = make_job(tmp_path / "dev", tiny_model, train=preferences(2), dev=thumbs(2, good=False))
        with pytest.raises(DataError, match=r"kept from training .*dev.jsonl: none of the 2.*preferences_dev"):
            method.fit(dev, silent)
        some = make_job(tmp_path / "some", tiny_model, train=[*preferences(3), *thumbs(2, good=False, start=9)])
        details = method.fit(some, silent).details
        assert (details["train_rows"], details["train_thumbs"]) == (5, 2)


@pytest.mark.parametrize("cls", METHODS)
def test_an_empty_file_is_refused(tmp_path: Path, tiny_model: Path, cls: type[Gradient]) -> None:
    with pytest.raises(DataError, match=r"train.jsonl holds no preferences"):
        cls(**QUICK).fit(make_job(tmp_path / "job", tiny_model, train=[]), silent)


def long(value: Mapping[str, Any], name: str, letters: int) -> dict[str, Any]:
    return {**value, name: "?" * letters}


def test_answers_that_the_limit_cuts_are_counted_and_pairs_without_a_difference_left_out(
    tmp_path: Path, tiny_model: Path
) -> None:
    from transformers import AutoTokenizer

    renderer = Renderer(AutoTokenizer.from_pretrained(tiny_model), None)
    values = preferences(4)
    values[1] = long(values[1], "rejected", 200)
    values[2] = {**values[2], "chosen": "?" * 200, "rejected": "?" * 190}
    values[3] = long(values[3] | {"messages": [{"role": "user", "content": "!" * 200}]}, "chosen", 3)
    file = make_job(tmp_path / "job", tiny_model, train=values).train
    found, tally = _preferences.pairs(file, renderer, 100)
    assert len(found) == 2
    lost = len(renderer.row(values[1]["messages"], "?" * 200).ids) - 100
    assert tally == _preferences.Tally(rows=4, cut=1, dropped=2, lost_answer_tokens=lost)
    assert len(found[1].rejected.ids) == 100
    found, tally = _preferences.pairs(file, renderer, 100, cut=False)
    assert (len(found), tally.dropped, tally.cut) == (1, 3, 0)
    with pytest.raises(DataError, match=r"no pair is left, since 20 tokens .* 4 pairs apart. Raise max_length"):
        _preferences.pairs(file, renderer, 20)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("template", ["own", "other", "none"])
def test_prompts_are_the_token_ids_that_the_model_is_asked_with(tmp_path: Path, template: str) -> None:
    from harness.backends.transformers import Transformers, TransformersSession
    from harness.records import Message

    path = make_tiny_model(tmp_path / "m", **({"template": None} if template == "none" else {}))
    other = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}" if template == "other" else None
    session = Transformers(id=str(path), dtype="float32", device="cpu", chat_template=other).open()
    assert isinstance(session, TransformersSession)
    value = preferences(1)[0] | {"messages": [{"role": "user", "content": "how  long?\n\nyears?"}]}
    job = make_job(tmp_path / "job", path, train=[value], chat_template=other)
    method = Dpo(**QUICK)
    policy = method.load(job, "float32")
    read = method.read(job, policy, _preferences.pairs)
    asked = session.chat.prompts([(Message("user", "how  long?\n\nyears?"),)])[0]
    for row, answer in ((read.train[0].chosen, value["chosen"]), (read.train[0].rejected, value["rejected"])):
        assert list(row.ids[: row.prompt]) == asked
        assert session.tokenizer.decode(row.ids[row.prompt : -1]) == answer
        assert row.ids[-1] in session._ends
    trainer = method.ready(job, policy, "float32").trainer
    batch = trainer.collate(read.train)
    for place, row in enumerate((read.train[0].chosen, read.train[0].rejected)):
        assert batch["input_ids"][place][batch["attention_mask"][place].bool()].tolist() == list(row.ids)
        answer = row.ids[row.prompt :]
        assert batch["input_ids"][place][batch["completion_mask"][place].bool()].tolist() == list(answer)


# -------------------------------------------------------------------------------------------------------- settings


def test_learning_rates_are_those_that_the_methods_were_published_with() -> None:
    policy: Any = None  # With an adapter the rate is a matter of the settings alone.
    found = {
        (cls, adapter.kind): cls(adapter=adapter)._learning_rate(policy)
        for cls in METHODS
        for adapter in (Lora(rank=2), Full())
    }
    assert {name: pytest.approx(value) for name, value in found.items()} == {
        (Dpo, "lora"): 1e-5,
        (Dpo, "full"): 1e-6,
        (Kto, "lora"): 1e-5,
        (Kto, "full"): 1e-6,
        (Orpo, "lora"): 8e-5,
        (Orpo, "full"): 8e-6,
        (Simpo, "lora"): 1e-5,
        (Simpo, "full"): 1e-6,
        (Reward, "lora"): 2e-4,
        (Reward, "full"): 2e-5,
    }


@pytest.mark.parametrize("cls", METHODS)
def test_adapters_that_cannot_be_trained_are_refused_with_the_reason(cls: type[Gradient]) -> None:
    said = "cannot be merged into the model's layers" if cls is Reward else "cannot train the adapter"
    with pytest.raises(ValidationError, match=said):
        cls(adapter=LlamaAdapter())
    with pytest.raises(ValidationError, match="an adapter on lm_head would never be trained"):
        cls(adapter=Lora(targets=("lm_head",)))
    if cls is not Reward:
        assert cls(adapter=Prefix()).adapter == Prefix()
        with pytest.raises(ValidationError, match="cannot be trained with gradient_checkpointing"):
            cls(adapter=Prefix(), gradient_checkpointing=True)


def test_rows_are_preferences_and_a_reward_model_changes_no_answers() -> None:
    assert {cls().reads for cls in METHODS} == {"preferences"}
    assert [cls.makes for cls in METHODS] == ["policy"] * 4 + ["reward"]


def test_activations_may_be_computed_again(trained: Make, tmp_path: Path, tiny_model: Path) -> None:
    for cls in (Dpo, Reward):
        job, method, _, _ = trained(cls)
        again = make_job(tmp_path / cls.__name__, tiny_model, train=preferences())
        method.model_copy(update={"gradient_checkpointing": True, "max_steps": 1}).fit(again, silent)
        assert curves(again.out)[0]["grad_norm"] == pytest.approx(curves(job.out)[0]["grad_norm"], rel=1e-4)


@pytest.mark.parametrize("cls", [Dpo, Orpo, Reward])
def test_products_may_be_computed_in_bfloat16(
    trained: Make, tmp_path: Path, tiny_model: Path, cls: type[Gradient]
) -> None:
    job, method, _, _ = trained(cls)
    again = make_job(tmp_path / "again", tiny_model, train=preferences())
    outcome = method.model_copy(update={"dtype": "bfloat16", "max_steps": 1}).fit(again, silent)
    assert outcome.details["dtype"] == "bfloat16"
    for name in ("loss", "grad_norm"):
        one, other = curves(job.out)[0][name], curves(again.out)[0][name]
        assert math.isclose(one, other, rel_tol=0.1), (name, one, other)
    assert json.loads((again.out / "artifact.json").read_text())["kind"] == ("reward" if cls is Reward else "adapter")


def test_a_metric_on_the_dev_examples_may_choose_the_best_weights(tmp_path: Path, tiny_model: Path) -> None:
    metric = {"metric:letters": {"metric": {"kind": "rewarding:Letters"}}}
    job = make_job(tmp_path / "job", tiny_model, train=preferences(8), dev=DEV, references=metric)
    examples = write(tmp_path / "examples.jsonl", asked(3))
    method = Dpo(**QUICK | {"metric": "metric:letters", "metric_tokens": 4, "epochs": 1})
    details = method.fit(replace(job, dev_examples=examples), silent).details
    assert 0 <= details["dev_metric:letters"] <= 1
    assert details["metric_prompts"] == 3
    assert details["best_by"] == "Letters"
    with pytest.raises(DataError, match="there is no dev split, or nothing was kept"):
        method.fit(replace(make_job(tmp_path / "none", tiny_model, train=preferences(8)), references=metric), silent)
    with pytest.raises(ValidationError, match="reward gives none"):
        Reward(metric="metric:letters")


def test_what_is_trained_on_keeps_the_rate_of_its_kind(tmp_path: Path, tiny_model: Path) -> None:
    first = make_job(tmp_path / "first", tiny_model)
    Sft(adapter=Prompt(tokens=4), max_steps=1).fit(first, silent)
    job = make_job(tmp_path / "second", tiny_model, train=preferences(4), incoming=first.out)
    details = Dpo(max_steps=1).fit(job, silent).details
    assert details["learning_rate"] == pytest.approx(Prompt.learning_rate * Dpo.rate_scale)


def test_a_loss_that_compares_a_whole_batch_has_no_smaller_parts_to_try() -> None:
    assert Dpo(loss="aot").fewer_at_once() is None
    assert Dpo().fewer_at_once() is not None
