"""Reading results for the page: the folder, the list of experiments, a leaderboard, the scores of a run.

What is immutable is kept in Streamlit's cache; one example's prediction is read at its place in the file, each time.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from harness import leaderboard
from harness.records import Score
from harness.store import Snapshot, Store, Summary


def folder(arguments: Sequence[str]) -> Path:
    """Return the results folder: `--results DIR`, else the environment's HARNESS_RESULTS, else ./results."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--results", type=Path, default=Path(os.environ.get("HARNESS_RESULTS") or "results"))
    known: Path = parser.parse_known_args(list(arguments))[0].results
    return known


def open_store(root: Path) -> Store:
    return Store(root, write=False)


def by_experiment(summaries: Sequence[Summary]) -> dict[str, list[Summary]]:
    """Group snapshots by experiment; experiments and their snapshots newest first."""
    found: dict[str, list[Summary]] = {}
    for summary in summaries:
        found.setdefault(summary.name, []).append(summary)
    return found


def board_of(store: Store, snapshot: Snapshot) -> dict[str, Any]:
    """Return the leaderboard: the stored one of a finished experiment, or what its finished runs give so far."""
    finished = [run.variant for run in snapshot.runs() if run.status in ("complete", "failed")]
    return _board(str(store.root), snapshot.ref, snapshot.digest, snapshot.ended, len(finished))


@st.cache_data(show_spinner="Reading the results …", max_entries=32)
def _board(root: str, ref: str, digest: str, ended: str, finished: int) -> dict[str, Any]:
    """Every argument is part of the cache's key: a new run that ended makes a new leaderboard."""
    store = open_store(Path(root))
    snapshot = store.snapshot(ref)
    return snapshot.leaderboard or leaderboard.build(snapshot, store)


@st.cache_resource(show_spinner="Reading the scores …", max_entries=64)
def score_of(root: str, step: str) -> Score:
    """Return the score that a step holds; a step's name is the digest of its content's causes, so it never changes."""
    return open_store(Path(root)).step(step).score()
