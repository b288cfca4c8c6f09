"""`harness data check`, and what a run does and says about leaks."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from comparison import FRUIT, LEARNT, Comparison

ASK = "In which of the four seasons does the tree that bears the {} shed its leaves in a mild climate?"


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return Comparison(tmp_path)


def leak(comparison: Comparison, text: str, fruit: str = "pear") -> None:
    """One more row to learn from, and a long held-out question that it may copy."""
    row = {"id": "long", "input": ASK.format("quince"), "target": "autumn", "fruit": "quince"}
    for split, more in (("heldout", row), ("train", {"id": "copy", "input": text, "target": "autumn", "fruit": fruit})):
        with (comparison.folder / f"{split}.jsonl").open("a") as stream:
            stream.write(json.dumps(more) + "\n")
    (comparison.folder / "pages" / "quince.md").write_text("The quince is yellow.")
    (comparison.folder / "pages" / "pear.md").write_text("The pear is green.")


def check(comparison: Comparison, *more: str) -> tuple[int, dict]:
    done = comparison.call("data", "check", str(comparison.spec), "--json", *more)
    return done.status, done.json


def test_clean_data_are_described_and_pass(comparison: Comparison) -> None:
    status, found = check(comparison)
    assert status == 0
    assert found["splits"]["heldout"]["rows"] == len(FRUIT)
    assert (found["splits"]["train"]["rows"], found["splits"]["train"]["groups"]) == (len(LEARNT), None)
    assert len(found["splits"]["documents"]["fingerprint"]) == 64
    assert found["leaks"]["pairs"] == []
    assert found["answers_in_documents"] == {"count": len(FRUIT), "of": len(FRUIT)}
    assert found["heldout_use"] == {"snapshots": [], "runs": 0}
    shown = comparison.call("data", "check", str(comparison.spec))
    assert shown.status == 0
    assert "Leaks: none." in shown.out
    told = f"{len(FRUIT)} of {len(FRUIT)} held-out answers stand word for word in the documents (wanted for retrieval"
    assert shown.out.count("in the documents") == shown.out.count(told) == 1


@pytest.mark.parametrize(
    ("kind", "text", "fruit"),
    [
        ("exact", ASK.format("QUINCE").upper(), "pear"),
        ("group", "Is it tart?", "quince"),
        ("near", ASK.format("quince").replace("mild", "gentle"), "pear"),
        ("embedded", f"Somebody wrote to us last May. {ASK.format('quince')} We did not know what to say.", "pear"),
    ],
)
def test_each_kind_of_leak_is_listed_exits_1_and_stops_a_run(
    comparison: Comparison, kind: str, text: str, fruit: str
) -> None:
    leak(comparison, text, fruit)
    status, found = check(comparison)
    assert (status, found["leaks"]["counts"]) == (1, {kind: 1})
    (pair,) = found["leaks"]["pairs"]
    assert (pair["kind"], pair["heldout"], pair["part"], pair["other"], pair["blocking"]) == (
        kind, "long", "train", "copy", True,
    )  # fmt: skip
    shown = comparison.call("data", "check", str(comparison.spec))
    assert shown.status == 1
    noun = "group" if kind == "group" else "input"
    assert f"Leaks (a run would be refused): {kind} 1 held-out {noun}\n" in shown.out
    assert "(permitted)" not in shown.out
    for word in ("run", "check"):
        refused = comparison.call(word, str(comparison.spec))
        assert (refused.status, refused.out) == (1, "")
        assert kind in refused.err
        assert "long" in refused.err
        assert "Traceback" not in refused.err
    assert comparison.logged("open") == []


def test_a_held_out_question_in_the_documents_stops_a_run(comparison: Comparison) -> None:
    leak(comparison, "Is it tart?")
    (comparison.folder / "pages" / "quince.md").write_text(f"# Asked often\n\n{ASK.format('quince')}\n\nIn autumn.")
    status, found = check(comparison)
    assert (status, found["leaks"]["counts"]) == (1, {"documents": 1})
    assert comparison.run().status == 1


def test_an_override_lets_the_run_go_on_and_is_shown_with_its_results(comparison: Comparison) -> None:
    leak(comparison, ASK.format("quince").replace("mild", "gentle"))
    comparison.edit('id        = "id"', 'id        = "id"\nleaks     = { allow = ["near"] }')
    status, found = check(comparison)
    assert (status, found["leaks"]["blocking"], found["leaks"]["allowed"]) == (0, 0, ["near"])
    assert comparison.run("--only", "plain").status == 0
    note = "leaks of kind 'near' are allowed by the spec: 1 held-out input, such as long with train copy"
    assert any(each.startswith(note) for each in comparison.board()["notes"])
    (run,) = [run for run in comparison.store.snapshot("latest").runs() if run.variant == "plain"]
    recorded = run.provenance["leaks"]
    assert (recorded["counts"], recorded["allowed"], recorded["same_facts"]) == ({"near": 1}, ["near"], False)
    shown = {
        "leaderboard": comparison.call("leaderboard", "latest").out,
        "slices": comparison.call("slices", "latest", "--by", "group").out,
        "slices --json": comparison.call("slices", "latest", "--by", "group", "--json").out,
        "decide": comparison.call("decide", "latest").out,
        "show": comparison.call("show", "latest", "plain").out,
    }
    assert [word for word, out in shown.items() if note[:40] not in " ".join(out.split())] == []
    assert check(comparison)[1]["heldout_use"] == {"snapshots": [1], "runs": 1}


def test_of_leaks_that_stop_a_run_and_permitted_ones_the_latter_are_marked(comparison: Comparison) -> None:
    leak(comparison, ASK.format("QUINCE").upper(), "quince")
    comparison.edit('id        = "id"', 'id        = "id"\nsame_facts = true')
    shown = comparison.call("data", "check", str(comparison.spec))
    assert shown.status == 1
    lines = [line for line in shown.out.splitlines() if line.startswith(("  exact", "  group"))]
    assert [line.endswith("(permitted)") for line in lines] == [False, True]


def test_every_figure_is_of_the_rows_that_a_run_would_use_and_counts_one_as_one(comparison: Comparison) -> None:
    comparison.edit('id        = "id"', 'id        = "id"\nheldout_limit = 1\ntrain_limit = 1')
    shown = comparison.call("data", "check", str(comparison.spec)).out
    assert "train: 1 row, fingerprint" in shown
    assert "heldout: 1 row, fingerprint" in shown
    assert "1 of 1 held-out answers stand word for word" in shown


def test_the_spec_keeps_its_leak_rules_and_refuses_unknown_ones(comparison: Comparison) -> None:
    comparison.edit('id        = "id"', 'id        = "id"\nleaks     = { allow = ["exact"], similarty = 0.9 }')
    done = comparison.call("data", "check", str(comparison.spec))
    assert done.status == 2
    assert "similarity" in done.err
    assert "exact" in done.err


def test_quality_is_shown_with_masked_examples(comparison: Comparison) -> None:
    leak(comparison, "My mail is jo.doe@mail.company.com, is it tart?")
    done = comparison.call("data", "check", str(comparison.spec))
    assert "warning  train: 1 of 5 texts hold what looks like personal data or a secret: e-mail" in done.out
    assert "j***@***.com" in done.out
    assert "jo.doe" not in done.out
    assert comparison.run("--only", "plain").status == 0
    assert any("personal data" in note for note in comparison.board()["notes"])
    assert not any("jo.doe" in note for note in comparison.board()["notes"])


@pytest.mark.skipif(importlib.util.find_spec("presidio_analyzer") is not None, reason="Presidio is installed here")
def test_presidio_is_explained_where_it_is_missing(comparison: Comparison) -> None:
    done = comparison.call("data", "check", str(comparison.spec), "--presidio", "en")
    assert done.status == 1
    assert "pip install presidio-analyzer" in done.err


def test_conversations_are_described_too(comparison: Comparison) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"Is plum {n} ripe?"}, {"role": "assistant", "content": "yes"}]}
        for n in range(20)
    ]
    (comparison.folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = comparison.spec.read_text()
    comparison.spec.write_text(text.replace("[data]", '[data]\nconversations = "talks.jsonl"'))
    status, found = check(comparison)
    assert status == 0
    assert (found["splits"]["conversations"]["rows"], found["splits"]["conversations"]["groups"]) == (18, None)


def test_preferences_and_texts_are_described_and_checked_too(comparison: Comparison) -> None:
    rows = [{"prompt": f"Is plum {n} ripe?", "chosen": "yes", "rejected": "I could not say"} for n in range(30)]
    rows.append({"prompt": "Is plum 3 ripe?", "chosen": "I could not say", "rejected": "yes"})
    (comparison.folder / "prefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (comparison.folder / "text.jsonl").write_text(json.dumps({"id": "t", "text": "Plums are stone fruit."}) + "\n")
    text = comparison.spec.read_text()
    assert "[data]" in text
    comparison.spec.write_text(text.replace("[data]", '[data]\npreferences = "prefs.jsonl"\ntext = "text.jsonl"'))
    status, found = check(comparison)
    assert status == 0
    counts = {name: found["splits"][name]["rows"] for name in ("preferences", "preferences_dev", "text")}
    assert (counts["preferences"] + counts["preferences_dev"], counts["text"]) == (31, 1)
    told = {(one["kind"], one["split"]) for one in found["quality"]}
    assert ("length_bias", "preferences") in told
    assert sum(kind == "contradiction" for kind, _ in told) == 1
