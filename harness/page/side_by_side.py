"""Two variants on one example: question, gold, passages, answers, who was right by which metric, tokens, errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from harness import board as shown
from harness import figures
from harness.page.results import score_of
from harness.records import Example, Passage, Prediction, Run, Score
from harness.store import Snapshot, Store

ALL = "all examples"


@dataclass(frozen=True)
class Side:
    """One of the two, "a" or "b": a run, and the name under which the reader chose it."""

    slot: str
    name: str
    run: Run
    scores: dict[str, Score]

    def value(self, metric: str, place: int) -> float | None:
        """What the metric says of one example; None where it says nothing of it, or of no single example at all."""
        score = self.scores.get(metric)
        values = score.statistics[place] if score and score.reducer == "mean" else None
        return values[0] if values else None


def show(board: shown.Board, snapshot: Snapshot, store: Store) -> None:
    st.subheader("Two variants on one example", anchor="examples")
    runs = _named(snapshot.runs())
    if not runs:
        st.info("No run is complete yet. Reload this page when the first one has ended.")
        return
    examples = snapshot.examples()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        first, second = _sides(board, runs, store)
        only = _filter(board["primary"], first, second)
    found = _matching(only, board["primary"], first, second, len(examples))
    if not found:
        st.info("No example is of this kind. Choose another filter.")
        return
    place = _place(found, len(examples))
    example = examples[place]
    _question(example)
    for column, side in zip(st.columns(2, gap="medium"), (first, second), strict=True):
        with column:
            _answer(board, side, store, example, place)


# ------------------------------------------------------------------------------------------------------- choosing


def _named(runs: Sequence[Run]) -> dict[str, Run]:
    """The complete runs by the name that the reader sees; the seed is named where there are several."""
    complete = [run for run in runs if run.status == "complete"]
    several = {run.variant for run in complete if sum(other.variant == run.variant for other in complete) > 1}
    return {f"{run.variant} (seed {run.seed})" if run.variant in several else run.variant: run for run in complete}


def _sides(board: shown.Board, runs: dict[str, Run], store: Store) -> tuple[Side, Side]:
    names = list(runs)
    order = [row["variant"] for row in board["rows"] if row["rank"]]
    best = next((i for i, name in enumerate(names) if order and runs[name].variant == order[0]), 0)
    base = next((i for i, name in enumerate(names) if runs[name].variant == board["baseline"] and i != best), None)
    if base is None:
        base = next((i for i in range(len(names)) if i != best), best)
    chosen = [
        st.selectbox(label, names, index=index, key=key, bind="query-params", width=260)
        for label, key, index in (("A", "a", best), ("B", "b", base))
    ]
    first, second = (_side(slot, name, runs[name], store) for slot, name in zip("ab", chosen, strict=True))
    return first, second


def _side(slot: str, name: str, run: Run, store: Store) -> Side:
    steps = {role.removeprefix("score."): step for role, step in run.steps.items() if role.startswith("score.")}
    return Side(slot, name, run, {metric: score_of(str(store.root), step) for metric, step in steps.items()})


def _filter(primary: str, first: Side, second: Side) -> str:
    options = [ALL]
    if primary in first.scores and primary in second.scores:
        options = list(_KINDS)
    return st.selectbox("Show", options, key="show", bind="query-params", width=260)


_KINDS: dict[str, Callable[[bool, bool], bool]] = {
    ALL: lambda a, b: True,
    "A right, B wrong": lambda a, b: a and not b,
    "A wrong, B right": lambda a, b: b and not a,
    "both right": lambda a, b: a and b,
    "both wrong": lambda a, b: not (a or b),
}
"""What the filter keeps, by whether A and B are wholly right on the primary metric."""


def right(score: Score, place: int) -> bool:
    """Whether an example reaches the best that its metric can say."""
    values = score.statistics[place]
    best = score.ceiling if score.direction == "higher" else score.floor
    return score.reducer == "mean" and values is not None and values[0] == best


def _matching(only: str, primary: str, first: Side, second: Side, n: int) -> Sequence[int]:
    if only == ALL:
        return range(n)
    a, b, keep = first.scores[primary], second.scores[primary], _KINDS[only]
    return [place for place in range(n) if keep(right(a, place), right(b, place))]


def _place(found: Sequence[int], n: int) -> int:
    """Let the reader go through the examples of this kind; return the row of the one chosen."""
    state = st.session_state
    if "example" in state and state["example"] - 1 not in found:
        state["example"] = found[0] + 1

    def go(step: int) -> None:
        state["example"] = found[(found.index(state["example"] - 1) + step) % len(found)] + 1

    with st.container(horizontal=True, vertical_alignment="bottom"):
        number = st.number_input(
            f"Example (1 to {n:,})", 1, n, found[0] + 1, key="example", bind="query-params", width=160
        )
        st.button("previous", icon=":material/chevron_left:", on_click=go, args=(-1,), shortcut="Left")
        st.button(
            "next", icon=":material/chevron_right:", icon_position="right", on_click=go, args=(1,), shortcut="Right"
        )
        place = number - 1 if number - 1 in found else found[0]
        if len(found) < n:
            st.text(f"{found.index(place) + 1:,} of {len(found):,} of this kind")
    return place


# -------------------------------------------------------------------------------------------------------- showing


def _question(example: Example) -> None:
    with st.container(border=True, gap="xsmall"):
        st.caption("Question")
        st.text(figures.plain(example.input))
        st.caption("Gold answer" if len(example.targets) == 1 else "Gold answers, any of them")
        for target in example.targets or ("none",):
            st.text(figures.plain(target))
        about = [f"id {example.id}", f"group {example.group}" if example.group else "", *example.tags]
        st.text(figures.plain(" · ".join(filter(None, about)), line=True))


def _answer(board: shown.Board, side: Side, store: Store, example: Example, place: int) -> None:
    prediction = store.step(side.run.steps["predict"]).prediction(place)
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.text(figures.plain(side.name, line=True))
            st.badge(side.run.family, color="gray")
        _verdicts(board, side, place)
        if prediction.error is not None:
            st.badge("no answer", color="red", icon=":material/error:")
            st.code(figures.plain(prediction.error), language=None, wrap_lines=True)
        else:
            st.code(figures.plain(prediction.text or ""), language=None, wrap_lines=True)
        st.text(_spent(prediction))
        _passages(prediction.passages, example)
        with st.expander("What the model was asked", key=f"asked {side.slot}"):
            for call in prediction.calls:
                for message in call.messages:
                    st.caption(message.role)
                    st.code(figures.plain(message.content), language=None, wrap_lines=True)


def _verdicts(board: shown.Board, side: Side, place: int) -> None:
    """One line for each metric: right, wrong, or how much."""
    with st.container(horizontal=True, gap="small"):
        for metric in (board["primary"], *shown.others(board)):
            value = side.value(metric, place)
            if value is None:
                continue
            unit = shown.metric_of(board, metric)["unit"]
            full, none = right(side.scores[metric], place), value == side.scores[metric].floor
            with st.container(horizontal=True, gap="xsmall", width="content", vertical_alignment="center"):
                if full:
                    st.badge("right", color="green", icon=":material/check:")
                elif none:
                    st.badge("wrong", color="red", icon=":material/close:")
                else:
                    st.badge(figures.score(value, unit), color="orange", icon=":material/contrast:")
                st.text(figures.plain(metric, line=True))


def _spent(prediction: Prediction) -> str:
    calls = f", {len(prediction.calls)} calls" if len(prediction.calls) > 1 else ""
    return (
        f"{prediction.input_tokens:,} tokens in, {prediction.output_tokens:,} out, "
        f"{figures.seconds(prediction.seconds)} of its batch{calls}"
    )


def _passages(passages: Sequence[Passage], example: Example) -> None:
    if not passages:
        return
    gold = set(example.sources)
    missing = gold - {passage.document for passage in passages}
    st.caption("Passages, best first")
    if missing:
        st.badge("gold document not retrieved", color="red", icon=":material/search_off:")
    for passage in passages:
        with st.container(border=True, gap="xsmall"):
            with st.container(horizontal=True, vertical_alignment="center"):
                rank = "" if passage.rank is None else f"{passage.rank}. "
                score = "" if passage.score is None else f"  (score {passage.score:.3g})"
                st.text(f"{rank}{figures.plain(passage.id, line=True)}{score}")
                if passage.document in gold:
                    st.badge("gold document", color="green", icon=":material/star:")
            st.text(figures.plain(passage.text))
