"""PROXY headers of both versions, cut anywhere, and what is none."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posthof_pod.listen.proxy import SIGNATURE, Header, NotProxied, parse

V4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + struct.pack("!HH", 4711, 25)
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 4712, 25)
)


def version_2(command: int, family: int, content: bytes) -> bytes:
    return SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(content)) + content


GOOD = [
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 25\r\n", "192.0.2.1", 4711),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 4712 25\r\n", "2001:db8::1", 4712),
    (b"PROXY UNKNOWN\r\n", "", 0),
    (b"PROXY UNKNOWN ffff:f:f:f ffff:f:f:f 65535 65535\r\n", "", 0),
    (version_2(1, 0x11, V4), "192.0.2.1", 4711),
    (version_2(1, 0x21, V6), "2001:db8::1", 4712),
    (version_2(1, 0x11, V4 + b"\x04\x00\x01x"), "192.0.2.1", 4711),
    (version_2(0, 0x00, b""), "", 0),
    (version_2(0, 0x11, V4), "", 0),
    (version_2(1, 0x00, b""), "", 0),
    (version_2(1, 0x31, b"x" * 216), "", 0),
]

BAD = [
    b"EHLO x\r\n",
    b"PROXY\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n",
    b"PROXY TCP4 2001:db8::1 192.0.2.2 4711 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 25\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 25\r\n",
    b"PROXY TCP5 192.0.2.1 192.0.2.2 1 25\r\n",
    b"PROXY TCP4  192.0.2.1 192.0.2.2 1 25\r\n",
    b"PROXY \xff\r\n",
    b"PROXY " + b"x" * 200,
    version_2(2, 0x11, V4),
    version_2(1, 0x11, V4[:8]),
    SIGNATURE + b"\x11\x11\x00\x0c" + V4,
    SIGNATURE + b"\x21\x11\xff\xff",
    b"\r\n\r\nQUIT\r\n",
    b"\x16\x03\x01",
]


@pytest.mark.parametrize(("header", "address", "port"), GOOD)
def test_a_header_names_the_client_however_it_is_cut(header: bytes, address: str, port: int) -> None:
    for end in range(1, len(header)):
        assert parse(header[:end]) is None
    assert parse(header + b"EHLO x\r\n") == Header(address, port, len(header))


@pytest.mark.parametrize("octets", BAD)
def test_what_is_no_header_is_refused(octets: bytes) -> None:
    with pytest.raises(NotProxied):
        parse(octets)


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21"]), st.binary(max_size=80))
def test_any_octets_are_read_or_refused(beginning: bytes, tail: bytes) -> None:
    try:
        header = parse(beginning + tail)
    except NotProxied:
        return
    assert header is None or header.length <= len(beginning + tail)
