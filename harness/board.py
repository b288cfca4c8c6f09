"""The leaderboard as text: a Markdown table to paste, and a table for the terminal. Both show what `build` made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import figures

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.text import Text

Board = Mapping[str, Any]
Row = Mapping[str, Any]
Clean = Callable[[str], str]

_REASON = 400
"""Characters of a failed row's reason; the rest stands in the run."""
_STYLES = {"better": "green", "worse": "red"}


def metric_of(board: Board, name: str) -> dict[str, Any]:
    """Return the description of a metric; one that nothing measured yet counts as a share."""
    found = next((metric for metric in board["metrics"] if metric["name"] == name), None)
    return found or {"name": name, "unit": "share", "direction": "higher"}


def value(board: Board, row: Row, name: str) -> str:
    measured = row["metrics"].get(name)
    return figures.score(measured["value"] if measured else None, metric_of(board, name)["unit"])


def bounds(board: Board, row: Row, name: str) -> str:
    measured = row["metrics"].get(name)
    if not measured or measured["value"] is None:
        return figures.NONE
    return figures.bounds(measured["ci_low"], measured["ci_high"], metric_of(board, name)["unit"])


def change(board: Board, row: Row) -> tuple[str, str]:
    """Return the difference from the baseline and its interval, as text."""
    if row["variant"] == board["baseline"]:
        return "baseline", ""
    found, unit = row["vs_baseline"], metric_of(board, board["primary"])["unit"]
    if not found or found["difference"] is None:
        return figures.NONE, ""
    return figures.change(found["difference"], unit), figures.change_bounds(found["ci_low"], found["ci_high"], unit)


def verdict(row: Row) -> str:
    """Return "better", "worse" or "cannot tell" than the baseline; "" where nothing was compared (older boards too)."""
    return str((row["vs_baseline"] or {}).get("verdict") or "")


def place(row: Row) -> str:
    """Return the place, which variants that cannot be told apart share."""
    return str(row["rank"] or figures.NONE)


def ranks(row: Row) -> str:
    """Return the ranks that a variant may have, "1 to 3"; "" where they are one, or were not computed."""
    low, high = row.get("rank_low"), row.get("rank_high")
    return f"{low} to {high}" if low and high and low != high else ""


def errors(row: Row) -> int:
    return max((measured["errors"] for measured in row["metrics"].values() if measured), default=0)


def reason(row: Row) -> str:
    return figures.short(row["error"] or "no reason was recorded", _REASON)


def tokens(board: Board, row: Row) -> str:
    """Return input and output tokens of one answer, "412 + 9"."""
    cost, n = row["cost"], board["heldout"]["n"]
    if cost["input_tokens"] is None:
        return figures.NONE
    return f"{figures.per(cost['input_tokens'], n)} + {figures.per(cost['output_tokens'], n)}"


def others(board: Board) -> list[str]:
    """Return the names of the metrics that do not rank."""
    return [metric["name"] for metric in board["metrics"] if metric["name"] != board["primary"]]


def legend(board: Board, clean: Clean = figures.plain) -> list[str]:
    """Return the sentences without which the numbers cannot be read: what, of how many, by which method; the notes."""
    heldout, metric = board["heldout"], metric_of(board, board["primary"])
    groups = f" in {figures.counted(heldout['groups'], 'group')}" if heldout["groups"] else ""
    examples = figures.counted(heldout["n"], "held-out example")
    measured = [row["metrics"].get(metric["name"]) for row in board["rows"]]
    methods = _listed(found["method"] for found in measured if found)
    versus = _listed(row["vs_baseline"]["method"] for row in board["rows"] if row["vs_baseline"])
    unit = ", in percentage points" if metric["unit"] == "share" else ""
    lines = [
        f"{clean(metric['name'])} ({metric['direction']} is better) on {examples}{groups}."
        + (f" 95 % intervals: {methods}." if methods else "")
        + (f" Differences from {clean(board['baseline'])}{unit}: {versus}." if versus else "")
    ]
    lines += _testing(board, clean)
    if any(errors(row) for row in board["rows"]):
        lines.append("Examples without an answer count as the worst score, and are counted as errors.")
    lines += _measuring(board)
    total = board["total"]
    if total["seconds"]:
        parts = (("training", "train"), ("indexing", "index"), ("answering", "answer"))
        spent = [f"{word} {figures.seconds(total[f'{key}_seconds'])}" for word, key in parts if total[f"{key}_seconds"]]
        lines.append(
            f"The whole experiment took {figures.seconds(total['seconds'])} ({', '.join(spent)}); "
            "work that variants share counts once here, and in full for each of them above."
        )
    return lines + [clean(note) for note in board["notes"]]


