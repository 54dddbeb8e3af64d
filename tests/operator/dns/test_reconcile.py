"""MailDomains against an API server and a DNS server: what is told, what is proven, what outlives a restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kit.dns import DNSServer
from kit.fakeapi import FakeApi, until
from kit.rooms import Clock, at_work
from posthof_operator.dns import ledger as ledgers
from posthof_operator.dns import proof
from posthof_operator.dns.ledger import Damaged
from posthof_operator.dns.reconcile import Domains, Houses
from posthof_operator.dns.wire import Wire
from posthof_operator.resources import Key
from posthof_operator.world import Postponed, World

KEY = Key("MailDomain", "team-a", "acme")


def mta(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "posthof.dev/v1alpha1",
        "kind": "MTA",
        "metadata": {"name": "edge", "namespace": "mail"},
        "spec": {"hostname": "mx.example.org", "egress": {"addresses": ["192.0.2.1"]}} | spec,
    }


def domain(namespace: str = "team-a", name: str = "acme", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "posthof.dev/v1alpha1",
        "kind": "MailDomain",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"domain": "acme.example"} | spec,
    }


def judged(reason: str, *, accepted: bool = False) -> dict[str, Any]:
    """What the room of bindings writes."""
    said = {"type": "Accepted", "status": "True" if accepted else "False", "reason": reason, "message": ""}
    return {"bindings": [{"mta": "edge", "namespace": "mail", "conditions": [said]}], "conditions": [said]}


class Place:
    def __init__(self, server: FakeApi, world: World, clock: Clock, dns: DNSServer) -> None:
        self.server, self.world, self.clock, self.dns = server, world, clock, dns

    def put(self, raw: dict[str, Any], status: dict[str, Any]) -> None:
        self.server.put(raw)
        self.server.set_status("MailDomain", raw["metadata"]["name"], raw["metadata"]["namespace"], status)

    def status(self, namespace: str = "team-a", name: str = "acme") -> dict[str, Any]:
        return dict((self.server.get("MailDomain", name, namespace) or {}).get("status", {}))

    def ready(self) -> tuple[str, str]:
        """DNSReady: (status, reason)"""
        return next(
            ((c["status"], c["reason"]) for c in self.status().get("conditions", ()) if c["type"] == "DNSReady"),
            ("", ""),
        )

    def message(self) -> str:
        return next((str(c["message"]) for c in self.status()["conditions"] if c["type"] == "DNSReady"), "")

    def look(self) -> None:
        """As if its time had come."""
        self.clock.forward(hours=1)
        self.world.enqueue(KEY, room="dns")

    def challenge(self, namespace: str = "team-a", name: str = "acme") -> str:
        return str(self.status(namespace, name).get("proof", {}).get("value", ""))


@contextlib.asynccontextmanager
async def place(server: FakeApi | None = None, dns: DNSServer | None = None) -> AsyncIterator[Place]:
    async with contextlib.AsyncExitStack() as stack:
        clock = Clock()
        resolver = dns or stack.enter_context(DNSServer({}))
        api = server or await stack.enter_async_context(FakeApi())
        rooms = [Domains(ask=Wire([resolver.address], lifetime=1.0, timeout=0.4).ask), Houses()]
        world = await stack.enter_async_context(at_work(rooms, server=api, clock=clock))
        yield Place(api, world, clock, resolver)


def test_rows_columns_and_the_texts_to_publish() -> None:
    async def story() -> None:
        async with place() as at:
            at.server.put(mta())
            at.put(domain("mail"), judged("Accepted", accepted=True))
            await until(lambda: at.status("mail").get("dns"))
            status = at.status("mail")
            assert status["dns"] == {"mx": "missing", "spf": "missing", "dmarc": "missing"}
            assert [(one["purpose"], one["name"], one["expected"]) for one in status["dnsRecords"]] == [
                ("mx", "acme.example", "10 mx.example.org."),
                ("spf", "acme.example", "v=spf1 ip4:192.0.2.1 ~all"),
                ("dmarc", "_dmarc.acme.example", "v=DMARC1; p=none"),
            ]
            assert "proof" not in status  # nobody asks the MTA's own namespace for one
            message = next(c["message"] for c in status["conditions"] if c["type"] == "DNSReady")
            assert message == (
                "MX: it is not published: publish acme.example. MX 10 mx.example.org.; "
                'SPF: it is not published: publish acme.example. TXT "v=spf1 ip4:192.0.2.1 ~all"; '
                'DMARC: it is not published: publish _dmarc.acme.example. TXT "v=DMARC1; p=none".'
            )

    asyncio.run(story())


def test_what_is_published_is_found_and_a_second_pass_writes_nothing() -> None:
    async def story() -> None:
        async with place() as at:
            at.server.put(mta())
            at.put(domain(), judged("Accepted", accepted=True))
            await until(lambda: at.ready() == ("False", "RecordsMissing"))
            at.dns.set("acme.example", "MX", "10 mx.example.org")
            at.dns.set("acme.example", "TXT", '"v=spf1 ip4:192.0.2.1 -all"')
            at.dns.set("_dmarc.acme.example", "TXT", '"v=DMARC1; p=reject"')
            at.look()
            await until(lambda: at.ready() == ("True", "RecordsRight"))
            assert at.message() == "MX, SPF, DMARC are right."
            await until(lambda: at.world.queue.is_idle)
            writes = len(at.server.writes)
            at.look()
            await until(lambda: at.dns.asked("acme.example", "MX") >= 3)
            await until(lambda: at.world.queue.is_idle)
            assert len(at.server.writes) == writes

    asyncio.run(story())


def test_a_resolver_that_is_away_changes_nothing_that_was_known() -> None:
    async def story() -> None:
        async with place() as at:
            at.dns.set("acme.example", "MX", "10 mx.example.org")
            at.server.put(mta(egress={}))
            at.put(domain(dns={"dmarc": ""}), judged("Accepted", accepted=True))
            await until(lambda: at.ready() == ("True", "RecordsRight"))
            assert "SPF is not judged: the MTA says no egress.addresses" in at.message()
            before = at.status()
            at.dns.failing.add("*")
            asked = at.dns.asked("acme.example")
            at.look()
            await until(lambda: at.dns.asked("acme.example") > asked)
            await until(lambda: at.world.queue.is_idle)
            assert at.status() == before

    asyncio.run(story())


def test_a_resolver_that_was_never_there_is_told() -> None:
    async def story() -> None:
        async with place() as at:
            at.dns.failing.add("*")
            at.server.put(mta())
            at.put(domain(), judged("Accepted", accepted=True))
            await until(lambda: at.ready() == ("Unknown", "ResolverFailed"))
            assert "SERVFAIL" in at.message()
            at.dns.failing.clear()
            at.look()
            await until(lambda: at.ready() == ("False", "RecordsMissing"))

    asyncio.run(story())


def test_what_nobody_accepts_is_not_looked_at() -> None:
    async def story() -> None:
        async with place() as at:
            at.put(
                domain(), {"conditions": [{"type": "Accepted", "status": "False", "reason": "NoMTA", "message": ""}]}
            )
            await until(lambda: at.ready() == ("Unknown", "NotChecked"))
            assert not at.dns.queries

    asyncio.run(story())


def test_another_hostname_of_the_mta_is_expected_at_once() -> None:
    async def story() -> None:
        async with place() as at:
            at.server.put(mta())
            at.put(domain(), judged("Accepted", accepted=True))
            await until(lambda: at.status().get("dnsRecords"))
            at.server.put(mta(hostname="new.example.org"))
            await until(lambda: at.status()["dnsRecords"][0]["expected"] == "10 new.example.org.")

    asyncio.run(story())


# -- proofs


def test_a_tenants_proof_is_asked_for_found_and_believed_until_it_is_gone() -> None:
    async def story() -> None:
        async with place() as at:
            at.server.put(mta())
            at.put(domain(), judged("ProofMissing"))
            await until(at.challenge)
            assert at.status()["proof"]["name"] == "_posthof-challenge.acme.example"
            await until(lambda: at.ready() == ("False", "RecordsMissing"))
            assert at.message().startswith(
                "The proof: it is not published: publish _posthof-challenge.acme.example. TXT"
            )
            assert not at.world.proven
            at.dns.set("_posthof-challenge.acme.example", "TXT", at.challenge())
            at.look()
            await until(lambda: at.world.proven == {"acme.example": {"team-a/acme"}})
            at.dns.failing.add("*")
            at.look()
            await until(lambda: at.world.queue.is_idle)
            assert at.world.proven
            at.dns.failing.clear()
            at.dns.remove("_posthof-challenge.acme.example")
            at.look()
            await until(lambda: not at.world.proven)

    asyncio.run(story())


def test_a_tenant_cannot_use_the_record_of_another() -> None:
    async def story() -> None:
        async with place() as at:
            at.server.put(mta())
            at.put(domain("team-a"), judged("ProofMissing"))
            at.put(domain("team-b"), judged("ProofMissing"))
            await until(lambda: at.challenge("team-a") and at.challenge("team-b"))
            assert at.challenge("team-a") != at.challenge("team-b")
            at.dns.set("_posthof-challenge.acme.example", "TXT", at.challenge("team-a"))
            for namespace in ("team-a", "team-b"):
                at.clock.forward(hours=1)
                at.world.enqueue(Key("MailDomain", namespace, "acme"), room="dns")
            await until(lambda: at.world.proven == {"acme.example": {"team-a/acme"}})
            records = {one["purpose"]: one["state"] for one in at.status("team-b")["dnsRecords"]}
            await until(lambda: at.world.queue.is_idle)
            assert records["proof"] in ("missing", "differs")
            assert at.world.proven == {"acme.example": {"team-a/acme"}}

    asyncio.run(story())


def test_a_proof_outlives_the_operator_and_a_resolver_that_is_away() -> None:
    async def story() -> None:
        with DNSServer({}) as dns:
            async with FakeApi() as server:
                async with place(server, dns) as at:
                    server.put(mta())
                    at.put(domain(), judged("ProofMissing"))
                    await until(at.challenge)
                    value = at.challenge()
                    dns.set("_posthof-challenge.acme.example", "TXT", value)
                    at.look()
                    await until(lambda: at.world.proven)
                    await until(lambda: _kept(server) == {"acme.example": ["team-a/acme"]})
                dns.failing.add("*")
                async with place(server, dns) as again:
                    assert again.world.proven == {"acme.example": {"team-a/acme"}}
                    await until(lambda: again.world.queue.is_idle)
                    assert again.world.proven
                    assert again.challenge() == value
                server.vanish("MailDomain", "acme", "team-a")
                async with place(server, dns) as after:
                    assert not after.world.proven  # whoever comes next under that name has proven nothing

    asyncio.run(story())


def test_a_deleted_mail_domain_has_proven_nothing_any_more() -> None:
    async def story() -> None:
        async with place() as at:
            at.server.put(mta())
            at.put(domain(), judged("ProofMissing"))
            await until(at.challenge)
            at.dns.set("_posthof-challenge.acme.example", "TXT", at.challenge())
            at.look()
            await until(lambda: at.world.proven)
            at.server.remove("MailDomain", "acme", "team-a")
            await until(lambda: not at.world.proven)

    asyncio.run(story())


def test_the_salt_is_made_once_and_a_damaged_ledger_is_never_replaced() -> None:
    async def story() -> None:
        async with FakeApi() as server:
            async with place(server):
                first = server.get("ConfigMap", "posthof-proofs", "posthof") or {}
            async with place(server):
                again = server.get("ConfigMap", "posthof-proofs", "posthof") or {}
            assert again["data"] == first["data"]
            server.put({**first, "data": {"salt": "c2hvcnQ="}})
            with pytest.raises(Postponed, match="salt of 5 bytes"):
                async with place(server):
                    pass

    asyncio.run(story())


def test_what_the_ledger_holds_is_read_back_and_damage_is_told() -> None:
    with pytest.raises(Damaged, match="restore it"):
        ledgers.read({"data": {}}, "posthof/posthof-proofs")
    with pytest.raises(Damaged):
        ledgers.read({"data": {"salt": "AAAA"}, "binaryData": {"proven": "AAAA"}}, "posthof/posthof-proofs")
    assert proof.SALT_BYTES == 32


def _kept(server: FakeApi) -> dict[str, list[str]]:
    return ledgers.read(server.get("ConfigMap", "posthof-proofs", "posthof") or {}, "posthof/posthof-proofs")[1]


# -- ExternalDNS


def test_an_endpoint_is_there_exactly_while_it_is_asked_for() -> None:
    async def story() -> None:
        async with place() as at:
            at.server.missing.discard("externaldns.k8s.io")
            at.server.put(mta())
            at.put(domain(dns={"publish": "ExternalDNS"}), judged("Accepted", accepted=True))
            await until(lambda: at.server.get("DNSEndpoint", "acme", "team-a"))
            body = at.server.get("DNSEndpoint", "acme", "team-a") or {}
            assert body["metadata"]["ownerReferences"][0]["kind"] == "MailDomain"
            assert [(one["dnsName"], one["recordType"], one["targets"]) for one in body["spec"]["endpoints"]] == [
                ("acme.example", "MX", ["10 mx.example.org"]),
                ("acme.example", "TXT", ['"v=spf1 ip4:192.0.2.1 ~all"']),
                ("_dmarc.acme.example", "TXT", ['"v=DMARC1; p=none"']),
            ]
            at.server.put(domain())
            await until(lambda: at.server.get("DNSEndpoint", "acme", "team-a") is None)

    asyncio.run(story())


@pytest.mark.parametrize("reason", ["ProofMissing", "NotAllowed", "DomainTaken", "Invalid"])
def test_no_endpoint_is_made_for_a_domain_that_is_not_accepted(reason: str) -> None:
    """Whoever may write a MailDomain would write anybody's SPF by it."""

    async def story() -> None:
        async with place() as at:
            at.server.missing.discard("externaldns.k8s.io")
            at.server.put(mta())
            at.put(domain(dns={"publish": "ExternalDNS", "spf": "v=spf1 +all"}), judged(reason))
            await until(lambda: at.ready() == ("False", "RecordsMissing"))
            await until(lambda: at.world.queue.is_idle)
            assert at.server.get("DNSEndpoint", "acme", "team-a") is None

    asyncio.run(story())


