from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny_model
from pydantic import ValidationError
from training import make_job, row, same, silent, weights

from harness import models
from harness.adapters.full import Full
from harness.adapters.lora import Lora
from harness.backends.transformers import Transformers
from harness.errors import ModelError
from harness.methods.merge import Merge
from harness.methods.sft import Sft
from harness.plugins import TrainJob

LORAS = {"one": Lora(rank=2, targets=("q_proj", "up_proj")), "two": Lora(rank=2, targets=("q_proj", "up_proj"))}
MORE = {"wide": Lora(rank=3, rslora=True), "dora": Lora(rank=2, dora=True), "whole": Full()}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """A few trained artifacts, each from other rows."""
    found = {}
    for number, (name, adapter) in enumerate((LORAS | MORE).items()):
        rows = [row(n, f"how long is the warranty of grinder {n}?", f"{number} years") for n in range(4)]
        job = make_job(tmp_path_factory.mktemp("merge") / name, tiny_model, train=rows, seed=number)
        Sft(adapter=adapter, learning_rate=1e-2, max_steps=2, schedule="constant").fit(job, silent)
        found[name] = job.out
    return found


def job_of(folder: Path, model: Path, folders: dict[str, Path], seed: int = 0) -> TrainJob:
    references = {name: {"artifact": str(path)} for name, path in folders.items()}
    return replace(make_job(folder, model, seed=seed), references=references | {"large": {"model": "owner/large"}})


def change(folder: Path, model: Path) -> dict[str, Any]:
    """What an adapter adds to each weight, by PEFT."""
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folder)
    layers = {name: part for name, part in adapted.named_modules() if isinstance(part, LoraLayer)}
    return {name: part.get_delta_weight("default").detach() for name, part in layers.items()}


def test_by_default_the_changes_are_averaged_exactly(
    tmp_path: Path, tiny_model: Path, folders: dict[str, Path]
) -> None:
    import torch

    job = job_of(tmp_path / "job", tiny_model, folders)
    outcome = Merge(merge=("one", "wide")).fit(job, silent)
    one, two, made = (change(folder, tiny_model) for folder in (folders["one"], folders["wide"], job.out))
    assert made.keys() == two.keys() > one.keys()
    for name, delta in made.items():
        torch.testing.assert_close(delta, (one.get(name, 0) + two[name]) / 2, rtol=1e-4, atol=1e-6)
    assert json.loads((job.out / "adapter_config.json").read_text())["r"] == 5
    assert json.loads((job.out / "artifact.json").read_text()) == {
        "kind": "adapter",
        "base": models.fingerprint(tiny_model),
    }
    assert outcome.trainable_parameters == sum(weight.numel() for weight in weights(job.out).values())
    for file in job.out.iterdir():
        assert str(tiny_model.parent).encode() not in file.read_bytes(), file.name


def test_ties_keeps_the_largest_changes_of_the_sign_that_prevails(
    tmp_path: Path, tiny_model: Path, folders: dict[str, Path]
) -> None:
    """By the paper's three steps: trim, elect the sign, and average what agrees; here of full rank, so that nothing is
    lost to the decomposition."""
    import torch

    job = job_of(tmp_path / "job", tiny_model, folders)
    Merge(merge=("one", "two"), combination="ties_svd", density=0.3, weights=(1.0, 1.0), rank=64).fit(job, silent)
    changes, made = [change(folders[name], tiny_model) for name in ("one", "two")], change(job.out, tiny_model)
    for name, delta in made.items():
        trimmed = []
        for each in (one[name] for one in changes):
            kept = int(0.3 * each.numel())
            least = each.abs().flatten().sort(descending=True).values[kept - 1]
            trimmed.append(torch.where(each.abs() >= least, each, 0))
        stacked = torch.stack(trimmed)
        agreeing = stacked.sign() == torch.where(stacked.sum(0) >= 0, 1, -1)
        expected = (stacked * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)
        # A number that lies on the border of what is trimmed may fall on either side of it by rounding.
        assert int(((delta - expected).abs() > 1e-5).sum()) <= 2, name


