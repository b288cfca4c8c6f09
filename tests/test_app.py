from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import written_store as written
from streamlit.testing.v1 import AppTest

from harness.page import charts, ranking, results, side_by_side, words
from harness.store import Store

APP = Path(__file__).parent.parent / "app.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("app")
    written.write(root)
    return root


def opened(root: Path, monkeypatch: pytest.MonkeyPatch, **query: str) -> AppTest:
    """The page as a browser gets it, at the address with this query."""
    monkeypatch.setenv("HARNESS_RESULTS", str(root))
    monkeypatch.setattr(sys, "argv", ["app.py"])
    page = AppTest.from_file(str(APP), default_timeout=60)
    for name, value in query.items():
        page.query_params[name] = value
    page.run()
    assert not page.exception
    return page


def pressed(page: AppTest, label: str) -> None:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception


def said(page: AppTest) -> str:
    """Every word on the page outside charts and tables."""
    kinds = (page.title, page.subheader, page.text, page.code, page.caption, page.markdown, page.info, page.error)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def test_the_leaderboard_shows_every_variant_with_the_figures_of_the_stored_board(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(finished, monkeypatch)
    board = Store(finished, write=False).snapshot("support").leaderboard
    assert board is not None
    frame = page.dataframe[0].value
    assert list(frame["variant"]) == [row["variant"] for row in board["rows"]]
    assert frame["exact_match"].iloc[0] == board["rows"][0]["metrics"]["exact_match"]["value"]
    assert frame["95 % interval"].iloc[0] == "53.8 to 88.6"
    assert list(frame["family"])[:3] == ["hybrid", "fine-tuning", "RAG"]
    text = said(page)
    assert "lora-64: ModelError: out of memory" in text
    assert "Wilson at effective n, clustered by group" in text
    assert "Several seeds" in text


def test_the_verdict_and_the_shared_place_stand_beside_the_difference(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = opened(finished, monkeypatch).dataframe[0].value
    at = list(frame.columns).index("its 95 % interval")
    assert list(frame.columns)[at + 1 : at + 3] == ["verdict", "possible ranks"]
    board = Store(finished, write=False).snapshot("support").leaderboard
    assert board is not None
    told = {row["variant"]: (row["vs_baseline"] or {}).get("verdict") for row in board["rows"]}
    assert {"better", "cannot tell", None} <= set(told.values())
    seen = {
        name: said if isinstance(said, str) else None
        for name, said in zip(frame["variant"], frame["verdict"], strict=True)
    }
    assert seen == told
    row = board["rows"][0]
    assert frame["possible ranks"].iloc[0] == f"{row['rank_low']} to {row['rank_high']}"
    assert frame["possible ranks"].iloc[-1] == "–"


def test_a_board_of_an_older_harness_has_no_verdict(finished: Path) -> None:
    board = Store(finished, write=False).snapshot("support").leaderboard
    assert board is not None
    old = ("difference", "ci_low", "ci_high", "method")
    for row in board["rows"]:
        row["vs_baseline"] = row["vs_baseline"] and {key: row["vs_baseline"][key] for key in old}
        del row["rank_low"], row["rank_high"]
    del board["comparisons"]
    frame = ranking.table(board).data
    assert "verdict" not in frame and "possible ranks" not in frame and f"vs {board['baseline']}" in frame


def test_charts_hold_the_intervals_and_the_costs(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(finished, monkeypatch, cost="training time")
    charts = page.get("vega_lite_chart") or page.get("arrow_vega_lite_chart")
    assert len(charts) == 2
    first, second = (json.loads(chart.proto.spec) for chart in charts)
    marks = {layer["mark"]["type"] for layer in first["layer"]}
    assert {"rule", "tick", "point", "text"} <= marks
    assert "training time (min" in json.dumps(second)


def test_an_axis_of_shares_begins_at_zero_and_ends_above_the_highest_interval(finished: Path) -> None:
    board = Store(finished, write=False).snapshot("support").leaderboard
    assert board is not None
    for high, end in ((0.0, 10), (14.4, 20), (89.2, 90), (100.0, 100)):
        assert charts._domain(board, "exact_match", [{"high": 1.0}, {"high": high}]).to_dict() == {"domain": [0, end]}


def test_the_state_is_a_column_only_where_not_every_run_is_complete(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "state" in opened(finished, monkeypatch).dataframe[0].value
    written.write(tmp_path, written.VARIANTS[:2])
    assert "state" not in opened(tmp_path, monkeypatch).dataframe[0].value


def test_a_metric_that_is_no_mean_over_examples_judges_no_single_one(finished: Path) -> None:
    store = Store(finished, write=False)
    run = next(run for run in store.snapshot("support").runs() if run.variant == "raft")
    score = store.step(run.steps["score.exact_match"]).score()
    place = score.statistics.index((1.0,))
    other = replace(score, reducer="ratio", statistics=tuple((1.0, 2.0) for _ in score.statistics))
    for given, value, is_right in ((score, 1.0, True), (other, None, False)):
        side = side_by_side.Side("a", "raft", run, {"exact_match": given})
        assert side.value("exact_match", place) == value
        assert side_by_side.right(given, place) is is_right


def test_the_winner_and_the_baseline_stand_side_by_side_at_first(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(finished, monkeypatch)
    assert (page.selectbox(key="a").value, page.selectbox(key="b").value) == ("raft", "zero-shot")
    assert "lora (seed 1)" in page.selectbox(key="a").options
    assert "lora-64" not in page.selectbox(key="a").options
    text = said(page)
    assert "How long is the Brio covered?" in text and "24 months [KB-003]" in text
    assert "420 tokens in, 9 out" in text


def test_an_address_opens_the_very_state_it_names(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(finished, monkeypatch, experiment="support", a="rag", b="lora (seed 1)", example="8")
    assert (page.selectbox(key="a").value, page.selectbox(key="b").value) == ("rag", "lora (seed 1)")
    assert "How often do burrs need replacing?" in said(page)
    assert "the prompt has 9,000 tokens, the model takes 8,192" in said(page)
    assert ":red-badge[:material/error: no answer]" in said(page)


def test_an_address_that_names_nothing_known_still_opens(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(finished, monkeypatch, experiment="gone", a="gone", example="999", show="gone", metric="gone")
    assert page.selectbox(key="experiment").value == "support"
    assert page.selectbox(key="a").value == "raft"


def test_next_and_previous_go_round_the_examples_of_the_chosen_kind(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened(finished, monkeypatch, a="lora (seed 0)", b="lora (seed 1)")
    page.selectbox(key="show").set_value("A right, B wrong").run()
    store = Store(finished, write=False)
    runs = {(run.variant, run.seed): run for run in store.snapshot("support").runs()}
    sides = (("lora", 0), ("lora", 1))
    ours, theirs = (store.step(runs[side].steps["score.exact_match"]).score() for side in sides)
    wanted = [
        place + 1
        for place, (a, b) in enumerate(zip(ours.statistics, theirs.statistics, strict=True))
        if a == (1.0,) and b == (0.0,)
    ]
    assert len(wanted) > 1
    seen = [page.number_input(key="example").value]
    for _ in wanted:
        pressed(page, "next")
        seen.append(page.number_input(key="example").value)
    assert seen == [*wanted, wanted[0]]
    pressed(page, "previous")
    assert page.number_input(key="example").value == wanted[-1]
    assert f"{len(wanted)} of {len(wanted)} of this kind" in said(page)


def test_the_gold_document_is_marked_or_said_to_be_missing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(finished, write=False)
    run = next(run for run in store.snapshot("support").runs() if run.variant == "rag")
    recall = store.step(run.steps["score.recall@3"]).score().statistics
    for value, words_shown in ((1.0, "gold document]"), (0.0, "gold document not retrieved]")):
        place = recall.index((value,))
        page = opened(finished, monkeypatch, a="rag", b="zero-shot", example=str(place + 1))
        assert words_shown in said(page)


def test_words_of_a_model_are_never_markdown_or_html(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(finished, monkeypatch, example="5")
    shown = [element.value for element in page.code if "<script>" in element.value]
    assert shown == ['<script>alert("x")</script> ![p](http://x.test/p.png) red | [bold]cell[/bold] evil'] * 2
    for element in (*page.markdown, *page.caption, *page.title, *page.info):
        assert "script" not in str(element.value)
    assert not any(element.proto.allow_html for element in page.markdown)


def test_a_title_shows_markup_as_it_is() -> None:
    assert words.title("*a* <b> [c](http://d.test)") == ("\\*a\\* \\<b\\> \\[c\\]\\(http\\:\\/\\/\u2060d\\.test\\)")


def test_an_empty_folder_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = opened(tmp_path / "missing", monkeypatch)
    assert page.title[0].value == "No results yet"
    assert "make demo" in said(page)
    assert not (tmp_path / "missing").exists()


def test_a_folder_of_a_newer_version_and_a_damaged_experiment_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written.write(tmp_path, written.VARIANTS[:1])
    plan = tmp_path / "experiments" / "support" / "1" / "snapshot.json"
    plan.write_text("{", encoding="utf-8")
    assert "harness delete support@1" in said(opened(tmp_path, monkeypatch))
    (tmp_path / "VERSION").write_text('{"format": 99}', encoding="utf-8")
    assert "newer harness" in said(opened(tmp_path, monkeypatch))


def test_a_running_experiment_fills_up_as_runs_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, runs = written.begin(Store(tmp_path), written.VARIANTS[:2])
    page = opened(tmp_path, monkeypatch)
    assert "No variant has been measured yet" in said(page) and "No run is complete yet" in said(page)
    assert list(page.dataframe[0].value["state"]) == ["waiting", "waiting"]
    snapshot.save_run(runs[1])
    page.run()
    assert not page.exception
    assert list(page.dataframe[0].value["state"]) == ["complete", "waiting"]
    snapshot.close()


def test_an_older_snapshot_and_another_experiment_can_be_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written.write(tmp_path, written.VARIANTS[:1])
    written.write(tmp_path, written.VARIANTS[:2])
    other = [replace(example, input=f"{example.input} Please.") for example in written.examples()[:6]]
    written.write(tmp_path, (written.VARIANTS[2],), name="second", rows=other)
    page = opened(tmp_path, monkeypatch, example="5")
    assert page.selectbox(key="experiment").value == "second"
    page.selectbox(key="experiment").set_value("support").run()
    assert not page.exception
    assert page.selectbox(key="snapshot").value == "2" and len(page.dataframe[0].value) == 2
    page.selectbox(key="snapshot").set_value("1").run()
    assert not page.exception and len(page.dataframe[0].value) == 1


def test_the_folder_comes_from_the_command_line_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_RESULTS", "from-environment")
    assert results.folder(["--results", "given", "--other"]) == Path("given")
    assert results.folder([]) == Path("from-environment")
    monkeypatch.delenv("HARNESS_RESULTS")
    assert results.folder([]) == Path("results")


def test_the_page_process_loads_no_torch_and_no_plugin(finished: Path) -> None:
    code = (
        "import json, sys\n"
        "from streamlit.testing.v1 import AppTest\n"
        f"page = AppTest.from_file({str(APP)!r}, default_timeout=60).run()\n"
        "assert not page.exception and len(page.dataframe) == 1\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    environment = {**os.environ, "HARNESS_RESULTS": str(finished)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, timeout=120
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    heavy = {"torch", "transformers", "peft", "trl", "datasets", "wandb", "faiss", "sentence_transformers"}
    writing = {"harness.plugins", "harness.spec", "harness.data", "harness.pipeline", "harness.runner"}
    assert not loaded & (heavy | writing)
