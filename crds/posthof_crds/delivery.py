"""Parts of a manifest that say how mail leaves: next hops, retry, limits, timeouts, source addresses.

MTA gives the defaults of the house; RelayPolicy and MailDomain may change single values. Units: durations as `5m`.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from posthof_crds import engine
from posthof_crds.fields import (
    FQDN,
    Duration,
    FilePath,
    Host,
    Int,
    IPAddress,
    ObjectName,
    Part,
    RemotePort,
    SecretKey,
    Share,
    SRVName,
    one_of,
    seconds_between,
    wrong,
)

_TIMEOUTS = engine.Timeouts()
_LIFETIME = seconds_between("1m", "365d")
_WAIT = seconds_between("1s", "7d")
_TIMEOUT = seconds_between("1s", "1h")


class NextHop(Part):
    """Where to connect: exactly one of host, mx, srv, socket. Hops of a list are tried in their order."""

    host: Host | None = None
    """A host name or an IP address; its A and AAAA records are used, its MX records are not."""

    mx: FQDN | None = None
    """A domain whose MX records name the hosts (RFC 5321 section 5.1), for a smarthost that moves."""

    srv: SRVName | None = None
    """A SRV name in full, such as `_submission._tcp.example.org` (RFC 2782); it brings its own ports."""

    socket: FilePath | None = None
    """The path of a local socket that speaks LMTP, such as `/run/dovecot/lmtp`."""

    port: RemotePort | None = None
    """TCP port, for host and mx. Default: 25; 24 for LMTP. 465 speaks TLS from the first byte (RFC 8314)."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        one_of(self, ("host", "mx", "srv", "socket"), "a next hop")
        if self.port is not None and (self.srv is not None or self.socket is not None):
            raise wrong("a port says nothing here", "Remove port: a SRV record brings its own, a socket has none.")
        return self


class Auth(Part):
    """What we log in with at a smarthost (SMTP AUTH, RFC 4954). The Secret holds both; manifests never do."""

    secret_name: ObjectName
    """The Secret with user name and password."""

    username_key: SecretKey = "username"
    """The key of the user name. The default is what a Kubernetes Secret of type basic-auth has."""

    password_key: SecretKey = "password"
    """The key of the password. The default is what a Kubernetes Secret of type basic-auth has."""


class Retry(Part):
    """When to try again, when to tell the sender, when to give up. What is left out is the MTA's value."""

    intervals: Annotated[tuple[Annotated[Duration, _WAIT], ...], Field(min_length=1, max_length=64)] | None = None
    """Waits between tries; the last one repeats. Built in: 2m, 5m, 10m, 20m, 40m, 1h, 2h, 4h: quick while a greylist
    or a restart is likely, rare when the trouble lasts."""

    jitter: Annotated[Share, Field(le=0.5)] | None = None
    """Random share by which each wait is longer or shorter, so that tries do not march in step. Built in: 0.1."""

    lifetime: Annotated[Duration, _LIFETIME] | None = None
    """How long a message is tried before it is returned (RFC 5321 section 4.5.4.1 asks for 4 to 5 days). Built in:
    5d."""

    bounce_lifetime: Annotated[Duration, _LIFETIME] | None = None
    """The same for mail with the null sender: nobody waits for a report about a report. Built in: 2d."""

    delay_notice: Annotated[Duration, _LIFETIME] | None = None
    """When a sender who asked with NOTIFY=DELAY hears that mail is late. Built in: 4h."""

    delay_notice_default: Annotated[Duration, _LIFETIME] | None = None
    """When a sender who gave no NOTIFY hears that mail is late. Built in: 24h, so a night's outage stays quiet."""


class DestinationLimits(Part):
    """Per destination (the set of hosts behind it). Connections and rates are of all workers of all pods together:
    each worker has its share; where a limit is smaller than their number, they take turns of 10 seconds. What is
    left out is the MTA's value."""

    connections_start: Annotated[Int, Field(ge=1, le=1000)] | None = None
    """Connections a worker begins with, before the destination's answers let it grow to its share. Built in: 5."""

    connections: Annotated[Int, Field(ge=1, le=1000)] | None = None
    """Connections at most. Built in: 20: what most receivers accept from one sender."""

    connection_rate: Annotated[Int, Field(ge=0, le=1_000_000)] | None = None
    """New connections in a minute; 0: no limit. Built in: 0."""

    message_rate: Annotated[Int, Field(ge=0, le=10_000_000)] | None = None
    """Messages in a minute; 0: no limit. Built in: 0. They leave evenly, not all at the minute's beginning. Why: some
    receivers name such a number, and put off or block who sends faster."""

    messages_per_connection: Annotated[Int, Field(ge=1, le=1_000_000)] | None = None
    """Messages before a connection is closed and a new one made. Built in: 100."""

    recipients_per_transaction: Annotated[Int, Field(ge=1, le=10_000)] | None = None
    """Recipients of one message given in one transaction. Built in: 100 (RFC 5321 section 4.5.3.1.8)."""

    idle: Annotated[Duration, seconds_between("0s", "5m")] | None = None
    """How long a connection without work stays open for the next message. Built in: 5s."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.connections is not None and (self.connections_start or 0) > self.connections:
            raise wrong("connectionsStart is above connections", "Lower connectionsStart or raise connections.")
        return self


class Timeouts(Part):
    """How long a peer may be silent when we deliver. The defaults are those of RFC 5321 section 4.5.3.2."""

    connect: Annotated[Duration, _TIMEOUT] = _TIMEOUTS.connect
    """For the TCP connection. Shorter than the standard's 5m: the next host may answer."""

    command: Annotated[Duration, _TIMEOUT] = _TIMEOUTS.command
    """For the greeting and the replies to EHLO, STARTTLS, AUTH, MAIL and RCPT."""

    data: Annotated[Duration, _TIMEOUT] = _TIMEOUTS.data
    """For the reply to DATA."""

    block: Annotated[Duration, _TIMEOUT] = _TIMEOUTS.block
    """For the peer to take each piece of the content."""

    dot: Annotated[Duration, _TIMEOUT] = _TIMEOUTS.dot
    """For the reply to the final dot. Long: giving up here makes duplicates, because the peer may have taken the
    mail."""


class Egress(Part):
    """What our sessions leave with."""

    addresses: Annotated[tuple[IPAddress, ...], Field(max_length=2)] = ()
    """Source addresses, at most one IPv4 and one IPv6; they must be this host's (checked at start). Default: the
    kernel chooses. Why: reputation, and SPF records, belong to addresses."""

    helo: FQDN | None = None
    """The name given at EHLO. Default: the MTA's hostname. It should resolve to the source address (RFC 5321
    4.1.4)."""

    @model_validator(mode="after")
    def _families(self) -> Self:
        if len({":" in address for address in self.addresses}) != len(self.addresses):
            raise wrong("two addresses of one family", "Keep one IPv4 and one IPv6 address.")
        return self
