"""Writes results as offline runs of Weights & Biases (W&B), which needs no network and no account.

One W&B run for each run that has ended, and one for the leaderboard. The id is the digest of what is mirrored, and a
note in `results/wandb/mirrored` says that it was, so nothing is mirrored twice. No code, command line, folder, host or
user name is written into it.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import StoreError
from harness.records import Run, Score, digest, dump, trainings
from harness.reducers import REDUCERS
from harness.store import Snapshot, Store

LOCK = "@tracking.lock"
"""Held, in `locks`, by the one process that mirrors. No experiment has this name."""
ROWS = 1000
"""Rows of the table of predictions; the run's summary says how many there are."""


def run_id(run: Run) -> str:
    """Return the W&B id of a run: the same for the same work, so that mirroring twice does not double it."""
    return digest([run.experiment, run.variant, run.seed, run.status, run.steps])


def board_id(snapshot: Snapshot) -> str:
    return digest(["leaderboard", snapshot.name, snapshot.digest, snapshot.created, snapshot.leaderboard])


def note_path(root: Path, identity: str) -> Path:
    return root / "wandb" / "mirrored" / f"{identity}.json"


def identities(snapshot: Snapshot) -> dict[str, Run | None]:
    """Return each run that has ended, and None for the leaderboard, by its W&B id."""
    found: dict[str, Run | None] = {run_id(run): run for run in snapshot.runs() if run.status in ("complete", "failed")}
    return found if snapshot.leaderboard is None else {**found, board_id(snapshot): None}


def missing(root: Path, snapshot: Snapshot) -> list[Run | None]:
    """Return the runs that are not mirrored yet, and None for the leaderboard."""
    return [run for identity, run in identities(snapshot).items() if not note_path(root, identity).exists()]


def orphans(root: Path, kept: Collection[str]) -> Iterator[Path]:
    """Yield what was mirrored and belongs to none of the W&B ids `kept`: folders of W&B, and our notes of them."""
    folders = set()
    for path in sorted((root / "wandb" / "mirrored").glob("*.json")):
        try:
            folder = str(files.read_json(path)["folder"]) if path.stem in kept else None
        except (StoreError, KeyError, TypeError):  # without its folder it only keeps the run from being mirrored
            folder = None
        if folder is None:
            yield path
        folders.add(folder)
    for path in sorted((root / "wandb").glob("*run-*-*")):
        if path.is_dir() and not path.is_symlink() and path.relative_to(root).as_posix() not in folders:
            yield path


def forget(root: Path, identity: str) -> None:
    """Remove what was mirrored under this W&B id."""
    # W&B ends the name of a run's folder with its id; a note may name any folder.
    for folder in (root / "wandb").glob(f"*run-*-{identity}"):
        files.remove_tree(folder)
    with files.disk(note_path(root, identity)):
        note_path(root, identity).unlink(missing_ok=True)


def mirror(store: Store, snapshot: Snapshot, settings: Mapping[str, Any]) -> Iterator[str]:
    """Write each run that has ended, and the leaderboard, as an offline W&B run; yield what was mirrored."""
    for run in missing(store.root, snapshot):
        identity = run_id(run) if run else board_id(snapshot)
        what = f"{run.variant}, seed {run.seed}" if run else "leaderboard"
        tags = [run.family[:64], run.variant[:64]] if run else ["leaderboard"]
        config = _config(snapshot, run) if run else {"experiment": snapshot.name, "snapshot": snapshot.number}
        with _opened(
            store.root, settings, identity, f"{snapshot.ref} {what}", snapshot.name, tags, config
        ) as wandb_run:
            if run:
                _write_run(wandb_run, store, snapshot, run, bool(settings.get("adapters")))
            else:
                _write_board(wandb_run, snapshot.leaderboard or {})
            folder = Path(wandb_run.dir).parent.relative_to(store.root.resolve()).as_posix()
        note = {"what": f"{snapshot.ref} {what}", "experiment": snapshot.name, "folder": folder}
        files.make_folder(note_path(store.root, identity).parent)
        files.write_json(note_path(store.root, identity), {**note, "made": files.now(), "sent": None})
        yield what


