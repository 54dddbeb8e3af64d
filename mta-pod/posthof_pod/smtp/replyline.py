"""What a peer answers: bytes in, replies out. No socket, no clock.

Rules
- A reply is one line, or several of which all but the last have "-" behind the code (RFC 5321 4.2.1). The text may
  be missing, a bare LF ends a line too: peers do both. A code outside 200..599 or lines whose codes differ in their
  first digit are no reply.
- Everything is bounded: a peer that never ends a line or a reply is broken, not patient.
- The enhanced code is believed only as far as its class agrees with the reply code (RFC 2034 section 3).
"""

from __future__ import annotations

from typing import NamedTuple

MAX_LINE = 8192  # bytes; RFC 5321 4.5.3.1.5 says 512
MAX_REPLY = 65536  # bytes of all lines of one reply
MAX_TEXT = 2048  # characters of a reply that are kept for people

_CODES = {b"%d" % code: code for code in range(200, 600)}
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), " ")


class Broken(Exception):
    """What the peer said is not SMTP. The text says what it said, for the log."""


class PeerReply(NamedTuple):
    """One reply: its code and the text of its lines, without the codes, joined by LF."""

    code: int
    text: bytes

    @property
    def enhanced(self) -> str:
        """The enhanced code (RFC 3463); `<class>.0.0` where the peer gave none or one of another class."""
        return enhanced_code(self.code, self.text)

    def __str__(self) -> str:
        """Code and full text on one line, safe to log: lines joined by a space, bounded, no control characters."""
        text = self.text
        if len(text) <= MAX_TEXT:
            said = text.decode("utf-8", "replace")
            if said.isprintable():
                return f"{self.code} {said}"
        return f"{self.code} {_readable(text)}"


_new = tuple.__new__


def enhanced_code(code: int, text: bytes) -> str:
    """RFC 3463 `class.subject.detail` at the beginning of a reply's text, else one made up from the reply code."""
    if text[:6] == b"2.0.0 " and code < 300:
        return "2.0.0"  # what nearly every message gets
    word = text[:9].split(None, 1)[0] if text[1:2] == b"." else b""
    parts = word.split(b".")
    if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit() and parts[0] == b"%d" % (code // 100):
        return word.decode("ascii")
    return f"{code // 100}.0.0"


def _readable(text: bytes) -> str:
    said = text[:MAX_TEXT].decode("utf-8", "replace")
    if not said.isprintable():
        said = said.translate(_CONTROL)
    return said + "..." if text[MAX_TEXT:] else said


_KNOWN: dict[bytes, PeerReply] = {}  # lines heard lately: a peer says the same to nearly every MAIL, RCPT and DATA
_MOST_KNOWN = 512


class ReplyReader:
    """Gathers bytes until whole replies stand there."""

    __slots__ = ("_lines", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""  # the beginning of a line
        self._lines: list[bytes] = []  # the lines of a reply whose last line is still to come
        self._size = 0

    @property
    def is_inside(self) -> bool:
        """A line or a reply has begun and not ended."""
        return bool(self._rest or self._lines)

    def feed(self, data: bytes) -> list[PeerReply]:
        """All replies that end in these bytes, in order. Raises Broken; nothing said afterwards can be trusted."""
        replies = self.whole(data)
        return self._gather(data) if replies is None else replies

    def whole(self, data: bytes) -> list[PeerReply] | None:
        """As `feed`, for whole replies of one line each, ended by CRLF: the usual case at a fifth of the cost.

        None, and nothing is taken: it is another case.
        """
        if self._rest or self._lines or len(data) > MAX_LINE:
            return None
        lines = data.split(b"\r\n")
        if lines.pop() or data.count(b"\n") != len(lines):
            return None
        replies = []
        for line in lines:
            reply = _KNOWN.get(line)
            if reply is None:
                code = _CODES.get(line[:3])
                if code is None or line[3:4] != b" ":
                    return None
                reply = _new(PeerReply, (code, line[4:]))
                if len(_KNOWN) >= _MOST_KNOWN:
                    _KNOWN.clear()
                if len(line) <= 128:
                    _KNOWN[line] = reply
            replies.append(reply)
        return replies

    def _gather(self, data: bytes) -> list[PeerReply]:
        lines = (self._rest + data).split(b"\n")
        self._rest = rest = lines.pop()
        if len(rest) > MAX_LINE:
            raise Broken(f"a line of over {MAX_LINE} bytes: {_readable(rest[:64])}")
        replies = []
        for line in lines:
            if line[-1:] == b"\r":
                line = line[:-1]
            code = _CODES.get(line[:3])
            if code is None or len(line) > MAX_LINE:
                raise Broken(f"not a reply: {_readable(line[:256])}")
            mark = line[3:4]
            if mark == b"-":
                self._more(line)
            elif mark not in {b" ", b""}:
                raise Broken(f"not a reply: {_readable(line[:256])}")
            elif self._lines:
                replies.append(self._last(code, line))
            else:
                replies.append(PeerReply(code, line[4:]))
        return replies

    def _more(self, line: bytes) -> None:
        self._size += len(line) + 2
        if self._size > MAX_REPLY:
            raise Broken(f"a reply of over {MAX_REPLY} bytes: {_readable(line[:64])}")
        self._lines.append(line)

    def _last(self, code: int, line: bytes) -> PeerReply:
        self._more(line)
        lines, self._lines, self._size = self._lines, [], 0
        if any(other[0] != line[0] for other in lines):
            raise Broken(f"a reply of several codes: {_readable(b' / '.join(lines)[:256])}")
        return PeerReply(code, b"\n".join([other[4:] for other in lines]))
