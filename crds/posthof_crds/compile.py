"""Manifests -> EngineConfig. A pure function: no file, no clock, no environment; equal manifests give equal hashes.

Rules of this file
- It trusts `load`: what is wrong has been said there, so nothing here can fail for a Manifests that `load` gave.
- Relative paths are joined to `base`, the current directory of `posthof up`.
- Order: domains and certificates by name, rules by priority (highest first) then name; listeners as written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from posthof_crds import delivery, engine, names
from posthof_crds.accesspolicy import AccessPolicy
from posthof_crds.core import SecretKeyRef
from posthof_crds.dkimkey import DKIMKey
from posthof_crds.dnsupdate import RFC2136
from posthof_crds.engine import ActionKind, EngineConfig, HopKind, InboundMode, RecipientCheck, SecretRef
from posthof_crds.mailboxes import MAILBOX_MODES, POSTMASTER
from posthof_crds.maildomain import MTASTS, AutoDKIM, MailDomain, Recipients
from posthof_crds.manifests import Manifests
from posthof_crds.mta import DEFAULT_MECHANISMS, MTA, HouseEgress, Listener, MTASpec
from posthof_crds.relaypolicy import RelayPolicy
from posthof_crds.selectors import EVERYTHING, Selection, Selector, selector
from posthof_crds.smtpcredential import OAuth, SMTPCredential
from posthof_crds.tlscert import ACME, WEEK, TLSCert
from posthof_crds.verifiers import HASHED

Values = tuple[tuple[str, Any], ...]  # fields of engine.Retry or engine.DestinationLimits


class Defaults(NamedTuple):
    """What the MTA says for all, where a rule or domain says nothing."""

    retry: engine.Retry = engine.Retry()
    limits: engine.DestinationLimits = engine.DestinationLimits()
    egress: engine.Egress = engine.Egress()

    def changed_by(self, retry: Values, limits: Values) -> dict[str, Any]:
        """`retry` and `limits` of a rule or domain that gives these values itself; without those it leaves alone."""
        changed: dict[str, Any] = {}
        if retry:
            changed["retry"] = msgspec.structs.replace(self.retry, **dict(retry))
        if limits:
            changed["limits"] = _in_order(msgspec.structs.replace(self.limits, **dict(limits)))
        return changed


def given(part: delivery.Retry | delivery.DestinationLimits) -> Values:
    """The values that are not left out."""
    return tuple((name, value) for name, value in part if value is not None)


def defaults_of(manifests: Manifests) -> Defaults:
    """The MTA's; the built-in ones where the MTA is missing (rules are checked all the same)."""
    return _defaults_of(manifests.mta.spec) if manifests.mtas else Defaults()


def _defaults_of(spec: MTASpec) -> Defaults:
    changed = Defaults().changed_by(given(spec.retry), given(spec.limits.destination))
    return Defaults(**changed)._replace(egress=_egress_of(spec.egress))


def compile(manifests: Manifests, base: Path) -> EngineConfig:  # noqa: A001 -- the word architecture.md uses for it
    """The engine's configuration. `base` is absolute."""
    if not base.is_absolute():
        raise ValueError(f"base must be an absolute path, not {base}")
    spec, defaults = manifests.mta.spec, defaults_of(manifests)
    domains = domains_of(manifests, base, defaults)
    return msgspec.structs.replace(
        house_of(manifests.mta, base),
        domains=domains,
        rules=tuple(sorted((rule_of(e.object, defaults, base) for e in manifests.policies), key=_order)),
        certificates={e.name: certificate_of(e.object, base) for e in sorted(manifests.certificates, key=_by_name)},
        credentials=credentials_of(manifests),
        access=access_of(manifests.access[0].object) if manifests.access else engine.Access(),
        double_bounce_to=spec.double_bounce_to or _default_double_bounce(spec, domains),
    )


def house_of(mta: MTA, base: Path) -> EngineConfig:
    """What the MTA says by itself: no domains, rules and certificates yet."""
    spec, defaults = mta.spec, _defaults_of(mta.spec)
    return EngineConfig(
        name=mta.metadata.name,
        hostname=spec.hostname,
        listeners=tuple(listener_of(listener) for listener in spec.listeners),
        spool=_spool_of(spec, base),
        mail_root=_path(base, spec.mail_root),
        state_dir=_path(base, spec.state_dir),
        resolver=spec.resolver,
        workers=spec.workers,
        outbound_sessions=spec.limits.outbound_sessions,
        http=engine.HTTPSettings(host=spec.http.address, port=spec.http.port),
        retry=defaults.retry,
        limits=defaults.limits,
        timeouts=engine.Timeouts(**dict(spec.timeouts)),
        egress=defaults.egress,
        alias_depth=spec.limits.alias_depth,
        alias_recipients=spec.limits.alias_recipients,
        user=spec.user,
        log_level=spec.log_level,
        direct_port=spec.direct_port,
        https_port=spec.https_port,
        policy_server=_policy_server_of(spec),
        tls_reports=spec.tls_reports,
    )


