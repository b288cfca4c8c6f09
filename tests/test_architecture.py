"""The shape of the package: imports point one way, and start-up loads nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "harness"

FAMILIES = ("prompts", "retrievers", "chunkers", "embedders", "methods", "adapters", "backends", "metrics")

# Each module may import modules of its own rank or of a lower one; the reading side is kept apart below.
RANKS: dict[str, int] = {}
for rank, names in enumerate(
    [
        ("errors", "folding"),
        ("records", "stats", "power", "randomisation", "files", "figures", "extras", "devices", "toml_lines"),
        ("training_notes",),
        ("words", "near", "overlap", "personal", "quality"),
        ("reducers", "bootstrap", "samples", "choices", "rules", "terms", "bradley_terry", "agreement", "rubric"),
        ("models", "artifacts", "_bottleneck", "adapted", "chat", "plugins", "rows", "replies", "leaks", "readers"),
        FAMILIES,
        ("shape", "layers", "step"),
        ("data_spec", "decode", "stages", "fields"),
        ("spec", "snapshot", "documents", "preferences", "conversations"),
        ("schema", "data", "store", "board"),
        (
            "measure",
            "fit",
            "asking",
            "plan",
            "means",
            "scoring",
            "archive",
            "mirror",
            "results",
            "heldout_use",
            "comparisons",
            "margins",
        ),
        ("places",),
        ("leaderboard",),
        ("changes", "slices", "classes"),
        ("comparing", "pairwise"),
        ("verdicts", "sheets"),
        ("ratings",),
        ("money", "measures", "limits", "pareto", "decision", "advice", "gate"),
        ("training", "cards"),
        ("pipeline", "page", "tracking"),
        ("runner", "judging", "estimate", "display", "forecast", "showing", "starter", "rescore"),
        ("commands",),
        ("cli",),
        ("__main__",),
    ]
):
    RANKS |= dict.fromkeys(names, rank)

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "datasets",
    "wandb",
    "faiss",
    "streamlit",
    "sentence_transformers",
    "pandas",
    "sacrebleu",
    "rouge_score",
    "jsonschema",
)
READING = (
    "store",
    "step",
    "snapshot",
    "rows",
    "files",
    "results",
    "heldout_use",
    "changes",
    "slices",
    "classes",
    "comparing",
    "pairwise",
    "bradley_terry",
    "agreement",
    "verdicts",
    "sheets",
    "ratings",
    "rules",
    "terms",
    "money",
    "measures",
    "limits",
    "pareto",
    "decision",
    "advice",
    "gate",
    "comparisons",
    "margins",
    "places",
    "power",
    "randomisation",
    "bootstrap",
    "samples",
    "leaderboard",
    "board",
    "figures",
    "stats",
    "reducers",
    "records",
    "page",
)


def modules() -> list[tuple[str, Path]]:
    """(first part below `harness`, file) of every module of the package."""
    files = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
    return [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in files]


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """The modules that a file imports, with `harness.` ones down to the second part. Typing-only ones do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if top_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update([f"harness.{a.name}" for a in node.names] if node.module == "harness" else [node.module])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def ours(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("harness.")} - {"__version__"}


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(value) if isinstance(value, str) else "")
def test_imports_point_one_way(name: str, path: Path) -> None:
    assert name in RANKS, f"give {name} its place in RANKS"
    for other in ours(path):
        assert RANKS[other] <= RANKS[name], f"{name} imports {other}, which stands above it"


def test_families_never_import_each_other() -> None:
    for name, path in modules():
        if name in FAMILIES:
            others = ours(path) & set(FAMILIES) - {name}
            assert not others, f"{path.name} of {name} imports {others}"


def test_the_reading_side_knows_no_plugins() -> None:
    for name, path in modules():
        if name in READING:
            assert ours(path) <= {*READING, "errors"}, f"{name} imports {ours(path)}"


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    for name, path in modules():
        if name == "page":
            continue  # The page's own process loads Streamlit and pandas anyway.
        heavy = {module.split(".")[0] for module in imports(path, top_level=True)} & set(HEAVY)
        # A family's inner part (its name starts with an underscore) is imported only by what has loaded torch.
        assert not heavy or path.name.startswith("_"), f"{path} imports {heavy} at its top"


@pytest.mark.parametrize(
    "command", [["--help"], ["check", "specs/quickstart.toml"], ["schema"], ["list"]], ids=" ".join
)
def test_starting_up_loads_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys; from harness.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"sys.stderr.write('|'.join(sorted(set({HEAVY!r}) & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=PACKAGE.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ""
