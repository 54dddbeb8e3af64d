"""A signature field, read: DKIM-Signature, and ARC-Message-Signature, which differs in three tags.

Rules of this file
- One strict reading (RFC 6376 3.5 and 6.1.1); what is wrong is a BadTags whose text goes into the results.
- What a signature was made over is its own field without the value of b=, wherever blanks stand.
"""

from __future__ import annotations

import re

import msgspec

from posthof_pod.mailauth import tags
from posthof_pod.mailauth.canon import BodyWish
from posthof_pod.mailauth.tags import BadTags

_B = re.compile(rb"((?:^|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*")
_DOMAIN = re.compile(
    rb"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})?)*"
)
_CANONS = {b"simple": False, b"relaxed": True}


class Tags(msgspec.Struct, frozen=True):
    """What a signature field says. Domains in lower case."""

    algorithm: str  # "rsa-sha256", "ed25519-sha256"; "rsa-sha1" is read, never believed
    domain: str
    selector: str
    identity: str  # i=, or "@" + domain
    headers: tuple[bytes, ...]  # h=, lower case
    has_relaxed_header: bool
    wish: BodyWish
    body_hash: bytes
    signature: bytes
    signed: int | None  # t=
    expires: int | None  # x=


def read(raw: bytes) -> Tags:
    """A DKIM-Signature field as it came. BadTags."""
    found = tags.parse(_value(raw))
    for name in (b"v", b"a", b"b", b"bh", b"d", b"h", b"s"):
        if name not in found:
            raise BadTags(f"no {name.decode()}=")
    if found[b"v"] != b"1":
        raise BadTags("v= is not 1")
    domain = host(found[b"d"], "d=")
    headers = tags.names(found[b"h"])
    if b"from" not in headers:
        raise BadTags("h= leaves From unsigned")
    if b"" in headers:
        raise BadTags("h= is no list of fields")
    return _common(found, domain, headers, _identity(found.get(b"i"), domain))


def read_ams(raw: bytes) -> Tags:
    """An ARC-Message-Signature field: i= is its instance, v= must not stand there (RFC 8617 4.1.2).

    Without c= it is read as relaxed/relaxed, as all implementations and the vectors do. BadTags."""
    found = tags.parse(_value(raw))
    for name in (b"i", b"a", b"b", b"bh", b"d", b"h", b"s"):
        if name not in found:
            raise BadTags(f"no {name.decode()}=")
    if b"v" in found:
        raise BadTags("v= has no place there")
    headers = tuple(filter(None, tags.names(found[b"h"])))  # an empty name names nothing, as the vectors want it
    if b"arc-seal" in headers:
        raise BadTags("h= names ARC-Seal")
    domain = host(found[b"d"], "d=")
    return _common({b"c": b"relaxed/relaxed", **found}, domain, headers, "@" + domain)


def _common(found: dict[bytes, bytes], domain: str, headers: tuple[bytes, ...], identity: str) -> Tags:
    if len(headers) > 500:
        raise BadTags("h= names too many fields")
    if b"q" in found and b"dns/txt" not in tags.names(found[b"q"]):
        raise BadTags("q= names no way to the key")
    header, body = canons(found.get(b"c", b"simple/simple"))
    signed = tags.number(found[b"t"], "t=") if b"t" in found else None
    expires = tags.number(found[b"x"], "x=") if b"x" in found else None
    if signed is not None and expires is not None and expires <= signed:
        raise BadTags("x= lies before t=")
    body_hash = tags.decoded(found[b"bh"], "bh=")
    limit = tags.number(found[b"l"], "l=") if b"l" in found else -1
    return Tags(
        algorithm=algorithm(found[b"a"]),
        domain=domain,
        selector=host(found[b"s"], "s="),
        identity=identity,
        headers=headers,
        has_relaxed_header=header,
        wish=BodyWish(body, limit),
        body_hash=body_hash,
        signature=tags.decoded(found[b"b"], "b="),
        signed=signed,
        expires=expires,
    )


def algorithm(value: bytes) -> str:
    name = value.lower()
    if name not in (b"rsa-sha256", b"ed25519-sha256", b"rsa-sha1"):
        raise BadTags(f"a={tags.shown(value)} is not known")
    return name.decode()


def canons(value: bytes) -> tuple[bool, bool]:
    """(header is relaxed, body is relaxed) of c=."""
    header, slash, body = value.lower().partition(b"/")
    if header not in _CANONS or (slash and body not in _CANONS):
        raise BadTags(f"c={tags.shown(value)} is not known")
    return _CANONS[header], _CANONS[body] if slash else False


def host(value: bytes, name: str) -> str:
    """A domain or selector in lower case; U-labels as A-labels (RFC 8616)."""
    if not value.isascii():
        try:
            import idna

            value = idna.encode(value.decode("utf-8"), uts46=True)
        except (UnicodeError, ValueError):
            raise BadTags(f"{name} is no domain") from None
    if not _DOMAIN.fullmatch(value):
        raise BadTags(f"{name} is no domain")
    return value.decode("ascii").lower()


def _identity(value: bytes | None, domain: str) -> str:
    """i=: an address at the domain or below it (RFC 6376 3.5)."""
    if value is None:
        return "@" + domain
    local, at, place = unquoted(value).rpartition(b"@")
    if not at:
        raise BadTags("i= has no @")
    below = host(place, "i=")
    if below != domain and not below.endswith("." + domain):
        raise BadTags("i= is not of the domain of d=")
    return f"{tags.shown(local)}@{below}"


def unquoted(value: bytes) -> bytes:
    """DKIM's quoted-printable (RFC 6376 2.11). BadTags."""
    value = tags.compact(value)
    if b"=" not in value:
        return value
    parts = value.split(b"=")
    found = [parts[0]]
    for part in parts[1:]:
        try:
            found.append(bytes.fromhex(part[:2].decode("ascii")) + part[2:])
        except ValueError:
            raise BadTags("i= is not quoted-printable") from None
        if len(part) < 2:
            raise BadTags("i= is not quoted-printable")
    return b"".join(found)


def _value(raw: bytes) -> bytes:
    return raw[raw.find(b":") + 1 :]


def without_b(raw: bytes) -> bytes:
    """The field with b= empty: all other octets as they are."""
    colon = raw.find(b":") + 1
    return raw[:colon] + _B.sub(rb"\1", raw[colon:], count=1).removesuffix(b"\r\n")
