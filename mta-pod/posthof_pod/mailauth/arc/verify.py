"""What a message's ARC chain is worth. Source: RFC 8617 section 5.2.

Rules of this file
- One answer for the whole chain; never an exception for what a message or DNS says.
- The newest message signature must pass; of the older ones it is only told how far back they still do.
- A key that is not to be had proves nothing: the chain counts as failed, and `is_unknown` says that DNS is why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import msgspec

from posthof_pod.mailauth.arc import chain
from posthof_pod.mailauth.canon import Body, BodyHashes, Field, HeldBody, hashes_of, relaxed_field
from posthof_pod.mailauth.dkim import signature
from posthof_pod.mailauth.dkim.keys import public_key
from posthof_pod.mailauth.dkim.verify import judge
from posthof_pod.mailauth.dns import Lookup, LookupFailed
from posthof_pod.mailauth.tags import BadTags


class ArcResult(msgspec.Struct, frozen=True, kw_only=True):
    """The chain, judged."""

    cv: Literal["none", "pass", "fail"]
    instances: int = 0
    oldest_pass: int = 0  # the content is unchanged since this instance (RFC 8617 5.2 step 5); 0: not known
    sealers: tuple[str, ...] = ()  # d= of each seal, the first instance first
    reason: str = ""
    is_ended: bool = False  # a seal says cv=fail: the chain was given up on the way
    is_unknown: bool = False  # no answer about a key: another time may do better


NONE = ArcResult(cv="none")


class _Failed(Exception):
    """The chain ends here."""

    def __init__(self, reason: str, *, is_ended: bool = False, is_unknown: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_ended = is_ended
        self.is_unknown = is_unknown


async def verify_chain(headers: Sequence[Field], body: Body, lookup: Lookup, now: float) -> ArcResult:
    """Judge the chain. Arguments as dkim.verify.verify takes them."""
    if not any(name in chain.NAMES for name, _ in headers):
        return NONE
    try:
        sets = chain.sets(headers)
        seals = [chain.read_seal(one.seal) for one in sets]
    except BadTags as error:
        return ArcResult(cv="fail", reason=str(error))
    sealers = tuple(seal.domain for seal in seals)
    bodies = hashes_of(body)
    try:
        _check_places(seals)
        await _check_message(sets[-1], headers, bodies, lookup, now)
        for n in range(len(sets), 0, -1):
            await _check_seal(sets[:n], seals[n - 1], lookup)
    except _Failed as failed:
        return ArcResult(
            cv="fail",
            instances=len(sets),
            sealers=sealers,
            reason=failed.reason,
            is_ended=failed.is_ended,
            is_unknown=failed.is_unknown,
        )
    oldest = await _oldest(sets, headers, bodies, lookup, now)
    return ArcResult(cv="pass", instances=len(sets), oldest_pass=oldest, sealers=sealers)


def _check_places(seals: Sequence[chain.Seal]) -> None:
    """The first says none, each later one pass; who says fail has ended the chain (5.2 steps 2 and 3)."""
    for n, seal in enumerate(seals, 1):
        if seal.cv == "fail":
            raise _Failed(f"the seal of instance {n} says that the chain had failed before", is_ended=True)
        if seal.cv != ("none" if n == 1 else "pass"):
            raise _Failed(f"cv={seal.cv} in the seal of instance {n}")


async def _check_message(
    one: chain.ArcSet, headers: Sequence[Field], bodies: BodyHashes | HeldBody, lookup: Lookup, now: float
) -> None:
    where = f"the message signature of instance {one.instance}"
    try:
        tags = signature.read_ams(one.message)
    except BadTags as error:
        raise _Failed(f"{where}: {error}") from None
    result, reason, _, _ = await judge(tags, headers, one.message, bodies=bodies, lookup=lookup, now=now)
    if result != "pass":
        raise _Failed(f"{where}: {reason}", is_unknown=result == "temperror")


async def _check_seal(sets: Sequence[chain.ArcSet], seal: chain.Seal, lookup: Lookup) -> None:
    where = f"the seal of instance {len(sets)}"
    if seal.algorithm == "rsa-sha1":
        raise _Failed(f"{where}: SHA-1 is not believed (RFC 8301)")
    try:
        records = await lookup.txt(f"{seal.selector}._domainkey.{seal.domain}")
    except LookupFailed as error:
        raise _Failed(f"{where}: no answer about the key: {error}", is_unknown=True) from None
    if not records:
        raise _Failed(f"{where}: no key for signature")
    key = public_key(records[0])
    if isinstance(key, str):
        raise _Failed(f"{where}: {key}")
    if key.is_revoked or key.weakness or not seal.algorithm.startswith(key.algorithm + "-"):
        raise _Failed(f"{where}: {key.weakness or 'the key is revoked or of another kind'}")
    if not key.check(seal.signature, hashlib.sha256(sealed_text(sets)).digest()):
        raise _Failed(f"{where}: signature did not verify")


def sealed_text(sets: Sequence[chain.ArcSet]) -> bytes:
    """What the last set's seal covers: all sets in order, each as results, message signature, seal; of the last seal
    all but the value of b= (RFC 8617 5.1.1)."""
    parts: list[bytes] = []
    for one in sets[:-1]:
        parts += [_relaxed(one.results), _relaxed(one.message), _relaxed(one.seal)]
    last = sets[-1]
    parts += [_relaxed(last.results), _relaxed(last.message)]
    return b"".join(parts) + _relaxed(signature.without_b(last.seal)).removesuffix(b"\r\n")


def _relaxed(raw: bytes) -> bytes:
    return relaxed_field(raw[: raw.find(b":")].strip(b" \t").lower(), raw)


async def _oldest(
    sets: Sequence[chain.ArcSet], headers: Sequence[Field], bodies: BodyHashes | HeldBody, lookup: Lookup, now: float
) -> int:
    """How far back the message signatures pass without a gap."""
    oldest = sets[-1].instance
    for one in reversed(sets[:-1]):
        try:
            await _check_message(one, headers, bodies, lookup, now)
        except _Failed:
            break
        oldest = one.instance
    return oldest
