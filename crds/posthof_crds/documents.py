"""YAML text -> documents: plain values, and the line of every field.

Rules of this file
- The C parser's events are read with an explicit stack: no recursion, nothing of yaml's object construction, so a
  manifest can neither run code nor exhaust the stack. Depth is bounded; anchors and aliases are refused (they hide
  where a value comes from, and a few of them can become gigabytes).
- Plain scalars follow YAML 1.2's core schema: `true`/`false`, `null`, integers, decimals. `yes`, `off`, `12:30`
  stay texts: an alias called `no` is a name and not a boolean.
- A file is cut at lines that begin with `---` first, so an error in one document leaves the others readable.
- Whatever the bytes: documents and Problems come back, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from posthof_crds.problems import Problem

Path = tuple[str | int, ...]

MAX_DEPTH = 40
_NO_ANCHORS = "anchors and aliases (& and *) are not used in manifests"
_SEPARATOR = re.compile(r"^---(?=[ \t\r]|$)", re.MULTILINE)
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[-+]?(?:[0-9]{1,18}\.[0-9]{0,18}|\.[0-9]{1,18})(?:[eE][-+]?[0-9]{1,3})?")
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}
_STRING_TAGS = {None, "!", "tag:yaml.org,2002:str"}


class Document(NamedTuple):
    """One YAML document. `lines` maps the path of every field and item to its line."""

    file: str
    number: int
    value: dict[str, Any]
    lines: dict[Path, int]

    @property
    def subject(self) -> str:
        """`MTA/edge`, as far as the document says it."""
        kind = self.value.get("kind")
        metadata = self.value.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        return "/".join(str(part) for part in (kind, name) if isinstance(part, str) and part)

    def line(self, path: Path) -> int:
        """The line of the field, or of the nearest part of its path that was written."""
        while path not in self.lines:
            if not path:
                return 0
            path = path[:-1]
        return self.lines[path]

    def problem(self, path: Path, what: str, instead: str = "") -> Problem:
        return Problem(self.file, self.number, self.subject, dotted(path), self.line(path), what, instead)


def dotted(path: Path) -> str:
    """`("spec", "listeners", 0, "port")` -> `spec.listeners[0].port`; keys with dots are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z0-9_-]+", part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


class _Wrong(Exception):
    def __init__(self, line: int, path: Path, what: str, instead: str = "") -> None:
        self.line, self.path, self.what, self.instead = line, path, what, instead
        super().__init__(what)


