"""Rules inside one object that its fields alone do not say. Pure; each rule yields what it finds.

`anywhere` holds on one machine and in a cluster; `in_cluster` is about what a pod cannot do. The schema has the same
rules in CEL wherever CEL can say them (openapi.py); a test holds both to the same verdicts.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

from posthof_crds import bounds, mta
from posthof_crds.accesspolicy import AccessPolicy
from posthof_crds.compile import match_of
from posthof_crds.delivery import NextHop
from posthof_crds.dkimkey import DKIMKey
from posthof_crds.documents import Path
from posthof_crds.engine import SUBMISSION, ActionKind, Listener, ListenerRole, TLSLevel
from posthof_crds.maildomain import MailDomain
from posthof_crds.mta import MTA
from posthof_crds.ports import container_port, is_free
from posthof_crds.reasons import Reason
from posthof_crds.relaypolicy import RelayPolicy
from posthof_crds.smtpcredential import SMTPCredential
from posthof_crds.tlscert import TLSCert

AnyOfOurs = MTA | MailDomain | RelayPolicy | AccessPolicy | SMTPCredential | DKIMKey | TLSCert


class Flaw(NamedTuple):
    """`at`: the field's path. `instead`: what to write, a whole sentence or ""."""

    at: Path
    what: str
    instead: str = ""
    reason: Reason = Reason.INVALID


_SERVICE_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,48}[a-z0-9])?")
_PERHAPS_PLAIN = (TLSLevel.NONE, TLSLevel.MAY, TLSLevel.BEST)
_BOUNDED = "Write match.namespaces, podSelector or clients for those who may relay, or recipients with their domains."
_A_PODS_LISTENER = Listener(name="internal", role=ListenerRole.INTERNAL, host="", port=2525)


def anywhere(kind: AnyOfOurs) -> Iterator[Flaw]:
    """What is wrong with the object wherever it is used."""
    if isinstance(kind, MTA):
        yield from _listeners(kind)
    elif isinstance(kind, RelayPolicy):
        yield from _policy(kind)


def in_cluster(kind: AnyOfOurs) -> Iterator[Flaw]:
    """What is wrong with the object in a cluster alone."""
    if isinstance(kind, MTA):
        if not _SERVICE_NAME.fullmatch(kind.metadata.name):
            instead = "Use at most 50 lower-case letters, digits and -, and begin with a letter."
            yield Flaw(("metadata", "name"), "the name begins the names of Services", instead)
        yield from _ports(kind)
    elif isinstance(kind, MailDomain):
        yield from _no_sockets(("spec", "inbound", "nextHops"), kind.spec.inbound.next_hops)
    elif isinstance(kind, RelayPolicy):
        yield from _no_sockets(("spec", "action", "nextHops"), kind.spec.action.next_hops)
        yield from _rule_of_a_pod(kind)
    elif isinstance(kind, SMTPCredential):
        if kind.spec.dovecot is not None:
            instead = "Write ldap, oauth, secretRef or generate."
            yield Flaw(("spec", "dovecot"), "a pod has no such socket", instead)
    elif isinstance(kind, TLSCert) and kind.spec.issuer.files is not None:
        instead = "Write selfSigned, ca, acme, secretRef, certManager or csr."
        yield Flaw(("spec", "issuer", "files"), "a pod has no such files", instead)


# -- MTA -------------------------------------------------------------------------------------------------------------


def _listeners(mta: MTA) -> Iterator[Flaw]:
    seen: set[str] = set()
    for n, listener in enumerate(mta.spec.listeners):
        here: Path = ("spec", "listeners", n)
        yield from _submission(listener, here)
        if listener.name in seen:
            what = f'the name "{listener.name}" is taken by an earlier listener'
            yield Flaw((*here, "name"), what, "Give each listener a name of its own.")
        seen.add(listener.name)
        if listener.limits.stress_timeout > listener.limits.timeout:
            what = "stressTimeout is longer than timeout"
            yield Flaw((*here, "limits", "stressTimeout"), what, "Make it shorter: it is for bad times.")


