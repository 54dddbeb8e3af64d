"""What the API server checks of one object: forms of texts (patterns) and rules in CEL. Values only.

Rules of this file
- Python decides (the models, single.py); this says the same again, as far as CEL can, so that a mistake is told at
  `kubectl apply`. Where CEL can say only a part of it, what it lets through is told as a condition.
- Every rule has cases in tests/crds/cel_cases.yaml, accepted and refused, for the models and for a real API server.
- Cost: CEL runs over bounded lists only. Lists of more than ten thousand entries have patterns and no CEL.
- A rule speaks of the object it is written for as `self`; absent fields are absent, for hardly any default is filled
  in (openapi.py says which).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel

from posthof_crds import (
    allowed,
    autoscaling,
    delivery,
    dkimkey,
    fields,
    maildomain,
    mta,
    pods,
    relaypolicy,
    selectors,
    smtpcredential,
    tlscert,
)
from posthof_crds.units import UNITS


class Rule(NamedTuple):
    """`name` is what the cases call it."""

    name: str
    cel: str
    message: str  # what is wrong, and what to write instead


class Form(NamedTuple):
    """The form of a text: `pattern` describes the whole of it."""

    max_length: int
    pattern: str = ""
    rules: tuple[Rule, ...] = ()
    min_length: int = 0


# -- forms of texts --------------------------------------------------------------------------------------------------

_X = "[^\\x00-\\x7f]"  # a character that is not ASCII: names may be written in their own script
_ALNUM = f"(?:[A-Za-z0-9]|{_X})"
_LABEL = f"{_ALNUM}(?:(?:[A-Za-z0-9-]|{_X}){{0,61}}{_ALNUM})?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_FQDN = rf"{_LABEL}(?:\.{_LABEL})+"
_ATOM = f"(?:[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~-]|{_X})+"
_QUOTED = f'"(?:[ !#-\\[\\]-~]|{_X}|\\\\[ -~])*"'
_LOCAL = rf"(?:{_ATOM}(?:\.{_ATOM})*|{_QUOTED})"
_NUMBER_LAST = r"\.[0-9]+$"
_GLOB_DOMAIN = rf"(?:\[[^\[\]@\s]+\]|(?:[A-Za-z0-9*.-]|{_X})+)"

_not_an_address = Rule(
    "domain-not-an-address",
    f"!self.matches('{_NUMBER_LAST}')".replace("\\", "\\\\"),
    "this is an address, and a name is wanted. Write a name such as mail.example.org.",
)
_address = Rule("ip-address", "isIP(self)", "this is not an IP address. Write 192.0.2.1 or 2001:db8::1.")
_listen_address = Rule(
    "listen-address",
    "self == '' || isIP(self)",
    "this is not an IP address. Write 192.0.2.1, 2001:db8::1 or nothing.",
)
_network = Rule(
    "network",
    "isIP(self) || isCIDR(self) && cidr(self).masked() == cidr(self)",
    "this is not a network. Write 192.0.2.0/24, 2001:db8::/32 or one address, no bits set behind the prefix.",
)
_resolver = Rule(
    "resolver-address",
    "isIP(self.split('@')[0]) && (!self.contains('@') || "
    "int(self.split('@')[1]) > 0 && int(self.split('@')[1]) < 65536)",
    "this is not a DNS server. Write address or address@port, such as 192.0.2.53@5353.",
)
_maildir = (
    Rule(
        "maildir-local",
        "self.contains('{local}')",
        'all mailboxes would be one folder. Write a path with {local} in it, such as "{domain}/{local}".',
    ),
    Rule(
        "maildir-below-root",
        "!self.split('/').exists(part, part == '.' || part == '..')",
        'a Maildir lies below the MTA\'s mailRoot. Write a relative path without "..": "{domain}/{local}".',
    ),
)
_MOMENT = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})$"
)
_MAILDIR_PART = r"(?:[^{}/\x00-\x1f]|\{domain\}|\{local\})+"

FORMS: dict[Callable[..., Any], Form] = {
    fields.fqdn: Form(253, f"^{_FQDN}$", (_not_an_address,)),
    fields.host_or_address: Form(253, rf"^(?:{_HOST}|\[?[0-9A-Fa-f:.]+\]?)$"),
    fields.srv_name: Form(253, rf"^_[A-Za-z0-9-]{{1,62}}\._(?:[Tt][Cc][Pp]|[Uu][Dd][Pp])(?:\.{_LABEL})+$"),
    fields.ip_address: Form(45, rules=(_address,)),
    fields.listen_address: Form(45, rules=(_listen_address,)),
    fields.resolver_address: Form(51, "^[0-9A-Fa-f:.]+(?:@[0-9]{1,5})?$", (_resolver,)),
    fields.network: Form(49, rules=(_network,)),
    fields.local_part: Form(64, f"^{_LOCAL}$".replace("&'*+", "&'+")),
    fields.address: Form(318, f"^{_LOCAL}@{_FQDN}$"),
    fields.address_or_local: Form(318, f"^{_LOCAL}(?:@{_FQDN})?$"),
    fields.pattern: Form(318, rf"^(?:<>|[^@\s]+@{_GLOB_DOMAIN}|{_GLOB_DOMAIN})$"),
    fields.one_line: Form(400, "^[ -~]*$"),
    fields.file_path: Form(4096, r"^[^\s\x00](?:[^\x00]*[^\s\x00])?$"),
    mta._is_user: Form(32, "^[!-.0-9;-~]*$"),
    maildomain._is_separator: Form(1, "^[-+=_.#/~!%&$*^|?'`]?$"),
    maildomain._maildir: Form(500, f"^{_MAILDIR_PART}(?:/{_MAILDIR_PART})*$", _maildir),
    maildomain._is_spf: Form(2000, "^(?:[vV]=[sS][pP][fF]1(?: [ !#-~]*)?)?$"),
    maildomain._is_dmarc: Form(2000, r"^(?:v=DMARC1\s*(?:;[ !#-~]*)?)?$"),
    maildomain._is_tls_rpt: Form(2000, r"^(?:v=TLSRPTv1\s*;\s*rua\s*=[ !#-~]*)?$"),
    dkimkey._is_selector: Form(63, f"^{dkimkey._SELECTOR.pattern}$"),
    smtpcredential.user_name: Form(320, min_length=1),
    smtpcredential.sender_pattern: Form(318, rf"^(?:<>|\{{user\}}|[^@\s]+@{_GLOB_DOMAIN}|{_GLOB_DOMAIN})$"),
    smtpcredential.https_url: Form(1000, r"^https://[^\s@#]+$"),
    smtpcredential.ldap_url: Form(1000, r"^ldaps?://[^\s@#/]+/?$"),
    smtpcredential.distinguished_name: Form(1000, r"^.*\{user\}.*$"),
    smtpcredential.moment: Form(64, _MOMENT),
    relaypolicy._is_credential: Form(253, r"^(?:\*|[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)$"),
    relaypolicy._is_status: Form(9, r"^[45]\.[0-9]{1,3}\.[0-9]{1,3}$"),
    relaypolicy._is_header: Form(76, "^[!-9;-~]{1,76}$"),
    relaypolicy._is_text_pattern: Form(1000, min_length=1),
    selectors.label_key: Form(317, f"^{selectors._KEY.pattern}$"),
    selectors.label_value: Form(63, f"^{selectors._VALUE.pattern}$"),
    pods.image: Form(500, f"^{pods._IMAGE.pattern}$"),
    pods.quantity: Form(32, f"^{pods._QUANTITY.pattern}$"),
    allowed.domain_pattern: Form(253, rf"^(?:[A-Za-z0-9*.-]|{_X}|\{{namespace\}})+$"),
    allowed.hop_pattern: Form(253, rf"^(?:[A-Za-z0-9*.:/-]|{_X}|\{{namespace\}})+$"),
}
"""By the validator of a field's type."""

