"""What stands where in a spec: the models and plug-ins behind each key, found by walking pydantic fields.

`fit` prepares a tree of nodes for validation, `explain` says in plain words what validation found, with its place.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import Fault, did_you_mean
from harness.layers import fault, missing, there, with_variables
from harness.plugins import Backend, Family, Local, Plugin, find
from harness.toml_lines import Node


class Table(BaseModel):
    """A table of the spec: frozen, unknown keys refused. `layered` are keys that are used up before validation."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    layered: ClassVar[frozenset[str]] = frozenset()


Slot = Family | Local | type[BaseModel]
"""What a field holds that is more than a plain value: a plug-in, a path, or a table of its own."""


# ---------------------------------------------------------------------------------------------------------- walk


@cache
def slots(cls: type[BaseModel]) -> Mapping[str, Slot | None]:
    """Return the slot of each field of `cls`, under the key that a spec writes it with."""
    found = {}
    for name, field in cls.model_fields.items():
        found[field.alias or name] = _slot((*field.metadata, field.annotation))
    return found


def _slot(annotations: tuple[Any, ...]) -> Slot | None:
    return next((slot for annotation in annotations for slot in _slots_in(annotation)), None)


def _slots_in(annotation: Any) -> Iterator[Slot]:
    """The slots that a type holds, through Annotated, unions, arrays and tables."""
    if isinstance(annotation, Family | Local):
        yield annotation
    elif annotation is Path:
        yield Local()
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        yield from (slot for mark in (*marks, inner) for slot in _slots_in(mark))
    elif get_origin(annotation) in (Union, types.UnionType, tuple, list):
        yield from (slot for argument in get_args(annotation) for slot in _slots_in(argument))


def class_of(slot: Slot | None, node: Node) -> type[BaseModel] | None:
    """Return the class that validates `node`, or None where it is a plain value or of an unknown kind."""
    if not isinstance(slot, Family):
        return slot if isinstance(slot, type) else None
    kind = node.value if isinstance(node.value, str) else node.text("kind") or slot.default
    try:
        return find(slot.name, kind) if kind is not None else None
    except LookupError:
        return None


def instance(slot: Family, node: Node | None) -> Plugin | None:
    """Return the plug-in that `node` describes, or None where it is absent or faulty."""
    cls = class_of(slot, node) if node is not None else None
    if node is None or cls is None:
        return None
    settings = {key: child.plain() for key, child in node.table.items() if key != "kind"}
    try:
        plugin = cls.model_validate(settings)
    except ValidationError:
        return None
    return plugin if isinstance(plugin, Plugin) else None


def model_has(root: Node, ability: str) -> bool:
    """Whether the model can be trained ("trainable") or tell likelihoods; True where it is faulty itself."""
    backend = class_of(Family("backends"), root.table["model"]) if "model" in root.table else None
    return backend is None or not issubclass(backend, Backend) or bool(getattr(backend, ability))


def not_of(root: Node) -> str:
    """The end of a message: which model to name instead of the one that cannot."""
    kind = root.table["model"].text("kind") or root.table["model"].plain()
    return f'[model] kind = "transformers"; not {kind!r}'


def fit(node: Node, slot: Slot | None, faults: list[Fault]) -> Node:
    """Resolve every path of the tree, drop what is switched off (`retrieve = false`), and drop inherited settings
    that belong to another kind of plug-in."""
    if isinstance(slot, Local) and slot.choice:
        node = chosen(node)
    if isinstance(node.value, list):
        return replace(node, value=[fit(child, slot, faults) for child in node.items])
    if isinstance(slot, Local):
        return _resolved(node, slot, faults)
    cls = class_of(slot, node)
    if cls is None or not isinstance(node.value, dict):
        return node
    known = slots(cls)
    table = {}
    for key, child in node.table.items():
        foreign = child.of_kind is not None and key not in known and isinstance(slot, Family)
        if foreign and isinstance(slot, Family) and key in slots(find(slot.name, child.of_kind or "")):
            continue
        inner = known.get(key)
        if child.value is False and inner is not None:
            continue
        table[key] = fit(child, inner, faults)
    return replace(node, value=table)


def chosen(node: Node) -> Node:
    """Of several places, written as an array, the first whose environment variables are set, else the last."""
    if not node.items or not all(isinstance(item.value, str) for item in node.items):
        return node
    return next((item for item in node.items if isinstance(with_variables(item), str)), node.items[-1])


