"""Message content off the wire: where DATA ends, dots, line endings, size, and when to stream.

Owns: RFC 5321 4.1.1.4 (the end of DATA), 4.5.2 (transparency), 2.3.8 (no bare CR or LF); what RFC 3030 chunks hold.

Rules
- Exactly CRLF . CRLF ends DATA, whatever the content is and however the packets are cut. Nothing else is a line end.
- A leading dot goes only after a CRLF (and at the very beginning); the octets are otherwise never touched, unless
  `normalises`: then each bare CR and bare LF becomes CRLF, after the end was looked for in the octets as they came.
- A message that lies whole in one packet costs one find and one look at its line ends; no regular expression.
- Above `threshold` octets the content goes to a sink as it comes; memory holds one packet.
- With `removes_bcc` (submission, RFC 5322 3.6.3) the Bcc fields of the header block are left out of what is kept.
- Once it is too large or refused, the rest is read and dropped, so that the reply finds its place in the dialogue.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import IncrementalNewlineDecoder
from typing import Protocol

from posthof_pod import fields
from posthof_pod.replies import Failure, Reply

END = b"\r\n.\r\n"
_HIDDEN = re.compile(rb"(?:\r(?!\n)|(?<!\r)\n)[!-9;-~]+[ \t]*:")
HEAD_MAX = 64 * 1024  # octets of the header block kept beside streamed content
INTERNAL = Reply(451, "4.3.0", "Something failed here, try again later")
HEAD_TOO_LARGE = Reply(552, "5.3.4", "The header of the message is too large")
BARE_NEWLINE = Reply(550, "5.5.2", "The message holds a CR or LF that is no part of a CRLF (RFC 5321 2.3.8)")


class BodySink(Protocol):
    """Where content above the threshold goes: the spool's blob. Any call may raise replies.Failure."""

    @property
    def pending(self) -> int:
        """Octets taken and not yet written: above PENDING_MAX the dialogue awaits `drain`."""
        ...

    def write(self, data: bytes, /) -> object: ...

    async def drain(self) -> object: ...

    def abort(self) -> object: ...


def has_bare_newline(data: bytes) -> bool:
    """Whether a CR without its LF, or an LF without its CR, stands in `data`."""
    return _saw_bare(_look(IncrementalNewlineDecoder(None, False), data, final=True))


def _look(decoder: IncrementalNewlineDecoder, data: bytes, *, final: bool = False) -> IncrementalNewlineDecoder:
    """One pass in C that notes which line ends occur (0.8 ns an octet; three counts cost four times that)."""
    decoder.decode(data.decode("latin-1"), final)
    return decoder


def _saw_bare(decoder: IncrementalNewlineDecoder) -> bool:
    return decoder.newlines is not None and decoder.newlines != "\r\n"


def dot_line(data: bytes, at: int, end: int) -> int:
    """The first dot in data[at:end] that follows an LF there; -1: no line but the first may begin with one.

    One byte is found some 30 times as fast as two, and most of a content (base64) has no dots: so from dot to dot,
    unless they are many.
    """
    dot = data.find(b".", at, end)
    for _ in range((end - at >> 9) + 2):
        if dot < 0 or (data[dot - 1] == 10 and dot > at):
            return dot
        dot = data.find(b".", dot + 1, end)
    if dot < 0:
        return -1
    line_end = data.find(b"\n.", max(dot - 1, at), end)
    return line_end + 1 if line_end >= 0 else -1


def whole(data: bytes, at: int) -> bytes | None:
    """The content, where data[at:] is one complete DATA stream without a stuffed dot or a bare CR or LF; else None:
    read it in full."""
    if not data.endswith(END) or data[at] == 46 or dot_line(data, at, len(data) - 3) >= 0:
        return None
    body = data[at:-3]
    decoder = IncrementalNewlineDecoder(None, False)
    decoder.decode(body.decode("latin-1"), True)  # as in _look
    return body if decoder.newlines == "\r\n" else None


def without_bcc(content: bytes) -> bytes:
    """The content without the Bcc fields of its header block."""
    end = content.find(b"\r\n\r\n")
    head = b"" if content.startswith(b"\r\n") else content if end < 0 else content[: end + 2]
    kept = fields.without(head, b"bcc")
    return content if len(kept) == len(head) else kept + content[len(head) :]