DURATION = Form(51, "^" + "".join(f"(?:[0-9]{{1,9}}{unit})?" for unit in UNITS) + "$", min_length=2)
SIZE = Form(18, "^[0-9]{1,16}(?:Ki|Mi|Gi|Ti|k|M|G|T)?$")


def seconds(text: str) -> str:
    """CEL for a duration's whole seconds: CEL's own `duration` knows no days, which stand first."""
    days, rest = f"{text}.substring(0, {text}.indexOf('d'))", f"{text}.substring({text}.indexOf('d') + 1)"
    with_days = f"int({days}) * 86400 + duration('0s' + {rest}).getSeconds()"
    return f"({text}.contains('d') ? {with_days} : duration({text}).getSeconds())"


def between(bounds: fields.Range, unit: str) -> Rule:
    """The bounds of a duration or size."""
    message = f"this is out of range. Write {bounds.low_text} to {bounds.high_text}."
    if unit == "size":
        number = f"self >= {int(bounds.low)} && self <= {int(bounds.high)}"
        ends = ((int(bounds.low), ">="), (int(bounds.high), "<="))
        text = " && ".join(f"quantity(self).compareTo(quantity('{value}')) {sign} 0" for value, sign in ends)
        return Rule("size-bounds", f"type(self) == int ? {number} : {text}", message)
    low, high = (f"duration('{round(value * 1000)}ms')" for value in (bounds.low, bounds.high))
    exact = f"duration(self) >= {low} && duration(self) <= {high}"
    whole = f"{seconds('self')} >= {int(bounds.low)} && {seconds('self')} <= {int(bounds.high)}"
    return Rule("duration-bounds", f"self.contains('d') ? {whole} : {exact}", message)


