"""MailDomain: a domain we receive for. Who exists there, and where their mail goes."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from posthof_crds import engine, names
from posthof_crds.core import ConfigMapKeyRef, MTARef, Resource, SecretKeyRef
from posthof_crds.delivery import DestinationLimits, NextHop, Retry
from posthof_crds.dkimkey import Algorithm, Bits
from posthof_crds.dnsupdate import RFC2136
from posthof_crds.engine import InboundMode
from posthof_crds.fields import (
    FQDN,
    AddressOrLocal,
    Bool,
    Duration,
    Line,
    LocalPart,
    ObjectName,
    Part,
    one_of,
    seconds_between,
    wrong,
)
from posthof_crds.mailboxes import POSTMASTER

_CALLOUT = engine.Callout()
_AUTO = engine.AutoDKIM()
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


def _is_separator(value: str) -> str:
    if value and (len(value) != 1 or value not in "+-=_.#/~!%&$*^|?'`"):
        raise wrong(f"{value!r} is not a separator", 'Write one character such as "+" or "-", or "" for none.')
    return value


def _maildir(value: str) -> str:
    """A path below the mail root with {domain} and {local}: relative, no way out."""
    unknown = [name for name in _PLACEHOLDER.findall(value) if name not in ("domain", "local")]
    if unknown:
        raise wrong(f"unknown placeholder {{{unknown[0]}}}", "Known are {domain} and {local}.")
    rest = _PLACEHOLDER.sub("", value)
    if "{" in rest or "}" in rest or not value.isprintable():
        raise wrong("a brace is open, or a character cannot be printed", 'Write a path such as "{domain}/{local}".')
    if "{local}" not in value:
        raise wrong(
            "all mailboxes would be one folder", 'Write a path with {local} in it, such as "{domain}/{local}".'
        )
    if value.startswith("/") or any(part in ("", ".", "..") for part in value.split("/")):
        raise wrong(
            "a Maildir lies below the MTA's mailRoot", 'Write a relative path without "..": "{domain}/{local}".'
        )
    return value


Targets = Annotated[tuple[AddressOrLocal, ...], Field(min_length=1, max_length=10_000)]


class Callout(Part):
    """Asking the next hop whether a recipient exists: MAIL FROM:<>, RCPT TO, no message. Answers are remembered."""

    positive: Annotated[Duration, seconds_between("1s", "30d")] = _CALLOUT.positive
    """How long "yes" is believed. An old "yes" is also used while the next hop does not answer."""

    negative: Annotated[Duration, seconds_between("1s", "30d")] = _CALLOUT.negative
    """How long "no" is believed. Short: a mailbox just made should soon receive."""


class Recipients(Part):
    """Who exists: exactly one of list, listFrom, callout, any."""

    list_: Annotated[tuple[LocalPart, ...], Field(max_length=1_000_000)] | None = Field(default=None, alias="list")
    """The mailboxes: local parts, case does not count. `postmaster` exists without being listed."""

    list_from: ConfigMapKeyRef | None = None
    """The same list from a ConfigMap: one local part a line, `#` begins a comment."""

    callout: Callout | None = None
    """Ask the next hop (modes LMTP and Relay). `{}` takes the defaults."""

    any: Bool | None = None
    """`true`: everybody exists. What the next hop then refuses becomes a bounce to whoever the sender is said to be:
    backscatter, which gets servers listed. `posthof check` warns of it."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [
            name
            for name, value in (
                ("list", self.list_),
                ("listFrom", self.list_from),
                ("callout", self.callout),
                ("any", self.any),
            )
            if value is not None
        ]
        if len(given) != 1:
            found = "none of them is there" if not given else f"{' and '.join(given)} are there"
            raise wrong(f"recipients is exactly one of list, listFrom, callout, any; {found}", "Keep one of them.")
        if self.any is False:
            raise wrong("`any: false` does not say who exists", "Write a list, a callout, or `any: true`.")
        return self


