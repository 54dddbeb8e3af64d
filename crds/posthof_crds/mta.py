"""MTA: the house itself. Its name, its listeners, its spool, its defaults. A folder holds exactly one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from posthof_crds import engine
from posthof_crds.allowed import AllowedNamespace
from posthof_crds.autoscaling import Autoscaling, not_zero
from posthof_crds.core import CertRef, Resource, SecretKeyRef
from posthof_crds.delivery import DestinationLimits, Retry, Timeouts
from posthof_crds.engine import ListenerRole
from posthof_crds.fields import (
    FQDN,
    Address,
    Bool,
    Duration,
    FilePath,
    Int,
    IPAddress,
    ListenAddress,
    Network,
    ObjectName,
    Part,
    Port,
    PortName,
    RemotePort,
    ResolverAddress,
    Share,
    Size,
    bytes_between,
    seconds_between,
    wrong,
)
from posthof_crds.pods import Drain, NetworkPolicy, Observability, PodTemplate, Service
from posthof_crds.selectors import EVERYTHING, LabelSelector

_LIMITS = engine.ListenerLimits()
_SPOOL = engine.SpoolSettings(path="")
_MTA = engine.EngineConfig(
    name="", hostname="", listeners=(), spool=_SPOOL, mail_root="", state_dir=""
)  # only its defaults are read


Mechanism = Literal["PLAIN", "LOGIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "OAUTHBEARER", "XOAUTH2", "EXTERNAL"]
DEFAULT_MECHANISMS: tuple[Mechanism, ...] = ("SCRAM-SHA-256", "PLAIN", "LOGIN")


class ListenerTLS(Part):
    """TLS of one listener. Left out: the listener speaks plain SMTP only."""

    mode: Literal["STARTTLS", "Implicit"] = "STARTTLS"
    """STARTTLS: offered after EHLO (RFC 3207), mail without it is taken too, as the world's MX hosts must. Implicit:
    TLS from the first byte (RFC 8314)."""

    cert_refs: Annotated[tuple[CertRef, ...], Field(min_length=1, max_length=32)]
    """The TLSCerts to present; the client's SNI chooses among them, the first is for clients without SNI."""

    client_ca: SecretKeyRef | None = None
    """A key of a Secret with CA certificates (PEM). Clients are then asked for a certificate; one of these CAs proves
    their name, which RelayPolicies match (`match.certificates`) and AUTH EXTERNAL uses. A client without one is taken
    as before, one whose certificate does not hold is not: not for listeners of role MX, where strangers show
    anything. Default: nobody is asked."""


class ProxyProtocol(Part):
    """PROXY protocol v1 and v2, spoken by a load balancer in front of the listener."""

    trusted_cidrs: Annotated[tuple[Network, ...], Field(min_length=1, max_length=256)] = Field(alias="trustedCIDRs")
    """Networks of the balancers. A connection from them must begin with a PROXY header; from anywhere else a header
    is refused. Why a list: whoever may send the header may claim any client address."""


class ListenerAuth(Part):
    """How clients of a listener of role Submission or Submissions prove who they are (RFC 4954), always within
    TLS."""

    mechanisms: Annotated[tuple[Mechanism, ...], Field(min_length=1, max_length=8)] = DEFAULT_MECHANISMS
    """What is offered, in this order. PLAIN and LOGIN give us the password, inside TLS; every client has one of them.
    SCRAM-SHA-256 never does. SCRAM-SHA-256-PLUS is bound to the server's certificate as well, so that nobody between
    can pass it on; only for clients that see that certificate themselves, with no proxy that ends TLS before us.
    OAUTHBEARER and XOAUTH2 take bearer tokens, for SMTPCredentials with oauth. EXTERNAL takes the client's
    certificate, for SMTPCredentials with certificate; it needs tls.clientCa."""


