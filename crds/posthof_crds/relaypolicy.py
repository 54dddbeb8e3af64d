"""RelayPolicy: one rule about who may relay, and how mail leaves.

Rules are asked by priority, highest first, then by name. A rule matches if all parts of its `match` hold.
A rule that lets mail out must be bounded (the last section says how): an open relay cannot be written.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from posthof_crds.core import CertRef, MTARef, Resource
from posthof_crds.delivery import Auth, DestinationLimits, Egress, NextHop, Retry
from posthof_crds.engine import ActionKind, ListenerRole, TLSLevel
from posthof_crds.fields import Address, Int, Line, Network, Part, Pattern, wrong
from posthof_crds.selectors import LabelSelector

_STATUS = re.compile(r"[45]\.\d{1,3}\.\d{1,3}")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_CERTIFICATE = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HEADER = re.compile(r"[!-9;-~]{1,76}")


def _is_status(value: str) -> str:
    if not _STATUS.fullmatch(value):
        raise wrong(f"{value!r} is not an enhanced status code", "Write 5.7.1 or the like (RFC 3463).")
    return value


def _is_header(value: str) -> str:
    if not _HEADER.fullmatch(value):
        raise wrong(f"{value!r} is not a header field's name", "Write the name alone, without a colon: Subject.")
    return value.lower()


def _is_text_pattern(value: str) -> str:
    if not value or not value.isprintable():
        raise wrong("this is not a pattern", 'Write a text with * for any run of characters, such as "*invoice*".')
    return value


def _is_credential(value: str) -> str:
    if value != "*" and not _NAME.fullmatch(value):
        raise wrong(f"{value!r} is not a name", "Write the metadata.name of a SMTPCredential, or * for any.")
    return value


CredentialName = Annotated[str, AfterValidator(_is_credential), Field(max_length=253)]


def _is_certificate_name(value: str) -> str:
    lowered = value.lower().rstrip(".")
    if not _CERTIFICATE.fullmatch(lowered):
        raise wrong(f"{value!r} is not a DNS name", "Write relay.example.org, or *.example.org for one label.")
    return lowered


CertificateName = Annotated[str, AfterValidator(_is_certificate_name), Field(max_length=253)]


class HeaderMatch(Part):
    """A header field's value. Headers are known only after DATA, so such a rule decides then, for the whole
    message."""

    name: Annotated[str, AfterValidator(_is_header)]
    """The field's name, without the colon; case does not count."""

    pattern: Annotated[str, AfterValidator(_is_text_pattern), Field(max_length=1000)] = "*"
    """A glob over the unfolded, decoded value; `*` is the only wildcard, case does not count. Default: the field is
    there. With several fields of the name, one is enough."""


class Match(Part):
    """Which mail the rule is for: every part that is given must hold; inside a part one entry is enough. Nothing
    given: all mail."""

    listener_roles: Annotated[tuple[ListenerRole, ...], Field(max_length=4)] = ()
    """Roles of the listener the mail came in by."""

    credentials: Annotated[tuple[CredentialName, ...], Field(max_length=1000)] = ()
    """SMTPCredentials of this namespace (in files: of the folder) that the client has logged in as, by metadata.name.
    `*`: any, in the MTA's own namespace also those of others. Who has logged in may write to everybody, by Direct,
    where no rule says otherwise."""

    certificates: Annotated[tuple[CertificateName, ...], Field(max_length=1000)] = ()
    """DNS names in the client's certificate, proven by the listener's `tls.clientCa`: relay.example.org, or
    *.relays.example.org for one label. Relaying by certificate (mutual TLS) needs no password and no address."""

    clients: Annotated[tuple[Network, ...], Field(max_length=10_000)] = ()
    """Networks of the client, such as 192.0.2.0/24. Compared with the peer's address, or the one a trusted balancer
    gives by PROXY."""

    namespaces: LabelSelector | None = None
    """In a cluster: labels of the namespaces of the client's pod; `{}` is every namespace. A pod is known by its
    address, so this counts on listeners of role Internal, and on others while clients come with their own addresses
    (ClientIPPreserved). On one machine it never holds."""

    pod_selector: LabelSelector | None = None
    """In a cluster: labels of the client's pod, in the namespaces above, or in the policy's own where there are none.
    On one machine it never holds."""

    senders: Annotated[tuple[Pattern, ...], Field(max_length=10_000)] = ()
    """Patterns over the envelope sender: bob@example.org, *@example.org, example.org, *.example.org, `<>`. Anyone can
    write any sender, so this alone never lets mail out."""

    recipients: Annotated[tuple[Pattern, ...], Field(max_length=10_000)] = ()
    """Patterns over the envelope recipient."""

    headers: Annotated[tuple[HeaderMatch, ...], Field(max_length=100)] = ()
    """Header fields; one of them must hold. Anyone can write any header, so this alone never lets mail out."""