def _order(rule: engine.Rule) -> tuple[int, str]:
    return -rule.priority, rule.name


def _by_name(entry: Any) -> str:
    return str(entry.name)


def _path(base: Path, path: str) -> str:
    return os.path.normpath(os.path.join(base, path))


def _in_order(limits: engine.DestinationLimits) -> engine.DestinationLimits:
    return msgspec.structs.replace(limits, connections_start=min(limits.connections_start, limits.connections))


def _spool_of(spec: MTASpec, base: Path) -> engine.SpoolSettings:
    spool = spec.spool
    return engine.SpoolSettings(
        path=_path(base, spool.path),
        size=spool.size,
        max_usage=spool.max_usage,
        segment_bytes=spool.segment_size,
        blob_threshold=spool.blob_threshold,
        lane_bytes=spool.lane_size,
        lane_messages=spool.lane_messages,
        reserve_bytes=spool.reserve,
        cache_bytes=spool.cache,
        settle_delay=spool.settle_delay,
    )


def listener_of(listener: Listener) -> engine.Listener:
    """One listener; `tls` left out is TLSMode.OFF."""
    tls = listener.tls
    return engine.Listener(
        name=listener.name,
        role=listener.role,
        host=listener.address,
        port=listener.port,
        tls=engine.TLSMode(tls.mode) if tls else engine.TLSMode.OFF,
        certificates=tuple(ref.name for ref in tls.cert_refs) if tls else (),
        client_ca=SecretRef(name=tls.client_ca.name, key=tls.client_ca.key) if tls and tls.client_ca else None,
        proxy_trusted=listener.proxy_protocol.trusted_cidrs if listener.proxy_protocol else (),
        xclient_trusted=listener.xclient.trusted_cidrs if listener.xclient else (),
        normalise_newlines=listener.bare_newlines == "Normalise",
        mechanisms=_mechanisms(listener),
        implementation=listener.implementation.lower(),
        limits=engine.ListenerLimits(**dict(listener.limits)),
    )


def _mechanisms(listener: Listener) -> tuple[str, ...]:
    if listener.role not in engine.SUBMISSION:
        return ()
    return tuple(listener.auth.mechanisms) if listener.auth is not None else DEFAULT_MECHANISMS


def _hop_of(hop: delivery.NextHop, base: Path, *, port: int) -> engine.NextHop:
    """`port` is the protocol's own, for hops that name none."""
    if hop.socket is not None:
        return engine.NextHop(kind=HopKind.UNIX, name=_path(base, hop.socket), port=0)
    if hop.srv is not None:
        return engine.NextHop(kind=HopKind.SRV, name=hop.srv, port=0)
    if hop.mx is not None:
        return engine.NextHop(kind=HopKind.MX, name=hop.mx, port=hop.port or port)
    return engine.NextHop(kind=HopKind.HOST, name=hop.host or "", port=hop.port or port)


def _egress_of(egress: delivery.Egress | HouseEgress, default: engine.Egress | None = None) -> engine.Egress:
    """Address by address and name, with the default's where it has none."""
    default = default or engine.Egress()
    return engine.Egress(
        ipv4=next((address for address in egress.addresses if ":" not in address), default.ipv4),
        ipv6=next((address for address in egress.addresses if ":" in address), default.ipv6),
        helo=egress.helo or default.helo,
    )


def domains_of(manifests: Manifests, base: Path, defaults: Defaults) -> dict[str, engine.Domain]:
    """All domains by domain, sorted; with the built-in one where nobody else has mailboxes."""
    spec = manifests.mta.spec
    entries = sorted(manifests.domains, key=lambda entry: entry.object.spec.domain)
    domains = {e.object.spec.domain: domain_of(e.object, manifests, base, defaults) for e in entries}
    has_mailboxes = any(domain.mode in MAILBOX_MODES for domain in domains.values())
    if not has_mailboxes and spec.double_bounce_to is None and spec.hostname not in domains:
        domains[spec.hostname] = _built_in(spec.hostname)
    return domains


