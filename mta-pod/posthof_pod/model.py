"""The nouns of a message's trip, as values. No I/O, no clock.

Addresses are text without angle brackets; the null sender is "". They may hold UTF-8 (RFC 6531).
Times are unix seconds. A message's id is `<lane>-<number>` (lower case, see spool/): unique for ever in one spool.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import msgspec

from posthof_crds.engine import DestinationLimits, Egress, NextHop, Retry, SecretRef, TLSLevel


class Notify(enum.IntFlag):
    """RFC 3461 4.1. 0: the parameter was not given."""

    UNSET = 0
    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8


class Body(enum.IntEnum):
    """The BODY parameter (RFC 6152, RFC 3030)."""

    SEVENBIT = 0
    EIGHTBIT = 1
    BINARY = 2


class TLSWish(enum.IntEnum):
    """What the sender asks of TLS on the whole way (RFC 8689)."""

    NONE = 0
    REQUIRED = 1  # REQUIRETLS came with MAIL: authenticated TLS on every hop, or the mail comes back
    OPTIONAL = 2  # the header says TLS-Required: No: what destinations publish must not keep the mail back


class Origin(enum.IntEnum):
    """Who made the message enter the house."""

    CLIENT = 0
    REPORT = 1  # made here: a bounce, a delay notice


class Recipient(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """One address the message goes to, after aliases were expanded."""

    address: str
    rule: str = ""  # the RelayPolicy that decided; "" = a MailDomain of ours, or the built-in rule for reports
    notify: int = 0
    orcpt: str = ""  # "rfc822;user@example.org", xtext decoded (RFC 3461 4.2)
    original: str = ""  # what RCPT TO named, where an alias or a redirect changed it


class Envelope(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """What the spool keeps beside the content. Immutable; a try's results are Settlements."""

    id: str
    sender: str
    recipients: tuple[Recipient, ...]
    arrived: float
    size: int  # bytes of content, without the trace headers we add
    client: str = ""  # address of the peer, "" for mail made here
    client_name: str = ""  # what it said at EHLO
    role: str = ""  # the listener's role
    body: int = 0
    smtputf8: bool = False
    ret: str = ""  # "FULL" or "HDRS" (RFC 3461 4.3)
    envid: str = ""
    origin: int = 0
    message_id: str = ""  # the Message-ID field's value, for searching
    has_binary: bool = False  # content holds a bare CR, a bare LF or came as BINARYMIME: leaves by BDAT or re-encoded
    credential: str = ""  # the SMTPCredential that submitted it
    tls_wish: int = 0  # a TLSWish of the sender
    certificate: str = ""  # DNS names of the client's certificate, verified, divided by spaces


class Status(enum.IntEnum):
    """What a try made of one recipient."""

    DELIVERED = 0  # in a mailbox of ours
    RELAYED = 1  # the next hop took it
    DEFERRED = 2  # to be tried again
    FAILED = 3  # permanently
    EXPIRED = 4  # tried for too long
    DISCARDED = 5
    HELD = 6
    UNCERTAIN = 7  # a dot without a reply: tried again, may be a duplicate


class Reason(enum.StrEnum):
    """Why a message is (back) in the queue. Every return has one; it reaches log, metric and `posthof queue`."""

    RECEIVED = "Received"
    REPLAYED = "Replayed"  # read back at start or take-over
    DNS_FAILED = "DNSFailed"
    CONNECT_FAILED = "ConnectFailed"
    CONNECT_TIMEOUT = "ConnectTimeout"
    TLS_FAILED = "TLSFailed"
    TLS_REQUIRED = "TLSRequired"
    TLS_POLICY = "TLSPolicy"  # what the destination publishes (DANE, MTA-STS), or the rule wants it to, is not met
    AUTH_FAILED = "AuthFailed"
    GREETING_REFUSED = "GreetingRefused"
    EHLO_REFUSED = "EhloRefused"
    SENDER_REFUSED = "SenderRefused"
    RECIPIENT_REFUSED = "RecipientRefused"
    DATA_REFUSED = "DataRefused"
    MESSAGE_REFUSED = "MessageRefused"  # 4xx or 5xx after the dot
    PEER_CLOSED = "PeerClosed"
    PEER_TIMEOUT = "PeerTimeout"
    PEER_BROKEN = "PeerBroken"  # what it said is not SMTP
    CONVERSION_FAILED = "ConversionFailed"  # the peer lacks an extension the content needs
    SITE_DOWN = "SiteDown"  # no host of the destination answers; a probe is out
    SITE_LIMIT = "SiteLimit"
    LOCAL_FAILED = "LocalFailed"  # Maildir: disk, permission
    SPOOL_DAMAGED = "SpoolDamaged"
    POLICY_HOLD = "PolicyHold"
    ACCOUNT_HOLD = "AccountHold"  # its account sends unlike itself
    OPERATOR_HOLD = "OperatorHold"
    OPERATOR_RELEASE = "OperatorRelease"
    OPERATOR_FLUSH = "OperatorFlush"
    NOT_PERMITTED = "NotPermitted"  # the spool did not confirm in time that this worker still owns the message
    SHUTDOWN = "Shutdown"
    NO_ROUTE = "NoRoute"
    INTERNAL = "Internal"  # our own fault: the log has the trace


