"""Dynamic updates of a zone that a real server holds, and whether all its servers show them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from kit.dns import find_knot, knot
from kit.peers import absent
from posthof_certs import zone
from posthof_certs.zone import Key, Record, Server, Unpublished

SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
PROOF = Record("_acme-challenge.mx.example.org", "TXT", "the proof")
LONG = Record("s1._domainkey.example.org", "TXT", "v=DKIM1; p=" + "A" * 400)


class Primary(NamedTuple):
    server: Server
    port: int


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Primary]:
    if find_knot() is None:
        absent("knotd is missing")
    zones = {"example.org": "mx A 192.0.2.1", "sub.example.org": ""}
    with knot(tmp_path_factory.mktemp("knot"), zones, key=("updates", SECRET)) as address:
        yield Primary(Server(address, Key("updates", "HMAC-SHA256", SECRET)), int(address[10:]))


def test_records_are_added_seen_at_the_servers_and_removed(primary: Primary) -> None:
    resolver = (primary.server.address,)  # it knows the zone's servers, too
    zone.add(primary.server, [PROOF, LONG])
    zone.add(primary.server, [PROOF])  # there already
    zone.await_seen([PROOF, LONG], resolver, port=primary.port, patience=10)
    zone.remove(primary.server, [PROOF])
    zone.remove(primary.server, [PROOF])
    missing = zone.lacking([PROOF, LONG], resolver, port=primary.port)
    assert missing == ["ns.example.org (127.0.0.1) has no TXT _acme-challenge.mx.example.org"]
    with pytest.raises(Unpublished, match=r"after 0 s ns\.example\.org"):
        zone.await_seen([PROOF], resolver, port=primary.port, patience=0)


def test_what_others_keep_at_the_same_name_stays(primary: Primary) -> None:
    resolver = (primary.server.address,)  # it knows the zone's servers, too
    mine, theirs = Record("t.example.org", "TXT", "mine"), Record("t.example.org", "TXT", "theirs")
    zone.add(primary.server, [mine, theirs])
    zone.remove(primary.server, [mine])
    assert zone.lacking([theirs], resolver, port=primary.port) == []


def test_the_innermost_zone_takes_the_update(primary: Primary) -> None:
    inner = Record("_25._tcp.mx.sub.example.org", "TLSA", "3 1 1 " + "ab" * 32)
    zone.add(primary.server, [inner])
    with pytest.raises(Unpublished, match=r"NOTZONE.*the name is not in that zone"):
        zone.add(primary.server._replace(zone="sub.example.org"), [PROOF])


def test_a_refusal_says_what_to_mend(primary: Primary) -> None:
    other = base64.b64encode(b"another").decode()
    with pytest.raises(Unpublished, match=r"with key updates.*the key's secret is another one there"):
        zone.add(primary.server._replace(key=Key("updates", "HMAC-SHA256", other)), [PROOF])
    with pytest.raises(Unpublished, match="it does not know the key"):
        zone.add(primary.server._replace(key=Key("stranger", "HMAC-SHA256", SECRET)), [PROOF])
    with pytest.raises(Unpublished, match=r"has no zone that holds a\.example\.net"):
        zone.add(primary.server, [Record("a.example.net", "TXT", "x")])
    with pytest.raises(Unpublished, match="cannot be asked"):
        zone.add(Server("127.0.0.1@1", primary.server.key), [PROOF])
    assert SECRET not in repr(primary.server)
