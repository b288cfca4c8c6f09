"""json_valid and json_schema, pinned to json and jsonschema."""

from __future__ import annotations

import json
import math
import sys
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import measured
from pydantic import ValidationError

from harness.errors import ModelError
from harness.metrics._json import block
from harness.metrics.json_schema import JsonSchema
from harness.metrics.json_valid import JsonValid

SCHEMA: Any = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "size": {"type": "integer", "minimum": 1}},
    "required": ["name"],
    "additionalProperties": False,
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "raw", "in_a_block"),
    [
        ('{"a": 1}', 1, 1),
        (' [1, 2]\n"', 0, 0),
        ("[1, 2]", 1, 0),
        ("3", 1, 0),
        ('Here: {"a": {"b": "}"}} and more }', 0, 1),
        ('```json\n{"a": 1}\n```', 0, 1),
        ('```\n[1]\n```\nthen\n```json\n{"a" 1}\n```', 0, 0),
        ("```python\nx = {}\n```\n{}", 0, 0),
        ("```json\n[1, 2", 0, 0),
        ('```json\n{"a": 1}', 0, 1),
        ("Use {name}, then {}", 0, 0),
        ('{"a": "say \\"}\\""}', 1, 1),
        ("{'a': 1}", 0, 0),
        ('{"a": NaN}', 0, 0),
        ('{"a": 1,}', 0, 0),
        ("Infinity", 0, 0),
        ('{"a": 1, "a": 2}', 1, 1),
        ("9" * 5000, 1, 0),
        ("[" * 100_000 + "]" * 100_000, 0, 0),
        ("{", 0, 0),
        ("", 0, 0),
    ],
)
def test_the_raw_answer_and_the_block_in_it_are_measured_apart(text: str, raw: float, in_a_block: float) -> None:
    assert measured(JsonValid(), text) == raw
    assert measured(JsonValid(extract="block"), text) == in_a_block


def test_a_fence_with_a_long_line_of_blanks_behind_it_is_read() -> None:
    assert block("```" + "\t" * 100_000) is None
    assert block("```" + " " * 100_000 + "json \n{}\n```") == "{}\n"


def test_no_answer_is_no_json() -> None:
    assert measured(JsonValid(), None) == 0
    assert measured(JsonSchema(schema_table={}), None) == 0


@given(value=VALUES)
def test_whatever_json_writes_is_json_and_a_cut_object_is_none(value: Any) -> None:
    text = json.dumps(value)
    assert measured(JsonValid(), text) == 1
    assert measured(JsonValid(extract="block"), f"It is ```json\n{text}\n``` so") == 1
    if isinstance(value, dict):
        assert block(f"Look: {text} {{") == text
        assert measured(JsonValid(), text[:-1]) == 0


@given(value=VALUES | st.fixed_dictionaries({"name": st.text(max_size=2)}, optional={"size": st.integers(-1, 3)}))
def test_a_schema_allows_what_jsonschema_allows(value: Any) -> None:
    from jsonschema import Draft202012Validator

    expected = Draft202012Validator(SCHEMA).is_valid(value)
    assert measured(JsonSchema(schema_table=SCHEMA), json.dumps(value)) == expected


@pytest.mark.parametrize(
    ("text", "raw", "in_a_block"),
    [
        ('{"name": "Brio", "size": 2}', 1, 1),
        ('{"name": "Brio", "size": 0}', 0, 0),
        ('{"name": "Brio", "colour": "red"}', 0, 0),
        ('Sure! {"name": "Brio"}', 0, 1),
        ("[]", 0, 0),
        ("Brio", 0, 0),
    ],
)
def test_a_schema_may_be_a_table_or_a_file(text: str, raw: float, in_a_block: float, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    assert measured(JsonSchema(schema_table=SCHEMA), text) == raw
    assert measured(JsonSchema(schema_file=file), text) == raw
    assert measured(JsonSchema(schema_file=file, extract="block"), text) == in_a_block


def test_the_schema_names_its_draft_itself() -> None:
    first = {"$schema": "http://json-schema.org/draft-04/schema#", "maximum": 3, "exclusiveMaximum": True}
    assert measured(JsonSchema(schema_table=first), "3") == 0
    assert measured(JsonSchema(schema_table={"prefixItems": [{"type": "null"}]}), "[1]") == 0, "draft 2020-12"


def test_the_content_of_the_file_and_the_packages_version_stand_in_the_signature(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one.json", "same.json", "other.json"))
    one.write_text("{}")
    same.write_text("{}")
    other.write_text('{"type": "object"}')
    signatures = [JsonSchema(schema_file=file).signature for file in (one, same, other)]
    assert signatures[0] == signatures[1] != signatures[2]
    assert f'jsonschema:"{metadata.version("jsonschema")}"' in signatures[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give the schema as `schema_file` or as `schema_table`, one of the two"),
        ({"schema_table": {"type": "objekt"}}, r"no JSON Schema: 'objekt' .*, at \['type'\]"),
        ({"schema_table": {"const": date(2026, 1, 1)}}, "the schema in `schema_table` cannot be read as JSON: .* date"),
        ({"schema_table": {"maximum": math.nan}}, "the schema in `schema_table` cannot be read as JSON"),
        ({"schema_table": {"properties": 3}}, r"no JSON Schema: 3 is not of type 'object', at \['properties'\]"),
    ],
)
def test_a_schema_that_is_none_is_refused_with_the_spec(settings: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        JsonSchema.model_validate(settings)


@pytest.mark.parametrize("content", ["{", "\ufeff{", '"text"', "[]", "3"])
def test_a_file_that_holds_no_schema_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValidationError, match=r"the schema in schema.json cannot be read|no JSON Schema"):
        JsonSchema(schema_file=file)


def test_references_to_elsewhere_are_not_followed() -> None:
    metric = JsonSchema(schema_table={"$ref": "https://example.org/schema.json"})
    with pytest.raises(Exception, match=r"example\.org"):
        measured(metric, "{}")


def test_names_tell_raw_and_block_apart() -> None:
    assert [JsonValid().name, JsonValid(extract="block").name] == ["json_valid", "json_valid_block"]
    assert JsonSchema(schema_table={}).name == "json_schema"
    assert JsonSchema(schema_table={}, extract="block").name == "json_schema_block"


def test_without_jsonschema_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ModelError, match=r"the package jsonschema, which is not installed.*\[metrics\]"):
        JsonSchema(schema_table={})
