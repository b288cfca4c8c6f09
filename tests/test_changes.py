"""What changed between two runs: the settings. (Examples and costs are tested with the comparison that shows them.)"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from harness import changes
from harness.records import Run
from harness.results import Results, Variant


def differing(one: dict[str, Any], other: dict[str, Any], **spec: Any) -> list[tuple[str, Any, Any]]:
    """The settings that differ between the variants "x" and "y" of two specs that share `spec`."""
    sides = []
    for name, entry in (("x", one), ("y", other)):
        snapshot = SimpleNamespace(spec={**spec, "variants": [{"name": name, "family": "RAG", **entry}]})
        run = Run(experiment="e", variant=name, family="RAG", seed=0, status="complete")
        sides.append((cast(Results, SimpleNamespace(snapshot=snapshot)), Variant(name, (run,), {})))
    return [(found["setting"], found["a"], found["b"]) for found in changes.settings(*sides)]


def test_names_and_families_are_no_settings() -> None:
    assert differing({}, {}) == []
    assert differing({"adapter": None}, {"adapter": "a/b"}) == [("adapter", None, "a/b")]


def test_what_is_there_on_one_side_only_is_shown_whole() -> None:
    dense = {"kind": "dense", "top_k": 3}
    assert differing({"retrieve": None}, {"retrieve": dense}) == [("retrieve", None, dense)]
    assert differing({"retrieve": dense}, {}) == [("retrieve", dense, None)]


def test_settings_of_one_kind_are_compared_one_by_one_and_kinds_as_a_whole() -> None:
    one = {"prompt": {"kind": "few-shot", "shots": 4, "select": "random"}}
    other = {"prompt": {"kind": "few-shot", "shots": 8, "select": "random"}}
    assert differing(one, other) == [("prompt.shots", 4, 8)]
    plain = {"prompt": {"kind": "zero-shot", "system": "Be short."}}
    assert differing(plain, other) == [("prompt.kind", "zero-shot", "few-shot")]


def test_stages_are_compared_in_their_order_where_there_are_as_many() -> None:
    sft = {"kind": "sft", "epochs": 2, "adapter": {"kind": "lora", "rank": 16}}
    longer = {**sft, "epochs": 3, "adapter": {"kind": "lora", "rank": 8}}
    assert differing({"train": [sft]}, {"train": [longer]}) == [
        ("train.0.epochs", 2, 3),
        ("train.0.adapter.rank", 16, 8),
    ]
    assert differing({"train": []}, {"train": [sft]}) == [("train", [], [sft])]


def test_models_and_data_count_too() -> None:
    assert differing({}, {}, model={"kind": "canned"}) == []
    one, other = ({"model": {"kind": "t", "id": name}, "data": {"input": "q"}} for name in ("small", "large"))
    run = Run(experiment="e", variant="x", family="RAG", seed=0, status="complete")
    sides = [
        (cast(Results, SimpleNamespace(snapshot=SimpleNamespace(spec=spec))), Variant("x", (run,), {}))
        for spec in (one, other)
    ]
    assert changes.settings(*sides) == [{"setting": "model.id", "a": "small", "b": "large"}]


VALUES = st.recursive(
    st.none() | st.integers(0, 3) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
    max_leaves=6,
)
ENTRIES = st.dictionaries(st.sampled_from(["prompt", "train", "decode"]), VALUES, max_size=3)


def missing_is_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: kept for key, inner in value.items() if (kept := missing_is_none(inner)) is not None}
    return [missing_is_none(inner) for inner in value] if isinstance(value, list) else value


@given(ENTRIES, ENTRIES)
def test_nothing_differs_only_where_all_is_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert differing(one, one) == []
    found = differing(one, other)
    if missing_is_none(one) != missing_is_none(other):
        assert found
    assert all(a != b for _, a, b in found)
    assert {path for path, _, _ in differing(other, one)} == {path for path, _, _ in found}