@contextlib.contextmanager
def _opened(
    root: Path,
    settings: Mapping[str, Any],
    identity: str,
    name: str,
    group: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
) -> Iterator[Any]:
    """Open an offline run whose settings name nothing of this machine, and end it."""
    import wandb

    quiet = wandb.Settings(
        silent=True,
        console="off",
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        disable_code=True,
        disable_git=True,
        save_code=False,
        disable_job_creation=True,
        host="",
        program="harness",
        program_relpath="",
        program_abspath="",
        email="",
        username="",
    )
    run = wandb.init(
        project=settings.get("project") or "harness",
        entity=settings.get("entity"),
        id=identity,
        name=name,
        group=group,
        tags=list(tags),
        config=dict(config),
        dir=str(root.resolve()),
        mode="offline",
        settings=quiet,
    )
    try:
        yield run
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def _config(snapshot: Snapshot, run: Run) -> dict[str, Any]:
    """Return the part of the spec that the run is about."""
    spec = snapshot.spec
    variants = [variant for variant in spec.get("variants", ()) if variant.get("name") == run.variant]
    return {
        "experiment": snapshot.name,
        "snapshot": snapshot.number,
        "question": spec.get("question", ""),
        "family": run.family,
        "seed": run.seed,
        "variant": variants[0] if variants else {"name": run.variant},
        **{key: spec[key] for key in ("model", "data", "metrics") if key in spec},
        "steps": run.steps,
        "versions": run.provenance.get("versions", {}),
        "fingerprints": run.provenance.get("fingerprints", {}),
    }


def _write_run(wandb_run: Any, store: Store, snapshot: Snapshot, run: Run, adapters: bool) -> None:
    summary: dict[str, Any] = {"status": run.status, "error": run.error, "notes": list(run.notes)}
    summary |= {f"cost/{name}": value for name, value in dump(run.cost).items() if value is not None}
    done = {role: store.step(name) for role, name in run.steps.items() if store.step(name).outcome is not None}
    for role in trainings(run.steps):
        if role in done:
            _write_curves(wandb_run, role, done[role].path / "artifact" / "curves.jsonl")
            if adapters:
                _write_artifact(wandb_run, run, role, done[role].path / "artifact")
    scores = {role.removeprefix("score."): step.score() for role, step in done.items() if role.startswith("score.")}
    for name, score in scores.items():
        known = [row for row in score.statistics if row is not None]
        summary[f"metric/{name}"] = REDUCERS[score.reducer](known, score.labels) if known else None
        summary[f"metric/{name}/n"], summary[f"metric/{name}/errors"] = len(known), score.errors
        summary[f"metric/{name}/signature"] = score.signature
    if "predict" in done:
        shown, total = _write_predictions(wandb_run, store, snapshot, run, scores)
        summary["predictions"], summary["predictions_shown"] = total, shown
    wandb_run.summary.update(summary)


def _write_curves(wandb_run: Any, role: str, path: Path) -> None:
    """Log the training curves of one stage against its own steps."""
    if not path.exists():
        return
    wandb_run.define_metric(f"{role}/step")
    wandb_run.define_metric(f"{role}/*", step_metric=f"{role}/step")
    with files.disk(path, "read"), path.open("rb") as lines:
        for line in lines:
            row = files.parse_json(path, line)
            figures = {key: value for key, value in row.items() if isinstance(value, int | float)}
            wandb_run.log({f"{role}/{key}": value for key, value in figures.items() if math.isfinite(value)})


def _write_artifact(wandb_run: Any, run: Run, role: str, folder: Path) -> None:
    import wandb

    name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{run.experiment}-{run.variant}-{run.seed}-{role}")
    artifact = wandb.Artifact(name=name[-128:], type="model", metadata={"step": run.steps[role]})
    artifact.add_dir(str(folder))
    wandb_run.log_artifact(artifact)


def _write_predictions(
    wandb_run: Any, store: Store, snapshot: Snapshot, run: Run, scores: Mapping[str, Score]
) -> tuple[int, int]:
    """Log the first predictions as a table; return how many it shows, and how many there are."""
    import wandb

    predictions = store.step(run.steps["predict"]).predictions()
    columns = [
        "id",
        "input",
        "gold",
        "answer",
        "error",
        *scores,
        "passages",
        "input_tokens",
        "output_tokens",
        "seconds",
    ]
    table = wandb.Table(columns=columns, allow_mixed_types=True)
    pairs = zip(snapshot.examples(), predictions, strict=True)
    for row, (example, prediction) in enumerate(islice(pairs, ROWS)):
        found = [score.statistics[row] for score in scores.values()]
        table.add_data(
            example.id,
            example.input,
            " | ".join(example.targets),
            prediction.text,
            prediction.error,
            *(numbers[0] if numbers and len(numbers) == 1 else numbers and str(list(numbers)) for numbers in found),
            ", ".join(passage.id for passage in prediction.passages),
            prediction.input_tokens,
            prediction.output_tokens,
            prediction.seconds,
        )
    wandb_run.log({"predictions": table})
    return min(ROWS, len(predictions)), len(predictions)


def _write_board(wandb_run: Any, board: Mapping[str, Any]) -> None:
    import wandb

    rows = [_flat(row) for row in board.get("rows", ())]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = wandb.Table(columns=columns, allow_mixed_types=True)
    for row in rows:
        table.add_data(*(row.get(column) for column in columns))
    wandb_run.log({"leaderboard": table})
    wandb_run.summary.update({"primary": board.get("primary"), "heldout": board.get("heldout")})


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted names, lists as text."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[prefix + key] = ", ".join(map(str, inner)) if isinstance(inner, list) else inner
    return flat
