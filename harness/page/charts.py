"""The charts: the primary metric with its intervals, and quality against cost. Colours hold for colour-blind readers
(Okabe and Ito) and reach a contrast of 3 on white and on black; a shape says the same as each colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd
import streamlit as st

from harness import board as shown
from harness import figures

FAMILIES = {
    "prompting": ("#0072B2", "circle"),
    "RAG": ("#D55E00", "square"),
    "fine-tuning": ("#009E73", "triangle-up"),
    "hybrid": ("#CC79A7", "diamond"),
}
_OTHER = ("#7F7F7F", "cross")
_NEUTRAL = "#888888"


@dataclass(frozen=True)
class CostAxis:
    """A cost that can be plotted: what it is called, how a row gives it, how it is shown, how many of a unit it has."""

    name: str
    unit: str
    key: str
    scale: float = 1.0

    def of(self, row: shown.Row, n: int) -> float | None:
        cost = row["cost"]
        if self.key == "tokens":
            known = cost["input_tokens"] is not None and n
            return (cost["input_tokens"] + cost["output_tokens"]) / n if known else None
        value = cost[self.key]
        return None if value is None else value / self.scale


COST_AXES = (
    CostAxis("p50 latency", "ms", "latency_p50_ms"),
    CostAxis("p95 latency", "ms", "latency_p95_ms"),
    CostAxis("tokens per answer", "in + out", "tokens"),
    CostAxis("training time", "min", "train_seconds", 60),
    CostAxis("indexing time", "s", "index_seconds"),
    CostAxis("answering time", "s", "answer_seconds"),
    CostAxis("trainable parameters", "millions", "trainable_parameters", 1e6),
    CostAxis("artifact size", "MiB", "artifact_bytes", 2**20),
    CostAxis("peak memory", "MiB", "peak_memory_bytes", 2**20),
)


def _ink() -> str:
    """Colour of words inside a chart, which Streamlit's theme does not reach."""
    return "#DDDDDD" if st.context.theme.type == "dark" else "#444444"


def _rows(board: shown.Board, metric: str) -> list[dict[str, Any]]:
    """The rows that have a value for `metric`, as numbers in the unit that is shown."""
    factor = 100 if shown.metric_of(board, metric)["unit"] == "share" else 1
    rows = []
    for row in board["rows"]:
        measured = row["metrics"].get(metric)
        if measured and measured["value"] is not None:
            ends = (measured["ci_low"], measured["ci_high"])
            low, high = ends if None not in ends else (measured["value"], measured["value"])
            rows.append(
                {
                    "variant": figures.plain(row["variant"], line=True),
                    "family": row["family"],
                    "value": factor * measured["value"],
                    "low": factor * low,
                    "high": factor * high,
                    "shown": shown.value(board, row, metric),
                    "interval": shown.bounds(board, row, metric),
                }
            )
    return rows


def _family(rows: Sequence[dict[str, Any]]) -> tuple[Any, Any]:
    present = [name for name in FAMILIES if any(row["family"] == name for row in rows)]
    present += sorted({row["family"] for row in rows} - set(present))
    styles = [FAMILIES.get(name, _OTHER) for name in present]
    legend = alt.Legend(title=None, orient="top", symbolSize=120, symbolOpacity=1)
    colour = alt.Color("family:N", scale=alt.Scale(domain=present, range=[s[0] for s in styles]), legend=legend)
    shape = alt.Shape("family:N", scale=alt.Scale(domain=present, range=[s[1] for s in styles]), legend=legend)
    return colour, shape


def _title(board: shown.Board, metric: str) -> str:
    about = shown.metric_of(board, metric)
    unit = "%" if about["unit"] == "share" else about["unit"]
    return f"{figures.plain(metric, line=True)} ({unit}, {about['direction']} is better)"


def _domain(board: shown.Board, metric: str, rows: Sequence[dict[str, Any]]) -> alt.Scale:
    """Shares from zero to the ten above the highest interval; others as far as their intervals reach."""
    if shown.metric_of(board, metric)["unit"] != "share":
        return alt.Scale(zero=False, nice=True)
    highest = max(row["high"] for row in rows)
    return alt.Scale(domain=[0, min(100, max(10, 10 * math.ceil(highest / 10)))])


