"""Replies to peers, and the only two failures there are.

A reply is what the peer is told: generic. The reason in a failure is what the log is told: exact. The text of an
exception from a library never reaches a peer.
Sources: RFC 5321 4.2 (codes), RFC 3463 and RFC 5248 (enhanced codes), RFC 7504, RFC 7505.
"""

from __future__ import annotations

from typing import NamedTuple


class Reply(NamedTuple):
    """One SMTP reply. `text` may hold newlines: it becomes a multi-line reply."""

    code: int
    status: str  # enhanced code "2.1.0", or "" where the standard wants none (greeting, EHLO, 354)
    text: str

    def encode(self) -> bytes:
        """The bytes for the wire, every line with the enhanced code (RFC 2034 section 4)."""
        status = self.status + " " if self.status else ""
        lines = self.text.split("\n")
        last = len(lines) - 1
        return "".join(
            f"{self.code}{' ' if n == last else '-'}{status}{line}\r\n" for n, line in enumerate(lines)
        ).encode("utf-8", "replace")

    @property
    def is_positive(self) -> bool:
        return self.code < 400

    @property
    def is_temporary(self) -> bool:
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        return self.code >= 500

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.text}" if self.status else f"{self.code} {self.text}"


class Failure(Exception):
    """What could not be done. `reply` is for the peer, `reason` (exact, for people who run the house) for the log."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(f"{reason} ({reply})")
        self.reply = reply
        self.reason = reason


class Temporary(Failure):
    """It may work later: 4xx for the peer, a retry for the queue."""


class Permanent(Failure):
    """It will not work: 5xx for the peer, a bounce for the queue."""