class Inbound(Part):
    """What becomes of mail for the domain."""

    mode: InboundMode
    """LMTP: given to a mailbox server (RFC 2033). Relay: given to another mail server by SMTP. Alias: every address
    leads elsewhere, there are no mailboxes. Maildir: dropped below the MTA's mailRoot. Reject: refused, except
    postmaster."""

    next_hops: Annotated[tuple[NextHop, ...], Field(max_length=16)] = ()
    """Where LMTP and Relay deliver, tried in order. Needed for these modes, wrong for others."""

    tls: Literal["None", "May", "Encrypt", "Verify"] = "May"
    """What sessions to nextHops demand. None: plain text. May: TLS if offered. Encrypt: TLS, any certificate.
    Verify: TLS with a certificate that is valid for the host's name (RFC 9525)."""

    recipients: Recipients | None = None
    """Who exists; all others get 550 5.1.1 at RCPT TO. Required, except in modes Alias (the aliases are the list) and
    Reject. Why required: a server that accepts everybody first and bounces later sends spam in its own name."""

    aliases: Annotated[dict[LocalPart, Targets], Field(default_factory=dict, max_length=100_000)]
    """Local part -> addresses, or local parts of this domain. An alias of a mailbox's own name keeps a copy there if
    it names itself. A sub-address (`info+x`) finds the alias `info`; targets in our domains get the `+x` too."""

    catch_all: Annotated[tuple[AddressOrLocal, ...], Field(max_length=100)] = ()
    """Where mail for names goes that nobody has. Default: it is refused. Spammers guess names: expect much."""

    separator: Annotated[str, AfterValidator(_is_separator)] = "+"
    """What divides name and detail in a sub-address (bob+shop is bob's). "" switches sub-addresses off."""

    maildir: Annotated[str, AfterValidator(_maildir)] = "{domain}/{local}"
    """Mode Maildir: the Maildir's path below the MTA's mailRoot; {domain} and {local} are filled in, lower-case and
    without the detail."""

    reject_text: Line = ""
    """Mode Reject: the text of the refusal. Default: that the domain takes no mail."""

    @model_validator(mode="after")
    def _fits_mode(self) -> Self:
        needs_hops = self.mode in (InboundMode.LMTP, InboundMode.RELAY)
        if needs_hops and not self.next_hops:
            raise wrong(f"mode {self.mode} needs nextHops", "Write nextHops: [{host: mail.example.org}].")
        if self.next_hops and not needs_hops:
            raise wrong(f"nextHops say nothing in mode {self.mode}", "Remove nextHops, or use mode LMTP or Relay.")
        for hop in self.next_hops:
            if self.mode is InboundMode.RELAY and hop.socket is not None:
                raise wrong("a socket speaks LMTP", "Use mode LMTP, or a host.")
            if self.mode is InboundMode.LMTP and (hop.mx is not None or hop.srv is not None):
                raise wrong("LMTP goes to a host or a socket", "Write {host: ...} or {socket: ...}.")
        if self.mode is InboundMode.REJECT and (
            self.catch_all or {names.fold(k) for k in self.aliases} - {POSTMASTER}
        ):
            raise wrong(
                "mode Reject takes mail for postmaster alone", "Keep no alias but postmaster, and no catchAll."
            )
        self._check_recipients(needs_hops)
        if self.reject_text and self.mode is not InboundMode.REJECT:
            raise wrong(f"rejectText says nothing in mode {self.mode}", "Remove rejectText, or use mode Reject.")
        return self

    def _check_recipients(self, has_hops: bool) -> None:
        who = self.recipients
        if who is None:
            if self.mode not in (InboundMode.ALIAS, InboundMode.REJECT):
                hint = "Write recipients: {list: [bob]}, {callout: {}} or, knowing the danger, {any: true}."
                raise wrong("recipients is missing: who exists in this domain?", hint)
            if self.mode is InboundMode.ALIAS and not self.aliases and not self.catch_all:
                raise wrong("mode Alias without aliases or catchAll", "Write aliases, or use mode Reject.")
            return
        if self.mode is InboundMode.REJECT:
            raise wrong("recipients say nothing in mode Reject", "Remove recipients.")
        if who.callout is not None and not has_hops:
            raise wrong("callout asks a next hop, and this mode has none", "Write a list, or use mode LMTP or Relay.")
        if self.mode is InboundMode.ALIAS and who.any:
            raise wrong("mode Alias has no mailboxes, so `any` has nowhere to go", "Write catchAll instead.")
        if who.any and self.catch_all:
            raise wrong("catchAll is never reached: `any` accepts everybody", "Keep one of the two.")


