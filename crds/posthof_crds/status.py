"""What the operator reports about each kind: the status subresource. Nothing else writes it, and no manifest has it.

Rules of this file
- Models for the schema and the reference only; the operator writes plain dictionaries that these accept.
- Conditions and their reasons: reasons.py. Moments are RFC 3339 texts in UTC.
- Everything may be missing: an object that nobody has looked at has no status.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from posthof_crds.fields import Int, Part, Unit

Text = Annotated[str, Field(max_length=32768)]
Word = Annotated[str, Field(max_length=317)]
Count = Annotated[Int, Field(ge=0)]
Moment = Annotated[str, Field(max_length=64), Unit("moment")]


class Condition(Part):
    """One thing that is so, or is not."""

    type: Annotated[str, Field(max_length=316, min_length=1)]
    """Which condition."""

    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""

    reason: Annotated[str, Field(max_length=1024, min_length=1)]
    """Why, in one word of the list of reasons."""

    message: Text
    """Why, for a person; it names the mend."""

    observed_generation: Count | None = None
    """The generation of the object that was looked at."""

    last_transition_time: Moment
    """When `status` changed last."""


class Status(Part):
    """What all kinds report."""

    observed_generation: Count | None = None
    """The generation of the object that was looked at last (kstatus)."""

    conditions: Annotated[tuple[Condition, ...], Field(max_length=16)] | None = None
    """What is so and what is not."""


class Binding(Part):
    """What one MTA says about the object."""

    mta: Word
    """The MTA's name."""

    namespace: Word
    """The MTA's namespace."""

    conditions: Annotated[tuple[Condition, ...], Field(max_length=8)] | None = None
    """Accepted: whether the MTA obeys the object."""


class QueueStatus(Part):
    """Messages in the queue, by what they wait for."""

    total: Count | None = None
    """All of them."""

    ready: Count | None = None
    """Waiting for nothing but their turn."""

    deferred: Count | None = None
    """Waiting for the next try."""

    held: Count | None = None
    """Waiting for somebody's decision."""

    oldest_ready_seconds: Count | None = None
    """Age of the oldest mail that waits for its turn, in seconds."""

    oldest: Word | None = None
    """The same for people, such as 41s."""


class ConfigRevision(Part):
    """Which configuration the pods run."""

    desired: Word | None = None
    """The newest."""

    oldest_loaded: Word | None = None
    """The oldest one that a pod still runs."""


class ServicePort(Part):
    """Where a listener is reached."""

    name: Word
    """The listener."""

    port: Count
    """The port of the Service."""

    node_port: Count | None = None
    """The port of every node, where there is one."""


class ServiceStatus(Part):
    """The Services in front of the pods."""

    name: Word | None = None
    """The Service of the listeners for the world."""

    internal_name: Word | None = None
    """The Service of the listeners of role Internal."""

    type: Word | None = None
    """The type of the Service for the world."""

    cluster_ip: Annotated[Word | None, Field(alias="clusterIP")] = None
    """The address of the Service for the world, inside the cluster."""

    internal_cluster_ip: Annotated[Word | None, Field(alias="internalClusterIP")] = None
    """The address of the Service of role Internal, inside the cluster."""

    ports: Annotated[tuple[ServicePort, ...], Field(max_length=64)] | None = None
    """The ports of both."""


class MTAStatus(Status):
    """How the fleet is."""

    replicas: Count | None = None
    """Pods that exist."""

    ready_replicas: Count | None = None
    """Pods that are ready."""

    selector: Annotated[str, Field(max_length=4096)] | None = None
    """The labels of the pods, for the scale subresource."""

    ready: Word | None = None
    """Ready pods of those wanted, such as 3/3."""

    phase: Word | None = None
    """The state in one word: Healthy, ScalingUp, ScalingDown, Progressing, Degraded, Draining, Invalid or Paused."""

    queue: QueueStatus | None = None
    """The queue of all pods together."""

    config_revision: ConfigRevision | None = None
    """Which configuration the pods run."""

    addresses: Annotated[tuple[Word, ...], Field(max_length=64)] | None = None
    """Addresses and names at which the world reaches the listeners."""

    proven_hosts: Annotated[tuple[Word, ...], Field(max_length=256)] | None = None
    """MX hosts in the MTA-STS policies of its domains that were seen with a certificate the world believes; only
    policies all of whose hosts are here are published as `enforce`."""

    domains: Count | None = None
    """MailDomains that are accepted."""

    policies: Count | None = None
    """RelayPolicies that are accepted."""

    certificates: Count | None = None
    """TLSCerts that the listeners name."""

    service: ServiceStatus | None = None
    """The Services in front of the pods."""


class RecordStatus(Part):
    """A DNS record of the domain."""

    type: Word
    """The record's type: MX, TXT, CNAME or TLSA."""

    name: Word
    """The record's name."""

    purpose: Word | None = None
    """What it is for: mx, spf, dmarc, dkim, mtaSts, mtaStsHost, tlsRpt, dane or proof."""

    expected: Text | None = None
    """The text to publish."""

    observed: Text | None = None
    """What is published; several records are divided by a line end."""

    state: Literal["ok", "missing", "differs", "unknown", "off"]
    """ok: it is right. missing: nothing is published. differs: something else is published. unknown: DNS did not
    answer, or what to expect is not known. off: nothing is expected."""


