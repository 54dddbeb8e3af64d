"""DANE and MTA-STS as the world publishes them, rightly and wrongly: signed by Knot, validated by Unbound.

All MX hosts listen on one port of addresses of their own (127.0.1.x), as they do in the world.
"""

import asyncio
import contextlib
import random
import time

import pytest
import uvloop

from kit import peers
from kit.peer import FULL, Peer, certificate
from kit.pki import Authority, first, tlsa
from kit.policyhost import PolicyHost, text
from kit.posthof import direct, posthof
from kit.secureworld import secure_world
from kit.session import TIMES, mail
from posthof_crds.engine import EngineConfig, SpoolSettings, TLSLevel
from posthof_pod.admit.policy import CompiledPolicy
from posthof_pod.admit.route import Routes
from posthof_pod.deliver.connection import Connection, Unreachable
from posthof_pod.deliver.outbound import OutboundTLS
from posthof_pod.deliver.tls import ClientTLS
from posthof_pod.model import Destination, DestinationKind, Reason, Status, TLSWish
from posthof_pod.observe.events import RecordedEvents
from posthof_pod.replies import Permanent, Temporary
from posthof_pod.resolve.assembly import assemble

CA = Authority("Test CA")
BELOW = Authority("Test intermediate", signer=CA)
STRANGER = Authority("Somebody else's CA")
NO_CA = Authority("A host's certificate, no CA", signer=CA, is_ca=False)

PORT = peers.free_port()
HTTPS = peers.free_port()
SELF = certificate("name.does.not.matter.test")
OTHER = certificate("another.test")
EXPIRED = CA.issue("mx.old.test", begins=-20, ends=-10)
TA = BELOW.issue("mx.ta.test")
TA_DOMAIN = CA.issue("tadomain.test")
TA_OTHER = CA.issue("mx.elsewhere.test")
TA_OLD = CA.issue("mx.taold.test", begins=-20, ends=-10)
TA_FORGED = NO_CA.issue("mx.forged.test")
TA_KEY = CA.issue("mx.takey.test", whole_chain=False)
WEB = CA.issue("mx.sts.test", "mx2.sts.test", "*.wild.test")
POLICIES = CA.issue(*(f"mta-sts.{name}.test" for name in ("sts", "same", "try", "evil", "b")))

