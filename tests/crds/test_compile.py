"""Manifests to EngineConfig: defaults, paths, order, the hash."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kit.manifests import BASE, compiled, domain, loaded, manifest, mta, policy, secret
from posthof_crds import engine
from posthof_crds.compile import compile as compile_manifests
from posthof_crds.engine import (
    ActionKind,
    Egress,
    EngineConfig,
    HopKind,
    InboundMode,
    NextHop,
    SecretRef,
    TLSMode,
    content_hash,
)

MAILDIR = "mode: Maildir\nrecipients: {list: [Bob]}"


def test_defaults_are_those_of_the_engine() -> None:
    config = compiled(mta("hostname: mx.example.org\nlisteners: [{name: a, role: MX, port: 25}]"))
    listener = engine.Listener(name="a", role=engine.ListenerRole.MX, host="", port=25)
    assert config.listeners == (listener,)
    assert config.spool == engine.SpoolSettings(path="/var/spool/posthof")
    assert (config.mail_root, config.state_dir) == ("/var/mail/posthof", "/var/lib/posthof")
    for name in ("resolver", "workers", "outbound_sessions", "http", "retry", "limits", "timeouts", "egress", "user"):
        default = next(field for field in msgspec.structs.fields(EngineConfig) if field.name == name)
        assert getattr(config, name) == default.default, name


def test_relative_paths_are_joined_to_the_current_directory() -> None:
    config = compiled(
        mta(more="spool: {path: var/spool}\nmailRoot: ./var/mail\nstateDir: var/../state"),
        domain("a", "mode: LMTP\nnextHops: [{socket: run/lmtp}]\nrecipients: {any: true}"),
        manifest("TLSCert", "c", "dnsNames: [mx.example.org]\nissuer: {files: {cert: a.pem, key: /k.pem}}"),
    )
    assert config.spool.path == "/srv/var/spool"
    assert (config.mail_root, config.state_dir) == ("/srv/var/mail", "/srv/state")
    assert config.domains["a.test"].next_hops == (NextHop(kind=HopKind.UNIX, name="/srv/run/lmtp", port=0),)
    pair = config.certificates["c"].pair
    assert pair is not None
    assert (pair.cert_file, pair.key_file) == ("/srv/a.pem", "/k.pem")
    with pytest.raises(ValueError, match="absolute"):
        compile_manifests(loaded(mta()), Path("var"))


def test_a_listener_has_all_its_settings() -> None:
    house = mta("""
    hostname: mx.example.org
    listeners:
      - name: smtp
        role: MX
        address: 127.0.0.1
        port: 2525
        tls: {mode: Implicit, certRefs: [{name: c}]}
        proxyProtocol: {trustedCIDRs: [10.0.0.0/8]}
        xclient: {trustedCIDRs: ['::1']}
        bareNewlines: Normalise
        implementation: Aiosmtpd
        limits: {messageSize: 1Mi, timeout: 1m, stressTimeout: 2s, clientMessageRate: 7}
    """)
    cert = manifest("TLSCert", "c", "dnsNames: [mx.example.org]\nissuer: {selfSigned: {}}\nduration: 30d")
    (listener,) = compiled(house, cert).listeners
    assert listener == engine.Listener(
        name="smtp",
        role=engine.ListenerRole.MX,
        host="127.0.0.1",
        port=2525,
        tls=TLSMode.IMPLICIT,
        certificates=("c",),
        proxy_trusted=("10.0.0.0/8",),
        xclient_trusted=("::1/128",),
        normalise_newlines=True,
        implementation="aiosmtpd",
        limits=engine.ListenerLimits(message_size=1048576, timeout=60, stress_timeout=2, client_message_rate=7),
    )


def test_rules_stand_in_the_order_they_are_asked() -> None:
    names = [("b", 5), ("a", 5), ("z", 100), ("m", -1)]
    rules = [policy(name, f"priority: {priority}\naction: {{type: Reject}}") for name, priority in names]
    assert [rule.name for rule in compiled(*rules).rules] == ["z", "a", "b", "m"]


def test_a_rule_has_all_its_settings() -> None:
    (rule,) = compiled(
        mta(more="egress: {addresses: [192.0.2.1, '2001:db8::1'], helo: out.example.org}\nretry: {lifetime: 3d}"),
        secret("login", username="u", password="p"),
        policy(
            "p",
            """
            match:
              clients: [10.0.0.0/8]
              senders: ['Bob@EXAMPLE.org', '*@münchen.example', '<>']
              headers: [{name: X-Kind, pattern: '*BULK*'}]
            action:
              type: Smarthost
              nextHops: [{host: SMTP.example.org, port: 587}, {mx: example.net}, {srv: _submission._tcp.example.com}]
              auth: {secretName: login}
            tls: Verify
            egress: {addresses: [192.0.2.2]}
            retry: {intervals: [1m, 1h30m]}
            limits: {connections: 2}
            """,
        ),
    ).rules
    assert rule.match.senders == ("bob@example.org", "*@xn--mnchen-3ya.example", "<>")
    assert rule.match.headers == (engine.HeaderMatch(name="x-kind", pattern="*bulk*"),)
    assert rule.action == engine.Action(
        kind=ActionKind.SMARTHOST,
        hops=(
            NextHop(kind=HopKind.HOST, name="smtp.example.org", port=587),
            NextHop(kind=HopKind.MX, name="example.net", port=25),
            NextHop(kind=HopKind.SRV, name="_submission._tcp.example.com", port=0),
        ),
        username=SecretRef(name="login", key="username"),
        password=SecretRef(name="login", key="password"),
    )
    assert rule.egress == Egress(ipv4="192.0.2.2", ipv6="2001:db8::1", helo="out.example.org")
    assert rule.retry == engine.Retry(intervals=(60.0, 5400.0), lifetime=3 * 86400.0)
    assert rule.limits == engine.DestinationLimits(connections_start=2, connections=2)


def test_a_mail_domain_has_all_its_settings() -> None:
    config = compiled(
        domain(
            "acme",
            """
            mode: LMTP
            nextHops: [{host: 10.0.0.1}, {host: '[2001:db8::1]', port: 2424}]
            tls: Encrypt
            recipients: {callout: {negative: 1m}}
            aliases: {Info: [bob, Eve@X.test], "Two": [bob]}
            catchAll: [info]
            separator: "-"
            """,
            place="Büro.example",
        )
    )
    (acme,) = config.domains.values()
    assert acme == engine.Domain(
        name="acme",
        domain="xn--bro-hoa.example",
        mode=InboundMode.LMTP,
        next_hops=(
            NextHop(kind=HopKind.HOST, name="10.0.0.1", port=24),
            NextHop(kind=HopKind.HOST, name="2001:db8::1", port=2424),
        ),
        tls=engine.TLSLevel.ENCRYPT,
        check=engine.RecipientCheck.CALLOUT,
        callout=engine.Callout(positive=3600.0, negative=60.0),
        aliases={"info": ("bob@xn--bro-hoa.example", "Eve@x.test"), "two": ("bob@xn--bro-hoa.example",)},
        catch_all=("info@xn--bro-hoa.example",),
        separator="-",
    )


@pytest.mark.parametrize(
    ("documents", "place"),
    [
        ([mta(more="doubleBounceTo: ops@x.test")], "ops@x.test"),
        ([domain("b", MAILDIR), domain("a", MAILDIR, place="z.test")], "postmaster@z.test"),
        ([domain("a", "mode: Reject"), domain("b", MAILDIR)], "postmaster@b.test"),
        ([domain("a", "mode: Reject")], "postmaster@mx.example.org"),
        ([], "postmaster@mx.example.org"),
    ],
)
def test_double_bounces_always_have_a_place(documents: list[str], place: str) -> None:
    config = compiled(*documents)
    assert config.double_bounce_to == place
    if place.endswith("mx.example.org"):
        built_in = config.domains["mx.example.org"]
        assert (built_in.mode, built_in.recipients) == (InboundMode.MAILDIR, {"postmaster"})


def test_the_hash_says_what_the_config_says_and_not_how_it_was_written() -> None:
    one, other = domain("a", MAILDIR), domain("b", "mode: Reject")
    assert content_hash(compiled(one, other)) == content_hash(compiled(other, "# moved\n" + one))
    assert content_hash(compiled(one)) != content_hash(compiled(one, other))
    assert content_hash(compiled(one)) == content_hash(compiled(one))


def test_a_config_survives_the_wire() -> None:
    config = compiled(domain("a", MAILDIR), policy("p", "match: {clients: [10.0.0.0/8]}\naction: {type: Direct}"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=EngineConfig) == config


def test_secrets_are_found_by_name_and_never_printed() -> None:
    manifests = loaded(
        mta(), "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: eHl6enk=}\nstringData: {b: xyzzy}\n"
    )
    assert manifests.secret(SecretRef(name="s", key="a")) == b"xyzzy"
    assert manifests.secret(SecretRef(name="s", key="b")) == b"xyzzy"
    with pytest.raises(LookupError, match="no key c"):
        manifests.secret(SecretRef(name="s", key="c"))
    with pytest.raises(LookupError, match="no Secret t"):
        manifests.secret(SecretRef(name="t", key="c"))
    assert "xyzzy" not in f"{manifests!r} {manifests.secrets!r}"
    assert "eHl6" not in f"{manifests!r} {manifests.secrets!r}"


def test_ten_thousand_domains_compile_in_seconds() -> None:
    inbound = "mode: LMTP\nnextHops: [{host: lmtp.internal}]\nrecipients: {list: [a, b]}\naliases: {info: [a]}"
    documents = [domain(f"d{n}", inbound) for n in range(10_000)]
    config = compiled(*documents)
    assert len(config.domains) == 10_000
    assert len(content_hash(config)) == 16
    assert BASE.is_absolute()
