"""Rules between objects, and between the fields of one MTA: each a function that yields what it finds.

They run over all objects that are valid by themselves, so that every error of a folder is told at once. `declared`
names what was written, valid or not: a reference to an object with a mistake of its own is not a second mistake.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import PydanticCustomError

from posthof_crds import bounds, engine, fields, names, single
from posthof_crds.compile import Defaults, domain_of, full, listed, listener_of, match_of
from posthof_crds.documents import Path as FieldPath
from posthof_crds.engine import ActionKind, InboundMode
from posthof_crds.mailboxes import Hit, Where, look_up
from posthof_crds.maildomain import MailDomain
from posthof_crds.manifests import Entry, Manifests
from posthof_crds.mta import MTA, Listener
from posthof_crds.problems import Problem, did_you_mean, sentence
from posthof_crds.relaypolicy import Match, RelayPolicy
from posthof_crds.tlscert import ACME
from posthof_crds.verifiers import HASHED

Declared = set[tuple[str, str]]  # (kind, name) of every document, valid or not
_ANYWHERE = Path("/")  # paths do not matter to these rules


class Found(NamedTuple):
    """What a rule found. A warning stops nothing."""

    problem: Problem
    is_warning: bool = False


def check(manifests: Manifests, declared: Declared) -> tuple[list[Problem], list[Problem]]:
    """`(errors, warnings)`."""
    domains = _compiled(manifests)
    found = [
        *_namespaces(manifests),
        *_single(manifests),
        *_listeners(manifests, declared),
        *_egress(manifests),
        *_certificates(manifests, declared),
        *_domains(manifests, declared),
        *aliases(manifests, domains),
        *_places(manifests, domains),
        *_policies(manifests, declared),
        *_shadowed(manifests),
        *_access(manifests),
        *_outbound(manifests, declared),
        *_dkim_keys(manifests, declared),
        *_credentials(manifests, declared),
    ]
    return [f.problem for f in found if not f.is_warning], [f.problem for f in found if f.is_warning]


def _compiled(manifests: Manifests) -> dict[str, engine.Domain]:
    """The domains as the engine sees them; of two with one domain the first."""
    domains: dict[str, engine.Domain] = {}
    for entry in manifests.domains:
        if entry.object.spec.domain not in domains:
            domains[entry.object.spec.domain] = domain_of(entry.object, manifests, _ANYWHERE, Defaults())
    return domains


def _namespaces(manifests: Manifests) -> Iterator[Found]:
    first: str | None = None
    entries: list[Entry[Any]] = [*manifests.mtas, *manifests.domains, *manifests.policies, *manifests.certificates]
    entries += [*manifests.dkim_keys, *manifests.access, *manifests.credentials]
    entries += [*manifests.secrets.values(), *manifests.config_maps.values()]
    for entry in entries:
        namespace = entry.metadata.namespace
        first = first or namespace
        if namespace and namespace != first:
            what = f'namespace "{namespace}", where another object has "{first}"'
            yield Found(entry.document.problem(("metadata", "namespace"), what, "Use one folder for each namespace."))


def _single(manifests: Manifests) -> Iterator[Found]:
    entries: list[Entry[Any]] = [*manifests.mtas, *manifests.domains, *manifests.policies, *manifests.certificates]
    for entry in entries:
        for flaw in single.anywhere(entry.object):
            yield Found(entry.document.problem(flaw.at, flaw.what, flaw.instead))


# -- the MTA ---------------------------------------------------------------------------------------------------------


def _listeners(manifests: Manifests, declared: Declared) -> Iterator[Found]:
    for entry in manifests.mtas:
        listeners = entry.object.spec.listeners
        http = entry.object.spec.http
        for n, listener in enumerate(listeners):
            here: FieldPath = ("spec", "listeners", n)
            yield from _listener(entry, listener, listeners[:n], here)
            for k, ref in enumerate(listener.tls.cert_refs if listener.tls else ()):
                yield from _named(entry, (*here, "tls", "certRefs", k, "name"), ref.name, declared)
            ca = listener.tls.client_ca if listener.tls else None
            if ca is not None:
                yield from _secret_keys(manifests, declared, entry, (*here, "tls", "clientCa"), ca.name, ca.key)
            if _overlap(listener.address, listener.port, http.address, http.port):
                what = f"port {http.port} is the port of listener {listener.name}"
                yield Found(entry.document.problem(("spec", "http", "port"), what, "Use another port, such as 8025."))
        server = entry.object.spec.mta_sts
        for k, ref in enumerate(server.cert_refs if server else ()):
            yield from _named(entry, ("spec", "mtaSts", "certRefs", k, "name"), ref.name, declared)


def _named(entry: Entry[Any], at: FieldPath, name: str, declared: Declared) -> Iterator[Found]:
    """A TLSCert that is named is there."""
    if ("TLSCert", name) not in declared:
        known = sorted(one for kind, one in declared if kind == "TLSCert")
        what = f'there is no TLSCert "{name}"'
        yield Found(entry.document.problem(at, what, sentence(did_you_mean(name, known))))


def _listener(entry: Entry[MTA], listener: Listener, before: Sequence[Listener], here: FieldPath) -> Iterator[Found]:
    document = entry.document
    for other in before:
        if _overlap(listener.address, listener.port, other.address, other.port):
            what = f"port {listener.port} is taken by listener {other.name}"
            yield Found(document.problem((*here, "port"), what, "Use another port, or addresses that differ."))


def _egress(manifests: Manifests) -> Iterator[Found]:
    for entry in manifests.mtas:
        addresses = entry.object.spec.egress.addresses
        if len({":" in address for address in addresses}) != len(addresses):
            what = "several addresses of one family, and one machine sends from one of each"
            at: FieldPath = ("spec", "egress", "addresses")
            yield Found(entry.document.problem(at, what, "Keep one IPv4 and one IPv6 address."))


def _overlap(address: str, port: int, other: str, other_port: int) -> bool:
    """Would the two binds meet? Port 0 never does."""
    if port != other_port or port == 0:
        return False
    if address == other or not address or not other:
        return True
    one, two = ipaddress.ip_address(address), ipaddress.ip_address(other)
    return one.version == two.version and (one.is_unspecified or two.is_unspecified)


# -- certificates and secrets ----------------------------------------------------------------------------------------


def _certificates(manifests: Manifests, declared: Declared) -> Iterator[Found]:
    for entry in manifests.certificates:
        issuer = entry.object.spec.issuer
        for field, given in (("ca", issuer.ca), ("certManager", issuer.cert_manager), ("csr", issuer.csr)):
            if given is not None:
                what = f"{field} works in a cluster, where the operator asks for the certificate"
                at: FieldPath = ("spec", "issuer", field)
                yield Found(entry.document.problem(at, what, "Write selfSigned, acme, secretRef or files."))
        if issuer.acme is not None:
            yield from _acme(manifests, declared, entry, issuer.acme)
        ref = issuer.secret_ref
        if ref is not None:
            at = ("spec", "issuer", "secretRef")
            yield from _secret_keys(manifests, declared, entry, at, ref.name, ref.cert_key, ref.private_key_key)


def _acme(manifests: Manifests, declared: Declared, entry: Entry[Any], acme: ACME) -> Iterator[Found]:
    here: FieldPath = ("spec", "issuer", "acme")
    eab, dns01 = acme.external_account, acme.solver.dns01
    if eab is not None:
        at = (*here, "externalAccount")
        yield from _secret_keys(manifests, declared, entry, at, eab.secret_name, eab.secret_key)
    if dns01 is None:
        return
    if dns01.dns_endpoint is not None:
        what = "dnsEndpoint works in a cluster, where ExternalDNS reads such objects"
        at = (*here, "solver", "dns01", "dnsEndpoint")
        yield Found(entry.document.problem(at, what, "Write rfc2136, or http01 in place of dns01."))
    if dns01.rfc2136 is not None:
        at = (*here, "solver", "dns01", "rfc2136", "tsig")
        tsig = dns01.rfc2136.tsig
        yield from _secret_keys(manifests, declared, entry, at, tsig.secret_name, tsig.secret_key)


def _secret_keys(
    manifests: Manifests, declared: Declared, entry: Entry[Any], at: FieldPath, name: str, *keys: str
) -> Iterator[Found]:
    secret = manifests.secrets.get(name)
    if secret is None:
        if ("Secret", name) not in declared:
            what = f'there is no Secret "{name}"'
            yield Found(entry.document.problem(at, what, sentence(did_you_mean(name, sorted(manifests.secrets)))))
        return
    having = sorted(secret.object.key_names)
    for key in keys:
        if key not in having:
            what = f'Secret "{name}" has no key "{key}"'
            yield Found(entry.document.problem(at, what, sentence(did_you_mean(key, having))))


def _outbound(manifests: Manifests, declared: Declared) -> Iterator[Found]:
    """What domains sign and mark with is there."""
    for entry in manifests.domains:
        outbound, here = entry.object.spec.outbound, ("spec", "outbound")
        for n, ref in enumerate((outbound.dkim.key_refs if outbound.dkim else None) or ()):
            at: FieldPath = (*here, "dkim", "keyRefs", n, "name")
            key = next((each.object for each in manifests.dkim_keys if each.name == ref.name), None)
            if key is not None and key.spec.domain_ref.name != entry.name:
                what = f'DKIMKey "{ref.name}" is of MailDomain "{key.spec.domain_ref.name}"'
                yield Found(entry.document.problem(at, what, "Name a DKIMKey whose domainRef is this MailDomain."))
            elif key is None and ("DKIMKey", ref.name) not in declared:
                known = sorted(name for kind, name in declared if kind == "DKIMKey")
                what = f'there is no DKIMKey "{ref.name}"'
                yield Found(entry.document.problem(at, what, sentence(did_you_mean(ref.name, known))))
        for field, part in (("srs", outbound.srs), ("batv", outbound.batv)):
            if part is not None:
                at = (*here, field, "secretRef")
                yield from _secret_keys(manifests, declared, entry, at, part.secret_ref.name, part.secret_ref.key)


def _dkim_keys(manifests: Manifests, declared: Declared) -> Iterator[Found]:
    seen: dict[tuple[str, str], str] = {}
    for entry in manifests.dkim_keys:
        spec = entry.object.spec
        name = spec.domain_ref.name
        if ("MailDomain", name) not in declared:
            known = sorted(each for kind, each in declared if kind == "MailDomain")
            what = f'there is no MailDomain "{name}"'
            at: FieldPath = ("spec", "domainRef", "name")
            yield Found(entry.document.problem(at, what, sentence(did_you_mean(name, known))))
        other = seen.setdefault((name, spec.selector), entry.name)
        if other != entry.name:
            what = f"DKIMKey {other} has this selector already"
            yield Found(entry.document.problem(("spec", "selector"), what, "Give each key a selector of its own."))
        if spec.secret_ref is not None:
            ref = spec.secret_ref
            yield from _secret_keys(manifests, declared, entry, ("spec", "secretRef"), ref.name, ref.key)


# -- domains ---------------------------------------------------------------------------------------------------------


def _domains(manifests: Manifests, declared: Declared) -> Iterator[Found]:
    seen: dict[str, str] = {}
    for entry in manifests.domains:
        spec, document = entry.object.spec, entry.document
        if spec.domain in seen:
            what = f"the domain {spec.domain} has a MailDomain already: {seen[spec.domain]}"
            yield Found(document.problem(("spec", "domain"), what, "Keep one MailDomain for each domain."))
            continue
        seen[spec.domain] = entry.name
        who = spec.inbound.recipients
        if who is not None and who.any:
            what = "everybody exists: what is refused later becomes a bounce to a forged sender (backscatter)"
            at = ("spec", "inbound", "recipients", "any")
            yield Found(document.problem(at, what, "Prefer a list, or `callout: {}` to ask the next hop."), True)
        if who is not None and who.list_from is not None:
            yield from _list_from(manifests, declared, entry)


def _list_from(manifests: Manifests, declared: Declared, entry: Entry[MailDomain]) -> Iterator[Found]:
    """The ConfigMap is there, has the key, and every line of it is a local part."""
    who = entry.object.spec.inbound.recipients
    assert who is not None
    assert who.list_from is not None
    at: FieldPath = ("spec", "inbound", "recipients", "listFrom")
    ref = who.list_from
    source = manifests.config_maps.get(ref.name)
    if source is None:
        if ("ConfigMap", ref.name) not in declared:
            known = sorted(manifests.config_maps)
            what = f'there is no ConfigMap "{ref.name}"'
            yield Found(entry.document.problem(at, what, sentence(did_you_mean(ref.name, known))))
        return
    if ref.key not in source.object.data:
        what = f'ConfigMap "{ref.name}" has no key "{ref.key}" in its data'
        yield Found(entry.document.problem(at, what, sentence(did_you_mean(ref.key, sorted(source.object.data)))))
        return
    for row, name in listed(who, manifests):
        try:
            fields.local_part(name)
        except PydanticCustomError as error:
            context = error.context or {}
            what = f"line {row} of the value: {context.get('what')}"
            yield Found(source.document.problem(("data", ref.key), what, str(context.get("instead"))))


def aliases(manifests: Manifests, domains: dict[str, engine.Domain]) -> Iterator[Found]:
    """Every target exists, and no chain of aliases comes back to where it began."""
    for entry in manifests.domains:
        inbound, domain = entry.object.spec.inbound, entry.object.spec.domain
        if domains[domain].name != entry.name:
            continue  # a second MailDomain of this domain: told already
        for key, targets in inbound.aliases.items():
            at: FieldPath = ("spec", "inbound", "aliases", key)
            for n, target in enumerate(targets):
                yield from _target(entry, (*at, n), full(target, domain), domains, (domain, names.fold(key)))
        for n, target in enumerate(inbound.catch_all):
            at = ("spec", "inbound", "catchAll", n)
            yield from _target(entry, at, full(target, domain), domains, (domain, "*"))
        if inbound.mode is InboundMode.ALIAS and inbound.recipients and inbound.recipients.list_:
            for n, name in enumerate(inbound.recipients.list_):
                if look_up(domains[domain], name).where not in (Where.ALIAS, Where.CATCH_ALL):
                    at = ("spec", "inbound", "recipients", "list", n)
                    what = f'"{name}" has no alias, and mode Alias has no mailboxes'
                    yield Found(entry.document.problem(at, what, "Write an alias for it, or a catchAll."))


Node = tuple[str, str]  # (domain, folded name), the name "*" for the catch-all


def _target(
    entry: Entry[MailDomain], at: FieldPath, target: str, domains: dict[str, engine.Domain], start: Node
) -> Iterator[Found]:
    local, domain = names.split(target)
    if domain not in domains:
        return
    hit = _hit(domains[domain], local, start, domain)
    if hit.where in (Where.NOBODY, Where.REFUSED):
        known = sorted({*domains[domain].recipients, *domains[domain].aliases})
        what = f"nobody is {target}"
        yield Found(entry.document.problem(at, what, sentence(did_you_mean(names.fold(local), known))))
        return
    loop = _loop(domains, start, (domain, hit.key), hit)
    if loop:
        path = " -> ".join(f"{name}@{place}" for place, name in loop)
        what = f"these aliases lead back to where they began: {path}"
        yield Found(entry.document.problem(at, what, "Take one step out, or let the chain end in a mailbox."))


def _hit(domain: engine.Domain, local: str, source: Node, place: str) -> Hit:
    """The look-up of a target; an alias that names itself means the mailbox of that name."""
    hit = look_up(domain, local)
    if hit.where is Where.ALIAS and (place, hit.key) == source:
        return look_up(domain, local, skip_aliases=True)
    return hit


def _loop(domains: dict[str, engine.Domain], start: Node, first: Node, hit: Hit) -> list[Node]:
    """A way from `start` by `first` back to `start`, or nothing. Loops further on belong to their own aliases."""
    parents: dict[Node, Node] = {first: start}
    queue: list[tuple[Node, Hit]] = [(first, hit)]
    while queue:
        node, hit = queue.pop()
        if hit.where not in (Where.ALIAS, Where.CATCH_ALL):
            continue
        if node == start:
            way = [start]
            step = parents[start]
            while step != start:
                way.append(step)
                step = parents[step]
            return [*reversed(way[1:]), start] if len(way) == 1 else [start, *reversed(way[1:]), start]
        for target in hit.targets:
            local, domain = names.split(target)
            if domain not in domains:
                continue
            following = _hit(domains[domain], local, node, domain)
            after = (domain, following.key)
            if after not in parents:
                parents[after] = node
                queue.append((after, following))
    return []


def _places(manifests: Manifests, domains: dict[str, engine.Domain]) -> Iterator[Found]:
    """Addresses that must lead somewhere: double bounces, redirects."""
    asked: list[tuple[Entry[Any], FieldPath, str]] = [
        (entry, ("spec", "doubleBounceTo"), entry.object.spec.double_bounce_to)
        for entry in manifests.mtas
        if entry.object.spec.double_bounce_to
    ]
    for policy in manifests.policies:
        for n, address in enumerate(policy.object.spec.action.addresses):
            asked.append((policy, ("spec", "action", "addresses", n), address))
    for entry, at, address in asked:
        local, domain = names.split(address)
        if domain not in domains:
            continue
        where = look_up(domains[domain], local).where
        if where in (Where.NOBODY, Where.REFUSED):
            known = sorted({*domains[domain].recipients, *domains[domain].aliases})
            what = f"nobody is {address}"
            yield Found(entry.document.problem(at, what, sentence(did_you_mean(names.fold(local), known))))
        elif where is Where.DOUBLE_BOUNCE and at[-1] == "doubleBounceTo":
            what = f"{address} has no mailbox: its domain sends postmaster where double bounces go"
            yield Found(entry.document.problem(at, what, "Write an address with a mailbox."))


# -- rules -----------------------------------------------------------------------------------------------------------


def _policies(manifests: Manifests, declared: Declared) -> Iterator[Found]:
    listeners = [listener_of(each) for mta in manifests.mtas for each in mta.object.spec.listeners]
    for entry in manifests.policies:
        spec, document = entry.object.spec, entry.document
        yield from _bounded(entry, listeners)
        yield from _named_credentials(entry, declared)
        for n, role in enumerate(spec.match.listener_roles):
            at: FieldPath = ("spec", "match", "listenerRoles", n)
            if manifests.mtas and all(listener.role is not role for listener in listeners):
                what = f"the MTA has no listener of role {role}, so this never matches"
                yield Found(document.problem(at, what, "Add such a listener, or remove the role."), True)
        for field, given in (("namespaces", spec.match.namespaces), ("podSelector", spec.match.pod_selector)):
            if given is not None:
                what = f"{field} never holds on one machine: a client's pod is known only in a cluster"
                instead = "Write match.clients, or leave the rule to the cluster."
                yield Found(document.problem(("spec", "match", field), what, instead), True)
        if spec.client_cert_ref is not None:
            yield from _named(entry, ("spec", "clientCertRef", "name"), spec.client_cert_ref.name, declared)
        auth = spec.action.auth
        if auth is not None:
            at = ("spec", "action", "auth", "secretName")
            keys = (auth.username_key, auth.password_key)
            yield from _secret_keys(manifests, declared, entry, at, auth.secret_name, *keys)


def _bounded(entry: Entry[RelayPolicy], listeners: Sequence[engine.Listener]) -> Iterator[Found]:
    """No open relay: see bounds.py."""
    spec, document = entry.object.spec, entry.document
    why = bounds.why_unbounded(match_of(entry.object), listeners)
    if not why:
        return
    at: FieldPath = ("spec", "match")
    if spec.action.type in bounds.LETS_OUT:
        what = f"this would be an open relay: {why}"
        instead = "Write match.clients with your networks, or match.recipients with the domains it is for."
        yield Found(document.problem(at, what, instead))
    elif spec.action.type is ActionKind.HOLD:
        what = f"this holds only mail that something else permits: {why}"
        yield Found(
            document.problem(at, what, "To permit mail by itself, give it match.clients or recipients."), True
        )
    elif spec.action.type in (ActionKind.REDIRECT, ActionKind.DISCARD) and not spec.match.recipients:
        what = f"this takes mail for every domain from strangers: {why}"
        yield Found(document.problem(at, what, "Write match.recipients, unless this machine is a sink."), True)


def _shadowed(manifests: Manifests) -> Iterator[Found]:
    """Rules behind one that matches everything are never asked."""
    ordered = sorted(manifests.policies, key=lambda entry: (-entry.object.spec.priority, entry.name))
    for n, entry in enumerate(ordered):
        match, action = entry.object.spec.match, entry.object.spec.action.type
        takes_all = match == Match()
        if takes_all and action in (ActionKind.REJECT, ActionKind.DISCARD, ActionKind.REDIRECT):
            for later in ordered[n + 1 :]:
                what = f'never asked: RelayPolicy "{entry.name}" before it matches all mail'
                yield Found(later.document.problem(("spec", "priority"), what, "Give it a higher priority."), True)
            return


# -- accounts --------------------------------------------------------------------------------------------------------


def _credentials(manifests: Manifests, declared: Declared) -> Iterator[Found]:
    """Their Secrets and domains are there, and each user name is one's."""
    taken: dict[str, str] = {}
    for entry in manifests.credentials:
        spec, document = entry.object.spec, entry.document
        name = spec.username or entry.name.casefold()
        if name in taken and spec.pod_selector is None:
            what = f"the user name {name} is taken by SMTPCredential {taken[name]}"
            yield Found(document.problem(("spec", "username"), what, "Give each account a name of its own."))
        taken.setdefault(name, entry.name)
        ref = spec.secret_ref
        if ref is not None:
            at: FieldPath = ("spec", "secretRef")
            secret = manifests.secrets.get(ref.name)
            is_hashed = secret is not None and ref.password_key + HASHED in secret.object.key_names
            keys = (ref.password_key + HASHED,) if is_hashed else (ref.password_key,)
            yield from _secret_keys(manifests, declared, entry, at, ref.name, *keys)
        domain = spec.domain_ref
        if domain is not None and ("MailDomain", domain.name) not in declared:
            known = sorted(each for kind, each in declared if kind == "MailDomain")
            what = f'there is no MailDomain "{domain.name}"'
            mend = sentence(did_you_mean(domain.name, known))
            yield Found(document.problem(("spec", "domainRef", "name"), what, mend))
        if spec.pod_selector is not None:
            what = "podSelector never holds on one machine: a client's pod is known only in a cluster"
            instead = "Write secretRef or generate, or leave the account to the cluster."
            yield Found(document.problem(("spec", "podSelector"), what, instead), True)
    listeners = [each for mta in manifests.mtas for each in mta.object.spec.listeners]
    if manifests.credentials and manifests.mtas and not any(each.role in engine.SUBMISSION for each in listeners):
        what = "no listener of the MTA lets anybody log in"
        instead = "Add a listener of role Submissions (port 465) or Submission (587)."
        yield Found(manifests.credentials[0].document.problem((), what, instead), True)


def _named_credentials(entry: Entry[RelayPolicy], declared: Declared) -> Iterator[Found]:
    for n, name in enumerate(entry.object.spec.match.credentials):
        if name != "*" and ("SMTPCredential", name) not in declared:
            known = sorted(each for kind, each in declared if kind == "SMTPCredential")
            what = f'there is no SMTPCredential "{name}"'
            at: FieldPath = ("spec", "match", "credentials", n)
            yield Found(entry.document.problem(at, what, sentence(did_you_mean(name, known))))


# -- access ----------------------------------------------------------------------------------------------------------


def _access(manifests: Manifests) -> Iterator[Found]:
    """One folder is one MTA, and that obeys one."""
    for entry in manifests.access[1:]:
        what = f"a second AccessPolicy, after {manifests.access[0].name}"
        yield Found(entry.document.problem((), what, "Keep one AccessPolicy in a folder."))
