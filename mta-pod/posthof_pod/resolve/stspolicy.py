"""MTA-STS: the record that announces a policy, the policy, and whether an MX host is in it (RFC 8461). Pure.

Rules
- A record or policy that breaks the grammar is none: it is never half obeyed.
- Unknown fields are passed over (section 3.2), of a field given twice the first counts, `mx` excepted.
- `mx: *.example.org` stands for exactly one label (section 4.1), as in a certificate.
- A policy counts for `max_age` from when it was fetched, at most for a year.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

import msgspec

LARGEST = 65536  # bytes of a policy
LONGEST = 31_557_600  # seconds: a year (section 3.2)
SHORTEST = 300  # seconds
MOST_MX = 200  # patterns
_RECORD = re.compile(r"v=STSv1[ \t]*;(.*)", re.DOTALL)
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})[ \t]*=[ \t]*([\x21-\x3a\x3c\x3e-\x7e]+)")
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Mode(enum.StrEnum):
    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


class Policy(msgspec.Struct, frozen=True):
    """A policy as it was fetched. `mx` is lower case, without final dots."""

    domain: str
    id: str  # of the record that announced it
    mode: Mode
    mx: tuple[str, ...]
    max_age: int
    fetched: float  # unix seconds

    @property
    def until(self) -> float:
        """Until when it counts; a short age counts as five minutes, or its host would be asked for every message."""
        return self.fetched + max(self.max_age, SHORTEST)

    def has(self, host: str) -> bool:
        """Whether mail for the domain may go to this MX host."""
        return is_named(host, self.mx)

    def lines(self) -> tuple[str, ...]:
        """The policy as a report quotes it (RFC 8460 4.2: policy-string)."""
        head = ("version: STSv1", f"mode: {self.mode}")
        return (*head, *(f"mx: {one}" for one in self.mx), f"max_age: {self.max_age}")


def is_named(host: str, patterns: Sequence[str]) -> bool:
    """Whether one of the names, lower case, is the host's; `*.` stands for exactly one label (RFC 9525 6.3)."""
    host = host.rstrip(".").lower()
    parent = host.partition(".")[2]
    return any(host == one or (one.startswith("*.") and parent != "" and parent == one[2:]) for one in patterns)


class BadPolicy(ValueError):
    """What was fetched is no policy. The text says why."""


def record_name(domain: str) -> str:
    return f"_mta-sts.{domain}"


def policy_host(domain: str) -> str:
    return f"mta-sts.{domain}"


PATH = "/.well-known/mta-sts.txt"


def read_record(texts: Sequence[bytes]) -> str:
    """The id that the TXT records announce; "" where they announce nothing.

    Records that do not begin with v=STSv1 do not count; of those that do there must be exactly one (section 3.1).
    """
    ours = [text for text in texts if text.startswith(b"v=STSv1;") or re.match(rb"v=STSv1[ \t]*;", text)]
    if len(ours) != 1:
        return ""
    try:
        match = _RECORD.fullmatch(ours[0].decode("ascii"))
    except UnicodeDecodeError:
        return ""
    if match is None:
        return ""
    found: dict[str, str] = {}
    fields = [field.strip(" \t") for field in match[1].split(";")]
    if fields and not fields[-1]:
        fields.pop()
    for field in fields:
        pair = _FIELD.fullmatch(field)
        if pair is None:
            return ""
        found.setdefault(pair[1], pair[2])
    announced = found.get("id", "")
    return announced if _ID.fullmatch(announced) else ""


def read_policy(domain: str, announced: str, content: bytes, now: float) -> Policy:
    """The policy in the body of an answer. Raises BadPolicy."""
    if len(content) > LARGEST:
        raise BadPolicy(f"it has more than {LARGEST} bytes")
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        text = content.decode("utf-8", "replace")  # extension fields may be UTF-8; what counts is ASCII
    found: dict[str, str] = {}
    mx: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if not line.strip(" \t"):
            continue
        key, colon, value = line.partition(":")
        if not colon or not _KEY.fullmatch(key):
            raise BadPolicy(f"a line is no field: {line[:60]!r}")
        value = value.strip(" \t")
        if key == "mx":
            mx.append(_pattern(value))
        else:
            found.setdefault(key, value)
    if found.get("version") != "STSv1":
        raise BadPolicy("its version is not STSv1")
    mode = _mode(found.get("mode", ""))
    if not mx and mode is not Mode.NONE:
        raise BadPolicy("it names no mx")
    return Policy(domain, announced, mode, tuple(dict.fromkeys(mx))[:MOST_MX], _age(found.get("max_age", "")), now)


def _mode(value: str) -> Mode:
    try:
        return Mode(value)
    except ValueError:
        raise BadPolicy("its mode is none of enforce, testing, none") from None


def _age(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > 10:
        raise BadPolicy("its max_age is no number of seconds")
    return min(int(value), LONGEST)


def _pattern(value: str) -> str:
    lowered = value.rstrip(".").lower()
    if len(lowered) > 253 or not _NAME.fullmatch(lowered):
        raise BadPolicy(f"an mx is no name: {value[:60]!r}")
    return lowered
