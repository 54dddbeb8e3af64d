"""One line of the log: its fields, as a value, and the two ways to write it.

Rules of this file
- A field has one name and one meaning in every event, so that people can search by it.
- A field that says nothing (its default) is left out of the JSON.
- Addresses and replies come from strangers: on a terminal nothing unprintable reaches the screen.
"""

from __future__ import annotations

import os

import msgspec

INFO, WARNING, ERROR = "", "warning", "error"


class Line(msgspec.Struct, omit_defaults=True, gc=False):
    """One event. Times are UTC, ISO 8601 with milliseconds; durations are seconds; sizes are bytes."""

    time: str
    event: str
    worker: str = ""
    queue_id: str = ""
    message_id: str = ""
    from_: str | None = msgspec.field(default=None, name="from")  # "" is the null sender, None: no sender is meant
    to: tuple[str, ...] = ()
    client: str = ""  # the peer's address
    client_name: str = ""  # what it said at EHLO
    listener: str = ""
    role: str = ""
    relay: str = ""  # the next hop: "mx.example.org[192.0.2.1]:25"
    tls: str = ""
    dsn: str = ""  # enhanced status code (RFC 3463)
    reply: str = ""  # the full reply: the peer's, or ours where we refused
    delay: float = -1.0  # from `accepted` to this event
    size: int = -1
    rule: str = ""  # the RelayPolicy that decided
    reason: str = ""
    stage: str = ""  # where a refusal happened: connect, helo, mail, rcpt, data
    attempts: int = 0
    due: str = ""  # the next try
    about: str = ""  # another message's queue id: the one a report is about
    name: str = ""  # what a house event is about: a lane, a segment, a site, a listener
    count: int = -1  # how many messages (lines, where lines are lost; connections, where refusals are gathered)
    pid: int = -1
    seconds: float = -1.0
    detail: str = ""
    original: tuple[str, ...] = ()  # what RCPT TO named, where an alias or a redirect changed it
    auth: str = ""  # what sender authentication found: "spf=pass dkim=pass dmarc=pass"
    level: str = INFO


class Accepted(msgspec.Struct, omit_defaults=True, gc=False):
    """The Line of a message that came in: the fields it has, in Line's order, at half the cost."""

    time: str
    event: str
    worker: str = ""
    queue_id: str = ""
    message_id: str = ""
    from_: str | None = msgspec.field(default=None, name="from")
    to: tuple[str, ...] = ()
    client: str = ""
    client_name: str = ""
    listener: str = ""
    role: str = ""
    tls: str = ""
    size: int = -1
    rule: str = ""
    original: tuple[str, ...] = ()
    auth: str = ""


class Passed(msgspec.Struct, omit_defaults=True, gc=False):
    """The Line of recipients who have their message, in the same way."""

    time: str
    event: str
    worker: str = ""
    queue_id: str = ""
    message_id: str = ""
    from_: str | None = msgspec.field(default=None, name="from")
    to: tuple[str, ...] = ()
    relay: str = ""
    tls: str = ""
    dsn: str = ""
    reply: str = ""
    delay: float = -1.0
    size: int = -1
    rule: str = ""
    attempts: int = 0


_encode = msgspec.json.Encoder()
_decode = msgspec.json.Decoder(Line)


def encode_onto(line: Line | Accepted | Passed, lines: bytearray) -> None:
    """Append the line and its newline to `lines`. Text that is not Unicode (surrogates) is mended, never raised."""
    begin = len(lines)
    try:
        _encode.encode_into(line, lines, -1)
    except UnicodeEncodeError:
        del lines[begin:]
        _encode.encode_into(_mended(line), lines, -1)
    lines += b"\n"


def decode(line: bytes) -> Line:
    """The Line that `encode_onto` wrote. Raises msgspec.DecodeError."""
    return _decode.decode(line)


def _mended(line: Line | Accepted | Passed) -> Line | Accepted | Passed:
    values = []
    for name in line.__struct_fields__:
        value = getattr(line, name)
        if isinstance(value, str):
            value = _unicode(value)
        elif isinstance(value, tuple):
            value = tuple(_unicode(one) for one in value)
        values.append(value)
    return type(line)(*values)


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace" if text.isprintable() else "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """The text with everything a terminal could act upon (control characters, escapes, bidi) written out."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else " " if c in "\r\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def size_text(size: float) -> str:
    """3170893824 -> "3.0 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def span_text(seconds: float) -> str:
    """A duration as people say it, with two units at most: 0.042 -> "42 ms", 5400 -> "1h30m"."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours}h"


COLOURS = {WARNING: "\x1b[33m", ERROR: "\x1b[31m"}


def readable(line: Line, *, colour: bool = False, date: bool = False) -> str:
    """The line for people: time, event, id, then what is known, in the order one would tell it."""
    told = [line.time[0 if date else 11 : 23].replace("T", " "), f"{line.event:<15}", *_who(line), *_how(line)]
    text = printable(" ".join(part for part in told if part))
    tint = COLOURS.get(line.level, "") if colour else ""
    text = f"{tint}{text}\x1b[0m" if tint else text
    if line.event == "internal_error":
        text += "\n" + "\n".join("    " + printable(part) for part in line.detail.splitlines())
    return text


def _who(line: Line) -> list[str]:
    parts = [line.queue_id, line.name]
    if line.from_ is not None:
        parts.append(f"<{line.from_}>")
    if line.to:
        more = f" and {len(line.to) - 3} more" if len(line.to) > 3 else ""
        parts.append("-> " + ", ".join(f"<{address}>" for address in line.to[:3]) + more)
    if line.original:
        parts.append(f"(for {', '.join(f'<{address}>' for address in line.original[:3])})")
    if line.client:
        parts.append(f"from {line.client_name}[{line.client}]" if line.client_name else f"from [{line.client}]")
    if line.relay:
        parts.append(f"via {line.relay}")
    return parts


def _how(line: Line) -> list[str]:
    parts = [f"at {line.stage}" if line.stage else "", line.tls, f"rule {line.rule}" if line.rule else ""]
    parts += [line.reason, f"about {line.about}" if line.about else ""]
    parts += [f"{line.count}" if line.count >= 0 else "", f"pid {line.pid}" if line.pid >= 0 else ""]
    parts += [size_text(line.size) if line.size >= 0 else ""]
    parts.append(f"after {span_text(line.delay)}" if line.delay >= 0 else "")
    parts.append(f"in {span_text(line.seconds)}" if line.seconds >= 0 else "")
    parts.append(f"try {line.attempts}" if line.attempts else "")
    parts.append(f"next {line.due[11:19]}" if line.due else "")
    parts.append(f": {line.reply}" if line.reply else "")
    if line.detail and line.event != "internal_error":
        parts.append(f": {line.detail}")
    return parts


def wants_colour(fd: int) -> bool:
    """True where `fd` is a terminal and nobody asked for no colours (https://no-color.org)."""
    return os.isatty(fd) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
