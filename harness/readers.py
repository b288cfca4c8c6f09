"""Rows from files: JSONL, JSON, CSV, TSV, Parquet, SQuAD's nested JSON, saved `datasets` folders, and Hugging Face ids.

`read` gives every row as a dict with the place it came from, or a DataError that names the file and the line.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError

Row = dict[str, Any]

HUB = "hf:"
_SHOWN = 10
_INSTALL = "`pip install -e '.[train]'` in a checkout"
_NO_QUESTION: Row = {}
_MADE_FOR = {
    "train": ("train",),
    "dev": ("dev", "validation", "valid", "val"),
    "heldout": ("test", "heldout", "validation"),
    "rows": ("train",),
    "preferences": ("train", "train_prefs"),
    "preferences_dev": ("dev", "validation", "test", "test_prefs"),
    "conversations": ("train", "train_sft"),
    "conversations_dev": ("dev", "validation", "test", "test_sft"),
    "documents": ("train", "corpus"),
}


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of `source`. `numbers` are their lines (files of lines) or their numbers from 1, as `unit` says."""

    source: str
    rows: Sequence[Row]
    numbers: Sequence[int]
    unit: str = "line"

    def place(self, index: int) -> str:
        """Where row `index` stands: "train.jsonl:12", or "data.parquet row 12"."""
        separator = ":" if self.unit == "line" else f" {self.unit} "
        return f"{self.source}{separator}{self.numbers[index]}"

    def fields(self) -> list[str]:
        """The names of all fields, in the order in which they are met."""
        return list(dict.fromkeys(name for row in self.rows for name in row))


def read(source: str, role: str = "rows") -> Rows:
    """Return the rows of `source`: a path, or `hf:owner/name[/config][:split]`.

    `role` ("train", "dev", "heldout", "rows", "documents", ...) chooses the split of a data set that has several where
    `source` names none. Questions in SQuAD's format, nested or flat, get `paragraph`: an id of their paragraph, made
    from its text. Raises DataError.
    """
    found = _from_hub(source, role) if source.startswith(HUB) else _from_path(Path(source), role)
    kept = [
        (_with_paragraph(row) if "context" in row and "answers" in row else row, number)
        for row, number in zip(found.rows, found.numbers, strict=True)
        if role == "documents" or row.get("answers") is not _NO_QUESTION
    ]
    if not kept:
        raise DataError(f"{source} is empty: it holds no rows")
    return Rows(found.source, [row for row, _ in kept], [number for _, number in kept], found.unit)


def _from_path(path: Path, role: str) -> Rows:
    if path.is_dir():
        return _from_saved(path, role)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        kinds = ", ".join(_READERS)
        raise DataError(f"{path}: the name's ending says nothing about how to read it. Allowed: {kinds}.")
    return reader(path)