class XClient(Part):
    """XCLIENT, spoken by a filter or gateway in front of the listener."""

    trusted_cidrs: Annotated[tuple[Network, ...], Field(min_length=1, max_length=256)] = Field(alias="trustedCIDRs")
    """Networks that may use XCLIENT. Whoever may use it may claim any client address and name."""


class ListenerLimits(Part):
    """Limits of one listener. What is of a client is of all workers of all pods together: each worker lets in its
    share, because it never asks the others; so a client whose connections fall unevenly meets a limit a little early.
    A client is an IPv4 address or an IPv6 /64."""

    sessions: Annotated[Int, Field(ge=1, le=1_000_000)] = _LIMITS.sessions
    """Open sessions a worker holds; more get 421. Above 90% of it `stressTimeout` is in force."""

    client_sessions: Annotated[Int, Field(ge=1, le=1_000_000)] = _LIMITS.client_sessions
    """Open sessions of one client; more get 421. Where this is less than the number of workers, they take turns."""

    client_session_rate: Annotated[Int, Field(ge=0, le=1_000_000)] = _LIMITS.client_session_rate
    """New sessions of one client in a minute; 0: no limit."""

    client_message_rate: Annotated[Int, Field(ge=0, le=1_000_000)] = _LIMITS.client_message_rate
    """Messages of one client in a minute; 0: no limit."""

    errors: Annotated[Int, Field(ge=1, le=10_000)] = _LIMITS.errors
    """Refused or unknown commands of one session before 421."""

    recipients: Annotated[Int, Field(ge=100, le=1_000_000)] = _LIMITS.recipients
    """Recipients of one transaction (RFC 5321 section 4.5.3.1.8 asks for at least 100); more get 452."""

    message_size: Annotated[Size, bytes_between("64Ki", "10Gi")] = _LIMITS.message_size
    """Size of a message, announced by SIZE (RFC 1870); larger ones get 552. Base64 makes a file a third larger."""

    command_line: Annotated[Size, bytes_between("512", "64Ki")] = _LIMITS.command_line
    """Length of a command line with its CRLF. The standard's 512 grow with extensions; long lines are attacks."""

    commands: Annotated[Int, Field(ge=0, le=10_000_000)] = _LIMITS.commands
    """Commands of one session before 421; 0: no limit."""

    messages: Annotated[Int, Field(ge=0, le=10_000_000)] = _LIMITS.messages
    """Messages of one session before 421; 0: no limit."""

    hops: Annotated[Int, Field(ge=10, le=1000)] = _LIMITS.hops
    """Received fields a message may have; with more it is in a loop and gets 554 (RFC 5321 section 6.3)."""

    timeout: Annotated[Duration, seconds_between("5s", "1h")] = _LIMITS.timeout
    """How long a client may be silent (RFC 5321 section 4.5.3.2.7)."""

    stress_timeout: Annotated[Duration, seconds_between("1s", "1h")] = _LIMITS.stress_timeout
    """The same while sessions run short, so that idle clients make room."""


class Listener(Part):
    """A port we receive on."""

    name: PortName
    """The listener's name in events and metrics, unique in the MTA."""

    role: ListenerRole
    """What the port is for. MX: mail from the world for our domains. Internal: mail from our own hosts, which may
    relay where a RelayPolicy says so. Submission and Submissions: mail from people and programs that log in as a
    SMTPCredential (RFC 6409); Submission needs tls of mode STARTTLS (port 587), Submissions of mode Implicit (port
    465), and nobody sends before both TLS and login are done."""

    address: ListenAddress = ""
    """The IP address to bind. Default: all addresses of the host, both families. A pod always binds all of its
    own."""

    port: Port
    """The TCP port; 25 for the world's mail. 0: any free port, for tests on one machine. In a cluster it is the port
    of the Service; the pod itself binds one above 1024 (2525 for 25)."""

    node_port: RemotePort | None = None
    """In a cluster: the port of every node, where service.type is NodePort or LoadBalancer. Default: the cluster
    chooses. On one machine it says nothing."""

    tls: ListenerTLS | None = None
    """TLS. Default: none is offered, because it needs a certificate."""

    auth: ListenerAuth | None = None
    """Role Submission, Submissions: how clients log in. Default: SCRAM-SHA-256, PLAIN and LOGIN."""

    proxy_protocol: ProxyProtocol | None = None
    """The PROXY protocol. Default: not spoken."""

    xclient: XClient | None = None
    """XCLIENT. Default: not offered to anybody."""

    bare_newlines: Literal["Refuse", "Normalise"] = "Refuse"
    """What becomes of a CR or LF that stands alone in DATA. Refuse: 550 5.5.2, the safe answer, since servers that
    differ about line ends let a message be smuggled inside another. Normalise: each becomes CRLF, for old senders of
    yours."""

    implementation: Literal["Native", "Aiosmtpd"] = "Native"
    """Which protocol code serves the port. Native: ours, with all extensions. Aiosmtpd: the aiosmtpd library, for
    people who bring handlers for it; it offers less and is slower."""

    limits: ListenerLimits = ListenerLimits()
    """Limits per client, session and message."""