_TLSA = f"_{PORT}._tcp"
ZONE = f"""
ee MX 10 mx.ee
mx.ee A 127.0.1.1
{_TLSA}.mx.ee TLSA {tlsa(3, 1, 1, first(SELF))}
roll MX 10 mx.roll
mx.roll A 127.0.1.1
{_TLSA}.mx.roll TLSA {tlsa(3, 1, 1, first(OTHER))}
{_TLSA}.mx.roll TLSA {tlsa(3, 1, 1, first(SELF))}
full MX 10 mx.full
mx.full A 127.0.1.1
{_TLSA}.mx.full TLSA {tlsa(3, 0, 2, first(SELF))}
wrong MX 10 mx.wrong
mx.wrong A 127.0.1.1
{_TLSA}.mx.wrong TLSA {tlsa(3, 1, 1, first(OTHER))}
ta MX 10 mx.ta
mx.ta A 127.0.1.1
{_TLSA}.mx.ta TLSA {tlsa(2, 0, 1, CA.der)}
tamid MX 10 mx.ta
tadomain MX 10 mx.tadomain
mx.tadomain A 127.0.1.1
{_TLSA}.mx.tadomain TLSA {tlsa(2, 1, 2, CA.der)}
taother MX 10 mx.taother
mx.taother A 127.0.1.1
{_TLSA}.mx.taother TLSA {tlsa(2, 0, 1, CA.der)}
taold MX 10 mx.taold
mx.taold A 127.0.1.1
{_TLSA}.mx.taold TLSA {tlsa(2, 0, 1, CA.der)}
forged MX 10 mx.forged
mx.forged A 127.0.1.1
{_TLSA}.mx.forged TLSA {tlsa(2, 0, 1, CA.der)}
takey MX 10 mx.takey
mx.takey A 127.0.1.1
{_TLSA}.mx.takey TLSA {tlsa(2, 1, 0, CA.der)}
stranger MX 10 mx.stranger
mx.stranger A 127.0.1.1
{_TLSA}.mx.stranger TLSA {tlsa(2, 0, 1, STRANGER.der)}
unusable MX 10 mx.unusable
mx.unusable A 127.0.1.1
{_TLSA}.mx.unusable TLSA {tlsa(1, 1, 1, first(OTHER))}
none MX 10 mx.none
mx.none A 127.0.1.1
fails MX 10 mx.fails
mx.fails A 127.0.1.1
second MX 10 mx.fails
second MX 20 mx.ee
alias MX 10 al.alias
al.alias CNAME mx.ee
leaves MX 10 al.leaves
al.leaves CNAME mx.plain.
{_TLSA}.al.leaves TLSA {tlsa(3, 1, 1, first(SELF))}
away MX 10 mx.plain.
both MX 10 mx.both
mx.both A 127.0.1.1
{_TLSA}.mx.both TLSA {tlsa(3, 1, 1, first(SELF))}
implicit A 127.0.1.1
{_TLSA}.implicit TLSA {tlsa(3, 1, 1, first(SELF))}
old MX 10 mx.old
mx.old A 127.0.1.1
{_TLSA}.mx.old TLSA {tlsa(3, 1, 1, first(EXPIRED))}
"""
STS = """
{0} MX 10 {1}
_mta-sts.{0} TXT "v=STSv1; id=20260101;"
mta-sts.{0} A 127.0.1.9
"""
ZONE += "mx.sts A 127.0.1.1\nmx2.sts A 127.0.1.2\nmx.wild A 127.0.1.1\na.mx.wild A 127.0.1.1\n"
ZONE += "".join(STS.format(*pair) for pair in [("sts", "mx.sts"), ("same", "mx.sts"), ("try", "mx.sts")])
ZONE += STS.format("evil", "mx2.sts") + STS.format("b", "mx.sts") + "nosts MX 10 mx.sts\n"
ZONE += STS.format("unheld", "mx.sts") + "wild MX 10 mx.wild\n"
PLAIN = f"""
mx A 127.0.1.1
{_TLSA}.mx TLSA {tlsa(3, 1, 1, first(OTHER))}
@ MX 10 mx
mixed MX 10 mx.ee.test.
"""
ZONES = {
    "test": ZONE,
    "plain": PLAIN,
    "broken": "@ MX 10 mx\nmx A 127.0.1.1\n",
    "_tcp.mx.fails.test": f"_{PORT} TLSA {tlsa(3, 1, 1, first(OTHER))}\n",
}


@pytest.fixture(scope="module")
def resolver(tmp_path_factory):
    peers.require("knotd", "keymgr", "unbound")
    folder = tmp_path_factory.mktemp("dns")
    bogus = {"broken", "_tcp.mx.fails.test"}
    with secure_world(folder, ZONES, unsigned={"plain"}, bogus=bogus) as address:
        yield address


