"""One object of a cluster, read, judged by itself, and made small: what an MTA's configuration is assembled from.

Rules of this file
- Pure: `part_of` looks at one object and at nothing else. No pydantic object outlives it: 10,000 MailDomains stay in
  a few tens of megabytes, so a caller keeps the part of every object and makes a new one when the object changes.
- Names are `namespace/name`; a reference to a Secret or ConfigMap is always into the object's own namespace.
- What the MTA's own values are needed for (retry, limits, egress) stays beside the value until `fleet.assemble`.
- A wrong object has flaws and no value. It keeps its name, labels and mtaRef, so that the right MTA can say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from pydantic import ValidationError

from posthof_crds import engine, rules, single
from posthof_crds.accesspolicy import AccessPolicy
from posthof_crds.compile import (
    Defaults,
    access_of,
    certificate_of,
    credential_of,
    credential_pods,
    domain_of,
    given,
    rule_of,
    selection_of,
    signing_key_of,
)
from posthof_crds.core import API_VERSION
from posthof_crds.dkimkey import DKIMKey
from posthof_crds.documents import Document, dotted
from posthof_crds.engine import EngineConfig, KeyPair, SecretRef
from posthof_crds.maildomain import MailDomain
from posthof_crds.manifests import Entry, Manifests
from posthof_crds.mistakes import explain
from posthof_crds.mta import MTA
from posthof_crds.reasons import Reason
from posthof_crds.relaypolicy import RelayPolicy
from posthof_crds.selectors import Selection, parse_selection
from posthof_crds.smtpcredential import SMTPCredential
from posthof_crds.tlscert import TLSCert

THUMBPRINT = "thumbprint"  # of an ACME account, beside its key

AnyModel = MTA | MailDomain | RelayPolicy | AccessPolicy | SMTPCredential | DKIMKey | TLSCert

MODELS: dict[str, type[AnyModel]] = {
    "MTA": MTA,
    "MailDomain": MailDomain,
    "RelayPolicy": RelayPolicy,
    "AccessPolicy": AccessPolicy,
    "SMTPCredential": SMTPCredential,
    "DKIMKey": DKIMKey,
    "TLSCert": TLSCert,
}
_NOWHERE = Path("/")
MADE_FOR = "posthof.dev/dkim-of"  # label of a DKIMKey that was made: the MailDomain's name


class Flaw(NamedTuple):
    """What is wrong with an object: where (`spec.domain`), what, and a sentence that says what to write instead."""

    field: str
    what: str
    instead: str = ""
    reason: Reason = Reason.INVALID

    def __str__(self) -> str:
        text = f"{self.field}: {self.what}" if self.field else self.what
        return f"{text}. {self.instead}" if self.instead else f"{text}."


class PartKey(NamedTuple):
    kind: str
    namespace: str
    name: str


class Changes(msgspec.Struct, frozen=True):
    """Values of retry and limits that the object gives itself; the others are the MTA's."""

    retry: tuple[tuple[str, Any], ...] = ()
    limits: tuple[tuple[str, Any], ...] = ()


