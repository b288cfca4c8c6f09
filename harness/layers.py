"""The layers of a spec merged into one tree: a base file, `--set`, `[decode]` and `[defaults]`, `extends`, `matrix`.

How two layers merge, the later one over the earlier:
- tables merge deeply; anything else, arrays too, is replaced as a whole. So `train` and `[[metric]]` are replaced;
- `[[variant]]` of a file that extends another merge by name; new names are added behind;
- a plug-in written as bare text, `prompt = "few-shot"`, counts as the table `{ kind = "few-shot" }`;
- where the later layer asks for another `kind`, settings that only the earlier kind has are dropped (`fit` does it);
- `name` of a file and `matrix` of a variant are not inherited.

Every value keeps the place where it was written, so that faults and relative paths refer to the right file.
"""

from __future__ import annotations

import itertools
import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import Fault, did_you_mean
from harness.toml_lines import Node, Place, node_of, read

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_SETTING_OF_VARIANT = re.compile(r"variant\.(.+)", re.DOTALL)
_HEAD = ("extends", "matrix", "name")


def assemble(file: Path, overrides: Sequence[str]) -> tuple[Node | None, list[Fault]]:
    """Return the merged tree of the spec in `file`, and the faults met; without a tree where it cannot be read.

    `overrides` are texts `path=value`, as `--set` gives them. A path addresses an entry of an array by its name (or
    kind) or by its index from 0, as in `variant.lora.train.0.epochs=1`; the value is TOML, or else taken as text.
    They count as if written in the file: a variant that extends another sees what was set there.
    """
    faults: list[Fault] = []
    root = _read_with_base(file, (), faults)
    if root is None:
        return None, faults
    settings = [_setting(text, root.place.folder, faults) for text in overrides]
    for_variants: list[Node] = []
    for setting in settings:
        if setting is not None and _SETTING_OF_VARIANT.fullmatch(setting.place.path):
            for_variants.append(setting)
        elif setting is not None:
            root = _put_or_fault(root, setting.place.path, setting, faults)
    variants = root.table.get("variant")
    if variants is not None and isinstance(variants.value, list):
        expanded = _Variants(root, for_variants, faults).expand()
        root = replace(root, value={**root.table, "variant": replace(variants, value=expanded)})
    return replace(root, value={k: v for k, v in root.table.items() if k not in ("decode", "defaults")}), faults


def shown(file: Path) -> str:
    """The name of a file in messages: relative to the working folder where it lies below it."""
    absolute = file.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(file)


def with_variables(node: Node) -> str | Fault:
    """Return the text of a path with `${NAME}` and `${NAME:-default}` replaced from the environment.

    An empty variable counts as one that is not set.
    """
    text = str(node.value)
    if "\0" in text:
        return fault(node, "a path cannot hold the character U+0000")
    for found in _VARIABLE.finditer(text):
        if not os.environ.get(found[1]) and found[2] is None:
            hint = f"set it, or give a default: ${{{found[1]}:-path}}"
            return fault(node, f"the environment variable {found[1]} is not set: {hint}")
    return _VARIABLE.sub(lambda found: os.environ.get(found[1]) or found[2], text)


def fault(node: Node, message: str, key: str = "") -> Fault:
    """A fault at the place of `node`, or of its missing `key`."""
    place = node.place
    path = ".".join(part for part in (place.path, key) if part)
    return Fault(message, file=place.file, line=place.line, path=path)


def merge(base: Node, over: Node) -> Node:
    """Return `base` with `over` laid over it (see the top of this file)."""
    if isinstance(base.value, dict) and isinstance(over.value, str):
        over = replace(over, value={"kind": over})
    elif isinstance(base.value, str) and isinstance(over.value, dict):
        base = replace(base, value={"kind": base})
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    kind = base.text("kind")
    other = kind if over.text("kind") not in (None, kind) else None
    merged = {key: replace(child, of_kind=child.of_kind or other) for key, child in base.table.items()}
    for key, child in over.table.items():
        merged[key] = merge(base.table[key], child) if key in base.table else child
    return replace(over, value=merged)


# ---------------------------------------------------------------------------------------------------------- files


def _read_with_base(file: Path, chain: tuple[Path, ...], faults: list[Fault]) -> Node | None:
    """Read `file` and lay it over the file that it extends. `chain` are the files that led here."""
    root = read(file, shown(file))
    if isinstance(root, Fault):
        faults.append(root)
        return None
    extends = root.table.get("extends")
    root = replace(root, value={key: child for key, child in root.table.items() if key != "extends"})
    if extends is None:
        return root
    if not isinstance(extends.value, str):
        faults.append(fault(extends, "must be the path of another spec, as text"))
        return root
    text = with_variables(extends)
    if isinstance(text, Fault):
        faults.append(text)
        return root
    base_file = extends.place.folder / Path(text).expanduser()
    chain = (*chain, file.resolve())
    if base_file.resolve() in chain:
        circle = " -> ".join(path.name for path in (*chain, base_file))
        faults.append(fault(extends, f"files extend each other in a circle: {circle}"))
        return root
    if not there(base_file):
        faults.append(fault(extends, missing(base_file)))
        return root
    if base_file.is_dir():
        faults.append(fault(extends, f"{str(base_file)!r} is a folder, not a spec"))
        return root
    base = _read_with_base(base_file, chain, faults)
    return root if base is None else _merge_files(base, root)


