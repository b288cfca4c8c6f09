"""`harness check`: say whether a spec and its data can be run, with every fault at once."""

from __future__ import annotations

import argparse
from typing import Any

from harness.commands._common import json_argument, load_spec, print_json, spec_arguments

HELP = "say whether a spec and its data can be run, with every fault at once"


def arguments(word: argparse.ArgumentParser) -> None:
    spec_arguments(word)
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import figures, forecast, runner

    spec = load_spec(options)
    dataset = runner.load(spec)
    found: dict[str, Any] = {
        "name": spec.name,
        "variants": {variant.name: variant.family for variant in spec.variants},
        "metrics": [metric.name for metric in spec.metrics],
        "seeds": list(spec.seeds),
        "splits": dataset.counts,
        "fingerprints": dict(dataset.fingerprints),
        "leaks": dataset.leaks.summary(),
        "notes": list(dataset.notes),
        "warnings": forecast.warnings(spec, dataset),
    }
    if options.json:
        return print_json(found)
    variants, seeds = len(spec.variants), len(spec.seeds)
    each = f"{figures.counted(variants, 'variant')}, {figures.counted(seeds, 'seed')}"
    print(f"{options.spec}: in order. {each}: {figures.counted(variants * seeds, 'run')}.")
    for name, family in found["variants"].items():
        print(f"  {name}  ({family})")
    print("  " + ", ".join(f"{name} {n:,}" for name, n in found["splits"].items()))
    for note in dataset.notes:
        print(figures.plain(f"  note: {note}"))
    for warning in found["warnings"]:
        print(figures.plain(f"  warning: {warning}"))
    return 0
