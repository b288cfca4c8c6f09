"""What the README shows is what the commands and specs take."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness import cli, spec
from harness.plugins import BASES
from harness.spec import Spec

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """The spec of "A spec, line by line", with files where it wants some."""
    text = README.partition("## A spec, line by line")[2].partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "acme" / "kb").mkdir(parents=True)
    for i, split in enumerate(("train", "dev", "heldout")):
        row = {"question": f"q{i}", "answer": f"a{i}", "product": f"p{i}", "article": "page"}
        (tmp_path / "acme" / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "acme" / "judged.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}')
    (tmp_path / "acme" / "kb" / "page.md").write_text("# A page")
    file = tmp_path / "acme.toml"
    file.write_text(text)
    return file


def test_the_spec_line_by_line_is_sound(shown: Path) -> None:
    found = spec.load(shown)
    assert {variant.family for variant in found.variants} == {"prompting", "RAG", "fine-tuning", "hybrid"}
    assert {variant.decode.kind for variant in found.variants} == {"generate", "choices"}


def test_every_table_of_a_spec_is_named() -> None:
    for key, field in Spec.model_fields.items():
        if isinstance(field.annotation, type) and key not in ("name", "question", "baseline"):
            assert re.search(rf"\[{key}\]", README), key


def test_every_command_is_in_the_table_and_every_word_of_it_is_a_command() -> None:
    rows = re.findall(r"^\| (`.*?`) \|", README.partition("## Commands")[2].partition("\n## ")[0], re.M)
    words = {quoted.removeprefix("harness ").split()[0] for row in rows for quoted in re.findall(r"`(.*?)`", row)}
    assert words == set(cli.WORDS)


def test_every_family_of_plugins_is_named_as_one_of_your_own() -> None:
    told = README.partition("## Your own parts")[2].partition("is one class in one file")[0]
    for family in BASES:
        assert family.removesuffix("s") in told, family


def test_its_links_to_files_lead_somewhere() -> None:
    root = Path(__file__).resolve().parent.parent
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (root / link).exists()] == []
