"""Logging in: no way in but the right proof, and nothing that tells who exists: not words, not time, not salts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
from typing import Any

import pytest

from kit import logins
from kit.logins import Naps, credential
from posthof_crds import verifiers
from posthof_crds.engine import ListenerRole
from posthof_pod.accounts.accounts import Accounts
from posthof_pod.accounts.authors import of as authors
from posthof_pod.accounts.passwords import BUSY, WAITING_MAX, Passwords
from posthof_pod.observe.events import RecordedEvents
from posthof_pod.replies import Reply, Temporary
from posthof_pod.smtp.gate import Session


def session(client: str = "192.0.2.1") -> Session:
    made = Session(client, listener="in", role=ListenerRole.SUBMISSION)
    made.tls, made.helo, made.is_extended = "TLSv1.3", "client.test", True
    return made


async def plain(accounts: Accounts, name: str, password: str, who: Session | None = None) -> Reply:
    exchange = accounts.authenticate(who or session(), "PLAIN")
    assert not isinstance(exchange, Reply)
    answer = await exchange.respond(f"\0{name}\0{password}".encode())
    assert isinstance(answer, Reply)
    return answer


class Scram:
    """A client of SCRAM-SHA-256, made by the letter of RFC 5802, that can also cheat."""

    def __init__(self, name: str, password: str, *, gs2: str = "n,,", binding: bytes = b"") -> None:
        self.password, self.gs2, self.binding = password, gs2, binding
        self.bare = f"n={name},r=clientnonce"
        self.server_signature = b""

    async def talk(self, accounts: Accounts, who: Session, mechanism: str = "SCRAM-SHA-256") -> Reply | bytes:
        """The reply that ends it; the challenges go to `heard`."""
        exchange = accounts.authenticate(who, mechanism)
        assert not isinstance(exchange, Reply)
        first = await exchange.respond((self.gs2 + self.bare).encode())
        if isinstance(first, Reply):
            return first
        self.heard = first.decode()
        nonce, salt, iterations = (part[2:] for part in self.heard.split(","))
        bound = base64.b64encode(self.gs2.encode() + self.binding).decode()
        without = f"c={bound},r={nonce}"
        salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), base64.b64decode(salt), int(iterations))
        key = hmac.digest(salted, b"Client Key", "sha256")
        message = f"{self.bare},{self.heard},{without}".encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True))).decode()
        last = await exchange.respond(f"{without},p={proof}".encode())
        if isinstance(last, Reply):
            return last
        server = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        assert last == b"v=" + base64.b64encode(server)
        return await exchange.respond(b"")


def run(story: Any) -> Any:
    return asyncio.run(story)


def test_scram_knows_the_password_and_proves_that_it_does() -> None:
    who = session()
    answer = run(Scram("alice", "secret").talk(logins.accounts(), who))
    assert isinstance(answer, Reply)
    assert answer.code == 235
    assert who.credential == "alice"


@pytest.mark.parametrize(
    "client",
    [
        Scram("alice", "wrong"),
        Scram("nobody", "secret"),
        Scram("old", "secret"),
        Scram("alice", "secret", gs2="n,a=bob,"),
        Scram("alice", "secret", gs2="p=tls-server-end-point,,", binding=b"hash"),
        Scram("alice", "secret", binding=b"something"),
    ],
    ids=["wrong", "nobody", "expired", "for another", "binding where none is", "binding that was not said"],
)
def test_scram_says_one_thing_to_all_who_are_not_right(client: Scram) -> None:
    who = session()
    answer = run(client.talk(logins.accounts(), who))
    assert answer == Reply(535, "5.7.8", "Authentication credentials invalid")
    assert who.credential == ""


def test_scram_plus_is_bound_to_any_certificate_of_the_listener_and_to_no_other() -> None:
    made = logins.accounts(bindings=(b"rsa", b"ecdsa"))
    for binding, code in ((b"rsa", 235), (b"ecdsa", 235), (b"other", 535), (b"", 535)):
        client = Scram("alice", "secret", gs2="p=tls-server-end-point,,", binding=binding)
        answer = run(client.talk(made, session(), "SCRAM-SHA-256-PLUS"))
        assert isinstance(answer, Reply)
        assert answer.code == code


def test_a_client_that_was_told_there_is_no_binding_is_not_let_in() -> None:
    """Somebody between has taken the -PLUS out of the offer (RFC 5802 section 6)."""
    answer = run(Scram("alice", "secret", gs2="y,,").talk(logins.accounts(bindings=(b"x",)), session()))
    assert isinstance(answer, Reply)
    assert answer.code == 535
    assert run(Scram("alice", "secret", gs2="y,,").talk(logins.accounts(), session())).code == 235


def test_the_salt_of_a_name_nobody_has_is_as_steady_and_as_long_as_a_real_one() -> None:
    made = logins.accounts()
    heard: dict[str, set[str]] = {}
    for name in ("alice", "nobody", "nobody2", "old"):
        for _ in range(3):
            client = Scram(name, "wrong")
            run(client.talk(made, session(f"192.0.2.{len(heard)}")))
            heard.setdefault(name, set()).add(client.heard.partition(",")[2])
    assert all(len(salts) == 1 for salts in heard.values())
    shapes = {(len(salt.partition(",i=")[0]), salt.partition(",i=")[2]) for (salt,) in heard.values()}
    assert len(shapes) == 1
    assert heard["nobody"] != heard["nobody2"]


def test_every_wrong_answer_waits_the_same_whoever_is_asked_for() -> None:
    waits = []
    for name in ("alice", "nobody", "old"):
        naps = Naps()
        made = logins.accounts(sleep=naps, clock=lambda: 0.0)
        for _ in range(4):
            assert run(plain(made, name, "wrong")).code == 535
        waits.append(naps.seconds)
    assert waits[0] == waits[1] == waits[2] == [1.0, 4.0, 8.0, 8.0]


def test_a_name_nobody_has_costs_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = verifiers._scrypt
    monkeypatch.setattr(verifiers, "_scrypt", lambda o, how, n: asked.append((how.ln, how.r, n)) or real(o, how, n))
    for name in ("alice", "nobody", "old"):
        run(plain(logins.accounts(), name, "wrong"))
    assert len(asked) == 3
    assert len(set(asked)) == 1


def test_whoever_guesses_is_told_nothing_any_more_not_even_when_right() -> None:
    made = logins.accounts(clock=lambda: 0.0)
    answers = [run(plain(made, "alice", f"guess{n}")).code for n in range(12)]
    assert answers == [535] * 10 + [454] * 2
    assert run(plain(made, "alice", "secret")).code == 454
    assert run(plain(made, "alice", "secret", session("198.51.100.1"))).code == 235


def test_the_log_says_why_and_never_the_password() -> None:
    events = RecordedEvents()
    made = logins.accounts(events)
    for name, password in (("alice", "w-r-o-n-g"), ("nobody", "w-r-o-n-g"), ("old", "secret")):
        run(plain(made, name, password))
    told = events.named("not_authenticated")
    assert [line.reason for line in told] == [
        "the password is wrong",
        "there is no such account",
        "the account has expired",
    ]
    assert "w-r-o-n-g" not in repr(told)


def test_a_wrong_token_is_told_and_waits_also_when_its_client_says_nothing_more() -> None:
    events, naps = RecordedEvents(), Naps()
    exchange = logins.accounts(events, sleep=naps).authenticate(session(), "OAUTHBEARER")
    assert not isinstance(exchange, Reply)
    assert run(exchange.respond(b"n,,\x01auth=Bearer no.token\x01\x01")) == b'{"status": "invalid_token"}'
    assert len(events.named("not_authenticated")) == len(naps.seconds) == 1
    assert run(exchange.respond(b"\x01")).code == 535
    assert len(events.named("not_authenticated")) == len(naps.seconds) == 1


def test_an_account_that_goes_ends_what_its_open_sessions_may_do() -> None:
    made, who = logins.accounts(), session()
    assert run(plain(made, "alice", "secret", who)).code == 235
    assert made.sender(who, "alice@example.test") is None
    made.take(logins.directory({}), {})
    refused = made.sender(who, "alice@example.test")
    assert refused is not None
    assert refused.code == 530
    assert who.credential == ""


def test_a_pod_is_an_account_only_where_its_address_is_believed() -> None:
    pods = {"shop": credential("shop", ("shop.test",), workloads=("pods-of-shop",))}
    made = logins.accounts(credentials=pods)
    made.know_pods({"10.1.2.3": ("pods-of-shop",), "10.1.2.4": ("others",)})
    ours, others, doubtful = session("10.1.2.3"), session("10.1.2.4"), session("10.1.2.3")
    doubtful.vouched = ""
    assert [made.knows(one) for one in (ours, others, doubtful)] == [True, False, False]
    assert (ours.credential, others.credential, doubtful.credential) == ("shop", "", "")


def test_external_is_the_account_of_a_name_that_tls_has_proven() -> None:
    named = {"relay": credential("relay", ("relay.test",), certificate="relay.example")}
    made = logins.accounts(credentials=named, passwords={"relay": "x"})

    def answer(names: tuple[str, ...], wish: bytes) -> tuple[int, str]:
        who = session()
        who.proven = names
        exchange = made.authenticate(who, "EXTERNAL")
        assert not isinstance(exchange, Reply)
        reply = run(exchange.respond(wish))
        assert isinstance(reply, Reply)
        return reply.code, who.credential

    assert answer(("relay.example",), b"") == (235, "relay")
    assert answer(("other.example", "relay.example"), b"relay") == (235, "relay")
    assert answer((), b"relay") == (535, "")
    assert answer(("other.example",), b"relay") == (535, "")
    assert answer(("relay.example",), b"boss") == (535, "")


def test_too_many_at_once_are_told_to_come_again() -> None:
    async def story() -> None:
        passwords = Passwords(asyncio.get_running_loop().time)
        passwords.waiting = WAITING_MAX
        with pytest.raises(Temporary) as caught:
            await passwords.check(verifiers.parse(logins.verifier("x").decode()), "x")
        assert caught.value.reply == BUSY
        passwords.close()

    run(story())


def test_what_was_right_is_remembered_for_this_verifier_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    count = itertools.count()
    real = verifiers.check
    monkeypatch.setattr(verifiers, "check", lambda *them: (next(count), real(*them))[1])

    async def story() -> None:
        now = [0.0]
        passwords = Passwords(lambda: now[0])
        old, new = (verifiers.parse(logins.verifier(text).decode()) for text in ("x", "y"))
        assert [await passwords.check(old, "x") for _ in range(3)] == [True] * 3
        assert next(count) == 1
        assert not await passwords.check(new, "x")  # the password was changed
        assert not await passwords.check(old, "y")
        assert not await passwords.check(old, "y")
        assert next(count) == 5  # what is wrong costs the full price each time
        now[0] = 3600.0
        assert await passwords.check(old, "x")
        assert next(count) == 7
        passwords.close()

    run(story())


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"From: a@b.test\r\n", ("a@b.test",)),
        (b'From: "x@y.test" <a@b.test>, C (c@d.test) <c@e.test>\r\n', ("a@b.test", "c@e.test")),
        (b"From: =?utf-8?q?a=40b?= <a@b.test>\r\n", ("a@b.test",)),
        (b"From: J\xc3\xbcrgen <j\xc3\xbcrgen@b.test>\r\n", ("j\u00fcrgen@b.test",)),
        (b"Subject: none\r\n", ()),
        (b"From: a@b.test\r\nFrom: c@d.test\r\n", None),
        (b"From: a@b.test <c@d.test>\r\n", None),
        (b"From: a@b.test\r\nFrom\x01: c@d.test\r\n", None),
        (b"From: a@b.test\r\n\xe2\x80\x8bFrom: c@d.test\r\n", None),
        (b" From: c@d.test\r\nFrom: a@b.test\r\n", None),
        (b"From: a@b.test\r\nX-From: c@d.test\r\n", ("a@b.test",)),
        (b"From: group: a@b.test;\r\n", None),
        (b"From: =?utf-8?q?a?=@b.test\r\n", None),
        (b"From: a@b.test\0@c.test\r\n", None),
        (b"From: <a@b.test\r\n", None),
        (b"From: (a@b.test\r\n", None),
        (b"From: a@b.test,\r\n", None),
        (b"From:\r\n", None),
        (b"From: \xff@b.test\r\n", None),
    ],
)
def test_authors_are_read_in_one_way_or_not_at_all(head: bytes, found: tuple[str, ...] | None) -> None:
    assert authors(head, b"from") == found
