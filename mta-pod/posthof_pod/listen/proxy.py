"""The PROXY protocol, versions 1 and 2: who the client behind a load balancer is (HAProxy, proxy-protocol.txt).

Rules
- Sans-IO: octets in, a `Header` out. Asked only of peers that are trusted; from them a header is required.
- Nothing else is guessed: what is no header raises `NotProxied`, and the connection is closed without a word.
- LOCAL and UNKNOWN (the balancer's own health checks) name nobody: the peer itself is the client.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1_MAX = 107  # octets with CRLF, section 2.1
V2_MAX = 4096  # octets after the first 16: addresses and TLVs; nobody needs more


class NotProxied(Exception):
    """These octets do not begin with a PROXY header."""


class Header(NamedTuple):
    """`address` "" : the header names nobody. `length`: octets of the header."""

    address: str
    port: int
    length: int


def parse(data: bytes) -> Header | None:
    """The header at the beginning of `data`; None: more octets are needed. Raises NotProxied."""
    if data.startswith(b"PROXY "):
        return _version_1(data)
    if data.startswith(SIGNATURE):
        return _version_2(data)
    if b"PROXY ".startswith(data[:6]) or SIGNATURE.startswith(data[:12]):
        return None
    raise NotProxied("no PROXY header")


def _version_1(data: bytes) -> Header | None:
    """`PROXY TCP4 source destination sport dport` CRLF."""
    end = data.find(b"\r\n", 0, V1_MAX)
    if end < 0:
        if len(data) >= V1_MAX:
            raise NotProxied("a PROXY line without an end")
        return None
    try:
        words = data[:end].decode("ascii").split(" ")
    except UnicodeDecodeError:
        raise NotProxied("a PROXY line beyond ASCII") from None
    if words[1] == "UNKNOWN":
        return Header("", 0, end + 2)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise NotProxied("a PROXY line of another form")
    family = ipaddress.IPv4Address if words[1] == "TCP4" else ipaddress.IPv6Address
    try:
        source, _ = family(words[2]), family(words[3])
    except ValueError:
        raise NotProxied("a PROXY line with a bad address") from None
    ports = words[4:]
    if not all(port.isdigit() and len(port) <= 5 and int(port) < 65536 for port in ports):
        raise NotProxied("a PROXY line with a bad port")
    return Header(str(source), int(ports[0]), end + 2)


def _version_2(data: bytes) -> Header | None:
    """Signature, version and command, family, length, addresses, TLVs (which are skipped)."""
    if len(data) < 16:
        return None
    version, command = data[12] >> 4, data[12] & 15
    family, length = data[13], int.from_bytes(data[14:16], "big")
    if version != 2 or command > 1:
        raise NotProxied("a PROXY header of an unknown version or command")
    if length > V2_MAX:
        raise NotProxied("a PROXY header that is too long")
    end = 16 + length
    if len(data) < end:
        return None
    if command == 0 or family not in (0x11, 0x21):  # LOCAL; UNSPEC, UDP, UNIX: nobody we could name
        return Header("", 0, end)
    size = 4 if family == 0x11 else 16
    if length < 2 * size + 4:
        raise NotProxied("a PROXY header without its addresses")
    port = int.from_bytes(data[16 + 2 * size : 18 + 2 * size], "big")
    return Header(str(ipaddress.ip_address(data[16 : 16 + size])), port, end)