class DNSStatus(Part):
    """The states of the records, for the columns."""

    mx: Word | None = None
    """The MX record's state."""

    spf: Word | None = None
    """The SPF record's state."""

    dmarc: Word | None = None
    """The DMARC record's state."""

    mta_sts: Word | None = None
    """The state of the record that announces the MTA-STS policy; left out where none is asked for."""


class Proof(Part):
    """The TXT record that proves the domain to be this namespace's."""

    name: Word
    """The record's name."""

    value: Annotated[str, Field(max_length=1024)]
    """The record's text."""


class DKIMRecordStatus(Part):
    """The record of a DKIM key of the domain."""

    key: Word
    """The DKIMKey."""

    name: Word
    """The record's name."""

    state: Word
    """The DKIMKey's phase."""


class DKIMStatus(Part):
    """The keys that sign the domain's mail."""

    state: Word
    """ok: a key of each algorithm signs. missing: none does yet. waiting: one of several does not yet. off: none is
    asked for."""

    records: Annotated[tuple[DKIMRecordStatus, ...], Field(max_length=64)] | None = None
    """One for each key."""


class MailDomainStatus(Status):
    """How the domain is."""

    dkim: DKIMStatus | None = None
    """The keys that sign its mail."""

    bindings: Annotated[tuple[Binding, ...], Field(max_length=64)] | None = None
    """What each MTA says about it."""

    dns_records: Annotated[tuple[RecordStatus, ...], Field(max_length=64)] | None = None
    """The records to publish, and what is published."""

    dns: DNSStatus | None = None
    """The states of the records, for the columns."""

    proof: Proof | None = None
    """The TXT record that proves the domain to be this namespace's; asked for where no MTA's allowedNamespaces covers
    it."""


class RelayPolicyStatus(Status):
    """How the rule is."""

    bindings: Annotated[tuple[Binding, ...], Field(max_length=64)] | None = None
    """What each MTA says about it."""

    shadowed_by: Word | None = None
    """An earlier rule that takes all of this rule's mail, so that this one is never asked."""

    target: Annotated[str, Field(max_length=1024)] | None = None
    """Where its mail goes, such as smtp.example.org:587."""


class AccessPolicyStatus(Status):
    """How the policy is."""

    bindings: Annotated[tuple[Binding, ...], Field(max_length=64)] | None = None
    """What each MTA says about it."""


class SMTPCredentialStatus(Status):
    """How the account is."""

    bindings: Annotated[tuple[Binding, ...], Field(max_length=64)] | None = None
    """What each MTA says about it."""

    username: Annotated[str, Field(max_length=1024)] | None = None
    """The name to log in with."""

    secret_name: Word | None = None
    """The Secret that holds its password."""

    last_used: Moment | None = None
    """When it sent last, to the minute."""

    messages_today: Count | None = None
    """Messages it sent since midnight UTC."""


class DKIMKeyStatus(Status):
    """How the key is."""

    phase: Word | None = None
    """Pending: the key is not there yet. Publishing: its record is not seen everywhere yet. Active: it signs.
    Retiring: it signs no more. Revoked: its record says so. Invalid."""

    domain: Word | None = None
    """The domain it signs for."""

    secret_name: Word | None = None
    """The Secret that holds the private key."""

    record: RecordStatus | None = None
    """The record to publish, and whether every authoritative server shows it."""

    active_since: Moment | None = None
    """Since when its record was seen at every authoritative server."""


class ServedBy(Part):
    """What one pod serves."""

    pod: Word
    """The pod."""

    serial: Word
    """The serial number of the certificate that its clients see."""


class TLSARecord(Part):
    """A TLSA record."""

    name: Word
    """Its name, such as _25._tcp.mx.example.org."""

    text: Word
    """Its data, such as 3 1 1 and the SHA-256 of a key."""

    key: Word
    """Whose: current, next, or old."""

    seen: Moment | None = None
    """Since when every authoritative server shows it."""

    until: Moment | None = None
    """Of an old key: when it may go, if all pods serve the new key."""


class TLSCertStatus(Status):
    """How the certificate is."""

    serial: Word | None = None
    """The serial number, in hex."""

    not_before: Moment | None = None
    """When its time begins."""

    not_after: Moment | None = None
    """When its time ends."""

    renewal_time: Moment | None = None
    """When its successor is asked for."""

    issuer: Word | None = None
    """Where it comes from: selfSigned, ca, acme, secretRef, certManager or csr."""

    secret_name: Word | None = None
    """The Secret that holds it."""

    served: Word | None = None
    """Pods that serve it, of those that should, such as 3/3."""

    served_by: Annotated[tuple[ServedBy, ...], Field(max_length=1000)] | None = None
    """What each pod serves."""

    failures: Count | None = None
    """Tries that failed since the last success."""

    next_attempt: Moment | None = None
    """When it is tried again."""

    tlsa: Annotated[tuple[TLSARecord, ...], Field(max_length=2000)] | None = None
    """With dane.mode Staged: the TLSA records that there shall be."""

    next_key: Word | None = None
    """Of the key that the next certificate will have: SHA-256 of its public half (SPKI), in hex. A TLSA record
    `3 1 1` with it may be published beside the present one's (RFC 7671 section 8.1)."""


STATUSES: dict[str, type[Status]] = {
    "MTA": MTAStatus,
    "MailDomain": MailDomainStatus,
    "RelayPolicy": RelayPolicyStatus,
    "AccessPolicy": AccessPolicyStatus,
    "SMTPCredential": SMTPCredentialStatus,
    "DKIMKey": DKIMKeyStatus,
    "TLSCert": TLSCertStatus,
}
