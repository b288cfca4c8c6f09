"""Reward models: what they learn, how they are kept, and how they mark answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_tiny_model
from training import make_job, preferences, rows, silent

from harness import models
from harness.adapters.full import Full
from harness.adapters.lora import Lora
from harness.errors import DataError, ModelError
from harness.methods import _reward
from harness.methods.reward import Reward
from harness.methods.sft import Sft

QUICK: dict[str, Any] = {"learning_rate": 5e-3, "batch_size": 4, "max_steps": 6, "warmup": 0.0, "keep_best": False}
DEV = preferences(5, start=40)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    job = make_job(tmp_path_factory.mktemp("reward") / "job", tiny_model, train=preferences(), dev=DEV)
    return job, Reward(adapter=Lora(rank=4), **QUICK).fit(job, silent)


def rewards(scorer: _reward.Scorer, name: str) -> torch.Tensor:
    return torch.tensor(scorer.score_answers([(value["messages"], value[name]) for value in DEV]))


def test_the_artifact_marks_answers_as_the_training_measured_them(trained: Any, tiny_model: Path) -> None:
    job, outcome = trained
    scorer = _reward.load(job.out)
    difference = rewards(scorer, "chosen") - rewards(scorer, "rejected")
    # Ouyang et al. 2022, equation 1, and Bradley and Terry 1952.
    by_hand = torch.log1p(torch.exp(-difference)).mean().item()
    assert outcome.details["dev_loss"] == pytest.approx(by_hand, rel=1e-3)
    assert outcome.details["dev_margin"] == pytest.approx(difference.mean().item(), rel=1e-3)
    assert outcome.details["dev_accuracy"] == (difference > 0).float().mean().item()
    assert outcome.details["dev_pairs"] == 5
    said = json.loads((job.out / "artifact.json").read_text())
    assert said == {
        "kind": "reward",
        "base": models.fingerprint(tiny_model),
        "tokenizer": _reward.vocabulary(scorer.tokenizer),
    }
    for file in job.out.iterdir():
        assert str(tiny_model.parent).encode() not in file.read_bytes(), file.name


def test_a_reward_is_read_at_the_last_token_whatever_stands_beside_the_row(trained: Any) -> None:
    scorer = _reward.load(trained[0].out)
    # The tiny model's padding token is also its end of turn, at which the reward is read.
    assert scorer.tokenizer.pad_token_id == scorer.renderer.end
    given = [scorer.renderer.row(value["messages"], value["chosen"]).ids for value in DEV]
    given.append((*given[0][:-1], 7))
    alone = [scorer.score([ids])[0] for ids in given]
    assert scorer.score(given) == pytest.approx(alone, abs=1e-4)
    by_hand = []
    for ids in given:
        with torch.no_grad():
            hidden = scorer.model.model(input_ids=torch.tensor([ids])).last_hidden_state
            by_hand.append(scorer.model.score(hidden)[0, -1, 0].item())
    assert alone == pytest.approx(by_hand, abs=1e-4)
    assert alone[0] != pytest.approx(alone[-1], abs=1e-3), "the last token decides"
    assert scorer.score([]) == []


def test_a_reward_model_of_another_tokenizer_or_none_at_all_is_refused(
    trained: Any, tmp_path: Path, tiny_model: Path
) -> None:
    from transformers import AutoTokenizer

    out = trained[0].out
    own = AutoTokenizer.from_pretrained(tiny_model)
    assert _reward.load(out, tokenizer=own).score([[5, 6]])
    other = AutoTokenizer.from_pretrained(tiny_model)
    other.add_tokens(["kettles"])
    with pytest.raises(ModelError, match=r"another vocabulary than the model that is trained.*same base model"):
        _reward.load(out, tokenizer=other)
    with pytest.raises(ModelError, match="no reward model but of the kind 'adapter'"):
        (tmp_path / "adapter").mkdir()
        (tmp_path / "adapter" / "artifact.json").write_text('{"kind": "adapter"}')
        _reward.load(tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"there is no .*nowhere"):
        _reward.load(tmp_path / "nowhere")
    damaged = shutil.copytree(out, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes((damaged / "model.safetensors").read_bytes()[:-9])
    with pytest.raises(ModelError, match="cannot be loaded"):
        _reward.load(damaged)


def test_a_reward_model_is_refused_where_answers_are_wanted(trained: Any, tmp_path: Path, tiny_model: Path) -> None:
    from harness.backends.transformers import Transformers

    out = trained[0].out
    with pytest.raises(ModelError, match="is a reward model: it marks answers and cannot give any"):
        Sft(epochs=1).fit(make_job(tmp_path / "job", tiny_model, incoming=out), silent)
    with pytest.raises(ModelError, match="is a reward model"):
        Transformers(id=str(tiny_model), dtype="float32", device="cpu").open().attach(out)


def test_pairs_over_the_length_are_left_out_and_counted(tmp_path: Path, tiny_model: Path) -> None:
    long = [value | {"rejected": "?" * 120} for value in preferences(2, start=60)]
    job = make_job(tmp_path / "job", tiny_model, train=[*preferences(4), *long], dev=[*DEV, long[0]])
    outcome = Reward(adapter=Lora(rank=4), **QUICK | {"max_length": 100, "max_steps": 1}).fit(job, silent)
    found = {name: outcome.details[name] for name in ("train_rows", "train_dropped", "dev_dropped", "dev_pairs")}
    assert found == {"train_rows": 6, "train_dropped": 2, "dev_dropped": 1, "dev_pairs": 5}
    with pytest.raises(DataError, match=r"no pair is left.*Raise max_length"):
        Reward(max_length=8).fit(make_job(tmp_path / "none", tiny_model, train=long), silent)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_it_starts_from_the_policy_that_comes_in(tmp_path: Path, tiny_model: Path) -> None:
    """Merged before a new adapter, trained on without one; the whole model is trained where nothing else is said."""
    from training import opened

    before = make_job(tmp_path / "before", tiny_model, train=rows(8))
    Sft(adapter=Lora(rank=4), learning_rate=1e-2, epochs=2, batch_size=4).fit(before, silent)
    still = QUICK | {"learning_rate": 1e-9, "max_steps": 1}
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        wanted = opened(tiny_model, before.out).get_base_model().model(input_ids=ids).last_hidden_state
        bare = opened(tiny_model).model(input_ids=ids).last_hidden_state
    assert (wanted - bare).abs().max() > 0.1
    counts = {}
    for name, adapter in (("on", None), ("lora", Lora(rank=2)), ("full", Full())):
        job = make_job(tmp_path / name, tiny_model, train=preferences(4), incoming=before.out)
        counts[name] = Reward(adapter=adapter, **still).fit(job, silent).trainable_parameters
        with torch.no_grad():
            found = _reward.load(job.out).model.model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    whole = sum(weight.numel() for weight in opened(tiny_model).model.parameters()) + 64
    assert counts["full"] == whole
    assert counts["lora"] < counts["on"] < whole
    own = Reward()
    assert own._learning_rate(own.load(job, "float32")) == pytest.approx(2e-4), "an adapter is trained on"


def test_a_checkpoint_holds_what_is_trained_alone(trained: Any) -> None:
    from safetensors.torch import load_file

    job, outcome = trained
    (file,) = job.work.glob("checkpoints/*/trained.safetensors")
    saved = load_file(file)
    assert "score.weight" in saved
    assert sum(weight.numel() for weight in saved.values()) == outcome.trainable_parameters
    assert all("lora_" in name or name == "score.weight" for name in saved)


def test_centred_rewards_stay_around_zero(trained: Any, tmp_path: Path, tiny_model: Path) -> None:
    centred = make_job(tmp_path / "job", tiny_model, train=preferences(), dev=DEV)
    Reward(adapter=Lora(rank=4), centre=1.0, **QUICK).fit(centred, silent)
    means = []
    for job in (trained[0], centred):
        scorer = _reward.load(job.out)
        means.append((rewards(scorer, "chosen") + rewards(scorer, "rejected")).abs().mean().item())
    assert means[1] < 0.5 * means[0]


def test_an_architecture_without_a_classifier_is_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForSequenceClassification

    from harness.methods import _marking, _model

    def missing(config: Any) -> Any:
        raise ValueError("Unrecognized configuration class")

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_config", missing)
    from training import opened

    policy = _model.Policy(model=opened(tiny_model), tokenizer=None, kind="model", base="")
    with pytest.raises(ModelError, match="no reward model can be made of LlamaForCausalLM"):
        _marking.marking(policy)


def test_other_words_of_the_vocabulary_make_another_digest(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    one = AutoTokenizer.from_pretrained(tiny_model)
    same = AutoTokenizer.from_pretrained(make_tiny_model(tmp_path / "again", seed=5))
    assert _reward.vocabulary(one) == _reward.vocabulary(same), "other weights, the same tokens"
