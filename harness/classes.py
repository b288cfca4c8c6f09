"""What stands behind one figure of a classification: each class, which are taken for which, and how far confidence can
be believed. All of it is read from stored scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from harness import figures
from harness.errors import HarnessError
from harness.records import Run, Score
from harness.reducers import CLASS_REDUCERS, REDUCERS, calibration_bins, class_counts
from harness.store import Snapshot, Store

NONE = "(none)"
"""What an answer named that named none of the metric's classes."""

LARGEST_MATRIX = 12
"""Classes up to which the confusion matrix is shown as a table; of more, only the most frequent confusions are."""

CONFUSIONS = 15


def of(snapshot: Snapshot, store: Store, variant: str, *, seed: int | None = None, metric: str = "") -> dict[str, Any]:
    """Return the classes and the calibration of one run as JSON-able values: those of the first metric that counts
    classes unless `metric` names one, and of the first seed unless `seed` does.

    Raises HarnessError where there is no such run or it has neither.
    """
    run = _run(snapshot, variant, seed)
    scores = {
        role.removeprefix("score."): store.step(step).score()
        for role, step in run.steps.items()
        if role.startswith("score.")
    }
    counted = [name for name, score in scores.items() if score.reducer in CLASS_REDUCERS]
    if metric and metric not in counted:
        raise HarnessError(
            f"{metric!r} counts no classes in {variant!r}. Those that do: {', '.join(counted) or 'none'}."
        )
    sure = next((name for name, score in scores.items() if score.reducer == "ece"), None)
    if not counted and sure is None:
        raise HarnessError(
            f"no metric of {variant!r} counts classes: add one to the spec, such as [[metric]] with kind = "
            f'"label_f1", and `harness score` it on the stored answers.'
        )
    name = metric or (counted[0] if counted else "")
    return {
        "experiment": snapshot.ref,
        "variant": variant,
        "seed": run.seed,
        "classes": table(scores[name]) if name else None,
        "calibration": reliability(scores[sure]) if sure is not None else None,
        "notes": run.leak_notes,
    }


def _run(snapshot: Snapshot, variant: str, seed: int | None) -> Run:
    runs = [run for run in snapshot.runs() if run.variant == variant]
    if not runs:
        names = ", ".join(dict.fromkeys(run.variant for run in snapshot.runs()))
        raise HarnessError(f"there is no variant {variant!r} in {snapshot.ref}. Available: {names}.")
    found = next((run for run in runs if seed in (None, run.seed)), None)
    if found is None:
        raise HarnessError(f"{variant!r} was not run with seed {seed}: {', '.join(str(run.seed) for run in runs)}.")
    if found.status != "complete":
        raise HarnessError(f"{variant!r} (seed {found.seed}) is {found.status}, so nothing can be told of its classes.")
    return found


def table(score: Score) -> dict[str, Any]:
    """Return each class with its support, precision, recall and F1, and the confusion matrix, from a score whose
    statistics are (index of the right class, index of the named one).

    Precision is None for a class that no answer names (0 divided by 0; averages count it 0), recall and F1 for one
    without examples (averages leave it out). `confusion[i][j]` counts the examples of class i whose answer named class
    j; the last column those whose answer named none.
    """
    rows = [row for row in score.statistics if row is not None]
    pairs = Counter((int(right), int(named)) for right, named in rows)
    columns = [*range(len(score.labels)), -1]
    classes = [
        {
            "class": label,
            "support": examples,
            "named": answers,
            "right": hits,
            "precision": hits / answers if answers else None,
            "recall": hits / examples if examples else None,
            "f1": 2 * hits / (examples + answers) if examples else None,
        }
        for label, (examples, answers, hits) in zip(score.labels, class_counts(rows, score.labels), strict=True)
    ]
    return {
        "metric": score.name,
        "signature": score.signature,
        "value": REDUCERS[score.reducer](rows, score.labels) if rows else None,
        "examples": len(rows),
        "errors": score.errors,
        "none_named": sum(named < 0 for _, named in rows),
        "classes": classes,
        "labels": list(score.labels),
        "confusion": [[pairs[right, named] for named in columns] for right in range(len(score.labels))],
    }


