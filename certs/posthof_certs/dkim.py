"""DKIM keys: made, turned into records, and led through their life. Both sides do it: the operator with DKIMKey
objects, one machine with files below its state folder.

Rules of this file
- Pure but for `make`: times are unix seconds and passed in; what is to be done comes out as Steps.
- A key signs only after its record was seen at every authoritative server; the one before it signs until then, and
  its record stays for `overlap` after that, then says `p=` for as long, then goes.
- A selector is never used twice.
Sources: RFC 6376 3.6.1 and 5.2 (what a signer keeps published), RFC 8301, RFC 8463.
"""

from __future__ import annotations

import base64
import enum
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

ENTRY = "private.pem"  # the key of a Secret that holds one
REVOKED = "v=DKIM1; p="


class BadKey(ValueError):
    """It is no key that can sign. The text says why."""


class State(enum.StrEnum):
    """What a key shall be."""

    ACTIVE = "Active"
    RETIRED = "Retired"
    REVOKED = "Revoked"


class Held(NamedTuple):
    """A key there is."""

    name: str
    selector: str
    algorithm: str  # "RSA" or "Ed25519"
    state: State
    made: float
    since: float  # when `state` became so
    seen: float = 0.0  # when its record was first seen everywhere; 0: not yet
    bits: int = 2048


class Auto(NamedTuple):
    """What keys a domain shall have (posthof_crds.engine.AutoDKIM)."""

    algorithms: tuple[str, ...]
    bits: int
    interval: float
    overlap: float


class Make(NamedTuple):
    algorithm: str
    bits: int


class Turn(NamedTuple):
    """Bring a key into another state."""

    name: str
    state: State


class Drop(NamedTuple):
    """Remove a key and its record."""

    name: str


Step = Make | Turn | Drop


def plan(keys: Sequence[Held], auto: Auto | None, now: float, *, overlap: float = 14 * 86400.0) -> list[Step]:
    """What to do now. `auto` None: the domain wants no keys any more, and those there are end in `overlap`."""
    steps: list[Step] = []
    patience = auto.overlap if auto is not None else overlap
    wanted = auto.algorithms if auto is not None else ()
    for algorithm in wanted:
        steps += _of_algorithm([key for key in keys if key.algorithm == algorithm], algorithm, auto, now)
    for key in keys:
        if key.state is State.ACTIVE and key.algorithm not in wanted:
            steps.append(Turn(key.name, State.RETIRED))
        elif key.state is State.RETIRED and now - key.since >= patience:
            steps.append(Turn(key.name, State.REVOKED))
        elif key.state is State.REVOKED and now - key.since >= patience:
            steps.append(Drop(key.name))
    return steps


def _of_algorithm(keys: list[Held], algorithm: str, auto: Auto | None, now: float) -> Iterable[Step]:
    assert auto is not None
    active = sorted((key for key in keys if key.state is State.ACTIVE), key=lambda key: (key.made, key.name))
    if not active:
        yield Make(algorithm, auto.bits)
        return
    newest = active[-1]
    is_other = algorithm == "RSA" and newest.bits != auto.bits
    if newest.seen and (is_other or now - newest.made >= auto.interval):
        yield Make(algorithm, auto.bits)
    last_seen = max((n for n, key in enumerate(active) if key.seen), default=0)
    for key in active[:last_seen]:
        yield Turn(key.name, State.RETIRED)


def due(keys: Sequence[Held], auto: Auto | None, now: float, *, overlap: float = 14 * 86400.0) -> float | None:
    """Seconds until time alone brings the next step; None: it does not."""
    patience = auto.overlap if auto is not None else overlap
    waits = [patience - (now - key.since) for key in keys if key.state is not State.ACTIVE]
    if auto is not None:
        waits += [auto.interval - (now - key.made) for key in keys if key.state is State.ACTIVE]
    return max(0.0, min(waits)) if waits else None


def signing(keys: Sequence[Held]) -> list[Held]:
    """Those that sign: of each algorithm the newest one that was seen everywhere."""
    found: dict[str, Held] = {}
    for key in sorted(keys, key=lambda key: (key.made, key.name)):
        if key.state is State.ACTIVE and key.seen:
            found[key.algorithm] = key
    return list(found.values())


def new_selector(algorithm: str, now: float) -> str:
    """Such as ph20261124r7k3q: the day says how old it is, the end makes it the only one."""
    day = time.strftime("%Y%m%d", time.gmtime(now))
    end = base64.b32encode(secrets.token_bytes(5)).decode("ascii").lower()[:4]
    return f"ph{day}{algorithm[0].lower()}{end}"


def make(algorithm: str, bits: int = 2048) -> bytes:
    """A new private key, PEM (PKCS #8). RSA of 2048 bits takes some 100 ms."""
    key = (
        ed25519.Ed25519PrivateKey.generate()
        if algorithm == "Ed25519"
        else rsa.generate_private_key(public_exponent=65537, key_size=bits)
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def record(pem: bytes) -> str:
    """The TXT record's text for a private key. BadKey."""
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise BadKey("it is no private key in PEM without a password") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return f"v=DKIM1; k=ed25519; p={base64.b64encode(public).decode('ascii')}"
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < 1024:
            raise BadKey(f"an RSA key of {key.key_size} bits is not believed by anybody (RFC 8301)")
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode('ascii')}"
    raise BadKey("it is neither an RSA nor an Ed25519 key")


def name_of(selector: str, domain: str) -> str:
    """Where the record stands."""
    return f"{selector}._domainkey.{domain}"


def quoted(text: str) -> str:
    """As a zone file has it: strings of at most 255 characters."""
    return " ".join(f'"{text[at : at + 255]}"' for at in range(0, len(text), 255)) or '""'
