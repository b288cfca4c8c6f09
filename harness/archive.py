"""What is done with a results folder as a whole: delete, gc, pack and unpack.

An archive is a ZIP file of plain files: one snapshot, the complete steps that it uses, and `manifest.json` with the
size and SHA-256 of each. Nothing in an archive is trusted: names, sizes and digests are checked in a draft folder
before anything is moved into the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import stat
import time
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from harness import files, mirror
from harness.errors import StoreError, did_you_mean
from harness.snapshot import guard
from harness.step import Step, checked_name
from harness.store import DRAFTS, FORMAT, Snapshot, Store

MANIFEST = "manifest.json"
MOST_FILES = 1_000_000
MOST_MANIFEST_BYTES = 256 * 2**20
_CHUNK = 2**20
_PLACE = re.compile(r"(experiments/([^/]+)/([1-9][0-9]{0,8})|steps/([^/]+))/(.+)")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"\\|?*]')


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that is removed or may be: its path in the results folder, its size, and why."""

    name: str
    bytes: int
    why: str


# ---------------------------------------------------------------------------------------------------------- delete


def delete(store: Store, ref: str) -> list[str]:
    """Remove "name" (all its snapshots), "name@2", "latest", or a step by its name; return what was removed.

    What was mirrored to W&B of their runs goes too, here and not there, unless another snapshot holds the same run. The
    steps that snapshots used stay until `gc`. Damaged snapshots and steps can be removed too. Raises StoreError where
    there is none of that name or a living process works on it.
    """
    name, _, number = ref.partition("@")
    if ref not in ("", "latest", *store.names()) and ref in {step.name for step in store.steps()}:
        if not _remove_step(store, store.step(ref)):
            raise StoreError(f"another process works on the step {ref} now: try again when it has ended.")
        return [ref]
    if ref == "latest":
        newest = store.snapshot(ref)
        name, numbers = newest.name, [newest.number]
    elif name not in store.names():
        raise StoreError(f"no experiment or step {ref!r} in {store.root}.{did_you_mean(name, store.names())}")
    elif "@" not in ref:
        numbers = store.numbers(name)
    elif number.isdecimal() and int(number) in store.numbers(name):
        numbers = [int(number)]
    else:
        kept = ", ".join(f"{name}@{found}" for found in store.numbers(name))
        raise StoreError(f"no snapshot {ref!r} in {store.root}. Available: {kept}.")
    _delete_snapshots(store, name, numbers)
    return [f"{name}@{number}" for number in numbers]


def _delete_snapshots(store: Store, name: str, numbers: list[int]) -> None:
    store.must_write()
    folder = store.root / "experiments" / name
    with store.draft() as draft, guard(store.root, name), contextlib.ExitStack() as held:
        for number in numbers:
            lock = files.Lock(store.root / "locks" / f"{name}@{number}.lock")
            if not lock.acquire(block=False):
                raise StoreError(f"{name}@{number} is running now: stop it, or delete it when it has ended.")
            held.callback(lock.release)
        mirrored = _mirrored(store, [(name, number) for number in numbers])
        for number in numbers:
            with files.disk(folder):
                (folder / str(number)).rename(draft / str(number))
                (store.root / "locks" / f"{name}@{number}.lock").unlink(missing_ok=True)
                (store.root / "logs" / f"tracking-{name}@{number}.txt").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()
        for identity in mirrored - _mirrored(store, store.snapshots()):
            mirror.forget(store.root, identity)
    store.refresh_index()


def _mirrored(store: Store, snapshots: Iterable[tuple[str, int]]) -> set[str]:
    """Return the W&B ids of what these snapshots hold; those of a damaged one are not known."""
    found = set[str]()
    for name, number in snapshots:
        with contextlib.suppress(StoreError):
            found |= set(mirror.identities(Snapshot(store.root, name, number)))
    return found


def _remove_step(store: Store, step: Step) -> bool:
    """Remove a step in one action; return False if a living process has it."""
    store.must_write()
    lock = files.Lock(step.lock_path)
    if not lock.acquire(block=False):
        return False
    try:
        with files.disk(step.path):
            grave = files.temporary(store.root / "tmp" / step.name)
            files.make_folder(grave.parent)
            step.path.rename(grave)
            step.lock_path.unlink(missing_ok=True)
        files.remove_tree(grave)
    finally:
        lock.release()
    return True


# -------------------------------------------------------------------------------------------------------------- gc


