"""How plug-ins are found and named; that one new file is enough to add one."""

import importlib
import importlib.metadata
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from comparison import SPEC, Comparison

from harness import plugins
from harness.errors import SpecError
from harness.plugins import BASES, Metric, Plugin, available, find, kind_of
from harness.records import Example, Prediction
from harness.spec import load

EXAMPLE = Example(id="1", input="q", targets=("Yes",))
NUMBERS = itertools.count()

METRIC = """
from harness.plugins import Metric

class Shouted(Metric):
    mark: str = "!"

    def measure(self, example, prediction):
        return float(prediction.text.endswith(self.mark))
"""
PROMPT = """
from harness.plugins import Prompt
from harness.records import Message

class Rude(Prompt):
    word: str = "now"

    def messages(self, example, context):
        passages = (passage.text for passage in context.passages(example)) if context else ()
        return (Message("user", "\\n".join([*passages, f"{example.input} {self.word}"])),)
"""
RETRIEVER = """
import json
from harness.plugins import Index, Retriever
from harness.records import Passage

class Shelf(Retriever):
    shelf: int = 1

    def build(self, documents, out, embedding):
        (out / "shelf.json").write_text(json.dumps([(document.id, document.text) for document in documents]))

    def open(self, folder, embedding):
        return ByName(json.loads((folder / "shelf.json").read_text()))

class ByName(Index):
    def __init__(self, texts):
        self.all = [Passage(id=f"{name}#0", document=name, text=text) for name, text in texts]

    def passages(self):
        return self.all

    def search(self, queries, k):
        return [[passage for passage in self.all if passage.document in query][:k] for query in queries]
"""
ADAPTER = """
from typing import ClassVar
from harness.plugins import Adapter

class Norms(Adapter):
    learning_rate: ClassVar[float] = 0.05

    last: bool = True

    def wrap(self, model):
        for name, weight in model.named_parameters():
            weight.requires_grad_("layernorm" in name or (self.last and name == "model.norm.weight"))
        return model
"""
METHOD = """
from typing import Annotated
from harness.plugins import Adapter, Family, Method

class Drill(Method):
    adapter: Annotated[Adapter, Family("adapters")] | None = None

    def fit(self, job, progress): ...
"""
BACKEND = """
from typing import ClassVar
from harness.plugins import Backend

class Mute(Backend):
    trainable: ClassVar[bool] = True

    def fingerprint(self): return {}
    def open(self): ...
"""

NewModule = Callable[[str], str]


@pytest.fixture
def new_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NewModule]:
    """Write a module into a temporary folder beside the spec and return its name, which no other test uses."""
    made: list[str] = []

    def write(source: str) -> str:
        name = f"plug_in_of_a_test_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(source)
        made.append(name)
        return name

    monkeypatch.setattr(sys, "path", [*sys.path])
    yield write
    for name in made:
        sys.modules.pop(name, None)


def spec_file(folder: Path, text: str) -> Path:
    for name in ("train.jsonl", "heldout.jsonl"):
        (folder / name).write_text("{}\n")
    (folder / "kb").mkdir()
    data = '[data]\ntrain = "train.jsonl"\nheldout = "heldout.jsonl"\ndocuments = "kb"\n'
    file = folder / "own.toml"
    file.write_text(data + text)
    return file


# ---------------------------------------------------------------------------------------------------- one new file


def test_metric_adapter_retriever_and_prompt_are_each_added_by_one_new_file(
    new_module: NewModule, tmp_path: Path
) -> None:
    metric, prompt, retriever = new_module(METRIC), new_module(PROMPT), new_module(RETRIEVER)
    adapter, method, backend = new_module(ADAPTER), new_module(METHOD), new_module(BACKEND)
    text = f"""
[model]
kind = "{backend}:Mute"
[[metric]]
kind = "{metric}:Shouted"
mark = "?"
[[variant]]
name = "own"
prompt = {{ kind = "{prompt}:Rude", word = "please" }}
retrieve = {{ kind = "{retriever}:Shelf", shelf = 7, top_k = 1 }}
train = [{{ kind = "{method}:Drill", adapter = {{ kind = "{adapter}:Norms", last = false }} }}]
"""
    spec = load(spec_file(tmp_path, text))
    (variant,) = spec.variants
    assert spec.primary.name == "Shouted"
    assert spec.primary.measure(EXAMPLE, Prediction(id="1", text="well?")) == 1.0
    assert variant.prompt.messages(EXAMPLE, None)[0].content == "q please"  # type: ignore[arg-type]
    resolved = spec.resolved()["variants"][0]
    assert (resolved["retrieve"]["shelf"], resolved["retrieve"]["top_k"]) == (7, 1)
    assert resolved["train"][0]["adapter"]["kind"] == f"{adapter}:Norms"
    assert resolved["train"][0]["adapter"]["last"] is False
    assert variant.family == "hybrid"
    json.dumps(spec.resolved())


