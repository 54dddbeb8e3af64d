"""EngineConfig: everything a worker needs to know, compiled, immutable, with a content hash.

Rules of this file
- Values only: no I/O, no pydantic, no manifest. Made by `posthof_crds.compile`, sent to workers as msgpack.
- It *names* secrets (`SecretRef`), it never holds them.
- Durations are seconds (float), sizes are bytes (int), networks are strings that `ipaddress` accepts.
- Domains are lower-case A-labels. Names of objects are the manifests' metadata.name.
"""

from __future__ import annotations

import enum
import hashlib

import msgspec


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all parts of EngineConfig: immutable, compared by value."""


class ListenerRole(enum.StrEnum):
    MX = "MX"  # mail from the world for our domains
    INTERNAL = "Internal"  # mail from our own hosts; client matches are trusted here
    SUBMISSION = "Submission"  # mail from people and programs that log in (RFC 6409), STARTTLS
    SUBMISSIONS = "Submissions"  # the same with TLS from the first byte (RFC 8314)


SUBMISSION = frozenset({ListenerRole.SUBMISSION, ListenerRole.SUBMISSIONS})


class TLSMode(enum.StrEnum):
    OFF = "Off"
    STARTTLS = "STARTTLS"
    IMPLICIT = "Implicit"


class TLSLevel(enum.StrEnum):
    """What an outgoing session demands."""

    NONE = "None"  # STARTTLS is not used even if offered
    MAY = "May"  # used if offered, certificate not checked, falls back to plain text
    ENCRYPT = "Encrypt"  # required, certificate not checked
    VERIFY = "Verify"  # required, certificate must be valid for the host's name (RFC 9525)
    DANE = "DANE"  # required, certificate must be the one in the host's TLSA records (RFC 7672); none there: no mail
    MTASTS = "MTASTS"  # required, as the recipient domain's MTA-STS policy says (RFC 8461); none there: no mail
    BEST = "Best"  # DANE where TLSA records are published, else MTA-STS where a policy is, else as May


class SecretRef(Value, frozen=True, kw_only=True, omit_defaults=True):
    """A key of a Secret. The supervisor resolves it; its bytes never stand in a config, a log or an error."""

    name: str
    key: str


class KeyPair(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Where a certificate chain and its key are: both files, or both keys of a Secret."""

    cert_file: str = ""
    key_file: str = ""
    cert_secret: SecretRef | None = None
    key_secret: SecretRef | None = None


