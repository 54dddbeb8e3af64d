"""8-bit and binary content made fit for a peer that takes less. Pure: bytes in, bytes out.

Rules
- What is fit passes as the same object. Only the parts that are not fit are encoded, and every part decodes to
  exactly the bytes it decoded to before (line ends included).
- The walk follows MIME (RFC 2045, 2046): multiparts are split at their boundary, message/rfc822 is converted inside,
  and neither is ever encoded as a whole (RFC 2045 6.4). Text becomes quoted-printable, or base64 where over a quarter
  of it is not ASCII; other types and everything with NUL or a bare CR or LF become base64. The fields of a
  delivery-status and its like only get CRLFs.
- Header fields keep their text: raw 8-bit bytes in a header stay (nobody knows their charset), a bare LF there
  becomes CRLF, a NUL or a bare CR there cannot be sent at all.
- A signed content (multipart/signed, a DKIM-Signature) is changed only if the caller says so: its signature is lost.
- Broken MIME is no error: what has no structure is one text. Preamble and epilogue, which no reader shows, may lose
  their 8-bit bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import NamedTuple

from posthof_pod.smtp.extensions import Need

MAX_DEPTH = 50  # of parts inside parts

_HIGH = bytes(range(128, 256))
_NOT_BASE64 = _HIGH + b"\0"
_QUESTION_MARKS = bytes([0x3F if n == 0 or n > 127 else n for n in range(256)])
_FIELD = re.compile(rb"[!-9;-~]*:|[ \t]|From ")
_IDENTITY = frozenset({"", "7bit", "8bit", "binary"})
_ENCLOSING = frozenset({"message/rfc822", "message/news", "message/external-body"})


class Unconvertible(Exception):
    """This content cannot be made fit. The text says why; 5.6.3 for the sender."""


class Signed(Exception):
    """Conversion would break somebody's signature."""


def convert(content: bytes, need: Need, *, may_break_signatures: bool) -> bytes:
    """The content as `need` wants it. Raises Unconvertible, and Signed unless signatures may break."""
    if is_fit(content, need):
        return content
    return _Conversion(need, may_break_signatures).message(content, 0, is_at_end=True)


def is_fit(content: bytes, need: Need) -> bool:
    """Nothing in it has to change."""
    if not need:
        return True
    if need is Need.SEVENBIT and not content.isascii():
        return False
    return _has_whole_lines(content)


def has_utf8_header(content: bytes) -> bool:
    """A header of the message, of one of its parts or of a message inside holds a byte above 127."""
    return not content.isascii() and any(not header.isascii() for header in _headers(content, "text/plain", 0))


def _has_whole_lines(content: bytes) -> bool:
    ends = content.count(b"\r\n")
    return content.count(b"\n") == ends and content.count(b"\r") == ends and b"\0" not in content


# --- the structure


class _Entity(NamedTuple):
    """A message or a part: its header's fields (each with its line ends), and what follows the blank line."""

    fields: list[bytes]
    body: bytes

    def value(self, name: bytes) -> str:
        """The first field of this (lower-case) name, unfolded; "" where there is none."""
        for field in self.fields:
            if _name(field) == name:
                return field.partition(b":")[2].decode("latin-1").replace("\r", "").replace("\n", "").strip()
        return ""

    def has(self, name: bytes) -> bool:
        return any(_name(field) == name for field in self.fields)

    def kind(self, default: str) -> str:
        """type/subtype in lower case; what makes no sense is text/plain (RFC 2045 5.2)."""
        value = self.value(b"content-type")
        if not value:
            return default
        kind = value.partition(";")[0].strip().lower()
        return kind if kind.count("/") == 1 else "text/plain"

    @property
    def encoding(self) -> str:
        return self.value(b"content-transfer-encoding").partition(";")[0].strip().lower()


def _name(field: bytes) -> bytes:
    return field.partition(b":")[0].rstrip().lower()


def _split(data: bytes) -> _Entity:
    """Header and body. A line that is no field ends the header, also without a blank line."""
    fields: list[bytes] = []
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        line = data[start:end]
        if line in {b"\r\n", b"\n"}:
            start = end
            break
        match = _FIELD.match(line)
        if match is None or (match[0] == b"From " and start):
            break
        if line[0] in b" \t" and fields:
            fields[-1] += line
        else:
            fields.append(line)
        start = end
    return _Entity(fields, data[start:])


def _boundary(content_type: str) -> bytes:
    """The boundary parameter (RFC 2046 5.1.1), b"" where there is none."""
    from email.message import Message  # parameters with quotes, comments and RFC 2231: the library does it

    message = Message()
    message["Content-Type"] = content_type
    return (message.get_boundary() or "").encode("latin-1", "replace")


