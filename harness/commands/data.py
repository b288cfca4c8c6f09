"""`harness data check`: leaks and quality of the data of a spec, without running anything."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.commands._common import json_argument, load_spec, print_json, spec_arguments, store_argument

if TYPE_CHECKING:
    from harness.data import Dataset
    from harness.heldout_use import Use
    from harness.leaks import Leaks
    from harness.quality import Finding
    from harness.spec import Spec

HELP = "look for leaks and faults in the data of a spec (harness data check SPEC)"

_SHOWN = 20


def arguments(word: argparse.ArgumentParser) -> None:
    word.add_argument("action", choices=("check",), help="exits 1 where a leak would stop a run")
    spec_arguments(word)
    word.add_argument(
        "--presidio", metavar="LANGUAGE", help="look for personal data with Presidio, in en, de, ... (to be installed)"
    )
    store_argument(word)
    json_argument(word)


def run(options: argparse.Namespace) -> int:
    from harness import data, figures, heldout_use, personal, quality
    from harness.store import Store

    spec = load_spec(options)
    find = personal.presidio(options.presidio) if options.presidio else personal.find
    dataset = data.load(spec.data, refuse=False)
    findings = quality.of(dataset, spec, find)
    store = Store(options.results, write=False)
    use = heldout_use.of(store, spec.name, dataset.fingerprints["heldout"])
    if options.json:
        print_json(_record(spec, dataset, findings, use))
    else:
        for line in _lines(dataset, findings, use):
            print(figures.plain(line))
    return 1 if dataset.leaks.blocking else 0


def _record(spec: Spec, dataset: Dataset, findings: list[Finding], use: Use) -> dict[str, Any]:
    found = dataset.leaks
    present, of = dataset.answered
    return {
        "name": spec.name,
        "splits": {
            name: {"rows": rows, "groups": _groups(dataset, name), "fingerprint": dataset.fingerprints[name]}
            for name, rows in dataset.counts.items()
        },
        "leaks": {
            **found.summary(),
            "similarity": found.rules.similarity,
            "blocking": len(found.blocking),
            "pairs": [pair.record() | {"blocking": pair in found.blocking} for pair in found.pairs],
        },
        "answers_in_documents": {"count": present, "of": of} if dataset.documents else None,
        "quality": [finding.record() for finding in findings],
        "heldout_use": {"snapshots": list(use.snapshots), "runs": use.answers},
        "notes": list(dataset.notes),
    }


def _groups(dataset: Dataset, name: str) -> int | None:
    """How many groups the data names there, or None."""
    if name in ("documents", "text"):
        return None
    rows = getattr(dataset, name)
    return len({row.group for row in rows}) if any(row.group != row.id for row in rows) else None


def _lines(dataset: Dataset, findings: list[Finding], use: Use) -> Iterator[str]:
    from harness.figures import counted

    for name, rows in dataset.counts.items():
        if rows:
            groups = _groups(dataset, name)
            in_groups = f" in {counted(groups, 'group')}" if groups else ""
            yield f"{name}: {counted(rows, 'row')}{in_groups}, fingerprint {dataset.fingerprints[name][:12]}"
    if use.snapshots:
        times, runs = counted(len(use.snapshots), "snapshot"), counted(use.answers, "different run")
        yield f"The held-out set was used by {times} of this experiment so far ({runs})."
    yield ""
    yield from _leaks(dataset.leaks)
    yield ""
    yield f"Quality: {counted(len(findings), 'finding')}." if findings else "Quality: nothing was found."
    for finding in findings:
        yield f"  {finding.severity}  {finding}"
        for name, text in finding.examples:
            yield f"      {name}: {text}"
    for note in dataset.notes:
        yield f"  note  {note}"


def _leaks(found: Leaks) -> Iterator[str]:
    from harness.figures import counted

    if not found.pairs:
        yield "Leaks: none."
        return
    verdict = "a run would be refused" if found.blocking else "permitted by the spec, and told with every result"
    nouns = {kind: "held-out group" if kind == "group" else "held-out input" for kind in found.counts}
    yield f"Leaks ({verdict}): " + ", ".join(f"{kind} {counted(n, nouns[kind])}" for kind, n in found.counts.items())
    blocking = set(found.blocking)
    for pair in found.pairs[:_SHOWN]:
        yield f"  {pair}" + ("  (permitted)" if blocking and pair not in blocking else "")
    if len(found.pairs) > _SHOWN:
        yield f"  ... and {len(found.pairs) - _SHOWN:,} more (--json has all of them)"
