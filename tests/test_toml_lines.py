"""Lines of keys, checked against a writer of random TOML documents that counts them while it writes."""

import itertools
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import Fault
from harness.toml_lines import Key, Node, lines_of, read

SCALARS = st.sampled_from(
    [
        "1",
        "-1_000",
        "0xff",
        "1e-5",
        "inf",
        "true",
        "1979-05-27",
        "07:32:00",
        "1979-05-27T07:32:00Z",
        "1979-05-27 07:32:00.5-07:00",
        '""',
        "''",
        '"# no comment [x] {y} = \\" , ]"',
        "'a = [1, # no comment'",
        '"\\u00e9 \\\\"',
        '"""one\n[fake]\nkey = 1 # no comment\n"""',
        '"""\\\n   joined"""',
        '""""quoted""""',
        '"""""quoted two"""""',
        '"""ends \\""""',
        '""""""',
        "'''\n [[fake]] '' x = 1\n'''",
        "''''quoted''''",
        "''''''",
    ]
)
GAPS = st.sampled_from(["", " ", "\n", "\n\n", " # a comment, with ] and }\n", "\n\t# k1 = 2\n  "])


class Writer:
    """Writes a random document and notes the line of every key and element."""

    def __init__(self, draw: Any) -> None:
        self.draw, self.text, self.lines, self.counter = draw, "", {}, itertools.count(1)

    @property
    def line(self) -> int:
        return self.text.count("\n") + 1

    def key(self) -> tuple[str, str]:
        """A key that stands nowhere else: how it is written, and what it means."""
        n = next(self.counter)
        forms = [
            (f"k{n}", f"k{n}"),
            (f'"k {n}#]"', f"k {n}#]"),
            (f"'k.{n}'", f"k.{n}"),
            (f'"\\u006b-{n}\\""', f'k-{n}"'),
        ]
        return self.draw(st.sampled_from(forms))

    def value(self, path: Key, depth: int) -> None:
        shape = self.draw(st.sampled_from(["scalar", "array", "table"] if depth else ["scalar"]))
        if shape == "array":
            self.text += "["
            for i in range(self.draw(st.integers(0, 3))):
                self.text += ("," if i else "") + self.draw(GAPS)
                self.lines[(*path, i)] = self.line
                self.value((*path, i), depth - 1)
                self.text += self.draw(GAPS)
            self.text += "]"
        elif shape == "table":
            self.text += "{"
            for i in range(self.draw(st.integers(0, 3))):
                self.text += ", " if i else " "
                self.pair(path, depth - 1)
            self.text += " }"
        else:
            self.text += self.draw(SCALARS)

    def pair(self, table: Key, depth: int = 2) -> None:
        path = table
        for i in range(self.draw(st.integers(1, 3))):
            written, meant = self.key()
            path = (*path, meant)
            self.text += ("." if i == 0 else " . ") * (i > 0) + written
            self.lines[path] = self.line
        self.text += self.draw(st.sampled_from(["=", " = ", "\t=  "]))
        self.value(path, depth)

    def body(self, table: Key) -> None:
        for _ in range(self.draw(st.integers(0, 3))):
            self.text += self.draw(st.sampled_from(["", "  ", "# [fake]\n", "\n"]))
            self.pair(table)
            self.text += self.draw(st.sampled_from(["\n", "  # k = 'x'\n", "\n\n"]))

    def section(self, parent: Key, header: str, depth: int = 2) -> None:
        """A table or an array of tables below `parent`, whose header is written `header`."""
        written, meant = self.key()
        name = f"{header}.{written}" if header else written
        path = (*parent, meant)
        if not self.draw(st.booleans()):
            self.lines[path] = self.line
            self.text += f"[ {name} ] # [x]\n"
            self.body(path)
            return
        for i in range(self.draw(st.integers(1, 3))):
            self.lines.setdefault(path, self.line)
            self.lines[(*path, i)] = self.line
            self.text += f"[[{name}]]\n"
            self.body((*path, i))
            for _ in range(self.draw(st.integers(0, 2)) if depth else 0):
                self.section((*path, i), name, depth - 1)


@st.composite
def documents(draw: Any) -> tuple[str, dict[Key, int]]:
    writer = Writer(draw)
    writer.body(())
    for _ in range(draw(st.integers(0, 3))):
        writer.section((), "")
    return writer.text, writer.lines


def paths(value: Any, path: Key = ()) -> Iterator[Key]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from paths(child, (*path, key))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents())
def test_every_key_and_element_has_the_line_it_was_written_on(document: tuple[str, dict[Key, int]]) -> None:
    text, lines = document
    assert set(lines) == set(paths(tomllib.loads(text))), "the writer of this test wrote what it noted"
    assert lines_of(text) == lines


def test_tables_spoken_of_before_their_header_count_from_the_header() -> None:
    lines = lines_of("[a.b]\nx = 1\n\n[a]\ny.z = 2\ny.w = 3\n")
    assert lines == {
        ("a",): 4,
        ("a", "b"): 1,
        ("a", "b", "x"): 2,
        ("a", "y"): 5,
        ("a", "y", "z"): 5,
        ("a", "y", "w"): 6,
    }


def test_read_gives_values_with_their_places(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(
        b'\xef\xbb\xbfname = "x"\r\n[[variant]]\r\nname = "lora"\r\ntrain = [{ rank = 8 }]\r\n[[variant]]\r\nx = 1\r\n'
    )
    root = read(file, "shown.toml")
    assert isinstance(root, Node)
    assert root.plain() == {"name": "x", "variant": [{"name": "lora", "train": [{"rank": 8}]}, {"x": 1}]}
    rank = root.at(("variant", 0, "train", 0, "rank")).place
    assert (rank.file, rank.line, rank.path, rank.folder) == ("shown.toml", 4, "variant.lora.train.0.rank", tmp_path)
    assert root.at(("variant", 1, "x")).place.path == "variant.1.x"
    assert root.at(("variant", 7, "x")) is root.table["variant"]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"a = 1\nb = \n", 2, "not valid TOML"),
        (b"a = 1\na = 2\n", 2, "not valid TOML"),
        (b'a = 1\nb = """open\n', 3, "not valid TOML"),
        (b"a = 1\nb = '\xff'\n", 2, "not UTF-8"),
    ],
)
def test_a_file_that_is_no_toml_is_one_fault_with_its_line(
    content: bytes, line: int, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(content)
    found = read(file, "x.toml")
    assert isinstance(found, Fault)
    assert (found.file, found.line) == ("x.toml", line)
    assert words in found.message


@pytest.mark.parametrize("depth", [70, 300, 480, 3000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{ a = ", "}")])
def test_a_file_that_is_nested_too_deeply_is_one_fault(opening: str, closing: str, depth: int, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(f"a = {opening * depth}1{closing * depth}\n")
    found = read(file, "x.toml")
    assert isinstance(found, Fault)
    assert "nested too deeply: at most 64" in found.message


def test_a_file_that_cannot_be_read_is_one_fault(tmp_path: Path) -> None:
    found = read(tmp_path / "none.toml", "none.toml")
    assert isinstance(found, Fault)
    assert "No such file" in found.message
