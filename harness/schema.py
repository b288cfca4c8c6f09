"""The JSON Schema of a spec, for editors that complete and check TOML (`#:schema schema.json` on its first line).

It is made from the same classes that `spec.load` validates with: every plug-in that is installed is in it, with the
texts that stand under its fields. It says less than `harness check`: what spans fields or files is left to that.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
from functools import cache
from typing import Any

from pydantic import BaseModel

from harness.decode import Decode
from harness.plugins import BASES, Plugin, available, find
from harness.shape import slots
from harness.spec import Spec

_OWN = {"pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", "description": "Your own plug-in, as module:Class."}


def schema_text() -> str:
    """The schema as it stands in `specs/schema.json`."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def schema() -> dict[str, Any]:
    """Return the schema (JSON Schema draft 2020-12)."""
    definitions: dict[str, Any] = {}
    spec = _table(Spec, definitions)
    variant = definitions["Variant"]
    variant["properties"] |= {
        "extends": {"type": "string", "description": "The variant whose settings this one starts from."},
        "matrix": {
            "type": "object",
            "additionalProperties": {"type": ["array", "object"]},
            "description": 'One variant for each value: { "train.0.adapter.rank" = [8, 16] }.',
        },
    }
    variant["required"] = ["name"]
    names = ("name", "extends", "matrix")
    shared = {key: value for key, value in variant["properties"].items() if key not in names}
    spec["properties"] |= {
        "decode": _table(Decode, definitions),
        "defaults": {
            "type": "object",
            "description": "What every variant starts from.",
            "properties": shared,
            "additionalProperties": False,
        },
        "extends": {"type": "string", "description": "The path of a spec that this one is laid over."},
    }
    for family in BASES:
        definitions[family] = _family(family, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_tidy(spec),
        "description": "A comparison of variants of one base model.",
        "anyOf": [{"required": ["extends"]}, {"required": ["model", "data", "metric", "variant"]}],
        "$defs": {name: _tidy(definitions[name]) for name in sorted(definitions)},
    }


def _family(family: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """All that may stand where a plug-in of `family` is asked for."""
    kinds = available(family)
    known: dict[str, Any] = {}
    for kind in kinds:
        cls = find(family, kind)
        table = _table(cls, definitions)
        for key, value in table["properties"].items():
            known[key] = value if known.get(key, value) == value else {}
        table["properties"] = {"kind": {"const": kind, "description": table["description"]}} | table["properties"]
        table["required"] = ["kind"]
        definitions[f"{family}.{kind}"] = table
    own = {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string", **_OWN}}}
    # Where a table is laid over another one, the kind may come from there.
    partial = {"type": "object", "not": {"required": ["kind"]}, "properties": known}
    return {
        "description": _first_paragraph(inspect.getdoc(BASES[family]) or ""),
        "anyOf": [
            *([{"type": "string", "enum": list(kinds)}] if kinds else []),
            {"type": "string", **_OWN},
            *({"$ref": f"#/$defs/{family}.{kind}"} for kind in kinds),
            own,
            partial,
        ],
    }


def _table(cls: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of one class. The tables that it holds go into `definitions`."""
    table = cls.model_json_schema(ref_template="#/$defs/{model}")
    table.pop("$defs", None)
    # What is missing may come from a file, a variant or defaults that this is laid over.
    table.pop("required", None)
    about = cls.__dict__.get("__doc__") or (inspect.getmodule(cls) or cls).__doc__ or ""
    table["description"] = _first_paragraph(inspect.cleandoc(about))
    docs = field_docs(cls)
    for name, field in cls.model_fields.items():
        key = field.alias or name
        value = table["properties"][key]
        if name in docs:
            value["description"] = docs[name]
        slot = slots(cls).get(key)
        if slot is not None:
            value.pop("default", None)
            value["anyOf"] = [{"const": False} if x == {"type": "null"} else x for x in value.get("anyOf", [])]
        if isinstance(slot, type) and not issubclass(slot, Plugin) and slot.__name__ not in definitions:
            definitions[slot.__name__] = {}
            definitions[slot.__name__] = _table(slot, definitions)
    return table


def _tidy(value: Any) -> Any:
    """Drop pydantic's titles and nulls, which TOML does not have, and put references where plug-ins go."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    tidied: dict[str, Any] = {}
    for key, child in value.items():
        if key == "title" or (key == "default" and child is None):
            continue
        if key == "properties":
            tidied[key] = {name: _tidy(property_) for name, property_ in child.items()}
        elif key == "plugin":
            tidied["$ref"] = f"#/$defs/{child}"
        elif key == "anyOf":
            choices = [_tidy(choice) for choice in child if choice != {"type": "null"}]
            tidied |= {key: choices} if len(choices) > 1 else choices[0] if choices else {}
        else:
            tidied[key] = child if key in ("default", "enum", "const") else _tidy(child)
    return tidied


def _first_paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


@cache
def field_docs(cls: type[BaseModel]) -> dict[str, str]:
    """The texts that stand under the fields of `cls` and of the classes it derives from."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        for field, text in itertools.pairwise(tree.body if isinstance(tree, ast.ClassDef) else ()):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                docs[field.target.id] = " ".join(str(text.value.value).split())
    return docs