class _Delimiter(NamedTuple):
    start: int  # where the line break before it begins, which belongs to it
    end: int  # behind its own line break
    is_last: bool


def _delimiters(body: bytes, boundary: bytes) -> list[_Delimiter]:
    """The delimiter lines up to and with the closing one."""
    found: list[_Delimiter] = []
    mark = b"--" + boundary
    at = body.find(mark)
    while at >= 0:
        end = body.find(b"\n", at) + 1 or len(body)
        rest = body[at + len(mark) : end]
        is_last = rest.startswith(b"--")
        if (at == 0 or body[at - 1] == 10) and not (rest[2:] if is_last else rest).strip(b" \t\r\n"):
            start = at - 1 if at else 0
            start -= start > 0 and body[start - 1] == 13
            found.append(_Delimiter(start, end, is_last))
            if is_last:
                break
        at = body.find(mark, at + len(mark))
    return found


def _parts(body: bytes, delimiters: list[_Delimiter]) -> Iterator[bytes]:
    """What stands between the delimiters. Without a closing one the last part goes to the end."""
    for n, delimiter in enumerate(delimiters):
        if delimiter.is_last:
            return
        end = delimiters[n + 1].start if n + 1 < len(delimiters) else len(body)
        yield body[delimiter.end : max(delimiter.end, end)]


def _headers(data: bytes, default: str, depth: int) -> Iterator[bytes]:
    entity = _split(data)
    yield b"".join(entity.fields)
    kind = entity.kind(default)
    if depth > MAX_DEPTH:
        return
    if kind in _ENCLOSING or kind == "message/global":
        yield from _headers(entity.body, "text/plain", depth + 1)
    elif kind.startswith("multipart/") and (boundary := _boundary(entity.value(b"content-type"))):
        inner = "message/rfc822" if kind == "multipart/digest" else "text/plain"
        for part in _parts(entity.body, _delimiters(entity.body, boundary)):
            yield from _headers(part, inner, depth + 1)


# --- the conversion


class _Conversion:
    def __init__(self, need: Need, may_break_signatures: bool) -> None:
        self._need = need
        self._may_break = may_break_signatures

    def message(self, data: bytes, depth: int, *, is_at_end: bool) -> bytes:
        """A whole message. `is_at_end`: no line break of a boundary follows it."""
        entity = _split(data)
        if not self._may_break and entity.has(b"dkim-signature") and not is_fit(entity.body, self._need):
            raise Signed
        return self._entity(data, entity, "text/plain", depth, is_message=True, is_at_end=is_at_end)

    def _entity(
        self, data: bytes, entity: _Entity, default: str, depth: int, *, is_message: bool, is_at_end: bool
    ) -> bytes:
        if depth > MAX_DEPTH:
            raise Unconvertible(f"parts inside parts, over {MAX_DEPTH} deep")
        fields = [_whole_field(field) for field in entity.fields]
        body = entity.body
        if is_fit(body, self._need):
            return data if fields == entity.fields and _has_whole_lines(data) else _joined(fields, body)
        kind = entity.kind(default)
        if kind.startswith("multipart/"):
            made = self._multipart(entity, kind, depth)
            if made is not None:
                return _joined(_with_composite_encoding(fields, entity, made), made)
        elif kind in _ENCLOSING:
            made = self.message(body, depth + 1, is_at_end=is_at_end)
            return _joined(_with_composite_encoding(fields, entity, made), made)
        elif kind == "message/partial":
            raise Unconvertible("a message/partial may not be encoded (RFC 2046 5.2.2)")
        elif kind.startswith("message/") and is_fit(lines := _crlf(body), self._need):
            return _joined(fields, lines)  # a delivery-status and its like: fields, which no encoding may hide
        encoding, made = self._leaf(entity, kind, is_at_end=is_at_end)
        fields = _with_encoding(fields, encoding)
        if is_message:
            fields = _with_version(fields, entity, is_text=not body.isascii())
        return _joined(fields, made)

    def _multipart(self, entity: _Entity, kind: str, depth: int) -> bytes | None:
        """The body with its parts converted; None where it has no boundary to split at."""
        boundary = _boundary(entity.value(b"content-type"))
        body = entity.body
        delimiters = _delimiters(body, boundary) if boundary else []
        if not delimiters:
            return None
        if kind == "multipart/signed" and not self._may_break:
            raise Signed
        if not boundary.isascii():
            raise Unconvertible("the boundary of a multipart is not ASCII")
        default = "message/rfc822" if kind == "multipart/digest" else "text/plain"
        pieces: list[bytes] = []
        if delimiters[0].start:
            pieces.append(self._unseen(body[: delimiters[0].start]) + b"\r\n")
        parts = list(_parts(body, delimiters))
        for n, part in enumerate(parts):
            is_open_end = n == len(parts) - 1 and not delimiters[-1].is_last
            pieces.append(b"--%b\r\n" % boundary)
            if is_fit(part, self._need):
                pieces.append(part)
            else:
                made = self._entity(part, _split(part), default, depth + 1, is_message=False, is_at_end=is_open_end)
                pieces.append(made)
            if not is_open_end:
                pieces.append(b"\r\n")
        if delimiters[-1].is_last:
            pieces.append(b"--%b--" % boundary + (b"\r\n" if body[delimiters[-1].end - 1] == 10 else b""))
            pieces.append(self._unseen(body[delimiters[-1].end :]))
        return b"".join(pieces)

    def _unseen(self, text: bytes) -> bytes:
        """A preamble or an epilogue: it has no encoding, so what is not fit gives way."""
        if is_fit(text, self._need):
            return text
        if self._need is Need.SEVENBIT or b"\0" in text:
            text = text.translate(_QUESTION_MARKS)
        return _crlf(text)

    def _leaf(self, entity: _Entity, kind: str, *, is_at_end: bool) -> tuple[str, bytes]:
        """The encoding and the encoded body of a part without parts."""
        body, encoding = entity.body, entity.encoding
        if encoding == "base64":  # readers pass over what is not of its alphabet (RFC 2045 6.8)
            return encoding, _crlf(body.translate(None, _NOT_BASE64))
        if encoding == "quoted-printable":
            body = binascii.a2b_qp(body)
        elif encoding not in _IDENTITY:
            raise Unconvertible(f"a part with the encoding {encoding[:40]!r} holds bytes that encoding does not have")
        elif kind.startswith(("text/", "message/")) and _has_whole_lines(body):
            escapes = len(body) - len(body.translate(None, _HIGH))
            if escapes * 4 <= len(body):
                return "quoted-printable", _quoted_printable(body, is_at_end=is_at_end)
        made = base64.encodebytes(body).replace(b"\n", b"\r\n")
        return "base64", made if is_at_end else made[:-2]