def _testing(board: Board, clean: Clean) -> list[str]:
    """How differences were tested, what the design can show, and how places came about; nothing of older boards."""
    how = board.get("comparisons")
    if not how:
        return []
    lines = []
    versus = [row["vs_baseline"] for row in board["rows"] if row["vs_baseline"]]
    unit = metric_of(board, board["primary"])["unit"]
    tests = _listed(one["test"] for one in versus if one["p"] is not None)
    if tests:
        several = f", p adjusted by {how['correction']} over {how['family']} comparisons" if how["family"] > 1 else ""
        lines.append(f"Test: {tests}{several}; better or worse at alpha {how['alpha']:g}.")
    lines += _untested(board, clean)
    lines += _within(board, unit, clean)
    found = [one["minimum_detectable"] for one in versus if one["minimum_detectable"] is not None]
    if found:
        low, high = (figures.size_of_change(end, unit) for end in (min(found), max(found)))
        span = high if low == high else f"{low.removesuffix(' points')} to {high}"
        lines.append(
            f"Smallest true difference that such a comparison, taken alone, finds with {100 * how['power']:.0f} % "
            f"power: {span}."
        )
    open_ones = [
        f"{clean(figures.plain(row['variant'], line=True))} {row['vs_baseline']['needed']:,}"
        for row in board["rows"]
        if row["vs_baseline"] and row["vs_baseline"]["needed"]
    ]
    if open_ones:
        lines.append(f"Examples in all that would settle what is open, if differences stay: {', '.join(open_ones)}.")
    ranked = sum(row["rank"] is not None for row in board["rows"])
    if ranked > 1:
        adjusted = f", p adjusted by {how['correction']} over {how['pairs']:,} tests" if how["pairs"] > 1 else ""
        lines.append(
            f"Variants that cannot be told apart share a place (pairs told apart: {how['told_apart']:,} of "
            f"{math.comb(ranked, 2):,}{adjusted}); below it, the ranks that a variant may have."
        )
    return lines


def _within(board: Board, unit: str, clean: Clean) -> list[str]:
    """Which variants that are not better than the baseline are shown to be no worse, or as good; nothing of older
    boards."""
    no_worse: list[str] = []
    as_good: list[str] = []
    tests: list[str] = []
    margin = None
    for row in board["rows"]:
        found = row["vs_baseline"] or {}
        shown = found.get("non_inferiority")
        if shown and shown["holds"] and found["verdict"] != "better":
            margin = shown["margin"]
            name = clean(figures.plain(row["variant"], line=True))
            if found["equivalence"]["holds"]:
                as_good.append(name)
                tests.append(found["equivalence"]["test"])
            else:
                no_worse.append(name)
                tests.append(shown["test"])
    if margin is None:
        return []
    size, base = figures.size_of_change(margin, unit), clean(board["baseline"])
    said = [f"no worse than {base} by more than {size}: {', '.join(no_worse)}"] if no_worse else []
    said += [f"within {size} of {base}: {', '.join(as_good)}"] if as_good else []
    tested = sum(bool((row["vs_baseline"] or {}).get("non_inferiority")) for row in board["rows"])
    adjusted = f", p adjusted by {board['comparisons']['correction']}" if tested > 1 else ""
    return [f"Shown to be {'; '.join(said)} ({_listed(tests)}{adjusted})."]


