"""What a pod tells the operator: GET /report on the health port, JSON. Values only: no pydantic, no yaml, no I/O.

The pod writes it, the operator reads it, so both may be of another version: unknown fields are ignored, and every
field but the pod's name has a default. Sizes are bytes, times are seconds, moments are seconds since 1970.
"""

from __future__ import annotations

import msgspec


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all parts of a report."""


class ServedCertificate(Told, frozen=True, kw_only=True):
    """What a client gets to see when it starts TLS."""

    serial: str  # lower-case hex without separators, as `openssl x509 -serial` has it in lower case
    not_after: float


class QueueCounts(Told, frozen=True, kw_only=True):
    """Messages by what they wait for."""

    ready: int = 0
    deferred: int = 0
    held: int = 0
    oldest_ready_seconds: float = 0.0  # age of the oldest mail that waits for nothing but its turn; 0: there is none


class SpoolState(Told, frozen=True, kw_only=True):
    healthy: bool = True
    reason: str = ""  # why not: a sentence for people
    used_bytes: int = 0
    free_bytes: int = 0


class ClientCounts(Told, frozen=True, kw_only=True):
    """Where sessions of the public listeners seem to come from: the operator finds hidden address translation."""

    total: int = 0
    private: int = 0  # from private addresses: what a node's translation makes of the world
    addresses: tuple[str, ...] = ()  # those most seen, at most 16


class Report(Told, frozen=True, kw_only=True):
    pod: str
    node: str = ""
    version: str = ""
    revision: str = ""  # of the configuration in force; "" before the first
    desired: str = ""  # the newest this pod has seen
    refused: tuple[str, ...] = ()  # why the newest is not in force, for people
    ready: bool = False
    draining: bool = False
    workers: int = 0
    sessions: int = 0
    certificates: dict[str, ServedCertificate] = {}  # by TLSCert
    queue: QueueCounts = QueueCounts()
    spool: SpoolState = SpoolState()
    clients: ClientCounts | None = None
    uptime_seconds: float = 0.0


_DECODER = msgspec.json.Decoder(Report)


def encode(report: Report) -> bytes:
    return msgspec.json.encode(report)


def decode(data: bytes) -> Report:
    """ValueError: this is not a report."""
    return _DECODER.decode(data)
