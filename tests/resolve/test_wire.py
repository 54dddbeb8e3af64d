"""Questions over real sockets to a DNS server that may be slow, away, lying or short of room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop

from kit.dns import DNSServer
from posthof_pod.resolve.hosts import HostsFile, parse_hosts
from posthof_pod.resolve.wire import BadName, Record, Server, Unanswered, Wire, parse_resolv_conf, parse_server

Result = TypeVar("Result")
ZONE = {
    "a.test": {"MX": ["10 m1.a.test", "20 m2.a.test"], "A": "192.0.2.1", "AAAA": "2001:db8::1"},
    "t.test": {"TXT": '"v=spf1 " "-all"', "SRV": "1 2 587 m1.a.test", "CNAME": []},
    "alias.test": {"CNAME": "a.test"},
    "to-nowhere.test": {"CNAME": "nowhere.test"},
    "big.test": {"TXT": [f'"{n} {"x" * 200}"' for n in range(20)]},
}


def ask(dns: DNSServer, name: str, kind: str, *more: str, patience: float = 2.0):
    wire = Wire((dns.address, *more), timeout=patience)
    return uvloop.run(wire.query(name, kind))


def using(story: Callable[[DNSServer], Result]) -> Result:
    with DNSServer(ZONE) as dns:
        return story(dns)


def test_records_of_every_kind_we_ask_for():
    def story(dns: DNSServer) -> None:
        assert {r.data for r in ask(dns, "a.test", "MX").records} == {(10, "m1.a.test"), (20, "m2.a.test")}
        assert ask(dns, "A.test.", "A").records == (Record("a.test", "A", 300, "192.0.2.1"),)
        assert ask(dns, "a.test", "AAAA").records[0].data == "2001:db8::1"
        assert ask(dns, "t.test", "TXT").records[0].data == b"v=spf1 -all"
        assert ask(dns, "t.test", "SRV").records[0].data == (1, 2, 587, "m1.a.test")
        assert [r.kind for r in ask(dns, "alias.test", "A").records] == ["CNAME", "A"]

    using(story)


def test_no_such_name_and_no_such_record_differ_and_both_tell_how_long():
    def story(dns: DNSServer) -> None:
        gone, empty = ask(dns, "nowhere.test", "A"), ask(dns, "a.test", "TXT")
        assert (gone.exists, gone.records, gone.negative_ttl) == (False, (), 60)
        assert (empty.exists, empty.records, empty.negative_ttl) == (True, (), 60)

    using(story)


def test_an_alias_to_nowhere_exists_itself():
    assert using(lambda dns: ask(dns, "to-nowhere.test", "A")).exists


def test_what_does_not_fit_a_datagram_comes_by_tcp():
    def story(dns: DNSServer) -> None:
        assert len(ask(dns, "big.test", "TXT").records) == 20
        assert [how for *_, how in dns.queries] == ["udp", "tcp"]

    using(story)


def test_forged_answers_are_ignored():
    def story(dns: DNSServer) -> None:
        dns.is_forging = True
        assert [r.data for r in ask(dns, "a.test", "A").records] == ["192.0.2.1"]

    using(story)


def test_a_server_without_edns_is_asked_again_without():
    def story(dns: DNSServer) -> None:
        dns.knows_edns = False
        assert ask(dns, "a.test", "A").records
        assert len(dns.queries) == 2

    using(story)


def test_a_lost_question_is_asked_again():
    def story(dns: DNSServer) -> None:
        dns.drop_first = 1
        assert ask(dns, "a.test", "A", patience=0.1).records

    using(story)


def test_the_next_server_answers_when_the_first_fails():
    def story(good: DNSServer) -> None:
        with DNSServer() as bad:
            for trouble in ("failing", "refusing"):
                setattr(bad, trouble, {"*"})
                assert uvloop.run(Wire((bad.address, good.address)).query("a.test", "A")).records
                setattr(bad, trouble, set())
        assert uvloop.run(Wire((bad.address, good.address)).query("a.test", "A")).records  # nobody listens there

    using(story)


def test_failures_say_what_each_server_did():
    def story(dns: DNSServer) -> None:
        dns.failing = {"a.test"}
        with pytest.raises(Unanswered, match=rf"a.test A: 127.0.0.1@{dns.port}: SERVFAIL$"):
            ask(dns, "a.test", "A")
        dns.failing, dns.is_away = set(), True
        with pytest.raises(Unanswered, match="no answer"):
            ask(dns, "a.test", "A", patience=0.05)

    using(story)


def test_silence_takes_two_rounds_and_no_longer():
    def story(dns: DNSServer) -> None:
        dns.is_away = True
        began = time.monotonic()
        with pytest.raises(Unanswered):
            ask(dns, "a.test", "A", patience=0.1)
        assert time.monotonic() - began >= 0.3
        assert len(dns.queries) == 2

    using(story)


@pytest.mark.parametrize("name", ["a..test", "x" * 64 + ".test", ".".join(["label"] * 60)])
def test_what_is_no_name_is_not_asked(name: str):
    def story(dns: DNSServer) -> None:
        with pytest.raises(BadName):
            ask(dns, name, "A")
        assert not dns.queries

    using(story)


def test_many_questions_at_once_have_ports_and_ids_of_their_own():
    async def burst(wire: Wire) -> list[object]:
        return await asyncio.gather(*(wire.query("a.test", kind) for kind in ("A", "AAAA", "MX") for _ in range(30)))

    def story(dns: DNSServer) -> None:
        answers = uvloop.run(burst(Wire((dns.address,))))
        assert all(answer.records for answer in answers)  # type: ignore[attr-defined]  # gather's type is lost

    using(story)


def test_servers_may_have_a_port():
    assert parse_server("192.0.2.1") == Server("192.0.2.1", 53)
    assert parse_server("::1@5353") == Server("::1", 5353)


def test_resolv_conf():
    conf = parse_resolv_conf(
        "# made by hand\nnameserver 192.0.2.1\nnameserver 2001:db8::1 ; two\n"
        "search svc.cluster.local cluster.local.\noptions ndots:5 timeout:1 attempts:3 rotate\nnonsense\n"
    )
    assert conf.servers == (Server("192.0.2.1", 53), Server("2001:db8::1", 53))
    assert conf.search == ("svc.cluster.local", "cluster.local")
    assert (conf.ndots, conf.timeout, conf.rounds) == (5, 1.0, 3)
    assert parse_resolv_conf("").servers == (Server("127.0.0.1", 53),)


def test_a_changed_resolv_conf_is_seen(tmp_path: Path):
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\n")

    async def story() -> None:
        wire = Wire(path=str(path))
        assert wire.settings.servers == (Server("192.0.2.1", 53),)
        path.unlink()
        path.write_text("nameserver 192.0.2.2\nsearch a.test\n")
        wire._looked = float("-inf")
        assert wire.settings.servers == (Server("192.0.2.2", 53),)
        path.unlink()
        wire._looked = float("-inf")
        assert wire.settings.servers == (Server("192.0.2.2", 53),)

    asyncio.run(story())


def test_the_hosts_file(tmp_path: Path):
    assert parse_hosts("10.0.0.1 Relay relay.test # ours\nbad line\n::1 relay\n") == {
        "relay": ("10.0.0.1", "::1"),
        "relay.test": ("10.0.0.1",),
        "localhost": ("127.0.0.1", "::1"),
    }
    now = [0.0]
    path = tmp_path / "hosts"
    hosts = HostsFile(lambda: now[0], str(path))
    assert hosts("relay") == ()
    path.write_text("10.0.0.1 relay\n")
    assert hosts("relay") == ()
    now[0] = 6.0
    assert hosts("relay") == ("10.0.0.1",)
