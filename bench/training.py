"""How fast LoRA trains here, against plain scripts with TRL's SFTTrainer: `python bench/training.py [--runs 5]`.

48 XQuAD questions with their paragraph and a short answer, the built-in model, LoRA of rank 16 on all linear layers,
six steps of eight rows. All ways train the same rows, once each; their runs alternate, since a machine drifts.

    ours          method `sft` with its own settings
    trl like      a plain SFTTrainer with the same number format, batches in the same order, no gradient checkpointing
    trl defaults  SFTTrainer and SFTConfig as they come: float32 weights, bfloat16 autocast, gradient checkpointing
    trl bf16      bfloat16 weights, no gradient checkpointing

Prints real (unpadded) tokens per second, the medians of the runs, ratios of ours to each, how far the losses of the
steps lie apart (ours and `trl like` train on the same batches), and one line of JSON. Processor seconds are shown too:
they suffer less from what else runs on the machine. Targets: 0.95 of `trl like`, 2.5 times `trl defaults`,
twice `trl bf16`.

The questions come from `xquad/xquad.en.json` under the folder HARNESS_SHARED_DATA, by default ../shared/data.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
from _questions import questions
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback, set_seed
from transformers.utils import logging
from trl import SFTConfig, SFTTrainer

from harness import models
from harness.adapters.lora import Lora
from harness.devices import pick_device, pick_dtype
from harness.methods import _model
from harness.methods.sft import Sft
from harness.plugins import TrainJob

MODEL = "smollm2-135m-instruct"
ROWS, BATCH, STEPS, SEED, LEARNING_RATE = 48, 8, 6, 0, 2e-4
WAYS = ("ours", "trl like", "trl defaults", "trl bf16")
TARGETS = {"trl like": 0.95, "trl defaults": 2.5, "trl bf16": 2.0}


@dataclass(frozen=True)
class Timed:
    seconds: float
    processor_seconds: float
    losses: list[float]


class Clock(TrainerCallback):
    """Times the training loop alone, without loading models and preparing data."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.begun = time.perf_counter(), time.process_time()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self.begun[0]
        self.processor_seconds = time.process_time() - self.begun[1]


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder, self.values = folder, questions(ROWS)
        self.train = folder / "train.jsonl"
        self.train.write_text("".join(json.dumps(value) + "\n" for value in self.values), encoding="utf-8")
        self.path = models.resolve(MODEL)
        self.tokenizer = AutoTokenizer.from_pretrained(self.path)
        self.method = Sft(
            adapter=Lora(rank=16), epochs=1, batch_size=BATCH, learning_rate=LEARNING_RATE, schedule="linear", warmup=0
        )
        self.dtype = pick_dtype()
        self.lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
        self.count = 0

    def new_folder(self) -> Path:
        self.count += 1
        return self.folder / str(self.count)

    def trainer(self, way: str) -> Any:
        made: dict[str, Callable[[], Any]] = {
            "ours": self.ours,
            "trl like": self.like,
            "trl defaults": self.defaults,
            "trl bf16": self.bf16,
        }
        return made[way]()

    def ours(self) -> Any:
        work = self.new_folder()
        work.mkdir()
        job = TrainJob(
            train=self.train, dev=None, model={"id": MODEL}, incoming=None, out=work / "out", work=work, seed=SEED
        )
        set_seed(SEED)
        policy = _model.load(job, self.method.adapter, self.dtype)
        ready = self.method.ready(job, policy, self.dtype)
        ready.trainer.follow(
            curves=work / "curves.jsonl",
            progress=lambda *call: None,
            patience=None,
            due=frozenset(),
            steps_per_epoch=ready.steps_per_epoch,
        )
        self.made, self.batches = ready.trainer.rows, ready.trainer.batches
        return ready.trainer

    def config(self, **settings: Any) -> SFTConfig:
        return SFTConfig(
            output_dir=str(self.new_folder()),
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            logging_steps=1,
            seed=SEED,
            use_cpu=pick_device() == "cpu",
            report_to="none",
            disable_tqdm=True,
            **settings,
        )

    def like(self) -> Any:
        rows = [self.made[number] for batch in self.batches for number in batch]
        data = Dataset.from_dict(
            {
                "input_ids": [list(row.ids) for row in rows],
                "labels": [[-100] * row.prompt + list(row.ids[row.prompt :]) for row in rows],
            }
        )
        set_seed(SEED)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(self.path, dtype=self.dtype), self.lora)
        config = self.config(bf16=False, activation_checkpointing=False, train_sampling_strategy="sequential")
        return SFTTrainer(model, config, train_dataset=data, processing_class=self.tokenizer)

    def conversations(self) -> Dataset:
        return Dataset.from_list(
            [
                {"prompt": value["messages"], "completion": [{"role": "assistant", "content": value["completion"]}]}
                for value in self.values
            ]
        )

    def defaults(self) -> Any:
        return SFTTrainer(str(self.path), self.config(), train_dataset=self.conversations(), peft_config=self.lora)

    def bf16(self) -> Any:
        model = AutoModelForCausalLM.from_pretrained(self.path, dtype="bfloat16")
        config = self.config(activation_checkpointing=False)
        data = self.conversations()
        return SFTTrainer(model, config, train_dataset=data, processing_class=self.tokenizer, peft_config=self.lora)

    def time(self, way: str) -> Timed:
        trainer, clock = self.trainer(way), Clock()
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert len(losses) == STEPS
        timed = Timed(clock.seconds, clock.processor_seconds, losses)
        del trainer
        gc.collect()
        return timed