def there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name, or in a folder that is closed to us
        return False


def missing(path: Path) -> str:
    """Say that `path` is not there, with the nearest name that is."""
    parent = path.parent
    if not there(parent):
        while not there(parent.parent):
            parent = parent.parent
        return f"there is no folder {str(parent)!r}, so no {path.name!r} in it"
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    guess = did_you_mean(path.name, names).partition(" Available:")[0]
    return f"there is no file or folder {str(path)!r}.{guess}"


def _merge_files(base: Node, over: Node) -> Node:
    merged = merge(replace(base, value={k: v for k, v in base.table.items() if k != "name"}), over)
    ours, theirs = over.table.get("variant"), base.table.get("variant")
    if ours is None or theirs is None or not isinstance(ours.value, list):
        return merged
    variants = list(theirs.items)
    for variant in ours.items:
        name = variant.text("name")
        same = [i for i, other in enumerate(theirs.items) if name is not None and other.text("name") == name]
        if same:
            variants[same[0]] = merge(variants[same[0]], variant)
        else:
            variants.append(variant)
    return replace(merged, value={**merged.table, "variant": replace(ours, value=variants)})


# ------------------------------------------------------------------------------------------------------- settings


def _setting(text: str, folder: Path, faults: list[Fault]) -> Node | None:
    """Parse `path=value`; the node's place holds the path."""
    path, equals, written = text.partition("=")
    # A name made by a matrix holds "=" itself: lora[rank=8].
    while equals and path.count("[") > path.count("]"):
        more, equals, written = written.partition("=")
        path = f"{path}={more}"
    path = path.strip()
    if not equals or not path:
        faults.append(Fault("write it as path=value, like seeds=[0,1]", file="--set", path=text))
        return None
    value: Any = written.strip()
    try:
        parsed = tomllib.loads(f"value = {written}")
        value = parsed["value"] if len(parsed) == 1 else value
    except (tomllib.TOMLDecodeError, RecursionError):
        pass
    return node_of(value, Place("--set", None, path, folder))


def _put_or_fault(node: Node, path: str, value: Node, faults: list[Fault]) -> Node:
    try:
        return put(node, path, value)
    except LookupError as error:
        faults.append(fault(value, str(error.args[0])))
        return node


def put(node: Node, path: str, value: Node) -> Node:
    """Return `node` with `value` laid over what stands under the dotted `path`.

    Raises LookupError where the path goes through an entry of an array that is not there.
    """
    if isinstance(node.value, list):
        index, rest = _entry(node, path)
        entries = list(node.items)
        entries[index] = put(entries[index], rest, value) if rest else value
        return replace(node, value=entries)
    key, _, rest = path.partition(".")
    table = {"kind": node} if isinstance(node.value, str) else node.table
    if not rest:
        child = value
    elif key in table:
        child = put(table[key], rest, value)
    elif rest.partition(".")[0].isdigit():
        raise LookupError(f"there is no {key!r} to set an entry of")
    else:
        child = put(Node({}, value.place), rest, value)
    return merge(replace(node, value=table), Node({key: child}, node.place))


def _entry(array: Node, path: str) -> tuple[int, str]:
    """Find the entry of `array` that `path` begins with; return its index and the rest of the path."""
    labels: dict[str, int] = {}
    for index, entry in enumerate(array.items):
        labels.setdefault(entry.text("name") or entry.text("kind") or str(index), index)
    # Names may hold dots: the longest that fits is meant.
    for label in sorted(labels, key=len, reverse=True):
        if path == label or path.startswith(f"{label}."):
            return labels[label], path[len(label) + 1 :]
    first, _, rest = path.partition(".")
    if first.isdigit() and int(first) < len(array.items):
        return int(first), rest
    raise LookupError(f"there is no entry {first!r}.{did_you_mean(first, labels)}")


# ------------------------------------------------------------------------------------------------------- variants


