"""What adapters cost: `python bench/adapters.py [--part switching|memory]`.

switching  Ten LoRA adapters (rank 16, all linear layers) of the built-in model, attached one after another in one
           session: seconds to attach each for the first time (read and put on) and later (switched), how much memory
           ten take beside the base, and how many copies of the base there are. Target: a switch within 0.5 s.
memory     Peak memory of a QLoRA training (nf4, double quantisation) and of whole fine-tuning in float32, each in a
           process of its own, above that of a process that only loaded the libraries: the same rows, batch, and tokens
           at once. Both with gradient_checkpointing, as QLoRA was published with, and both without, where activations,
           which quantising weights does not touch, outweigh the weights of so small a model. Target: at most 45 %,
           judged for each of the two.

Prints a table and one line of JSON a part. The rows are XQuAD questions with their paragraph, from
`xquad/xquad.en.json` under the folder HARNESS_SHARED_DATA, by default ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from _questions import questions

from harness.fit import ENVIRONMENT

MODEL = "smollm2-135m-instruct"
ADAPTERS, RANK, ROUNDS = 10, 16, 3
ROWS, BATCH, STEPS = 24, 8, 3
SWITCH, SHARE = 0.5, 0.45
TRAININGS: dict[str, dict[str, Any]] = {
    "bare": {},
    "full": {"adapter": "full", "dtype": "float32", "gradient_checkpointing": True},
    "qlora": {"adapter": {"kind": "qlora", "rank": RANK}, "gradient_checkpointing": True},
    "full, activations kept": {"adapter": "full", "dtype": "float32"},
    "qlora, activations kept": {"adapter": {"kind": "qlora", "rank": RANK}},
}
MB = 1 << 20


def resident(which: str = "VmRSS") -> int:
    """The resident size of this process in bytes; "VmHWM" is its highest."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition(f"{which}:")[2].split()[0]) * 1024


# -------------------------------------------------------------------------------------------------------- switching