def report(runs: dict[str, list[Timed]], tokens: int, dtype: str) -> dict[str, Any]:
    speed = {way: statistics.median(tokens / run.seconds for run in runs[way]) for way in runs}
    effort = {way: statistics.median(tokens / run.processor_seconds for run in runs[way]) for way in runs}
    print(f"\n{tokens} tokens in {ROWS} rows, {dtype}, medians of {len(runs['ours'])} alternating runs")
    print(f"{'':14}{'tokens/s':>10}{'ours is':>9}{'tokens/processor s':>20}{'ours is':>9}")
    for way in runs:
        wall, processor = speed["ours"] / speed[way], effort["ours"] / effort[way]
        print(f"{way:14}{speed[way]:10.0f}{wall:8.2f}x{effort[way]:20.0f}{processor:8.2f}x")
    apart = [
        abs(one - other) / other for one, other in zip(runs["ours"][0].losses, runs["trl like"][0].losses, strict=True)
    ]
    print("losses, ours and trl like:", *(f"{one:.4f}" for one in runs["ours"][0].losses), "and", end=" ")
    print(*(f"{one:.4f}" for one in runs["trl like"][0].losses), f"(at most {max(apart):.1e} apart, relatively)")
    ratios = {way: speed["ours"] / speed[way] for way in runs if way != "ours"}
    for way, least in TARGETS.items():
        if way in ratios:
            print(f"{'met' if ratios[way] >= least else 'MISSED'}: ours / {way} = {ratios[way]:.2f}, target {least}")
    return {
        "tokens": tokens,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "runs": len(runs["ours"]),
        "tokens_per_second": speed,
        "tokens_per_processor_second": effort,
        "ours_over": ratios,
        "largest_relative_loss_difference": max(apart),
        "seconds": {way: [run.seconds for run in runs[way]] for way in runs},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="runs of each way (default 5)")
    parser.add_argument("--ways", nargs="+", default=list(WAYS[1:]), choices=WAYS[1:], help="what to compare with")
    arguments = parser.parse_args()
    ways = ["ours", *dict.fromkeys(["trl like", *arguments.ways])]
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        runs: dict[str, list[Timed]] = {way: [] for way in ways}
        for number in range(arguments.runs):
            for way in ways:
                timed = bench.time(way)
                runs[way].append(timed)
                print(f"run {number + 1}  {way:14}{timed.seconds:8.1f} s{timed.processor_seconds:8.1f} s", flush=True)
        tokens = sum(len(row.ids) for row in bench.made)
        print(json.dumps(report(runs, tokens, bench.dtype)))


if __name__ == "__main__":
    main()