def test_the_seed_decides_what_dare_drops(tmp_path: Path, tiny_model: Path, folders: dict[str, Path]) -> None:
    method = Merge(merge=("one", "two"), combination="dare_linear", density=0.5)
    made = []
    for number, seed in enumerate((0, 0, 1)):
        job = job_of(tmp_path / str(number), tiny_model, folders, seed)
        method.fit(job, silent)
        made.append(weights(job.out))
    assert same(made[0], made[1])
    assert not same(made[0], made[2])


@pytest.mark.parametrize("combination", ["linear", "svd", "ties", "dare_ties", "dare_linear_svd", "dare_ties_svd"])
def test_every_combination_gives_an_adapter_that_the_model_answers_with(
    tmp_path: Path, tiny_model: Path, folders: dict[str, Path], combination: Any
) -> None:
    import torch

    density = None if combination in ("linear", "svd") else 0.5
    job = job_of(tmp_path / "job", tiny_model, folders)
    Merge(merge=("one", "two"), combination=combination, density=density).fit(job, silent)
    assert json.loads((job.out / "adapter_config.json").read_text())["r"] == 2
    assert any(delta.abs().max() > 1e-4 for delta in change(job.out, tiny_model).values())
    assert all(torch.isfinite(weight).all() for weight in weights(job.out).values())
    session = Transformers(id=str(tiny_model), dtype="float32", device="cpu").open()
    session.attach(job.out)
    session.close()


def test_a_merge_of_one_adapter_with_itself_is_that_adapter(
    tmp_path: Path, tiny_model: Path, folders: dict[str, Path]
) -> None:
    """A rank-stabilised adapter has another scale, which must not be applied twice."""
    import torch

    both = {"a": folders["wide"], "b": folders["wide"]}
    for combination in ("cat", "svd", "linear"):
        job = job_of(tmp_path / combination, tiny_model, both)
        Merge.model_validate({"merge": ["a", "b"], "combination": combination}).fit(job, silent)
        before, made = change(folders["wide"], tiny_model), change(job.out, tiny_model)
        # Each factor is the sum of two times the root of a half: their product counts each adapter with each.
        scale = 2.0 if combination == "linear" else 1.0
        for name, delta in made.items():
            torch.testing.assert_close(delta, scale * before[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "settings", "said"),
    [
        (("one", "whole"), {}, "'whole' left a whole model, and adapters are merged"),
        (("one", "large"), {}, "'large' is a whole model, and adapters are merged"),
        (("one", "dora"), {}, "'dora' was trained with DoRA, whose magnitudes do not add up"),
        (
            ("one", "wide"),
            {"combination": "linear"},
            r"linear works on factors of one rank.*\(one 2, wide 3\).*\"cat\"",
        ),
    ],
)
def test_what_cannot_be_merged_is_refused(
    tmp_path: Path,
    tiny_model: Path,
    folders: dict[str, Path],
    names: tuple[str, ...],
    settings: dict[str, Any],
    said: str,
) -> None:
    with pytest.raises(ModelError, match=said):
        Merge(merge=names, **settings).fit(job_of(tmp_path / "job", tiny_model, folders), silent)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    other = make_tiny_model(tmp_path / "other", seed=5)
    with pytest.raises(ModelError, match="was trained on another model"):
        Merge(merge=("one", "two")).fit(job_of(tmp_path / "job", other, folders), silent)
    foreign = shutil.copytree(folders["one"], tmp_path / "foreign")
    (foreign / "artifact.json").unlink()
    (foreign / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match=r"merge: 'x' \(.*foreign\) cannot be loaded"):
        Merge(merge=("x", "x")).fit(job_of(tmp_path / "broken", other, {"x": foreign}), silent)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"merge": ("one",)}, "at least 2"),
        ({"weights": (1.0,)}, "2 adapters to merge and 1 weights"),
        ({"combination": "ties"}, "ties needs a `density`, such as 0.2"),
        ({"density": 0.5}, "cat keeps every number: `density` is of TIES and DARE"),
        ({"rank": 4}, "cat has no choice of `rank`"),
        ({"start": "base"}, "leave `start` out"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Merge.model_validate({"merge": ("one", "two")} | settings)
