"""Answering speed against lm-evaluation-harness 0.4.13 (hf backend): same prompts, model, dtype and output length.

    python bench/evaluation.py [--data FOLDER] [--repeats 3] [--tasks gsm8k,xquad] [--out FILE.json]

Installs the peer in an environment of its own, finds the batch size that is best for it, then lets the two run in
turns. Output lengths are made equal: both generate up to the limit, with the end-of-text token forbidden (the peer by
`min_new_tokens`, ours by setting its logit to minus infinity), so that the texts are the same too. Model loading is not
timed on either side. Prompts go in as plain text, without a chat template. Prints one line a run and a table; `--out`
keeps everything as JSON. On a machine that others use at the same time take the ratio of CPU seconds with
OMP_NUM_THREADS=1: it does not count the waiting.

Tasks: `gsm8k` are 32 problems with 5 shots, 96 new tokens; `xquad` 64 questions, each with its paragraph, no two with
the same one, 24 new tokens; `xquad-pages` the first 64 questions, of which some five ask about one paragraph.
Targets: 2x on gsm8k, 1.2x on xquad.

The data are `gsm8k/` and `xquad/` under --data, by default the folder HARNESS_SHARED_DATA, else ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import models
from harness.backends.transformers import Transformers
from harness.devices import pick_dtype
from harness.records import Decoding, Message, Request

PEER = "lm-eval[hf]==0.4.13"
TORCH = "torch==2.13.0"
MODEL = "smollm2-135m-instruct"
TARGETS = {"gsm8k": 2.0, "xquad": 1.2}
PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@dataclass(frozen=True)
class Task:
    name: str
    prompts: list[str]
    new_tokens: int


def data_folder() -> Path:
    return Path(os.environ.get("HARNESS_SHARED_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def gsm8k(data: Path, examples: int) -> Task:
    def rows(name: str, count: int) -> list[dict[str, str]]:
        with (data / "gsm8k" / name).open(encoding="utf-8") as lines:
            return [json.loads(line) for _, line in zip(range(count), lines, strict=False)]

    shots = "".join(f"Question: {row['question']}\nAnswer: {row['answer']}\n\n" for row in rows("train-1500.jsonl", 5))
    prompts = [f"{shots}Question: {row['question']}\nAnswer:" for row in rows("test.jsonl", examples)]
    return Task("gsm8k", prompts, 96)


def xquad(data: Path, examples: int, *, pages: bool) -> Task:
    content = json.loads((data / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))
    paragraphs = [paragraph for article in content["data"] for paragraph in article["paragraphs"]]
    asked = [(part["context"], question["question"]) for part in paragraphs for question in part["qas"]]
    alone = [(part["context"], part["qas"][0]["question"]) for part in paragraphs]
    chosen = (asked if pages else alone)[:examples]
    prompts = [f"{text}\n\nQuestion: {question}\nAnswer:" for text, question in chosen]
    return Task("xquad-pages" if pages else "xquad", prompts, 24)


@dataclass(frozen=True)
class Timed:
    seconds: float
    cpu_seconds: float
    texts: list[str]


class Peer:
    """lm-evaluation-harness in its own environment and process."""

    def __init__(self, folder: Path, dtype: str) -> None:
        home = models.cache_folder() / "bench" / "lm-eval-0.4.13"
        python = home / "bin" / "python"
        if not (home / "installed").is_file():
            print(f"installing {PEER} into {home}", file=sys.stderr)
            venv.create(home, with_pip=True, clear=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", TORCH, PEER], check=True)
            (home / "installed").write_text(PEER, encoding="utf-8")
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("_lm_eval.py"), folder, dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        self.versions = self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with status {self.process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def run(self, task: Task, batch: int) -> Timed:
        assert self.process.stdin is not None
        job = {"prompts": task.prompts, "new_tokens": task.new_tokens, "batch": batch}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return Timed(**self._read())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Ours:
    def __init__(self, dtype: str) -> None:
        backend = Transformers.model_validate({"id": MODEL, "dtype": dtype, "device": "cpu", "chat_template": PLAIN})
        self.session: Any = backend.open()
        engine, ends = self.session._engine, sorted(self.session._ends)
        logits = engine._logits

        def endless(hidden: Any) -> Any:
            found = logits(hidden)
            found[:, ends] = float("-inf")
            return found

        engine._logits = endless

    def run(self, task: Task) -> Timed:
        decoding = Decoding(max_tokens=task.new_tokens)
        requests = [Request(messages=(Message("user", prompt),), decoding=decoding) for prompt in task.prompts]
        self.session._prefixes.clear()
        begun, cpu = time.perf_counter(), time.process_time()
        plan = self.session.plan(requests)
        texts = [""] * len(requests)
        for batch in plan.batches:
            replies = self.session.answer([requests[index] for index in batch], plan)
            assert all(reply.output_tokens == task.new_tokens for reply in replies)
            for index, reply in zip(batch, replies, strict=True):
                texts[index] = reply.texts[0]
        return Timed(time.perf_counter() - begun, time.process_time() - cpu, texts)


def compare(task: Task, peer: Peer, ours: Ours, batches: list[int], repeats: int) -> dict[str, Any]:
    tried = {batch: peer.run(task, batch).seconds for batch in batches}
    best = min(tried, key=lambda batch: tried[batch])
    print(f"{task.name}: peer by batch size {json.dumps(tried)}; best {best}", flush=True)
    ours.run(Task(task.name, task.prompts[:2], 2))
    pairs = []
    for repeat in range(repeats):
        pair = peer.run(task, best), ours.run(task)
        pairs.append(pair)
        wall, cpu = pair[0].seconds / pair[1].seconds, pair[0].cpu_seconds / pair[1].cpu_seconds
        took = f"peer {pair[0].seconds:.1f} s, ours {pair[1].seconds:.1f} s"
        print(f"{task.name} {repeat}: {took}, {wall:.2f}x ({cpu:.2f}x by CPU time)", flush=True)
    count = len(task.prompts)
    same = sum(a == b for a, b in zip(pairs[-1][0].texts, pairs[-1][1].texts, strict=True))
    return {
        "examples": count,
        "new_tokens": task.new_tokens,
        "peer_batch": best,
        "peer_tried_seconds": tried,
        "peer_seconds": [theirs.seconds for theirs, _ in pairs],
        "ours_seconds": [own.seconds for _, own in pairs],
        "peer_examples_per_second": count / statistics.median(theirs.seconds for theirs, _ in pairs),
        "ours_examples_per_second": count / statistics.median(own.seconds for _, own in pairs),
        "ratio": statistics.median(theirs.seconds / own.seconds for theirs, own in pairs),
        "cpu_ratio": statistics.median(theirs.cpu_seconds / own.cpu_seconds for theirs, own in pairs),
        "target": TARGETS.get(task.name),
        "same_texts": same / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data_folder(), help="default: %(default)s")
    parser.add_argument("--tasks", default="gsm8k,xquad,xquad-pages")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", default="8,16,32,64", help="batch sizes to try for the peer")
    parser.add_argument("--dtype", default=pick_dtype("auto", "cpu"))
    parser.add_argument("--share", type=float, default=1.0, help="share of the examples, for a quick look")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    makers = {
        "gsm8k": lambda: gsm8k(options.data, round(32 * options.share)),
        "xquad": lambda: xquad(options.data, round(64 * options.share), pages=False),
        "xquad-pages": lambda: xquad(options.data, round(64 * options.share), pages=True),
    }
    ours = Ours(options.dtype)
    peer = Peer(models.resolve(MODEL), options.dtype)
    batches = [int(size) for size in options.batches.split(",")]
    try:
        results = {
            name: compare(makers[name](), peer, ours, batches, options.repeats) for name in options.tasks.split(",")
        }
    finally:
        peer.close()
    print(f"\n{'task':12} {'peer ex/s':>10} {'ours ex/s':>10} {'ratio':>6} {'CPU':>6} {'target':>7} {'same texts':>11}")
    for name, row in results.items():
        print(
            f"{name:12} {row['peer_examples_per_second']:10.2f} {row['ours_examples_per_second']:10.2f} "
            f"{row['ratio']:6.2f} {row['cpu_ratio']:6.2f} {row['target'] or '':>7} {row['same_texts']:11.0%}"
        )
    if options.out:
        about = {"dtype": options.dtype, "cores": os.cpu_count(), "peer": peer.versions}
        options.out.write_text(json.dumps({**about, "tasks": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
