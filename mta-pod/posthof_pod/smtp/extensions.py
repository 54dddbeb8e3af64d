"""What a peer offers at EHLO or LHLO, and how a content may travel there. Pure.

Sources: RFC 5321 4.1.1.1 (the reply), RFC 1870 SIZE, RFC 2920 PIPELINING, RFC 3030 CHUNKING and BINARYMIME, RFC 3461
DSN, RFC 4954 AUTH, RFC 6152 8BITMIME, RFC 6531 SMTPUTF8, RFC 9422 LIMITS.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from posthof_pod.model import Body
from posthof_pod.smtp.replyline import PeerReply


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a peer offers. The default is a peer that knows HELO only."""

    name: str = ""  # what the peer calls itself
    pipelining: bool = False
    eightbit: bool = False
    smtputf8: bool = False
    dsn: bool = False
    chunking: bool = False
    binary: bool = False
    enhanced: bool = False
    starttls: bool = False
    requiretls: bool = False
    has_size: bool = False
    size: int = 0  # the largest message in bytes; 0: none named
    mechanisms: frozenset[str] = frozenset()  # AUTH, upper case
    rcpt_max: int = 0  # LIMITS, 0: none named
    mail_max: int = 0
    rcpt_domain_max: int = 0


HELO_ONLY = Extensions()

_FLAGS = {
    "PIPELINING": "pipelining",
    "8BITMIME": "eightbit",
    "SMTPUTF8": "smtputf8",
    "DSN": "dsn",
    "CHUNKING": "chunking",
    "BINARYMIME": "binary",
    "ENHANCEDSTATUSCODES": "enhanced",
    "STARTTLS": "starttls",
    "REQUIRETLS": "requiretls",
}
_LIMITS = {"MAILMAX": "mail_max", "RCPTMAX": "rcpt_max", "RCPTDOMAINMAX": "rcpt_domain_max"}


def parse_extensions(reply: PeerReply) -> Extensions:
    """The offer in a positive reply to EHLO or LHLO. Lines that make no sense are passed over: they offer nothing."""
    first, *lines = reply.text.decode("utf-8", "replace").split("\n")
    found: dict[str, object] = {"name": first.partition(" ")[0]}
    mechanisms: set[str] = set()
    for line in lines:
        words = line.upper().replace("AUTH=", "AUTH ", 1).split()
        if not words:
            continue
        keyword, arguments = words[0], words[1:]
        if keyword in _FLAGS:
            found[_FLAGS[keyword]] = True
        elif keyword == "SIZE":
            found["has_size"] = True
            found["size"] = _number(arguments[0]) if arguments else 0
        elif keyword == "AUTH":
            mechanisms.update(arguments)
        elif keyword == "LIMITS":
            found.update(_limits(arguments))
    return Extensions(**found, mechanisms=frozenset(mechanisms))  # type: ignore[arg-type]  # names from the tables above


def _number(word: str) -> int:
    return int(word) if word.isdecimal() and word.isascii() and len(word) < 20 else 0


def _limits(arguments: list[str]) -> dict[str, object]:
    pairs = (word.partition("=") for word in arguments)
    return {_LIMITS[name]: _number(value) for name, _, value in pairs if name in _LIMITS}


class Need(enum.IntEnum):
    """What a content must become before this peer may have it."""

    NOTHING = 0
    LINES = 1  # no NUL, no bare CR or LF; 8-bit text may stay
    SEVENBIT = 2  # as LINES, and no byte above 127


class Carriage(NamedTuple):
    """How a content travels."""

    by_chunks: bool  # BDAT, else DATA
    parameter: bytes  # of MAIL: b"", b" BODY=8BITMIME" or b" BODY=BINARYMIME"
    need: Need


_EIGHTBIT, _BINARY = int(Body.EIGHTBIT), int(Body.BINARY)
_AS_IT_IS = {
    (by_chunks, parameter): Carriage(by_chunks, parameter, Need.NOTHING)
    for by_chunks in (False, True)
    for parameter in (b"", b" BODY=8BITMIME", b" BODY=BINARYMIME")
}


def carriage(offer: Extensions, body: int, *, has_binary: bool, is_ascii: bool) -> Carriage:
    """How content of this kind travels to this peer.

    A content with bare CR or LF that was not declared BINARYMIME may go by BDAT to a peer that lacks BINARYMIME: byte
    for byte, as it came. A declared one may not (RFC 3030 section 3), and by DATA neither ever goes.
    """
    if has_binary or body == _BINARY:
        if offer.chunking and offer.binary:
            return _AS_IT_IS[True, b" BODY=BINARYMIME"]
        if not offer.chunking or body == _BINARY:
            return Carriage(offer.chunking, b"", Need.LINES if offer.eightbit else Need.SEVENBIT)
    if offer.eightbit:
        is_eightbit = not is_ascii or body == _EIGHTBIT
        return _AS_IT_IS[offer.chunking, b" BODY=8BITMIME" if is_eightbit else b""]
    return _AS_IT_IS[offer.chunking, b""] if is_ascii else Carriage(offer.chunking, b"", Need.SEVENBIT)