class House:
    """What a worker has between a destination and a session."""

    def __init__(self, resolver, spool=None, **given):
        config = EngineConfig(
            name="t",
            hostname="me.example",
            listeners=(),
            spool=SpoolSettings(path=str(spool or "/nonexistent")),
            mail_root="/",
            state_dir="/",
            resolver=(resolver,),
            direct_port=PORT,
            https_port=HTTPS,
        )
        self.events = RecordedEvents()
        self.outbound = OutboundTLS(self.events)
        self.tls = ClientTLS(ca_file=str(CA.file))
        self.resolution = assemble(
            config,
            rng=random.Random(1).random,
            policy_context=self.tls.policies,
            is_keeping=spool is not None,
            watch=self.outbound,
        )

    async def route(self, domain, level=TLSLevel.BEST):
        return await self.resolution.resolver.route(to(domain, level), time.time())

    async def session(self, domain, level=TLSLevel.BEST):
        """A session with the first host of the domain. Raises Temporary, Unreachable."""
        route = await self.route(domain, level)
        host = route.hosts[0]
        try:
            connection = await Connection.open(
                host, to(domain, level), hostname="me.example", timeouts=TIMES, tls=self.tls
            )
        except Unreachable as error:
            self.outbound.refused(host, to(domain, level), error)
            raise
        self.outbound.opened(host, to(domain, level), connection)
        return connection

    async def send(self, domain, level=TLSLevel.BEST):
        connection = await self.session(domain, level)
        [outcome] = await connection.send(mail(f"bob@{domain}"))
        await connection.quit()
        assert outcome.status is Status.RELAYED
        return connection


def to(domain, level=TLSLevel.BEST):
    return Destination(f"direct:{domain}", DestinationKind.DIRECT, domain, tls=level)


def send(resolver, domain, level=TLSLevel.BEST, **given):
    """One message; gives the session. Raises Temporary, Unreachable."""
    return uvloop.run(House(resolver, **given).send(domain, level))


@contextlib.contextmanager
def mx(pair=SELF, host="127.0.1.1", **given):
    with Peer(host=host, port=PORT, certificate=pair, **given) as peer:
        yield peer


@contextlib.contextmanager
def policy_host(**policies):
    """`domain=text`, the domain below .test."""
    with PolicyHost(POLICIES, host="127.0.1.9", port=HTTPS) as server:
        for domain, policy in policies.items():
            server.answers[f"mta-sts.{domain}.test"] = policy if isinstance(policy, bytes) else text(policy)
        yield server


def policy(mode="enforce", *hosts, max_age=86400):
    lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {host}" for host in hosts or ("mx.sts.test",))]
    return "\r\n".join([*lines, f"max_age: {max_age}", ""])


# --- DANE


@pytest.mark.parametrize(
    ("domain", "pair", "verdict"),
    [
        ("ee.test", SELF, "DANE 3 1 1"),
        ("roll.test", SELF, "DANE 3 1 1"),
        ("full.test", SELF, "DANE 3 0 2"),
        ("alias.test", SELF, "DANE 3 1 1"),
        ("leaves.test", SELF, "DANE 3 1 1"),
        ("implicit.test", SELF, "DANE 3 1 1"),
        ("old.test", EXPIRED, "DANE 3 1 1"),
        ("ta.test", TA, "DANE 2 0 1"),
        ("tadomain.test", TA_DOMAIN, "DANE 2 1 2"),
        ("takey.test", TA_KEY, "DANE 2 1 0"),
    ],
)
@pytest.mark.parametrize("level", [TLSLevel.BEST, TLSLevel.DANE])
def test_the_certificate_that_the_tlsa_records_name_is_taken(resolver, domain, pair, verdict, level):
    with mx(pair) as peer:
        connection = send(resolver, domain, level)
    assert connection.tls.endswith(verdict)
    assert peer.messages[0].tls


@pytest.mark.parametrize(
    ("domain", "pair", "words"),
    [
        ("wrong.test", SELF, "not the one in the TLSA records"),
        ("stranger.test", TA, "is not in the chain"),
        ("taother.test", TA_OTHER, "is for mx.elsewhere.test and not for mx.taother.test or taother.test"),
        ("taold.test", TA_OLD, "not in its time"),
        ("forged.test", TA_FORGED, "must not"),
        ("takey.test", SELF, "nothing in the chain is signed by the key"),
    ],
)
@pytest.mark.parametrize("level", [TLSLevel.BEST, TLSLevel.DANE])
def test_any_other_certificate_means_that_the_mail_waits(resolver, domain, pair, words, level):
    with mx(pair) as peer, pytest.raises(Unreachable) as caught:
        send(resolver, domain, level)
    assert words in caught.value.reply
    assert caught.value.reason is Reason.TLS_FAILED
    assert not caught.value.is_permanent
    assert peer.messages == []
    assert not any(line.startswith(b"MAIL") for line in peer.transcript)