def intervals(board: shown.Board, metric: str) -> alt.LayerChart | None:
    """A dot with its 95 % interval for each variant, in the order of the leaderboard; a line at the baseline."""
    rows = _rows(board, metric)
    if not rows:
        return None
    data = pd.DataFrame(rows)
    colour, shape = _family(rows)
    axis = alt.Axis(labelLimit=220, labelFontSize=13, labelFlush=False)
    y = alt.Y("variant:N", sort=[row["variant"] for row in rows], title=None, axis=axis)
    scale, title = _domain(board, metric, rows), _title(board, metric)
    tooltip = [
        alt.Tooltip("variant:N"),
        alt.Tooltip("family:N"),
        alt.Tooltip("shown:N", title=figures.plain(metric, line=True)),
        alt.Tooltip("interval:N", title="95 % interval"),
    ]
    base = alt.Chart(data).encode(y=y, tooltip=tooltip)
    across = {"scale": scale, "title": title, "axis": alt.Axis(tickCount=6)}
    layers = [
        base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", **across), x2="high:Q", color=colour),
        base.mark_tick(thickness=2.5, size=12).encode(x=alt.X("low:Q", **across), color=colour),
        base.mark_tick(thickness=2.5, size=12).encode(x=alt.X("high:Q", **across), color=colour),
        base.mark_point(size=120, filled=True, opacity=1).encode(
            x=alt.X("value:Q", **across), color=colour, shape=shape
        ),
        base.mark_text(align="center", dy=-13, fontSize=12, color=_ink()).encode(
            x=alt.X("value:Q", **across), text="shown:N"
        ),
    ]
    baseline = data[data["variant"] == figures.plain(board["baseline"], line=True)]
    if len(baseline):
        line = alt.Chart(baseline).mark_rule(strokeDash=[4, 4], color=_NEUTRAL).encode(x=alt.X("value:Q", **across))
        layers.insert(0, line)
    return alt.layer(*layers).properties(height=44 * len(rows) + 110)


def quality_against_cost(board: shown.Board, metric: str, cost: CostAxis, *, log: bool) -> alt.LayerChart | None:
    """Each variant at its cost and quality, with the interval of the quality."""
    n = board["heldout"]["n"]
    costs = {figures.plain(row["variant"], line=True): cost.of(row, n) for row in board["rows"]}
    rows = [{**row, "cost": costs[row["variant"]]} for row in _rows(board, metric) if costs[row["variant"]] is not None]
    if not rows:
        return None
    data = pd.DataFrame(rows)
    colour, shape = _family(rows)
    positive = [row["cost"] for row in rows if row["cost"] > 0]
    if log and positive:
        # Costs of zero (no training) have a place on this scale, unlike on a plain logarithmic one.
        x_scale = (
            alt.Scale(type="symlog", constant=min(positive)) if len(positive) < len(rows) else alt.Scale(type="log")
        )
    else:
        x_scale = alt.Scale(zero=True)
    x = alt.X("cost:Q", scale=x_scale, title=f"{cost.name} ({cost.unit}, less is better)", axis=alt.Axis(tickCount=8))
    tooltip = [
        alt.Tooltip("variant:N"),
        alt.Tooltip("family:N"),
        alt.Tooltip("shown:N", title=figures.plain(metric, line=True)),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("cost:Q", title=f"{cost.name} ({cost.unit})", format=",.3~r"),
    ]
    base = alt.Chart(data).encode(x=x, tooltip=tooltip)
    across = {"scale": _domain(board, metric, rows), "title": _title(board, metric)}
    layers = [
        base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", **across), y2="high:Q", color=colour),
        base.mark_point(size=150, filled=True, opacity=1).encode(
            y=alt.Y("value:Q", **across), color=colour, shape=shape
        ),
    ]
    # The names of the costliest stand to the left, where there is room for them.
    far = 0.9 * max(row["cost"] for row in rows)
    for align, dx, test in (("left", 11, alt.datum.cost < far), ("right", -11, alt.datum.cost >= far)):
        text = base.transform_filter(test).mark_text(align=align, dx=dx, dy=-9, fontSize=13, color=_ink())
        layers.append(text.encode(y=alt.Y("value:Q", **across), text="variant:N"))
    return alt.layer(*layers).properties(height=420)


def spread_out(values: Sequence[float]) -> bool:
    """Whether a logarithmic scale shows these costs better than a plain one."""
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) / min(positive) > 20