def read(file: str, data: bytes) -> tuple[list[Document], list[Problem]]:
    """All documents of one file, and what is wrong with its text. Empty documents are skipped."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return [], [Problem(file, 0, "", "", line, "this is not UTF-8", "Save the file as UTF-8.")]
    documents: list[Document] = []
    problems: list[Problem] = []
    number = 0
    for line, chunk in _chunks(text):
        if not _has_content(chunk):
            continue
        number += 1
        try:
            documents.append(_document(file, number, line, chunk))
        except _Wrong as wrong:
            problems.append(Problem(file, number, "", dotted(wrong.path), wrong.line, wrong.what, wrong.instead))
        except yaml.YAMLError as error:
            problems.append(_explain(file, number, line, chunk, error))
    return documents, problems


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """`(lines before it, text)` of each part between `---` lines."""
    start, line = 0, 0
    for found in _SEPARATOR.finditer(text):
        yield line, text[start : found.start()]
        line += text.count("\n", start, found.start())
        start = found.start()
    yield line, text[start:]


def _has_content(chunk: str) -> bool:
    lines = (line.strip() for line in chunk.removeprefix("---").splitlines())
    return any(line and not line.startswith(("#", "%")) and line != "..." for line in lines)


def _document(file: str, number: int, before: int, chunk: str) -> Document:
    builder = _Builder(before)
    for event in yaml.parse(chunk, Loader=yaml.CSafeLoader):
        builder.take(event)
    if not isinstance(builder.value, dict):
        instead = "Write an object: apiVersion, kind, metadata, spec."
        raise _Wrong(builder.lines.get((), before + 1), (), "the document is not an object", instead)
    return Document(file, number, builder.value, builder.lines)


class _Builder:
    """Events in, one value and its lines out."""

    def __init__(self, before: int) -> None:
        self.value: Any = None
        self.lines: dict[Path, int] = {}
        self._before = before
        self._stack: list[dict[str, Any] | list[Any]] = []
        self._path: list[str | int] = []
        self._key: str | None = None  # of the innermost mapping, between a key and its value
        self._last: str | int = ""  # where the value placed last stands in its owner
        self._is_done = False

    def take(self, event: Any) -> None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._scalar(event)
        elif kind is yaml.MappingStartEvent:
            self._open(event, {})
        elif kind is yaml.SequenceStartEvent:
            self._open(event, [])
        elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
            self._stack.pop()
            if self._path:
                self._path.pop()
        elif kind is yaml.AliasEvent:
            raise self._wrong(event, _NO_ANCHORS, "Write the value out.")
        elif kind is yaml.DocumentStartEvent and self._is_done:
            raise self._wrong(event, "a second document begins without a --- line", "Write --- between documents.")

    def _line(self, event: Any) -> int:
        return int(event.start_mark.line) + 1 + self._before

    def _wrong(self, event: Any, what: str, instead: str = "") -> _Wrong:
        return _Wrong(self._line(event), tuple(self._path), what, instead)

    def _open(self, event: Any, value: dict[str, Any] | list[Any]) -> None:
        if event.anchor is not None:
            raise self._wrong(event, _NO_ANCHORS, "Write the value out.")
        if len(self._stack) >= MAX_DEPTH:
            raise _Wrong(self._line(event), (), f"more than {MAX_DEPTH} levels, one inside the other")
        if self._wants_key():
            raise self._wrong(event, "a key must be a text", "Quote it, or look at the indentation.")
        is_top = not self._stack
        self._place(event, value)
        if not is_top:
            self._path.append(self._last)
        self._stack.append(value)

    def _wants_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1], dict) and self._key is None

    def _scalar(self, event: Any) -> None:
        if event.anchor is not None:
            raise self._wrong(event, _NO_ANCHORS, "Write the value out.")
        if self._wants_key():
            self._take_key(event)
        else:
            self._place(event, self._plain(event))

    def _take_key(self, event: Any) -> None:
        key = str(event.value)
        mapping = self._stack[-1]
        if key in mapping:
            first = self.lines.get((*self._path, key), 0)
            what = f'"{key}" is written twice, first in line {first}'
            raise _Wrong(self._line(event), (*self._path, key), what, "Keep one of them.")
        self._key = key
        self.lines[(*self._path, key)] = self._line(event)

    def _plain(self, event: Any) -> Any:
        text = str(event.value)
        if event.tag not in _STRING_TAGS:
            raise self._wrong(event, f"the tag {event.tag} is not used in manifests", "Write the value without it.")
        if not event.implicit[0]:  # quoted, a block, or !!str
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _DECIMAL.fullmatch(text):
            return float(text)
        return text

    def _place(self, event: Any, value: Any) -> None:
        if not self._stack:
            if self._is_done:
                raise self._wrong(event, "the document has a second value")
            self.value, self._is_done = value, True
            self.lines[()] = self._line(event)
            return
        owner = self._stack[-1]
        if isinstance(owner, list):
            self._last = len(owner)
            owner.append(value)
            self.lines[(*self._path, self._last)] = self._line(event)
        else:
            assert self._key is not None
            self._last, self._key = self._key, None
            owner[str(self._last)] = value


def _explain(file: str, number: int, before: int, chunk: str, error: yaml.YAMLError) -> Problem:
    """What the parser said, at a line, with a guess at the mend."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # yaml.reader.ReaderError: a character that YAML does not allow
        position = getattr(error, "position", 0)
        line = before + chunk.count("\n", 0, position) + 1
        what = "a control character, which YAML does not allow"
        return Problem(file, number, "", "", line, what, "Remove it, or write it as an escape in double quotes.")
    row = mark.line
    rows = chunk.splitlines() or [""]
    while row > 0 and (row >= len(rows) or not rows[row].strip()):
        row -= 1
    what = ": ".join(str(part) for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part)
    return Problem(file, number, "", "", before + row + 1, f"this is not YAML ({what})", _guess(rows, row))


def _guess(rows: list[str], row: int) -> str:
    near = rows[max(0, row - 1) : row + 1]
    if any("\t" in text[: len(text) - len(text.lstrip())] for text in near):
        return "Indent with spaces: there is a tab at the beginning of this line or the one before."
    text = rows[row].strip()
    if text.count('"') % 2 or text.count("'") % 2:
        return "A quotation mark is open: close it."
    value = text.partition(":")[2].strip() or text.removeprefix("- ")
    if value[:1] in "*&!%@`|>{[" and value[:1]:
        return f"A value that begins with {value[0]} has to stand in quotation marks."
    if ": " in value:
        return "A value that holds a colon and a space has to stand in quotation marks."
    return "Look at the indentation of this line and the one before it."