def text_of(path: Path) -> str:
    """Return the file's text. Raises DataError where it cannot be read or is not UTF-8, then with the line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise DataError(
            f"{path}:{line}: not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8 and try again."
        ) from error


# -------------------------------------------------------------------------------------------------- files of text


def _jsonl(path: Path) -> Rows:
    rows: list[Row] = []
    numbers: list[int] = []
    faults: list[str] = []
    # Only "\n" ends a line: str.splitlines would also cut at characters that JSON may hold as they are.
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.append(f"{path}:{number}: broken JSON: {_reason(error)}: {_clip(line)}")
            continue
        if isinstance(row, dict):
            rows.append(row)
            numbers.append(number)
        else:
            faults.append(f"{path}:{number}: a line must hold one object {{...}}, not {_clip(line)}")
    raise_faults(faults)
    return Rows(str(path), rows, numbers)


def _json(path: Path) -> Rows:
    text = text_of(path)
    if not text.strip():
        return Rows(str(path), [], [])
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        hint = " One object a line is JSONL: name the file .jsonl." if "Extra data" in str(error) else ""
        raise DataError(f"{path}:{line}: broken JSON: {_reason(error)}.{hint}") from error
    found = content.get("data") if isinstance(content, dict) else content
    if not isinstance(found, list):
        raise DataError(f'{path}: must hold a list of rows, {{"data": [rows]}}, or questions in SQuAD\'s format')
    if found and all(isinstance(article, dict) and "paragraphs" in article for article in found):
        try:
            rows = list(_squad(found))
        except (KeyError, TypeError, AttributeError) as error:
            shape = "data[].paragraphs[].{context, qas[].{id, question, answers[].text}}"
            raise DataError(f"{path}: not SQuAD's format ({shape}): {type(error).__name__} {error}") from error
        return Rows(str(path), rows, range(1, len(rows) + 1), "question")
    wrong = [number for number, row in enumerate(found, start=1) if not isinstance(row, dict)]
    raise_faults([f"{path} row {number}: must be an object {{...}}" for number in wrong])
    return Rows(str(path), found, range(1, len(found) + 1), "row")


def _squad(articles: Sequence[Row]) -> Iterator[Row]:
    """Flatten SQuAD's nested JSON into rows as the Hub has them: id, title, context, question, answers {text: [...]}.

    A paragraph without questions gives one row that has a context only: it is a document to retrieve from.
    """
    for article in articles:
        title = str(article.get("title", "")).replace("_", " ")
        for paragraph in article["paragraphs"]:
            shared = {"title": title, "context": paragraph["context"]}
            if not paragraph["qas"]:
                yield {**shared, "answers": _NO_QUESTION}
            for question in paragraph["qas"]:
                texts = [answer["text"] for answer in question.get("answers", ())]
                yield {**question, **shared, "answers": {"text": texts}}


def _with_paragraph(row: Row) -> Row:
    """Name the row's paragraph by its text: the same in every file and split, so that no split can hide a copy.

    A question without accepted answers is one that the paragraph does not answer: as in SQuAD v2.0's script, the
    right answer to it is the empty one.
    """
    answers = row["answers"]
    if isinstance(answers, dict) and "text" in answers and not answers["text"]:
        answers = {**answers, "text": [""]}
    name = hashlib.sha256(str(row["context"]).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return {"paragraph": name, **row, "answers": answers}


def _csv(path: Path) -> Rows:
    tabs = path.suffix.lower() == ".tsv"
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(io.StringIO(text_of(path), newline=""), "excel-tab" if tabs else "excel", strict=True)
    rows: list[Row] = []
    numbers: list[int] = []
    faults: list[str] = []
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if not header:
                header = _header(path, line, cells)
            elif len(cells) != len(header):
                got = f"{len(cells)} field{'s' * (len(cells) != 1)}"
                faults.append(f"{path}:{line}: {got}, but the header has {len(header)} ({', '.join(header)})")
            else:
                rows.append(dict(zip(header, cells, strict=True)))
                numbers.append(line)
    except csv.Error as error:
        raise DataError(f"{path}:{start}: broken {'TSV' if tabs else 'CSV'}: {error}") from error
    raise_faults(faults, "A field that holds a separator or a line's end must stand in double quotes.")
    return Rows(str(path), rows, numbers)


def _header(path: Path, line: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}:{line}: the header names {', '.join(map(repr, twice))} more than once")
    return names


# ------------------------------------------------------------------------------------------- Parquet and `datasets`


def _parquet(path: Path) -> Rows:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: Parquet files need pyarrow: {_INSTALL}") from error
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: broken Parquet: {error}") from error
    return Rows(str(path), rows, range(1, len(rows) + 1), "row")


def _from_saved(folder: Path, role: str) -> Rows:
    if not is_saved(folder):
        raise DataError(f"{folder} is a folder: name a file in it, or a folder written by `datasets`' save_to_disk")
    datasets = _datasets(str(folder))
    return _rows_of(str(folder), datasets.load_from_disk(str(folder)), role)


def is_saved(folder: Path) -> bool:
    """Whether `folder` was written by `save_to_disk` of `datasets`."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "dataset_info.json"))


def _from_hub(source: str, role: str) -> Rows:
    place, _, split = source.removeprefix(HUB).partition(":")
    parts = place.split("/")
    if not all(parts) or len(parts) > 3:
        raise DataError(f"{source}: a Hugging Face id is written hf:owner/name[/config][:split]")
    datasets = _datasets(source)
    name, config = "/".join(parts[:2]), parts[2] if len(parts) == 3 else None
    try:
        # Data only: `datasets` runs no code of the repository.
        loaded = datasets.load_dataset(name, config, split=split or None)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{source} could not be loaded from the Hub: {reason}") from error
    return _rows_of(source, loaded, role)


def _rows_of(source: str, loaded: Any, role: str) -> Rows:
    if isinstance(loaded, dict):
        wanted = [name for name in _MADE_FOR[role] if name in loaded]
        if not wanted and len(loaded) > 1:
            how = f"write {source}:split" if source.startswith(HUB) else "name the folder of one split"
            splits = ", ".join(loaded)
            raise DataError(f"{source} has several splits, and none is named for {role}: {how}. Splits: {splits}.")
        loaded = loaded[wanted[0] if wanted else next(iter(loaded))]
    rows = loaded.to_list()
    return Rows(source, rows, range(1, len(rows) + 1), "row")


def _datasets(source: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{source} needs the `datasets` package: {_INSTALL}") from error
    datasets.disable_progress_bars()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    return datasets


# ---------------------------------------------------------------------------------------------------------- faults


def raise_faults(faults: Sequence[str], advice: str = "") -> None:
    """Raise one DataError with the first faults and how many more there are; nothing where there is none."""
    if not faults:
        return
    more = [f"... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    raise DataError("\n".join([*faults[:_SHOWN], *more, *([advice] if advice else [])]))


def _reason(error: Exception) -> str:
    return f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _clip(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 60 else text[:57] + "..."


_READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
