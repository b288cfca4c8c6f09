"""The card of a trained artifact: what it is, what it was made from, and what that took, as people and hubs read it.

A card is a README.md with a head of YAML, as model hubs keep them (Mitchell et al. 2019, arXiv 1810.03993).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import figures, models, training_notes
from harness.data import MORE
from harness.errors import ModelError
from harness.measure import provenance
from harness.plan import Named, Stage
from harness.plugins import Backend

_FRONT = re.compile(r"\A---[ \t]*\n(.*?)\n---", re.DOTALL)
_LICENCE = re.compile(r"^license:[ \t]*[\"']?([^\"'\n]+?)[\"']?[ \t]*$", re.MULTILINE)


def write(folder: Path, stage: Stage, named: Named, model: Backend, outcome: Mapping[str, Any]) -> None:
    """Write the card of the artifact in `folder`: `named` is its step, `outcome` what the step measured."""
    table = model.table()
    library = "peft" if outcome["details"].get("artifact") == "adapter" else "transformers"
    head = {"license": licence(table), "library_name": library, "tags": [stage.method.kind]}
    if name := models.public_name(str(table.get("id", ""))):
        head["base_model"] = name
    base = name or "a model in a folder"
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""]
    lines += [f"# {stage.method.kind} of {base}", "", *_table(_facts(named, head, outcome))]
    lines += ["", "## Settings", "", "```json", json.dumps(named.inputs["method"], indent=1), "```", ""]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def licence(table: Mapping[str, Any]) -> str:
    """The licence of the base model, as its own card or licence file says it; "unknown" where none does."""
    name = str(table.get("id", ""))
    if name in models.BUILT_IN:
        return models.BUILT_IN[name].licence
    try:
        folder = models.resolve(name, revision=table.get("revision"), code=bool(table.get("trust_remote_code")))
    except ModelError:
        return "unknown"
    card = folder / "README.md"
    front = _FRONT.match(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    if front and (said := _LICENCE.search(front[1])):
        return said[1]
    for file in sorted(folder.glob("LICEN[CS]E*")):
        words = file.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in words if line.strip()), "unknown")
    return "unknown"


def _facts(named: Named, head: Mapping[str, Any], outcome: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    inputs, made = named.inputs, provenance()
    yield "step", named.name
    yield (
        "base",
        f"{head.get('base_model', 'a model in a folder')}, weights {str(inputs['model'].get('weights', ''))[:12]}",
    )
    yield "licence of the base", str(head["license"])
    if inputs["incoming"]:
        yield "starts from", str(inputs["incoming"])
    for part in ("train", "dev", "documents", *MORE):
        if inputs.get(part):
            yield f"data: {part}", f"SHA-256 {inputs[part]}"
    yield "seed", str(inputs["seed"])
    yield from training_notes.facts(outcome)
    yield "time", figures.seconds(outcome["seconds"])
    yield "peak memory", figures.size(outcome["peak_memory_bytes"])
    yield "device", " · ".join(filter(None, [made["processor"], outcome["device"]]))
    yield "libraries", ", ".join(f"{name} {version}" for name, version in made["versions"].items())


def _table(rows: Iterator[tuple[str, str]]) -> list[str]:
    return ["| | |", "| :-- | :-- |", *(f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows)]
