"""Records in a JSONL file that one can open anywhere: a byte-offset index beside it finds row i, or an id, at once.

`answers.jsonl` is the file of predictions in the making: batches are appended, and exactly those whose `append`
returned are found again after kill -9.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import mmap
import os
import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from pydantic import ValidationError

from harness.errors import StoreError, did_you_mean
from harness.files import damaged, disk, replacing, sync_folder
from harness.records import Prediction, dump_json, load_json

log = logging.getLogger(__name__)


class HasId(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=HasId)

# An index file: magic, count n, n+1 offsets, n hashes of ids in rising order, the n rows they belong to (all unsigned,
# 64 bits, little-endian), n CRC-32 of the lines (32 bits), and the CRC-32 of all of it.
_MAGIC = b"harness1"
_HEAD = len(_MAGIC) + 8


def _hash(identity: str) -> int:
    return int.from_bytes(hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _little(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        values = array(values.typecode, values)
        values.byteswap()
    return values.tobytes()


def _pack(offsets: array[int], hashes: array[int], checks: array[int]) -> bytes:
    count = len(hashes)
    order = array("Q", sorted(range(count), key=hashes.__getitem__))
    ordered = array("Q", (hashes[row] for row in order))
    body = struct.pack("<8sQ", _MAGIC, count) + b"".join(map(_little, (offsets, ordered, order, checks)))
    return body + struct.pack("<I", zlib.crc32(body))


def index_path(path: Path) -> Path:
    return path.with_suffix(".idx")


def write_rows(path: Path, records: Iterable[HasId]) -> int:
    """Write one record a line and the index beside it, both atomically; return how many.

    Raises ValueError where two records have the same id.
    """
    offsets, hashes, checks, seen = array("Q", [0]), array("Q"), array("I"), set[str]()
    with replacing(path) as file:
        for record in records:
            if record.id in seen:
                raise ValueError(f"two rows of {path.name} have the id {record.id!r}")
            seen.add(record.id)
            line = dump_json(record) + b"\n"
            file.write(line)
            offsets.append(offsets[-1] + len(line))
            hashes.append(_hash(record.id))
            checks.append(zlib.crc32(line))
    with replacing(index_path(path)) as file:
        file.write(_pack(offsets, hashes, checks))
    return len(hashes)


class Rows(Generic[R]):
    """The rows of a file that `write_rows` made: `len(rows)`, `rows[3]`, `rows.find(id)`, iteration in order.

    Opening reads the index alone (28 bytes a row). A line that is not what was written raises StoreError.
    """

    def __init__(self, path: Path, cls: type[R], remedy: str = "") -> None:
        self.path, self._cls, self._remedy = path, cls, remedy
        with disk(path, "read"):
            self._file = path.open("rb")
            self._size = os.fstat(self._file.fileno()).st_size
        self._index = self._open_index()
        self._count = struct.unpack_from("<Q", self._index, len(_MAGIC))[0]

    def _open_index(self) -> mmap.mmap:
        path = index_path(self.path)
        with disk(path, "read"):
            if not path.exists() or path.stat().st_size < _HEAD:
                raise damaged(path, "it is missing or cut off", self._remedy)
            with path.open("rb") as file:
                view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, count = struct.unpack_from("<8sQ", view)
        whole = magic == _MAGIC and len(view) == _HEAD + 8 * (count + 1) + 20 * count + 4
        with memoryview(view) as content:
            if not whole or struct.unpack_from("<I", view, len(view) - 4)[0] != zlib.crc32(content[:-4]):
                raise damaged(path, "it is not what was written", self._remedy)
        if struct.unpack_from("<Q", view, _HEAD + 8 * count)[0] != self._size:
            raise damaged(self.path, "its size is not what its index knows", self._remedy)
        return view

    def _parse(self, line: bytes, row: int) -> R:
        try:
            if line.endswith(b"\n"):
                return load_json(self._cls, line)
        except ValidationError as error:
            raise damaged(self.path, f"line {row + 1} is no {self._cls.__name__}", self._remedy) from error
        raise damaged(self.path, f"line {row + 1} is cut off", self._remedy)

    def __len__(self) -> int:
        return int(self._count)

    def __getitem__(self, row: int) -> R:
        if row < 0:
            row += self._count
        if not 0 <= row < self._count:
            raise IndexError(f"row {row} of {self._count}")
        start, end = struct.unpack_from("<QQ", self._index, _HEAD + 8 * row)
        with disk(self.path, "read"):
            line = os.pread(self._file.fileno(), max(0, end - start), start) if start <= end <= self._size else b""
        return self._checked(line, row)

    def __iter__(self) -> Iterator[R]:
        with disk(self.path, "read"), self.path.open("rb") as file:
            row = 0
            for row, line in enumerate(file, 1):
                if row > self._count:
                    break
                yield self._checked(line, row - 1)
        if row != self._count:
            raise damaged(self.path, f"it has not the {self._count:,} lines that its index knows", self._remedy)

    def _checked(self, line: bytes, row: int) -> R:
        (check,) = struct.unpack_from("<I", self._index, _HEAD + 8 * (3 * self._count + 1) + 4 * row)
        if zlib.crc32(line) != check:
            raise damaged(self.path, f"line {row + 1} is not what was written", self._remedy)
        return self._parse(line, row)

    def find(self, identity: str) -> R:
        """Return the row with this id. Raises StoreError, with near ids where the file is small, if there is none."""
        wanted, base = _hash(identity), _HEAD + 8 * (self._count + 1)
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if struct.unpack_from("<Q", self._index, base + 8 * middle)[0] < wanted:
                low = middle + 1
            else:
                high = middle
        while low < self._count and struct.unpack_from("<Q", self._index, base + 8 * low)[0] == wanted:
            (row,) = struct.unpack_from("<Q", self._index, base + 8 * (self._count + low))
            found = self[row] if row < self._count else None
            if found is not None and found.id == identity:
                return found
            low += 1
        known = [row.id for row in self] if self._count <= 1000 else []
        hint = did_you_mean(identity, known) if len(known) <= 20 else _guess(identity, known)
        raise StoreError(f"no example {identity!r} in {self.path}.{hint}")

    def close(self) -> None:
        self._file.close()
        self._index.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


def _guess(word: str, known: Sequence[str]) -> str:
    return did_you_mean(word, known).partition(" Available:")[0]


# ------------------------------------------------------------------------------------------------- answers so far


def read_batches(path: Path) -> tuple[list[list[Prediction]], int]:
    """Return the batches that `Answers` acknowledged, in order, and the bytes they take.

    What comes after the last whole batch is a torn write and is left out. So is what comes after damage: those
    examples are answered again, and the log says so.
    """
    try:
        with disk(path, "read"):
            data = path.read_bytes()
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return [], 0
        raise
    batches: list[list[Prediction]] = []
    good = start = 0
    lines: list[bytes] = []
    while (end := data.find(b"\n", start) + 1) > 0:
        line = data[start:end]
        start = end
        if not line.startswith(b'{"batch"'):
            lines.append(line)
            continue
        try:
            mark: Any = json.loads(line)
            if mark != _mark(len(batches), lines):
                break
            batches.append([load_json(Prediction, item) for item in lines])
        except ValueError:  # pydantic's ValidationError is one
            break
        good, lines = end, []
    if data.count(b'\n{"batch"', good) > 1:
        log.warning("%s is damaged after batch %d: the answers after it are given again", path, len(batches))
    return batches, good


def _mark(number: int, lines: Sequence[bytes]) -> dict[str, int]:
    return {"batch": number, "n": len(lines), "crc": zlib.crc32(b"".join(lines))}


class Answers:
    """Appends predictions batch by batch to `path`. What `append` returned from is there after kill -9."""

    def __init__(self, path: Path) -> None:
        """Open for appending; a torn tail is cut off. `batches` holds what was there. One writer at a time: lock."""
        self.path = path
        self.batches, self._end = read_batches(path)
        self._count = len(self.batches)
        with disk(path):
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.ftruncate(self._handle, self._end)
            os.fsync(self._handle)
            sync_folder(path.parent)

    def append(self, batch: Sequence[Prediction]) -> None:
        """Write one whole batch, durably. After an error nothing of it is kept, and the writer is closed."""
        if self._handle is None:
            raise ValueError(f"{self.path} is closed")
        lines = [dump_json(prediction) + b"\n" for prediction in batch]
        data = b"".join(lines) + json.dumps(_mark(self._count, lines)).encode() + b"\n"
        try:
            with disk(self.path):
                written = 0
                while written < len(data):
                    written += os.pwrite(self._handle, data[written:], self._end + written)
                os.fsync(self._handle)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, self._end)
            self.close()
            raise
        self._end += len(data)
        self._count += 1

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