def make(folder: Path, seed: int) -> Path:
    """A LoRA adapter with random weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from harness import models

    torch.manual_seed(seed)
    config = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules="all-linear")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(models.resolve(MODEL)), config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def answers(session: Any) -> list[str]:
    from harness.records import Decoding, Message, Request

    asked = [
        Request(messages=(Message("user", text),), decoding=Decoding(max_tokens=8))
        for text in ("What is the capital of France?", "Name three colours.")
    ]
    plan = session.plan(asked)
    return [reply.texts[0] for batch in plan.batches for reply in session.answer([asked[i] for i in batch], plan)]


def switching(folder: Path) -> dict[str, Any]:
    """Run in a process of its own, after `make`."""
    from harness.backends.transformers import Transformers

    paths = [folder / str(number) for number in range(ADAPTERS)]
    session: Any = Transformers(id=MODEL).open()
    plain = answers(session)
    base = sum(weight.numel() * weight.element_size() for weight in session.model.parameters())
    before, seconds, said = resident(), [], []
    for _ in range(ROUNDS):
        seconds.append([])
        said.append([])
        for path in paths:
            begun = time.perf_counter()
            session.attach(path)
            seconds[-1].append(time.perf_counter() - begun)
            said[-1].append(answers(session))
    held = sum(weight.numel() * weight.element_size() for weight in session.model.parameters())
    grown = resident() - before
    session.attach(None)
    later = [second for one in seconds[1:] for second in one]
    found = {
        "dtype": session.dtype,
        "adapters": ADAPTERS,
        "base_mb": base / MB,
        "weights_with_all_mb": held / MB,
        "grown_mb": grown / MB,
        "first_seconds": {"median": statistics.median(seconds[0]), "max": max(seconds[0])},
        "switch_seconds": {"median": statistics.median(later), "max": max(later)},
        "different_answers": len({str(one) for one in said[0]}),
        "same_answers_later": all(one == said[0] for one in said),
        "base_restored": answers(session) == plain,
    }
    print(f"{ADAPTERS} LoRA adapters of rank {RANK} on one {MODEL}, {session.dtype}")
    print(f"weights of the base {base / MB:.0f} MB; of base and adapters {held / MB:.0f} MB, so the base is there once")
    print(f"memory of the process grew by {grown / MB:.0f} MB, activations included")
    print(f"first time: median {found['first_seconds']['median']:.2f} s, longest {max(seconds[0]):.2f} s")
    print(f"switch:     median {found['switch_seconds']['median']:.2f} s, longest {max(later):.2f} s")
    print(f"{'met' if max(later) <= SWITCH else 'MISSED'}: a switch within {SWITCH} s")
    return found


# ----------------------------------------------------------------------------------------------------------- memory


def train(name: str, folder: Path) -> dict[str, Any]:
    """Run in a process of its own: train as TRAININGS says, or only load the libraries."""
    import warnings

    warnings.simplefilter("ignore")
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401

    from harness.methods import _following, _model, _trainer  # noqa: F401
    from harness.methods.sft import Sft
    from harness.plugins import TrainJob

    losses: list[float] = []
    if TRAININGS[name]:
        rows = folder / "train.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in questions(ROWS)), encoding="utf-8")
        method = Sft.model_validate(TRAININGS[name] | {"max_steps": STEPS, "batch_size": BATCH, "warmup": 0})
        job = TrainJob(
            train=rows, dev=None, model={"id": MODEL}, incoming=None, out=folder / "out", work=folder, seed=0
        )  # fmt: skip
        method.fit(job, lambda step, steps, figures: losses.append(figures.get("loss", 0.0)))
    return {"peak_mb": resident("VmHWM") / MB, "losses": losses}


def memory() -> dict[str, Any]:
    found = {}
    for name in TRAININGS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = child("train", name, folder)
        print(f"{name:24} peak {found[name]['peak_mb']:7.0f} MB", *(f"{loss:.3f}" for loss in found[name]["losses"]))
    bare = found["bare"]["peak_mb"]
    above = {name: one["peak_mb"] - bare for name, one in found.items() if name != "bare"}
    shares = {}
    for kept in ("", ", activations kept"):
        full, qlora = above[f"full{kept}"], above[f"qlora{kept}"]
        shares[f"qlora{kept}"] = qlora / full
        print(f"above the bare process{kept}: full {full:.0f} MB, qlora {qlora:.0f} MB, {qlora / full:.0%}", end=" ")
        print(f"({'met' if qlora / full <= SHARE else 'MISSED'}: at most {SHARE:.0%})")
    return {"runs": found, "above_mb": above, "shares": shares}


# ------------------------------------------------------------------------------------------------------------ start


def child(*arguments: str) -> dict[str, Any]:
    """Run this file in a process of its own and return the object on its last line."""
    command = [sys.executable, __file__, "--child", *arguments]
    modules = {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    environment = {**ENVIRONMENT, **os.environ, **modules}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    *told, last = done.stdout.splitlines()
    print(*told, sep="\n", end="\n" if told else "", flush=True)
    found: dict[str, Any] = json.loads(last)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--part", choices=["switching", "memory"], action="append")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    match options.child:
        case ["make", folder]:
            print(json.dumps([str(make(Path(folder) / str(seed), seed)) for seed in range(ADAPTERS)]))
            return
        case ["switching", folder]:
            print(json.dumps(switching(Path(folder))))
            return
        case ["train", name, folder]:
            print(json.dumps(train(name, Path(folder))))
            return
    parts = options.part or ["switching", "memory"]
    if "switching" in parts:
        with tempfile.TemporaryDirectory() as folder:
            child("make", folder)
            print(json.dumps(child("switching", folder)))
    if "memory" in parts:
        print(json.dumps(memory()))


if __name__ == "__main__":
    main()