@pytest.mark.parametrize("script", [{}, {"STARTTLS": "454 4.7.0 not now"}], ids=["not offered", "refused"])
def test_a_host_with_tlsa_records_gets_nothing_in_plain_text(resolver, script):
    """The downgrade that DANE is for: somebody took STARTTLS out of the offer."""
    offers = FULL if not script else (*FULL, "STARTTLS")
    with Peer(script, host="127.0.1.1", port=PORT, offers=offers) as peer, pytest.raises(Unreachable) as caught:
        send(resolver, "ee.test")
    assert caught.value.reason is Reason.TLS_REQUIRED
    assert peer.messages == []


def test_secure_records_that_nobody_can_use_demand_tls_with_any_certificate(resolver):
    with mx() as peer:
        connection = send(resolver, "unusable.test")
    assert connection.tls.startswith("TLSv1.")
    assert peer.messages[0].tls
    with Peer(host="127.0.1.1", port=PORT), pytest.raises(Unreachable):
        send(resolver, "unusable.test")


@pytest.mark.parametrize("domain", ["none.test", "plain", "mixed.plain", "away.test"])
def test_without_signed_records_all_the_way_it_is_as_may(resolver, domain):
    """No records; an unsigned domain; signed hosts of an unsigned domain; an unsigned host of a signed domain."""
    with mx() as peer:
        connection = send(resolver, domain)
    assert "DANE" not in connection.tls
    assert peer.messages[0].tls
    with Peer(host="127.0.1.1", port=PORT) as peer:
        send(resolver, domain)
    assert not peer.messages[0].tls


@pytest.mark.parametrize("domain", ["none.test", "plain", "mixed.plain", "away.test", "unusable.test"])
def test_level_dane_sends_nothing_where_there_is_none(resolver, domain):
    with pytest.raises(Temporary) as caught:
        send(resolver, domain, TLSLevel.DANE)
    assert caught.value.reply.status == "4.7.5"


def test_tlsa_records_that_cannot_be_looked_up_make_the_mail_wait(resolver):
    with pytest.raises(Temporary) as caught:
        send(resolver, "fails.test")
    assert "_tcp.mx.fails.test" in caught.value.reason


def test_another_host_of_the_domain_is_taken_instead(resolver):
    with mx() as peer:
        connection = send(resolver, "second.test")
    assert connection.host.name == "mx.ee.test"
    assert peer.messages


def test_a_domain_whose_signatures_are_wrong_waits(resolver):
    with pytest.raises(Temporary) as caught:
        send(resolver, "broken")
    assert caught.value.reply.status == "4.4.3"


def test_whether_the_resolver_validates_is_found_out_and_told(resolver):
    house = House(resolver)
    uvloop.run(house.resolution.resolver.look_ahead(time.time()))
    assert [line.event for line in house.events.lines] == ["dnssec_validates"]


@pytest.mark.parametrize(
    ("domain", "asked"), [("ee.test", "mx.ee.test"), ("alias.test", "mx.ee.test"), ("leaves.test", "al.leaves.test")]
)
def test_the_host_is_asked_for_by_the_name_its_records_stand_at(resolver, domain, asked):
    """RFC 7672 8.1: else a host that serves many names shows the certificate of another."""
    with mx() as peer:
        send(resolver, domain)
    assert peer.server_names == [asked]


def test_a_dane_session_is_resumed_with_its_verdict(resolver):
    async def twice(house):
        return [await house.send("ee.test") for _ in range(3)]

    house = House(resolver)
    with mx() as peer:
        sessions = uvloop.run(twice(house))
    assert [one.tls.split(" ", 2)[2] for one in sessions] == ["DANE 3 1 1"] * 3
    assert [session.is_resumed for session in peer.sessions] == [False, True, True]