class DNSUpdate(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Where records are published by dynamic updates (RFC 2136), and with which TSIG key."""

    server: str  # "address" or "address@port"
    zone: str = ""  # "": the server is asked
    key_name: str
    key_algorithm: str
    key_secret: SecretRef  # base64
    ttl: int = 300


class ACMEOrder(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Who is asked for a certificate, and how the names are proven: over HTTP, or by `update`."""

    directory: str
    contact: tuple[str, ...] = ()
    account: str = "acme-account"  # the file of the account's key below the state folder
    roots: str = ""  # PEM, beside the usual ones
    eab_id: str = ""
    eab_key: SecretRef | None = None
    update: DNSUpdate | None = None


class RenewalWindow(Value, frozen=True, omit_defaults=True):
    days: tuple[int, ...]  # 0: Monday
    start: float  # seconds after midnight UTC
    length: float


class Certificate(Value, frozen=True, kw_only=True, omit_defaults=True):
    """A TLSCert: how the pair is had. What is `self_signed` or of `acme` is made below the state folder by the
    supervisor; in a cluster the operator makes it, and all that a pod knows is the pair."""

    name: str
    dns_names: tuple[str, ...]
    self_signed: bool = False
    duration: float = 90 * 86400.0
    pair: KeyPair | None = None
    acme: ACMEOrder | None = None
    http01_port: int = 0  # where an ACME server asks for its proofs; 0: it does not
    thumbprint: SecretRef | None = None  # in a cluster: of the account, for the answers
    renew_before: float | None = None
    windows: tuple[RenewalWindow, ...] = ()
    key_algorithm: str = "ECDSA"
    key_size: int = 256
    key_rotation: str = "Always"  # or Never, Staged


class ListenerLimits(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of clients are the fleet's, the others a worker's. A client is an IPv4 address or an IPv6 /64."""

    sessions: int = 10_000  # open sessions a worker holds on this listener; more get 421
    client_sessions: int = 100
    client_session_rate: int = 0  # new sessions per client and minute; 0: no limit
    client_message_rate: int = 0  # messages per client and minute; 0: no limit
    errors: int = 20  # refused or unknown commands before 421
    recipients: int = 1000  # per transaction (RFC 5321 4.5.3.1.8 asks for at least 100)
    message_size: int = 35 * 1024 * 1024
    command_line: int = 4096  # bytes of one command line with CRLF
    commands: int = 0  # commands per session; 0: no limit
    messages: int = 0  # messages per session; 0: no limit
    hops: int = 100  # Received fields before 554 5.4.6
    timeout: float = 300.0
    stress_timeout: float = 10.0  # in force above 90% of `sessions`


class Listener(Value, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    role: ListenerRole
    host: str  # "" = all addresses
    port: int
    tls: TLSMode = TLSMode.OFF
    certificates: tuple[str, ...] = ()  # names in EngineConfig.certificates
    client_ca: SecretRef | None = None  # clients may show a certificate of these CAs (PEM)
    proxy_trusted: tuple[str, ...] = ()  # networks that must speak PROXY v1 or v2
    xclient_trusted: tuple[str, ...] = ()  # networks that may use XCLIENT
    client_ip_preserved: bool = True  # False: a peer's address may be a node's, so no rule about clients counts
    normalise_newlines: bool = False  # bare CR / LF in DATA become CRLF instead of 550 5.5.2
    implementation: str = "native"  # or "aiosmtpd"
    mechanisms: tuple[str, ...] = ()  # of AUTH, offered in this order; only of role Submission and Submissions
    limits: ListenerLimits = ListenerLimits()


class Quota(Value, frozen=True, kw_only=True, omit_defaults=True):
    """What one account may send, the whole fleet counted; 0: no limit."""

    messages_minute: int = 0
    messages_hour: int = 0
    messages_day: int = 0  # of UTC
    recipients_hour: int = 0
    recipients_day: int = 0
    recipients_message: int = 0


class Guard(Value, frozen=True, kw_only=True, omit_defaults=True):
    """When an account that behaves unlike itself is held. An hour's count is compared with the largest of the days
    before."""

    is_on: bool = True
    factor: float = 10.0
    recipients: int = 1000  # in an hour: below this nothing is suspicious
    strangers: int = 500  # recipients it never wrote to before, in an hour: below this nothing is suspicious


class OAuth(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Whose bearer tokens hold: of the three ways to know, one is given."""

    issuer: str
    audience: str
    jwks_url: str = ""
    jwks: SecretRef | None = None
    introspection: str = ""
    client_id: SecretRef | None = None
    client_secret: SecretRef | None = None
    claim: str = "email"
    users: tuple[str, ...] = ()  # folded; none: all


class LDAP(Value, frozen=True, kw_only=True, omit_defaults=True):
    url: str
    user_dn: str  # with {user}


class Credential(Value, frozen=True, kw_only=True, omit_defaults=True):
    """A SMTPCredential: an account that may submit mail."""

    name: str  # the SMTPCredential's metadata.name
    username: str = ""  # folded; "" = it cannot log in by name
    verifier: SecretRef | None = None  # the key holds what checks the password (posthof_crds.verifiers)
    senders: tuple[str, ...] = ()  # patterns over sender and From; none: it may not send at all
    expires: float = 0.0  # unix seconds; 0: never
    quota: Quota = Quota()
    guard: Guard = Guard()
    workloads: tuple[str, ...] = ()  # ids of pod selections that are this account without a password
    oauth: OAuth | None = None
    dovecot: str = ""  # the path of a socket
    certificate: str = ""  # a DNS name in the client's certificate
    ldap: LDAP | None = None
    may_relay: bool = True  # to where no rule says: False in a namespace that may not send Direct


class InboundMode(enum.StrEnum):
    LMTP = "LMTP"
    RELAY = "Relay"
    ALIAS = "Alias"
    MAILDIR = "Maildir"
    REJECT = "Reject"


class RecipientCheck(enum.StrEnum):
    LIST = "list"
    CALLOUT = "callout"
    ANY = "any"


class Callout(Value, frozen=True, kw_only=True, omit_defaults=True):
    """How long an answer of the next hop about a recipient is believed, seconds."""

    positive: float = 3600.0
    negative: float = 600.0


class HopKind(enum.StrEnum):
    HOST = "host"  # A / AAAA of the name (or an address literal), no MX look-up
    MX = "mx"
    SRV = "srv"  # _submission / _smtp style SRV name, given in full
    UNIX = "unix"  # a socket path (LMTP)


class NextHop(Value, frozen=True, kw_only=True, omit_defaults=True):
    kind: HopKind
    name: str
    port: int = 25


class Retry(Value, frozen=True, kw_only=True, omit_defaults=True):
    """When to try again, when to tell, when to give up (design: standards.md)."""

    intervals: tuple[float, ...] = (
        120.0,
        300.0,
        600.0,
        1200.0,
        2400.0,
        3600.0,
        7200.0,
        14400.0,
    )  # last repeats
    jitter: float = 0.1
    lifetime: float = 5 * 86400.0
    bounce_lifetime: float = 2 * 86400.0  # of mail with the null sender
    delay_notice: float = 4 * 3600.0  # to recipients with NOTIFY=DELAY
    delay_notice_default: float = 24 * 3600.0  # to recipients without NOTIFY


class DestinationLimits(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Per destination (site = the set of MX hosts), for all workers of the fleet together."""

    connections_start: int = 5
    connections: int = 20
    connection_rate: int = 0  # new ones in a minute; 0: no limit
    message_rate: int = 0  # in a minute; 0: no limit
    messages_per_connection: int = 100
    recipients_per_transaction: int = 100
    idle: float = 5.0  # seconds a session stays open for the next message


class Timeouts(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Client timeouts, seconds (RFC 5321 4.5.3.2)."""

    connect: float = 30.0
    command: float = 300.0  # banner, EHLO, MAIL, RCPT
    data: float = 120.0
    block: float = 180.0
    dot: float = 600.0


class Egress(Value, frozen=True, kw_only=True, omit_defaults=True):
    """What a session leaves with. Empty: the kernel chooses the address, `hostname` is the HELO name."""

    ipv4: str = ""
    ipv6: str = ""
    helo: str = ""


class SigningKey(Value, frozen=True, kw_only=True, omit_defaults=True):
    """A DKIMKey that signs. Without `secret` the key lies below the state folder (one machine)."""

    name: str  # the DKIMKey's metadata.name
    selector: str
    algorithm: str = "RSA"  # or "Ed25519"
    bits: int = 2048  # of RSA
    secret: SecretRef | None = None


class AutoDKIM(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Keys that are made, published and changed without anybody's help."""

    algorithms: tuple[str, ...] = ("RSA", "Ed25519")
    bits: int = 2048
    interval: float = 180 * 86400.0  # seconds until a successor is made
    overlap: float = 14 * 86400.0  # seconds the record of a key that signs no more stays


class Outbound(Value, frozen=True, kw_only=True, omit_defaults=True):
    """How mail of a domain leaves."""

    dkim: tuple[SigningKey, ...] = ()  # all of them sign
    auto: AutoDKIM | None = None  # on one machine, where the supervisor turns it into `dkim`
    srs: SecretRef | None = (
        None  # senders of what our aliases forward are rewritten; a secret a line, the first seals
    )
    batv: SecretRef | None = None  # our own senders are marked
    batv_enforced: bool = False  # bounces to an address without a mark are refused


class OwnPolicy(Value, frozen=True, kw_only=True, omit_defaults=True):
    """The MTA-STS policy we publish for a domain of ours."""

    mode: str  # "testing" or "enforce"
    max_age: int = 7 * 86400  # seconds
    mx: tuple[str, ...] = ()  # hosts beside the MTA's own


class PolicyServer(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Where MTA-STS policies are served by HTTPS."""

    host: str = ""  # "" = all addresses
    port: int = 443
    service_port: int = 443  # in a cluster: what the world asks, and the Service leads to `port`
    certificates: tuple[str, ...] = ()  # names in EngineConfig.certificates


class Domain(Value, frozen=True, kw_only=True, omit_defaults=True):
    """A MailDomain: a domain we receive for."""

    name: str  # the MailDomain's metadata.name
    domain: str
    mode: InboundMode
    next_hops: tuple[NextHop, ...] = ()  # LMTP, Relay: tried in order
    tls: TLSLevel = TLSLevel.MAY
    check: RecipientCheck = RecipientCheck.LIST
    callout: Callout = Callout()
    recipients: frozenset[str] = frozenset()  # local parts, case-folded
    aliases: dict[str, tuple[str, ...]] = {}  # local part, case-folded -> addresses
    catch_all: tuple[str, ...] = ()
    separator: str = "+"  # of a sub-address; "" = none
    maildir: str = "{domain}/{local}"  # below mail_root, Maildir mode
    reject_text: str = ""
    retry: Retry | None = None
    limits: DestinationLimits | None = None
    outbound: Outbound | None = None
    mta_sts: OwnPolicy | None = None


class ActionKind(enum.StrEnum):
    DIRECT = "Direct"
    SMARTHOST = "Smarthost"
    LMTP = "LMTP"
    HOLD = "Hold"
    REJECT = "Reject"
    DISCARD = "Discard"
    REDIRECT = "Redirect"


class HeaderMatch(Value, frozen=True, kw_only=True, omit_defaults=True):
    name: str  # lower case
    pattern: str  # glob over the unfolded value, case-insensitive


class Match(Value, frozen=True, kw_only=True, omit_defaults=True):
    """All given parts must hold (an empty tuple: not given); inside a part one must hold.

    Addresses are globs (`*@example.org`, `*.example.org` for the domain part alone, `<>` for the null sender).
    """

    listener_roles: tuple[ListenerRole, ...] = ()
    clients: tuple[str, ...] = ()  # networks
    workloads: tuple[str, ...] = ()  # ids of pod selections; which client address is in which, a shard beside says
    credentials: tuple[str, ...] = ()  # names of SMTPCredentials; "*": any
    certificates: tuple[str, ...] = ()  # DNS names of a client certificate, `*.` for one label
    senders: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()


class Action(Value, frozen=True, kw_only=True, omit_defaults=True):
    kind: ActionKind
    hops: tuple[NextHop, ...] = ()  # Smarthost, LMTP: tried in order
    username: SecretRef | None = None  # AUTH to the smarthost
    password: SecretRef | None = None
    text: str = ""  # Reject: the reply's text
    code: int = 550  # Reject
    status: str = "5.7.1"  # Reject: the enhanced code
    addresses: tuple[str, ...] = ()  # Redirect


class Rule(Value, frozen=True, kw_only=True, omit_defaults=True):
    """A RelayPolicy. EngineConfig.rules has them in the order they are asked.

    A foreign rule is of another namespace than the MTA's. It always has `workloads` (that namespace's own pods), and
    it is never asked about mail of our own (reports, what aliases and redirects lead to), which is everybody's.
    """

    name: str
    priority: int
    match: Match
    action: Action
    tls: TLSLevel = TLSLevel.BEST
    retry: Retry | None = None
    limits: DestinationLimits | None = None
    egress: Egress = Egress()
    client_certificate: str = ""  # a name in EngineConfig.certificates: what sessions show of us
    is_foreign: bool = False


class Suspicion(enum.StrEnum):
    """What a bad result of sender authentication leads to, mildest first."""

    ACCEPT = "Accept"
    QUARANTINE = "Quarantine"  # a header field
    HOLD = "Hold"
    REJECT = "Reject"


class Forgery(enum.StrEnum):
    """What follows where the author's domain wants its failures rejected."""

    ACCEPT = "Accept"
    QUARANTINE = "Quarantine"
    HOLD = "Hold"
    EVIDENCE = "Evidence"  # rejected where more than DMARC says so (RFC 9989 7.4), else as for p=quarantine
    REJECT = "Reject"


class OnTrouble(enum.StrEnum):
    """DNS did not answer."""

    ACCEPT = "Accept"
    DEFER = "Defer"


class SPFPolicy(Value, frozen=True, kw_only=True, omit_defaults=True):
    check: bool = True
    fail: Suspicion = Suspicion.ACCEPT
    soft_fail: Suspicion = Suspicion.ACCEPT
    perm_error: Suspicion = Suspicion.ACCEPT
    temp_error: OnTrouble = OnTrouble.ACCEPT
    trusted_clients: tuple[str, ...] = ()  # networks


class DKIMPolicy(Value, frozen=True, kw_only=True, omit_defaults=True):
    check: bool = True
    fail: Suspicion = Suspicion.ACCEPT
    unsigned: Suspicion = Suspicion.ACCEPT
    temp_error: OnTrouble = OnTrouble.ACCEPT


class DMARCPolicy(Value, frozen=True, kw_only=True, omit_defaults=True):
    check: bool = True
    reject: Forgery = Forgery.QUARANTINE
    quarantine: Suspicion = Suspicion.QUARANTINE
    bad_from: Suspicion = Suspicion.QUARANTINE
    temp_error: OnTrouble = OnTrouble.ACCEPT
    known_lists: tuple[str, ...] = ()  # domains
    aggregate_reports: bool = False
    organisation: str = ""  # in reports; "" = hostname
    contact: str = ""  # sender of reports; "" = postmaster at hostname
    failure_reports: bool = False


class ARCPolicy(Value, frozen=True, kw_only=True, omit_defaults=True):
    check: bool = True
    trusted_sealers: tuple[str, ...] = ()  # domains


class Access(Value, frozen=True, kw_only=True, omit_defaults=True):
    """An AccessPolicy. The defaults are what holds without one: results are written, failed DMARC is marked."""

    name: str = ""
    spf: SPFPolicy = SPFPolicy()
    dkim: DKIMPolicy = DKIMPolicy()
    dmarc: DMARCPolicy = DMARCPolicy()
    arc: ARCPolicy = ARCPolicy()


class SpoolSettings(Value, frozen=True, kw_only=True, omit_defaults=True):
    """Sizes and times of the spool (design: spool.md)."""

    path: str
    size: int = 0  # bytes the spool may use; 0 = what the volume has
    max_usage: float = 0.9  # of size, or of the volume; above it 452 4.3.1
    segment_bytes: int = 64 * 1024 * 1024
    blob_threshold: int = 256 * 1024
    lane_bytes: int = 256 * 1024 * 1024
    lane_messages: int = 2000
    reserve_bytes: int = 64 * 1024 * 1024
    cache_bytes: int = 64 * 1024 * 1024
    settle_delay: float = 0.1
    sync: bool = True  # only tests may switch it off: it is the crash harness's negative control


class HTTPSettings(Value, frozen=True, kw_only=True, omit_defaults=True):
    host: str = "127.0.0.1"
    port: int = 8025


class EngineConfig(Value, frozen=True, kw_only=True, omit_defaults=True):
    name: str  # the MTA's metadata.name
    hostname: str  # in greetings, EHLO, Received, Message-ID, reports
    listeners: tuple[Listener, ...]
    spool: SpoolSettings
    mail_root: str  # absolute
    state_dir: str  # absolute; self-signed pairs and the like
    domains: dict[str, Domain] = {}  # by domain
    rules: tuple[Rule, ...] = ()
    certificates: dict[str, Certificate] = {}
    credentials: dict[str, Credential] = {}  # by name
    access: Access = Access()
    resolver: tuple[str, ...] = ()  # "address" or "address@port"; empty: the system's resolv.conf
    double_bounce_to: str = ""  # "" = postmaster at the first domain that has mailboxes, else logged and dropped
    workers: int = 0  # 0 = CPU count
    outbound_sessions: int = 500  # per worker
    direct_port: int = 25  # where MX hosts of Direct destinations listen; for tests and unusual networks
    https_port: int = 443  # where MTA-STS policies are fetched; for tests and unusual networks
    http: HTTPSettings = HTTPSettings()
    tls_reports: bool = True  # TLS-RPT to the domains that ask for it
    policy_server: PolicyServer | None = None
    public_http: HTTPSettings | None = None  # in a pod: health, metrics, the operator's report; never the admin API
    drain_settle: float = 0.0  # seconds from "not ready" to the first 421, so that nobody is sent here any more
    retry: Retry = Retry()
    limits: DestinationLimits = DestinationLimits()
    timeouts: Timeouts = Timeouts()
    egress: Egress = Egress()
    alias_depth: int = 10
    alias_recipients: int = 1000  # a recipient may expand to this many
    user: str = ""  # drop to this user after the ports are bound ("" = stay)
    log_level: str = "info"


def content_hash(config: EngineConfig) -> str:
    """The hash of what the config says: 16 hex digits, the same on every machine for equal configs."""
    encoded = msgspec.json.encode(config, order="deterministic")
    return hashlib.sha256(encoded).hexdigest()[:16]
