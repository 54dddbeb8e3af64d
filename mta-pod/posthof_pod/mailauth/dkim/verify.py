"""What a message's DKIM signatures are worth. Sources: RFC 6376 section 6, RFC 8301, RFC 8463, RFC 8601 2.7.1.

Rules of this file
- One Signature for each field, in the order of the message; never an exception for what a message or DNS says.
- A body hash is compared before DNS is asked: a broken body costs nobody a query.
- More than SIGNATURES fields are not looked at: each one costs a query and an RSA operation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from posthof_pod.mailauth.canon import (
    Body,
    BodyHash,
    BodyHashes,
    BodyWish,
    Field,
    HeldBody,
    canonical,
    hashes_of,
    select,
)
from posthof_pod.mailauth.dkim import signature
from posthof_pod.mailauth.dkim.keys import PublicKey, public_key
from posthof_pod.mailauth.dns import Lookup, LookupFailed
from posthof_pod.mailauth.tags import BadTags, encoded

Result = Literal["pass", "fail", "neutral", "policy", "permerror", "temperror"]

NAME = b"dkim-signature"
SIGNATURES = 12
_AMS = b"arc-message-signature"


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature, judged. `identity` is "local@domain", often "@domain"."""

    domain: str
    selector: str
    algorithm: str
    identity: str
    result: Result
    reason: str  # "" for a pass that needs no words
    body_length: int | None = None  # l=: so many octets of the body are covered; None: all
    uncovered: int = 0  # octets of the body behind l=, which anybody may have added
    bits: int = 0  # of the key
    is_test: bool = False  # the key record says t=y
    signed: int | None = None  # t=, unix seconds
    headers: tuple[bytes, ...] = ()  # h=
    mark: str = ""  # the first characters of b=, to tell two apart (RFC 8601 2.7.1 header.b, RFC 6008)


def wishes(headers: Iterable[Field]) -> tuple[BodyWish, ...]:
    """The body hashes that a message's signatures need: for a BodyHashes fed while the body comes."""
    found: dict[BodyWish, None] = {}
    most = {NAME: SIGNATURES, _AMS: SIGNATURES}
    for name, raw in headers:
        if not most.get(name):
            continue
        most[name] -= 1
        try:
            read = signature.read(raw) if name == NAME else signature.read_ams(raw)
        except BadTags:
            continue  # verify says so
        found[read.wish] = None
    return tuple(found)


async def verify(headers: Sequence[Field], body: Body, lookup: Lookup, now: float) -> tuple[Signature, ...]:
    """Judge all signatures. `headers` as canon.fields gives them; `body` what stands behind the empty line, or the
    BodyHashes that were fed with it after asking `wishes`."""
    raws = [raw for name, raw in headers if name == NAME]
    if not raws:
        return ()
    bodies = hashes_of(body)
    found: list[Signature] = []
    for n, raw in enumerate(raws):
        if n >= SIGNATURES:
            found.append(_unread("policy", "too many signatures: not looked at"))
            continue
        try:
            tags = signature.read(raw)
        except BadTags as error:
            found.append(_unread("permerror", str(error)))
            continue
        result, reason, seen, key = await judge(tags, headers, raw, bodies=bodies, lookup=lookup, now=now)
        found.append(_signature(tags, result, reason, seen, key))
    return tuple(found)


def _unread(result: Result, reason: str) -> Signature:
    return Signature(domain="", selector="", algorithm="", identity="", result=result, reason=reason)


def _signature(
    tags: signature.Tags, result: Result, reason: str, seen: BodyHash | None, key: PublicKey | None
) -> Signature:
    limit = tags.wish.limit
    return Signature(
        domain=tags.domain,
        selector=tags.selector,
        algorithm=tags.algorithm,
        identity=tags.identity,
        result=result,
        reason=reason,
        body_length=limit if limit >= 0 else None,
        uncovered=seen.length - seen.hashed if seen is not None else 0,
        bits=key.bits if key is not None else 0,
        is_test=key.is_test if key is not None else False,
        signed=tags.signed,
        headers=tags.headers,
        mark=encoded(tags.signature[:6]).decode("ascii"),
    )


Judged = tuple[Result, str, BodyHash | None, PublicKey | None]


async def judge(
    tags: signature.Tags,
    headers: Sequence[Field],
    raw: bytes,
    *,
    bodies: BodyHashes | HeldBody,
    lookup: Lookup,
    now: float,
) -> Judged:
    """One signature that could be read: its result, why, the body's hash and the key, as far as it came."""
    if tags.algorithm == "rsa-sha1":
        return "policy", "SHA-1 is not believed (RFC 8301)", None, None
    if tags.expires is not None and tags.expires < now:
        return "policy", "the signature has expired", None, None
    try:
        seen = bodies.get(tags.wish)
    except KeyError:
        return "policy", "too many different body hashes: not made", None, None
    if tags.wish.limit > seen.length:
        return "permerror", "l= is more than the body has", seen, None
    if seen.digest != tags.body_hash:
        return "fail", "body hash did not verify", seen, None
    try:
        records = await lookup.txt(f"{tags.selector}._domainkey.{tags.domain}")
    except LookupFailed as error:
        return "temperror", f"no answer about the key: {error}", seen, None
    key = _key_of(records)
    if isinstance(key, str):
        return "permerror", key, seen, None
    unfit = _unfit(tags, key)
    if unfit:
        return "permerror", unfit, seen, key
    if key.weakness:
        return "policy", key.weakness, seen, key
    if not key.check(tags.signature, digest(tags, headers, raw)):
        return "fail", "signature did not verify", seen, key
    return "pass", "", seen, key


def _key_of(records: tuple[bytes, ...]) -> PublicKey | str:
    """The first record that holds a key; several are not foreseen (RFC 6376 3.6.2.2)."""
    why = "no key for signature"
    for record in records[:4]:
        key = public_key(record)
        if not isinstance(key, str):
            return key
        why = key
    return why


def _unfit(tags: signature.Tags, key: PublicKey) -> str:
    """Why a key that could be read is none for this signature; "" where it is one."""
    if key.is_revoked:
        return "the key was revoked"
    if not tags.algorithm.startswith(key.algorithm + "-"):
        return f"the key is for {key.algorithm}"
    if key.is_strict and tags.identity.rpartition("@")[2] != tags.domain:
        return "the key is not for subdomains"
    return ""


def digest(tags: signature.Tags, headers: Sequence[Field], raw: bytes) -> bytes:
    """SHA-256 of what the signature covers: the named fields, then its own without b= (RFC 6376 3.7)."""
    if NAME in tags.headers:  # other signatures may be covered, a signature never covers itself
        headers = [field for field in headers if field[1] is not raw]
    covered = canonical(select(headers, tags.headers), is_relaxed=tags.has_relaxed_header)
    own = signature.without_b(raw)
    if tags.has_relaxed_header:
        name = own[: own.find(b":")].strip(b" \t").lower()
        own = canonical([(name, own)], is_relaxed=True).removesuffix(b"\r\n")
    return hashlib.sha256(covered + own).digest()