class Outcome(NamedTuple):
    """One recipient after one try."""

    recipient: int  # index in envelope.recipients
    status: Status
    reason: Reason
    code: int  # the peer's reply code, 0 where there was none
    enhanced: str  # enhanced code, made up from the code where the peer gave none
    reply: str  # the peer's full reply text, or our own words where there was no peer
    host: str = ""  # "mx.example.org[192.0.2.1]:25", "" for local
    dsn_relayed: bool = False  # the next hop took over the duty of DSN (it offers DSN)


class Held(NamedTuple):
    """Where a recipient stands between tries."""

    recipient: int  # index in envelope.recipients
    due: float  # unix seconds; inf = held until released
    attempts: int
    notified: bool = False  # a delay notice went out


class Settlement(msgspec.Struct, frozen=True):
    """What one try changes, in one spool record: done recipients, the others' next try, and the report it caused."""

    done: tuple[int, ...]
    waiting: tuple[Held, ...] = ()
    reason: str = ""
    detail: str = ""  # the peer's full reply, for `posthof queue show`


class DestinationKind(enum.IntEnum):
    DIRECT = 0  # MX of `name`, a domain or an address literal
    SMARTHOST = 1  # `hops`, SMTP
    LMTP = 2  # `hops`, LMTP
    LOCAL = 3  # a Maildir of the MailDomain whose domain is `name`


class Destination(msgspec.Struct, frozen=True):
    """Where mail goes and how: everything two messages must share to share a queue and a session.

    Made by `admit.route.destination`, compared and hashed by value, kept once per worker (interned by `key`).
    """

    key: str  # short, readable, unique for the rest: "direct:example.org", "to-o365:smtp.o365:25", "local:a.test"
    kind: DestinationKind
    name: str
    hops: tuple[NextHop, ...] = ()
    tls: TLSLevel = TLSLevel.MAY
    egress: Egress = Egress()
    username: SecretRef | None = None
    password: SecretRef | None = None
    limits: DestinationLimits = DestinationLimits()
    retry: Retry = Retry()
    rule: str = ""  # the RelayPolicy, "" = MailDomain or built-in
    client_certificate: str = ""  # the TLSCert that its sessions show, "" = none
    requires_tls: bool = False  # mail with REQUIRETLS (RFC 8689): authenticated hosts that take it over, or nobody


class PolicyType(enum.StrEnum):
    """Whose demand it is that a session meets, in the words of RFC 8460 4.4."""

    NONE = "no-policy-found"
    TLSA = "tlsa"
    STS = "sts"


class TLSFault(enum.StrEnum):
    """What is wrong with a session's TLS: the result types of RFC 8460 4.3."""

    NO_STARTTLS = "starttls-not-supported"
    HOST_MISMATCH = "certificate-host-mismatch"
    EXPIRED = "certificate-expired"
    NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION = "validation-failure"
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    DANE_REQUIRED = "dane-required"
    STS_FETCH = "sts-policy-fetch-error"
    STS_INVALID = "sts-policy-invalid"
    STS_WEBPKI = "sts-webpki-invalid"


class Demand(NamedTuple):
    """What the destination publishes about one of its hosts, for levels Best, DANE and MTASTS.

    Sessions are shared only under equal demands (the site's key and the resumed TLS session's carry them).
    """

    level: TLSLevel  # MAY, ENCRYPT, VERIFY or DANE
    policy: PolicyType = PolicyType.NONE
    domain: str = ""  # the policy domain: MTA-STS the recipient's, DANE the host's name
    tlsa: tuple[tuple[int, int, int, bytes], ...] = ()  # DANE: resolve.tlsa.TLSA, sorted
    names: tuple[str, ...] = ()  # DANE: what a certificate may be valid for; the first is sent as SNI
    is_testing: bool = False  # MTA-STS in testing: a failure is told, and the mail goes all the same
    text: tuple[str, ...] = ()  # the policy as a report quotes it
    mx: tuple[str, ...] = ()  # MTA-STS: its patterns


class Host(NamedTuple):
    """One address to connect to. `name` is what the certificate must be valid for."""

    name: str
    address: str  # IPv4, IPv6 or, for HopKind.UNIX, a path
    port: int  # 0 for a path
    demand: Demand | None = None  # None: the destination's level is all


class Route(NamedTuple):
    """What resolve/ made of a Destination: addresses in the order to try, for at most `until`."""

    site: str  # the same for all destinations with the same set of hosts
    hosts: tuple[Host, ...]
    until: float


class Taken(NamedTuple):
    """A unit of work the schedule hands to a session: some recipients of one message."""

    unit: int  # the schedule's handle
    ref: int  # the spool's handle of the message
    recipients: tuple[int, ...]  # indices in envelope.recipients
    destination: Destination
    attempts: int  # tries that ended before this one
    arrived: float
    notified: bool  # a delay notice went out
    is_tried: bool  # a synced record says this id may be tried ("at once"), so a dot waits for nothing
