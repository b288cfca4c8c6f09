"""The documents that a variant may retrieve from: a folder of Markdown, text and HTML files, or rows of a file."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from harness import readers
from harness.errors import DataError, did_you_mean
from harness.records import Document

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE_LINE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE | re.IGNORECASE)
_FIRST_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_KINDS = (".md", ".markdown", ".txt", ".html", ".htm")


def load(source: str) -> tuple[tuple[Document, ...], tuple[str, ...]]:
    """Return the documents of `source`, sorted by file name or in the order of the rows, and notes to show.

    A folder is read with its sub-folders; a document's id is the file's path in it without the suffix. Rows have the
    fields `id` (or `_id`), `text` and, where there is one, `title`; in SQuAD's format each paragraph is a document.
    Raises DataError with every fault at once.
    """
    folder = None if source.startswith(readers.HUB) else Path(source)
    if folder is not None and folder.is_dir() and not readers.is_saved(folder):
        documents, places, notes = _from_folder(folder)
    else:
        documents, places, notes = _from_rows(source)
    faults = [
        f"{place}: the document has no text"
        for document, place in zip(documents, places, strict=True)
        if not document.text.strip()
    ]
    first: dict[str, str] = {}
    for document, place in zip(documents, places, strict=True):
        if document.id in first:
            faults.append(f"{place}: document id {document.id!r} stands twice, first at {first[document.id]}")
        first.setdefault(document.id, place)
    readers.raise_faults(faults)
    return tuple(documents), tuple(notes)


def _from_folder(folder: Path) -> tuple[list[Document], list[str], list[str]]:
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    known = [file for file in files if file.suffix.lower() in _KINDS]
    if not known:
        raise DataError(f"{folder} holds no documents. Allowed: {', '.join(_KINDS)}.")
    others = sorted({file.suffix.lower() or file.name for file in files} - set(_KINDS))
    left_out = f"{len(files) - len(known)} files of other kinds beside the documents are left out: {', '.join(others)}"
    return [_document(file, folder) for file in known], [str(file) for file in known], [left_out] if others else []


def _document(file: Path, folder: Path) -> Document:
    text = readers.text_of(file).replace("\r\n", "\n")
    title = ""
    if file.suffix.lower() in (".html", ".htm"):
        text, title = markdown(text)
    elif file.suffix.lower() != ".txt":
        if front := _FRONT_MATTER.match(text):
            text = text[front.end() :]
            named = _TITLE_LINE.search(front[1])
            title = named[1].strip("\"'") if named else ""
        if not title and (heading := _FIRST_HEADING.search(text)):
            title = heading[1]
    return Document(id=file.relative_to(folder).with_suffix("").as_posix(), text=text, title=title)


def _from_rows(source: str) -> tuple[list[Document], list[str], list[str]]:
    table = readers.read(source, "documents")
    documents: list[Document] = []
    places: list[str] = []
    faults: list[str] = []
    paragraphs: set[str] = set()
    for index, row in enumerate(table.rows):
        if "paragraph" in row and "text" not in row:
            # The questions of one paragraph repeat it.
            if row["paragraph"] in paragraphs:
                continue
            paragraphs.add(row["paragraph"])
            row = {"id": row["paragraph"], "text": row["context"], "title": row.get("title")}
        values = {"id": row.get("id", row.get("_id")), "text": row.get("text")}
        missing = [name for name, value in values.items() if value is None]
        if missing:
            names = " and ".join(map(repr, missing))
            faults.append(f"{table.place(index)}: a document needs {names}.{did_you_mean(missing[0], row)}")
            continue
        documents.append(
            Document(**{name: str(value) for name, value in values.items()}, title=str(row.get("title") or ""))
        )
        places.append(table.place(index))
    readers.raise_faults(faults)
    return documents, places, []


# ------------------------------------------------------------------------------------------------------------ HTML


def markdown(html: str) -> tuple[str, str]:
    """Return the text of an HTML page with its headings and list items as in Markdown, and the page's title."""
    reader = _Page()
    reader.feed(html)
    reader.close()
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", "".join(reader.parts))
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    heading = _FIRST_HEADING.search(text)
    return text, " ".join(reader.title.split()) or (heading[1] if heading else "")


class _Page(HTMLParser):
    """Gathers what a reader of the page would read."""

    SILENT = frozenset({"script", "style", "template", "noscript", "svg", "head"})
    BLOCKS = frozenset(
        {"p", "div", "section", "article", "main", "header", "footer", "nav", "aside", "ul", "ol", "dl", "dt", "dd"}
        | {"table", "blockquote", "figure", "figcaption", "form", "fieldset", "hr", "pre", "details", "summary"}
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title = ""
        self._silent: list[str] = []
        self._in_title = False
        self._exact = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and self._silent in ([], ["head"]):
            self._in_title = True
        elif tag in self.SILENT:
            self._silent.append(tag)
        elif tag == "body":
            self._silent.clear()
        elif not self._silent:
            self.parts.append(self._before(tag))
        self._exact += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        elif tag in self._silent:
            # Whatever was left open inside ends with it.
            del self._silent[self._silent.index(tag) :]
        elif not self._silent and (tag in self.BLOCKS or _level(tag)):
            self.parts.append("\n\n")
        elif not self._silent and tag in ("li", "tr"):
            self.parts.append("\n")
        self._exact = max(0, self._exact - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        elif not self._silent:
            self.parts.append(data if self._exact else re.sub(r"\s+", " ", data))

    def _before(self, tag: str) -> str:
        if level := _level(tag):
            return "\n\n" + "#" * level + " "
        if tag in self.BLOCKS:
            return "\n\n"
        return {"br": "\n", "li": "\n- ", "tr": "\n", "td": " ", "th": " "}.get(tag, "")


def _level(tag: str) -> int:
    return int(tag[1]) if re.fullmatch("h[1-6]", tag) else 0