def test_a_comparison_runs_to_its_leaderboard_with_a_users_own_metric_prompt_and_retriever(
    new_module: NewModule, tmp_path: Path
) -> None:
    metric, prompt, retriever = new_module(METRIC), new_module(PROMPT), new_module(RETRIEVER)
    own = f'{{ kind = "{prompt}:Rude", word = "please" }}'
    variants = f"""
[[variant]]
name = "plain"

[[variant]]
name   = "rude"
prompt = {own}

[[variant]]
name     = "rude-shelf"
prompt   = {own}
retrieve = {{ kind = "{retriever}:Shelf", top_k = 1 }}
"""
    comparison = Comparison(tmp_path, variants)
    comparison.edit('kind      = "toys:Counted"', 'kind      = "canned"')
    comparison.edit('kind      = "exact_match"\nnormalise = "none"', f'kind = "{metric}:Shouted"')
    shouted = '"fig? please" = "Purple!"\n"gooseberry is green" = "Green!"\n"hawthorn is scarlet" = "Scarlet!"'
    comparison.edit('"fig is purple" = "purple"', f'"fig is purple" = "purple"\n{shouted}')
    done = comparison.run()
    assert done.status == 0, done.err
    board = comparison.board()
    assert (board["primary"], [row["variant"] for row in board["rows"]]) == ("Shouted", ["rude-shelf", "rude", "plain"])
    # Asked rudely, one of eight is shouted; with the passages of the shelf, two others are.
    assert [row["metrics"]["Shouted"]["value"] for row in board["rows"]] == [2 / 8, 1 / 8, 0.0]
    assert board["rows"][0]["metrics"]["recall@1"]["value"] == 1.0
    assert board["rows"][0]["vs_baseline"]["difference"] == 2 / 8
    assert comparison.step("rude-shelf", "predict").prediction(0).passages[0].text.startswith("The apple is red")


def test_a_users_own_adapter_decides_which_weights_sft_trains(
    new_module: NewModule, tmp_path: Path, tiny_model: Path
) -> None:
    from safetensors.torch import load_file

    adapter = new_module(ADAPTER)
    variants = f"""
[[variant]]
name   = "norms"
decode = {{ max_tokens = 2 }}
train  = [{{ kind = "sft", epochs = 2, adapter = {{ kind = "{adapter}:Norms", last = false }} }}]
"""
    _, data, rest = SPEC.partition("[data]")
    model = f'name = "own"\n[model]\nkind = "transformers"\nid = "{tiny_model}"\ndevice = "cpu"\ndtype = "float32"\n'
    comparison = Comparison(tmp_path, variants, model + data + rest)
    done = comparison.run()
    assert done.status == 0, done.err
    (row,) = comparison.board()["rows"]
    assert (row["family"], row["metrics"]["exact_match"]["n"]) == ("fine-tuning", 8)
    assert row["cost"]["trainable_parameters"] == 2 * 2 * 64, "two layers with two norms of width 64 each"
    before = load_file(tiny_model / "model.safetensors")
    after = load_file(comparison.step("norms", "train.0").path / "artifact" / "model.safetensors")
    changed = {name for name, weight in before.items() if not weight.equal(after[name])}
    assert changed == {name for name in before if "layernorm" in name} and len(changed) == 4


def test_faults_inside_a_users_own_plug_in_have_their_line(new_module: NewModule, tmp_path: Path) -> None:
    text = f"""[model]
kind = "{new_module(BACKEND)}:Mute"
[[metric]]
kind = "{new_module(METRIC)}:Shouted"
mrak = "?"
[[variant]]
name = "own"
"""
    with pytest.raises(SpecError, match=r"own.toml:9 metric.0.mrak: unknown key 'mrak'. Did you mean 'mark'"):
        load(spec_file(tmp_path, text))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("from harness.plugins import Metric\nclass Own(Metric):\n    pass\n", "does not define measure"),
        ("class Own:\n    pass\n", "derived from harness.plugins.Metric"),
        ("Own = 3\n", "derived from harness.plugins.Metric"),
        ("import no_such_module_at_all\n", "No module named 'no_such_module_at_all'"),
        ("class Own(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("class Other: ...\n", "has no attribute 'Own'"),
        ("from harness.plugins import Prompt as Own\n", "derived from harness.plugins.Metric"),
    ],
)
def test_a_users_own_file_that_cannot_serve_is_a_fault_with_its_cause(
    source: str, words: str, new_module: NewModule, tmp_path: Path
) -> None:
    name = new_module(source)
    sys.path.append(str(tmp_path))
    with pytest.raises(LookupError, match=words):
        find("metrics", f"{name}:Own")


