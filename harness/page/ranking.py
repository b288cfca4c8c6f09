"""The leaderboard on the page: what it says in words, the chart with intervals, the table, failed runs, notes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import streamlit as st
from pandas.io.formats.style import Styler

from harness import board as shown
from harness import figures
from harness.page import charts


def show(board: shown.Board) -> str:
    """Show the leaderboard; return the metric that the reader chose."""
    st.subheader("Leaderboard", anchor="leaderboard")
    names = [board["primary"], *shown.others(board)]
    metric: str = names[0]
    if len(names) > 1:
        metric = str(
            st.selectbox(
                "Metric of the charts",
                names,
                key="metric",
                bind="query-params",
                width=320,
                format_func=lambda name: f"{name} (ranks)" if name == board["primary"] else name,
            )
        )
    chart = charts.intervals(board, metric)
    if chart is None:
        st.info("No variant has been measured yet. This page shows each one as soon as its run ends: reload it then.")
    else:
        st.altair_chart(chart, alt="Each variant's value of the chosen metric with its 95 % interval")
    frame = table(board)
    columns = _columns(board, frame.columns)
    st.dataframe(frame, hide_index=True, height="content", placeholder=figures.NONE, column_config=columns)
    _failures(board)
    with st.container(gap="xsmall"):
        for sentence in shown.legend(board):
            st.text(sentence)
    return metric


def _failures(board: shown.Board) -> None:
    failed = [row for row in board["rows"] if row["status"] == "failed"]
    if failed:
        with st.container(border=True, gap="xsmall"):
            st.badge(f"{len(failed)} failed", color="red", icon=":material/error:")
            for row in failed:
                st.text(f"{figures.plain(row['variant'], line=True)}: {shown.reason(row)}")


def table(board: shown.Board) -> Styler:
    """Return the rows as a styled frame: numbers that sort, shown as everywhere else."""
    n, primary = board["heldout"]["n"], board["primary"]
    formats: dict[Any, str | Callable[[object], str] | None] = {}
    columns: dict[str, list[Any]] = {}

    def add(name: str, values: list[Any], show: Callable[[Any], str] | None = None) -> None:
        columns[name] = values
        if show:
            # pandas turns None into NaN, which is not equal to itself.
            formats[name] = lambda value: show(None if value is None or value != value else value)

    rows = board["rows"]
    add("#", [row["rank"] for row in rows], lambda value: figures.NONE if value is None else str(int(value)))
    add("variant", [figures.plain(row["variant"], line=True) for row in rows])
    add("family", [row["family"] for row in rows])
    if any(row["status"] != "complete" for row in rows):
        add("state", [row["status"] for row in rows])
    unit = shown.metric_of(board, primary)["unit"]
    add(primary, [_value(row, primary) for row in rows], lambda value: figures.score(value, unit))
    add("95 % interval", [shown.bounds(board, row, primary) for row in rows])
    add(f"vs {board['baseline']}", [(row["vs_baseline"] or {}).get("difference") for row in rows], _change(unit))
    add("its 95 % interval", [shown.change(board, row)[1] or None for row in rows])
    if any(shown.verdict(row) for row in rows):  # older boards say neither
        add("verdict", [shown.verdict(row) or None for row in rows])
        add("possible ranks", [shown.ranks(row) or shown.place(row) for row in rows])
    for name in shown.others(board):
        add(name, [_value(row, name) for row in rows], _score(shown.metric_of(board, name)["unit"]))
    for name, key, show in _COSTS:
        add(name, [row["cost"][key] for row in rows], show)
    for name, key in (("tokens in / answer", "input_tokens"), ("tokens out / answer", "output_tokens")):
        add(name, [row["cost"][key] for row in rows], lambda value: figures.per(value, n))
    add("errors", [shown.errors(row) if row["status"] == "complete" else None for row in rows], figures.count)
    add("seeds", [", ".join(map(str, row["seeds"])) for row in rows])
    frame = pd.DataFrame(columns)
    styled = frame.style.format(formats, na_rep=figures.NONE)
    return styled.set_properties(subset=["variant"], **{"font-weight": "600"})


_COSTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("p50 latency", "latency_p50_ms", figures.milliseconds),
    ("p95 latency", "latency_p95_ms", figures.milliseconds),
    ("training", "train_seconds", lambda value: figures.seconds(value or None)),
    ("indexing", "index_seconds", lambda value: figures.seconds(value or None)),
    ("answering", "answer_seconds", figures.seconds),
    ("trained parameters", "trainable_parameters", lambda value: figures.count(value or None)),
    ("artifact", "artifact_bytes", lambda value: figures.size(value or None)),
    ("peak memory", "peak_memory_bytes", figures.size),
)


def _value(row: shown.Row, name: str) -> float | None:
    measured = row["metrics"].get(name)
    return measured["value"] if measured else None


def _score(unit: str) -> Callable[[Any], str]:
    return lambda value: figures.score(value, unit)


def _change(unit: str) -> Callable[[Any], str]:
    return lambda value: figures.change(value, unit)


def _columns(board: shown.Board, names: Iterable[str]) -> dict[str, Any]:
    latency = "Single requests, batch 1, adapters not merged, on a sample of the held-out questions: see below"
    helps = {
        f"vs {board['baseline']}": "Paired difference from the baseline, in percentage points for shares",
        "verdict": "Better or worse than the baseline where the test, adjusted for all comparisons, says so",
        "possible ranks": "Variants that cannot be told apart share a place (#) and may have any of these ranks",
        "errors": "Examples without an answer: they count as the worst score",
        "p50 latency": latency,
        "p95 latency": latency,
        "training": "Wall-clock time of training, starting its process included",
        "answering": "Wall-clock time of answering the held-out questions in batches, without loading the model",
    }
    words = ("variant", "family", "state", "verdict", "seeds")
    numbers = [name for name in names if name not in words]
    columns = {name: st.column_config.Column(alignment="right", help=helps.get(name)) for name in numbers}
    columns["#"] = st.column_config.Column(width=40, pinned=True, alignment="right")
    columns["variant"] = st.column_config.Column(pinned=True)
    return columns
