"""One GET by HTTPS, as MTA-STS wants it (RFC 8461 3.3), or one POST of a TLS report (RFC 8460 5.4): no redirect, no
cache, nothing kept.

Rules
- The certificate is valid for the host's name and comes from a CA the system knows; TLS 1.2 and above.
- To a GET only 200 with a content of type text/plain counts, to a POST 2xx; a redirect is a failure, never followed.
- The answer is bounded in size and time: whoever runs the host may be hostile.
- The addresses are given by the caller, who asked our own resolver for them.
"""

from __future__ import annotations

import asyncio
import enum
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

PATIENCE = 30.0  # seconds for one address, all in all (section 3.3 allows a minute)
_HEAD = 65536  # bytes of status line and headers


class Fault(enum.StrEnum):
    """Why there is no content, in the words of RFC 8460 4.3."""

    FETCH = "sts-policy-fetch-error"
    CERTIFICATE = "sts-webpki-invalid"


class Failed(Exception):
    """No content. The text says why."""

    def __init__(self, fault: Fault, why: str) -> None:
        super().__init__(why)
        self.fault = fault


async def get(
    host: str, path: str, addresses: Sequence[str], *, port: int, context: ssl.SSLContext, most: int
) -> bytes:
    """The content, of at most `most` bytes. Raises Failed, of the last address tried."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: posthof\r\nAccept: text/plain\r\n"

    async def read(reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> bytes:
        if status != 200:
            raise Failed(Fault.FETCH, f"{host} answered {status}")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/plain":
            raise Failed(Fault.FETCH, f"{host} answered with {kind or 'no content type'} and not text/plain")
        if headers.get("transfer-encoding", "").strip().lower() == "chunked":
            return await _chunked(host, reader, most)
        return await _plain(host, reader, headers.get("content-length", ""), most)

    return await _ask(_Asked(host, addresses, port, context), request.encode("ascii"), read)


async def post(
    host: str, path: str, addresses: Sequence[str], *, port: int, context: ssl.SSLContext, kind: str, content: bytes
) -> None:
    """Hand over `content` of this media type. Raises Failed."""
    request = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: posthof\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
    )

    async def read(_: asyncio.StreamReader, status: int, headers: dict[str, str]) -> bytes:
        if status // 100 != 2:
            raise Failed(Fault.FETCH, f"{host} answered {status}")
        return b""

    await _ask(_Asked(host, addresses, port, context), request.encode("ascii"), read, content)


async def ask(
    host: str,
    path: str,
    addresses: Sequence[str],
    *,
    port: int,
    context: ssl.SSLContext,
    most: int,
    form: bytes | None = None,
    authorization: str = "",
) -> bytes:
    """JSON, by GET or (with a `form`) by POST: keys of an issuer, its word about a token. Raises Failed."""
    request = f"{'GET' if form is None else 'POST'} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: posthof\r\n"
    request += "Accept: application/json\r\n"
    if authorization:
        request += f"Authorization: {authorization}\r\n"
    if form is not None:
        request += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n"

    async def read(reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> bytes:
        if status != 200:
            raise Failed(Fault.FETCH, f"{host} answered {status}")
        if headers.get("transfer-encoding", "").strip().lower() == "chunked":
            return await _chunked(host, reader, most)
        return await _plain(host, reader, headers.get("content-length", ""), most)

    return await _ask(_Asked(host, addresses, port, context), request.encode("ascii"), read, form or b"")


class _Asked(NamedTuple):
    """Whom to ask."""

    host: str
    addresses: Sequence[str]
    port: int
    context: ssl.SSLContext


_Read = Callable[[asyncio.StreamReader, int, dict[str, str]], Awaitable[bytes]]


async def _ask(asked: _Asked, request: bytes, read: _Read, content: bytes = b"") -> bytes:
    """Of the first address that answers. Raises Failed, of the last one tried."""
    host = asked.host
    failure = Failed(Fault.FETCH, f"{host} has no address")
    for address in asked.addresses:
        try:
            async with asyncio.timeout(PATIENCE):
                return await _exchange(asked, address, request + b"Connection: close\r\n\r\n" + content, read)
        except Failed as error:
            failure = error
        except ssl.SSLCertVerificationError as error:
            failure = Failed(Fault.CERTIFICATE, f"the certificate of {host} does not hold: {error.verify_message}")
        except TimeoutError:
            failure = Failed(Fault.FETCH, f"{host}[{address}] did not answer within {PATIENCE:g} s")
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            failure = Failed(Fault.FETCH, f"{host}[{address}]: {error or type(error).__name__}")
    raise failure


async def _exchange(asked: _Asked, address: str, request: bytes, read: _Read) -> bytes:
    host = asked.host
    reader, writer = await asyncio.open_connection(
        address, asked.port, ssl=asked.context, server_hostname=host, limit=_HEAD
    )
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        status, headers = _read_head(head)
        return await read(reader, status, headers)
    finally:
        writer.close()


def _read_head(head: bytes) -> tuple[int, dict[str, str]]:
    """The status code and the header fields, names in lower case. Raises ValueError."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        raise ValueError("the answer is not HTTP/1.1")
    fields = (line.partition(":") for line in lines if line)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in fields}


async def _plain(host: str, reader: asyncio.StreamReader, length: str, most: int) -> bytes:
    if not length:
        content = await _rest(reader, most + 1)
    elif not length.isdecimal() or len(length) > 9 or int(length) > most:
        raise Failed(Fault.FETCH, f"{host} announced {length[:20]} bytes, and {most} are allowed")
    else:
        content = await reader.readexactly(int(length))
    if len(content) > most:
        raise Failed(Fault.FETCH, f"{host} sent more than {most} bytes")
    return content


async def _rest(reader: asyncio.StreamReader, most: int) -> bytes:
    parts = bytearray()
    while len(parts) < most and (part := await reader.read(most - len(parts))):
        parts += part
    return bytes(parts)


async def _chunked(host: str, reader: asyncio.StreamReader, most: int) -> bytes:
    parts = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.partition(b";")[0].strip(), 16)
        if size < 0 or len(parts) + size > most:
            raise Failed(Fault.FETCH, f"{host} sent more than {most} bytes")
        if size == 0:
            return bytes(parts)
        parts += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError("a chunk does not end where it should")