def _is_record(value: str) -> str:
    if value and (not value.isascii() or not value.isprintable() or len(value) > 2000 or '"' in value):
        raise wrong("a TXT record is at most 2000 printable ASCII characters", "Write its text without quotes.")
    return value


def _is_spf(value: str) -> str:
    if value and value.split(" ", 1)[0].lower() != "v=spf1":
        raise wrong("an SPF record begins with v=spf1", 'Write the whole text: "v=spf1 mx -all".')
    return _is_record(value)


def _is_dmarc(value: str) -> str:
    if value and not re.match(r"v=DMARC1(\s*;|$)", value):
        raise wrong("a DMARC record begins with v=DMARC1", 'Write the whole text: "v=DMARC1; p=reject".')
    return _is_record(value)


def _is_tls_rpt(value: str) -> str:
    if value and not re.match(r"v=TLSRPTv1\s*;\s*rua\s*=", value):
        raise wrong(
            "a TLS-RPT record begins with v=TLSRPTv1; rua=", 'Write "v=TLSRPTv1; rua=mailto:tls@example.org".'
        )
    return _is_record(value)


_POLICY = engine.OwnPolicy(mode="testing")


class MTASTS(Part):
    """An MTA-STS policy (RFC 8461): servers that send to the domain demand TLS and a valid certificate. The MTA
    serves it (its `mtaSts`); what to publish in DNS is in the status, on one machine in `posthof mtasts`."""

    mode: Literal["Testing", "Enforce"] = "Testing"
    """Testing: senders only report what would fail. Enforce: they deliver by valid TLS or not at all. It is published
    as testing until every MX host in the policy was seen to present a certificate that the world believes."""

    max_age: Annotated[Duration, seconds_between("5m", "365d")] = float(_POLICY.max_age)
    """How long senders keep the policy. Longer protects better, and takes as long to take back."""

    mx: Annotated[tuple[FQDN, ...], Field(max_length=20)] = ()
    """MX hosts of the domain beside the MTA's own `hostname`."""


class DNS(Part):
    """The domain's records. In a cluster the operator compares them with what is published, and tells the exact text;
    one machine does not look."""

    publish: Literal["None", "ExternalDNS"] = "None"
    """None: the records are only checked. ExternalDNS: a DNSEndpoint object is made with them, for ExternalDNS to
    publish; its DNSEndpoint source must be switched on."""

    rfc2136: RFC2136 | None = None
    """In a cluster: the server that takes the records of the domain's DKIM keys by dynamic updates (RFC 2136), put
    there and taken away as the keys live. It changes no other record, whatever `publish` says about these."""

    spf: Annotated[str, AfterValidator(_is_spf)] | None = None
    """The text of the SPF record (RFC 7208). Default: made from the MTA's egress.addresses; without these the record
    is not judged. "": the domain needs none, nothing is checked."""

    dmarc: Annotated[str, AfterValidator(_is_dmarc)] | None = None
    """The text of the DMARC record (RFC 9989). Default: any valid record is right, and "v=DMARC1; p=none" is proposed
    where there is none. "": nothing is checked."""

    mta_sts: MTASTS | None = None
    """Publish an MTA-STS policy. Default: none; a record that is there is not looked at."""

    dane: Bool = False
    """In a cluster: whether the TLSA records of the domain's MX hosts (RFC 7672) are among `dnsRecords`, and whether
    they are published. They are those of the TLSCerts that the MTA's listeners of role MX name, with dane.mode
    Staged; their zone must be signed."""

    tls_rpt: Annotated[str, AfterValidator(_is_tls_rpt)] | None = None
    """The text of the TLS-RPT record (RFC 8460): where others report how TLS to the domain's hosts went. Default: not
    looked at."""