def _submission(listener: mta.Listener, here: Path) -> Iterator[Flaw]:
    """Nobody logs in in the clear."""
    if listener.role not in SUBMISSION:
        if listener.auth is not None:
            what = f"auth says nothing on a listener of role {listener.role}"
            yield Flaw((*here, "auth"), what, "Remove it, or use role Submission or Submissions.")
        return
    has_ca = listener.tls is not None and listener.tls.client_ca is not None
    if listener.auth is not None and "EXTERNAL" in listener.auth.mechanisms and not has_ca:
        instead = "Write tls.clientCa, or remove EXTERNAL."
        yield Flaw((*here, "auth", "mechanisms"), "EXTERNAL needs a CA that signs clients", instead)
    wanted = "STARTTLS" if listener.role is ListenerRole.SUBMISSION else "Implicit"
    if listener.tls is None or listener.tls.mode != wanted:
        what = f"a listener of role {listener.role} needs tls of mode {wanted}: nobody logs in in the clear"
        yield Flaw((*here, "tls"), what, f"Write tls: {{mode: {wanted}, certRefs: [...]}}.")


def _ports(mta: MTA) -> Iterator[Flaw]:
    """Listeners that a pod cannot bind, or a Service cannot have."""
    taken: dict[int, str] = {}
    for n, listener in enumerate(mta.spec.listeners):
        at: Path = ("spec", "listeners", n, "port")
        bound = container_port(listener.port)
        if listener.port == 0:
            yield Flaw(at, "a Service needs a port", "Write 25, or another number.")
        elif not is_free(listener.port):
            yield Flaw(at, f"a pod needs port {bound} itself", "Use another port.")
        elif bound in taken:
            what = f"the pod's port for it, {bound}, is taken by listener {taken[bound]}"
            yield Flaw(at, what, "Use another port: 25 and 2525, 465 and 4465, 587 and 5587 are the same in a pod.")
        taken.setdefault(bound, listener.name)
        if listener.node_port is not None:
            if mta.spec.service.type == "ClusterIP":
                instead = "Write service.type: NodePort or LoadBalancer, or remove nodePort."
                yield Flaw((*at[:-1], "nodePort"), "a Service of type ClusterIP has no port on nodes", instead)
            if listener.role is ListenerRole.INTERNAL:
                what = "the listener of role Internal is for the cluster alone"
                yield Flaw((*at[:-1], "nodePort"), what, "Remove nodePort, or use role MX.")


# -- next hops, RelayPolicy ------------------------------------------------------------------------------------------


def _no_sockets(at: Path, hops: tuple[NextHop, ...]) -> Iterator[Flaw]:
    for n, hop in enumerate(hops):
        if hop.socket is not None:
            yield Flaw((*at, n, "socket"), "a pod has no such socket", "Write host: with the name of a Service.")


def _policy(policy: RelayPolicy) -> Iterator[Flaw]:
    spec = policy.spec
    has_password = spec.action.auth is not None
    if has_password and spec.tls in _PERHAPS_PLAIN and not all(map(_is_loopback, spec.action.next_hops)):
        what = f"auth with tls {spec.tls} could send the password in plain text"
        yield Flaw(("spec", "tls"), what, "Write tls: Verify, or Encrypt.")
    if spec.tls is TLSLevel.MTASTS and spec.action.type is not ActionKind.DIRECT:
        what = "an MTA-STS policy is the recipient domain's, for its own MX hosts"
        yield Flaw(("spec", "tls"), what, "Write tls: Verify, or DANE, or use action type Direct.")
    if spec.tls is TLSLevel.DANE and spec.action.type is ActionKind.LMTP:
        yield Flaw(("spec", "tls"), "DANE is for SMTP, and LMTP has no TLSA records", "Write tls: Verify.")


def _is_loopback(hop: NextHop) -> bool:
    if hop.host is None:
        return False
    try:
        return ipaddress.ip_address(hop.host).is_loopback
    except ValueError:
        return hop.host == "localhost"


def _rule_of_a_pod(policy: RelayPolicy) -> Iterator[Flaw]:
    spec = policy.spec
    if spec.egress.addresses:
        what = "a pod's address is the cluster's to choose"
        yield Flaw(("spec", "egress", "addresses"), what, "Remove addresses; helo may stay.")
    why = bounds.why_unbounded(match_of(policy), (_A_PODS_LISTENER,))
    if why and spec.action.type in bounds.LETS_OUT:
        what = f"this would be an open relay: {why}"
        yield Flaw(("spec", "match"), what, _BOUNDED, Reason.OPEN_RELAY)