class Spool(Part):
    """Where accepted mail is kept until it is delivered."""

    path: FilePath = "/var/spool/posthof"
    """The spool's folder, on a local disk. A relative path is relative to the current directory of `posthof up`. In a
    cluster it is on the claim, and this says nothing."""

    size: Size = _SPOOL.size
    """Bytes the spool may use; 0: what the volume has. Why: quotas that statfs does not show. In a cluster also the
    size of the claim that is made (0: 10Gi)."""

    storage_class_name: ObjectName | None = None
    """In a cluster: the StorageClass of the claim that is made. Default: the cluster's own."""

    existing_claim: ObjectName | None = None
    """In a cluster: a PersistentVolumeClaim of this namespace to keep mail on, instead of one that is made."""

    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    """In a cluster: who may mount the claim that is made. ReadWriteOnce: the pods of one node, so all pods run on
    one. ReadWriteMany: pods on many nodes, with storage that can do so."""

    deletion_policy: Literal["Retain", "Drain", "Delete"] = "Retain"
    """In a cluster: what becomes of the mail when the MTA is deleted. Retain: the claim stays, a new MTA of the same
    name goes on with it. Drain: pods deliver what is there first, the claim stays. Delete: the claim goes, and all
    mail in it."""

    max_usage: Annotated[Share, Field(ge=0.05)] = _SPOOL.max_usage
    """Share of the size or volume above which mail is refused with 452 4.3.1, while there is still room to
    deliver."""

    segment_size: Annotated[Size, bytes_between("64Ki", "1Gi")] = _SPOOL.segment_bytes
    """Length at which a segment file is closed and the next begun. Smaller: space comes back sooner, more files."""

    blob_threshold: Annotated[Size, bytes_between("4Ki", "16Mi")] = _SPOOL.blob_threshold
    """Content above this is streamed to a file of its own while it arrives, so a large mail never sits in memory."""

    lane_size: Annotated[Size, bytes_between("64Ki", "64Gi")] = _SPOOL.lane_bytes
    """Bytes of segments after which a worker opens another lane. A lane is what can be handed to another worker."""

    lane_messages: Annotated[Int, Field(ge=1, le=1_000_000)] = _SPOOL.lane_messages
    """Live messages after which a worker opens another lane."""

    reserve: Annotated[Size, bytes_between("0", "4Gi")] = _SPOOL.reserve_bytes
    """Bytes each worker keeps written, to be removed first when the disk is full: settling mail needs room too."""

    cache: Annotated[Size, bytes_between("0", "64Gi")] = _SPOOL.cache_bytes
    """Memory per worker for bodies just accepted, so that the first try does not read them back."""

    settle_delay: Annotated[Duration, seconds_between("1ms", "1s")] = _SPOOL.settle_delay
    """How long an outcome may wait for its sync. A crash inside it can cause a duplicate, never a loss."""

    @model_validator(mode="after")
    def _claim(self) -> Self:
        if self.existing_claim is not None and self.storage_class_name is not None:
            raise wrong("storageClassName says nothing beside existingClaim", "Keep one of the two.")
        return self


