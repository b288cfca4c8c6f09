"""Files that survive kill -9: atomic writes, sealed folders, locks; every disk error becomes a StoreError.

What is acknowledged: a write that returned is on the disk (fsync of the file and of its folder). kill -9 never shows
half a file, because every file is written beside its place and renamed into it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from harness.errors import StoreError
from harness.records import digest

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".tmp"
SEAL = "complete.json"
WORK = "work"
_ADVICE = {
    errno.ENOSPC: "Free some space (`harness gc` shows what nothing refers to) and run again: what was saved stays.",
    errno.EDQUOT: "Free some space (`harness gc` shows what nothing refers to) and run again: what was saved stays.",
    errno.EROFS: "Choose a folder that can be written with --results.",
    errno.EACCES: "Choose a folder that you may use with --results, or change its permissions.",
    errno.EPERM: "Choose a folder that you may use with --results, or change its permissions.",
    errno.ENOTDIR: "A file is in the way of a folder: move it, or choose another folder with --results.",
    errno.EEXIST: "A file is in the way of a folder: move it, or choose another folder with --results.",
    errno.EISDIR: "A folder is in the way of a file: move it, or choose another folder with --results.",
}


def now() -> str:
    """Return the time in UTC, ISO 8601 with microseconds, so that text order is time order."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@contextlib.contextmanager
def disk(path: Path, doing: Literal["read", "write"] = "write") -> Iterator[None]:
    """Turn an OSError inside into a StoreError that names `path`, the fault and what to do."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "")
        text = f"cannot {doing} {path}: {error.strerror or error} ({errno.errorcode.get(error.errno or 0, 'error')})."
        raise StoreError(f"{text} {advice}".rstrip()) from error


def damaged(path: Path, what: str, remedy: str = "") -> StoreError:
    """Return the error for a file that does not hold what was written to it."""
    remedy = remedy or f"Move {path.parent} away or delete it, and run again: only what it held is done again."
    return StoreError(f"{path} is damaged: {what}. {remedy}")


# ---------------------------------------------------------------------------------------------------- whole files


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    with disk(folder):
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)


def temporary(path: Path) -> Path:
    """Return a free name beside `path`; what a killed process leaves under it is found by gc."""
    return path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:12]}{TEMPORARY}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Any]:
    """Open a new binary file that takes the place of `path` when the block ends, and is gone if it fails."""
    draft = temporary(path)
    with disk(path):
        try:
            with draft.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise


def write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as file:
        file.write(data)


def to_json(value: object) -> bytes:
    """Return JSON for people (indented, UTF-8). Raises ValueError for a number that is not finite."""
    try:
        return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:  # half a surrogate pair: only escapes can hold it
        return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: object) -> None:
    write_bytes(path, to_json(value))


def read_bytes(path: Path) -> bytes:
    with disk(path, "read"):
        return path.read_bytes()


def parse_json(path: Path, data: bytes, remedy: str = "") -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"it is not JSON ({error})", remedy) from error


def read_json(path: Path, remedy: str = "") -> Any:
    return parse_json(path, read_bytes(path), remedy)


def remove_tree(folder: Path) -> None:
    with disk(folder):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return


def move_folder(draft: Path, place: Path) -> None:
    """Move a whole folder to a place that must be free, in one action."""
    make_folder(place.parent)
    with disk(place):
        draft.chmod(0o755)
        draft.rename(place)
        sync_folder(place.parent)


def files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield (relative name with slashes, path) of what a folder keeps: not its seal, its partial work or drafts."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name == SEAL or name.split("/", 1)[0] == WORK or name.endswith(TEMPORARY):
            continue
        if path.is_symlink():
            raise StoreError(f"{path} is a link: a results folder holds plain files only. Replace it with its content.")
        if path.is_file():
            yield name, path


def walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every file below `folder` as it is now; what vanishes meanwhile is left out."""
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            with contextlib.suppress(OSError):
                yield Path(place, name), Path(place, name).lstat()


def size_of(folder: Path) -> int:
    """Return the bytes of all files below `folder`."""
    return sum(about.st_size for _, about in walk(folder))


def sha256(path: Path) -> str:
    with disk(path, "read"), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -------------------------------------------------------------------------------------------------- sealed folders


@dataclass(frozen=True, slots=True)
class Seal:
    """What `complete.json` says of its folder: the payload, and size and SHA-256 of every file."""

    payload: dict[str, Any]
    ended: str
    files: dict[str, tuple[int, str]]


