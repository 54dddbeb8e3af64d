"""Where a recipient goes: one Destination for all who share a queue."""

from __future__ import annotations

import pytest

from kit.manifests import compiled, domain, mta, policy, secret
from posthof_crds.engine import ActionKind, Egress, HopKind, NextHop, Retry, SecretRef, TLSLevel
from posthof_pod.admit.policy import CompiledPolicy
from posthof_pod.admit.route import Routes
from posthof_pod.model import Destination, DestinationKind, Envelope, Origin, Recipient

OURS = domain("ours", "mode: Maildir\nrecipients: {list: [bob]}")
LMTP = domain("box", "mode: LMTP\nnextHops: [{host: a}, {socket: /run/b}]\nrecipients: {any: true}\ntls: Verify")
RELAY = domain("rel", "mode: Relay\nnextHops: [{host: c, port: 2525}]\nrecipients: {any: true}")
ALIAS = domain("al", "mode: Alias\naliases: {a: [bob@ours.test]}")
OUT = policy(
    "out",
    """
    match: {clients: [10.0.0.0/8]}
    action: {type: Smarthost, nextHops: [{host: smtp.far.test, port: 587}], auth: {secretName: login}}
    tls: Verify
    retry: {lifetime: 1d}
    egress: {helo: out.example.org}
    """,
)
LOGIN = secret("login", username="u", password="p")
DIRECT = policy("direct", "match: {recipients: [direct.test, '*.direct.test']}\naction: {type: Direct}\ntls: Encrypt")


def routes(*documents: str) -> Routes:
    return Routes(CompiledPolicy(compiled(OURS, LMTP, RELAY, ALIAS, *documents)))


def envelope(**given: object) -> Envelope:
    values: dict[str, object] = {
        "id": "a-1",
        "sender": "s@far.test",
        "recipients": (),
        "arrived": 0.0,
        "size": 1,
        "client": "10.0.0.1",
        "role": "MX",
    }
    return Envelope(**{**values, **given})  # type: ignore[arg-type]  # a table of envelopes by name


def to(address: str, rule: str = "", original: str = "") -> Recipient:
    return Recipient(address, rule, original=original)


@pytest.mark.parametrize("rules", [(), (DIRECT,)])
@pytest.mark.parametrize(
    ("address", "key", "kind"),
    [
        ("bob@OURS.test", "local:ours.test", DestinationKind.LOCAL),
        ("x@box.test", "lmtp:box.test:a:24", DestinationKind.LMTP),
        ("x@rel.test", "relay:rel.test:c:2525", DestinationKind.SMARTHOST),
    ],
)
def test_a_mail_domain_of_ours(rules: tuple[str, ...], address: str, key: str, kind: DestinationKind) -> None:
    found = routes(*rules).destination(envelope(), to(address))
    assert found is not None
    assert (found.key, found.kind, found.rule) == (key, kind, "")


def test_a_mail_domain_brings_its_hops_and_tls() -> None:
    found = routes().destination(envelope(), to("x@box.test"))
    assert found is not None
    assert found.tls is TLSLevel.VERIFY
    assert found.hops == (
        NextHop(kind=HopKind.HOST, name="a", port=24),
        NextHop(kind=HopKind.UNIX, name="/run/b", port=0),
    )


def test_a_smarthost_is_one_destination_for_all_its_mail() -> None:
    house = routes(OUT, LOGIN)
    found = house.destination(envelope(), to("x@far.test", "out"))
    assert found == Destination(
        key="out:smtp.far.test:587",
        kind=DestinationKind.SMARTHOST,
        name="smtp.far.test:587",
        hops=(NextHop(kind=HopKind.HOST, name="smtp.far.test", port=587),),
        tls=TLSLevel.VERIFY,
        egress=Egress(helo="out.example.org"),
        username=SecretRef(name="login", key="username"),
        password=SecretRef(name="login", key="password"),
        retry=Retry(lifetime=86400.0),
        rule="out",
    )
    assert house.destination(envelope(), to("y@other.test", "out")) is found


def test_direct_has_a_destination_for_each_domain_kept_once() -> None:
    house = routes(DIRECT)
    one = house.destination(envelope(), to("x@Direct.TEST", "direct"))
    assert one is not None
    assert (one.key, one.name, one.tls, one.rule) == ("direct:direct.test", "direct.test", TLSLevel.ENCRYPT, "direct")
    assert house.destination(envelope(), to("y@direct.test", "direct")) is one
    other = house.destination(envelope(), to("y@a.direct.test", "direct"))
    assert other is not None
    assert other.key == "direct:a.direct.test"
    literal = house.destination(envelope(origin=Origin.REPORT), to("y@[IPv6:2001:db8::1]"))
    assert literal is not None
    assert literal.name == "[ipv6:2001:db8::1]"