class Content:
    """What was read of one message: in memory, or in a sink above `threshold`; counted and limited.

    `limit`: octets allowed, 0 = any. `refusal`: why the rest is dropped, None = it is kept.
    """

    __slots__ = (
        "_is_head_whole",
        "_line_ends",
        "_open",
        "_pieces",
        "_threshold",
        "fault",
        "head",
        "limit",
        "refusal",
        "removes_bcc",
        "sink",
        "size",
    )

    def __init__(
        self, limit: int, threshold: int, open_sink: Callable[[], BodySink], *, removes_bcc: bool = False
    ) -> None:
        self.limit = limit
        self.removes_bcc = removes_bcc
        self.size = 0
        self.sink: BodySink | None = None
        self.refusal: Reply | None = None
        self.fault: Exception | None = None  # why the sink broke, for the log
        self.head = b""  # of streamed content only: its first octets, HEAD_MAX at most
        self._threshold = threshold
        self._open = open_sink
        self._pieces: list[bytes] = []
        self._line_ends = IncrementalNewlineDecoder(None, False)
        self._is_head_whole = False

    @property
    def has_bare_newline(self) -> bool:
        """Whether what was added so far, taken as all there is, holds a CR or an LF that is no part of a CRLF."""
        return _saw_bare(_look(self._line_ends, b"", final=True))

    @property
    def has_hidden_field(self) -> bool:
        """Whether in the header block, as far as it is kept, a bare CR or LF is followed by what looks like a field:
        who takes it for a line end reads a From there, or results, that nobody here has judged."""
        if not self.has_bare_newline:
            return False
        head = self.head
        if self.sink is None:
            whole = b"".join(self._pieces)
            end = 0 if whole.startswith(b"\r\n") else whole.find(b"\r\n\r\n") + 2
            head = whole if end == 1 else whole[:end]
        return _HIDDEN.search(head) is not None

    def add(self, data: bytes) -> None:
        """Octets of the content, unstuffed, cut anywhere."""
        if not data:
            return
        _look(self._line_ends, data)
        self.size += len(data)
        if self.refusal is not None:
            return
        if self.limit and self.size > self.limit:
            self.refuse(Reply(552, "5.3.4", f"The message exceeds the limit of {self.limit} octets"))
        else:
            self._keep(data)

    def refuse(self, reply: Reply) -> None:
        """From now on the content is dropped; `reply` waits for the end."""
        self.refusal = self.refusal or reply
        self.abort()

    def abort(self) -> None:
        """Lets go of what was kept."""
        self._pieces.clear()
        sink, self.sink = self.sink, None
        if sink is not None:
            sink.abort()

    def take(self) -> bytes | BodySink:
        """The whole content; the caller owns the sink from now on."""
        sink, self.sink = self.sink, None
        if sink is not None:
            return sink
        pieces = self._pieces
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not self.removes_bcc:
            return whole
        kept = without_bcc(whole)
        self.size -= len(whole) - len(kept)
        return kept

    def _keep(self, data: bytes) -> None:
        try:
            if self.sink is not None:
                self._note_head(data)
                self.sink.write(data)
                return
            self._pieces.append(data)
            if self.size > self._threshold:
                self._spill()
        except Failure as failure:
            self.refuse(failure.reply)
        except Exception as error:  # a sink that breaks loses this message, not the session
            self.fault = error
            self.refuse(INTERNAL)

    def _spill(self) -> None:
        """The content is larger than memory should hold: open the sink and move what is here."""
        if self.removes_bcc:
            whole = b"".join(self._pieces)
            if not whole.startswith(b"\r\n") and b"\r\n\r\n" not in whole:
                self.refuse(HEAD_TOO_LARGE)
                return
            kept = without_bcc(whole)
            self.size -= len(whole) - len(kept)
            self._pieces = [kept]
        sink = self.sink = self._open()
        for piece in self._pieces:
            self._note_head(piece)
            sink.write(piece)
        self._pieces.clear()

    def _note_head(self, data: bytes) -> None:
        if self._is_head_whole:
            return
        before = len(self.head)
        self.head += data[: HEAD_MAX - before]
        blank = self.head.find(b"\r\n\r\n", max(0, before - 3))
        if self.head.startswith(b"\r\n"):
            self.head = b""
            self._is_head_whole = True
        elif blank >= 0:
            self.head = self.head[: blank + 2]
            self._is_head_whole = True
        else:
            self._is_head_whole = len(self.head) >= HEAD_MAX


class DotReader(Content):
    """Content as DATA brings it: dots unstuffed, ended by CRLF . CRLF (RFC 5321 4.5.2)."""

    __slots__ = ("_is_begun", "_normalises", "_tail", "raw")

    def __init__(
        self,
        limit: int,
        threshold: int,
        open_sink: Callable[[], BodySink],
        *,
        normalises: bool = False,
        removes_bcc: bool = False,
    ) -> None:
        super().__init__(limit, threshold, open_sink, removes_bcc=removes_bcc)
        self.raw = 0  # octets read from the wire
        self._tail = b"\r\n"  # what may be the beginning of the end; the CRLF of the DATA line stands first
        self._is_begun = False
        self._normalises = normalises

    def feed(self, data: bytes, at: int) -> int:
        """Reads data[at:]; returns the index behind the end of DATA, or -1: all of it was content so far."""
        tail = self._tail
        text = tail + (data[at:] if at else data)
        dot = dot_line(text, 0, len(text))
        if dot >= 0:
            dot = text.find(b"\r\n.", max(dot - 2, 0))  # a stuffed dot or the end
        if dot >= 0:
            end = dot if text.startswith(END, dot) else text.find(END, dot)
            if end >= 0:
                self.raw += end + 5 - len(tail)
                self._take_segment(text[: end + 2], has_dots=dot < end)
                return at + end + 5 - len(tail)
        held = _held_back(text)
        self.raw += len(text) - len(tail)
        self._tail = text[len(text) - held :]
        if held < len(text):
            self._take_segment(text[: len(text) - held] if held else text, has_dots=dot >= 0)
        return -1

    def _take_segment(self, segment: bytes, *, has_dots: bool) -> None:
        """`segment` begins right after what was taken before, and cuts no CRLF nor dot from its CRLF."""
        if has_dots:
            segment = segment.replace(b"\r\n.", b"\r\n")
        if not self._is_begun:
            self._is_begun = True
            segment = segment[2:]
        if self._normalises and has_bare_newline(segment):
            segment = segment.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        self.add(segment)
        if self.refusal is None and self.has_bare_newline:  # exact here: a segment cuts no CRLF
            self.refuse(BARE_NEWLINE)


def _held_back(text: bytes) -> int:
    """How many of the last octets may yet turn out to be a part of CRLF . CRLF."""
    if text.endswith(b"\r\n.\r"):
        return 4
    if text.endswith(b"\r\n."):
        return 3
    if text.endswith(b"\r\n"):
        return 2
    return 1 if text.endswith(b"\r") else 0
