"""Specs: what they come to, and what is said of their faults. The plug-ins that they ask for stand below."""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field

from harness.errors import Fault, SpecError
from harness.plugins import Adapter, Backend, Family, Local, Method, Metric, Prompt, Retriever
from harness.records import Decoding, Example, Prediction
from harness.spec import Spec, load


class Fixed(Backend):
    id: Annotated[str, Local(or_name=True)] = "fixed"

    def fingerprint(self) -> dict[str, Any]:
        return {"weights": self.id}

    def open(self) -> Any:
        raise NotImplementedError


class Open(Fixed):
    trainable: ClassVar[bool] = True


class Plain(Prompt):
    system: str = ""

    def messages(self, example: Example, context: Any) -> Any:
        raise NotImplementedError


class Shots(Plain):
    shots: int = Field(4, ge=1)

    @property
    def reads_train(self) -> bool:
        return True


class Words(Retriever):
    stop_words: Path | None = None

    def build(self, documents: Any, out: Any, embedding: Any) -> None:
        raise NotImplementedError

    def open(self, folder: Any, embedding: Any) -> Any:
        raise NotImplementedError


class Low(Adapter):
    rank: int = 8

    def wrap(self, model: Any) -> Any:
        raise NotImplementedError


class Tune(Method):
    epochs: float = Field(1, gt=0)
    adapter: Annotated[Adapter, Family("adapters")] | None = None

    def fit(self, job: Any, progress: Any) -> Any:
        raise NotImplementedError


class Same(Metric):
    k: int = 1

    @property
    def name(self) -> str:
        return f"same@{self.k}"

    def measure(self, example: Example, prediction: Prediction) -> float:
        return float(prediction.text in example.targets)


HERE = __name__
START = f"""
name = "toy"
[model]
kind = "{HERE}:Open"
[data]
train = "train.jsonl"
heldout = "heldout.jsonl"
documents = "kb"
[[metric]]
kind = "{HERE}:Same"
"""
"""A sound beginning up to line 10; variants follow from line 11."""
VARIANT = '[[variant]]\nname = "plain"\n'

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a spec beside small data files and return its path. `$` stands for this module in kinds."""
    for name in ("train.jsonl", "heldout.jsonl", "all.jsonl"):
        (tmp_path / name).write_text("{}\n")
    (tmp_path / "kb").mkdir()

    def written(text: str, name: str = "toy.toml") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("$:", f"{HERE}:"), encoding="utf-8")
        return file

    return written


def faults(path: Path, overrides: Sequence[str] = ()) -> list[Fault]:
    with pytest.raises(SpecError) as caught:
        load(path, overrides)
    assert caught.value.exit_status == 2
    return list(caught.value.faults)


def only_fault(path: Path, overrides: Sequence[str] = ()) -> Fault:
    found = faults(path, overrides)
    assert len(found) == 1, found
    return found[0]


def variant(spec: Spec, name: str) -> Any:
    return next(variant for variant in spec.variants if variant.name == name)


# --------------------------------------------------------------------------------------------------- sound specs


def test_defaults_are_filled_in(write: Write, tmp_path: Path) -> None:
    spec = load(write(START + VARIANT))
    assert (spec.name, spec.baseline, spec.seeds, spec.latency.examples) == ("toy", "plain", (0,), 16)
    assert spec.data.train == str(tmp_path / "train.jsonl")
    assert spec.data.dev is None
    assert spec.primary.name == "same@1"
    assert spec.variants[0].prompt.kind == "zero-shot"
    assert spec.variants[0].decode.decoding == Decoding()
    assert spec.file == tmp_path / "toy.toml"
    assert spec.text == spec.file.read_text()


def test_the_parts_of_a_variant_decide_its_family(write: Write, tmp_path: Path) -> None:
    (tmp_path / "peft").mkdir()
    text = """
[[variant]]
name = "a"
[[variant]]
name = "b"
retrieve = "$:Words"
[[variant]]
name = "c"
train = [{ kind = "$:Tune" }]
[[variant]]
name = "d"
adapter = "peft"
[[variant]]
name = "e"
retrieve = { kind = "$:Words" }
train = [{ kind = "$:Tune" }]
"""
    spec = load(write(START + text))
    families = [variant.family for variant in spec.variants]
    assert families == ["prompting", "RAG", "fine-tuning", "fine-tuning", "hybrid"]
    assert spec.variants[3].adapter == str(tmp_path / "peft")


def test_inline_and_long_tables_read_the_same(write: Write) -> None:
    inline = '[[variant]]\nname = "lora"\n'
    inline += 'train = [{ kind = "$:Tune", epochs = 3, adapter = { kind = "$:Low", rank = 4 } }]\n'
    long = """
