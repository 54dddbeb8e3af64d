"""TLSA records that go before the key: published, waited for at every server of a real zone, and taken away."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest

from kit.dns import find_knot, knot
from kit.fakeapi import FakeApi, until
from kit.peers import absent
from kit.rooms import Clock, at_work
from posthof_certs import pair, zone
from posthof_certs.zone import Key as TSIGKey
from posthof_certs.zone import Record, Server
from posthof_operator.certs.dane import NEVER, Shown, Standing, follow
from posthof_operator.certs.reconcile import Certificates
from posthof_operator.resources import Key
from posthof_operator.settings import Settings
from posthof_operator.world import World

NS = "mail"
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
ONE, TWO, THREE = (Record("_25._tcp.mx.example.org", "TLSA", f"3 1 1 {n}" * 2) for n in "abc")


def test_the_next_key_waits_for_two_ttls_of_its_records_at_all_servers() -> None:
    assert Standing().key_from(300) == NEVER
    unseen = follow([], {"current": [ONE], "next": [TWO]}, [TWO], is_served=True, now=1000.0, ttl=300)
    assert unseen == (Shown(ONE, "current", 1000.0), Shown(TWO, "next"))
    assert Standing(unseen).key_from(300) == NEVER
    seen = follow(unseen, {"current": [ONE], "next": [TWO]}, [], is_served=True, now=2000.0, ttl=300)
    assert Standing(seen).key_from(300) == 2600.0
    again = follow(seen, {"current": [ONE], "next": [TWO]}, [], is_served=True, now=2500.0, ttl=300)
    assert again == seen
    lost = follow(again, {"current": [ONE], "next": [TWO]}, [TWO], is_served=True, now=2550.0, ttl=300)
    assert Standing(lost).key_from(300) == NEVER  # a server lost it: it is waited for anew


def test_an_old_record_goes_two_ttls_later_when_all_pods_serve_the_new_key() -> None:
    before = (Shown(ONE, "current", 1.0), Shown(TWO, "next", 1.0))
    want = {"current": [TWO], "next": [THREE]}
    changed = follow(before, want, [THREE], is_served=False, now=5000.0, ttl=300)
    assert changed == (Shown(TWO, "current", 1.0), Shown(THREE, "next"), Shown(ONE, "old", 1.0, 5600.0))
    assert len(follow(changed, want, [], is_served=False, now=9000.0, ttl=300)) == 3
    assert len(follow(changed, want, [], is_served=True, now=5599.0, ttl=300)) == 3
    assert len(follow(changed, want, [], is_served=True, now=5600.0, ttl=300)) == 2


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if find_knot() is None:
        absent("knotd is missing")
    with knot(tmp_path_factory.mktemp("knot"), {"example.org": ""}, key=("updates", SECRET)) as found:
        yield found


class Place:
    def __init__(self, server: FakeApi, world: World, clock: Clock) -> None:
        self.server, self.world, self.clock = server, world, clock

    def put(self, name: str, dane: dict[str, Any]) -> None:
        spec = {
            "dnsNames": [f"{name}.example.org"],
            "issuer": {"selfSigned": {}},
            "duration": "30d",
            "privateKey": {"rotationPolicy": "Staged"},
            "dane": {"mode": "Staged", "ttl": 30, **dane},
        }
        metadata = {"name": name, "namespace": NS}
        self.server.put({"apiVersion": "posthof.dev/v1alpha1", "kind": "TLSCert", "metadata": metadata, "spec": spec})

    def status(self, name: str) -> dict[str, Any]:
        return dict((self.server.get("TLSCert", name, NS) or {}).get("status", {}))

    def is_(self, name: str, type_: str, status: str, reason: str) -> bool:
        return any(
            (one["type"], one["status"], one["reason"]) == (type_, status, reason)
            for one in self.status(name).get("conditions", ())
        )

    def rows(self, name: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in self.status(name).get("tlsa") or ():
            found.setdefault(row["key"], []).append(row["text"])
        return found

    def key(self, secret: str) -> bytes:
        raw = self.server.get("Secret", secret, NS)
        return base64.b64decode(raw["data"]["tls.key"]) if raw is not None else b""

    async def later(self, name: str, **by: float) -> None:
        self.clock.forward(**by)
        self.world.enqueue(Key("TLSCert", NS, name))
        await asyncio.sleep(0)
        await until(lambda: self.world.queue.is_idle)


def shows(address: str, *records: Record) -> bool:
    return zone.lacking(records, (address,), port=int(address.partition("@")[2])) == []


def test_records_are_published_for_both_keys_and_follow_the_roll(address: str) -> None:
    async def story() -> None:
        clock = Clock()
        settings = Settings(resolver=(address,), dns_port=int(address.partition("@")[2]))
        async with (
            FakeApi() as server,
            at_work([Certificates()], server=server, clock=clock, settings=settings) as world,
        ):
            at = Place(server, world, clock)
            data = {"secret": base64.b64encode(SECRET.encode()).decode()}
            head = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tsig", "namespace": NS}}
            server.put(head | {"data": data})
            at.put("mx", {"rfc2136": {"server": address, "tsig": {"name": "updates", "secretName": "tsig"}}})
            await until(lambda: set(at.rows("mx")) == {"current", "next"})
            await at.later("mx", seconds=20)
            await until(lambda: at.is_("mx", "DANEReady", "True", "RecordsRight"))
            first, staged = at.key("mx-tls"), at.key("mx-next")
            name = "_25._tcp.mx.example.org"
            old, new = (Record(name, "TLSA", f"3 1 1 {pair.pin(key)}") for key in (first, staged))
            assert await asyncio.to_thread(shows, address, old, new)

            await at.later("mx", days=21)  # two thirds are over, and so are two TTLs
            await until(lambda: at.key("mx-tls") == staged)
            await until(lambda: at.rows("mx").get("old") == [old.text])
            assert at.rows("mx")["current"] == [new.text]
            assert await asyncio.to_thread(shows, address, old, new)

            await at.later("mx", seconds=61)
            await until(lambda: "old" not in at.rows("mx"))
            assert not await asyncio.to_thread(shows, address, old)
            assert await asyncio.to_thread(shows, address, new)

    asyncio.run(story())


def test_what_a_person_publishes_is_waited_for(address: str) -> None:
    async def story() -> None:
        clock = Clock()
        settings = Settings(resolver=(address,), dns_port=int(address.partition("@")[2]))
        async with (
            FakeApi() as server,
            at_work([Certificates()], server=server, clock=clock, settings=settings) as world,
        ):
            at = Place(server, world, clock)
            at.put("hand", {})
            await until(lambda: at.is_("hand", "DANEReady", "False", "RecordsMissing"))
            first = at.key("hand-tls")
            await at.later("hand", days=21)
            assert at.key("hand-tls") == first
            ready = next(one for one in at.status("hand")["conditions"] if one["type"] == "Ready")
            assert ready["status"] == "True"
            assert "the next key waits until its TLSA records" in ready["message"]

            rows = at.status("hand")["tlsa"]
            records = [Record(row["name"], "TLSA", row["text"]) for row in rows]
            where = Server(address, TSIGKey("updates", "HMAC-SHA256", SECRET))
            await asyncio.to_thread(zone.add, where, records)
            await at.later("hand", seconds=20)
            await until(lambda: at.is_("hand", "DANEReady", "True", "RecordsRight"))
            assert at.key("hand-tls") == first  # seen now, for the first time
            await at.later("hand", seconds=61)
            await until(lambda: at.key("hand-tls") != first)

    asyncio.run(story())