def test_an_endpoint_waits_until_the_domain_as_it_is_now_was_judged() -> None:
    """Else a domain that is accepted becomes another one for a moment, and that one's records are published."""

    async def story() -> None:
        async with place() as at:
            at.server.missing.discard("externaldns.k8s.io")
            at.server.put(mta())
            status = judged("Accepted", accepted=True)
            status["bindings"][0]["conditions"][0]["observedGeneration"] = 1
            at.put(domain(dns={"publish": "ExternalDNS"}), status)
            await until(lambda: at.server.get("DNSEndpoint", "acme", "team-a"))
            before = at.server.get("DNSEndpoint", "acme", "team-a")
            at.server.put(domain(dns={"publish": "ExternalDNS"}, domain="bank.example"))
            await until(lambda: at.ready() == ("False", "RecordsMissing") and "bank.example" in at.message())
            await until(lambda: at.world.queue.is_idle)
            assert at.server.get("DNSEndpoint", "acme", "team-a") == before

    asyncio.run(story())


@pytest.mark.parametrize("space", ["team-a", "mail"])
def test_an_endpoint_stays_while_a_mistake_in_the_domain_leaves_its_last_good_version_in_force(space: str) -> None:
    async def story() -> None:
        async with place() as at:
            at.server.missing.discard("externaldns.k8s.io")
            at.server.put(mta())
            at.put(domain(space, dns={"publish": "ExternalDNS"}), judged("Accepted", accepted=True))
            await until(lambda: at.server.get("DNSEndpoint", "acme", space))
            before = at.server.get("DNSEndpoint", "acme", space)
            at.put(domain(space, dns={"publish": "ExternalDNS"}, inbound={"mode": "LMTP"}), judged("Invalid"))
            at.world.enqueue(Key("MailDomain", space, "acme"), room="dns")
            await until(lambda: at.world.queue.is_idle)
            assert at.server.get("DNSEndpoint", "acme", space) == before
            at.put(domain(space, dns={"publish": "ExternalDNS"}), judged("DomainTaken"))
            await until(lambda: at.server.get("DNSEndpoint", "acme", space) is None)

    asyncio.run(story())


def test_an_endpoint_of_somebody_else_is_left_alone_and_said() -> None:
    async def story() -> None:
        async with place() as at:
            at.server.missing.discard("externaldns.k8s.io")
            at.server.put({"kind": "DNSEndpoint", "metadata": {"name": "acme", "namespace": "team-a"}, "spec": {}})
            at.server.put(mta())
            at.put(domain(dns={"publish": "ExternalDNS"}), judged("Accepted", accepted=True))
            await until(lambda: "somebody else's" in (at.message() if at.ready() != ("", "") else ""))
            assert (at.server.get("DNSEndpoint", "acme", "team-a") or {})["spec"] == {}

    asyncio.run(story())


def test_without_the_api_of_external_dns_the_message_says_so() -> None:
    async def story() -> None:
        async with place() as at:
            at.server.put(mta())
            at.put(domain(dns={"publish": "ExternalDNS"}), judged("Accepted", accepted=True))
            await until(lambda: at.ready() == ("False", "RecordsMissing"))
            assert at.message().endswith("dns.publish asks for ExternalDNS, and this cluster has no DNSEndpoint API.")

    asyncio.run(story())
