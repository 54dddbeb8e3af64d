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


class VolumeNumbers(Told, frozen=True, kw_only=True):
    """What the pod's probe measured at its start."""

    file_system: str = ""
    sync_median_seconds: float = 0.0
    sync_p99_seconds: float = 0.0
    folder_sync_p99_seconds: float = 0.0
    clock_offset_seconds: float = 0.0  # the volume's clock minus the pod's
    visible_seconds: float | None = None  # until this pod saw what another had synced; None: there was no other
    free_bytes: int = 0  # as the pod started
    free_inodes: int = -1  # the same; -1: the file system does not count them
    warnings: tuple[str, ...] = ()


class SpoolState(Told, frozen=True, kw_only=True):
    healthy: bool = True
    reason: str = ""  # why not: a sentence for people
    refused: bool = False  # the volume breaks a promise, and this pod does not use it
    used_bytes: int = 0
    free_bytes: int = 0
    volume: VolumeNumbers | None = None


class TakeOver(Told, frozen=True, kw_only=True):
    """What this pod took over from one worker."""

    id: str  # the same in every report that tells of it
    worker: str
    pod: str = ""  # where that worker ran; "": nobody knows any more
    lanes: tuple[str, ...] = ()  # names, of the first few
    count: int = 0  # of lanes
    messages: int = 0
    possible_duplicates: int = 0  # recipients that may get theirs twice
    seconds: float = 0.0  # from the first lane to the last
    freed: bool = False  # it gave its lanes away: a stop, a drain
    at: float = 0.0


class Load(Told, frozen=True, kw_only=True):
    """How busy the pod is: what the number of pods is decided from. Rates and shares are of about the last minute."""

    ready: int = 0  # messages that wait for nothing but a worker: not put off, not held back by their destination
    oldest_seconds: float = 0.0  # age of the oldest of these; 0: there is none
    drained_per_second: float = 0.0  # messages given to a session, or to a mailbox
    backlog_seconds: float = 0.0  # `ready` over `drained_per_second`; the age of the oldest where nothing is drained
    sessions: float = 0.0  # share of what is allowed, with clients or with other hosts, whichever is more
    accept_seconds: float = 0.0  # from the last dot to the reply, for 99 of 100 messages; 0: there were none
    cpu: float = 0.0  # share of the CPU the pod may use: its limit, at most one for each worker
    messages: int = 0  # live messages of the lanes it holds, deferred and held ones too
    messages_most: int = 0  # as many fit into the memory of its workers; 0: not known
    unowned_lanes: int = 0  # lanes that no worker has room for


class ClientCounts(Told, frozen=True, kw_only=True):
    """Where sessions of the public listeners seem to come from: the operator finds hidden address translation."""

    total: int = 0
    private: int = 0  # from private addresses: what a node's translation makes of the world
    addresses: tuple[str, ...] = ()  # those most seen, at most 16


class AccountUse(Told, frozen=True, kw_only=True):
    """What one SMTPCredential did lately, in the whole fleet as far as this pod knows."""

    last_used: float = 0.0
    messages: int = 0  # today, UTC
    held: str = ""  # why its mail is held, for people; "": it is not


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
    unproven: dict[str, str] = {}  # MX host of our MTA-STS policies -> why they do not say `enforce`
    challenges: tuple[str, ...] = ()  # TLSCerts for which it answers an ACME server over HTTP
    queue: QueueCounts = QueueCounts()
    spool: SpoolState = SpoolState()
    load: Load | None = None  # None: a pod of an older version, or one that has no workers yet
    clients: ClientCounts | None = None
    accounts: dict[str, AccountUse] = {}  # by SMTPCredential, "namespace/name"
    take_overs: tuple[TakeOver, ...] = ()  # of late, oldest first
    uptime_seconds: float = 0.0


_DECODER = msgspec.json.Decoder(Report)


def encode(report: Report) -> bytes:
    return msgspec.json.encode(report)


def decode(data: bytes) -> Report:
    """ValueError: this is not a report."""
    return _DECODER.decode(data)