class Action(Part):
    """What becomes of the mail."""

    type: ActionKind
    """Direct: to the recipient domain's MX hosts. Smarthost: to nextHops by SMTP. LMTP: to nextHops by LMTP. Hold:
    kept in the queue until somebody releases it. Reject: refused. Discard: accepted and forgotten. Redirect: to
    `addresses` instead of its recipients."""

    next_hops: Annotated[tuple[NextHop, ...], Field(max_length=16)] = ()
    """Smarthost, LMTP: where to, tried in order."""

    auth: Auth | None = None
    """Smarthost: log in with this. Needs tls Encrypt, Verify or DANE, except to loopback: a password is not for
    everybody."""

    text: Line = ""
    """Reject: the text of the reply. Default: that policy refuses it."""

    code: Annotated[Int, Field(ge=400, le=599)] = 550
    """Reject: the reply code. 4xx tells the sender to try again later."""

    status: Annotated[str, AfterValidator(_is_status)] | None = None
    """Reject: the enhanced status code (RFC 3463). Default: 5.7.1, or 4.7.1 for a 4xx code."""

    addresses: Annotated[tuple[Address, ...], Field(max_length=100)] = ()
    """Redirect: where to instead."""

    @model_validator(mode="after")
    def _fits_type(self) -> Self:
        self._only_for("nextHops", bool(self.next_hops), (ActionKind.SMARTHOST, ActionKind.LMTP))
        self._only_for("auth", self.auth is not None, (ActionKind.SMARTHOST,))
        self._only_for("text", bool(self.text), (ActionKind.REJECT,))
        self._only_for("addresses", bool(self.addresses), (ActionKind.REDIRECT,))
        if self.type in (ActionKind.SMARTHOST, ActionKind.LMTP) and not self.next_hops:
            raise wrong(f"{self.type} needs nextHops", "Write nextHops: [{host: smtp.example.org, port: 587}].")
        if self.type is ActionKind.REDIRECT and not self.addresses:
            raise wrong("Redirect needs addresses", "Write addresses: [bob@example.org].")
        for hop in self.next_hops:
            if self.type is ActionKind.SMARTHOST and hop.socket is not None:
                raise wrong("a socket speaks LMTP", "Use type LMTP, or a host.")
            if self.type is ActionKind.LMTP and (hop.mx is not None or hop.srv is not None):
                raise wrong("LMTP goes to a host or a socket", "Write {host: ...} or {socket: ...}.")
        if self.status is not None and self.status[0] != str(self.code)[0]:
            raise wrong(
                f"code {self.code} and status {self.status} disagree", f"Begin status with {self.code // 100}."
            )
        return self

    def _only_for(self, field: str, is_given: bool, kinds: tuple[ActionKind, ...]) -> None:
        if is_given and self.type not in kinds:
            raise wrong(f"{field} says nothing for {self.type}", f"Remove it, or use {' or '.join(kinds)}.")


class RelayPolicySpec(Part):
    """One rule."""

    priority: Annotated[Int, Field(ge=-1_000_000, le=1_000_000)] = 0
    """When the rule is asked: highest first; equal ones by name."""

    match: Match = Match()
    """Which mail it is for. Default: all mail, which only Reject, Discard and Redirect may say."""

    action: Action
    """What becomes of it."""

    mta_ref: MTARef | None = None
    """In a cluster: the one MTA that obeys it. Default: every MTA whose `policySelector` matches, in this namespace
    or in one that allows this namespace. A policy with `auth` needs it where the MTA is in another namespace, because
    what is in the Secret goes there. On one machine it is the folder's MTA."""

    tls: TLSLevel = TLSLevel.BEST
    """What outgoing sessions demand. Best (the default): the strictest that the destination publishes, which is DANE
    where its hosts have TLSA records, else MTA-STS where its domain has a policy, else as May. None: plain text. May:
    TLS if offered, any certificate, and plain text where TLS fails. Encrypt: TLS, any certificate. Verify: TLS with a
    certificate that is valid for the host's name (RFC 9525). DANE: TLSA records (RFC 7672) or no mail; needs a
    resolver that validates. MTASTS: an MTA-STS policy (RFC 8461) or no mail; only for Direct. What is not met is
    tried again, and told in the log and in `posthof queue`."""

    client_cert_ref: CertRef | None = None
    """The TLSCert that its sessions show where the host asks for a client certificate (mutual TLS), as a login or
    beside one. In a cluster it is the MTA's, so only policies of the MTA's own namespace may name one."""

    retry: Retry = Retry()
    """When mail of this rule is tried again. What is left out is the MTA's value."""

    limits: DestinationLimits = DestinationLimits()
    """Limits of its sessions. What is left out is the MTA's value."""

    egress: Egress = Egress()
    """Source addresses and EHLO name of its sessions. What is left out is the MTA's value."""


class RelayPolicy(Resource):
    """One rule about who may relay, and how mail leaves."""

    short: ClassVar[str] = "rp"

    api_version: Literal["posthof.dev/v1alpha1"]
    """posthof.dev/v1alpha1"""

    kind: Literal["RelayPolicy"]
    """RelayPolicy"""

    spec: RelayPolicySpec
    """What it shall be."""