@pytest.mark.parametrize(
    ("given", "recipient"),
    [({"origin": int(Origin.REPORT)}, to("x@far.test")), ({}, to("x@far.test", original="info@ours.test"))],
)
def test_our_own_mail_goes_direct_where_no_rule_says_otherwise(
    given: dict[str, object], recipient: Recipient
) -> None:
    found = routes().destination(envelope(**given), recipient)
    assert found is not None
    assert (found.key, found.kind, found.rule) == ("direct:far.test", DestinationKind.DIRECT, "")
    found = routes(OUT, LOGIN).destination(envelope(client="203.0.113.1", **given), recipient)
    assert found is not None
    assert found.key == "out:smtp.far.test:587"


def test_mail_whose_rule_or_domain_is_gone_has_no_destination() -> None:
    assert routes().destination(envelope(), to("x@far.test", "out")) is None
    assert routes(DIRECT).destination(envelope(), to("x@far.test", "out")) is None
    assert routes().destination(envelope(), to("a@al.test")) is None
    assert routes().destination(envelope(), to("x@gone.test")) is None


def test_a_changed_rule_takes_over_what_is_queued() -> None:
    newer = policy(
        "newer", "priority: 5\nmatch: {clients: [10.0.0.0/8]}\naction: {type: LMTP, nextHops: [{host: z}]}"
    )
    found = routes(OUT, LOGIN, newer).destination(envelope(), to("x@far.test", "out"))
    assert found is not None
    assert (found.key, found.kind) == ("newer:z:24", DestinationKind.LMTP)


def test_a_rule_with_headers_is_believed_if_it_took_the_mail() -> None:
    bulk = policy(
        "bulk",
        "priority: 5\nmatch: {clients: [10.0.0.0/8], headers: [{name: x}]}\n"
        "action: {type: LMTP, nextHops: [{host: z}]}",
    )
    house = routes(bulk, OUT, LOGIN)
    took = house.destination(envelope(), to("x@far.test", "bulk"))
    passed = house.destination(envelope(), to("x@far.test", "out"))
    assert took is not None
    assert passed is not None
    assert (took.rule, passed.rule) == ("bulk", "out")


def test_held_and_discarded_mail_is_known_by_its_rule() -> None:
    house = routes(
        policy("hold", "priority: 9\nmatch: {recipients: [far.test, ours.test]}\naction: {type: Hold}"),
        policy("gone", "match: {recipients: [trap.test]}\naction: {type: Discard}"),
    )
    assert house.disposition(to("x@far.test", "hold")) is ActionKind.HOLD
    assert house.disposition(to("x@trap.test", "gone")) is ActionKind.DISCARD
    assert house.disposition(to("x@far.test", "unknown")) is None
    assert house.disposition(to("bob@ours.test")) is None
    released = house.destination(envelope(client="203.0.113.1"), to("x@far.test", "hold"))
    assert released is not None
    assert released.key == "direct:far.test", "released mail goes by the next rule, else direct"
    ours = house.destination(envelope(), to("bob@ours.test", "hold"))
    assert ours is not None
    assert ours.key == "local:ours.test"


def test_a_rule_that_names_our_domain_says_where_its_mail_goes() -> None:
    named = policy("named", "match: {recipients: [bob@ours.test]}\naction: {type: Smarthost, nextHops: [{host: z}]}")
    found = routes(named).destination(envelope(), to("BOB@ours.test", "named"))
    assert found is not None
    assert found.key == "named:z:25"
    other = routes(named).destination(envelope(), to("al@ours.test"))
    assert other is not None
    assert other.key == "local:ours.test"


def test_the_house_s_own_settings_are_the_default() -> None:
    settings = """
    egress: {addresses: [127.0.0.1]}
    retry: {lifetime: 3d}
    limits: {destination: {connections: 3}}
    """
    house = Routes(CompiledPolicy(compiled(mta(more=settings), LMTP, DIRECT)))
    for address in ("x@direct.test", "x@box.test"):
        found = house.destination(envelope(), to(address))
        assert found is not None
        assert (found.egress.ipv4, found.retry.lifetime, found.limits.connections) == ("127.0.0.1", 3 * 86400.0, 3)