def test_a_session_that_was_not_checked_is_never_resumed_where_dane_is_demanded(resolver):
    """Session mix-up: the same host and port, with less proven."""

    async def run(house):
        await house.send("ee.test", TLSLevel.MAY)
        with pytest.raises(Unreachable):
            await house.send("wrong.test")
        await house.send("ee.test")

    with mx() as peer:
        uvloop.run(run(House(resolver)))
    assert [session.is_resumed for session in peer.sessions] == [False, False, False]


# --- MTA-STS


def test_an_enforced_policy_demands_a_certificate_for_the_hosts_name(resolver):
    with policy_host(sts=policy()), mx(WEB) as peer:
        connection = send(resolver, "sts.test")
    assert connection.tls.endswith("verified")
    assert peer.messages[0].tls
    with policy_host(sts=policy()), mx(SELF) as peer, pytest.raises(Unreachable) as caught:
        send(resolver, "sts.test")
    assert caught.value.reason is Reason.TLS_FAILED
    assert peer.messages == []


def test_an_enforced_policy_is_met_by_no_session_in_plain_text(resolver):
    with policy_host(sts=policy()), Peer(host="127.0.1.1", port=PORT) as peer, pytest.raises(Unreachable) as caught:
        send(resolver, "sts.test")
    assert caught.value.reason is Reason.TLS_REQUIRED
    assert peer.messages == []


def test_a_host_outside_the_policy_is_never_connected_to(resolver):
    """An attacker changed the MX record; the policy still names the true host."""
    house = House(resolver)
    with (
        policy_host(evil=policy("enforce", "mx.sts.test")),
        mx(WEB, host="127.0.1.2") as peer,
        pytest.raises(Temporary) as caught,
    ):
        uvloop.run(house.send("evil.test"))
    assert caught.value.reply.status == "4.7.5"
    assert peer.sessions == []
    [row] = house.outbound.ledger.take()
    assert (row.domain, row.type, row.failure.kind) == ("evil.test", "sts", "validation-failure")


def test_in_testing_the_mail_goes_and_the_failure_is_told(resolver):
    house = House(resolver)
    with policy_host(**{"try": policy("testing")}), mx(SELF) as peer:
        connection = uvloop.run(house.send("try.test"))
    assert peer.messages[0].tls
    assert "certificate" in connection.tls_failure
    [row] = house.outbound.ledger.take()
    assert row.failure.kind == "certificate-not-trusted"
    assert row.text[1] == "mode: testing"


def test_level_mtasts_enforces_what_is_in_testing_and_demands_a_policy(resolver):
    with policy_host(**{"try": policy("testing")}), mx(SELF), pytest.raises(Unreachable):
        send(resolver, "try.test", TLSLevel.MTASTS)
    with pytest.raises(Temporary) as caught:
        send(resolver, "nosts.test", TLSLevel.MTASTS)
    assert caught.value.reply.status == "4.7.5"


