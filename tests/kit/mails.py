"""Mails told apart by number. Date, From and Message-ID are there, so nobody adds them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBER = re.compile(rb"^Message-ID: <(\d+)@mails\.test>", re.MULTILINE | re.IGNORECASE)


def mail(number: int, body: bytes = b"hello\r\n", *, headers: Iterable[bytes] = ()) -> bytes:
    """A mail in wire form (CRLF), without the final dot."""
    lines = [
        b"Date: Mon, 23 Nov 2026 12:00:00 +0000",
        b"From: sender@client.test",
        b"Subject: mail %d" % number,
        b"Message-ID: <%d@mails.test>" % number,
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def numbers(mails: Iterable[bytes]) -> list[int]:
    """The numbers of mails made here, in the order given; other mails are passed over."""
    return [int(found[1]) for one in mails if (found := _NUMBER.search(one))]


def stored(content: bytes) -> bytes:
    """Content as servers keep it that store lines with LF."""
    return content.replace(b"\r\n", b"\n")