class DKIMRotation(Part):
    """When keys are changed for new ones."""

    interval: Annotated[Duration, seconds_between("1h", "3650d")] = _AUTO.interval
    """How old a key gets before its successor is made. The old one signs until the new one's record is seen at every
    authoritative server of the zone."""

    overlap: Annotated[Duration, seconds_between("1m", "365d")] = _AUTO.overlap
    """How long the record of a key that signs no more stays as it was, for mail that is on its way or read late.
    After that it is revoked (its record says `p=`) for as long again, and then goes."""


class AutoDKIM(Part):
    """Keys made, published and changed without help. In a cluster each is a DKIMKey object; on one machine they lie
    below the MTA's stateDir, and `posthof dkim` shows their records."""

    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1, max_length=2)] = ("RSA", "Ed25519")
    """Each message gets a signature with a key of each. RSA is what everybody can verify; Ed25519 (RFC 8463) costs
    little beside it."""

    size: Bits = 2048
    """Bits of RSA keys."""

    rotation: DKIMRotation = DKIMRotation()
    """When keys are changed for new ones."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        if len(set(self.algorithms)) != len(self.algorithms):
            raise wrong("an algorithm is named twice", "Name each once.")
        return self


class DKIMKeyRef(Part):
    """A DKIMKey of the same folder or namespace."""

    name: ObjectName
    """The DKIMKey's metadata.name."""


class DKIM(Part):
    """The keys that sign the domain's mail (RFC 6376): exactly one of auto, keyRefs."""

    auto: AutoDKIM | None = None
    """Keys made here. Write `auto: {}`."""

    key_refs: Annotated[tuple[DKIMKeyRef, ...], Field(min_length=1, max_length=8)] | None = None
    """DKIMKeys of yours. All that are active sign."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        one_of(self, ("auto", "key_refs"), "dkim")
        return self


class SRS(Part):
    """Sender rewriting."""

    secret_ref: SecretKeyRef
    """A key of a Secret with any random text, a secret a line: the first one seals, all are believed, so that a new
    one may be put on top. All pods share it."""


class BATV(Part):
    """Marks on our own envelope senders."""

    secret_ref: SecretKeyRef
    """As of srs."""

    enforce: Bool = False
    """Refuse bounces from the world to an address of the domain that has no mark: they are about mail that we never
    sent. Switch it on when all of the domain's mail has left through this MTA for two weeks."""


class Outbound(Part):
    """How mail of the domain leaves."""

    dkim: DKIM | None = None
    """Signatures. Only mail of our own hosts, accounts and reports is signed, never what the world sent. Default:
    none."""

    srs: SRS | None = None
    """What aliases of the domain send on to other domains leaves with an envelope sender of this domain, so that SPF
    passes at its next hop; bounces find their way back. Default: the sender stays, and SPF fails there."""

    batv: BATV | None = None
    """Envelope senders of the domain leave with a mark of ours, so that false bounces are known. Mailing lists that
    compare envelope senders take a marked one for somebody else. Default: none."""


class MailDomainSpec(Part):
    """A domain we receive for."""

    domain: FQDN
    """The domain, as A-labels or in its own script; both are the same. One MailDomain per domain."""

    inbound: Inbound
    """What becomes of mail for it."""

    mta_ref: MTARef | None = None
    """In a cluster: the one MTA that receives for it. Default: every MTA whose `domainSelector` matches, in this
    namespace or in one that allows this namespace. On one machine it is the folder's MTA."""

    outbound: Outbound = Outbound()
    """How mail of the domain leaves."""

    dns: DNS = DNS()
    """The domain's records."""

    retry: Retry = Retry()
    """When delivery to the next hop is tried again. What is left out is the MTA's value."""

    limits: DestinationLimits = DestinationLimits()
    """Limits of the sessions to the next hop. What is left out is the MTA's value."""


class MailDomain(Resource):
    """A domain we receive for."""

    short: ClassVar[str] = "md"

    api_version: Literal["posthof.dev/v1alpha1"]
    """posthof.dev/v1alpha1"""

    kind: Literal["MailDomain"]
    """MailDomain"""

    spec: MailDomainSpec
    """What it shall be."""
