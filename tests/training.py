"""What the tests of training share: a little task, jobs on a tiny model, and weights compared digit by digit."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness.plugins import TrainJob

MACHINES = ("kettle", "grinder", "coffee machine", "filter")


def row(number: int, question: str, answer: str) -> dict[str, Any]:
    return {"id": f"q{number}", "messages": [{"role": "user", "content": question}], "completion": answer}


def rows(count: int = 24) -> list[dict[str, Any]]:
    """Questions of unlike length with short answers."""
    return [
        row(n, f"how long is the warranty of {MACHINES[n % 4]} {n}?" + " please" * (n % 7), f"{n % 5} years")
        for n in range(count)
    ]


def write(file: Path, values: Sequence[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
    return file


def make_job(
    folder: Path,
    model: Path,
    *,
    train: Sequence[Mapping[str, Any]] | None = None,
    dev: Sequence[Mapping[str, Any]] | None = None,
    incoming: Path | None = None,
    seed: int = 0,
    references: dict[str, dict[str, Any]] | None = None,
    **settings: Any,
) -> TrainJob:
    """A job in the new folder `folder`; `settings` go into the model's table."""
    settle()
    for name in ("work", "out"):
        (folder / name).mkdir(parents=True)
    kept = write(folder / "dev.jsonl", dev) if dev else None
    return TrainJob(
        train=write(folder / "train.jsonl", rows() if train is None else train),
        dev=kept,
        dev_examples=kept,
        model={"kind": "transformers", "id": str(model), "dtype": "float32", "device": "cpu"} | settings,
        incoming=incoming,
        out=folder / "out",
        work=folder / "work",
        seed=seed,
        references=references or {},
    )


@cache
def settle() -> None:
    """Take the libraries out of the garbage collector's way, which looks through everything before each training."""
    import peft  # noqa: F401
    import trl  # noqa: F401

    gc.collect()
    gc.freeze()


def silent(step: int, steps: int, figures: Mapping[str, float]) -> None:
    """A progress callback that does nothing."""


def stop_after(step: int) -> Any:
    def progress(at: int, steps: int, figures: Mapping[str, float]) -> None:
        if at >= step:
            raise KeyboardInterrupt

    return progress


def weights(out: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found = [*out.glob("adapter_model.safetensors"), *out.glob("model.safetensors")]
    assert len(found) == 1
    return load_file(found[0])


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two sets of weights agree in every digit."""
    import torch

    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def curves(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "curves.jsonl").read_text(encoding="utf-8").splitlines()]


def watch_frozen(monkeypatch: Any) -> list[dict[str, Any]]:
    """From now on, keep what a stage's model is when it is saved: every weight that is not trained."""
    from harness.methods import _model

    seen: list[dict[str, Any]] = []
    save = _model.save

    def watched(policy: Any, *args: Any) -> None:
        named = policy.model.named_parameters()
        seen.append({name: weight.detach().clone() for name, weight in named if not weight.requires_grad})
        save(policy, *args)

    monkeypatch.setattr(_model, "save", watched)
    return seen


def moved(frozen: Mapping[str, Any], model: Path) -> list[str]:
    """The frozen weights of a PEFT model that are not, digit for digit, those of the model in the folder."""
    import torch

    before = weights(model)
    bare = {name.removeprefix("base_model.model.").replace(".base_layer.", "."): w for name, w in frozen.items()}
    assert len(bare.keys() & before.keys()) > 10
    return [name for name in bare.keys() & before.keys() if not torch.equal(bare[name], before[name])]


def preferences(count: int = 12, start: int = 0) -> list[dict[str, Any]]:
    """Pairs of a short answer and a rambling one, each to a prompt of its own."""
    return [
        {
            "id": f"p{n}",
            "messages": [{"role": "user", "content": f"how long is the warranty of {MACHINES[n % 4]} {n}?"}],
            "chosen": f"{n % 5} years",
            "rejected": "that may depend on many things"[: 14 + n % 7],
            "group": f"g{n}",
        }
        for n in range(start, start + count)
    ]


def thumbs(count: int, *, good: bool, start: int = 0) -> list[dict[str, Any]]:
    """Single answers with a thumb."""
    gone = "rejected" if good else "chosen"
    return [value | {gone: None} for value in preferences(count, start)]


def log_probabilities(model: Any, tokenizer: Any, values: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    """The log-probability of each token of the answer `name` of each row, its end included, one row at a time and with
    transformers' own forward pass. Adapters are as the model has them."""
    import torch

    from harness.methods._rows import Renderer

    found = []
    renderer = Renderer(tokenizer, None)
    for value in values:
        row = renderer.row(value["messages"], value[name])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.ids])).logits[0, :-1].float()
        each = logits.log_softmax(-1).gather(1, torch.tensor(row.ids[1:])[:, None])[:, 0]
        found.append(each[row.prompt - 1 :])
    return found


def opened(base: Path, artifact: Path | None = None) -> Any:
    """The model in `base`, with the adapter or instead the whole model in `artifact`."""
    import warnings

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    whole = artifact is not None and (artifact / "config.json").is_file()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = AutoModelForCausalLM.from_pretrained(artifact if whole else base)
        return (model if whole or artifact is None else PeftModel.from_pretrained(model, artifact)).eval()
