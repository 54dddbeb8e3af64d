"""DKIM keys in a real zone (knot, signed updates): the operator's through their whole life, and one machine's; what
they sign is verified by dkimpy with the key it finds there."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import dns.query
import dns.rdatatype
import pytest

from kit import peers
from kit.dkim import MESSAGE
from kit.dns import find_knot, knot
from kit.fakeapi import FakeApi
from kit.manifests import compiled, manifest, mta
from kit.operated import NS, domain
from kit.rooms import Clock, at_work
from posthof_certs import zone
from posthof_certs.zone import Key, Record, Server
from posthof_operator.dkim import Domains, Keys
from posthof_operator.settings import Settings
from posthof_pod.admin.keyring import KeyRing
from posthof_pod.config.secrets import Secrets
from posthof_pod.model import Envelope, Recipient
from posthof_pod.sign.signer import Dressed, signer_of

pytestmark = pytest.mark.interop

SECRET = base64.b64encode(b"a secret of thirty-two octets...").decode()
FROM = MESSAGE.replace(b"a.example", b"acme.example")


class Primary:
    def __init__(self, address: str) -> None:
        self.address, self.port = address, int(address.rpartition("@")[2])

    def texts(self, name: str) -> list[str]:
        """What the zone has there now."""
        query = dns.message.make_query(name, "TXT")
        reply, _ = dns.query.udp_with_fallback(query, "127.0.0.1", port=self.port, timeout=5.0)
        found = [one for rrset in reply.answer if rrset.rdtype == dns.rdatatype.TXT for one in rrset]
        return [b"".join(one.strings).decode() for one in found]

    def verifies(self, message: bytes) -> list[bool]:
        """Each signature, by dkimpy."""
        dkim = pytest.importorskip("dkim", reason="dkimpy is in the dev extra: make .venv")

        def ask(name: bytes, timeout: float = 5.0) -> bytes | None:
            found = self.texts(name.decode())
            return found[0].encode() if found else None

        count = message[: message.index(b"\r\nFrom:")].count(b"DKIM-Signature:")
        return [dkim.DKIM(message).verify(idx=n, dnsfunc=ask) for n in range(count)]


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Primary]:
    if find_knot() is None:
        peers.absent("knotd not installed")
    with knot(tmp_path / "knot", {"acme.example": "@ A 192.0.2.1"}, key=("updates", SECRET)) as address:
        yield Primary(address)


def test_a_key_of_the_operator_lives_in_the_zone_from_its_making_to_its_end(primary: Primary) -> None:
    tsig = {"name": "updates", "secretName": "tsig"}
    auto = {"dkim": {"auto": {"algorithms": ["RSA"], "rotation": {"interval": "10d", "overlap": "2d"}}}}
    settings = Settings(namespace="posthof", resolver=(primary.address,), dns_port=primary.port)
    clock = Clock()

    async def story() -> None:
        async with FakeApi() as server:
            data = {"secret": base64.b64encode(SECRET.encode()).decode()}
            server.put({"kind": "Secret", "metadata": {"name": "tsig", "namespace": NS}, "data": data})
            server.put(domain("acme", outbound=auto, dns={"rfc2136": {"server": primary.address, "tsig": tsig}}))
            async with at_work([Keys(), Domains()], server=server, settings=settings, clock=clock) as world:

                def phases() -> list[str]:
                    keys = [server.get("DKIMKey", name, NS) or {} for name in server.names("DKIMKey")]
                    return sorted((key.get("status") or {}).get("phase", "") for key in keys)

                async def settled(wanted: list[str], is_it: Callable[[], bool] = lambda: True) -> None:
                    for _ in range(300):
                        if phases() == wanted and await asyncio.to_thread(is_it):
                            return
                        world.enqueue_all("DKIMKey")
                        world.enqueue_all("MailDomain")
                        await asyncio.sleep(0.1)
                    raise AssertionError(f"{phases()}, not {wanted}")

                await settled(["Active"])
                (first,) = server.names("DKIMKey")
                record = (server.get("DKIMKey", first, NS) or {})["status"]["record"]
                assert primary.texts(record["name"]) == [record["expected"]]
                clock.forward(days=11)
                await settled(["Active", "Retiring"])
                clock.forward(days=3)
                await settled(["Active", "Revoked"], lambda: primary.texts(record["name"]) == ["v=DKIM1; p="])
                clock.forward(days=3)
                await settled(["Active"], lambda: primary.texts(record["name"]) == [])

    asyncio.run(story())


def test_a_house_on_one_machine_signs_when_the_zone_shows_its_keys(tmp_path: Path, primary: Primary) -> None:
    text = "domain: acme.example\ninbound: {mode: Reject}\noutbound: {dkim: {auto: {}}}"
    config = compiled(manifest("MailDomain", "acme", text), mta(more=f"resolver: ['{primary.address}']"))
    ring = KeyRing(tmp_path / "state", port=primary.port)
    assert not ring.tend(config, time.time(), print)
    assert all(key.lacking for key in ring.shown(config, is_asking=True))
    server = Server(primary.address, Key("updates", "HMAC-SHA256", SECRET))
    zone.add(server, [Record(key.name, "TXT", key.text) for key in ring.shown(config)])
    assert ring.tend(config, time.time(), print)
    assert not any(key.lacking for key in ring.shown(config, is_asking=True))
    signer = signer_of(config, Secrets(ring.complete(config, {})), pytest.fail)
    assert signer is not None
    envelope = Envelope("id", "ada@acme.example", (Recipient("b@far.test"),), 0.0, 0, role="Internal")
    dressed = signer.dress(envelope, (0,), b"", FROM, time.time())
    assert isinstance(dressed, Dressed)
    assert primary.verifies(dressed.trace + FROM) == [True, True]