# -- rules of objects ------------------------------------------------------------------------------------------------


def _one_of(name: str, names: tuple[str, ...], what: str) -> Rule:
    given = ", ".join(f"has(self.{each})" for each in names)
    choices = ", ".join(names)
    return Rule(name, f"[{given}].exists_one(x, x)", f"{what} is exactly one of {choices}. Keep one of them.")


def _only_for(name: str, field: str, given: str, kind: str, words: tuple[str, ...]) -> Rule:
    listed = ", ".join(f"'{word}'" for word in words)
    return Rule(
        name,
        f"!({given}) || self.{kind} in [{listed}]",
        f"{field} says nothing for this {kind}. Remove it, or use {' or '.join(words)}.",
    )


def _some(field: str) -> str:
    return f"has(self.{field}) && self.{field}.size() > 0"


_LIMITS = mta.ListenerLimits()
_BOUND = (
    "self.listeners.map(l, l.port == 25 ? 2525 : l.port == 465 ? 4465 : l.port == 587 ? 5587 : "
    "l.port < 1024 ? l.port + 10000 : l.port)"
)
_NARROW = (
    "(has(self.match.clients) && self.match.clients.size() > 0 && self.match.clients.all(c, !c.contains('/') || "
    "int(c.split('/')[1]) >= (c.contains(':') ? (c.startsWith('f') ? 7 : 16) : 8)))"
)
_PODS = (
    "has(self.match.namespaces) || has(self.match.podSelector) || "
    "has(self.match.certificates) && self.match.certificates.size() > 0 || "
    "has(self.match.credentials) && self.match.credentials.size() > 0"
)
_NAMED = (
    "(has(self.match.recipients) && self.match.recipients.size() > 0 && self.match.recipients.all(r, r != '<>' && "
    "(!r.contains('*') || r.lastIndexOf('@') > r.lastIndexOf('*') || "
    "r.charAt(r.lastIndexOf('*') + 1) == '.' && r.indexOf('.', r.lastIndexOf('*') + 2) > 0)))"
)