def gc(store: Store, dry: bool = True) -> list[Garbage]:
    """Return what nothing refers to, and with `dry=False` remove it: steps that no snapshot uses, work of steps that
    are complete, drafts and temporary files that killed processes left, W&B's folders of runs that are gone.

    What a living process works on stays, and so does any step begun since the oldest run that goes on now. Raises
    StoreError, and removes nothing, where a damaged snapshot keeps it from knowing which steps are in use.
    """
    drafts, tracker = store.root / "locks" / DRAFTS, store.root / "locks" / mirror.LOCK
    if dry:
        held = files.is_held(drafts), files.is_held(tracker)
        return [found for found, _ in _garbage(store, drafts=not held[0], mirrors=not held[1])]
    store.must_write()
    lock, mirroring = files.Lock(drafts), files.Lock(tracker)
    lock.acquire()  # no snapshot is begun or unpacked meanwhile, so what is unused stays unused
    try:
        removed = []
        for found, step in list(_garbage(store, drafts=True, mirrors=mirroring.acquire(block=False))):
            if step is None:
                path = store.root / found.name
                with files.disk(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            elif not _remove_step(store, step):
                continue
            removed.append(found)
        return removed
    finally:
        mirroring.release()
        lock.release()


def _garbage(store: Store, drafts: bool, mirrors: bool) -> Iterator[tuple[Garbage, Step | None]]:
    """Yield what may go, with its step where it is a whole one. No process has a draft (`drafts`), or mirrors a run
    (`mirrors`), now."""
    used, mirrored, since = _in_use(store)
    for step in store.steps():
        if step.busy:
            continue
        if step.name not in used:
            if _changed(step.path) < since:
                yield Garbage(f"steps/{step.name}", files.size_of(step.path), "no snapshot uses it"), step
        elif step.work.exists() and (step.path / files.SEAL).exists():
            yield Garbage(f"steps/{step.name}/work", files.size_of(step.work), "its step is complete"), None
    for path in sorted((store.root / "tmp").glob("*")) if drafts else ():
        yield Garbage(f"tmp/{path.name}", files.size_of(path), "a draft of a process that ended"), None
    for path in mirror.orphans(store.root, mirrored) if mirrors else ():
        size = files.size_of(path) if path.is_dir() else path.lstat().st_size
        yield Garbage(path.relative_to(store.root).as_posix(), size, "mirrored to W&B from a run that is gone"), None
    # a file in the making beside its place lives for seconds; only an old one has lost its process
    for path, about in files.walk(store.root):
        name = path.relative_to(store.root).as_posix()
        draft = path.name.endswith(files.TEMPORARY) and path.name.startswith(".") and not name.startswith("tmp/")
        if draft and about.st_mtime < time.time() - 3600:
            yield Garbage(name, about.st_size, "a temporary file of a process that ended"), None


def _changed(folder: Path) -> float:
    """Return when the folder was last changed (Unix seconds); one that has vanished is new."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()


def _in_use(store: Store) -> tuple[set[str], set[str], float]:
    """Return the steps that snapshots refer to, the W&B ids of what they hold, and the time before which a step may be
    removed (Unix seconds)."""
    used, mirrored, since = set[str](), set[str](), float("inf")
    for name, number in store.snapshots():
        try:
            snapshot = Snapshot(store.root, name, number)
            used |= snapshot.steps()
            mirrored |= set(mirror.identities(snapshot))
            if snapshot.state == "running":
                since = min(since, datetime.fromisoformat(snapshot.created).timestamp())
        except StoreError as error:
            raise StoreError(
                f"gc removes nothing, because it cannot tell which steps {name}@{number} uses: {error}"
            ) from error
    return used | {step.name for step in store.made_from(used)}, mirrored, since


# ------------------------------------------------------------------------------------------------------------ pack


def pack(store: Store, ref: str, path: Path) -> Path:
    """Write a snapshot and every complete step that it uses into the ZIP file `path`, which must be new.

    Each file is checked against its seal on the way: a damaged store raises StoreError instead of being packed.
    """
    snapshot = store.snapshot(ref)
    if snapshot.state == "running":
        raise StoreError(f"{snapshot.ref} is running now: pack it when it has ended.")
    if path.exists():
        raise StoreError(f"{path} is there already: choose another name, or remove it.")
    folders = [(f"experiments/{snapshot.name}/{snapshot.number}", snapshot.path)]
    used = snapshot.steps()
    used |= {step.name for step in store.made_from(used)}
    folders += [(f"steps/{name}", store.step(name).path) for name in sorted(used)]
    listed: dict[str, tuple[int, str]] = {}
    with files.replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for place, folder in folders:
            sealed = (folder / files.SEAL).exists()
            if place.startswith("steps/") and not sealed:
                continue
            kept = files.contents(folder)
            for name, about in kept.items():
                listed[f"{place}/{name}"] = _add(archive, f"{place}/{name}", folder / name)
                if listed[f"{place}/{name}"] != about:
                    raise files.damaged(folder / name, "its content does not match its digest")
            if sealed:
                listed[f"{place}/{files.SEAL}"] = _add(archive, f"{place}/{files.SEAL}", folder / files.SEAL)
        manifest = {"format": FORMAT, "ref": snapshot.ref, "files": listed}
        archive.writestr(_entry(MANIFEST), files.to_json(manifest))
    return path


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry without the time and owner of this machine; text is compressed, weights are not worth it."""
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.compress_type = zipfile.ZIP_DEFLATED if Path(name).suffix in {".json", ".jsonl", ".md", ".toml"} else 0
    return info


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[int, str]:
    with files.disk(path, "read"), path.open("rb") as source, archive.open(_entry(name), "w", force_zip64=True) as out:
        return _copy(source, out, None)


def _copy(source: IO[bytes], out: IO[bytes], most: int | None) -> tuple[int, str]:
    """Copy, at most `most` bytes and one; return how many, and their SHA-256."""
    seen, content = 0, hashlib.sha256()
    while chunk := source.read(_CHUNK if most is None else min(_CHUNK, most + 1 - seen)):
        out.write(chunk)
        content.update(chunk)
        seen += len(chunk)
    return seen, content.hexdigest()


# ---------------------------------------------------------------------------------------------------------- unpack


def unpack(store: Store, path: Path) -> str:
    """Bring the snapshot of an archive into the store, under the next free number if its own is taken; return its ref.

    Steps that the store has already, with the same content, stay. Raises StoreError, and changes nothing, where the
    archive is damaged, hostile or made by a newer harness, or a step of the store has another content.
    """
    store.must_write()
    try:
        with store.draft() as draft:
            with files.disk(path, "read"), zipfile.ZipFile(path) as archive:
                ref = _extract(archive, path, draft)
            return _merge(store, Store(draft, write=False), ref, path)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        raise StoreError(f"{path} is no archive of results, or it is damaged: {error}") from error


def _extract(archive: zipfile.ZipFile, path: Path, draft: Path) -> str:
    """Write what the manifest lists into the empty folder `draft`, checked; return the snapshot's ref."""
    ref, listed = _manifest(archive, path)
    entries = {info.filename: info for info in archive.infolist()}
    if len(entries) != len(archive.infolist()) or set(entries) != {*listed, MANIFEST}:
        raise StoreError(f"{path} does not hold what its manifest lists. Nothing was unpacked.")
    _check_names(ref, listed, path)
    needed, free = sum(size for size, _ in listed.values()), shutil.disk_usage(draft).free
    if needed > free:
        raise StoreError(f"{path} needs {needed:,} bytes, and {draft.parent.parent} has {free:,} free.")
    for name, (size, sha) in listed.items():
        _check_entry(entries[name], path)
        target = draft / name
        with files.disk(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entries[name]) as source, files.replacing(target) as out:
                if _copy(source, out, size) != (size, sha):
                    raise StoreError(f"{name} in {path} is not what its manifest lists. Nothing was unpacked.")
    return ref


def _manifest(archive: zipfile.ZipFile, path: Path) -> tuple[str, dict[str, tuple[int, str]]]:
    """Return the ref and {name: (bytes, SHA-256)}. Raises StoreError for a newer format or a wrong shape."""
    try:
        info = archive.getinfo(MANIFEST)
        _check_entry(info, path)
        with archive.open(info) as source:
            data = source.read(MOST_MANIFEST_BYTES + 1)
        body: Any = json.loads(data) if len(data) <= MOST_MANIFEST_BYTES else {}
        made, ref = body["format"], body["ref"]
        if isinstance(made, int) and made > FORMAT:
            raise StoreError(
                f"{path} was made by a newer harness (format {made}; this one reads up to {FORMAT}): upgrade."
            )
        listed = {str(name): (int(size), str(sha)) for name, (size, sha) in body["files"].items()}
        if not isinstance(ref, str) or made != FORMAT or any(size < 0 for size, _ in listed.values()):
            raise ValueError("a value of the wrong kind")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} is no archive of results: its {MANIFEST} is missing or wrong ({error}).") from error
    return ref, listed