def test_one_domains_policy_never_serves_another_with_the_same_host(resolver):
    """Four domains, one MX host: each has the sessions of its own policy; those without one share."""

    async def run(house):
        routes = [await house.route(domain) for domain in ("sts.test", "same.test", "nosts.test", "b.test")]
        sites = [route.site for route in routes]
        assert len(set(sites)) == 3
        assert sites[1] == sites[2]
        levels = [route.hosts[0].demand.level for route in routes]
        assert levels == [TLSLevel.VERIFY, TLSLevel.MAY, TLSLevel.MAY, TLSLevel.VERIFY]
        await house.send("nosts.test")
        await house.send("same.test")
        for domain in ("sts.test", "b.test"):
            with pytest.raises(Unreachable):
                await house.send(domain)

    policies = {"sts": policy(), "same": policy("none"), "b": policy("enforce", "*.sts.test")}
    with policy_host(**policies), mx(SELF) as peer:
        uvloop.run(run(House(resolver)))
    assert [message.tls for message in peer.messages] == [True, True]
    assert [session.is_resumed for session in peer.sessions] == [False, True, False, False]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "sts-policy-fetch-error"),
        (b"HTTP/1.1 301 Moved\r\nLocation: https://mta-sts.b.test/\r\n\r\n", "sts-policy-fetch-error"),
        (text(policy(), "text/html"), "sts-policy-fetch-error"),
        (text("x" * 70_000), "sts-policy-fetch-error"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n" + b"y" * 70_000, "sts-policy-fetch-error"),
        (text("version: STSv1\nmode: enforce\nmax_age: 1\n"), "sts-policy-invalid"),
        (text(policy("enforced")), "sts-policy-invalid"),
        (b"nonsense", "sts-policy-fetch-error"),
    ],
)
def test_a_policy_that_cannot_be_had_is_none_and_told(resolver, answer, kind):
    house = House(resolver)
    with policy_host(sts=answer) as server, mx(SELF) as peer:
        uvloop.run(house.send("sts.test"))
        assert server.asked["mta-sts.sts.test"] == 1
    assert peer.messages
    rows = {row.type: row for row in house.outbound.ledger.take()}
    assert rows["sts"].failure.kind == kind
    assert rows["no-policy-found"].failure is None


def test_a_policy_host_with_a_certificate_for_another_name_is_not_believed(resolver):
    house = House(resolver)
    with policy_host(unheld=policy()), mx(SELF):
        uvloop.run(house.send("unheld.test"))
    rows = {row.type: row for row in house.outbound.ledger.take()}
    assert rows["sts"].failure.kind == "sts-webpki-invalid"


def test_a_policy_that_is_kept_counts_when_its_host_and_a_restart_took_everything_else(resolver, tmp_path):
    with policy_host(sts=policy()), mx(WEB):
        send(resolver, "sts.test", spool=tmp_path)
    with mx(SELF) as peer, pytest.raises(Unreachable):
        send(resolver, "sts.test", spool=tmp_path)
    assert peer.messages == []


def test_a_policy_is_fetched_once_and_again_when_it_is_no_longer_fresh(resolver, tmp_path):
    async def run(house, server):
        await asyncio.gather(*(house.route("sts.test") for _ in range(5)))
        assert server.asked["mta-sts.sts.test"] == 1
        policies = house.resolution.policies
        assert await policies.refresh() == 0
        now = time.time
        policies._clock = lambda: now() + 50_000
        server.answers["mta-sts.sts.test"] = text(policy("enforce", "mx9.sts.test"))
        assert await policies.refresh() == 1
        with pytest.raises(Temporary):
            await house.route("sts.test")

    with policy_host(sts=policy()) as server:
        uvloop.run(run(House(resolver, spool=tmp_path), server))
        assert server.asked["mta-sts.sts.test"] == 2


# --- what the sender asks for (RFC 8689)

REQUIRING = (*FULL, "REQUIRETLS")


def wished(resolver, domain, wish, house=None):
    """One message with a wish; gives the outcome."""

    async def run(house):
        destination = as_wished(to(domain), wish)
        route = await house.resolution.resolver.route(destination, time.time())
        connection = await Connection.open(
            route.hosts[0], destination, hostname="me.example", timeouts=TIMES, tls=house.tls
        )
        [outcome] = await connection.send(mail(f"bob@{domain}", tls_wish=int(wish)))
        await connection.quit()
        return outcome

    return uvloop.run(run(house or House(resolver)))


def as_wished(destination, wish):
    config = EngineConfig(
        name="t", hostname="me", listeners=(), spool=SpoolSettings(path="/"), mail_root="/", state_dir="/"
    )
    return Routes(CompiledPolicy(config))._as_wished(destination, int(wish))


@pytest.mark.parametrize(("domain", "pair"), [("ee.test", SELF), ("sts.test", WEB)])
def test_requiretls_goes_to_proven_hosts_that_take_it_over(resolver, domain, pair):
    with policy_host(sts=policy("testing")), mx(pair, offers=REQUIRING) as peer:
        outcome = wished(resolver, domain, TLSWish.REQUIRED)
    assert outcome.status is Status.RELAYED
    assert b" REQUIRETLS" in peer.messages[0].mail_line


