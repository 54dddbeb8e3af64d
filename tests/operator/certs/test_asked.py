"""TLSCerts that an ACME server or a signer of the cluster is asked for: what is written, told, and tried again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from kit.acme import answering
from kit.dns import DNSServer, find_knot, knot
from kit.fakeapi import FakeApi, until
from kit.pebble import Pebble, pebble
from kit.peers import absent
from kit.rooms import Clock, at_work
from posthof_certs import acme, issue, pair
from posthof_certs.issue import ECDSA, Order
from posthof_certs.pair import Pair
from posthof_certs.solvers import records
from posthof_crds.report import Report, ServedCertificate
from posthof_operator.certs import orders
from posthof_operator.certs.reconcile import Certificates
from posthof_operator.pods import TELLING
from posthof_operator.resources import Key
from posthof_operator.settings import Settings
from posthof_operator.world import World

NS = "mail"
CERT = Key("TLSCert", NS, "mx")
POD = Key("Pod", NS, "edge-0")
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


class Place:
    def __init__(self, server: FakeApi, world: World, clock: Clock) -> None:
        self.server, self.world, self.clock = server, world, clock

    def put(self, issuer: dict[str, Any], **spec: Any) -> None:
        metadata = {"name": "mx", "namespace": NS}
        body = {"dnsNames": ["mx.example.org"], "issuer": issuer} | spec
        self.server.put({"apiVersion": "posthof.dev/v1alpha1", "kind": "TLSCert", "metadata": metadata, "spec": body})

    def mta(self, *, ready_since: float | None = 0.0) -> None:
        """One whose listener names it, with a pod that answers for it, and serves what `serial` says."""
        listener = {"name": "smtp", "role": "MX", "port": 25, "tls": {"certRefs": [{"name": "mx"}]}}
        spec = {"hostname": "mx.example.org", "listeners": [listener]}
        head = {"apiVersion": "posthof.dev/v1alpha1", "kind": "MTA", "metadata": {"name": "edge", "namespace": NS}}
        self.server.put(head | {"spec": spec})
        labels = {"posthof.dev/mta": "edge"}
        self.server.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "edge-0", "namespace": NS, "labels": labels},
                "spec": {},
                "status": {"phase": "Running"},
            }
        )
        self.pod_ready(ready_since)

    def pod_ready(self, since: float | None) -> None:
        """`since`: seconds of the clock; None: it runs and is not ready yet."""
        when = datetime.datetime.fromtimestamp(since or 0.0, datetime.UTC).isoformat()
        said = [] if since is None else [{"type": "Ready", "status": "True", "lastTransitionTime": when}]
        self.server.set_status("Pod", "edge-0", NS, {"phase": "Running", "conditions": said})

    def reported(self, *, answers: bool, serial: str = "") -> None:
        served = {"mx": ServedCertificate(serial=serial, not_after=0.0)} if serial else {}
        report = Report(pod="edge-0", certificates=served, challenges=("mx",) if answers else ())
        self.world.reports[Key("MTA", NS, "edge")] = {"edge-0": report}
        self.look()

    def look(self) -> None:
        self.world.enqueue(CERT)

    @property
    def status(self) -> dict[str, Any]:
        return dict((self.server.get(*CERT_ARGS) or {}).get("status", {}))

    def condition(self, type_: str) -> tuple[str, str, str]:
        for one in self.status.get("conditions", ()):
            if one["type"] == type_:
                return one["status"], one["reason"], one["message"]
        return "", "", ""

    def data(self, name: str, key: str) -> bytes:
        raw = self.server.get("Secret", name, NS)
        return base64.b64decode(raw["data"][key]) if raw is not None and key in raw["data"] else b""

    @property
    def stored(self) -> Pair | None:
        chain = self.data("mx-tls", "tls.crt")
        return Pair(chain, self.data("mx-tls", "tls.key")) if chain else None

    async def ready(self, reason: str, status: str = "True") -> None:
        await until(lambda: self.condition("Ready")[:2] == (status, reason), 60)


CERT_ARGS = ("TLSCert", "mx", NS)


@contextlib.asynccontextmanager
async def place(settings: Settings | None = None, clock: Clock | None = None) -> AsyncIterator[Place]:
    clock = clock or Clock()
    rooms = [Certificates()]
    async with FakeApi() as server, at_work(rooms, server=server, clock=clock, settings=settings) as world:
        yield Place(server, world, clock)


@pytest.fixture(scope="module")
def ca() -> Iterator[Pebble]:
    with DNSServer({"mx.example.org": {"A": "127.0.0.1"}}) as world, pebble(dns=world.address) as found:
        yield found


def by_http(ca: Pebble) -> dict[str, Any]:
    return {"acme": {"directory": ca.directory, "caBundle": ca.roots, "solver": {"http01": {}}}}


def test_a_certificate_is_ordered_once_the_pods_answer_for_it(ca: Pebble) -> None:
    async def story() -> None:
        clock = Clock()
        async with place(clock=clock) as at:
            at.put(by_http(ca))
            await at.ready("ChallengeFailed", "False")
            assert "No listener of an MTA names it" in at.condition("Ready")[2]
            at.mta(ready_since=None)
            at.reported(answers=False)
            await until(lambda: "1 of 1 pods do not answer" in at.condition("Ready")[2])
            assert at.condition("Reconciling")[0] == "True"
            word = at.data("acme-account", "thumbprint").decode()
            at.reported(answers=True)  # to us it does, and no Service leads to it yet
            await until(lambda: at.world.queue.is_idle)
            at.pod_ready(clock().timestamp())
            await until(lambda: (at.world.store.get(POD) or {})["status"].get("conditions"))
            at.look()
            await until(lambda: at.world.queue.is_idle)
            assert "1 of 1 pods do not answer" in at.condition("Ready")[2]
            clock.forward(seconds=TELLING)
            with answering(ca.http_port, word):
                at.look()
                await at.ready("Issued")
            made = at.stored
            assert made is not None
            facts = pair.read(made)
            assert facts.names == ("mx.example.org",)
            assert at.status["issuer"] == "acme"
            assert at.status["serial"] == facts.serial
            assert acme.thumbprint(at.data("acme-account", "account.key")) == word
            await until(lambda: at.world.queue.is_idle)
            writes = len(at.server.writes)
            at.look()
            await until(lambda: at.world.queue.is_idle)
            assert at.stored == made
            assert len(at.server.writes) == writes

    asyncio.run(story())


def test_a_refusal_is_told_and_tried_again_with_patience_also_by_another_process(ca: Pebble) -> None:
    async def story() -> None:
        clock = Clock()
        async with place(clock=clock) as at:
            at.mta()
            at.put(by_http(ca))
            at.reported(answers=True)
            with answering(ca.http_port, acme.thumbprint(acme.account_key())):
                await until(lambda: at.status.get("failures") == 1, 60)
            status, reason, message = at.condition("Ready")
            assert (status, reason) == ("False", "IssuerFailed")
            assert "mx.example.org (http-01)" in message
            assert "it is tried again at" in message
            first = at.status["nextAttempt"]

            async with at_work([Certificates()], server=at.server, clock=clock) as other:  # as after a restart
                other.reports.update(at.world.reports)
                other.enqueue(CERT)
                await until(lambda: other.queue.is_idle)
            assert (at.status["failures"], at.status["nextAttempt"]) == (1, first)

            with answering(ca.http_port, at.data("acme-account", "thumbprint").decode()):
                clock.forward(minutes=6)
                at.look()
                await at.ready("Issued")
            assert "failures" not in at.status
            assert "nextAttempt" not in at.status

    asyncio.run(story())


def test_a_staged_key_is_there_before_it_is_needed_and_the_next_certificate_has_it(ca: Pebble) -> None:
    async def story() -> None:
        clock = Clock()
        async with place(clock=clock) as at:
            at.mta()
            at.put(by_http(ca), privateKey={"rotationPolicy": "Staged"}, renewBefore="80d")
            at.reported(answers=False)
            await until(lambda: at.data("acme-account", "thumbprint") != b"")
            with answering(ca.http_port, at.data("acme-account", "thumbprint").decode()):
                at.reported(answers=True)
                await at.ready("Issued")
                await until(lambda: "nextKey" in at.status)
                first, staged = at.stored, at.data("mx-next", "tls.key")
                assert first is not None
                assert pair.pin(staged) == at.status["nextKey"] != pair.pin(first.key)
                clock.forward(days=25)
                at.look()
                await until(lambda: at.stored != first, 60)
            assert at.stored is not None
            assert at.stored.key == staged
            await until(lambda: at.status.get("nextKey") not in (None, pair.pin(staged)))

    asyncio.run(story())


def test_a_key_that_never_changes_stays_and_a_window_is_waited_for() -> None:
    async def story() -> None:
        monday = Clock()  # noon
        monday.ahead = datetime.datetime(2026, 1, 5, 12, tzinfo=datetime.UTC) - datetime.datetime.now(datetime.UTC)
        async with place(clock=monday) as at:
            window = [{"days": ["Sat"], "start": "02:00", "duration": "2h"}]
            at.put({"selfSigned": {}}, duration="30d", privateKey={"rotationPolicy": "Never"}, renewalWindows=window)
            await at.ready("Issued")
            first = at.stored
            assert first is not None
            assert at.status["renewalTime"] == "2026-01-31T02:00:00Z"  # two thirds are over on the 25th, a Sunday
            monday.forward(days=25)
            at.look()
            await until(lambda: at.world.queue.is_idle)
            assert at.stored == first
            monday.forward(hours=15)
            at.look()
            await until(lambda: at.stored != first)
            assert at.stored is not None
            assert at.stored.key == first.key

    asyncio.run(story())


def test_names_are_proven_by_updates_of_a_zone_that_all_its_servers_show(tmp_path: Path) -> None:
    if find_knot() is None:
        absent("knotd is missing")

    async def story(address: str, ca: Pebble) -> None:
        settings = Settings(resolver=(address,), dns_port=int(address.partition("@")[2]))
        async with place(settings) as at:
            tsig = {"name": "updates", "secretName": "tsig"}
            solver = {"dns01": {"rfc2136": {"server": address, "tsig": tsig}}}
            at.put({"acme": {"directory": ca.directory, "caBundle": ca.roots, "solver": solver}})
            await at.ready("SecretMissing", "False")
            at.server.put(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": "tsig", "namespace": NS},
                    "data": {"secret": base64.b64encode(SECRET.encode()).decode()},
                }
            )
            at.look()
            await at.ready("Issued")

    with (
        knot(tmp_path, {"example.org": "mx A 192.0.2.1"}, key=("updates", SECRET)) as address,
        pebble(dns=address) as ca,
    ):
        asyncio.run(story(address, ca))


def test_without_dnsendpoints_in_the_cluster_that_is_said(ca: Pebble) -> None:
    async def story() -> None:
        async with place() as at:
            solver = {"dns01": {"dnsEndpoint": {}}}
            at.put({"acme": {"directory": ca.directory, "caBundle": ca.roots, "solver": solver}})
            await at.ready("ChallengeFailed", "False")
            assert "install ExternalDNS" in at.condition("Ready")[2]

    asyncio.run(story())


def test_an_endpoint_shows_each_name_with_all_its_proofs_and_goes_again() -> None:
    async def story() -> None:
        done: list[object] = []

        async def put(shown: list[object]) -> None:
            done.append(shown)

        async def take() -> None:
            done.append("taken")

        loop = asyncio.get_running_loop()
        proofs = [acme.Proof("a.example", "t", "one"), acme.Proof("a.example", "u", "two")]
        solver = orders.ByEndpoint(loop, put, take, ("127.0.0.1@1",), 1)
        with pytest.raises(acme.Refused, match="ExternalDNS has not published the proof"):
            await asyncio.to_thread(solver.present, proofs)
        await asyncio.to_thread(solver.remove, proofs)
        assert done == [records(proofs), "taken"]

    asyncio.run(story())


def test_a_signer_of_the_cluster_is_asked_and_waited_for() -> None:
    async def story() -> None:
        async with place() as at:
            at.put({"csr": {"signerName": "example.com/servers"}})
            await at.ready("ApprovalPending", "False")
            (name,) = at.server.names("CertificateSigningRequest")
            assert (
                f"CertificateSigningRequest {name} waits: kubectl certificate approve it" in at.condition("Ready")[2]
            )
            raw = at.server.get("CertificateSigningRequest", name, "")
            assert raw is not None
            asked = x509.load_pem_x509_csr(base64.b64decode(raw["spec"]["request"]))
            san = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert san.get_values_for_type(x509.DNSName) == ["mx.example.org"]
            assert raw["spec"]["signerName"] == "example.com/servers"

            key = at.data("mx-next", "tls.key")
            order = Order(("mx.example.org",), ECDSA, 90 * 86400.0)
            made = issue.self_signed(order, at.world.now().timestamp(), key=key)
            status = {
                "conditions": [{"type": "Approved", "status": "True"}],
                "certificate": base64.b64encode(made.chain).decode(),
            }
            at.server.set_status("CertificateSigningRequest", name, "", status)
            at.look()
            await at.ready("Issued")
            assert at.stored == Pair(made.chain, key)
            assert at.server.names("CertificateSigningRequest") == []

    asyncio.run(story())


def test_a_denied_request_is_told_and_a_bad_certificate_never_replaces_a_good_one() -> None:
    async def story() -> None:
        async with place() as at:
            at.put({"csr": {"signerName": "example.com/servers"}})
            await at.ready("ApprovalPending", "False")
            (name,) = at.server.names("CertificateSigningRequest")
            denied = {"type": "Denied", "status": "True", "message": "not this name"}
            at.server.set_status("CertificateSigningRequest", name, "", {"conditions": [denied]})
            at.look()
            await at.ready("IssuerFailed", "False")
            assert "The request was denied: not this name" in at.condition("Ready")[2]
            assert at.status["failures"] == 1

            at.clock.forward(minutes=10)
            at.look()
            await at.ready("ApprovalPending", "False")
            (name,) = at.server.names("CertificateSigningRequest")
            wrong = issue.self_signed(Order(("other.example",), ECDSA, 86400.0), at.world.now().timestamp())
            status = {"certificate": base64.b64encode(wrong.chain).decode()}
            at.server.set_status("CertificateSigningRequest", name, "", status)
            at.look()
            await at.ready("IssuerFailed", "False")
            assert "What was issued cannot be served" in at.condition("Ready")[2]
            assert at.stored is None

    asyncio.run(story())