@pytest.mark.parametrize("kind", [":", ":Own", "no_such_module_at_all:Own", "a.b.c:", "json:"])
def test_a_kind_that_names_no_class_is_a_fault(kind: str) -> None:
    with pytest.raises(LookupError, match="cannot load"):
        find("metrics", kind)


# -------------------------------------------------------------------------------------------------------- look-up


@pytest.mark.parametrize("family", sorted(BASES))
def test_every_built_in_kind_is_one_complete_class_that_knows_its_name(family: str) -> None:
    for kind in available(family):
        cls = find(family, kind)
        assert issubclass(cls, BASES[family])
        assert kind_of(cls) == kind
        assert cls.model_config["frozen"]
        assert cls.model_config["extra"] == "forbid"


def test_listing_what_is_available_imports_none_of_it() -> None:
    for family in BASES:
        stems = [kind.replace("-", "_") for kind in available(family)]
        assert not any(stem.startswith("_") for stem in stems)


def test_either_way_of_joining_words_finds_a_kind() -> None:
    assert find("prompts", "few_shot") is find("prompts", "few-shot")
    assert find("metrics", "exact-match") is find("metrics", "exact_match")


def test_an_unknown_kind_says_what_there_is() -> None:
    with pytest.raises(LookupError, match=r"unknown kind 'exact_mach' for metrics. Did you mean 'exact_match'\? Avail"):
        find("metrics", "exact_mach")


def test_an_installed_package_adds_kinds_through_entry_points(
    new_module: NewModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = new_module(METRIC)
    sys.path.append(str(tmp_path))
    point = EntryPoint("shouted", f"{name}:Shouted", "harness.metrics")
    real = importlib.metadata.entry_points
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else real(group=group))
    plugins._entry_points.cache_clear()
    available.cache_clear()
    try:
        assert "shouted" in available("metrics")
        assert "shouted" not in available("prompts")
        cls = find("metrics", "shouted")
        assert kind_of(cls) == "shouted"
        assert isinstance(cls(), Metric)
        assert "source" not in cls().settings(), "an installed plug-in is known by its declared version"
    finally:
        monkeypatch.undo()
        plugins._entry_points.cache_clear()
        available.cache_clear()
    assert "shouted" not in available("metrics")


# ------------------------------------------------------------------------------------------------------- settings


def own_settings(folder: Path, name: str, source: str) -> dict[str, object]:
    (folder / f"{name}.py").write_text(source)
    importlib.invalidate_caches()
    sys.modules.pop(name, None)
    cls: type[Plugin] = find("metrics", f"{name}:Shouted")
    return cls().settings()


def test_the_source_of_a_users_own_plug_in_is_part_of_its_settings(
    tmp_path: Path, new_module: NewModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = new_module(METRIC)
    sys.path.append(str(tmp_path))
    first = own_settings(tmp_path, name, METRIC)
    assert first["kind"] == f"{name}:Shouted"
    assert own_settings(tmp_path, name, METRIC) == first
    helper = own_settings(tmp_path, name, METRIC + "\n\ndef helper(): return 1\n")
    assert helper["source"] != first["source"], "a helper beside the class counts too"
    assert {**helper, "source": 0} == {**first, "source": 0}


def test_settings_hold_kind_version_and_every_field_of_nested_plug_ins() -> None:
    settings = find("prompts", "few-shot")().settings()
    assert (settings["kind"], settings["version"], settings["shots"]) == ("few-shot", 1, 4)
    assert settings["embedder"]["kind"] == "sentence-transformers"
    json.dumps(settings)


def test_a_table_gives_the_plug_in_back() -> None:
    cls = find("prompts", "few-shot")
    plugin = cls.model_validate({"shots": 2, "embedder": {"batch_size": 3}})
    table = plugin.table()
    assert table.pop("kind") == "few-shot"
    assert cls.model_validate(table) == plugin


def test_what_only_steers_a_query_stays_out_of_what_is_built(new_module: NewModule, tmp_path: Path) -> None:
    name = new_module(RETRIEVER)
    sys.path.append(str(tmp_path))
    cls = find("retrievers", f"{name}:Shelf")
    one, two, other = (
        cls.model_validate({"top_k": 1}),
        cls.model_validate({"top_k": 2}),
        cls.model_validate({"shelf": 2}),
    )
    assert one.settings(built=True) == two.settings(built=True) != other.settings(built=True)
    assert one.settings() != two.settings()