def _built_in(hostname: str) -> engine.Domain:
    """A place for `postmaster` (RFC 5321 section 4.5.1) and double bounces in an MTA without mailboxes."""
    return engine.Domain(
        name="built-in", domain=hostname, mode=InboundMode.MAILDIR, recipients=frozenset({POSTMASTER})
    )


def _default_double_bounce(spec: MTASpec, domains: dict[str, engine.Domain]) -> str:
    having = sorted((d.name, d.domain) for d in domains.values() if d.mode in MAILBOX_MODES)
    return f"{POSTMASTER}@{having[0][1] if having else spec.hostname}"


def domain_of(domain: MailDomain, manifests: Manifests, base: Path, defaults: Defaults) -> engine.Domain:
    """One MailDomain. Alias targets become full addresses."""
    spec, inbound = domain.spec, domain.spec.inbound
    check, known = _recipients_of(inbound.recipients, manifests)
    port = 24 if inbound.mode is InboundMode.LMTP else 25
    callout = inbound.recipients.callout if inbound.recipients else None
    return engine.Domain(
        name=domain.metadata.name,
        domain=spec.domain,
        mode=inbound.mode,
        next_hops=tuple(_hop_of(hop, base, port=port) for hop in inbound.next_hops),
        tls=engine.TLSLevel(inbound.tls),
        mta_sts=own_policy_of(spec.dns.mta_sts),
        check=check,
        callout=engine.Callout(positive=callout.positive, negative=callout.negative) if callout else engine.Callout(),
        recipients=known,
        aliases={names.fold(k): tuple(full(t, spec.domain) for t in v) for k, v in inbound.aliases.items()},
        catch_all=tuple(full(target, spec.domain) for target in inbound.catch_all),
        separator=inbound.separator,
        maildir=inbound.maildir,
        reject_text=inbound.reject_text,
        outbound=outbound_of(domain, {entry.name: entry.object for entry in manifests.dkim_keys}),
        **defaults.changed_by(given(spec.retry), given(spec.limits)),
    )


def outbound_of(domain: MailDomain, keys: Mapping[str, DKIMKey]) -> engine.Outbound | None:
    """What its mail gets on the way out; None: nothing. `keys`: DKIMKeys by metadata.name."""
    spec = domain.spec.outbound
    signing: tuple[engine.SigningKey, ...] = ()
    auto = spec.dkim.auto if spec.dkim else None
    if spec.dkim and spec.dkim.key_refs:
        named = (keys[ref.name] for ref in spec.dkim.key_refs if ref.name in keys)
        signing = tuple(signing_key_of(key) for key in named if key.spec.state == "Active")
    found = engine.Outbound(
        dkim=signing,
        auto=auto_of(auto) if auto else None,
        srs=_secret_of(spec.srs.secret_ref) if spec.srs else None,
        batv=_secret_of(spec.batv.secret_ref) if spec.batv else None,
        batv_enforced=spec.batv.enforce if spec.batv else False,
    )
    return found if found != engine.Outbound() else None


def auto_of(auto: AutoDKIM) -> engine.AutoDKIM:
    rotation = auto.rotation
    return engine.AutoDKIM(
        algorithms=auto.algorithms, bits=auto.size, interval=rotation.interval, overlap=rotation.overlap
    )


def signing_key_of(key: DKIMKey) -> engine.SigningKey:
    spec = key.spec
    return engine.SigningKey(
        name=key.metadata.name,
        selector=spec.selector,
        algorithm=spec.algorithm,
        bits=spec.size,
        secret=_secret_of(spec.secret_ref) if spec.secret_ref else None,
    )


def _secret_of(ref: SecretKeyRef) -> SecretRef:
    return SecretRef(name=ref.name, key=ref.key)


def own_policy_of(policy: MTASTS | None) -> engine.OwnPolicy | None:
    """The policy a MailDomain asks for."""
    if policy is None:
        return None
    return engine.OwnPolicy(mode=policy.mode.lower(), max_age=int(policy.max_age), mx=policy.mx)


def _policy_server_of(spec: MTASpec) -> engine.PolicyServer | None:
    server = spec.mta_sts
    if server is None:
        return None
    names = tuple(ref.name for ref in server.cert_refs)
    return engine.PolicyServer(host=server.address, port=server.port, certificates=names)


def full(target: str, domain: str) -> str:
    """An alias target as an address: a bare local part is of the same domain."""
    return target if "@" in target else f"{target}@{domain}"


def _recipients_of(who: Recipients | None, manifests: Manifests) -> tuple[RecipientCheck, frozenset[str]]:
    if who is None:
        return RecipientCheck.LIST, frozenset()
    if who.any:
        return RecipientCheck.ANY, frozenset()
    if who.callout is not None:
        return RecipientCheck.CALLOUT, frozenset()
    if who.list_ is not None:
        return RecipientCheck.LIST, frozenset(map(names.fold, who.list_))
    return RecipientCheck.LIST, frozenset(names.fold(name) for _, name in listed(who, manifests))