def _check_entry(info: zipfile.ZipInfo, path: Path) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or info.is_dir() or info.flag_bits & 1:
        raise StoreError(f"{info.filename!r} in {path} is a link, a folder or encrypted. Nothing was unpacked.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise StoreError(f"{info.filename!r} in {path} is compressed in an unknown way. Nothing was unpacked.")


def _check_names(ref: str, listed: dict[str, tuple[int, str]], path: Path) -> None:
    """Let only files of one snapshot and of steps pass, by names that are the same file on every system."""
    folded = {unicodedata.normalize("NFC", name).casefold() for name in listed}
    if len(listed) > MOST_FILES or len(folded) != len(listed):
        raise StoreError(f"{path} holds too many files, or names that differ only in case. Nothing was unpacked.")
    for name in listed:
        place = _PLACE.fullmatch(name)
        parts = place[5].split("/") if place else []
        sound = all(
            part not in ("", ".", "..") and len(part.encode()) <= 255 and part[-1] not in ". " for part in parts
        )
        sound = sound and not any(parent.as_posix() in listed for parent in PurePosixPath(name).parents)
        if place is None or not sound or _FORBIDDEN.search(name) or (place[2] and ref != f"{place[2]}@{place[3]}"):
            raise StoreError(f"{path} holds a file that has no place in results: {name[:200]!r}. Nothing was unpacked.")
        checked_name(place[2] or place[4], "a folder of results")


def _merge(store: Store, staged: Store, ref: str, path: Path) -> str:
    """Move the steps and the snapshot of `staged` into `store`, after everything was found sound."""
    try:
        snapshot = _sound(staged, ref)
    except StoreError as error:
        what = str(error).replace(f"{staged.root}/", "").partition(". ")[0]
        raise StoreError(f"{path} holds no sound results: {what}. Nothing was unpacked.") from error
    missing = [step for step in staged.steps() if _is_missing(store, step)]
    for run in snapshot.runs():
        for name in run.steps.values():
            if run.status == "complete" and staged.step(name).outcome is None and store.step(name).outcome is None:
                raise StoreError(f"the step {name} of {run.variant} is not in the archive. Nothing was unpacked.")
    for step in missing:
        target = store.step(step.name)
        lock = files.Lock(target.lock_path)
        if not lock.acquire(block=False):
            raise StoreError(f"another process works on the step {step.name} now: unpack when it has ended.")
        try:
            if _is_missing(store, step):
                with files.disk(target.path):
                    if target.path.exists():  # the unfinished work of a killed process
                        target.path.rename(staged.root / f"old-{step.name}")
                files.move_folder(step.path, target.path)
        finally:
            lock.release()
    content = files.contents(snapshot.path)
    with guard(store.root, snapshot.name):
        numbers = store.numbers(snapshot.name)
        for number in numbers:
            with contextlib.suppress(StoreError):  # a damaged one is not the same
                there = Snapshot(store.root, snapshot.name, number)
                if there.digest == snapshot.digest and files.contents(there.path) == content:
                    return there.ref
        number = snapshot.number if snapshot.number not in numbers else numbers[-1] + 1
        files.move_folder(snapshot.path, store.root / "experiments" / snapshot.name / str(number))
    store.refresh_index()
    return f"{snapshot.name}@{number}"


def _sound(staged: Store, ref: str) -> Snapshot:
    """Return the unpacked snapshot. Raises StoreError where it or a step is not whole, or names what is not its own."""
    snapshot = staged.snapshot(ref)
    snapshot.summary()
    for name in snapshot.steps():
        staged.step(name)
    for step in staged.steps():
        if not (step.path / files.SEAL).exists():
            raise StoreError(f"the step {step.name} is not complete")
    for folder in (snapshot.path, *(step.path for step in staged.steps())):
        seal = files.read_seal(folder)
        found = {name: (file.stat().st_size, files.sha256(file)) for name, file in files.files_in(folder)}
        if seal and seal.files != found:
            raise files.damaged(folder / files.SEAL, "it does not speak of the files beside it")
    return snapshot


def _is_missing(store: Store, step: Step) -> bool:
    """Whether the store lacks an unpacked step. Raises StoreError where it has another content under its name."""
    target = store.step(step.name)
    if target.outcome is None:
        return True
    if files.contents(target.path) != files.contents(step.path) or target.outcome != step.outcome:
        raise StoreError(
            f"the step {step.name} is in {store.root} with another content (made on another machine, perhaps). "
            "Unpack into another folder with --results."
        )
    return False