[[variant]]
name = "lora"
[[variant.train]]
kind = "$:Tune"
epochs = 3
[variant.train.adapter]
kind = "$:Low"
rank = 4
"""
    assert load(write(START + inline)).resolved() == load(write(START + long)).resolved()


def test_defaults_and_decode_merge_deeply_into_every_variant(write: Write) -> None:
    text = """
[decode]
max_tokens = 24
stop = ["x"]
[defaults]
prompt = { kind = "$:Plain", system = "be short" }
retrieve = { kind = "$:Words", top_k = 5 }
[[variant]]
name = "a"
[[variant]]
name = "b"
prompt = { kind = "$:Shots", shots = 2 }
retrieve.top_k = 7
decode.stop = ["y", "z"]
[[variant]]
name = "c"
retrieve = false
"""
    spec = load(write(START + text))
    a, b, c = spec.variants
    assert (a.retrieve.top_k, b.retrieve.top_k, c.retrieve) == (5, 7, None)  # type: ignore[union-attr]
    assert (a.decode.max_tokens, b.decode.max_tokens, b.decode.stop) == (24, 24, ("y", "z"))
    assert isinstance(b.prompt, Shots)
    assert (b.prompt.system, b.prompt.shots) == ("be short", 2), "what both kinds have is inherited"


def test_another_kind_drops_inherited_settings_that_it_does_not_have(write: Write) -> None:
    text = """
[defaults]
prompt = { kind = "$:Shots", shots = 2, system = "s" }
[[variant]]
name = "a"
prompt = "$:Plain"
"""
    prompt = load(write(START + text)).variants[0].prompt
    assert type(prompt) is Plain
    assert prompt.system == "s"


def test_a_misspelt_setting_is_never_dropped_with_the_kind(write: Write) -> None:
    text = '[defaults]\nprompt = { kind = "$:Shots", shotz = 2 }\n[[variant]]\nname = "a"\nprompt = "$:Plain"\n'
    assert "unknown key 'shotz'" in only_fault(write(START + text)).message


def test_a_variant_extends_another_that_may_stand_later(write: Write) -> None:
    text = """
[[variant]]
name = "both"
extends = "rag"
train = [{ kind = "$:Tune" }]
[[variant]]
name = "rag"
retrieve = { kind = "$:Words", top_k = 2, max_tokens = 9 }
[[variant]]
name = "wide"
extends = "both"
retrieve.top_k = 8
"""
    spec = load(write(START + text))
    assert [variant.name for variant in spec.variants] == ["both", "rag", "wide"]
    wide = variant(spec, "wide")
    assert (wide.family, wide.retrieve.top_k, wide.retrieve.max_tokens) == ("hybrid", 8, 9)


def test_a_matrix_makes_one_variant_for_each_combination(write: Write) -> None:
    text = """
baseline = "lora[rank=16,epochs=0.5]"
[model]
kind = "$:Open"
[data]
train = "train.jsonl"
heldout = "heldout.jsonl"
[[metric]]
kind = "$:Same"
[[variant]]
name = "lora"
train = [{ kind = "$:Tune", adapter = { kind = "$:Low" } }]
matrix = { "train.0.adapter.rank" = [8, 16], train.0.epochs = [0.5, 2] }
[[variant]]
name = "far"
extends = "lora"
"""
    spec = load(write(text))
    made = [(v.name, v.train[0].adapter.rank, v.train[0].epochs) for v in spec.variants]  # type: ignore[attr-defined]
    assert made == [
        ("lora[rank=8,epochs=0.5]", 8, 0.5),
        ("lora[rank=8,epochs=2]", 8, 2),
        ("lora[rank=16,epochs=0.5]", 16, 0.5),
        ("lora[rank=16,epochs=2]", 16, 2),
        ("far", 8, 1),
    ]


def test_matrix_paths_with_the_same_end_are_told_apart_and_tables_are_named_by_kind(write: Write) -> None:
    text = """
