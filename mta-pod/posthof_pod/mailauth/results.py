"""Authentication-Results: our field written, foreign ones with our name found (RFC 8601). Pure.

Rules
- What comes from outside (domains, selectors, reasons) can end neither the field nor the value it stands in.
- A field counts as ours whenever any reading of it gives our name: comments, quotes and blanks do not hide it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

NAME = b"authentication-results"
_LONG_NAME = b"Authentication-Results"
UNTRUSTED = b"X-Foreign-Auth-Results"  # of the same length: content that is on disk already keeps its size
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+")
_ADDRESS = re.compile(r"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64})?@[A-Za-z0-9._-]{1,253}")
_UNSAFE = re.compile(r"[^ !#-:<-\[\]-~]+")  # the semicolon too: some readers let it end a value inside quotes
_WIDTH = 100


class Result(NamedTuple):
    """One method's answer. `properties`: ("smtp.mailfrom", "example.org"), in their order; empty ones are left
    out."""

    method: str
    result: str
    properties: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    comment: str = ""


def text(results: Iterable[Result]) -> str:
    """What stands behind the name: "; spf=pass smtp.mailfrom=example.org; ...", folded. For the field here and for
    ARC's."""
    parts = [_one(result) for result in results]
    return "".join(f";\r\n\t{part}" for part in parts) if parts else "; none"


def field(name: str, results: Iterable[Result]) -> bytes:
    """The field; `name` is ours (authserv-id)."""
    return f"Authentication-Results: {name}{text(results)}\r\n".encode("ascii", "replace")


@functools.lru_cache(maxsize=4096)
def _one(result: Result) -> str:
    """Kept: what SPF and DMARC say of one sender is the same each time."""
    words = [f"{result.method}={result.result}"]
    if result.comment:
        words.append(f"({_UNSAFE.sub(' ', result.comment).translate(_NO_PARENTHESES)[:200]})")
    if result.reason:
        words.append(f'reason="{_UNSAFE.sub(" ", result.reason)[:200]}"')
    words += [f"{key}={_value(value)}" for key, value in result.properties if value]
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) < _WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\r\n\t ".join(lines)


_NO_PARENTHESES = str.maketrans("()", "  ")


def _value(value: str) -> str:
    value = value[:320]
    if _TOKEN.fullmatch(value) or _ADDRESS.fullmatch(value):
        return value
    return f'"{_UNSAFE.sub("?", value)}"'


# ---- foreign fields


def is_ours(raw: bytes, name: str) -> bool:
    """Whether an Authentication-Results field claims to be written by `name`."""
    value = raw.partition(b":")[2].decode("utf-8", "replace").lower()
    name = name.lower()
    plain = _without_comments(value)
    if plain is None:
        return True  # nobody can tell where its name ends
    identity = plain.partition(";")[0].replace('"', "").replace("\\", "")
    return _stands_in(name, "".join(identity.split())) or _stands_in(name, identity)


def _stands_in(name: str, words: str) -> bool:
    return re.search(rf"(?<![a-z0-9._-]){re.escape(name)}(?![a-z0-9_-]|\.[a-z0-9])", words) is not None


def _without_comments(value: str) -> str | None:
    """None: a comment or a quoted string does not end."""
    kept: list[str] = []
    depth, at, is_quoted = 0, 0, False
    while at < len(value):
        character = value[at]
        if character == "\\":
            kept.append("" if depth else value[at + 1 : at + 2])
            at += 2
            continue
        if not is_quoted and character in "()":
            depth += 1 if character == "(" else -1 if depth else 0
        elif not depth:
            is_quoted ^= character == '"'
            kept.append(" " if is_quoted and character == ";" else character)
        at += 1
    return None if depth or is_quoted else "".join(kept)


def without_ours(head: bytes, fields: Sequence[tuple[bytes, bytes]], name: str) -> bytes:
    """The header block without the fields that claim to be ours; `fields` is what it was read into."""
    if not any(one == NAME and is_ours(raw, name) for one, raw in fields):
        return head
    return _ended_alike(head, b"".join(raw for one, raw in fields if one != NAME or not is_ours(raw, name)))


def disarmed(head: bytes, fields: Sequence[tuple[bytes, bytes]], name: str) -> bytes:
    """The same for content whose size cannot change any more: these fields have another name now."""
    kept: list[bytes] = []
    for one, raw in fields:
        is_foreign = one == NAME and is_ours(raw, name)
        kept.append(UNTRUSTED + raw[len(_LONG_NAME) :] if is_foreign else raw)
    return _ended_alike(head, b"".join(kept))


def _ended_alike(head: bytes, made: bytes) -> bytes:
    """Content that is all header may end without a line end; its fields were read with one."""
    return made if head.endswith(b"\r\n") else made.removesuffix(b"\r\n")