class Limits(Part):
    """Limits of the whole MTA."""

    outbound_sessions: Annotated[Int, Field(ge=1, le=100_000)] = _MTA.outbound_sessions
    """Sessions to other hosts at one time, per worker."""

    alias_depth: Annotated[Int, Field(ge=1, le=100)] = _MTA.alias_depth
    """Aliases that may lead to aliases, counted along one chain."""

    alias_recipients: Annotated[Int, Field(ge=1, le=100_000)] = _MTA.alias_recipients
    """Addresses one recipient may expand to."""

    destination: DestinationLimits = DestinationLimits()
    """Limits per destination, where a RelayPolicy or MailDomain has none of its own."""


class PolicyServer(Part):
    """Serving the MTA-STS policies of the MTA's domains (RFC 8461), by HTTPS."""

    address: ListenAddress = ""
    """On one machine: the IP address to bind. Default: all."""

    port: Annotated[Int, Field(ge=1, le=65535)] = 443
    """The port the world asks: 443. In a cluster it is a port of the public Service."""

    cert_refs: Annotated[tuple[CertRef, ...], Field(min_length=1, max_length=32)]
    """The TLSCerts to present. Each domain with `dns.mtaSts` is asked for as `mta-sts.<domain>`, so one of them has
    to have that name, and the world has to believe it."""


class HTTP(Part):
    """Health, metrics and the admin API. Calls that change something need the token in `stateDir`/admin.token."""

    address: ListenAddress = _MTA.http.host
    """The IP address to bind. Default: loopback, because queue contents are nobody else's business."""

    port: Port = _MTA.http.port
    """The TCP port. 0: any free port, for tests."""


