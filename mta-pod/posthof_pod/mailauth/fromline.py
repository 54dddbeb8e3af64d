"""The author's domain: one strict reading of From, and what makes a header block readable in two ways.

Rules
- Exactly one From field, with exactly one address, whose domain can be judged (RFC 5322 3.6.2, RFC 9989 11.5 and
  5.3.1). Everything else has a problem and no domain: such a message is never authenticated as anybody's.
- What some program might read otherwise is a problem too: NUL, a bare CR or LF, a line of blanks alone in a folded
  field, a name that is From but for blanks or controls, an encoded word inside an address, an address of another
  domain written where the display name stands, a source route, a group, a header longer than what is read.
- Comments, quoted strings and encoded words in the display name are as RFC 5322 allows, and say nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from posthof_crds import names

Field = tuple[bytes, bytes]
"""(name in lower case, the whole field as it came): mailauth.canon.fields."""

LONGEST = 8192  # octets of a From field
_USUAL = re.compile(
    rb"[Ff][Rr][Oo][Mm]:[ \t]*(?:(?:[A-Za-z0-9 !#$%&'*+/=?^_`{|}~.-]{0,200}[ \t]*|\"[^\"\\\r\n@<>]{0,200}\"[ \t]*)<)?"
    rb"([A-Za-z0-9!#$%&'*+/^_`{|}~.-]{1,64}@[A-Za-z0-9.-]{1,253})(>?)[ \t]*\r\n\Z"
)
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+")
_BLANKS = re.compile(r"[ \t]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NOT_NAME = re.compile(rb"[\x00-\x20\x7f-\xff]+")
_BLANK_LINE = re.compile(rb"\n[ \t]+\r")
_USUAL_NAMES = frozenset(
    b"from to cc date subject message-id received mime-version content-type content-transfer-encoding reply-to "
    b"sender dkim-signature return-path references in-reply-to user-agent x-mailer list-id list-unsubscribe "
    b"arc-seal arc-message-signature arc-authentication-results authentication-results".split()
)
_TEXT_ADDRESS = re.compile(r"[^\s@<>\"(),:;]+@([A-Za-z0-9\u0080-\U0010ffff.-]+)")


class Author(NamedTuple):
    """`domain` in A-labels and lower case, "" exactly where there is a problem."""

    domain: str
    address: str
    problem: str = ""


class _Unreadable(Exception):
    pass


def read(fields: Sequence[Field], head: bytes, *, is_whole: bool = True) -> Author:
    """The author. `head`: the header block the fields were read from; `is_whole`: nothing of it was left out."""
    found = [raw for name, raw in fields if name == b"from"]
    try:
        _check_block(fields, head, is_whole=is_whole)
        if len(found) != 1:
            raise _Unreadable("there is no From field" if not found else f"there are {len(found)} From fields")
        return _of_field(found[0])
    except _Unreadable as problem:
        return Author("", "", str(problem))


def _check_block(fields: Sequence[Field], head: bytes, *, is_whole: bool) -> None:
    if not is_whole:
        raise _Unreadable("the header is longer than what is read of it")
    if b"\x00" in head:
        raise _Unreadable("the header holds a NUL")
    ends = head.count(b"\n")
    if head.count(b"\r") != ends or head.count(b"\r\n") != ends:
        raise _Unreadable("the header holds a line end that is none")
    if has_lookalike(fields):
        raise _Unreadable("a line that some programs take for From")
    if _BLANK_LINE.search(head) is not None:
        raise _Unreadable("a line of blanks alone, where some programs see the end of the header")


def has_lookalike(fields: Sequence[Field]) -> bool:
    """Whether a line that is no From field is one for some programs."""
    return any(
        name not in _USUAL_NAMES and b"from" in raw[:64].lower() and _looks_like_from(raw) for name, raw in fields
    )


def _looks_like_from(raw: bytes) -> bool:
    """`From someone@...` of mailbox files, " From:", "From\\x01:"."""
    if raw[:1] in (b" ", b"\t"):
        return True  # the first line of all: a field's rest, without the field
    name = raw.partition(b":")[0]
    return _NOT_NAME.sub(b"", name).lower() == b"from" or raw[:5].lower() in (b"from ", b"from\t")


@functools.lru_cache(maxsize=4096)
def _of_field(raw: bytes) -> Author:
    """Raises _Unreadable."""
    usual = _USUAL.match(raw)
    if usual is not None and bool(usual.group(2)) == (b"<" in raw) and b"=?" not in usual.group(1):
        address = usual.group(1).decode("ascii")
        local, _, domain = address.rpartition("@")
        if _is_dotted(local):
            return Author(_domain(domain), address)
    if len(raw) > LONGEST:
        raise _Unreadable("From is too long")
    try:
        text = raw.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8")
    except UnicodeDecodeError:
        raise _Unreadable("From holds octets that are no text") from None
    if any(c < " " and c != "\t" for c in text) or "\x7f" in text:
        raise _Unreadable("From holds a control character")
    return _Reader(text).author()


def _is_dotted(local: str) -> bool:
    return not (local.startswith(".") or local.endswith(".") or ".." in local)


def _domain(text: str) -> str:
    """In A-labels. Raises _Unreadable: it cannot be judged."""
    try:
        domain = names.to_ascii(text)
    except ValueError:
        raise _Unreadable("the domain in From is none") from None
    labels = domain.split(".")
    if len(domain) > 253 or not domain.isascii() or not all(_LABEL.fullmatch(label) for label in labels):
        raise _Unreadable("the domain in From is none")
    if len(labels) < 2 or labels[-1].isdigit():
        raise _Unreadable("the domain in From is no name of the world's DNS")
    return domain


class _Reader:
    """RFC 5322 3.4 by hand: [display-name] "<" addr-spec ">", or addr-spec, with comments and blanks between."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.words: list[str] = []  # before the address, or the address itself where there are no brackets

    def author(self) -> Author:
        self._skip()
        while self.at < len(self.text) and self._next() != "<":
            self._word()
        if self._next() == "<":
            return self._in_brackets()
        if not self.words:
            raise _Unreadable("From holds no address")
        return self._address("".join(self.words))

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _skip(self) -> None:
        """Blanks and comments."""
        while True:
            blanks = _BLANKS.match(self.text, self.at)
            if blanks is not None:
                self.at = blanks.end()
            elif self._next() == "(":
                self._comment()
            else:
                return

    def _comment(self) -> None:
        depth = 0
        while self.at < len(self.text):
            character = self._next()
            self.at += 2 if character == "\\" else 1
            depth += (character == "(") - (character == ")")
            if not depth:
                return
        raise _Unreadable("a comment in From does not end")

    def _word(self) -> None:
        quoted = _QUOTED.match(self.text, self.at)
        atom = quoted or _ATOM.match(self.text, self.at)
        if atom is not None:
            self.at = atom.end()
        elif self._next() in ".@":
            self.at += 1
        else:
            what = {",": "several addresses", ":": "a group", ";": "a group"}.get(self._next(), "what is no address")
            raise _Unreadable(f"From holds {what}")
        self.words.append(atom.group() if atom is not None else self.text[self.at - 1])
        before = self.at
        self._skip()
        if self.at > before and self._next() not in ("", "<"):
            self.words.append(" ")

    def _in_brackets(self) -> Author:
        shown = "".join(self.words)
        self.at += 1
        end = self.text.find(">", self.at)
        if end < 0:
            raise _Unreadable("From holds a < without its >")
        author = self._address(self.text[self.at : end].strip(" \t"))
        self.at = end + 1
        self._skip()
        if self.at < len(self.text):
            more = "several addresses" if self._next() == "," else "something behind its address"
            raise _Unreadable(f"From holds {more}")
        unquoted = _QUOTED.sub("", shown)
        for other in _TEXT_ADDRESS.finditer(unquoted):
            if other.group(1).lower() != author.address.rpartition("@")[2].lower():
                raise _Unreadable("From holds an address of another domain where the name stands")
        if "@" in _TEXT_ADDRESS.sub("", unquoted):
            raise _Unreadable("From holds an @ where the name stands")
        return author

    def _address(self, text: str) -> Author:
        """addr-spec without comments: what stands inside it is read differently by too many."""
        if text.startswith("@") or not text:
            raise _Unreadable("From holds a source route" if text else "From holds no address")
        local, at, domain = text.rpartition("@")
        if not at or not local:
            raise _Unreadable("From holds no address")
        if domain.startswith("["):
            raise _Unreadable("From holds an address without a domain")
        if "=?" in text:
            raise _Unreadable("From holds an encoded word inside its address")
        quoted = _QUOTED.fullmatch(local)
        is_plain = _is_dotted(local) and all(_ATOM.fullmatch(part) for part in local.split("."))
        if not is_plain and (quoted is None or "@" in quoted.group(1)):
            raise _Unreadable("From holds what is no address")
        return Author(_domain(domain), text)
