"""Certificates of one machine from an ACME server: ordered, renewed, kept; and the same through `posthof up`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kit import peers
from kit.dns import DNSServer, find_knot, knot
from kit.pebble import Pebble, pebble
from kit.peers import absent, free_port
from kit.posthof import document, mail_domain, posthof
from posthof_certs import pair
from posthof_crds.engine import (
    ACMEOrder,
    Certificate,
    DNSUpdate,
    EngineConfig,
    Listener,
    ListenerRole,
    RenewalWindow,
    SecretRef,
    SpoolSettings,
    TLSMode,
)
from posthof_pod.admin.authorities import Authorities
from posthof_pod.admin.orders import Orders, reason_to_order

DAY = 86400.0
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@pytest.fixture(scope="module")
def ca() -> Iterator[Pebble]:
    with DNSServer({"mx.example.org": {"A": "127.0.0.1"}}) as world, pebble(dns=world.address) as found:
        yield found


def config_of(tmp_path: Path, certificate: Certificate, resolver: tuple[str, ...] = ()) -> EngineConfig:
    listener = Listener(
        name="smtp", role=ListenerRole.MX, host="", port=0, tls=TLSMode.STARTTLS, certificates=(certificate.name,)
    )
    return EngineConfig(
        name="edge",
        hostname="mx.example.org",
        listeners=(listener,),
        spool=SpoolSettings(path=str(tmp_path)),
        mail_root=str(tmp_path),
        state_dir=str(tmp_path),
        certificates={certificate.name: certificate},
        resolver=resolver,
    )


def by_http(ca: Pebble, **changed: object) -> Certificate:
    order = ACMEOrder(directory=ca.directory, roots=ca.roots)
    return msgspec.structs.replace(
        Certificate(name="mx", dns_names=("mx.example.org",), acme=order, http01_port=ca.http_port), **changed
    )


class House:
    """The part of a supervisor that authorities need."""

    def __init__(self, config: EngineConfig, tmp_path: Path) -> None:
        self.config, self.warnings = config, list[str]()
        self.orders, self.renewals = Orders(tmp_path), 0
        self.orders.prepare(config)
        self.authorities = Authorities(
            lambda: (self.config, {}),
            self.orders,
            {},
            renewed=self._renewed,
            warn=self.warnings.append,
            is_pod=False,
        )

    async def _renewed(self) -> None:
        self.renewals += 1

    @contextlib.asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.authorities.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, condition) -> None:
        ends = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < ends, self.warnings
            await asyncio.sleep(0.05)


def test_a_certificate_is_ordered_and_answered_for_and_not_ordered_again(ca: Pebble, tmp_path: Path) -> None:
    async def main() -> None:
        house = House(config_of(tmp_path, by_http(ca)), tmp_path)
        async with house.running():
            await house.until(lambda: house.renewals)
            made = house.orders.pair(by_http(ca))
            assert made is not None
            assert pair.read(made).names == ("mx.example.org",)
            assert house.authorities.answered() == ("mx",)
        assert house.warnings == []
        assert not house.orders.tend(house.config, {}, time.time(), house.warnings.append)
        assert not (tmp_path / "tls" / "mx.next.key").exists()

    asyncio.run(main())
    modes = {oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {"0o600"}


def test_it_is_renewed_with_the_staged_key_when_its_time_comes(ca: Pebble, tmp_path: Path) -> None:
    async def main() -> None:
        house = House(config_of(tmp_path, by_http(ca, key_rotation="Staged")), tmp_path)
        async with house.running():
            await house.until(lambda: house.renewals)
            first, staged = house.orders.pair(by_http(ca)), (tmp_path / "tls" / "mx.next.key").read_bytes()
            assert first is not None
            later = time.time() + 70 * DAY
            assert await asyncio.to_thread(house.orders.tend, house.config, {}, later, house.warnings.append)
            second = house.orders.pair(by_http(ca))
            assert second is not None
            assert second.key == staged != first.key
            assert (tmp_path / "tls" / "mx.next.key").read_bytes() not in (staged, first.key)

    asyncio.run(main())


def test_a_failure_is_told_waited_out_also_over_a_restart_and_leaves_the_good_one(ca: Pebble, tmp_path: Path) -> None:
    config = config_of(tmp_path, by_http(ca))
    told: list[str] = []
    orders = Orders(tmp_path)
    now = time.time()
    assert not orders.tend(config, {}, now, told.append)  # nobody answers for it
    assert len(told) == 1
    assert "TLSCert/mx: the server could not see that the names are ours: mx.example.org (http-01)" in told[0]
    assert "it is tried again at" in told[0]
    assert not Orders(tmp_path).tend(config, {}, now + 60, told.append)
    assert len(told) == 1
    assert not Orders(tmp_path).tend(config, {}, now + 301, told.append)
    assert len(told) == 2


def test_only_questions_about_names_that_are_ordered_are_answered(ca: Pebble, tmp_path: Path) -> None:
    async def main() -> None:
        port = free_port()
        house = House(config_of(tmp_path, by_http(ca, http01_port=port, acme=None)), tmp_path)
        word = SecretRef(name="ns/account", key="thumbprint")
        house.config = config_of(tmp_path, by_http(ca, http01_port=port, acme=None, thumbprint=word))
        house.authorities._in_force = lambda: (house.config, {"ns/account/thumbprint": b"WORD"})

        def ask(path: str, host: str) -> tuple[int, bytes]:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host})
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, b""

        path = "/.well-known/acme-challenge/"
        async with house.running():
            await house.until(house.authorities.answered)
            token = "t" * 43
            good = await asyncio.to_thread(ask, path + token, "MX.example.org:80")
            assert good == (200, f"{token}.WORD".encode())
            assert (await asyncio.to_thread(ask, path + token, "other.example.org"))[0] == 404
            assert (await asyncio.to_thread(ask, path + "short", "mx.example.org"))[0] == 404
            assert (await asyncio.to_thread(ask, "/", "mx.example.org"))[0] == 404
            house.config = config_of(tmp_path, by_http(ca, http01_port=0))
            house.authorities.poke()
            await house.until(lambda: not house.authorities._answers.ports)

    asyncio.run(main())


def test_names_are_proven_by_dns_where_that_is_asked_for(tmp_path: Path) -> None:
    if find_knot() is None:
        absent("knotd is missing")
    with (
        knot(tmp_path / "knot", {"example.org": "mx A 192.0.2.1"}, key=("updates", SECRET)) as address,
        pebble(dns=address) as ca,
    ):
        ref = SecretRef(name="tsig", key="secret")
        update = DNSUpdate(server=address, key_name="updates", key_algorithm="HMAC-SHA256", key_secret=ref)
        order = ACMEOrder(directory=ca.directory, roots=ca.roots, update=update)
        wanted = Certificate(name="mx", dns_names=("mx.example.org",), acme=order)
        orders = Orders(tmp_path, port=int(address.partition("@")[2]))
        told: list[str] = []
        config = config_of(tmp_path, wanted, (address,))
        assert not orders.tend(config, {}, time.time(), told.append)
        assert "secret tsig/secret is not known" in told[0]
        assert orders.tend(config, {"tsig/secret": SECRET.encode() + b"\n"}, time.time() + 600, told.append), told


FACTS = pair.Facts("01", 0.0, 90 * DAY, ("mx.example.org",), "ca", "ECDSA", 256, False)
WANTED = Certificate(name="mx", dns_names=("mx.example.org",), acme=ACMEOrder(directory="d"))


SUNDAY = RenewalWindow((6,), 0.0, 3600.0)


@pytest.mark.parametrize(
    ("wanted", "facts", "directory", "advised", "now", "why"),
    [
        (WANTED, None, "", None, 0.0, "there is none"),
        (WANTED, FACTS, "d", None, 59 * DAY, ""),
        (WANTED, FACTS, "d", None, 61 * DAY, "its time has come"),
        (WANTED, FACTS, "d", 10 * DAY, 11 * DAY, "its time has come"),
        (WANTED, FACTS, "d", 70 * DAY, 61 * DAY, "its time has come"),
        (WANTED, FACTS, "d", None, 91 * DAY, "it has ended"),
        (WANTED, FACTS, "other", None, DAY, "another authority made it"),
        (msgspec.structs.replace(WANTED, dns_names=("a.b", "c.d")), FACTS, "d", None, DAY, "its names are others"),
        (msgspec.structs.replace(WANTED, key_size=384), FACTS, "d", None, DAY, "its key is of another kind"),
        (
            msgspec.structs.replace(WANTED, windows=(SUNDAY,)),
            FACTS,
            "d",
            None,
            61 * DAY,
            "",
        ),
    ],
)
def test_when_a_certificate_is_ordered(wanted, facts, directory, advised, now, why) -> None:
    assert reason_to_order(wanted, facts, directory, advised, now) == why


def test_posthof_up_serves_a_stand_in_until_the_certificate_is_there(ca: Pebble) -> None:
    solver = {"http01": {"port": ca.http_port}}
    issuer = {"acme": {"directory": ca.directory, "caBundle": ca.roots, "solver": solver}}
    certificate = document("TLSCert", "mx", {"dnsNames": ["mx.example.org"], "issuer": issuer})
    port = free_port()
    tls = {"mode": "STARTTLS", "certRefs": [{"name": "mx"}]}
    listeners = [{"name": "smtp", "role": "MX", "address": "127.0.0.1", "port": port, "tls": tls}]
    domain = mail_domain("ours.test", "Maildir", recipients={"any": True})
    with posthof(certificate, domain, mta={"hostname": "mx.example.org", "listeners": listeners}) as mta:
        mta.port = port

        def serves_it() -> bool:
            context = ssl.create_default_context(cadata=ca.issuing)
            with mta.connect() as session:
                try:
                    session._host = "mx.example.org"  # the name that smtplib checks
                    session.starttls(context=context)
                except ssl.SSLError:
                    return False
            return True

        peers.wait_for(serves_it, "the ordered certificate is served", timeout=90)
        assert json.loads(mta.get("/healthz")[1] or b"{}") is not None