class DKIMPart(NamedTuple):
    """A DKIMKey."""

    key: engine.SigningKey  # its secret is "namespace/name"
    domain: str  # the MailDomain's metadata.name
    is_auto: bool  # made for that MailDomain
    signs: bool  # the operator has seen its record at every authoritative server


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """An object as `assemble` needs it. Exactly one of domain, rule, access, certificate is there, or flaws are."""

    kind: str
    namespace: str
    name: str
    created: str = ""  # RFC 3339, as the API server writes it: texts in the order of time
    labels: dict[str, str] = {}
    mta: tuple[str, str] | None = None  # mtaRef: (namespace, name)
    flaws: tuple[Flaw, ...] = ()
    domain: engine.Domain | None = None
    rule: engine.Rule | None = None
    access: engine.Access | None = None
    credential: engine.Credential | None = None
    domain_ref: str = ""  # SMTPCredential: "namespace/name" of the MailDomain as which it sends
    certificate: engine.Certificate | None = None
    dkim: DKIMPart | None = None
    signs_with: tuple[str, ...] | None = None  # MailDomain: the DKIMKeys it names; None: those that were made for it
    changes: Changes | None = None
    list_from: tuple[str, str] | None = None  # ("namespace/name" of the ConfigMap, key)
    selection: Selection | None = None
    named_secret: str = ""  # RelayPolicy: "namespace/name" of the Secret it names, also while it is wrong elsewhere

    @property
    def key(self) -> PartKey:
        return PartKey(self.kind, self.namespace, self.name)

    @property
    def full(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def config_map(self) -> str:
        """ "namespace/name" of the ConfigMap it reads, "" where there is none."""
        return self.list_from[0] if self.list_from else ""

    @property
    def secrets(self) -> tuple[SecretRef, ...]:
        """The keys of Secrets it needs; their names are "namespace/name"."""
        if self.rule is not None:
            return tuple(ref for ref in (self.rule.action.username, self.rule.action.password) if ref is not None)
        if self.credential is not None:
            return credential_secrets(self.credential)
        return secrets_of(self.certificate) if self.certificate is not None else ()


def credential_secrets(credential: engine.Credential) -> tuple[SecretRef, ...]:
    """The keys of Secrets an account needs."""
    oauth = credential.oauth
    tokens = (oauth.jwks, oauth.client_id, oauth.client_secret) if oauth is not None else ()
    return tuple(ref for ref in (credential.verifier, *tokens) if ref is not None)


def part_of(kind: str, raw: Mapping[str, Any]) -> Part:
    """The part of one object as the API server has it. Never raises for what stands in the object."""
    metadata = raw["metadata"]
    namespace = str(metadata.get("namespace") or "default")
    model, flaws = read(kind, raw)
    body: dict[str, Any] = {}
    if isinstance(model, MailDomain):
        domain = _domain(model, namespace)
        flaws = (*flaws, *_dead_ends(model, domain))
        body = {"domain": domain, "changes": _changes(model.spec), "list_from": _list_from(model, namespace)}
        body["signs_with"] = _signs_with(model)
    elif isinstance(model, RelayPolicy):
        body = {"rule": _rule(model, namespace), "changes": _changes(model.spec), "selection": selection_of(model)}
    elif isinstance(model, AccessPolicy):
        body = {"access": msgspec.structs.replace(access_of(model), name=f"{namespace}/{model.metadata.name}")}
    elif isinstance(model, SMTPCredential):
        body = _credential(model, namespace)
    elif isinstance(model, DKIMKey):
        body = {"dkim": _dkim(model, namespace, raw)}
    elif isinstance(model, TLSCert):
        body = {"certificate": _certificate(model, namespace)}
    return Part(
        kind=kind,
        namespace=namespace,
        name=str(metadata["name"]),
        created=str(metadata.get("creationTimestamp") or ""),
        labels=dict(metadata.get("labels") or {}),
        mta=_mta_ref(raw, namespace),
        flaws=flaws,
        named_secret=_named_secret(raw, namespace),
        **({} if flaws else body),
    )


def read(kind: str, raw: Mapping[str, Any]) -> tuple[AnyModel | None, tuple[Flaw, ...]]:
    """The model of one object, or what is wrong with it. Status and most of the metadata are not looked at."""
    metadata = {key: raw["metadata"][key] for key in ("name", "namespace") if key in raw["metadata"]}
    value = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata}
    value |= {key: part for key, part in raw.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    model = MODELS[kind]
    try:
        found = model.model_validate(value)
    except ValidationError as error:
        problems = explain(error, model, Document("", 1, value, {}))
        return None, tuple(Flaw(each.path, each.what, each.instead) for each in problems)
    flaws = [*single.anywhere(found), *single.in_cluster(found)]
    return found, tuple(Flaw(dotted(each.at), each.what, each.instead, each.reason) for each in flaws)


def _mta_ref(raw: Mapping[str, Any], namespace: str) -> tuple[str, str] | None:
    """Also of an object that is wrong elsewhere."""
    spec = raw.get("spec")
    ref = spec.get("mtaRef") if isinstance(spec, Mapping) else None
    if not isinstance(ref, Mapping) or not isinstance(ref.get("name"), str):
        return None
    return str(ref.get("namespace") or namespace), str(ref["name"])


def _named_secret(raw: Mapping[str, Any], namespace: str) -> str:
    """Also of an object that is wrong elsewhere."""
    at: Any = raw.get("spec")
    if raw.get("kind") == "SMTPCredential" and isinstance(at, Mapping) and "generate" in at:
        return f"{namespace}/{raw['metadata']['name']}-smtp"
    is_credential = raw.get("kind") == "SMTPCredential"
    for step in ("secretRef", "name") if is_credential else ("action", "auth", "secretName"):
        at = at.get(step) if isinstance(at, Mapping) else None
    return f"{namespace}/{at}" if isinstance(at, str) else ""


def _changes(spec: Any) -> Changes | None:
    retry, limits = given(spec.retry), given(spec.limits)
    return Changes(retry, limits) if retry or limits else None


def _domain(model: MailDomain, namespace: str) -> engine.Domain:
    domain = domain_of(model, Manifests(), _NOWHERE, Defaults())
    name = f"{namespace}/{model.metadata.name}"
    return msgspec.structs.replace(domain, name=name, retry=None, limits=None, outbound=_outbound(domain, namespace))


def _outbound(domain: engine.Domain, namespace: str) -> engine.Outbound | None:
    """Its keys come from the DKIMKeys, in `fleet`."""
    out = domain.outbound
    if out is None:
        return None
    found = msgspec.structs.replace(
        out,
        auto=None,
        dkim=(),
        srs=_of_namespace(out.srs, namespace) if out.srs else None,
        batv=_of_namespace(out.batv, namespace) if out.batv else None,
    )
    return found if found != engine.Outbound() else None


def _signs_with(model: MailDomain) -> tuple[str, ...] | None:
    dkim = model.spec.outbound.dkim
    if dkim is not None and dkim.auto is not None:
        return None
    return tuple(ref.name for ref in (dkim.key_refs if dkim is not None else None) or ())


def _dkim(model: DKIMKey, namespace: str, raw: Mapping[str, Any]) -> DKIMPart:
    spec, name = model.spec, model.metadata.name
    secret = spec.secret_ref
    ref = SecretRef(name=f"{namespace}/{name}-dkim", key="private.pem")
    if secret is not None:
        ref = SecretRef(name=f"{namespace}/{secret.name}", key=secret.key)
    key = msgspec.structs.replace(signing_key_of(model), name=f"{namespace}/{name}", secret=ref)
    is_auto = (raw["metadata"].get("labels") or {}).get(MADE_FOR) == spec.domain_ref.name
    status = raw.get("status")
    phase = status.get("phase") if isinstance(status, Mapping) else None
    return DKIMPart(key, spec.domain_ref.name, is_auto, spec.state == "Active" and phase == "Active")


def _list_from(model: MailDomain, namespace: str) -> tuple[str, str] | None:
    who = model.spec.inbound.recipients
    ref = who.list_from if who else None
    return (f"{namespace}/{ref.name}", ref.key) if ref else None


def _credential(model: SMTPCredential, namespace: str) -> dict[str, Any]:
    """What MailDomains it sends as is known in `fleet`."""
    made = credential_of(model, {})
    selection = credential_pods(model)
    ref, workloads = model.spec.domain_ref, (str(selection),) if selection else ()
    verifier = _of_namespace(made.verifier, namespace) if made.verifier is not None else None
    name, oauth = f"{namespace}/{model.metadata.name}", made.oauth
    if oauth is not None:
        named = {"jwks": oauth.jwks, "client_id": oauth.client_id, "client_secret": oauth.client_secret}
        there = {field: _of_namespace(one, namespace) for field, one in named.items() if one is not None}
        oauth = msgspec.structs.replace(oauth, **there)
    changed = {"name": name, "verifier": verifier, "workloads": workloads, "oauth": oauth}
    return {
        "credential": msgspec.structs.replace(made, **changed),
        "selection": selection,
        "domain_ref": f"{namespace}/{ref.name}" if ref is not None else "",
    }


def _dead_ends(model: MailDomain, domain: engine.Domain) -> Iterator[Flaw]:
    """Aliases of the domain that lead to nobody in it, or in a circle: by `rules`, as for files."""
    inbound = model.spec.inbound
    if (not inbound.aliases and not inbound.catch_all) or (inbound.recipients and inbound.recipients.list_from):
        return
    entry = Entry(model, Document("", 1, {}, {}))
    for found in rules.aliases(Manifests(domains=(entry,)), {domain.domain: domain}):
        yield Flaw(found.problem.path, found.problem.what, found.problem.instead)


def _rule(model: RelayPolicy, namespace: str) -> engine.Rule:
    rule = rule_of(model, Defaults(), _NOWHERE)
    action = rule.action
    if action.username is not None and action.password is not None:
        action = msgspec.structs.replace(
            action,
            username=_of_namespace(action.username, namespace),
            password=_of_namespace(action.password, namespace),
        )
    name = f"{namespace}/{model.metadata.name}"
    named = tuple(f"{namespace}/{credential}" for credential in rule.match.credentials)
    match = msgspec.structs.replace(rule.match, credentials=named)
    return msgspec.structs.replace(rule, name=name, match=match, action=action, retry=None, limits=None)


def _of_namespace(ref: SecretRef, namespace: str) -> SecretRef:
    return SecretRef(name=f"{namespace}/{ref.name}", key=ref.key)


def _certificate(model: TLSCert, namespace: str) -> engine.Certificate:
    """The pair is in `<name>-tls`, whoever made it. Also that of a secretRef: the operator checks what is put there,
    and copies what can be served, so that a bad successor never reaches a pod, not even one that starts just then."""
    made = certificate_of(model, _NOWHERE)
    acme = model.spec.issuer.acme
    is_asked = acme is not None and acme.solver.http01 is not None
    return engine.Certificate(
        name=made.name,
        dns_names=made.dns_names,
        duration=made.duration,
        pair=made_pair(made.name, namespace),
        http01_port=made.http01_port,
        thumbprint=SecretRef(name=f"{namespace}/{acme.account_secret_name}", key=THUMBPRINT)
        if acme is not None and is_asked
        else None,
    )


def secrets_of(certificate: engine.Certificate) -> tuple[SecretRef, ...]:
    """What a pod needs for it: the pair, and the word for an ACME server."""
    pair = certificate.pair
    refs = (pair.cert_secret if pair else None, pair.key_secret if pair else None, certificate.thumbprint)
    return tuple(ref for ref in refs if ref is not None)


def made_pair(name: str, namespace: str) -> KeyPair:
    """Where the operator keeps the pair of a TLSCert."""
    secret = f"{namespace}/{name}-tls"
    return KeyPair(
        cert_secret=SecretRef(name=secret, key="tls.crt"), key_secret=SecretRef(name=secret, key="tls.key")
    )


def parts_in_force(config: EngineConfig) -> dict[PartKey, Part]:
    """The last good parts, from the configuration that pods run: what a new leader begins with, so that an object
    that is wrong by then stays in force as it was. Times of creation are not in a configuration. A rule that names a
    Secret of another namespace was never written by us, and is left out."""
    parts: dict[PartKey, Part] = {}
    for domain in config.domains.values():
        namespace, slash, name = domain.name.partition("/")
        if slash:
            if not all(ref.name.rpartition("/")[0] == namespace for ref in outbound_secrets(domain)):
                domain = msgspec.structs.replace(domain, outbound=None)
            part = Part(kind="MailDomain", namespace=namespace, name=name, domain=domain)
            parts[part.key] = part
    for rule in config.rules:
        namespace, _, name = rule.name.partition("/")
        if rule.egress == config.egress:
            rule = msgspec.structs.replace(rule, egress=engine.Egress())
        part = Part(kind="RelayPolicy", namespace=namespace, name=name, rule=rule, selection=_selection(rule))
        if all(ref.name.rpartition("/")[0] == namespace for ref in part.secrets):
            parts[part.key] = part
    for credential in config.credentials.values():
        namespace, _, name = credential.name.partition("/")
        selection = parse_selection(credential.workloads[0]) if credential.workloads else None
        part = Part(kind="SMTPCredential", namespace=namespace, name=name, credential=credential, selection=selection)
        if all(ref.name.rpartition("/")[0] == namespace for ref in part.secrets):
            parts[part.key] = part
    if config.access.name:
        namespace, _, name = config.access.name.partition("/")
        part = Part(kind="AccessPolicy", namespace=namespace, name=name, access=config.access)
        parts[part.key] = part
    return parts


def outbound_secrets(domain: engine.Domain) -> tuple[SecretRef, ...]:
    """The keys of Secrets that the domain's mail needs on its way out."""
    out = domain.outbound
    if out is None:
        return ()
    return tuple(ref for ref in (*(key.secret for key in out.dkim), out.srs, out.batv) if ref is not None)


def _selection(rule: engine.Rule) -> Selection | None:
    return parse_selection(rule.match.workloads[0]) if rule.match.workloads else None
