"""From files to a data set: mapping, splits, ids, limits, fingerprints, and every refusal."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import data, leaks
from harness.data import Dataset
from harness.data_spec import DataSpec
from harness.errors import DataError, LeakError
from harness.records import Example

SHARED = Path(os.environ.get("HARNESS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
needs_shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the public data is not at {SHARED}")


def jsonl(path: Path, rows: Sequence[object]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def one_file(folder: Path, rows: Sequence[object], **settings: Any) -> Dataset:
    return data.load(DataSpec(heldout=jsonl(folder / "heldout.jsonl", rows), **settings))


def numbered(n: int, of_group: int = 4, **more: object) -> list[dict[str, object]]:
    words = ("alpha", "beta", "gamma", "delta", "epsilon")
    return [
        {"input": f"{words[i % 5]} {i}", "target": f"t{i}", "group": f"g{i // of_group}", "tag": words[i % 2], **more}
        for i in range(n)
    ]


# --------------------------------------------------------------------------------------------------------- mapping


def test_fields_are_found_by_name_and_by_dotted_path(tmp_path: Path) -> None:
    row = {
        "q": {"text": "Where?"},
        "answers": {"text": ["here", "there", "here"], "start": [0, 4, 9]},
        "meta": {"product": "Brio", "labels": [{"name": "plain"}, {"name": "typo"}]},
        "meta.id": 17,
        "docs": ["a", "b"],
    }
    settings = {"input": "q.text", "target": "answers.text", "group": "meta.product", "tags": "meta.labels.name"}
    (example,) = one_file(tmp_path, [row], **settings, id="meta.id", source="docs").heldout
    assert example == Example(
        id="17",
        input="Where?",
        targets=("here", "there"),
        group="Brio",
        tags=("plain", "typo"),
        sources=("a", "b"),
    )
    (second,) = one_file(tmp_path, [row], input="q.text", target="answers.text.1").heldout
    assert second.targets == ("there",)


@pytest.mark.parametrize(
    ("value", "targets"),
    [("a", ("a",)), (5, ("5",)), (5.5, ("5.5",)), (True, ("true",)), (["a", 2], ("a", "2")), ([""], ("",))],
)
def test_a_target_may_be_text_number_or_a_list_of_them(value: object, targets: tuple[str, ...], tmp_path: Path) -> None:
    assert one_file(tmp_path, [{"input": "q", "target": value}]).heldout[0].targets == targets


def test_without_group_field_every_example_is_a_group_of_its_own(tmp_path: Path) -> None:
    examples = one_file(tmp_path, numbered(3)).heldout
    assert [example.group for example in examples] == [example.id for example in examples]


def test_no_target_field_means_no_targets(tmp_path: Path) -> None:
    assert one_file(tmp_path, [{"input": "q"}], target=None).heldout[0].targets == ()


def test_ids_come_from_the_content_and_survive_reordering(tmp_path: Path) -> None:
    rows = numbered(20)
    before = {example.input: example.id for example in one_file(tmp_path, rows).heldout}
    random.Random(1).shuffle(rows)
    after = {example.input: example.id for example in one_file(tmp_path, rows).heldout}
    assert before == after
    assert len(set(before.values())) == 20


def test_repeated_rows_are_kept_and_numbered(tmp_path: Path) -> None:
    row = {"input": "q", "target": "t", "id": "x"}
    for settings in ({}, {"id": "id"}):
        dataset = one_file(tmp_path, [row, row, row], **settings)
        first, *others = [example.id for example in dataset.heldout]
        assert others == [f"{first}-2", f"{first}-3"]


def test_one_id_for_two_contents_is_refused_within_and_across_splits(tmp_path: Path) -> None:
    one, two = {"id": 1, "input": "a", "target": "x"}, {"id": 1, "input": "b", "target": "y"}
    with pytest.raises(DataError, match=r"heldout\.jsonl:2: id '1' stands twice with different content, first at .*:1"):
        one_file(tmp_path, [one, two], id="id")
    with pytest.raises(DataError, match=r"heldout\.jsonl:1: id '1' stands twice .*train\.jsonl:1.*Leave `id` out"):
        one_file(tmp_path, [two], id="id", train=jsonl(tmp_path / "train.jsonl", [one]))


# ------------------------------------------------------------------------------------------------------- bad rows


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"target": "t"}, "there is no input: 'input' is missing or empty"),
        ({"input": None, "target": "t"}, "there is no input"),
        ({"input": "  ", "target": "t"}, "there is no input"),
        ({"input": ["a", "b"], "target": "t"}, "'input' holds 2 texts"),
        ({"input": "q"}, "there is no target: 'target' is missing or empty"),
        ({"input": "q", "target": []}, "there is no target"),
        ({"input": "q", "target": ""}, "there is no target"),
        ({"input": "q", "target": float("nan")}, "there is no target"),
        (
            {"input": "q", "target": {"text": "t", "start": 0}},
            "holds a table; name what is in it: target.text, target.start",
        ),
        ({"input": "half \ud83d", "target": "t"}, "holds half a character"),
    ],
)
def test_a_row_that_is_no_example_is_named_with_its_line(row: dict[str, object], said: str, tmp_path: Path) -> None:
    good = {"input": "fine", "target": "fine"}
    with pytest.raises(DataError) as caught:
        one_file(tmp_path, [good, row, good | {"input": "also fine"}])
    assert (
        f"heldout.jsonl:2: {said}" in str(caught.value) or said in str(caught.value).partition("heldout.jsonl:2: ")[2]
    )


def test_a_field_that_no_row_has_is_told_with_what_there_is(tmp_path: Path) -> None:
    rows = [{"question": "q", "meta": {"product": "Brio"}, "target": "t"}]
    with pytest.raises(DataError) as caught:
        one_file(tmp_path, rows, input="questoin", group="meta.prodct")
    lines = str(caught.value).splitlines()
    assert (
        "no row has a field 'questoin' (data.input). Did you mean 'question'? Available: meta, meta.product" in lines[0]
    )
    assert "no row has a field 'meta.prodct' (data.group). Did you mean 'meta.product'?" in lines[1]


@pytest.mark.parametrize(("sign", "shown"), [(";", "';'"), ("\t", r"'\t'"), ("|", "'|'")])
def test_a_csv_file_with_another_separator_is_told_as_one(sign: str, shown: str, tmp_path: Path) -> None:
    (tmp_path / "heldout.csv").write_text(f"input{sign}target\nq{sign}t\n")
    with pytest.raises(DataError) as caught:
        data.load(DataSpec(heldout=str(tmp_path / "heldout.csv")))
    advice = f"Its header looks cut by {shown}: save it with commas, or with tabs as .tsv."
    assert all(line.endswith(advice) for line in str(caught.value).splitlines())


def test_faults_of_many_rows_are_told_at_once(tmp_path: Path) -> None:
    rows = [{"input": "q", "target": "t"}, *[{"input": "", "target": "t"}] * 12]
    with pytest.raises(DataError) as caught:
        one_file(tmp_path, rows)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("heldout.jsonl:2: there is no input: 'input' is missing or empty")
    assert len(lines) == 12
    assert lines[-2] == "... and 2 more"
    assert lines[-1].startswith("Fill the field in, or take the row out.")


def test_every_broken_file_is_told_at_once(tmp_path: Path) -> None:
    for name in ("train", "dev", "heldout"):
        (tmp_path / f"{name}.jsonl").write_text("{broken")
    jsonl(tmp_path / "dev.jsonl", numbered(2))
    with pytest.raises(DataError) as caught:
        data.load(DataSpec(**{name: str(tmp_path / f"{name}.jsonl") for name in ("train", "dev", "heldout")}))
    assert ["train.jsonl:1: broken JSON" in line for line in str(caught.value).splitlines()] == [True, False]
    assert "heldout.jsonl:1: broken JSON" in str(caught.value)


def test_no_held_out_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no held-out split: name a file"):
        data.load(DataSpec(train=jsonl(tmp_path / "train.jsonl", numbered(4))))
    with pytest.raises(DataError, match="is empty"):
        one_file(tmp_path, [])
    with pytest.raises(DataError, match="heldout: a share needs the file that is split"):
        data.load(DataSpec(heldout=0.2))


def test_a_share_of_one_group_is_refused(tmp_path: Path) -> None:
    rows = jsonl(tmp_path / "all.jsonl", numbered(4))
    with pytest.raises(
        DataError, match=r"heldout = 0.2 of .*all.jsonl \(4 rows in 1 group\) comes to no whole group: ask"
    ):
        data.load(DataSpec(rows=rows, heldout=0.2, group="group"))


# ---------------------------------------------------------------------------------------------------------- splits


def test_one_file_is_split_by_group_with_a_fixed_seed(tmp_path: Path) -> None:
    rows = jsonl(tmp_path / "all.jsonl", numbered(200))
    spec = DataSpec(rows=rows, heldout=0.2, dev=0.1, group="group")
    dataset = data.load(spec)
    assert dataset.counts == {"train": 140, "dev": 20, "heldout": 40, "documents": 0}
    groups = [{example.group for example in part} for part in (dataset.train, dataset.dev, dataset.heldout)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 50
    assert data.load(spec) == dataset
    other = data.load(spec.model_copy(update={"seed": 1}))
    assert other.heldout != dataset.heldout


def test_the_split_stays_when_rows_move(tmp_path: Path) -> None:
    rows = numbered(100)
    spec = DataSpec(rows=jsonl(tmp_path / "all.jsonl", rows), heldout=0.2, group="group")
    before = {example.id for example in data.load(spec).heldout}
    random.Random(2).shuffle(rows)
    jsonl(tmp_path / "all.jsonl", rows)
    assert {example.id for example in data.load(spec).heldout} == before


def test_shares_of_rows_go_along_with_a_held_out_file(tmp_path: Path) -> None:
    heldout = jsonl(tmp_path / "test.jsonl", [{"input": "other", "target": "t"}])
    dataset = data.load(DataSpec(rows=jsonl(tmp_path / "all.jsonl", numbered(40)), heldout=heldout, dev=0.25))
    assert dataset.counts == {"train": 30, "dev": 10, "heldout": 1, "documents": 0}


def test_questions_that_ask_the_same_are_never_cut_apart(tmp_path: Path) -> None:
    rows = [{"input": f"Question {i % 30}{'?' * (i // 30)}", "target": "t"} for i in range(90)]
    for seed in range(5):
        data.load(DataSpec(rows=jsonl(tmp_path / "all.jsonl", rows), heldout=0.3, seed=seed))


def test_same_facts_splits_by_row_so_that_groups_are_shared(tmp_path: Path) -> None:
    rows = jsonl(tmp_path / "all.jsonl", numbered(100))
    dataset = data.load(DataSpec(rows=rows, heldout=0.2, group="group", same_facts=True))
    assert {e.group for e in dataset.heldout} & {e.group for e in dataset.train}
    assert any(note.startswith("same_facts:") for note in dataset.notes)


@given(
    groups=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    texts=st.integers(1, 40),
    heldout=st.floats(0.05, 0.6),
    dev=st.floats(0.05, 0.35),
    seed=st.integers(0, 5),
)
def test_no_split_of_one_file_ever_leaks(groups: list[int], texts: int, heldout: float, dev: float, seed: int) -> None:
    examples = [
        Example(id=str(i), input=f"text {'x' * (i % texts)}", targets=("t",), group=f"g{group}")
        for i, group in enumerate(groups)
    ]
    parts = data.split(examples, {"dev": dev, "heldout": heldout}, seed)
    assert sorted(int(e.id) for part in parts.values() for e in part) == list(range(len(examples)))
    leaks.find(parts["heldout"], {"train": parts[""], "dev": parts["dev"]}).refuse()
    largest = max((groups.count(group) for group in groups), default=0)
    if texts > len(groups):
        assert abs(len(parts["dev"]) - dev * len(examples)) <= largest


def test_a_held_out_example_in_train_and_a_group_on_both_sides_are_refused(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", [{"input": "Where IS it", "target": "t", "group": "a"}])
    with pytest.raises(LeakError, match=r"heldout 'Where is it\?' .* = train 'Where IS it'"):
        one_file(tmp_path, [{"input": "Where is it?", "target": "t", "group": "b"}], train=train)
    with pytest.raises(LeakError, match="group  'a': 1 in heldout"):
        one_file(tmp_path, [{"input": "Something else", "target": "t", "group": "a"}], train=train, group="group")


def test_limits_draw_rows_over_all_groups_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = numbered(200, of_group=20)
    whole = one_file(tmp_path, rows, group="group")
    part = one_file(tmp_path, rows, group="group", heldout_limit=60)
    assert len(part.heldout) == 60
    assert len({example.group for example in part.heldout}) == 10
    positions = [whole.heldout.index(example) for example in part.heldout]
    assert positions == sorted(positions)
    assert "heldout: 60 of 200 rows, drawn with seed 0" in part.notes
    assert part.fingerprints["heldout"] != whole.fingerprints["heldout"]
    smaller = one_file(tmp_path, rows, group="group", heldout_limit=30)
    assert set(smaller.heldout) < set(part.heldout)
    assert one_file(tmp_path, rows, group="group", heldout_limit=500) == whole


# ---------------------------------------------------------------------------------------------------- fingerprints


@pytest.mark.parametrize("field", ["input", "target", "group", "tag", "source", "id"])
def test_every_field_of_every_row_is_in_the_fingerprint(field: str, tmp_path: Path) -> None:
    rows = [row | {"source": "kb", "id": f"i{i}"} for i, row in enumerate(numbered(5))]
    settings = {"group": "group", "tags": "tag", "source": "source", "id": "id"}
    before = one_file(tmp_path, rows, **settings).fingerprints
    rows[3] = rows[3] | {field: "changed"}
    after = one_file(tmp_path, rows, **settings).fingerprints
    assert before["heldout"] != after["heldout"]
    assert before["train"] == after["train"]
    assert len(after["heldout"]) == 64


def test_fingerprints_follow_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = numbered(5)
    assert one_file(tmp_path, rows).fingerprints == one_file(tmp_path, rows).fingerprints
    assert one_file(tmp_path, rows).fingerprints != one_file(tmp_path, rows[::-1]).fingerprints


def test_documents_have_a_fingerprint_of_their_own(tmp_path: Path) -> None:
    kb = tmp_path / "kb"
    kb.mkdir()
    (kb / "a.md").write_text("# A\n\none")
    rows = [{"input": "q", "target": "t", "source": "a"}]
    before = one_file(tmp_path, rows, documents=str(kb), source="source")
    (kb / "a.md").write_text("# A\n\ntwo")
    after = one_file(tmp_path, rows, documents=str(kb), source="source")
    assert before.fingerprints["documents"] != after.fingerprints["documents"]
    assert before.fingerprints["heldout"] == after.fingerprints["heldout"]


def test_of_several_field_names_each_file_has_its_own(tmp_path: Path) -> None:
    train = jsonl(tmp_path / "train.jsonl", [{"text": "one", "category": "a"}, {"text": "two", "category": "b"}])
    heldout = jsonl(tmp_path / "heldout.jsonl", [{"text": "three", "label_text": "a"}])
    spec = DataSpec(train=train, heldout=heldout, input="text", target=("category", "label_text"))
    dataset = data.load(spec)
    assert [row.targets for row in (*dataset.train, *dataset.heldout)] == [("a",), ("b",), ("a",)]
    message = r"no row has a field 'label_txt' or 'kind' \(data.target\). Did you mean 'label_text'"
    with pytest.raises(DataError, match=message):
        data.load(DataSpec(heldout=heldout, input="text", target=("label_txt", "kind")))


# ----------------------------------------------------------------------------------------------------- preferences

LONG_QUESTION = "How many weeks does a repair of the grinder take when a part has to be ordered first?"


def pairs(n: int, groups: int | None = None) -> list[dict[str, object]]:
    """Two pairs for each of `n` prompts, which have one group in so many."""
    rows = [{"prompt": f"Who sells item {i}?", "chosen": "we do", "rejected": "x"} for i in range(n)]
    rows = [row | ({} if groups is None else {"group": f"g{i % groups}"}) for i, row in enumerate(rows)]
    return [row | {"rejected": rejected} for row in rows for rejected in ("they do", "nobody")]


def judged(folder: Path, rows: Sequence[object], dev: Sequence[object] | float = 0.2, **settings: Any) -> Dataset:
    heldout = jsonl(folder / "heldout.jsonl", [{"input": LONG_QUESTION, "target": "six", "group": "repairs"}])
    file = jsonl(folder / "prefs.jsonl", rows)
    more = dev if isinstance(dev, float) else jsonl(folder / "prefs_dev.jsonl", dev)
    return data.load(DataSpec(heldout=heldout, preferences=file, preferences_dev=more, **settings))


def test_a_preference_of_a_held_out_group_is_a_leak(tmp_path: Path) -> None:
    rows = [*pairs(5), {"prompt": "Is it broken?", "chosen": "no", "rejected": "yes", "group": "repairs"}]
    judged(tmp_path, rows)
    with pytest.raises(LeakError, match=r"group  'repairs': 1 in heldout \(.*\), 1 in preferences \("):
        judged(tmp_path, rows, group="group")
    with pytest.raises(LeakError, match="in preferences"):
        judged(tmp_path, pairs(5), rows, group="group")
    assert judged(tmp_path, rows, group="group", same_facts=True).leaks.counts == {"group": 1}


@pytest.mark.parametrize("answer", ["chosen", "rejected"])
def test_a_held_out_question_in_an_answer_of_a_preference_is_a_leak(answer: str, tmp_path: Path) -> None:
    row = {"prompt": "Hi", "chosen": "a", "rejected": "b"} | {answer: f"You would like to know: {LONG_QUESTION} Well."}
    with pytest.raises(LeakError, match=r"embedded .* in preferences"):
        judged(tmp_path, [*pairs(5), row])


def test_a_share_of_preferences_is_kept_back_in_whole_groups_and_prompts(tmp_path: Path) -> None:
    rows = pairs(40, groups=10)
    rows[0]["group"], rows[2]["group"] = "g1", "g2"  # Prompts whose pairs are of two groups bind these together.
    found = judged(tmp_path, rows, group="group")
    sides = [{(one.group, one.input) for one in part} for part in (found.preferences, found.preferences_dev)]
    for of in (0, 1):
        assert not {pair[of] for pair in sides[0]} & {pair[of] for pair in sides[1]}
    assert 8 <= len(found.preferences_dev) <= 24
    assert judged(tmp_path, rows, group="group") == found
    assert found.notes == ()


def test_system_turns_that_are_left_out_of_preferences_are_told_with_the_results(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is it open?"}]
    found = judged(tmp_path, [*pairs(5), {"prompt": turns, "chosen": "yes", "rejected": "no"}])
    assert found.notes == ("preferences: the system turns of 1 row are left out: each variant's prompt writes its own",)


def test_where_groups_are_few_and_large_single_prompts_are_kept_back_and_that_is_told(tmp_path: Path) -> None:
    found = judged(tmp_path, pairs(40, groups=2), group="group")
    assert (len(found.preferences), len(found.preferences_dev)) == (64, 16)
    (note,) = found.notes
    assert note.startswith("0 inputs and 2 groups of preferences_dev also stand in preferences: what is measured on")


def test_preferences_without_the_groups_of_the_data_are_told(tmp_path: Path) -> None:
    (note,) = judged(tmp_path, pairs(5), group="group").notes
    assert note.startswith("preferences: no row has a field 'group' (data.group), so groups that are shared with")


def test_what_a_file_of_preferences_to_measure_by_shares_with_the_others_is_told(tmp_path: Path) -> None:
    (note,) = judged(tmp_path, pairs(5), pairs(2)).notes
    assert note.startswith("2 inputs and 0 groups of preferences_dev also stand in preferences: what is measured on")
    other = [{"prompt": "Is it open?", "chosen": "yes", "rejected": "no"}]
    assert judged(tmp_path, pairs(5), other).notes == ()


# -------------------------------------------------------------------------------------------- text to pretrain on


def test_what_is_allowed_in_the_documents_is_not_allowed_in_the_text(tmp_path: Path) -> None:
    heldout = jsonl(tmp_path / "heldout.jsonl", [{"input": LONG_QUESTION, "target": "six weeks"}])
    pages = jsonl(tmp_path / "pages.jsonl", [{"id": "faq", "text": f"You asked. {LONG_QUESTION} It takes six weeks."}])
    allowed: dict[str, Any] = {"heldout": heldout, "leaks": {"allow": ["documents"]}}
    assert data.load(DataSpec(**allowed, documents=pages)).leaks.counts == {"documents": 1}
    with pytest.raises(LeakError, match=r"in text '.*' \(id faq\)"):
        data.load(DataSpec(**allowed, text=pages))


def test_whether_answers_are_read_or_learned_is_told(tmp_path: Path) -> None:
    heldout = jsonl(tmp_path / "heldout.jsonl", [{"input": LONG_QUESTION, "target": "six weeks"}])
    pages = jsonl(tmp_path / "pages.jsonl", [{"id": "a", "text": "Ordering takes six weeks."}])
    told = "1 of 1 held-out answers stand word for word in the"
    learned = f"{told} text (variants that pretrain on it learn them)"
    assert data.load(DataSpec(heldout=heldout, documents=pages)).notes == (
        f"{told} documents (wanted for retrieval; a variant that pretrains on the documents would learn them)",
    )
    assert data.load(DataSpec(heldout=heldout, text=pages)).notes == (learned,)
    assert data.load(DataSpec(heldout=heldout, text=pages, documents=pages)).notes == (
        learned,
        f"{told} documents (wanted for retrieval)",
    )


# ----------------------------------------------------------------------------------------------------------- tasks


def test_a_source_that_is_no_document_is_left_out_and_noted(tmp_path: Path) -> None:
    kb = tmp_path / "kb"
    kb.mkdir()
    (kb / "a.md").write_text("one")
    rows = [
        {"input": f"q{i}", "target": "t", "source": source} for i, source in enumerate(["a", "none-1", ["a", "none-2"]])
    ]
    dataset = one_file(tmp_path, rows, documents=str(kb), source="source")
    assert [example.sources for example in dataset.heldout] == [("a",), (), ("a",)]
    assert "2 sources name no document (none-1, none-2): measures of retrieval leave them out" in dataset.notes
    with pytest.raises(DataError, match=r"no 'source' \(data.source\) names a document of .*ids such as 'a'.*'none-1'"):
        one_file(tmp_path, rows[1:2], documents=str(kb), source="source")
    assert one_file(tmp_path, rows, source="source").heldout[1].sources == ("none-1",)


# --------------------------------------------------------------------------------------------------- size, real data


def test_a_hundred_thousand_rows_load(tmp_path: Path) -> None:
    text = "Could you please tell me how long the cover of machine number {} lasts, and what it costs after that?"
    rows = [{"input": text.format(i), "target": f"{i} months", "group": f"g{i // 5}"} for i in range(100_000)]
    train, heldout = jsonl(tmp_path / "train.jsonl", rows[:90_000]), jsonl(tmp_path / "heldout.jsonl", rows[90_000:])
    dataset = data.load(DataSpec(train=train, heldout=heldout, group="group"))
    assert dataset.counts["train"] == 90_000


@needs_shared_data
def test_xquad_paragraphs_are_documents_and_never_cut_apart() -> None:
    file = str(SHARED / "xquad" / "xquad.en.json")
    fields = {"input": "question", "target": "answers.text", "group": "paragraph", "source": "paragraph", "id": "id"}
    dataset = data.load(DataSpec(rows=file, documents=file, heldout=0.2, dev=0.1, tags="title", **fields))
    assert dataset.counts["documents"] == 240
    assert sum(dataset.counts.values()) == 240 + 1190
    texts = {document.id: document.text for document in dataset.documents}
    for example in (*dataset.train, *dataset.dev, *dataset.heldout):
        assert example.targets[0] in texts[example.sources[0]]


@needs_shared_data
def test_gsm8k_loads_as_published_and_banking77_is_found_to_leak() -> None:
    folder = SHARED / "gsm8k"
    files = {"train": str(folder / "train-1500.jsonl"), "heldout": str(folder / "test.jsonl")}
    dataset = data.load(DataSpec(**files, input="question", target="answer"))
    assert dataset.counts == {"train": 1500, "dev": 0, "heldout": 1319, "documents": 0}
    files = {"train": str(SHARED / "banking77" / "train.csv"), "heldout": str(SHARED / "banking77" / "test.csv")}
    with pytest.raises(LeakError, match="held-out inputs"):
        data.load(DataSpec(**files, input="text", target="category"))
    found = data.load(DataSpec(**files, input="text", target="category"), refuse=False).leaks
    assert found.count("exact") == 28
    assert 150 < found.count("near") < 300
    rows = DataSpec(rows=files["train"], heldout=0.2, input="text", target="category")
    assert data.load(rows).counts["heldout"] == 2001


# ----------------------------------------------------------------------------------------------------------- tasks


def test_several_data_sets_become_one_and_their_rows_tell_which(tmp_path: Path) -> None:
    first = [{"input": f"count to {n}", "target": str(n), "id": n} for n in range(6)]
    second = [{"q": f"name of fruit {n * 7}", "a": f"fruit {n}", "id": n, "kind": "easy"} for n in range(8)]
    train, held = jsonl(tmp_path / "a.jsonl", first[:4]), jsonl(tmp_path / "b.jsonl", first[4:])
    both = {"rows": jsonl(tmp_path / "c.jsonl", second), "heldout": 0.25}
    tasks = [
        {"name": "count", "train": train, "heldout": held},
        {"name": "name", **both, "input": "q", "target": "a", "tags": "kind"},
    ]
    found = data.load(DataSpec.model_validate({"id": "id", "task": tasks}))
    assert [example.id for example in found.train[:4]] == ["count/0", "count/1", "count/2", "count/3"]
    assert {example.tags for example in found.train} == {("count",), ("name", "easy")}
    assert (len(found.train), len(found.heldout)) == (4 + 6, 2 + 2)
    assert {example.id.partition("/")[0] for example in found.heldout} == {"count", "name"}
    assert all(example.group.startswith(f"{example.tags[0]}/") for example in found.train)


def test_a_held_out_example_of_one_task_in_the_train_split_of_another_is_a_leak(tmp_path: Path) -> None:
    tasks = [
        {"name": "one", "heldout": jsonl(tmp_path / "a.jsonl", numbered(4))},
        {"name": "two", "train": jsonl(tmp_path / "b.jsonl", numbered(4)[1:2])},
    ]
    with pytest.raises(LeakError, match="train"):
        data.load(DataSpec.model_validate({"task": tasks}))


def test_a_group_is_the_same_in_every_task(tmp_path: Path) -> None:
    held = jsonl(tmp_path / "a.jsonl", [{"input": "Where is it?", "target": "here", "customer": 7}])
    train = jsonl(tmp_path / "b.jsonl", [{"input": "Sell me more.", "target": "sales", "by": {"customer": "7"}}])
    tasks: list[dict[str, object]] = [
        {"name": "answers", "heldout": held, "group": "customer"},
        {"name": "triage", "train": train, "group": "by.customer"},
    ]
    with pytest.raises(LeakError, match=r"group  '7': 1 in heldout \(answers/.*\), 1 in train \(triage/"):
        data.load(DataSpec.model_validate({"task": tasks}))
    del tasks[0]["group"]
    (example,) = data.load(DataSpec.model_validate({"task": tasks})).heldout
    assert example.group == example.id


def test_a_preference_may_have_the_group_of_any_task(tmp_path: Path) -> None:
    held = jsonl(tmp_path / "a.jsonl", [{"input": "Where is it?", "target": "here", "customer": 7}])
    judged = [{"prompt": f"Who is {n}?", "chosen": "a", "rejected": "b", "customer": n} for n in range(9)]
    tasks = [{"name": "answers", "heldout": held, "group": "customer"}]
    with pytest.raises(LeakError, match=r"group  '7': .* in preferences"):
        data.load(DataSpec.model_validate({"preferences": jsonl(tmp_path / "p.jsonl", judged), "task": tasks}))


def test_tasks_stand_beside_the_data_of_their_own(tmp_path: Path) -> None:
    held = jsonl(tmp_path / "held.jsonl", numbered(3))
    more = jsonl(tmp_path / "more.jsonl", [{"input": "quite another thing", "target": "yes"}])
    found = data.load(DataSpec.model_validate({"heldout": held, "task": [{"name": "more", "train": more}]}))
    assert (len(found.heldout), [example.tags for example in found.train]) == (3, [("more",)])
    with pytest.raises(DataError, match="there is no held-out split"):
        data.load(DataSpec.model_validate({"task": [{"name": "more", "train": more}]}))
