"""The page that shows results: `streamlit run app.py`, or `streamlit run app.py -- --results DIR`. It only reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import streamlit as st

from harness import figures
from harness.errors import HarnessError
from harness.page import ranking, results, side_by_side, tradeoff, words
from harness.store import Snapshot, State, Store, Summary

Colour = Literal["green", "orange", "blue", "red"]

_STATES: dict[State, tuple[str, Colour]] = {
    "complete": ("complete", "green"),
    "failed": ("some runs failed", "orange"),
    "running": ("running", "blue"),
    "interrupted": ("interrupted", "orange"),
    "damaged": ("damaged", "red"),
}


def main() -> None:
    # Without an icon of its own: Streamlit would fetch one from outside.
    st.set_page_config(page_title="harness", layout="wide")
    root = results.folder(sys.argv[1:])
    try:
        store = results.open_store(root)
        summaries = store.experiments()
        if not summaries:
            nothing_yet(root)
            return
        summary = choose(summaries)
        if summary.state == "damaged":
            problem(summary.problem)
            return
        show(store, store.snapshot(summary.ref))
    except HarnessError as error:
        problem(str(error))


def nothing_yet(root: Path) -> None:
    st.title("No results yet", anchor=False)
    st.text(f"There is no experiment in {root.absolute()}. Make one, then reload this page:")
    st.code("make demo\nharness run specs/quickstart.toml", language=None)
    st.text("Results that lie elsewhere are shown with:")
    st.code("streamlit run app.py -- --results DIR", language=None)


def problem(text: str) -> None:
    """Say what is wrong; the message itself says what to do."""
    st.error("This cannot be shown.", icon=":material/error:")
    st.code(figures.plain(text), language=None, wrap_lines=True)


def choose(summaries: list[Summary]) -> Summary:
    """Let the reader choose an experiment, and one of its snapshots where it has several."""
    found = results.by_experiment(summaries)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox("Experiment", list(found), key="experiment", bind="query-params", width=320)
        snapshots = {str(summary.number): summary for summary in found[name]}
        number = next(iter(snapshots))
        if len(snapshots) > 1:
            number = st.selectbox(
                "Snapshot",
                list(snapshots),
                key="snapshot",
                bind="query-params",
                width=320,
                format_func=lambda number: f"{number}, {_moment(snapshots[number].created)}",
            )
        summary = snapshots[number]
        word, colour = _STATES[summary.state]
        st.badge(word, color=colour)
    return summary


def show(store: Store, snapshot: Snapshot) -> None:
    board = results.board_of(store, snapshot)
    st.title(words.title(board["question"] or board["experiment"]), anchor=False)
    if snapshot.state == "interrupted":
        st.warning("This run was interrupted. Give the same `harness run` again: it does only what is missing.")
    metric = ranking.show(board)
    tradeoff.show(board, metric)
    side_by_side.show(board, snapshot, store)


def _moment(time: str) -> str:
    """ISO 8601 in UTC as "2026-03-05 14:02 UTC"."""
    return f"{time[:16].replace('T', ' ')} UTC" if time else "at an unknown time"


main()
