import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from harness.decode import Decode
from harness.plugins import BASES, available
from harness.schema import field_docs, schema, schema_text

SPECS = Path(__file__).parent.parent / "specs"
SOUND = """
extends = "base.toml"
[model]
dtype = "float32"
[data]
heldout = 0.2
[defaults]
prompt = { system = "s" }
[[metric]]
kind = "regex"
pattern = "x"
[[metric]]
kind = "mine.metrics:Own"
anything = 1
[[variant]]
name = "a"
prompt = "few-shot"
[[variant]]
name = "b"
extends = "a"
retrieve = false
prompt = { kind = "few-shot", shots = 2, embedder = { id = "x" } }
matrix = { "prompt.shots" = [1, 2] }
"""


@pytest.fixture(scope="module")
def validator() -> Any:
    return jsonschema.Draft202012Validator(schema())


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_committed_schema_is_fresh() -> None:
    """Regenerate it with `python -m harness schema > specs/schema.json`."""
    assert (SPECS / "schema.json").read_text(encoding="utf-8") == schema_text()


@pytest.mark.parametrize("file", sorted(SPECS.glob("*.toml")), ids=lambda file: file.name)
def test_committed_specs_fit_the_schema_and_ask_for_it(file: Path, validator: Any) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith("#:schema schema.json\n")
    assert [error.message for error in validator.iter_errors(tomllib.loads(text))] == []


def test_what_a_spec_may_leave_to_another_layer_is_not_required(validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(tomllib.loads(SOUND))] == []


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ('extends = "base.toml"\n[model]\ndtype = "float32"', "", []),
        ("heldout = 0.2", "heldout = 1.2", ["data", "heldout"]),
        ("heldout", "held_out", ["data"]),
        ('kind = "regex"', 'kind = "regexp"', ["metric", 0]),
        ('pattern = "x"', "pattern = 3", ["metric", 0]),
        ("mine.metrics:Own", "mine.metrics", ["metric", 1]),
        ('name = "a"', "", ["variant", 0]),
        ('name = "a"', 'name = "a b"', ["variant", 0, "name"]),
        ("shots = 2", "shots = 0", ["variant", 1, "prompt"]),
        ("shots = 2", "shotz = 2", ["variant", 1, "prompt"]),
        ("retrieve = false", "retrieve = true", ["variant", 1, "retrieve"]),
        ("[defaults]", "[defaults]\nname = 'x'", ["defaults"]),
    ],
)
def test_faults_that_an_editor_can_see_are_refused(old: str, new: str, path: list[Any], validator: Any) -> None:
    document = tomllib.loads(SOUND.replace(old, new, 1))
    assert path in [list(error.absolute_path) for error in validator.iter_errors(document)]


def test_every_kind_and_every_field_of_it_is_told_in_words() -> None:
    definitions = schema()["$defs"]
    for family in BASES:
        for kind in available(family):
            table = definitions[f"{family}.{kind}"]
            assert table["description"], f"{family}.{kind}"
            assert table["properties"]["kind"]["const"] == kind
    for name in ("DataSpec", "Decode", "Latency", "Tracking", "Variant"):
        for field, said in definitions[name]["properties"].items():
            assert said.get("description"), f"{name}.{field}"


def test_what_toml_cannot_write_is_not_offered() -> None:
    assert '"null"' not in schema_text()
    assert json.loads(schema_text()) == schema()


def test_the_text_under_a_field_is_its_description() -> None:
    assert field_docs(Decode)["temperature"] == "0 always takes the likeliest token."