def _untested(board: Board, clean: Clean) -> list[str]:
    """Which variants could not be tested against the baseline, by the reason."""
    reasons: dict[str, list[str]] = {}
    for row in board["rows"]:
        found = row["vs_baseline"]
        if found and found["p"] is None:
            why = found["test"].removeprefix("n/a (").removesuffix(")")
            reasons.setdefault(why, []).append(clean(figures.plain(row["variant"], line=True)))
    told = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
    return [f"Not tested against {clean(board['baseline'])}: {told}."] if told else []


def _measuring(board: Board) -> list[str]:
    """One sentence on what the costs hold, of those that were measured; none where nothing was."""
    costs = [row["cost"] for row in board["rows"]]
    said = []
    if sizes := sorted({row["latency_examples"] for row in board["rows"] if row.get("latency_examples")}):
        counts = " or ".join(f"{size:,}" for size in sizes)
        merged = ", adapters not merged" if any(cost["train_seconds"] for cost in costs) else ""
        said.append(f"p50/p95 latency is of single requests, batch 1{merged}, on {counts} held-out questions")
    if any(cost["train_seconds"] for cost in costs):
        said.append("training includes starting its process")
    if any(cost["answer_seconds"] for cost in costs):
        said.append("answering excludes loading the model")
    return [f"{'; '.join(said)}."] if said else []


def _listed(methods: Iterable[str]) -> str:
    """The methods, each once; what is said of seeds stands in a note."""
    return " / ".join(dict.fromkeys(method.partition(";")[0] for method in methods))


# -------------------------------------------------------------------------------------------------------- Markdown


def markdown(board: Board) -> str:
    """Return the leaderboard as Markdown: title, question, a table, reasons of failed rows, legend."""
    primary, rest = board["primary"], others(board)
    head = ["#", "ranks", "variant", "family", primary, "95 % interval"]
    head += [f"vs {board['baseline']}", "95 % interval", "verdict", "p", *rest]
    head += ["p50 latency", "tokens per answer (in + out)", "training", "artifact", "errors"]
    left = {2, 3, 8}
    rows = [[_escaped(cell) for cell in _cells(board, row, rest)] for row in board["rows"]]
    lines = [f"# {_escaped(board['experiment'])}", "", _escaped(board["question"]), ""]
    lines += [_line([_escaped(cell) for cell in head])]
    lines += [_line([":---" if i in left else "---:" for i in range(len(head))])]
    lines += [_line(row) for row in rows]
    failed = [row for row in board["rows"] if row["status"] == "failed"]
    lines += [""] if failed else []
    lines += [f"- **{_escaped(row['variant'])} failed:** {_escaped(reason(row))}" for row in failed]
    for sentence in legend(board, _escaped):
        lines += ["", sentence]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return figures.markdown(text)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(board: Board, row: Row, rest: Sequence[str]) -> list[str]:
    cost, primary = row["cost"], board["primary"]
    shown = value(board, row, primary) if row["status"] == "complete" else row["status"]
    return [
        place(row),
        ranks(row) or place(row),
        row["variant"],
        row["family"],
        shown,
        bounds(board, row, primary),
        *change(board, row),
        verdict(row),
        figures.p((row["vs_baseline"] or {}).get("p_holm")),
        *(value(board, row, name) for name in rest),
        figures.milliseconds(cost["latency_p50_ms"]),
        tokens(board, row),
        figures.seconds(cost["train_seconds"] or None),
        figures.size(cost["artifact_bytes"] or None),
        str(errors(row)) if row["status"] == "complete" else figures.NONE,
    ]


# -------------------------------------------------------------------------------------------------------- terminal


def table(board: Board) -> RenderableType:
    """Return the leaderboard for a terminal. It fits in 100 columns; wider terminals show more metrics."""
    return _Terminal(board)


@dataclass(frozen=True)
class _Column:
    """Cells may have two lines. Of columns that do not fit, those with the highest `spare` are left out first."""

    name: str
    heading: str
    cells: list[Text]
    right: bool = True
    spare: int = 0

    @property
    def width(self) -> int:
        from rich.cells import cell_len

        lines = [line for text in (self.heading, *(cell.plain for cell in self.cells)) for line in text.split("\n")]
        return max(cell_len(line) for line in lines)


