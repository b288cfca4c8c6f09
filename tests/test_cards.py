"""The card that every trained artifact carries."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparison import Comparison

from harness import cards

TRAINED = """
[[variant]]
name  = "lora"
train = [{ kind = "toys:Steps", steps = 3 }]
"""


def test_a_trained_artifact_says_what_it_was_made_from_and_what_that_took(tmp_path: Path) -> None:
    comparison = Comparison(tmp_path / "one", TRAINED)
    assert comparison.run("--set", "baseline=lora").status == 0
    step = comparison.step("lora", "train.0")
    card = (step.path / "artifact" / "README.md").read_text()
    head = card.split("---")[1]
    assert "license: " in head
    table = [line[2:-2] for line in card.splitlines() if line.startswith("| ") and line != "| | |"]
    rows = dict(line.split(" | ", 1) for line in table if ":--" not in line)
    inputs, outcome = step.inputs or {}, step.outcome or {}
    assert rows["step"] == step.name
    assert rows["data: train"] == f"SHA-256 {inputs['train']}"
    assert rows["weights trained"] == "7"
    assert rows["steps, tokens"] == "3, 300"
    assert {"time", "peak memory", "libraries", "seed"} <= rows.keys()
    assert '"steps": 3' in card
    assert str(tmp_path) not in card, "results are shown to others"
    held = sum(file.stat().st_size for file in (step.path / "artifact").iterdir() if file.name != "README.md")
    assert outcome["bytes"] == held, "the card has another length each time, and is not counted"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"README.md": "---\nlicense: apache-2.0\n---\n# A model"}, "apache-2.0"),
        ({"README.md": "# A model", "LICENSE": "\nMIT License\n\nCopyright"}, "MIT License"),
        ({"LICENCE.txt": "The licence of the house"}, "The licence of the house"),
        ({}, "unknown"),
    ],
)
def test_the_licence_of_a_folder_is_what_its_card_or_licence_file_says(
    tmp_path: Path, tiny_model: Path, files: dict[str, str], said: str
) -> None:
    for file in tiny_model.iterdir():
        (tmp_path / file.name).symlink_to(file)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert cards.licence({"id": str(tmp_path)}) == said


def test_the_licence_of_a_built_in_model_is_known() -> None:
    assert cards.licence({"id": "smollm2-135m-instruct"}) == "Apache-2.0"