[[variant]]
name = "v"
train = [{ kind = "$:Tune" }, { kind = "$:Tune" }]
matrix = { "train.0.epochs" = [1], "train.1.epochs" = [2], prompt = ["$:Plain", { kind = "zero-shot" }] }
"""
    names = [variant.name for variant in load(write(START + text)).variants]
    assert names == [f"v[train.0.epochs=1,train.1.epochs=2,prompt={kind}]" for kind in (f"{HERE}-Plain", "zero-shot")]


def test_a_file_extends_another(write: Write, tmp_path: Path) -> None:
    base = START + '[decode]\nmax_tokens = 9\n[[variant]]\nname = "a"\nprompt.system = "one"\n[[variant]]\nname = "b"\n'
    for name in ("train.jsonl", "heldout.jsonl"):
        (tmp_path / "base").mkdir(exist_ok=True)
        (tmp_path / "base" / name).write_text("{}")
    (tmp_path / "base" / "kb").mkdir()
    write(base, "base/base.toml")
    child = """
extends = "base/base.toml"
seeds = [1, 2]
[data]
train = "train.jsonl"
[[metric]]
kind = "$:Same"
k = 3
[[variant]]
name = "c"
extends = "a"
[[variant]]
name = "a"
prompt.template = "Q: {input}"
"""
    spec = load(write(child, "child.toml"))
    assert spec.name == "child", "two experiments do not share a name by accident"
    assert spec.seeds == (1, 2)
    assert spec.data.train == str(tmp_path / "train.jsonl")
    assert spec.data.heldout == str(tmp_path / "base" / "heldout.jsonl"), "a path starts at the file that holds it"
    assert [metric.name for metric in spec.metrics] == ["same@3"], "metrics are replaced as a whole"
    assert [variant.name for variant in spec.variants] == ["a", "b", "c"]
    for name in ("a", "c"):
        prompt = variant(spec, name).prompt
        assert (prompt.system, prompt.template) == ("one", "Q: {input}")
    assert variant(spec, "b").decode.max_tokens == 9


def test_overrides_count_as_if_written_in_the_file(write: Write, tmp_path: Path) -> None:
    text = """
