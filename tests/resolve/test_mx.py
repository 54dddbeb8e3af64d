"""RFC 5321 section 5 and its neighbours, against a real DNS server."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
import uvloop

from kit.dns import KNOT_MISSING, DNSServer, Records, find_knot, knot
from posthof_crds.engine import (
    Egress,
    EngineConfig,
    HopKind,
    Listener,
    ListenerRole,
    NextHop,
    SpoolSettings,
    TLSLevel,
)
from posthof_pod.model import Destination, DestinationKind, Host, Route
from posthof_pod.replies import Failure, Permanent, Temporary
from posthof_pod.resolve.assembly import assemble
from posthof_pod.resolve.mx import Resolver, address_literal
from posthof_pod.resolve.own import Own, has_route, is_local_address


def direct(name: str, **more: object) -> Destination:
    return Destination(key=f"direct:{name}", kind=DestinationKind.DIRECT, name=name, **more)  # type: ignore[arg-type]


def via(*hops: NextHop, kind: DestinationKind = DestinationKind.SMARTHOST, **more: object) -> Destination:
    return Destination(key="via", kind=kind, name="via", hops=hops, **more)  # type: ignore[arg-type]


def hop(kind: HopKind, name: str, port: int = 25) -> NextHop:
    return NextHop(kind=kind, name=name, port=port)


def config(address: str, *listeners: tuple[str, int], direct_port: int = 25) -> EngineConfig:
    return EngineConfig(
        name="test",
        hostname="mx.our.test",
        listeners=tuple(Listener(name="l", role=ListenerRole.MX, host=h, port=p) for h, p in listeners),
        spool=SpoolSettings(path="unused"),
        mail_root="",
        state_dir="",
        resolver=(address,),
        direct_port=direct_port,
    )


def routes(
    records: Records,
    *wanted: Destination,
    listeners: tuple[tuple[str, int], ...] = (),
    seed: int = 1,
    **knobs: object,
) -> list[Route | Failure]:
    """What becomes of each destination, in one DNS with these records."""
    with DNSServer(records) as dns:
        for name, value in knobs.items():
            setattr(dns, name, value)
        resolver = assemble(config(dns.address, *listeners), rng=random.Random(1).random).resolver

        async def each() -> list[Route | Failure]:
            found: list[Route | Failure] = []
            for destination in wanted:
                try:
                    found.append(await resolver.route(destination, time.time()))
                except (Temporary, Permanent) as failure:
                    found.append(failure)
            return found

        return uvloop.run(each())


def route(records: Records, destination: Destination, **more: object) -> Route:
    (found,) = routes(records, destination, **more)  # type: ignore[arg-type]
    assert isinstance(found, Route), found
    return found


def failure(records: Records, destination: Destination, **more: object) -> Failure:
    (found,) = routes(records, destination, **more)  # type: ignore[arg-type]
    assert isinstance(found, Failure), found
    return found


def names(found: Route) -> list[str]:
    return [host.name for host in found.hosts]


def addresses(found: Route) -> list[str]:
    return [host.address for host in found.hosts]


THREE = {
    "a.test": {"MX": ["10 m1.test", "20 m2.test", "30 m3.test"]},
    "m1.test": {"A": "127.0.0.1"},
    "m2.test": {"A": "127.0.0.2"},
    "m3.test": {"A": "127.0.0.3"},
}


def test_mx_hosts_are_tried_by_preference():
    assert route(THREE, direct("a.test")).hosts == (
        Host("m1.test", "127.0.0.1", 25),
        Host("m2.test", "127.0.0.2", 25),
        Host("m3.test", "127.0.0.3", 25),
    )


def test_hosts_of_one_preference_come_in_random_order():
    records = {**THREE, "a.test": {"MX": ["10 m1.test", "10 m2.test", "10 m3.test"]}}
    found = routes(records, *[direct("a.test")] * 60)
    orders = {tuple(names(one)) for one in found if isinstance(one, Route)}
    assert len(orders) == 6
    assert {one.site for one in found if isinstance(one, Route)} == {"smtp://m1.test,m2.test,m3.test:25 tls=May"}


def test_without_mx_the_domain_itself_is_the_host():
    assert route({"a.test": {"A": "127.0.0.9"}}, direct("a.test")).hosts == (Host("a.test", "127.0.0.9", 25),)


def test_a_null_mx_is_permanent_556_5_1_10():
    found = failure({"a.test": {"MX": "0 .", "A": "127.0.0.9"}}, direct("a.test"))
    assert isinstance(found, Permanent)
    assert (found.reply.code, found.reply.status) == (556, "5.1.10")


def test_a_dot_beside_other_hosts_is_passed_over():
    assert names(route({**THREE, "a.test": {"MX": ["0 .", "10 m1.test"]}}, direct("a.test"))) == ["m1.test"]


def test_a_domain_that_does_not_exist_is_permanent_5_1_2():
    found = failure({}, direct("gone.test"))
    assert isinstance(found, Permanent)
    assert (found.reply.code, found.reply.status) == (550, "5.1.2")
    assert "gone.test" in found.reason


def test_a_domain_without_any_host_is_permanent_5_4_4():
    found = failure({"a.test": {"TXT": "x"}}, direct("a.test"))
    assert isinstance(found, Permanent)
    assert found.reply.status == "5.4.4"


def test_mx_hosts_that_do_not_exist_are_permanent():
    assert isinstance(failure({"a.test": {"MX": "1 gone.test"}}, direct("a.test")), Permanent)


@pytest.mark.parametrize("name", ["a.test", "m1.test"])
def test_dns_that_fails_is_temporary_4_4_3(name: str):
    records = {"a.test": {"MX": "1 m1.test"}, "m1.test": {"A": "127.0.0.1"}}
    found = failure(records, direct("a.test"), failing={name})
    assert isinstance(found, Temporary)
    assert (found.reply.code, found.reply.status) == (451, "4.4.3")
    assert "SERVFAIL" in found.reason


def test_one_mx_host_that_fails_is_passed_over():
    assert names(route(THREE, direct("a.test"), failing={"m1.test"})) == ["m2.test", "m3.test"]


def test_a_failing_host_and_a_missing_one_together_are_temporary():
    records = {"a.test": {"MX": ["1 gone.test", "2 m1.test"]}}
    assert isinstance(failure(records, direct("a.test"), failing={"m1.test"}), Temporary)


def test_an_alias_is_followed():
    assert names(route({**THREE, "b.test": {"CNAME": "a.test"}}, direct("b.test"))) == [
        "m1.test",
        "m2.test",
        "m3.test",
    ]


def test_aliases_are_followed_where_the_server_does_not():
    records = {
        **THREE,
        "c.test": {"CNAME": "b.test"},
        "b.test": {"CNAME": "a.test"},
        "m1.test": {"CNAME": "real.test"},
    }
    records["real.test"] = {"A": "127.0.0.7"}
    found = route(records, direct("c.test"), is_chasing=False)
    assert found.hosts[0] == Host("m1.test", "127.0.0.7", 25)


def test_aliases_in_a_circle_are_temporary():
    found = failure({"a.test": {"CNAME": "b.test"}, "b.test": {"CNAME": "a.test"}}, direct("a.test"))
    assert isinstance(found, Temporary)
    assert "loop" in found.reason


def test_too_many_aliases_are_temporary():
    records = {f"n{n}.test": {"CNAME": f"n{n + 1}.test"} for n in range(20)}
    assert isinstance(failure(records, direct("n0.test")), Temporary)


def test_both_families_in_turn_ipv4_first():
    records = {"a.test": {"A": ["127.0.0.1", "127.0.0.2"], "AAAA": ["::1"]}}
    first, second, third = addresses(route(records, direct("a.test")))  # DNS gives the A records in any order
    assert (second, {first, third}) == ("::1", {"127.0.0.1", "127.0.0.2"})


def test_a_source_address_of_one_family_puts_that_family_first():
    records = {"a.test": {"A": "127.0.0.1", "AAAA": "::1"}}
    assert addresses(route(records, direct("a.test", egress=Egress(ipv6="::1")))) == ["::1", "127.0.0.1"]


def test_a_family_that_fails_is_passed_over():
    with DNSServer({"a.test": {"A": "127.0.0.1"}}) as dns:
        resolver = assemble(config(dns.address), rng=random.random)

        async def story() -> Route:
            await resolver.cache.lookup("a.test", "MX", time.time())
            await resolver.cache.lookup("a.test", "A", time.time())
            dns.failing = {"a.test"}
            return await resolver.resolver.route(direct("a.test"), time.time())

        assert addresses(uvloop.run(story())) == ["127.0.0.1"]


def test_at_most_5_addresses_and_one_of_them_of_the_second_preference():
    records = {
        "a.test": {"MX": ["10 m1.test", "20 m2.test"]},
        "m1.test": {"A": [f"127.0.1.{n}" for n in range(1, 9)]},
        "m2.test": {"A": "127.0.2.1"},
    }
    found = addresses(route(records, direct("a.test")))
    assert len(found) == 5
    assert found[4] == "127.0.2.1"


def test_our_own_name_ends_the_list_at_its_preference():
    records = {**THREE, "a.test": {"MX": ["10 m1.test", "20 mx.our.test", "20 m2.test", "30 m3.test"]}}
    assert names(route(records, direct("a.test"))) == ["m1.test"]


def test_our_own_name_as_the_best_host_is_a_loop():
    found = failure({**THREE, "a.test": {"MX": ["10 MX.our.test", "20 m1.test"]}}, direct("a.test"))
    assert isinstance(found, Permanent)
    assert (found.reply.code, found.reply.status) == (550, "5.4.6")


@pytest.mark.parametrize("listener", ["127.0.0.2", "", "0.0.0.0"])
def test_an_address_where_we_listen_ends_the_list_too(listener: str):
    found = routes(THREE, direct("a.test"), listeners=((listener, 25),))[0]
    if listener == "127.0.0.2":
        assert isinstance(found, Route)
        assert names(found) == ["m1.test"]
    else:
        assert isinstance(found, Permanent)
        assert found.reply.status == "5.4.6"


def test_a_listener_on_another_port_is_not_ours():
    assert len(route(THREE, direct("a.test"), listeners=(("", 2525),)).hosts) == 3


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1"])
def test_addresses_that_are_no_hosts_are_refused(address: str):
    found = failure({"a.test": {"A": address}}, direct("a.test"))
    assert isinstance(found, Permanent)
    assert found.reply.status == "5.4.6"


def test_address_literals():
    found = routes({}, direct("[192.0.2.1]"), direct("[IPv6:2001:db8::1]"), direct("[x400:foo]"), direct("192.0.2.1"))
    assert [one.hosts[0][1:3] for one in found if isinstance(one, Route)] == [("192.0.2.1", 25), ("2001:db8::1", 25)]
    assert [one.reply.status for one in found if isinstance(one, Permanent)] == ["5.1.3", "5.1.2"]
    assert address_literal("[IPv6:::1]") == "::1"
    assert address_literal("example.org") == ""


def test_direct_port_is_configurable():
    with DNSServer(THREE) as dns:
        resolver = assemble(config(dns.address, direct_port=2525), rng=random.random).resolver
        found = uvloop.run(resolver.route(direct("a.test"), time.time()))
    assert {host.port for host in found.hosts} == {2525}


def test_next_hops_are_tried_in_the_order_of_the_policy():
    found = route(
        THREE,
        via(hop(HopKind.HOST, "m2.test", 587), hop(HopKind.HOST, "[127.0.0.8]", 26), hop(HopKind.MX, "a.test", 27)),
    )
    assert found.hosts == (
        Host("m2.test", "127.0.0.2", 587),
        Host("127.0.0.8", "127.0.0.8", 26),
        Host("m1.test", "127.0.0.1", 27),
        Host("m2.test", "127.0.0.2", 27),
        Host("m3.test", "127.0.0.3", 27),
    )


def test_a_next_hop_by_socket_needs_no_dns():
    found = route({}, via(hop(HopKind.UNIX, "/run/lmtp"), kind=DestinationKind.LMTP))
    assert found.hosts == (Host("/run/lmtp", "/run/lmtp", 0),)
    assert found.site == "lmtp:///run/lmtp:0 tls=May"


@pytest.mark.parametrize("kind", [HopKind.HOST, HopKind.MX, HopKind.SRV])
def test_a_next_hop_that_does_not_exist_is_temporary(kind: HopKind):
    found = failure({}, via(hop(kind, "gone.test")))
    assert isinstance(found, Temporary)
    assert found.reply.status == "4.4.4"
    assert "gone.test" in found.reason


def test_a_next_hop_that_does_not_exist_is_passed_over():
    assert names(route(THREE, via(hop(HopKind.HOST, "gone.test"), hop(HopKind.HOST, "m1.test")))) == ["m1.test"]


def test_a_next_hop_that_is_this_server_is_temporary_4_4_6():
    found = failure(THREE, via(hop(HopKind.HOST, "m1.test", 25)), listeners=(("127.0.0.1", 25),))
    assert isinstance(found, Temporary)
    assert found.reply.status == "4.4.6"


def test_localhost_is_known_without_dns():
    assert addresses(route({}, via(hop(HopKind.HOST, "localhost", 26))))[0] == "127.0.0.1"


def test_srv_goes_by_priority_and_draws_by_weight():
    records = {
        "_s._tcp.test": {"SRV": ["10 90 587 m1.test", "10 10 588 m2.test", "20 0 589 m3.test"]},
        **{name: THREE[name] for name in ("m1.test", "m2.test", "m3.test")},
    }
    found = routes(records, *[via(hop(HopKind.SRV, "_s._tcp.test"))] * 200)
    firsts = [one.hosts[0].port for one in found if isinstance(one, Route)]
    assert {tuple(sorted(host.port for host in one.hosts)) for one in found if isinstance(one, Route)} == {
        (587, 588, 589)
    }
    assert all(one.hosts[2].port == 589 for one in found if isinstance(one, Route))
    assert 160 < firsts.count(587) < 200


def test_an_srv_target_of_dot_offers_nothing():
    assert isinstance(failure({"_s._tcp.test": {"SRV": "0 0 0 ."}}, via(hop(HopKind.SRV, "_s._tcp.test"))), Temporary)


def test_the_site_tells_policies_apart_and_unites_domains():
    records = {**THREE, "b.test": THREE["a.test"], "c.test": {"MX": ["20 m1.test", "10 m2.test", "30 m3.test"]}}
    plain, other, reordered, strict, ruled, sent_from = [
        one.site
        for one in routes(
            records,
            direct("a.test"),
            direct("b.test"),
            direct("c.test"),
            direct("a.test", tls=TLSLevel.VERIFY),
            direct("a.test", rule="partners"),
            direct("a.test", egress=Egress(ipv4="127.0.0.5")),
        )
        if isinstance(one, Route)
    ]
    assert plain == other
    assert len({plain, reordered, strict, ruled, sent_from}) == 5


def test_an_expired_route_is_served_while_dns_is_away():
    with DNSServer(THREE, ttl=5) as dns:
        resolution = assemble(config(dns.address), rng=random.random)

        async def story() -> tuple[Route, Route]:
            now = time.time()
            first = await resolution.resolver.route(direct("a.test"), now)
            dns.stop()
            return first, await resolution.resolver.route(direct("a.test"), now + 1000)

        first, second = uvloop.run(story())
        dns.start()
    assert first.hosts == second.hosts
    assert second.until < first.until + 1100


def test_short_names_of_next_hops_are_searched():
    async def lookup(name: str, kind: str, now: float) -> object:
        from posthof_pod.resolve.cache import Result
        from posthof_pod.resolve.wire import Record

        is_there = name == "relay.mail.svc.test" and kind == "A"
        records = (Record(name, "A", 60, "127.0.0.4"),) if is_there else ()
        return Result(is_there, records, now + 60, False)

    resolver = Resolver(
        lookup,  # type: ignore[arg-type]  # a value instead of the cache
        own=Own(),
        rng=random.random,
        search=lambda: (("mail.svc.test", "svc.test"), 1),
    )
    found = uvloop.run(resolver.route(via(hop(HopKind.HOST, "relay", 26)), 0.0))
    assert found.hosts == (Host("relay", "127.0.0.4", 26),)


def test_who_we_are():
    own = Own(("MX.our.test.",), [("127.0.0.1", 25), ("", 2525), ("::1", 26)])
    assert own.is_name("mx.our.test")
    assert own.is_endpoint("127.0.0.1", 25)
    assert own.is_endpoint("0:0:0:0:0:0:0:1", 26)
    assert not own.is_endpoint("127.0.0.2", 25)
    assert own.is_endpoint("127.0.0.77", 2525)
    assert not own.is_endpoint("192.0.2.1", 2525)
    assert is_local_address("127.0.0.1")
    assert not is_local_address("192.0.2.1")
    assert has_route("127.0.0.1")


@pytest.mark.interop
def test_a_real_knot_answers_the_same(tmp_path: Path):
    if find_knot() is None:
        if os.environ.get("CI"):
            pytest.fail(KNOT_MISSING)
        pytest.skip(KNOT_MISSING)
    zones = {
        "k.test": "@ MX 10 mx1\n@ MX 20 mx2\nmx1 A 127.0.0.1\nmx1 AAAA ::1\nmx2 CNAME host.other.test.\n"
        'null MX 0 .\nalias CNAME k.test.\nonly A 127.0.0.9\n_s._tcp SRV 0 5 587 mx1\ntext TXT "x"\n'
        + "".join(f"big MX {n} a-rather-long-name-of-a-mail-host-number-{n}.of-k.test.\n" for n in range(40)),
        "other.test": "host A 127.0.0.2\n",
    }
    with knot(tmp_path, zones) as address:
        resolution = assemble(config(address), rng=random.random)

        async def story() -> None:
            async def of(destination: Destination) -> Route | Failure:
                try:
                    return await resolution.resolver.route(destination, time.time())
                except (Temporary, Permanent) as failure:
                    return failure

            found = await of(direct("k.test"))
            assert isinstance(found, Route)
            assert addresses(found) == ["127.0.0.1", "::1", "127.0.0.2"]
            found = await of(direct("alias.k.test"))
            assert isinstance(found, Route)
            assert names(found)[0] == "mx1.k.test"
            statuses = {}
            for name in ("null.k.test", "gone.k.test", "text.k.test", "away.example"):
                found = await of(direct(name))
                assert isinstance(found, Failure)
                statuses[name] = found.reply.status
            assert statuses == {
                "null.k.test": "5.1.10",
                "gone.k.test": "5.1.2",
                "text.k.test": "5.4.4",
                "away.example": "4.4.3",  # knot refuses what is not its own
            }
            found = await of(direct("only.k.test"))
            assert isinstance(found, Route)
            found = await of(via(hop(HopKind.SRV, "_s._tcp.k.test")))
            assert isinstance(found, Route)
            assert found.hosts[0] == Host("mx1.k.test", "127.0.0.1", 587)
            assert len((await resolution.wire.query("big.k.test", "MX")).records) == 40  # by TCP

        uvloop.run(story())
