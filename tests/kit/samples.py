"""Messages to send through the house: the bounce samples, and a collection of odd MIME shapes of our own.

A bounce sample is a mailbox file's message: its `From ` line is dropped, its line ends become CRLF, as a client would
send it. Our own samples are kept as they go over the wire, byte for byte.
"""

from __future__ import annotations

from pathlib import Path

VECTORS = Path(__file__).resolve().parents[1] / "vectors"


def bounces() -> dict[str, bytes]:
    """File name -> content in wire form, without the final dot and without dot stuffing."""
    return {path.name: wire(path.read_bytes()) for path in sorted((VECTORS / "bounces").glob("*.eml"))}


def mime() -> dict[str, bytes]:
    """File name -> content in wire form. Some are 8-bit, one ends without a line end."""
    return {path.name: path.read_bytes() for path in sorted((VECTORS / "mime").glob("*.eml"))}


def everything() -> dict[str, bytes]:
    return {f"bounces/{k}": v for k, v in bounces().items()} | {f"mime/{k}": v for k, v in mime().items()}


def wire(stored: bytes) -> bytes:
    """A stored message as it goes over the wire: no `From ` line, every line ended by CRLF, no other CR."""
    if stored.startswith(b"From "):
        stored = stored.partition(b"\n")[2]
    return stored.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