[[variant]]
name = "lora"
train = [{ kind = "$:Tune", adapter = "$:Low" }]
matrix = { "train.0.adapter.rank" = [8, 16] }
[[variant]]
name = "v1.5"
extends = "lora"
"""
    (tmp_path / "other.jsonl").write_text("{}")
    spec = load(
        write(START + text),
        [
            "variant.lora.train.0.epochs=7",
            "variant.lora[rank=16].train.0.epochs = 9",
            "variant.v1.5.prompt.system=plain words, no quotes",
            "data.heldout=other.jsonl",
            "metric.0.k=2",
            "seeds=[3, 4]",
            "decode.stop=['=', ';']",
            'defaults.prompt.template="{input}!"',
            "question=a = b",
        ],
    )
    assert [v.train[0].epochs for v in spec.variants] == [7, 9, 7]  # type: ignore[attr-defined]
    assert spec.data.heldout == str(tmp_path / "other.jsonl")
    assert (spec.metrics[0].name, spec.seeds, spec.question) == ("same@2", (3, 4), "a = b")
    prompt: Any = variant(spec, "v1.5").prompt
    assert (prompt.system, prompt.template) == ("plain words, no quotes", "{input}!")
    assert spec.variants[0].decode.stop == ("=", ";")
    assert spec.resolved()["overrides"][0] == "variant.lora.train.0.epochs=7"


def test_the_longest_name_that_fits_an_override_is_meant(write: Write) -> None:
    text = '[[variant]]\nname = "v1"\n[[variant]]\nname = "v1.5"\n'
    spec = load(write(START + text), ["variant.v1.5.decode.max_tokens=7", "variant.v1.decode.max_tokens=6"])
    assert [variant.decode.max_tokens for variant in spec.variants] == [6, 7]


def test_stages_and_metrics_are_addressed_by_name_or_kind_too(write: Write) -> None:
    text = '[[variant]]\nname = "v"\ntrain = [{ kind = "$:Tune" }, { kind = "$:Tune", name = "second" }]\n'
    spec = load(write(START + text), ["variant.v.train.second.epochs=5", f"metric.{HERE}:Same.k=4"])
    assert [stage.epochs for stage in spec.variants[0].train] == [1, 5]  # type: ignore[attr-defined]
    assert spec.metrics[0].name == "same@4"


def test_the_first_metric_decides_unless_another_is_primary(write: Write) -> None:
    more = '[[metric]]\nkind = "$:Same"\nk = 5\nprimary = true\n'
    assert load(write(START + more + VARIANT)).primary.name == "same@5"


def test_environment_variables_stand_in_paths_only(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "heldout.jsonl").write_text("{}")
    monkeypatch.setenv("SPEC_TEST_DATA", str(tmp_path / "far"))
    monkeypatch.delenv("SPEC_TEST_NONE", raising=False)
    text = START.replace('"heldout.jsonl"', '"${SPEC_TEST_DATA}/heldout.jsonl"')
    text = text.replace('"train.jsonl"', '"${SPEC_TEST_NONE:-.}/train.jsonl"')
    text = text.replace('"kb"', '"${SPEC_TEST_NONE:-hf:owner/name}"')
    spec = load(write(text + VARIANT + 'prompt.system = "${SPEC_TEST_DATA}"\n'))
    assert spec.data.heldout == str(tmp_path / "far" / "heldout.jsonl")
    assert spec.data.train == str(tmp_path / "train.jsonl")
    assert spec.data.documents == "hf:owner/name"
    assert spec.variants[0].prompt.system == "${SPEC_TEST_DATA}"  # type: ignore[attr-defined]


def test_paths_of_plug_ins_start_at_the_spec_and_names_stay_names(write: Write, tmp_path: Path) -> None:
    (tmp_path / "stop.txt").write_text("the")
    text = VARIANT + 'retrieve = { kind = "$:Words", stop_words = "stop.txt" }\n'
    spec = load(write(START + text))
    assert spec.variants[0].retrieve.stop_words == tmp_path / "stop.txt"  # type: ignore[union-attr]
    for written, meant in [
        ("owner/name", "owner/name"),
        ("x" * 5000, "x" * 5000),
        ("kb", str(tmp_path / "kb")),
        ("./kb", str(tmp_path / "kb")),
    ]:
        model: Any = load(write(START + VARIANT), [f"model.id={written}"]).model
        assert model.id == meant
    assert "there is no file or folder" in only_fault(write(START + VARIANT), ["model.id=./kc"]).message


def test_shares_of_one_file(write: Write, tmp_path: Path) -> None:
    text = START.replace('train = "train.jsonl"', 'rows = "all.jsonl"').replace('"heldout.jsonl"', "0.2\ndev = 0.1")
    data = load(write(text + VARIANT)).data
    assert (data.rows, data.heldout, data.dev, data.train) == (str(tmp_path / "all.jsonl"), 0.2, 0.1, None)


def test_resolved_holds_every_default_and_no_path_or_secret_of_the_machine(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPEC_TEST_DATA", str(tmp_path))
    text = START.replace('"heldout.jsonl"', '"${SPEC_TEST_DATA}/heldout.jsonl"')
    spec = load(write(text + VARIANT + 'retrieve = "$:Words"\ntrain = [{ kind = "$:Tune", adapter = "$:Low" }]\n'))
    resolved = spec.resolved()
    assert str(tmp_path) not in json.dumps(resolved)
    assert resolved["data"]["heldout"] == "${SPEC_TEST_DATA}/heldout.jsonl"
    assert resolved["data"]["train"] == "train.jsonl"
    made = resolved["variants"][0]
    assert made["retrieve"]["top_k"] == 3
    assert made["train"][0]["adapter"]["rank"] == 8
    assert made["train"][0]["adapter"]["source"], "a user's own plug-in is known by its source"
    assert made["family"] == "hybrid"


# -------------------------------------------------------------------------------------------------------- faults


def test_five_different_faults_are_five_messages_in_the_order_of_lines(write: Write) -> None:
    text = START.replace('"heldout.jsonl"', '"heldot.jsonl"') + "[metric.extra]\n" + VARIANT
    text += 'prompt = { kind = "$:Shots", shots = "x" }\n'
    text += '[[variant]]\nname = "plain"\nretrive = 1\n'
    found = faults(write(text))
    assert [fault.line for fault in found] == [7, 11, 14, 16, 17]
    assert [fault.path for fault in found] == [
        "data.heldout",
        "metric.0.extra",
        "variant.plain.prompt.shots",
        "variant.plain.name",
        "variant.plain.retrive",
    ]
    assert "Did you mean 'heldout.jsonl'?" in found[0].message
    assert "unknown key 'extra'" in found[1].message
    assert found[2].message == "must be a whole number, not 'x'"
    assert "'plain' stands twice: also on line 13" in found[3].message
    assert "Did you mean 'retrieve'?" in found[4].message
    assert all(fault.file.endswith("toy.toml") for fault in found)
    assert str(found[2]).endswith("toy.toml:14 variant.plain.prompt.shots: must be a whole number, not 'x'")


@pytest.mark.parametrize(
    ("addition", "line", "path", "words"),
    [
        ('prompt = "few-shoot"', 13, "variant.plain.prompt", "Did you mean 'few-shot'? Available: few-shot, zero-shot"),
        ('prompt.kind = "$:Nope"', 13, "variant.plain.prompt.kind", "cannot load"),
        ('prompt.kind = "$:Same"', 13, "variant.plain.prompt.kind", "no plug-in of prompts"),
        ("retrieve = {}", 13, "variant.plain.retrieve", "`kind` is missing"),
        ("retrieve = 5", 13, "variant.plain.retrieve", "a table with a `kind`, or the kind alone as text, not 5"),
        ('retrieve = { kind = "$:Words", top_k = 0 }', 13, "variant.plain.retrieve.top_k", "at least 1, not 0"),
        ('train = { kind = "$:Tune" }', 13, "variant.plain.train", "must be an array, not a table"),
        ('[[variant.train]]\nkind = "$:Tune"\nepochs = 0', 15, "variant.plain.train.0.epochs", "above 0, not 0"),
        (
            '[[variant.train]]\nkind = "$:Tune"\ncontext = "retrived"',
            15,
            "variant.plain.train.0.context",
            "unknown value 'retrived'. Did you mean 'retrieved'?",
        ),
        (
            'train = [\n { kind = "$:Tune" },\n { kind = "$:Tune", adapter = { rnak = 1, kind = "$:Low" } },\n]',
            15,
            "variant.plain.train.1.adapter.rnak",
            "Did you mean 'rank'? Available: kind, rank.",
        ),
        ("decode.temperature = -1", 13, "variant.plain.decode.temperature", "at least 0, not -1"),
        ("adapter = 'nowhere'", 13, "variant.plain.adapter", "there is no file or folder"),
        ('extends = "plian"', 13, "variant.plain.extends", "there is no variant 'plian'"),
        ('extends = "plain"', 13, "variant.plain.extends", "in a circle: plain -> plain"),
        ("extends = 3", 13, "variant.plain.extends", "there is no variant '3'"),
        ("matrix = { seed = 3 }", 13, "variant.plain.matrix.seed", "must be an array of values to try"),
        ("matrix = {}", 13, "variant.plain.matrix", "must be an array of values to try"),
        ('matrix = { "train.0.epochs" = [1] }', 13, "variant.plain.matrix.train.0.epochs", "there is no 'train'"),
        ("[[variant]]", 13, "variant.1.name", "`name` is missing"),
        ('[[variant]]\nname = "Plain"', 14, "variant.Plain.name", "stands twice"),
        ('[[variant]]\nname = "a/b"', 14, "variant.a/b.name", "not 'a/b'"),
        ("[tracking]\nmode = 'onlin'", 14, "tracking.mode", "Did you mean 'online'? Available: off, offline"),
        ("[latency]\nexamples = 1.5", 14, "latency.examples", "a whole number, not 1.5"),
        ("[defaults]\nname = 'x'", 14, "defaults.name", "belongs to one variant"),
        ("[defaults]\npromt = 'x'", 14, "defaults.promt", "Did you mean 'prompt'?"),
        ("[decoed]\nstop = []", 13, "decoed", "Did you mean 'decode'?"),
        ("[decode]\nstop = 'x'", 14, "decode.stop", "must be an array, not 'x'"),
        ('[[metric]]\nkind = "exact_mach"', 14, "metric.1.kind", "Did you mean 'exact_match'?"),
        ('[[metric]]\nkind = "$:Same"', 13, "metric.1", "metric 'same@1' stands twice"),
    ],
)
def test_one_fault_has_its_line_path_and_what_is_allowed(
    addition: str, line: int, path: str, words: str, write: Write
) -> None:
    found = only_fault(write(START + VARIANT + addition + "\n"))
    assert (found.line, found.path) == (line, path)
    assert words in found.message


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "words"),
    [
        ('name = "toy"', 'name = "Toy Spec"', 2, "name", "not 'Toy Spec'"),
        ('name = "toy"', 'name = "latest"', 2, "name", "choose another name"),
        ('name = "toy"', 'name = "con"', 2, "name", "cannot be a folder's name on every system"),
        ('name = "toy"', 'name = "lpt1.x"', 2, "name", "cannot be a folder's name on every system"),
        ('name = "toy"', 'name = "toy."', 2, "name", "cannot be a folder's name on every system"),
        ('name = "toy"', 'baseline = "plian"', 2, "baseline", "Did you mean 'plain'?"),
        ('name = "toy"', "seeds = []", 2, "seeds", "must not be empty"),
        ('name = "toy"', "seeds = [0, 1, 0]", 2, "seeds.2", "seed 0 stands twice"),
        ('name = "toy"', "seeds = [-1]", 2, "seeds.0", "at least 0"),
        ('name = "toy"', "seeds = [[1]]", 2, "seeds.0", "a whole number, not an array"),
        ('name = "toy"', "question = 2020-01-01", 2, "question", "must be text, not 2020-01-01"),
        ('name = "toy"', 'extends = "a\\u0000b"', 2, "extends", "U+0000"),
        ('name = "toy"', f'extends = "{"x" * 300}/y.toml"', 2, "extends", "there is no folder"),
        ('name = "toy"', 'extends = "."', 2, "extends", "is a folder"),
        ('name = "toy"', "decode = 3", 2, "decode", "write [decode]"),
        ("[model]", "[modle]", 1, "model", "there is no [model]"),
        (":Open", ":Opne", 4, "model.kind", "cannot load"),
        ("[data]\n", "[data]\nsame_facts = 3\n", 6, "data.same_facts", "true or false, not 3"),
        ('heldout = "heldout.jsonl"', "", 5, "data.heldout", "there is no held-out split"),
        ('"heldout.jsonl"', '"gone/heldout.jsonl"', 7, "data.heldout", "there is no folder"),
        ('"heldout.jsonl"', '"${SPEC_TEST_NONE}/x"', 7, "data.heldout", "SPEC_TEST_NONE is not set"),
        ('"heldout.jsonl"', "0.2", 7, "data.heldout", "needs the file that is split"),
        ('"heldout.jsonl"', "true", 7, "data.heldout", "must be text or a number below 1, not true"),
        ('"train.jsonl"', '"train.jsonl"\nrows = "all.jsonl"', 6, "data.train", "one of the two"),
        ('train = "train.jsonl"', 'rows = "all.jsonl"\ntrain = 0.9\ndev = 0.3', 6, "data.rows", "come to 1.2"),
    ],
)
def test_a_fault_of_the_head_has_its_line_path_and_what_is_allowed(
    old: str, new: str, line: int, path: str, words: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPEC_TEST_NONE", raising=False)
    found = faults(write(START.replace(old, new) + VARIANT))
    assert any((f.line, f.path) == (line, path) and words in f.message for f in found), found


@pytest.mark.parametrize(
    ("head", "addition", "path", "words"),
    [
        (":Fixed", 'train = [{ kind = "$:Tune" }]', "variant.plain.train", 'kind = "transformers"; not'),
        (":Fixed", 'adapter = "kb"', "variant.plain.adapter", "an adapter needs a model"),
        ("documents", 'retrieve = "$:Words"', "variant.plain.retrieve", "names no `documents`"),
        ("train", 'train = [{ kind = "$:Tune" }]', "variant.plain.train.0", "names no `train`"),
        ("train", 'prompt = "$:Shots"', "variant.plain.prompt", "nothing to take shots from"),
        (
            "",
            'train = [{ kind = "$:Tune", context = "retrieved" }]',
            "variant.plain.train.0.context",
            "needs a `retrieve` table",
        ),
        (
            "",
            'train = [{ kind = "$:Tune", name = "a" }, { kind = "$:Tune", name = "a" }]',
            "variant.plain.train.1.name",
            "stage 'a' stands twice",
        ),
        (
            "",
            'train = [{ kind = "$:Tune", shuffle = false }]',
            "variant.plain.train.0.shuffle",
            'context = "retrieved"',
        ),
        (
            "",
            'train = [{ kind = "$:Tune", distractors = 2 }]',
            "variant.plain.train.0.distractors",
            "retrieved passages",
        ),
        (
            "",
            'retrieve = "$:Words"\ntrain = [{ kind = "$:Tune", context = "none", oracle_share = 0.5 }]',
            "variant.plain.train.0.oracle_share",
            'context = "retrieved"',
        ),
        ("", '[[metric]]\nkind = "mrr"', "metric.1", "[data] must name the field with the right documents, `source`"),
        ("", '[[metric]]\nkind = "recall"\nk = 1', "metric.1", "'recall@1' measures what was retrieved"),
        (
            "",
            '[[metric]]\nkind = "$:Same"\nk = 2\nprimary = true\n[[metric]]\nkind = "token_f1"\nprimary = true',
            "metric.2.primary",
            "only one",
        ),
    ],
)
def test_parts_that_do_not_go_together(head: str, addition: str, path: str, words: str, write: Write) -> None:
    text = START.replace(":Open", head) if head.startswith(":") else START
    kept = [line for line in text.splitlines() if not head or not line.startswith(f"{head} = ")]
    found = only_fault(write("\n".join(kept) + "\n" + VARIANT + addition + "\n"))
    assert found.path == path
    assert words in found.message


RETRIEVES = 'retrieve = "$:Words"\n'


@pytest.mark.parametrize(
    ("metrics", "variants", "path"),
    [
        ('[[metric]]\nkind = "mrr"\nprimary = true\n', VARIANT, "metric.1"),
        ('[[metric]]\nkind = "mrr"\nprimary = true\n', VARIANT + RETRIEVES, None),
        ('[[metric]]\nkind = "mrr"\n', VARIANT, None),
        ('[[metric]]\nkind = "mrr"\nprimary = true\n', VARIANT + RETRIEVES + VARIANT.replace("plain", "b"), "metric.1"),
    ],
)
def test_a_metric_of_retrieval_ranks_only_where_all_retrieve(
    metrics: str, variants: str, path: str | None, write: Write
) -> None:
    file = write(START.replace("[[metric]]", 'source = "page"\n[[metric]]') + metrics + variants)
    if path is None:
        assert load(file).metrics[1].name == "mrr"
    else:
        found = only_fault(file)
        assert found.path == path
        assert "so it cannot rank variants that retrieve nothing" in found.message


def test_a_metric_of_retrieval_that_comes_first_ranks_too(write: Write) -> None:
    found = only_fault(write(START.replace(f"{HERE}:Same", "mrr") + VARIANT), ["data.source=page"])
    assert (found.path, "put another metric first" in found.message) == ("metric.0", True)


@pytest.mark.parametrize("field", ["target", "group", "tags", "id", "source"])
def test_a_field_that_the_rows_have_not_is_switched_off(field: str, write: Write) -> None:
    write(START.replace("[[metric]]", f'{field} = "x"\n[[metric]]') + VARIANT, "base.toml")
    spec = load(write(f'extends = "base.toml"\n[data]\n{field} = false\n', "child.toml"))
    assert getattr(spec.data, field) is None
    assert json.loads(json.dumps(spec.resolved()))["data"][field] is None
    for value, told in (("true", "must be text or an array, not true"), ("[]", "must not be empty")):
        assert told in only_fault(write(f'extends = "base.toml"\n[data]\n{field} = {value}\n')).message


def test_a_variant_that_is_no_table_is_one_fault(write: Write) -> None:
    found = only_fault(write('variant = ["a"]\n' + START))
    assert (found.path, found.message) == ("variant.0", "must be a table, not 'a'")


def test_faults_between_parts_show_beside_faults_of_single_fields(write: Write) -> None:
    text = START.replace('train = "train.jsonl"\n', "") + VARIANT
    text += 'prompt = "$:Shots"\ndecode.top_p = 2\nretrive = "x"\n'
    assert [fault.path for fault in faults(write(text))] == [
        "variant.plain.prompt",
        "variant.plain.decode.top_p",
        "variant.plain.retrive",
    ]


def test_a_fault_in_defaults_is_told_once_and_where_it_was_written(write: Write) -> None:
    text = START + '[defaults]\nprompt.shot = 1\n[[variant]]\nname = "a"\n[[variant]]\nname = "b"\n'
    found = only_fault(write(text))
    assert (found.line, found.path) == (12, "defaults.prompt.shot")


def test_an_empty_file_says_all_that_it_lacks(write: Write) -> None:
    assert [fault.message for fault in faults(write(""))] == [
        "there is no [model]",
        "there is no [data]",
        "there is no [[metric]]: write at least one",
        "there is no [[variant]]: write at least one",
    ]


def test_circles_and_absent_files_of_extends(write: Write) -> None:
    write('extends = "b.toml"\n' + START, "a.toml")
    circle = faults(write('extends = "a.toml"\n' + START + VARIANT, "b.toml"))[0]
    assert (circle.line, circle.path) == (1, "extends")
    assert circle.message.endswith("b.toml -> a.toml -> b.toml")
    assert circle.file.endswith("a.toml")
    absent = only_fault(write('extends = "tory.toml"\n' + START + VARIANT))
    assert "there is no file or folder" in absent.message
    assert "Did you mean 'toy.toml'?" in absent.message
    variants = '[[variant]]\nname = "a"\nextends = "b"\n[[variant]]\nname = "b"\nextends = "a"\n'
    assert "in a circle: a -> b -> a" in only_fault(write(START + variants)).message


def test_a_fault_in_an_extended_file_names_that_file(write: Write) -> None:
    write(START + VARIANT + "decode.top_q = 1\n", "base.toml")
    found = only_fault(write('extends = "base.toml"\n', "child.toml"))
    assert found.file.endswith("base.toml")
    assert found.line == 13


@pytest.mark.parametrize(
    ("setting", "path", "words"),
    [
        ("variant.plian.decode.top_p=1", "variant.plian.decode.top_p", "Did you mean 'plain'?"),
        ("variant.plain=1", "variant.plain", "name what is set"),
        ("variant.plain.decode.top_p=2", "variant.plain.decode.top_p", "at most 1, not 2"),
        ("variant.plain.name=a b", "variant.plain.name", "not 'a b'"),
        ("metric.4.k=2", "metric.4.k", "there is no entry '4'"),
        ("seeds", "seeds", "write it as path=value"),
        ("seeds=" + "[" * 3000, "seeds", "must be an array, not '[[["),
        ("data.heldout=nope.jsonl", "data.heldout", "there is no file or folder"),
        ("latncy.examples=3", "latncy", "Did you mean 'latency'?"),
    ],
)
def test_a_fault_of_an_override_says_so(setting: str, path: str, words: str, write: Write) -> None:
    found = faults(write(START + VARIANT + "decode.max_tokens = 3\n"), [setting])[-1]
    assert (found.file, found.line) == ("--set", None)
    assert found.path.startswith(path)
    assert words in found.message


def test_what_stands_twice_in_an_override_has_no_line(write: Write) -> None:
    assert only_fault(write(START + VARIANT), ["seeds=[1, 1]"]).message == "seed 1 stands twice"


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    assert "No such file" in only_fault(tmp_path / "none.toml").message


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(-3, 3), st.floats(allow_nan=False), st.text(max_size=3), st.dates()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(["kind", "name", "train", "prompt", "extends", "matrix", "x"]), inner, max_size=3
        ),
    ),
    max_leaves=6,
)


def inline(value: Any) -> str:
    """Write a value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(
            ["name", "seeds", "model", "data", "metric", "variant", "decode", "defaults", "extends", "latency"]
        ),
        VALUES,
    )
)
def test_whatever_toml_says_the_answer_is_a_spec_or_faults(document: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "x.toml")
        file.write_text("".join(f"{key} = {inline(value)}\n" for key, value in document.items()), encoding="utf-8")
        with pytest.raises(SpecError) as caught:
            load(file)
        assert caught.value.faults
        sys.path[:] = [entry for entry in sys.path if entry != folder]


def test_of_several_places_the_first_whose_variables_are_set_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here.jsonl").write_text('{"input": "q", "target": "a"}\n', encoding="utf-8")
    text = """
        model = "canned"
        metric = [{ kind = "exact_match" }]
        variant = [{ name = "zero-shot" }]
        [data]
        heldout = ["${SHARED_ROWS}/here.jsonl", "hf:owner/name"]
        """
    file = tmp_path / "places.toml"
    file.write_text(text, encoding="utf-8")
    monkeypatch.delenv("SHARED_ROWS", raising=False)
    assert load(file).data.heldout == "hf:owner/name"
    monkeypatch.setenv("SHARED_ROWS", str(tmp_path))
    spec = load(file)
    assert spec.data.heldout == str(tmp_path / "here.jsonl")
    assert spec.resolved()["data"]["heldout"] == "${SHARED_ROWS}/here.jsonl"