def seal(folder: Path, payload: dict[str, Any]) -> None:
    """Make every file of `folder` durable, then write `complete.json`, last."""
    files: dict[str, tuple[int, str]] = {}
    folders = {folder}
    with disk(folder):
        for name, path in files_in(folder):
            with path.open("rb") as file:
                files[name] = (path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
                os.fsync(file.fileno())
            folders.add(path.parent)
        for inner in folders:
            sync_folder(inner)
    # the round trip makes tuples lists and keys text, so that the digest is of what a reader will see
    body = json.loads(json.dumps({"payload": payload, "ended": now(), "files": files}, allow_nan=False))
    write_json(folder / SEAL, {**body, "sha256": digest(body, 64)})


def read_seal(folder: Path, remedy: str = "") -> Seal | None:
    """Return what `complete.json` says, or None where the folder is not complete.

    Raises StoreError where the seal does not hold: it was changed, or a file is missing or has another size.
    The content of files is checked where they are read, and by `verify`.
    """
    path = folder / SEAL
    if not path.exists():
        return None
    body = read_json(path, remedy)
    stated = body.pop("sha256", None) if isinstance(body, dict) else None
    if stated is None or stated != digest(body, 64):
        raise damaged(path, "its content does not match its digest", remedy)
    try:
        files = {str(name): (int(size), str(sha)) for name, (size, sha) in body["files"].items()}
        made = Seal(dict(body["payload"]), str(body["ended"]), files)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, "it is no seal", remedy) from error
    for name, (size, _) in files.items():
        file = folder / name
        if name.startswith("/") or ".." in name.split("/"):
            raise damaged(path, f"it names {name!r}", remedy)
        try:
            found = file.stat().st_size
        except OSError as error:
            raise damaged(file, "it is missing", remedy) from error
        if found != size:
            raise damaged(file, f"it has {found:,} bytes, not {size:,}", remedy)
    return made


def read_sealed(folder: Path, name: str, found: Seal | None, remedy: str = "") -> bytes:
    """Return the content of a file; where its folder is sealed, only if it is what was sealed."""
    data = read_bytes(folder / name)
    if found and name in found.files and hashlib.sha256(data).hexdigest() != found.files[name][1]:
        raise damaged(folder / name, "its content does not match its digest", remedy)
    return data


def contents(folder: Path, remedy: str = "") -> dict[str, tuple[int, str]]:
    """Return size and SHA-256 of each file of a folder: as sealed, or as found where it is not complete."""
    found = read_seal(folder, remedy)
    if found:
        return found.files
    return {name: (path.stat().st_size, sha256(path)) for name, path in files_in(folder)}


def verify(folder: Path, remedy: str = "") -> None:
    """Read every file of a sealed folder. Raises StoreError at the first that is not what was sealed."""
    found = read_seal(folder, remedy)
    for name, (_, sha) in found.files.items() if found else ():
        if sha256(folder / name) != sha:
            raise damaged(folder / name, "its content does not match its digest", remedy)


# ----------------------------------------------------------------------------------------------------------- locks


class Lock:
    """A lock between processes and threads that the system releases when its holder dies.

    Not reentrant: a thread that takes the same exclusive lock twice waits for itself.
    """

    _open: ClassVar[weakref.WeakSet[Lock]] = weakref.WeakSet()

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    def acquire(self, *, shared: bool = False, waiting: Callable[[], None] | None = None, block: bool = True) -> bool:
        """Take the lock; `waiting` is called once if another holds it. Return False if it is held and not `block`."""
        if fcntl is None:  # pragma: no cover - Windows
            raise StoreError("the results folder needs file locks of Linux or macOS; on Windows use WSL.")
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        make_folder(self.path.parent)
        with disk(self.path):
            while True:
                handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                try:
                    held = self._flock(handle, kind, waiting, block)
                    waiting = None
                    # gc may have removed the file meanwhile: a lock on a nameless file excludes nobody
                    current = held and _same_file(handle, self.path)
                except BaseException:
                    os.close(handle)
                    raise
                if current:
                    self._handle = handle
                    Lock._open.add(self)
                    return True
                os.close(handle)
                if not held:
                    return False

    @staticmethod
    def _flock(handle: int, kind: int, waiting: Callable[[], None] | None, block: bool) -> bool:
        for attempt in range(4):  # others look at a lock for an instant; that is no reason to report a wait
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
                return True
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
            time.sleep(0.002 * (attempt + 1))
        if not block:
            return False
        if waiting:
            waiting()
        fcntl.flock(handle, kind)
        return True

    @property
    def handle(self) -> int:
        """The open file of the held lock: a child process that inherits it keeps the lock held until it ends too."""
        assert self._handle is not None, "the lock is not held"
        return self._handle

    def release(self) -> None:
        if self._handle is not None:
            Lock._open.discard(self)
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)

    @classmethod
    def forget_after_fork(cls) -> None:
        """A forked child must not keep its parent's locks alive."""
        for lock in list(cls._open):
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Lock.forget_after_fork)


def _same_file(handle: int, path: Path) -> bool:
    try:
        here, there = os.fstat(handle), path.stat()
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock of `path`, shared or exclusive; works on a read-only folder."""
    if fcntl is None:  # pragma: no cover - Windows
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not Lock._flock(handle, fcntl.LOCK_EX, None, False)
    finally:
        os.close(handle)
