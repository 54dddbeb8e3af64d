"""TLSCerts against an API server: what is written, what is told, and what stays when something is wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kit.fakeapi import FakeApi, until
from kit.rooms import Clock, at_work
from posthof_certs import issue, pair
from posthof_certs.issue import ECDSA, Order
from posthof_certs.pair import Pair
from posthof_crds.report import Report, ServedCertificate
from posthof_operator.certs.reconcile import Certificates
from posthof_operator.resources import Key
from posthof_operator.world import World

ORDER = Order(("mx.example.org",), ECDSA, 90 * 86400.0)


class Place:
    """The server and the world, and short ways to say what is there."""

    def __init__(self, server: FakeApi, world: World, clock: Clock) -> None:
        self.server, self.world, self.clock = server, world, clock

    def put(self, issuer: dict[str, Any], **spec: Any) -> None:
        self.server.put(
            {
                "apiVersion": "posthof.dev/v1alpha1",
                "kind": "TLSCert",
                "metadata": {"name": "mx", "namespace": "mail"},
                "spec": {"dnsNames": ["mx.example.org"], "issuer": issuer} | spec,
            }
        )

    def secret(self, name: str, made: Pair) -> None:
        data = {"tls.crt": base64.b64encode(made.chain).decode(), "tls.key": base64.b64encode(made.key).decode()}
        self.server.put(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "mail"}, "data": data}
        )

    def pod(self, name: str) -> None:
        self.server.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "mail", "labels": {"posthof.dev/mta": "edge"}},
                "spec": {},
                "status": {"phase": "Running"},
            }
        )

    @property
    def status(self) -> dict[str, Any]:
        raw = self.server.get("TLSCert", "mx", "mail") or {}
        return dict(raw.get("status", {}))

    def condition(self, type_: str) -> tuple[str, str, str]:
        """(status, reason, message)"""
        for one in self.status.get("conditions", ()):
            if one["type"] == type_:
                return one["status"], one["reason"], one["message"]
        return "", "", ""

    def stored(self, name: str = "mx-tls") -> Pair | None:
        raw = self.server.get("Secret", name, "mail")
        if raw is None:
            return None
        return Pair(base64.b64decode(raw["data"]["tls.crt"]), base64.b64decode(raw["data"]["tls.key"]))

    async def ready(self, reason: str, status: str = "True") -> None:
        await until(lambda: self.condition("Ready")[:2] == (status, reason))

    async def settled(self) -> None:
        await until(lambda: self.world.queue.is_idle)


@contextlib.asynccontextmanager
async def place() -> AsyncIterator[Place]:
    clock = Clock()
    async with FakeApi() as server, at_work([Certificates()], server=server, clock=clock) as world:
        yield Place(server, world, clock)


def test_a_self_signed_one_is_made_once() -> None:
    async def story() -> None:
        async with place() as at:
            at.put({"selfSigned": {}})
            await at.ready("Issued")
            stored = at.stored()
            assert stored is not None
            facts = pair.read(stored)
            raw = at.server.get("Secret", "mx-tls", "mail") or {}
            assert raw["type"] == "kubernetes.io/tls"
            assert raw["metadata"]["ownerReferences"][0]["kind"] == "TLSCert"
            status = at.status
            assert (status["serial"], status["issuer"], status["secretName"]) == (
                facts.serial,
                "selfSigned",
                "mx-tls",
            )
            assert status["notAfter"] == pair.time_text(facts.not_after)
            assert status["renewalTime"] < status["notAfter"]
            assert at.condition("Served")[:2] == ("Unknown", "NotUsed")
            assert at.condition("Issuing") == ("", "", "")
            await at.settled()
            writes = len(at.server.writes)
            at.world.enqueue(Key("TLSCert", "mail", "mx"))
            await at.settled()
            assert at.stored() == stored
            assert len(at.server.writes) == writes  # a second pass writes nothing

    asyncio.run(story())


def test_it_is_renewed_when_its_time_comes() -> None:
    async def story() -> None:
        async with place() as at:
            at.put({"selfSigned": {}}, duration="30d", renewBefore="10d")
            await at.ready("Issued")
            first = at.status["serial"]
            at.clock.forward(days=20, hours=1)
            at.world.enqueue(Key("TLSCert", "mail", "mx"))
            await until(lambda: at.status["serial"] != first)
            assert at.condition("Ready")[0] == "True"

    asyncio.run(story())


def test_a_changed_key_algorithm_makes_a_new_pair() -> None:
    async def story() -> None:
        async with place() as at:
            at.put({"selfSigned": {}}, privateKey={"algorithm": "RSA"})
            await at.ready("Issued")
            at.put({"selfSigned": {}}, privateKey={"algorithm": "ECDSA"})
            await until(lambda: pair.read(at.stored() or Pair(b"", b"")).algorithm == "ECDSA")

    asyncio.run(story())


def test_an_authority_may_come_later() -> None:
    async def story() -> None:
        async with place() as at:
            at.put({"ca": {"secretName": "root"}})
            await at.ready("IssuerMissing", "False")
            assert at.condition("Stalled")[0] == "True"
            at.secret("root", issue.make_authority("Root", 3650 * 86400.0, at.clock().timestamp()))
            await at.ready("Issued")
            assert at.condition("Stalled") == ("", "", "")
            stored = at.stored()
            assert stored is not None
            assert pair.read(stored).issuer == "Root"

    asyncio.run(story())


def test_a_bad_successor_in_the_named_secret_leaves_the_good_one_in_force() -> None:
    async def story() -> None:
        async with place() as at:
            good, other = (issue.self_signed(ORDER, at.clock().timestamp()) for _ in range(2))
            at.secret("bought", good)
            at.put({"secretRef": {"name": "bought"}})
            await at.ready("Issued")
            assert at.stored() == good
            at.secret("bought", Pair(other.chain, good.key))
            await at.ready("PairInvalid", "False")
            assert at.stored() == good
            assert at.status["serial"] == pair.read(good).serial
            assert "stays in force" in at.condition("Ready")[2]
            at.server.remove("Secret", "bought", "mail")
            await at.ready("SecretMissing", "False")
            assert at.stored() == good
            at.secret("bought", other)
            await at.ready("Issued")
            assert at.stored() == other

    asyncio.run(story())


def test_a_secret_without_the_key_says_which() -> None:
    async def story() -> None:
        async with place() as at:
            at.secret("bought", issue.self_signed(ORDER, at.clock().timestamp()))
            at.put({"secretRef": {"name": "bought", "certKey": "fullchain.pem"}})
            await at.ready("SecretKeyMissing", "False")
            assert at.condition("Ready")[2] == "Secret bought has no fullchain.pem in its data: add it."

    asyncio.run(story())


def test_a_secret_ref_to_the_result_itself_is_served_as_it_is() -> None:
    async def story() -> None:
        async with place() as at:
            made = issue.self_signed(ORDER, at.clock().timestamp())
            at.secret("mx-tls", made)
            at.put({"secretRef": {"name": "mx-tls"}})
            await at.ready("Issued")
            assert at.stored() == made
            assert not [one for one in at.server.writes if one.kind == "Secret"]

    asyncio.run(story())


def test_a_secret_of_somebody_else_is_not_overwritten() -> None:
    async def story() -> None:
        async with place() as at:
            theirs = issue.self_signed(ORDER, at.clock().timestamp())
            at.secret("mx-tls", theirs)
            at.put({"selfSigned": {}})
            await at.ready("SecretTaken", "False")
            assert at.stored() == theirs
            at.server.remove("Secret", "mx-tls", "mail")
            await at.ready("Issued")

    asyncio.run(story())


def test_without_cert_manager_the_condition_says_so_and_with_it_a_certificate_is_ordered() -> None:
    async def story() -> None:
        async with place() as at:
            at.put({"certManager": {"name": "le", "kind": "ClusterIssuer"}})
            await at.ready("CertManagerMissing", "False")
            at.server.missing.discard("cert-manager.io")
            at.world.enqueue(Key("TLSCert", "mail", "mx"))
            await at.ready("Issuing", "False")
            ordered = at.server.get("Certificate", "mx", "mail") or {}
            assert ordered["spec"]["secretName"] == "mx-tls"
            assert ordered["spec"]["issuerRef"] == {"name": "le", "kind": "ClusterIssuer", "group": "cert-manager.io"}
            assert ordered["spec"]["duration"] == "2160h0m0s"
            assert at.condition("Reconciling")[0] == "True"
            made = issue.self_signed(ORDER, at.clock().timestamp())
            data = {
                "tls.crt": base64.b64encode(made.chain).decode(),
                "tls.key": base64.b64encode(made.key).decode(),
            }
            at.server.put(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {
                        "name": "mx-tls",
                        "namespace": "mail",
                        "labels": ordered["spec"]["secretTemplate"]["labels"],
                        "annotations": {"cert-manager.io/certificate-name": "mx"},
                    },
                    "data": data,
                }
            )
            ready = {"type": "Ready", "status": "True", "observedGeneration": 1}
            at.server.set_status("Certificate", "mx", "mail", {"conditions": [ready]})
            at.world.enqueue(Key("TLSCert", "mail", "mx"))
            await at.ready("Issued")

    asyncio.run(story())


def test_files_of_one_machine_are_refused_and_what_was_there_stays_told() -> None:
    async def story() -> None:
        async with place() as at:
            at.put({"selfSigned": {}})
            await at.ready("Issued")
            serial = at.status["serial"]
            at.put({"files": {"cert": "/etc/a", "key": "/etc/b"}})
            await at.ready("Invalid", "False")
            assert at.status["serial"] == serial
            assert at.condition("Stalled")[1] == "Invalid"

    asyncio.run(story())


def test_what_pods_serve_is_told() -> None:
    async def story() -> None:
        async with place() as at:
            at.server.put(
                {
                    "apiVersion": "posthof.dev/v1alpha1",
                    "kind": "MTA",
                    "metadata": {"name": "edge", "namespace": "mail"},
                    "spec": {"listeners": [{"name": "smtp", "tls": {"certRefs": [{"name": "mx"}]}}]},
                }
            )
            for name in ("edge-a", "edge-b"):
                at.pod(name)
            at.put({"selfSigned": {}})
            await until(lambda: at.condition("Served") == ("Unknown", "NotServed", "No pod has reported yet."))
            serial = at.status["serial"]
            edge = Key("MTA", "mail", "edge")
            now = ServedCertificate(serial=serial.upper().lstrip("0"), not_after=0.0)
            before = ServedCertificate(serial="01", not_after=0.0)
            at.world.reports[edge] = {
                "edge-a": Report(pod="edge-a", certificates={"mx": now}),
                "edge-b": Report(pod="edge-b", certificates={"mx": before}),
            }
            at.world.enqueue(Key("TLSCert", "mail", "mx"))
            await until(lambda: at.status.get("served") == "1/2")
            assert at.condition("Served") == (
                "False",
                "NotServed",
                f"Serial {serial} is not served yet by 1 of 2 pods: edge-b.",
            )
            at.server.remove("Pod", "edge-b", "mail")
            await until(lambda: at.world.store.held(Key("Pod", "mail", "edge-b")) is None)
            at.world.enqueue(Key("TLSCert", "mail", "mx"))
            await until(lambda: at.condition("Served")[0] == "True")
            assert at.status["servedBy"] == [{"pod": "edge-a", "serial": now.serial}]
            assert at.status["served"] == "1/1"
            await at.settled()
            del at.world.reports[edge]  # as after a start, before pods were asked
            writes = len(at.server.writes)
            at.world.enqueue(Key("TLSCert", "mail", "mx"))
            await at.settled()
            assert len(at.server.writes) == writes
            assert at.status["served"] == "1/1"

    asyncio.run(story())


def test_no_log_and_no_event_holds_a_key(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with place() as at:
            at.put({"selfSigned": {}})
            await at.ready("Issued")
            stored = at.stored()
            assert stored is not None
            lines = [line.decode() for line in stored.key.splitlines() if not line.startswith(b"-----")]
            told = caplog.text + repr([raw for key, raw in at.server.objects.items() if key[0] != "Secret"])
            assert not [line for line in lines if line in told]
            encoded = base64.b64encode(stored.key).decode()
            assert encoded not in told

    with caplog.at_level(logging.DEBUG):
        asyncio.run(story())


def test_a_paused_one_is_left_alone() -> None:
    async def story() -> None:
        async with place() as at:
            at.server.put(
                {
                    "apiVersion": "posthof.dev/v1alpha1",
                    "kind": "TLSCert",
                    "metadata": {"name": "mx", "namespace": "mail", "annotations": {"posthof.dev/paused": "true"}},
                    "spec": {"dnsNames": ["mx.example.org"], "issuer": {"selfSigned": {}}},
                }
            )
            await at.ready("Paused", "Unknown")
            assert at.stored() is None

    asyncio.run(story())
