"""Answers that a teacher writes to the prompts of the train split. Imported where a training begins."""

from __future__ import annotations

import gc
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from harness.chat import context_length, end_tokens, read_template
from harness.devices import pick_device, pick_dtype
from harness.errors import DataError
from harness.methods import _model, _rows, _sampling
from harness.plugins import TrainJob
from harness.records import Message, Role

FILE = "teacher.jsonl"
AT_ONCE = 64
"""Prompts whose answers are kept together."""


def answered(
    job: TrainJob, meaning: Mapping[str, Any], values: Sequence[dict[str, Any]], *, temperature: float, most: int
) -> list[dict[str, Any]]:
    """Return `values` with the completions that the teacher writes; those that it does not end within `most` tokens are
    left out. `meaning` is what `TrainJob.references` says of the teacher.

    Every answer stands in `job.out`/teacher.jsonl: {"id", "completion", "ended"}. Those that a killed process had are
    not written again. Raises DataError where the teacher ended no answer, or a prompt leaves it no room for one.
    """
    kept = job.work / FILE
    read = kept.read_text(encoding="utf-8").splitlines(keepends=True) if kept.is_file() else []
    lines = [line for line in read if line.endswith("}\n")]
    # A killed process may have left half a part: it is written again as a whole, with the draws it would have had.
    done = len(lines) if len(lines) == len(values) else len(lines) // AT_ONCE * AT_ONCE
    kept.write_text("".join(lines[:done]), encoding="utf-8")
    if done < len(values):
        _write(job, meaning, values, kept, temperature, most, done)
    shutil.copyfile(kept, job.out / FILE)
    answers = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
    made = [
        value | {"completion": answer["completion"]}
        for value, answer in zip(values, answers, strict=True)
        if answer["ended"]
    ]
    if not made:
        raise DataError(
            f"the teacher ended none of its {len(values)} answers within {most} tokens: raise max_tokens, or use "
            "another teacher"
        )
    return made


def _write(
    job: TrainJob,
    meaning: Mapping[str, Any],
    values: Sequence[dict[str, Any]],
    kept: Path,
    temperature: float,
    most: int,
    done: int,
) -> None:
    """Let the teacher answer all but the first `done` of `values`, and write each part into `kept` as it comes."""
    dtype = pick_dtype(job.model.get("dtype", "auto"), job.model.get("device", "auto"))
    model, tokenizer = _model.frozen(job, meaning, "bfloat16" if dtype == "bfloat16" else "float32")
    model.to(pick_device(job.model.get("device", "auto")))
    # A model of its own has a template of its own; the job's stands for the job's model.
    template = read_template(job.model.get("chat_template")) if _model.another(meaning) is None else None
    renderer = _rows.Renderer(tokenizer, template)
    ends = end_tokens(tokenizer, model.generation_config.eos_token_id) | {renderer.end}
    sampler = _sampling.Sampler(model, renderer, ends, temperature=temperature, most=most, autocast=False)
    room = context_length(model.config, tokenizer) - most
    with kept.open("a", encoding="utf-8") as file:
        for start in range(done, len(values), AT_ONCE):
            part = values[start : start + AT_ONCE]
            asked = [[Message(cast(Role, m["role"]), m["content"]) for m in value["messages"]] for value in part]
            prompts = renderer.prompts(asked)
            for value, prompt in zip(part, prompts, strict=True):
                if len(prompt) > room:
                    raise DataError(
                        f"the prompt of row {value['id']!r} has {len(prompt)} tokens, and the teacher has room "
                        f"for {room} beside an answer: lower max_tokens, or use a teacher with a longer context"
                    )
            with torch.random.fork_rng():
                torch.manual_seed(random.Random(f"{job.seed} {start}").getrandbits(63))
                answers = sampler.sample(prompts)
            for value, ids in zip(part, answers, strict=True):
                ended = ids[-1] in ends
                text = tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True)
                said = {"id": value["id"], "completion": text, "ended": ended}
                file.write(json.dumps(said, ensure_ascii=False) + "\n")
            file.flush()
    del model, sampler
    gc.collect()
