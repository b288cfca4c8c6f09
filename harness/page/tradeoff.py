"""Quality against cost: what a better answer costs, in the currency that the reader chooses."""

from __future__ import annotations

import streamlit as st

from harness import board as shown
from harness.page import charts


def show(board: shown.Board, metric: str) -> None:
    st.subheader("Quality against cost", anchor="cost")
    n = board["heldout"]["n"]
    measured = [axis for axis in charts.COST_AXES if any(axis.of(row, n) for row in board["rows"])]
    if not measured:
        st.info("No cost has been measured yet.")
        return
    names = [axis.name for axis in measured]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox("Cost", names, key="cost", bind="query-params", width=320)
        axis = measured[names.index(name)]
        costs = [value for row in board["rows"] if (value := axis.of(row, n)) is not None]
        # A key of its own for each cost: whether a logarithm serves depends on the figures.
        log = st.toggle("logarithmic", value=charts.spread_out(costs), key=f"log {axis.key}")
    chart = charts.quality_against_cost(board, metric, axis, log=log)
    if chart is None:
        st.info("No variant has both this metric and this cost. Choose another cost.")
    else:
        st.altair_chart(chart, alt=f"Each variant's quality against its {axis.name}")