def reliability(score: Score) -> dict[str, Any]:
    """Return the reliability curve (Niculescu-Mizil and Caruana 2005) behind an expected calibration error: the bins of
    confidence that hold examples, with their mean confidence and share of right answers."""
    rows = [row for row in score.statistics if row is not None]
    names = ("from", "to", "examples", "confidence", "right")
    return {
        "metric": score.name,
        "value": REDUCERS[score.reducer](rows, ()) if rows else None,
        "examples": len(rows),
        "bins": [dict(zip(names, row, strict=True)) for row in calibration_bins(rows)],
    }


def markdown(found: dict[str, Any]) -> str:
    """Return what `of` gave as Markdown."""
    parts = [
        f"## {figures.markdown(found['variant'])} in {figures.markdown(found['experiment'])} (seed {found['seed']})"
    ]
    for title, columns, rows in tables(found):
        parts += [f"### {figures.markdown(title)}", _grid(columns, rows)]
    return "\n\n".join([*parts, *notes(found)]) + "\n"


def tables(found: dict[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Return what `of` gave as titled tables of text: (title, columns, rows)."""
    made = []
    if classes := found["classes"]:
        rows = [
            [
                row["class"],
                str(row["support"]),
                str(row["named"]),
                *(_share(row[n]) for n in ("precision", "recall", "f1")),
            ]
            for row in classes["classes"]
        ]
        title = f"Classes ({classes['metric']} {_share(classes['value'])}, {classes['examples']} examples)"
        made.append((title, ["class", "examples", "named", "precision", "recall", "F1"], rows))
        made.append(_confusions(classes))
    if calibration := found["calibration"]:
        rows = [
            [
                f"{row['from']:.3f} to {row['to']:.3f}",
                str(row["examples"]),
                _share(row["confidence"]),
                _share(row["right"]),
            ]
            for row in calibration["bins"]
        ]
        title = f"Reliability ({calibration['metric']} {_share(calibration['value'])})"
        made.append((title, ["confidence", "examples", "mean confidence", "right"], rows))
    return made


def _confusions(classes: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    labels = classes["labels"]
    if len(labels) <= LARGEST_MATRIX:
        rows = [[label, *map(str, counts)] for label, counts in zip(labels, classes["confusion"], strict=True)]
        return "Confusion (rows: right class, columns: named class)", ["", *labels, NONE], rows
    wrong = [
        (count, label, [*labels, NONE][column])
        for place, (label, counts) in enumerate(zip(labels, classes["confusion"], strict=True))
        for column, count in enumerate(counts)
        if count and column != place
    ]
    wrong.sort(key=lambda entry: (-entry[0], entry[1:]))
    shown = [[label, named, str(count)] for count, label, named in wrong[:CONFUSIONS]]
    title = f"Most frequent confusions ({len(shown)} of {len(wrong)} pairs)"
    return title, ["right class", "named class", "examples"], shown


def notes(found: dict[str, Any]) -> list[str]:
    classes, made = found["classes"], list(found["notes"])
    if not classes:
        return made
    absent = [row["class"] for row in classes["classes"] if not row["support"]]
    if absent:
        listed = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        made.append(
            f"{len(absent)} of {len(classes['labels'])} classes have no held-out example ({listed}): recall and F1 are "
            "n/a, and averages leave them out."
        )
    if classes["none_named"]:
        count = f"{classes['none_named']} of {classes['examples']} answers"
        made.append(f"{count} name none of these classes; they count as wrong.")
    if classes["errors"]:
        made.append(f"{classes['errors']} examples failed; they count as naming no class.")
    return made


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(figures.markdown(cell) for cell in line) + " |" for line in lines)