def listed(who: Recipients, manifests: Manifests) -> list[tuple[int, str]]:
    """`(line, local part)` of the ConfigMap key that listFrom names; nothing where it is not there."""
    ref = who.list_from
    entry = manifests.config_maps.get(ref.name) if ref else None
    return listed_in(entry.object.data.get(ref.key, "") if entry and ref else "")


def listed_in(text: str) -> list[tuple[int, str]]:
    """`(line, local part)` of such a text; `#` begins a comment."""
    rows = ((number, row.partition("#")[0].strip()) for number, row in enumerate(text.splitlines(), 1))
    return [(number, row) for number, row in rows if row]


def selection_of(policy: RelayPolicy) -> Selection | None:
    """The pods that the policy's match selects; None where it says nothing about pods."""
    match = policy.spec.match
    if match.namespaces is None and match.pod_selector is None:
        return None
    pods = selector(match.pod_selector or EVERYTHING)
    if match.namespaces is None:
        return Selection(policy.metadata.namespace or "default", Selector(), pods)
    return Selection("", selector(match.namespaces), pods)


def match_of(policy: RelayPolicy) -> engine.Match:
    """On one machine no client is a pod, so a match that selects pods never holds there."""
    match, selection = policy.spec.match, selection_of(policy)
    return engine.Match(
        listener_roles=match.listener_roles,
        clients=match.clients,
        workloads=(str(selection),) if selection else (),
        credentials=match.credentials,
        certificates=match.certificates,
        senders=match.senders,
        recipients=match.recipients,
        headers=tuple(engine.HeaderMatch(name=h.name, pattern=h.pattern.casefold()) for h in match.headers),
    )


def rule_of(policy: RelayPolicy, defaults: Defaults, base: Path) -> engine.Rule:
    """One RelayPolicy; what it changes of retry, limits and egress is completed with the MTA's."""
    spec, action = policy.spec, policy.spec.action
    port = 24 if action.type is ActionKind.LMTP else 25
    auth = action.auth
    return engine.Rule(
        name=policy.metadata.name,
        priority=spec.priority,
        match=match_of(policy),
        action=engine.Action(
            kind=action.type,
            hops=tuple(_hop_of(hop, base, port=port) for hop in action.next_hops),
            username=SecretRef(name=auth.secret_name, key=auth.username_key) if auth else None,
            password=SecretRef(name=auth.secret_name, key=auth.password_key) if auth else None,
            text=action.text,
            code=action.code,
            status=action.status or f"{action.code // 100}.7.1",
            addresses=action.addresses,
        ),
        tls=spec.tls,
        client_certificate=spec.client_cert_ref.name if spec.client_cert_ref else "",
        egress=_egress_of(spec.egress, defaults.egress),
        **defaults.changed_by(given(spec.retry), given(spec.limits)),
    )


def credential_of(credential: SMTPCredential, domains: Mapping[str, str]) -> engine.Credential:
    """One SMTPCredential. `domains`: of MailDomains by metadata.name; what is not there adds no sender."""
    spec, name = credential.spec, credential.metadata.name
    ref = spec.secret_ref
    verifier = None
    if ref is not None:
        verifier = SecretRef(name=ref.name, key=ref.password_key + HASHED)
    elif spec.generate is not None:
        verifier = SecretRef(name=f"{name}-smtp", key="password" + HASHED)
    domain = domains.get(spec.domain_ref.name) if spec.domain_ref else None
    quota, guard = spec.quota, spec.guard
    return engine.Credential(
        name=name,
        username=(spec.username or name.casefold()) if verifier else "",
        verifier=verifier,
        senders=(*spec.allowed_senders, *((domain,) if domain else ())),
        expires=datetime.fromisoformat(spec.expires).timestamp() if spec.expires else 0.0,
        quota=engine.Quota(
            messages_minute=quota.messages_per_minute,
            messages_hour=quota.messages_per_hour,
            messages_day=quota.messages_per_day,
            recipients_hour=quota.recipients_per_hour,
            recipients_day=quota.recipients_per_day,
            recipients_message=quota.recipients_per_message,
        ),
        oauth=_oauth_of(spec.oauth) if spec.oauth else None,
        certificate=spec.certificate or "",
        dovecot=spec.dovecot.socket if spec.dovecot else "",
        ldap=engine.LDAP(url=spec.ldap.url, user_dn=spec.ldap.user_dn) if spec.ldap else None,
        guard=engine.Guard(
            is_on=guard.enabled, factor=float(guard.factor), recipients=guard.recipients, strangers=guard.strangers
        ),
    )


