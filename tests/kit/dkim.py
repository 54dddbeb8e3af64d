"""Instruments of DKIM tests: keys made once, a table for DNS, a message, and what signs and judges it in one call."""

from __future__ import annotations

import functools
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar, cast

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from posthof_pod.mailauth import canon
from posthof_pod.mailauth.dkim import keys, sign, verify
from posthof_pod.mailauth.dns import LookupFailed

T = TypeVar("T")
NOW = 1_790_000_000.0
MESSAGE = (
    b"From: Ada <ada@a.example>\r\nTo: bob@b.example\r\nSubject: a  line\r\n\tfolded \r\n"
    b"Date: Tue, 24 Nov 2026 01:00:00 +0000\r\nMessage-ID: <1@a.example>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    b"Dear  Bob,\t \r\n\r\nthis is it. \r\n\r\n\r\n"
)


class Table:
    """A Lookup over a dictionary; a name whose value is None gets no answer."""

    def __init__(self, txt: Mapping[str, str | bytes | None]) -> None:
        self._txt = txt
        self.asked: list[str] = []

    async def txt(self, name: str) -> tuple[bytes, ...]:
        self.asked.append(name)
        if name not in self._txt:
            return ()
        found = self._txt[name]
        if found is None:
            raise LookupFailed("SERVFAIL")
        return (found if isinstance(found, bytes) else found.encode(),)

    async def a(self, name: str) -> tuple[str, ...]:
        return ()

    async def aaaa(self, name: str) -> tuple[str, ...]:
        return ()

    async def mx(self, name: str) -> tuple[tuple[int, str], ...]:
        return ()

    async def ptr(self, address: str) -> tuple[str, ...]:
        return ()


@functools.cache
def pem(algorithm: str, n: int = 0) -> bytes:
    """A private key: "rsa1024", "rsa2048", "ed25519"; each `n` is another one."""
    key = (
        ed25519.Ed25519PrivateKey.generate()
        if algorithm == "ed25519"
        else rsa.generate_private_key(65537, int(algorithm.removeprefix("rsa")))
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@functools.cache
def signing_key(algorithm: str, domain: str = "a.example", selector: str = "") -> sign.SigningKey:
    """The selector is the algorithm where none is given."""
    return sign.SigningKey(domain, selector or algorithm, keys.private_key(pem(algorithm)))


def table(*signers: sign.SigningKey, **more: str) -> Table:
    records: dict[str, str | bytes | None] = dict(more)
    for one in signers:
        records[f"{one.selector}._domainkey.{one.domain}"] = keys.record(one.key)
    return Table(records)


def signed(message: bytes, *signers: sign.SigningKey) -> bytes:
    head, body = canon.parted(message)
    return sign.sign(canon.fields(head), body, signers, NOW) + message


def judged(message: bytes, lookup: Table, *, now: float = NOW) -> tuple[verify.Signature, ...]:
    head, body = canon.parted(message)
    return at_once(verify.verify(canon.fields(head), body, lookup, now))


def at_once(story: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that never has to wait: also inside a running loop."""
    try:
        story.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise AssertionError("it waits for something")