def _quoted_printable(body: bytes, *, is_at_end: bool) -> bytes:
    """RFC 2045 6.7; the body holds no NUL and no bare CR or LF."""
    made = binascii.b2a_qp(body, quotetabs=False, istext=True)
    if b"\n" not in body:
        made = made.replace(b"\n", b"\r\n")  # without a line to look at it ends soft lines by LF
    if is_at_end and not body.endswith(b"\r\n"):
        made += b"=\r\n"  # the CRLF that DATA must end with is not the content's
    return made


def _crlf(text: bytes) -> bytes:
    """Every line break, also a bare CR or LF, as CRLF."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def _whole_field(field: bytes) -> bytes:
    """A header field with CRLF at its lines' ends. Raises Unconvertible for a NUL or a bare CR in it."""
    if not field.endswith(b"\n"):
        field += b"\r\n"
    if b"\0" in field or field.count(b"\r") != field.count(b"\r\n"):
        raise Unconvertible("a header field holds a NUL or a bare CR")
    return field if field.count(b"\n") == field.count(b"\r\n") else _crlf(field)


def _joined(fields: list[bytes], body: bytes) -> bytes:
    return b"%b\r\n%b" % (b"".join(fields), body)


def _with_encoding(fields: list[bytes], encoding: str) -> list[bytes]:
    """The fields with this one Content-Transfer-Encoding, at the place of the first or at the end."""
    line = b"Content-Transfer-Encoding: %b\r\n" % encoding.encode()
    made: list[bytes] = []
    is_set = False
    for field in fields:
        if _name(field) != b"content-transfer-encoding":
            made.append(field)
        elif not is_set:
            made.append(line)
            is_set = True
    return made if is_set else [*made, line]


def _with_composite_encoding(fields: list[bytes], entity: _Entity, made: bytes) -> list[bytes]:
    """A multipart or a message says what it now holds at most (RFC 2045 6.4)."""
    if entity.encoding not in {"8bit", "binary"}:
        return fields
    return _with_encoding(fields, "7bit" if made.isascii() else "8bit")


def _with_version(fields: list[bytes], entity: _Entity, *, is_text: bool) -> list[bytes]:
    """An encoding needs MIME-Version to count; a text nobody declared has an unknown charset (RFC 1428)."""
    if entity.has(b"mime-version"):
        return fields
    made = [*fields, b"MIME-Version: 1.0\r\n"]
    if is_text and not entity.has(b"content-type"):
        made.append(b"Content-Type: text/plain; charset=unknown-8bit\r\n")
    return made