def _oauth_of(oauth: OAuth) -> engine.OAuth:
    keys, asked = oauth.jwks_secret_ref, oauth.introspection
    return engine.OAuth(
        issuer=oauth.issuer,
        audience=oauth.audience,
        jwks_url=oauth.jwks_url or "",
        jwks=SecretRef(name=keys.name, key=keys.key) if keys else None,
        introspection=asked.url if asked else "",
        client_id=SecretRef(name=asked.secret_name, key="username") if asked else None,
        client_secret=SecretRef(name=asked.secret_name, key="password") if asked else None,
        claim=oauth.claim,
        users=tuple(user.casefold() for user in oauth.users),
    )


def credential_pods(credential: SMTPCredential) -> Selection | None:
    """The pods that are this account."""
    chosen = credential.spec.pod_selector
    if chosen is None:
        return None
    return Selection(credential.metadata.namespace or "default", Selector(), selector(chosen))


def credentials_of(manifests: Manifests) -> dict[str, engine.Credential]:
    """All of a folder, by name."""
    domains = {entry.name: entry.object.spec.domain for entry in manifests.domains}
    entries = sorted(manifests.credentials, key=_by_name)
    return {entry.name: credential_of(entry.object, domains) for entry in entries}


def certificate_of(cert: TLSCert, base: Path) -> engine.Certificate:
    spec, issuer = cert.spec, cert.spec.issuer
    pair = None
    if issuer.files is not None:
        pair = engine.KeyPair(cert_file=_path(base, issuer.files.cert), key_file=_path(base, issuer.files.key))
    elif issuer.secret_ref is not None:
        ref = issuer.secret_ref
        pair = engine.KeyPair(
            cert_secret=SecretRef(name=ref.name, key=ref.cert_key),
            key_secret=SecretRef(name=ref.name, key=ref.private_key_key),
        )
    http01 = issuer.acme.solver.http01 if issuer.acme is not None else None
    key = spec.private_key
    return engine.Certificate(
        name=cert.metadata.name,
        dns_names=spec.dns_names,
        self_signed=issuer.self_signed is not None,
        duration=spec.duration,
        pair=pair,
        acme=_acme_of(issuer.acme) if issuer.acme is not None else None,
        http01_port=http01.port if http01 is not None else 0,
        renew_before=spec.renew_before,
        windows=windows_of(cert),
        key_algorithm=key.algorithm,
        key_size=key.bits,
        key_rotation=key.rotation_policy,
    )


def windows_of(cert: TLSCert) -> tuple[engine.RenewalWindow, ...]:
    """When it may be renewed."""
    return tuple(
        engine.RenewalWindow(
            tuple(sorted(WEEK.index(day) for day in set(one.days))),
            float(int(one.start[:2]) * 3600 + int(one.start[3:]) * 60),
            one.duration,
        )
        for one in cert.spec.renewal_windows
    )


def _acme_of(acme: ACME) -> engine.ACMEOrder:
    eab, dns01 = acme.external_account, acme.solver.dns01
    return engine.ACMEOrder(
        directory=acme.directory,
        contact=acme.contact,
        account=acme.account_secret_name,
        roots=acme.ca_bundle or "",
        eab_id=eab.key_id if eab else "",
        eab_key=SecretRef(name=eab.secret_name, key=eab.secret_key) if eab else None,
        update=update_of(dns01.rfc2136) if dns01 is not None and dns01.rfc2136 is not None else None,
    )


def update_of(given: RFC2136) -> engine.DNSUpdate:
    """Where records are published, and with which key."""
    tsig = given.tsig
    return engine.DNSUpdate(
        server=given.server,
        zone=given.zone or "",
        key_name=tsig.name,
        key_algorithm=tsig.algorithm,
        key_secret=SecretRef(name=tsig.secret_name, key=tsig.secret_key),
        ttl=given.ttl,
    )


def access_of(policy: AccessPolicy) -> engine.Access:
    spec = policy.spec
    return engine.Access(
        name=policy.metadata.name,
        spf=engine.SPFPolicy(**dict(spec.spf)),
        dkim=engine.DKIMPolicy(**dict(spec.dkim)),
        dmarc=engine.DMARCPolicy(**{**dict(spec.dmarc), "contact": spec.dmarc.contact or ""}),
        arc=engine.ARCPolicy(**dict(spec.arc)),
    )