class _Variants:
    """Expands the `[[variant]]` tables: defaults and `extends` merged in, settings applied, each `matrix` unrolled."""

    def __init__(self, root: Node, settings: Sequence[Node], faults: list[Fault]) -> None:
        self.faults = faults
        self.written = root.table["variant"].items
        self.base = self._common(root)
        self.settings: dict[int, list[tuple[str, Node]]] = {}
        self.unplaced: list[tuple[str, Node]] = []
        for setting in settings:
            path = setting.place.path.partition(".")[2]
            try:
                index, rest = _entry(root.table["variant"], path)
                self.settings.setdefault(index, []).append((rest, setting))
            except LookupError:
                self.unplaced.append((path, setting))
        self.done: dict[int, Node] = {}

    def _common(self, root: Node) -> Node:
        """What every variant starts from: `[decode]`, with `[defaults]` over it."""
        base = Node({}, root.place)
        for key in ("decode", "defaults"):
            part = root.table.get(key)
            if part is None:
                continue
            if not isinstance(part.value, dict):
                self.faults.append(fault(part, f"must be a table: write [{key}]"))
                continue
            for refused in (name for name in _HEAD if key == "defaults" and name in part.table):
                self.faults.append(fault(part.table[refused], f"{refused!r} belongs to one variant, not to defaults"))
            kept = {name: child for name, child in part.table.items() if key == "decode" or name not in _HEAD}
            base = merge(base, Node({key: part} if key == "decode" else kept, root.place))
        return base

    def expand(self) -> list[Node]:
        array = [made for index in range(len(self.written)) for made in self._unrolled(self._resolve(index, ()))]
        # What names a variant that a matrix made can only be placed now.
        if array:
            whole = Node(array, array[0].place)
            for path, setting in self.unplaced:
                whole = _put_or_fault(whole, path, setting, self.faults)
            array = whole.items
        return array

    def _resolve(self, index: int, chain: tuple[int, ...]) -> Node:
        """Return a variant with all that it inherits. `chain` are the variants that extend this one."""
        if index in self.done:
            return self.done[index]
        own = self.written[index]
        if not isinstance(own.value, dict):
            return own
        settings = self.settings.get(index, [])
        early = [(path, value) for path, value in settings if path.partition(".")[0] in _HEAD]
        for path, value in early:
            own = _put_or_fault(own, path, value, self.faults)
        base = self._extended(own, (*chain, index))
        inherited = {key: child for key, child in base.table.items() if key != "matrix"}
        merged = merge(replace(base, value=inherited), own)
        for path, value in settings:
            if not path:
                self.faults.append(fault(value, "name what is set of this variant, like variant.lora.train.0.epochs"))
            elif (path, value) not in early:
                merged = _put_or_fault(merged, path, value, self.faults)
        self.done[index] = replace(merged, value={k: v for k, v in merged.table.items() if k != "extends"})
        return self.done[index]

    def _extended(self, own: Node, chain: tuple[int, ...]) -> Node:
        """The variant that `own` extends, or what all start from."""
        extends = own.table.get("extends")
        if extends is None:
            return self.base
        names = [variant.text("name") for variant in self.written]
        if extends.value not in names or not isinstance(extends.value, str):
            known = [name for name in names if name and name != own.text("name")]
            text = extends.value if isinstance(extends.value, str) else str(extends.plain())
            self.faults.append(fault(extends, f"there is no variant {text!r}.{did_you_mean(text, known)}"))
            return self.base
        index = names.index(extends.value)
        if index in chain:
            circle = " -> ".join(str(names[i]) for i in (*chain[chain.index(index) :], index))
            self.faults.append(fault(extends, f"variants extend each other in a circle: {circle}"))
            return self.base
        return self._resolve(index, chain)

    def _unrolled(self, variant: Node) -> list[Node]:
        """Make one variant for each combination of the values in `matrix`, named like `lora[rank=8]`."""
        matrix = variant.table.get("matrix")
        if matrix is None:
            return [variant]
        variant = replace(variant, value={key: child for key, child in variant.table.items() if key != "matrix"})
        axes = dict(_axes(matrix, ""))
        found = len(self.faults)
        for path, axis in axes.items() or [("", matrix)]:
            if axis.items:
                _put_or_fault(variant, path, replace(axis.items[0], place=axis.place), self.faults)
            else:
                message = 'must be an array of values to try, like { "train.0.adapter.rank" = [8, 16] }'
                self.faults.append(fault(axis, message))
        if len(self.faults) > found:
            return [variant]
        made = []
        for values in itertools.product(*(axis.items for axis in axes.values())):
            one = variant
            for path, value in zip(axes, values, strict=True):
                one = _put_or_fault(one, path, value, self.faults)
            labels = zip(_short(list(axes)), map(_label, axes.values(), values), strict=True)
            suffix = ",".join(f"{key}={label}" for key, label in labels)
            name = variant.table.get("name", Node("", variant.place))
            one = put(one, "name", replace(name, value=f"{name.value}[{suffix}]"))
            made.append(one)
        return made


def _axes(matrix: Node, prefix: str) -> list[tuple[str, Node]]:
    """The paths of a matrix and their values, however its dots were written: quoted, bare, or as tables."""
    if not isinstance(matrix.value, dict):
        return [(prefix, matrix)]
    children = [(f"{prefix}.{key}" if prefix else key, child) for key, child in matrix.table.items()]
    return [axis for path, child in children for axis in _axes(child, path)]


def _short(paths: list[str]) -> list[str]:
    """The last part of each path, or as many last parts as tell them apart and begin with a word."""
    for size in itertools.count(1):
        names = [".".join(path.split(".")[-size:]) for path in paths]
        if len(set(names)) == len(names) and not any(name[:1].isdigit() for name in names):
            break
        if names == paths:
            break
    return names


def _label(axis: Node, value: Node) -> str:
    if isinstance(value.value, bool):
        return str(value.value).lower()
    if isinstance(value.value, float):
        return f"{value.value:g}"
    if isinstance(value.value, dict | list):
        return value.text("kind") or str(axis.items.index(value) + 1)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", str(value.value))