_INBOUND = (
    Rule(
        "inbound-needs-hops",
        f"!(self.mode in ['LMTP', 'Relay']) || ({_some('nextHops')})",
        "modes LMTP and Relay need nextHops. Write nextHops: [{host: mail.example.org}].",
    ),
    _only_for("inbound-hops-only", "nextHops", _some("nextHops"), "mode", ("LMTP", "Relay")),
    Rule(
        "inbound-lmtp-hops",
        "self.mode != 'LMTP' || !has(self.nextHops) || self.nextHops.all(h, !has(h.mx) && !has(h.srv))",
        "LMTP goes to a host. Write {host: ...}.",
    ),
    Rule(
        "inbound-reject-aliases",
        "self.mode != 'Reject' || !has(self.aliases) || self.aliases.all(k, k.lowerAscii() == 'postmaster')",
        "mode Reject takes mail for postmaster alone. Keep no alias but postmaster.",
    ),
    Rule(
        "inbound-reject-catch-all",
        f"self.mode != 'Reject' || !({_some('catchAll')})",
        "mode Reject takes mail for postmaster alone. Remove catchAll.",
    ),
    _only_for("inbound-reject-text", "rejectText", _some("rejectText"), "mode", ("Reject",)),
    Rule(
        "inbound-recipients",
        "self.mode in ['Alias', 'Reject'] || has(self.recipients)",
        "recipients is missing: who exists in this domain? Write recipients: {list: [bob]}, {callout: {}} or, "
        "knowing the danger, {any: true}.",
    ),
    Rule(
        "inbound-alias-something",
        f"self.mode != 'Alias' || has(self.recipients) || {_some('aliases')} || {_some('catchAll')}",
        "mode Alias without aliases or catchAll. Write aliases, or use mode Reject.",
    ),
    Rule(
        "inbound-reject-recipients",
        "self.mode != 'Reject' || !has(self.recipients)",
        "recipients say nothing in mode Reject. Remove recipients.",
    ),
    Rule(
        "inbound-callout-asks",
        "!has(self.recipients) || !has(self.recipients.callout) || self.mode in ['LMTP', 'Relay']",
        "callout asks a next hop, and this mode has none. Write a list, or use mode LMTP or Relay.",
    ),
    Rule(
        "inbound-alias-any",
        "self.mode != 'Alias' || !has(self.recipients) || !has(self.recipients.any)",
        "mode Alias has no mailboxes, so `any` has nowhere to go. Write catchAll instead.",
    ),
    Rule(
        "inbound-any-catch-all",
        f"!has(self.recipients) || !has(self.recipients.any) || !({_some('catchAll')})",
        "catchAll is never reached: `any` accepts everybody. Keep one of the two.",
    ),
)

_ACTION = (
    _only_for("action-hops-only", "nextHops", _some("nextHops"), "type", ("Smarthost", "LMTP")),
    _only_for("action-auth-only", "auth", "has(self.auth)", "type", ("Smarthost",)),
    _only_for("action-text-only", "text", _some("text"), "type", ("Reject",)),
    _only_for("action-addresses-only", "addresses", _some("addresses"), "type", ("Redirect",)),
    Rule(
        "action-needs-hops",
        f"!(self.type in ['Smarthost', 'LMTP']) || ({_some('nextHops')})",
        "Smarthost and LMTP need nextHops. Write nextHops: [{host: smtp.example.org, port: 587}].",
    ),
    Rule(
        "action-needs-addresses",
        f"self.type != 'Redirect' || ({_some('addresses')})",
        "Redirect needs addresses. Write addresses: [bob@example.org].",
    ),
    Rule(
        "action-lmtp-hops",
        "self.type != 'LMTP' || !has(self.nextHops) || self.nextHops.all(h, !has(h.mx) && !has(h.srv))",
        "LMTP goes to a host. Write {host: ...}.",
    ),
    Rule(
        "action-status-fits",
        "!has(self.status) || self.status.startsWith('4') == ((has(self.code) ? self.code : 550) < 500)",
        "code and status disagree. Begin status with the first digit of code.",
    ),
)

