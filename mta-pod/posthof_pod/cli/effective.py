"""An EngineConfig as a person reads it: what `posthof check` prints. Pure: config in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posthof_crds import names
from posthof_crds.engine import (
    ActionKind,
    DestinationLimits,
    Domain,
    Egress,
    EngineConfig,
    InboundMode,
    Listener,
    ListenerRole,
    Match,
    NextHop,
    RecipientCheck,
    Retry,
    Rule,
    TLSMode,
    content_hash,
)
from posthof_crds.units import duration_text, size_text

_SHOWN = 8  # entries of a list, then a count


def describe(config: EngineConfig, *, domains: int = 50) -> str:
    """The whole configuration; of the domains the first ones."""
    lines = [f"{config.hostname} (MTA {config.name}), configuration {content_hash(config)}"]
    for title, block in (
        ("Receives on", _listeners(config)),
        ("Certificates", _certificates(config)),
        ("Keeps mail", _places(config)),
        ("Domains", _domains(config, domains)),
        ("Rules, in the order they are asked", _rules(config)),
        ("Judges mail from the world", _judging(config)),
        ("Sends", _sending(config)),
        ("Runs", _running(config)),
    ):
        lines += ["", title, *(f"  {line}" for line in block)]
    return "\n".join(lines) + "\n"


def _some(entries: Sequence[object], limit: int = _SHOWN) -> str:
    shown = ", ".join(map(str, entries[:limit]))
    return shown if len(entries) <= limit else f"{shown} and {len(entries) - limit} more"


def _listeners(config: EngineConfig) -> Iterator[str]:
    for listener in config.listeners:
        yield from _listener(listener)


def _listener(listener: Listener) -> Iterator[str]:
    host = listener.host or "*"
    place = f"[{host}]:{listener.port}" if ":" in host else f"{host}:{listener.port}"
    tls = "no TLS"
    if listener.tls is not TLSMode.OFF:
        tls = f"{'TLS from the first byte' if listener.tls is TLSMode.IMPLICIT else 'STARTTLS'}"
        tls += f" with {_some(listener.certificates)}"
    yield f"{listener.name}: {place}, role {listener.role}, {tls}"
    limits = listener.limits
    yield (
        f"    at most {size_text(limits.message_size)} a message, {limits.recipients} recipients, "
        f"{limits.client_sessions} sessions a client, {limits.sessions} a worker"
    )
    rates = [
        f"{count} {what} a client and minute"
        for count, what in ((limits.client_session_rate, "sessions"), (limits.client_message_rate, "messages"))
        if count
    ]
    if rates:
        yield f"    at most {', '.join(rates)}"
    if listener.proxy_trusted:
        yield f"    PROXY protocol from {_some(listener.proxy_trusted)}"
    if listener.xclient_trusted:
        yield f"    XCLIENT from {_some(listener.xclient_trusted)}"
    if listener.normalise_newlines:
        yield "    a CR or LF that stands alone becomes CRLF"
    if listener.implementation != "native":
        yield f"    served by {listener.implementation}"


def _certificates(config: EngineConfig) -> Iterator[str]:
    if not config.certificates:
        yield "none"
    for certificate in config.certificates.values():
        source = f"made here, valid {duration_text(certificate.duration)}"
        pair = certificate.pair
        if pair is not None and pair.cert_secret is not None:
            source = f"Secret {pair.cert_secret.name}"
        elif pair is not None:
            source = f"{pair.cert_file}, {pair.key_file}"
        yield f"{certificate.name}: {_some(certificate.dns_names)}; {source}"


def _places(config: EngineConfig) -> Iterator[str]:
    spool = config.spool
    size = f", of {size_text(spool.size)}" if spool.size else ""
    yield f"spool: {spool.path}{size}, refuses mail above {spool.max_usage:.0%}"
    yield f"Maildirs: below {config.mail_root}"
    yield f"state: {config.state_dir}"
    yield f"double bounces: {config.double_bounce_to or 'nowhere'}"


def _judging(config: EngineConfig) -> Iterator[str]:
    if not any(listener.role is ListenerRole.MX for listener in config.listeners):
        yield "nothing: no listener has role MX"
        return
    access = config.access
    spf, dkim, dmarc, arc = access.spf, access.dkim, access.dmarc, access.arc
    yield f"by AccessPolicy {access.name}" if access.name else "by the built-in policy (there is no AccessPolicy)"
    parts = {"SPF": spf.check, "DKIM": dkim.check, "ARC": arc.check, "DMARC": dmarc.check}
    asked = [name for name, is_asked in parts.items() if is_asked]
    yield f"asked: {', '.join(asked) or 'nothing'}; results in Authentication-Results of {config.hostname}"
    if spf.check:
        yield f"SPF: fail {spf.fail}, softfail {spf.soft_fail}, permerror {spf.perm_error}, no DNS {spf.temp_error}"
    if dkim.check:
        yield f"DKIM: no good signature {dkim.fail}, none at all {dkim.unsigned}, no DNS {dkim.temp_error}"
    if dmarc.check:
        yield (
            f"DMARC: p=reject {dmarc.reject}, p=quarantine {dmarc.quarantine}, no one author {dmarc.bad_from}, "
            f"no DNS {dmarc.temp_error}"
        )
    if dmarc.known_lists or arc.trusted_sealers:
        yield f"believes lists {_some(dmarc.known_lists) or '-'}, sealers {_some(arc.trusted_sealers) or '-'}"
    told = [
        name for name, on in (("daily", dmarc.aggregate_reports), ("of each failure", dmarc.failure_reports)) if on
    ]
    yield f"reports to domain owners: {' and '.join(told) or 'none'}"


def _domains(config: EngineConfig, limit: int) -> Iterator[str]:
    if not config.domains:
        yield "none: no mail is received, but for postmaster"
    for domain in list(config.domains.values())[:limit]:
        yield from _domain(domain, config)
    if len(config.domains) > limit:
        yield f"... and {len(config.domains) - limit} more"


def _domain(domain: Domain, config: EngineConfig) -> Iterator[str]:
    shown = names.to_unicode(domain.domain)
    title = domain.domain if shown == domain.domain else f"{domain.domain} ({shown})"
    yield f"{title}: {_where(domain, config)}"
    if domain.mode is not InboundMode.REJECT:
        yield f"    exists: {_who(domain)}"
    if domain.aliases:
        aliases = [f"{name} -> {_some(targets, 3)}" for name, targets in sorted(domain.aliases.items())]
        yield f"    aliases: {_some(aliases)}"
    if domain.catch_all:
        yield f"    all other names: {_some(domain.catch_all)}"
    if domain.separator not in ("", "+"):
        yield f"    sub-addresses: name{domain.separator}detail"
    if domain.retry is not None:
        yield f"    {_retry(domain.retry)}"


def _where(domain: Domain, config: EngineConfig) -> str:
    if domain.mode is InboundMode.MAILDIR:
        return f"Maildirs {config.mail_root}/{domain.maildir}"
    if domain.mode is InboundMode.ALIAS:
        return "aliases only"
    if domain.mode is InboundMode.REJECT:
        return f"refused, but for postmaster{f' ({domain.reject_text})' if domain.reject_text else ''}"
    return f"{domain.mode} to {_hops(domain.next_hops)}, TLS {domain.tls}"


def _who(domain: Domain) -> str:
    if domain.check is RecipientCheck.ANY:
        return "everybody (backscatter!)"
    if domain.check is RecipientCheck.CALLOUT:
        yes, no = duration_text(domain.callout.positive), duration_text(domain.callout.negative)
        return f"whom the next hop knows (yes is believed {yes}, no {no})"
    if domain.mode is InboundMode.ALIAS:
        return "the aliases"
    return _some(sorted(domain.recipients)) or "postmaster"


def _hops(hops: Sequence[NextHop]) -> str:
    return ", then ".join(f"{hop.kind} {hop.name}{f':{hop.port}' if hop.port else ''}" for hop in hops)


def _rules(config: EngineConfig) -> Iterator[str]:
    for number, rule in enumerate(config.rules, 1):
        yield f"{number}. {rule.name} (priority {rule.priority}): {action(rule)}"
        yield f"    for {matching(rule.match)}"
        if rule.egress != config.egress and rule.egress != Egress():
            yield f"    {_egress(rule.egress, config)}"
        if rule.retry is not None:
            yield f"    {_retry(rule.retry)}"
        if rule.limits is not None:
            yield f"    {_limits(rule.limits)}"
    yield "otherwise: mail for other domains is refused (550 5.7.1); our own reports and aliases go Direct"


def action(rule: Rule) -> str:
    """What a rule does, in half a sentence."""
    does = rule.action
    if does.kind is ActionKind.DIRECT:
        return f"Direct to the domain's MX, TLS {rule.tls}"
    if does.kind in (ActionKind.SMARTHOST, ActionKind.LMTP):
        login = f", with the login in Secret {does.username.name}" if does.username else ""
        return f"{does.kind} to {_hops(does.hops)}, TLS {rule.tls}{login}"
    if does.kind is ActionKind.REJECT:
        return f"Reject with {does.code} {does.status} {does.text or 'Refused by policy'}"
    if does.kind is ActionKind.REDIRECT:
        return f"Redirect to {_some(does.addresses)}"
    return str(does.kind)


def matching(match: Match) -> str:
    """What a match wants, in half a sentence."""
    parts = [
        f"listener role {_some(match.listener_roles)}" if match.listener_roles else "",
        f"clients in {_some(match.clients)}" if match.clients else "",
        f"senders {_some(match.senders)}" if match.senders else "",
        f"recipients {_some(match.recipients)}" if match.recipients else "",
        f"headers {_some([f'{h.name}: {h.pattern}' for h in match.headers])}" if match.headers else "",
    ]
    return " and ".join(part for part in parts if part) or "all mail"


def _sending(config: EngineConfig) -> Iterator[str]:
    yield _egress(config.egress, config)
    yield _retry(config.retry)
    yield _limits(config.limits)
    yield f"{config.outbound_sessions} sessions a worker, all in all"
    yield f"DNS: {_some(config.resolver) or 'as /etc/resolv.conf says'}"
    if config.direct_port != 25:
        yield f"MX hosts are asked on port {config.direct_port}"


def _egress(egress: Egress, config: EngineConfig) -> str:
    addresses = " and ".join(address for address in (egress.ipv4, egress.ipv6) if address)
    return f"as {egress.helo or config.hostname}, from {addresses or 'the address the kernel chooses'}"


def _retry(retry: Retry) -> str:
    waits = " ".join(duration_text(wait) for wait in retry.intervals)
    return (
        f"tries again after {waits} (+-{retry.jitter:.0%}), gives up after {duration_text(retry.lifetime)} "
        f"(bounces {duration_text(retry.bounce_lifetime)}), tells of a delay after "
        f"{duration_text(retry.delay_notice)} if asked, {duration_text(retry.delay_notice_default)} if not"
    )


def _limits(limits: DestinationLimits) -> str:
    start = f"{limits.connections_start} to " if limits.connections_start < limits.connections else "up to "
    rates = ((limits.connection_rate, "new connections"), (limits.message_rate, "messages"))
    return (
        f"{start}{limits.connections} connections a destination, of all workers together, "
        f"{limits.messages_per_connection} messages each, "
        f"{limits.recipients_per_transaction} recipients a transaction"
    ) + "".join(f", {rate} {what} a minute" for rate, what in rates if rate)


def _running(config: EngineConfig) -> Iterator[str]:
    yield (
        f"{config.workers or 'one worker per CPU, so many'} workers" if config.workers else "one worker for each CPU"
    )
    yield f"as user {config.user}" if config.user else "as the user who starts it"
    host = f"[{config.http.host}]" if ":" in config.http.host else config.http.host or "*"
    yield f"health, metrics and API at http://{host}:{config.http.port}/"