class HouseEgress(Part):
    """What our sessions leave with."""

    addresses: Annotated[tuple[IPAddress, ...], Field(max_length=64)] = ()
    """Addresses mail leaves from. On one machine at most one IPv4 and one IPv6, which must be this host's (checked at
    start); default: the kernel chooses. In a cluster all that receivers see, such as those of the nodes or of a
    gateway: the SPF records of MailDomains are made from them, and routing is the cluster's. Why: reputation, and SPF
    records, belong to addresses."""

    helo: FQDN | None = None
    """The name given at EHLO. Default: the MTA's hostname. It should resolve to the source address (RFC 5321
    4.1.4)."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.addresses)) != len(self.addresses):
            raise wrong("an address is there twice", "Keep it once.")
        return self


def _is_user(value: str) -> str:
    if value and (
        not value.isascii() or not value.isprintable() or any(c in value for c in " :/") or len(value) > 32
    ):
        raise wrong(f"{value!r} is not a user name", "Write a user of this host, such as posthof.")
    return value


class MTASpec(Part):
    """The house."""

    hostname: FQDN
    """This server's name: in greetings, EHLO, Received, Message-ID and reports. It should resolve to the address mail
    leaves from, and that address back to it; many receivers refuse others."""

    listeners: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=64)]
    """The ports to receive on."""

    spool: Spool = Spool()
    """Where accepted mail is kept until it is delivered."""

    replicas: Annotated[Int, Field(ge=0, le=100), AfterValidator(not_zero)] = 1
    """In a cluster: how many pods run; never 0. With `autoscaling` it is what an HPA, KEDA or somebody else wrote
    last, and says nothing in mode Builtin. One machine is always one."""

    autoscaling: Autoscaling | None = None
    """In a cluster: who decides how many pods run. Default: `replicas` does."""

    service: Service = Service()
    """In a cluster: how the world reaches the listeners."""

    domain_selector: LabelSelector = EVERYTHING
    """In a cluster: labels of the MailDomains to receive for, in this namespace and in those allowed. Default: all. A
    MailDomain with `mtaRef` belongs to that MTA, whatever its labels. One machine takes every MailDomain of the
    folder."""

    policy_selector: LabelSelector = EVERYTHING
    """The same for RelayPolicies."""

    allowed_namespaces: Annotated[tuple[AllowedNamespace, ...], Field(max_length=64)] = ()
    """In a cluster: other namespaces whose MailDomains and RelayPolicies count, and what they may say. Default: none.
    Without leave a tenant's MailDomain captures nothing. On one machine all objects of the folder count."""

    drain: Drain = Drain()
    """In a cluster: how a pod ends."""

    pod_template: PodTemplate = PodTemplate()
    """In a cluster: what pods have beyond what Posthof itself needs."""

    network_policy: NetworkPolicy = NetworkPolicy()
    """In a cluster: the NetworkPolicy around the pods."""

    observability: Observability = Observability()
    """In a cluster: what makes the pods visible to others."""

    mail_root: FilePath = "/var/mail/posthof"
    """The folder below which Maildirs are (inbound mode Maildir). A relative path is relative to the current
    directory of `posthof up`. In a cluster it is on the claim, and this says nothing."""

    state_dir: FilePath = "/var/lib/posthof"
    """The folder for what must survive a restart and is not mail: self-signed key pairs, the admin token. In a
    cluster nothing is kept there, and this says nothing."""

    double_bounce_to: Address | None = None
    """Where a report goes that cannot be delivered, and mail to `postmaster` that has no other place. Default:
    postmaster at the first MailDomain with mailboxes, by name; without any, a Maildir for postmaster at
    `hostname`."""

    resolver: Annotated[tuple[ResolverAddress, ...], Field(max_length=8)] = ()
    """DNS servers, `address` or `address@port`, asked in order. Default: those of /etc/resolv.conf."""

    direct_port: RemotePort = _MTA.direct_port
    """The TCP port of the world's MX hosts, for mail that goes Direct. Another one only for tests, and for networks
    that translate it."""

    tls_reports: Bool = _MTA.tls_reports
    """Whether domains that ask for it (TLS-RPT, RFC 8460) get a report once a day of how TLS with their hosts went:
    policies, hosts, counts. It has the organisation and contact of the AccessPolicy's DMARC reports."""

    mta_sts: PolicyServer | None = None
    """Serve the MTA-STS policies of MailDomains with `dns.mtaSts`. Default: not served here."""

    https_port: RemotePort = _MTA.https_port
    """The TCP port where the world's MTA-STS policies are fetched. Another one only for tests, and for networks that
    translate it."""

    workers: Annotated[Int, Field(ge=0, le=256)] = _MTA.workers
    """Worker processes; 0: one for each CPU this process may use."""

    user: Annotated[str, AfterValidator(_is_user)] = ""
    """The user to become after the ports are bound. Default: stay who you are. Needed to bind port 25 as root and not
    remain root. In a cluster pods never are root, and this says nothing."""

    limits: Limits = Limits()
    """Limits of the whole MTA."""

    retry: Retry = Retry()
    """When to try again and when to give up, where a RelayPolicy or MailDomain has no answer of its own."""

    timeouts: Timeouts = Timeouts()
    """How long peers may be silent when we deliver."""

    egress: HouseEgress = HouseEgress()
    """Source addresses and EHLO name, where a RelayPolicy has none of its own."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Which events are written. info: everything that happens to a message. debug: health probes too. warning, error:
    less than one needs to find a message again."""

    http: HTTP = HTTP()
    """Health, metrics and the admin API. In a cluster the admin API is on the pod's loopback, health and metrics are
    on port 8080, and this says nothing."""


class MTA(Resource):
    """A mail transfer agent: one folder, or one fleet of pods, has one."""

    short: ClassVar[str] = "mta"

    api_version: Literal["posthof.dev/v1alpha1"]
    """posthof.dev/v1alpha1"""

    kind: Literal["MTA"]
    """MTA"""

    spec: MTASpec
    """What it shall be."""