def test_requiretls_comes_back_where_the_host_does_not_offer_it(resolver):
    with mx() as peer:
        outcome = wished(resolver, "ee.test", TLSWish.REQUIRED)
    assert (outcome.status, outcome.enhanced) == (Status.FAILED, "5.7.30")
    assert peer.messages == []


def test_requiretls_comes_back_where_the_hosts_cannot_be_found_securely(resolver):
    with pytest.raises(Permanent) as caught:
        wished(resolver, "plain", TLSWish.REQUIRED)
    assert caught.value.reply.status == "5.7.30"


def test_requiretls_waits_where_the_host_proves_nothing(resolver):
    with mx(SELF, offers=REQUIRING) as peer, pytest.raises(Unreachable) as caught:
        wished(resolver, "none.test", TLSWish.REQUIRED)
    assert caught.value.reason is Reason.TLS_FAILED
    assert peer.messages == []


@pytest.mark.parametrize("domain", ["wrong.test", "sts.test", "fails.test"])
def test_tls_required_no_lets_mail_go_where_what_is_published_is_not_met(resolver, domain):
    with policy_host(sts=policy()), Peer(host="127.0.1.1", port=PORT) as peer:
        outcome = wished(resolver, domain, TLSWish.OPTIONAL)
    assert outcome.status is Status.RELAYED
    assert not peer.messages[0].tls


def test_a_rule_of_ours_does_not_give_way_to_the_header():
    for level in (TLSLevel.ENCRYPT, TLSLevel.VERIFY, TLSLevel.DANE, TLSLevel.MTASTS):
        assert as_wished(to("a.test", level), TLSWish.OPTIONAL).tls is level


def test_mail_with_a_wish_shares_no_session_with_other_mail(resolver):
    async def sites(house):
        wanted = [to("ee.test"), *(as_wished(to("ee.test"), wish) for wish in (TLSWish.REQUIRED, TLSWish.OPTIONAL))]
        return [(await house.resolution.resolver.route(one, time.time())).site for one in wanted]

    assert len(set(uvloop.run(sites(House(resolver))))) == 3


# --- a whole house


def test_a_house_sends_by_what_is_published_and_says_so(resolver, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(CA.file))
    spec = {"resolver": [resolver], "directPort": PORT, "httpsPort": HTTPS, "workers": 1}
    with (
        policy_host(sts=policy(), b=policy("enforce", "*.sts.test")),
        mx(WEB) as peer,
        posthof(direct(), mta=spec) as mta,
    ):
        for domain in ("none.test", "sts.test", "b.test", "ee.test"):
            mta.send("a@here.test", f"bob@{domain}", b"Subject: hi\r\n\r\nhello\r\n")
        peers.wait_for(lambda: len(peer.messages) == 3, "three are delivered")
        peers.wait_for(lambda: "TLSFailed" in mta.run("queue", "list", "-f", str(mta.manifests)), "the fourth waits")
        told = {event["to"][0]: event for event in mta.events() if event["event"] in {"relayed", "deferred"}}
        assert told["bob@sts.test"]["tls"].endswith(" verified")
        assert not told["bob@none.test"]["tls"].endswith(" verified")
        assert "TLSA" in told["bob@ee.test"]["reply"]
        assert any(event["event"] == "dnssec_validates" for event in mta.events())
        assert sorted(path.name for path in (mta.folder / "spool" / "mta-sts").iterdir()) == ["b.test", "sts.test"]
        journals = mta.folder / "spool" / "reports" / "tls"
        peers.wait_for(lambda: list(journals.glob("*/*.log")), "the sessions are counted")
        explained = mta.run("explain", "--to", "x@ee.test", "--client", "127.0.0.1", "-f", str(mta.manifests))
        assert "DANE: 3 1 1" in explained