def _resolved(node: Node, slot: Local, faults: list[Fault]) -> Node:
    """Make a path absolute. `hf:` ids, numbers and what is no path stay as they are."""
    if not isinstance(node.value, str):
        return node
    text = with_variables(node)
    if isinstance(text, Fault):
        faults.append(text)
        return node
    if text.startswith("hf:"):
        return replace(node, value=text)
    if slot.or_stage and "/" not in text:
        return replace(node, value=text)
    path = node.place.folder.absolute() / Path(text).expanduser()
    absent = not there(path)
    if slot.or_name and absent and not text.startswith((".", "/", "~")) and "${" not in str(node.value):
        return node
    if absent:
        faults.append(fault(node, missing(path)))
        return node
    return replace(node, value=str(path.resolve()))


# --------------------------------------------------------------------------------------------------------- explain

_ALLOWED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "an array",
    "list_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "is_instance_of": "a table",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "string_too_short": "at least {min_length} characters long",
    "string_too_long": "at most {max_length} characters long",
    "string_pattern_mismatch": "of the form {pattern}",
}
_ABSENT = {
    "model": "there is no [model]",
    "data": "there is no [data]",
    "metric": "there is no [[metric]]: write at least one",
    "variant": "there is no [[variant]]: write at least one",
}


def explain(error: ValidationError, root: Node, cls: type[BaseModel]) -> list[Fault]:
    """Say in plain words what validating `root` as `cls` found: what was given, what is allowed, and where."""
    faults: list[Fault] = []
    wrong: dict[int, tuple[Node, list[str]]] = {}
    empty: set[int] = set()
    for item in error.errors(include_url=False):
        owner, key, node = _walk(root, cls, item["loc"])
        kind, context = item["type"], item.get("ctx", {})
        if kind == "missing":
            faults.append(fault(node, _ABSENT.get(key, f"`{key}` is missing"), key))
        elif kind == "extra_forbidden":
            faults.append(fault(node, f"unknown key {key!r}.{did_you_mean(key, _keys(owner))}"))
        elif kind == "kind":
            faults.append(fault(node.table.get("kind", node), item["msg"]))
        elif kind in ("value_error", "assertion_error"):
            faults.append(fault(node, str(context.get("error", item["msg"]))))
        elif kind == "too_short":
            # pydantic counts only the sound entries; those that are not have their own faults.
            if not node.items:
                empty.add(id(node))
                faults.append(fault(node, _ABSENT.get(key, "must not be empty")))
        elif kind == "literal_error" and isinstance(node.value, str):
            allowed = re.findall(r"'([^']*)'", context["expected"])
            faults.append(fault(node, f"unknown value {node.value!r}.{did_you_mean(node.value, allowed)}"))
        else:
            phrase = _ALLOWED.get(kind, "").format(**context) or context.get("expected")
            if phrase == "a table" and owner is not None and isinstance(slots(owner).get(key), Family):
                phrase = "a table with a `kind`, or the kind alone as text"
            # Each type of a union reports for itself: together they are one fault.
            wrong.setdefault(id(node), (node, []))[1].append(phrase or item["msg"])
    for node, phrases in (each for place, each in wrong.items() if place not in empty):
        faults.append(fault(node, f"must be {' or '.join(dict.fromkeys(phrases))}, not {_given(node)}"))
    return faults


def _walk(root: Node, cls: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[type[BaseModel] | None, str, Node]:
    """Follow `loc` down the tree. Return the class that holds the last key, that key, and the deepest node met."""
    node, key = root, ""
    slot: Slot | None = cls
    owner: type[BaseModel] | None = None
    for part in loc:
        if isinstance(part, int):
            if part >= len(node.items):
                break
            node = node.items[part]
            continue
        if isinstance(node.value, dict):
            owner, key = class_of(slot, node), part
            slot = slots(owner).get(part) if owner is not None else None
        if part not in node.table:
            break
        node = node.table[part]
    return owner, key, node


def _keys(cls: type[BaseModel] | None) -> set[str]:
    if cls is None:
        return set()
    kind = {"kind"} if issubclass(cls, Plugin) else set()
    return set(slots(cls)) | set(getattr(cls, "layered", ())) | kind


def _given(node: Node) -> str:
    if isinstance(node.value, dict | list):
        return "a table" if isinstance(node.value, dict) else "an array"
    if isinstance(node.value, bool):
        return str(node.value).lower()
    text = repr(node.value) if isinstance(node.value, str | int | float) else str(node.value)
    return text if len(text) <= 60 else f"{text[:57]}..."