@dataclass(frozen=True)
class _Terminal:
    board: Board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        columns = self._columns()
        left_out: list[str] = []
        while _width(columns, 1) > options.max_width and any(column.spare for column in columns):
            last = max(columns, key=lambda column: column.spare)
            columns.remove(last)
            left_out.insert(0, last.name)
        gap = 2 if _width(columns, 2) <= options.max_width else 1
        # The box itself puts one space between two columns.
        name = f"{self.board['experiment']}@{self.board['snapshot']}"
        yield Text.assemble((name, "bold cyan"), "  ", (figures.plain(self.board["question"]), "bold"))
        grid = Table(
            box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold"
        )
        for column in columns:
            grid.add_column(
                Text(column.heading),
                justify="right" if column.right else "left",
                no_wrap=column.name != "variant",
                overflow="fold",
            )
        for cells in zip(*(column.cells for column in columns), strict=True):
            grid.add_row(*cells)
        yield grid
        yield Text()
        for row in self.board["rows"]:
            if row["status"] == "failed":
                yield Text(f"{figures.plain(row['variant'], line=True)} failed: {reason(row)}", style="red")
        for sentence in legend(self.board):
            yield Text(sentence, style="dim")
        if left_out:
            yield Text(f"Not shown in this width: {', '.join(left_out)}.", style="dim")

    def _columns(self) -> list[_Column]:
        from rich.text import Text

        board, rows, primary = self.board, self.board["rows"], self.board["primary"]
        baseline = figures.short(board["baseline"], 16)
        names = others(board)
        metrics = [
            _Column(name, figures.short(name, 20), [Text(value(board, row, name)) for row in rows], spare=10 + place)
            for place, name in enumerate(names)
        ]
        latency = [Text(figures.milliseconds(row["cost"]["latency_p50_ms"])) for row in rows]
        spent = [Text(figures.seconds(row["cost"]["train_seconds"] or None)) for row in rows]
        return [
            _Column("rank", "#", [_two(place(row), ranks(row)) for row in rows]),
            _Column("variant", "variant\nfamily", [_name(row) for row in rows], right=False),
            _Column(primary, f"{figures.short(primary, 20)}\n95 % interval", [self._primary(row) for row in rows]),
            _Column("difference", f"vs {baseline}\n95 % interval", [self._change(row) for row in rows]),
            *metrics,
            _Column("p50 latency", "p50\nlatency", latency, spare=2),
            _Column("tokens", "tokens\nin + out", [Text(tokens(board, row)) for row in rows], spare=3),
            _Column("training time", "training", spent, spare=1),
        ]

    def _primary(self, row: Row) -> Text:
        from rich.text import Text

        if row["status"] != "complete":
            return Text(row["status"], style="bold red" if row["status"] == "failed" else "yellow")
        name = self.board["primary"]
        return _two(value(self.board, row, name), bounds(self.board, row, name))

    def _change(self, row: Row) -> Text:
        from rich.text import Text

        first, second = change(self.board, row)
        said = verdict(row)
        return Text.assemble(
            (f"{said} " if said else "", _STYLES.get(said, "dim")), (first, "bold"), "\n", (second, "dim")
        )


def _width(columns: Sequence[_Column], gap: int) -> int:
    return sum(column.width for column in columns) + gap * (len(columns) - 1)


def _two(first: str, second: str) -> Text:
    from rich.text import Text

    return Text.assemble((first, "bold"), "\n", (second, "dim"))


def _name(row: Row) -> Text:
    from rich.text import Text

    red = "bold red" if row["status"] == "failed" else "bold"
    text = Text.assemble(
        (figures.short(row["variant"], 24), red), "\n", (figures.plain(row["family"], line=True), "dim")
    )
    if count := errors(row):
        text.append(f", {count:,} error{'s' if count > 1 else ''}", style="yellow")
    return text