_MODE = "(has(self.mode) ? self.mode : 'Builtin')"
_BLIND = " && ".join(f"!has(self.targets.{name})" for name in ("oldestReady", "backlog", "sessions", "acceptLatency"))

RULES: dict[type[BaseModel], tuple[Rule, ...]] = {
    autoscaling.Autoscaling: (
        Rule(
            "autoscaling-zero",
            "!has(self.min) || self.min > 0",
            f"0 pods are no scale for a mail server: {autoscaling.ZERO}. Write min: 1, or more.",
        ),
        Rule(
            "autoscaling-max",
            f"{_MODE} == 'External' || has(self.max)",
            "max is missing: how many pods at most? Write max: 10, or another number.",
        ),
        Rule(
            "autoscaling-order",
            "!has(self.max) || self.max >= (has(self.min) ? self.min : 1)",
            "max is below min. Raise max or lower min.",
        ),
        Rule(
            "autoscaling-external",
            f"{_MODE} != 'External' || !has(self.min) && !has(self.max) && !has(self.targets) && !has(self.behavior)",
            "somebody else decides with mode External, so min, max, targets and behavior say nothing. Remove them, "
            "or choose another mode.",
        ),
        Rule(
            "autoscaling-hpa",
            f"{_MODE} != 'HPA' || !has(self.targets) || {_BLIND}",
            "an HPA sees cpu alone. Keep targets.cpu, or use mode Builtin or KEDA for the others.",
        ),
    ),
    selectors.Requirement: (
        Rule(
            "requirement-values",
            f"!(self.operator in ['In', 'NotIn']) || ({_some('values')})",
            "In and NotIn need values. Write values: [a, b].",
        ),
        Rule(
            "requirement-no-values",
            f"self.operator in ['In', 'NotIn'] || !({_some('values')})",
            "values say nothing for Exists and DoesNotExist. Remove values, or use In or NotIn.",
        ),
    ),
    delivery.NextHop: (
        _one_of("next-hop-one", ("host", "mx", "srv", "socket"), "a next hop"),
        Rule(
            "next-hop-port",
            "!has(self.port) || !has(self.srv) && !has(self.socket)",
            "a port says nothing here. Remove port: a SRV record brings its own.",
        ),
        Rule(
            "next-hop-socket",
            "!has(self.socket)",
            "a pod has no such socket. Write host: with the name of a Service.",
        ),
    ),
    delivery.DestinationLimits: (
        Rule(
            "limits-order",
            "!has(self.connections) || !has(self.connectionsStart) || self.connectionsStart <= self.connections",
            "connectionsStart is above connections. Lower connectionsStart or raise connections.",
        ),
    ),
    delivery.Egress: (
        Rule(
            "egress-addresses",
            f"!({_some('addresses')})",
            "a pod's address is the cluster's to choose. Remove addresses; helo may stay.",
        ),
    ),
    pods.Toleration: (
        Rule(
            "toleration-key",
            "has(self.key) || has(self.operator) && self.operator == 'Exists'",
            "a toleration without a key is for all taints. Write operator: Exists, or a key.",
        ),
        Rule(
            "toleration-value",
            f"!has(self.operator) || self.operator != 'Exists' || !({_some('value')})",
            "value says nothing for Exists. Remove value, or write operator: Equal.",
        ),
        Rule(
            "toleration-seconds",
            "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
            "tolerationSeconds is for NoExecute. Write effect: NoExecute, or remove it.",
        ),
    ),
    mta.ListenerLimits: (
        Rule(
            "listener-stress-timeout",
            f"(has(self.stressTimeout) ? {seconds('self.stressTimeout')} : {round(_LIMITS.stress_timeout)}) <= "
            f"(has(self.timeout) ? {seconds('self.timeout')} : {round(_LIMITS.timeout)})",
            "stressTimeout is longer than timeout. Make it shorter: it is for bad times.",
        ),
    ),
    mta.Listener: (
        Rule(
            "listener-submission",
            "self.role != 'Submission' || has(self.tls) && (!has(self.tls.mode) || self.tls.mode == 'STARTTLS')",
            "role Submission needs tls of mode STARTTLS: nobody logs in in the clear. Write tls: {certRefs: [...]}.",
        ),
        Rule(
            "listener-submissions",
            "self.role != 'Submissions' || has(self.tls) && has(self.tls.mode) && self.tls.mode == 'Implicit'",
            "role Submissions needs tls of mode Implicit. Write tls: {mode: Implicit, certRefs: [...]}.",
        ),
        Rule(
            "listener-auth",
            "!has(self.auth) || self.role in ['Submission', 'Submissions']",
            "auth says nothing here. Remove it, or use role Submission or Submissions.",
        ),
        Rule("listener-port-given", "self.port != 0", "a Service needs a port. Write 25, or another number."),
        Rule(
            "listener-port-free",
            "!(self.port in [8025, 8080])",
            "a pod needs ports 8025 and 8080 itself. Use another port.",
        ),
        Rule(
            "listener-node-port-internal",
            "self.role != 'Internal' || !has(self.nodePort)",
            "the listener of role Internal is for the cluster alone. Remove nodePort, or use role MX.",
        ),
    ),
    mta.Spool: (
        Rule(
            "spool-claim",
            "!has(self.existingClaim) || !has(self.storageClassName)",
            "storageClassName says nothing beside existingClaim. Keep one of the two.",
        ),
    ),
    mta.MTASpec: (
        Rule(
            "replicas-zero",
            "!has(self.replicas) || self.replicas > 0",
            f"0 pods are no scale for a mail server: {autoscaling.ZERO}. Write replicas: 1, or more.",
        ),
        Rule(
            "listeners-ports-differ",
            f"{_BOUND}.all(p, {_BOUND}.exists_one(q, q == p))",
            "two listeners need one port of a pod. Use another port: 25 and 2525, 465 and 4465, 587 and 5587 are the "
            "same in a pod.",
        ),
        Rule(
            "listeners-node-ports",
            "has(self.service) && has(self.service.type) && self.service.type != 'ClusterIP' || "
            "!self.listeners.exists(l, has(l.nodePort))",
            "a Service of type ClusterIP has no port on nodes. Write service.type: NodePort or LoadBalancer, or "
            "remove nodePort.",
        ),
    ),
    mta.MTA: (
        Rule(
            "mta-name",
            "self.metadata.name.matches('^[a-z](?:[a-z0-9-]{0,48}[a-z0-9])?$')",
            "the name begins the names of Services. Use at most 50 lower-case letters, digits and -, and begin "
            "with a letter.",
        ),
    ),
    maildomain.Recipients: (
        _one_of("recipients-one", ("list", "listFrom", "callout", "any"), "recipients"),
        Rule(
            "recipients-any",
            "!has(self.any) || self.any",
            "`any: false` does not say who exists. Write a list, a callout, or `any: true`.",
        ),
    ),
    maildomain.Inbound: _INBOUND,
    relaypolicy.Action: _ACTION,
    relaypolicy.RelayPolicySpec: (
        Rule(
            "policy-bounded",
            f"!(self.action.type in ['Direct', 'Smarthost', 'LMTP']) || has(self.match) && ({_PODS} || {_NARROW} || "
            f"{_NAMED})",
            "this would be an open relay. Write match.namespaces, podSelector, credentials or clients for those who "
            "may relay, or recipients with their domains.",
        ),
        Rule(
            "policy-password",
            "!has(self.action.auth) || !(self.tls in ['None', 'May', 'Best']) || !has(self.action.nextHops) || "
            "self.action.nextHops.all(h, has(h.host) && (h.host == 'localhost' || isIP(h.host) && "
            "ip(h.host).isLoopback()))",
            "auth with tls None, May or Best could send the password in plain text. Write tls: Verify, or Encrypt.",
        ),
        Rule(
            "policy-mta-sts",
            "self.tls != 'MTASTS' || self.action.type == 'Direct'",
            "an MTA-STS policy is the recipient domain's, for its own MX hosts. Write tls: Verify, or DANE.",
        ),
        Rule(
            "policy-dane",
            "self.tls != 'DANE' || self.action.type != 'LMTP'",
            "DANE is for SMTP, and LMTP has no TLSA records. Write tls: Verify.",
        ),
    ),
    smtpcredential.SMTPCredentialSpec: (
        Rule(
            "credential-password",
            "[has(self.secretRef), has(self.generate), has(self.oauth), has(self.dovecot), has(self.ldap)]"
            ".filter(given, given).size() < 2",
            "more than one of secretRef, generate, oauth, dovecot and ldap is given. Keep one.",
        ),
        Rule(
            "credential-proof",
            "has(self.secretRef) || has(self.generate) || has(self.oauth) || has(self.ldap) || "
            "has(self.certificate) || has(self.podSelector)",
            "nobody can be this account. Write secretRef, generate: {}, oauth, ldap, certificate or podSelector.",
        ),
        Rule("credential-dovecot", "!has(self.dovecot)", "a pod has no such socket. Write ldap, oauth or secretRef."),
        Rule(
            "credential-senders",
            "has(self.allowedSenders) && size(self.allowedSenders) > 0 || has(self.domainRef)",
            "it may send as nobody. Write allowedSenders: [bob@example.org], or domainRef.",
        ),
        Rule(
            "credential-username",
            "!has(self.username) || has(self.secretRef) || has(self.generate)",
            "username says nothing without a password. Remove it, or write secretRef or generate.",
        ),
    ),
    smtpcredential.OAuth: (_one_of("oauth-one", ("jwksURL", "jwksSecretRef", "introspection"), "oauth"),),
    tlscert.Issuer: (
        _one_of("issuer-one", ("selfSigned", "ca", "acme", "secretRef", "certManager", "csr", "files"), "issuer"),
        Rule(
            "issuer-files",
            "!has(self.files)",
            "a pod has no such files. Write selfSigned, ca, acme, secretRef, certManager or csr.",
        ),
    ),
    tlscert.Solver: (_one_of("solver-one", ("http01", "dns01"), "solver"),),
    tlscert.DNS01: (_one_of("dns01-one", ("rfc2136", "dnsEndpoint"), "dns01"),),
    dkimkey.DKIMKeySpec: (
        Rule(
            "dkim-size",
            "!has(self.size) || !has(self.algorithm) || self.algorithm == 'RSA'",
            "an Ed25519 key has no choice of size. Remove size, or write algorithm: RSA.",
        ),
    ),
    maildomain.DKIM: (_one_of("dkim-one", ("auto", "keyRefs"), "dkim"),),
    tlscert.Dane: (
        Rule(
            "dane-one",
            "!has(self.rfc2136) || !has(self.dnsEndpoint)",
            "dane is published by rfc2136 or by dnsEndpoint. Remove one of them.",
        ),
    ),
    tlscert.PrivateKey: (
        Rule(
            "private-key-size",
            "!has(self.size) || (self.size < 1024) == (!has(self.algorithm) || self.algorithm == 'ECDSA')",
            "there are no keys of that size. ECDSA has 256 and 384 bits, RSA 2048, 3072 and 4096.",
        ),
    ),
    tlscert.TLSCertSpec: (
        Rule(
            "dane-staged",
            "!has(self.dane) || !has(self.dane.mode) || self.dane.mode != 'Staged' || "
            "(has(self.privateKey) && has(self.privateKey.rotationPolicy) && "
            "self.privateKey.rotationPolicy == 'Staged')",
            "dane.mode Staged needs the next key early. Write privateKey: {rotationPolicy: Staged}.",
        ),
        Rule(
            "renew-before-duration",
            f"!has(self.renewBefore) || {seconds('self.renewBefore')} < "
            f"(has(self.duration) ? {seconds('self.duration')} : 7776000)",
            "renewBefore is not shorter than duration. Make it shorter, or duration longer.",
        ),
    ),
}
"""By the model they are about."""
