"""Names that others know: an issuer's tokens, a directory's and Dovecot's passwords. Trouble is never a "no"."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kit import logins
from posthof_crds import patterns
from posthof_crds.engine import LDAP, Credential, ListenerRole, OAuth
from posthof_pod.accounts.directory import Account
from posthof_pod.accounts.dovecot import DovecotBackend
from posthof_pod.accounts.exchange import Login, Refusal
from posthof_pod.accounts.issuer import Unanswered
from posthof_pod.accounts.ldap import LDAPBackend
from posthof_pod.accounts.passwords import BUSY
from posthof_pod.accounts.tokens import AGAIN, KEYS, TokenBackend
from posthof_pod.replies import Reply, Temporary
from posthof_pod.smtp.gate import Session
from posthof_pod.smtp.sasl import Password, Token

ISSUER, US = "https://login.example.org", "smtp.example.org"
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
WHO = Session("192.0.2.1", listener="in", role=ListenerRole.SUBMISSION)


def account(**more: Any) -> Account:
    credential = Credential(name="many", senders=("{user}",), **more)
    return Account(credential, None, b"", patterns.AddressSet(()))


def jwks(*keys: tuple[str, Any]) -> bytes:
    found = [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())) | {"kid": kid} for kid, key in keys]
    return json.dumps({"keys": found}).encode()


def token(key: Any = KEY, kid: str = "one", algorithm: str = "ES256", **claims: Any) -> str:
    whole = {"iss": ISSUER, "aud": US, "exp": time.time() + 600, "email": "Alice@ours.test", **claims}
    given = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(given, key, algorithm=algorithm, headers={"kid": kid})


async def silent(url: str, **_: Any) -> bytes:
    raise Unanswered(f"{url} does not answer")


def judge(text: str, *, username: str = "", ask: Any = silent, keys: bytes | None = None, **settings: Any) -> Any:
    oauth = OAuth(issuer=ISSUER, audience=US, **settings)
    given = jwks(("one", KEY)) if keys is None else keys
    backend = TokenBackend(account(oauth=oauth), ask, jwks=given)
    return asyncio.run(backend.check(Token(username, text), WHO))


def test_a_token_of_the_issuer_for_us_is_its_users() -> None:
    for username in ("", "alice@ours.test"):
        found = judge(token(), username=username)
        assert isinstance(found, Login)
        assert (found.account.name, found.user) == ("many", "alice@ours.test")


def unsigned(claims: dict[str, Any]) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."


@pytest.mark.parametrize(
    ("text", "username"),
    [
        (token(OTHER), ""),
        (token(kid="two"), ""),
        (token(iss="https://evil.example"), ""),
        (token(aud="another.example.org"), ""),
        (token(exp=time.time() - 600), ""),
        (token(exp=None), ""),
        (token(aud=None), ""),
        (token(nbf=time.time() + 600), ""),
        (token(email=None), ""),
        (token(email=["alice@ours.test"]), ""),
        (token(email_verified=False), ""),
        (token(email_verified="false"), ""),
        (token(), "bob@ours.test"),
        (token("public key as a shared secret, 32 octets long", algorithm="HS256"), ""),
        (token(rsa.generate_private_key(65537, 2048), algorithm="RS256"), ""),
        (unsigned({"iss": ISSUER, "aud": US, "exp": time.time() + 600, "email": "alice@ours.test"}), ""),
        ("no token", ""),
        ("a" * 20_000, ""),
    ],
    ids=[
        "another key",
        "unknown kid",
        "another issuer",
        "another audience",
        "ended",
        "never ends",
        "no audience",
        "not yet",
        "nobody",
        "a list",
        "not verified",
        "not verified, as a word",
        "another name",
        "HS256",
        "RSA with an EC kid",
        "unsigned",
        "garbage",
        "too long",
    ],
)
def test_any_other_token_is_nobodys(text: str, username: str) -> None:
    assert isinstance(judge(text, username=username), Refusal)


def test_users_may_be_named_and_the_claim_be_another() -> None:
    subject = "system:serviceaccount:shop:mailer"
    assert isinstance(judge(token(sub=subject), claim="sub", users=(subject,)), Login)
    assert isinstance(judge(token(sub=subject + "x"), claim="sub", users=(subject,)), Refusal)


def test_symmetric_keys_of_an_issuer_are_left_out() -> None:
    secret = base64.urlsafe_b64encode(b"x" * 32).decode().rstrip("=")
    keys = json.dumps({"keys": [{"kty": "oct", "kid": "one", "k": secret}]}).encode()
    assert isinstance(judge(token("x" * 32, algorithm="HS256"), keys=keys), Refusal)


def test_keys_are_fetched_again_for_a_new_one_but_not_for_each_guess() -> None:
    async def story() -> None:
        now, asked, served = [0.0], [], [jwks(("one", KEY))]

        async def ask(url: str, **_: Any) -> bytes:
            asked.append(url)
            return served[0]

        oauth = OAuth(issuer=ISSUER, audience=US, jwks_url="https://login.example.org/keys")
        backend = TokenBackend(account(oauth=oauth), ask, clock=lambda: now[0])
        assert isinstance(await backend.check(Token("", token()), WHO), Login)
        for n in range(50):
            assert isinstance(await backend.check(Token("", token(OTHER, kid=f"x{n}")), WHO), Refusal)
        assert len(asked) == 1
        served[0] = jwks(("one", KEY), ("two", OTHER))
        now[0] += AGAIN + 1
        assert isinstance(await backend.check(Token("", token(OTHER, kid="two")), WHO), Login)
        assert len(asked) == 2
        served[0] = b"not json"
        now[0] += KEYS + 1
        assert isinstance(await backend.check(Token("", token()), WHO), Login)  # what is known serves on

    asyncio.run(story())


def test_an_issuer_that_does_not_answer_is_trouble_and_no_refusal() -> None:
    with pytest.raises(Temporary) as caught:
        judge(token(), keys=b"", jwks_url="https://login.example.org/keys")
    assert caught.value.reply == BUSY


@pytest.mark.parametrize(
    ("word", "is_let_in"),
    [
        ({"active": True, "aud": US, "email": "alice@ours.test"}, True),
        ({"active": True, "aud": [US, "x"], "iss": ISSUER, "email": "alice@ours.test"}, True),
        ({"active": False, "aud": US, "email": "alice@ours.test"}, False),
        ({"active": "true", "aud": US, "email": "alice@ours.test"}, False),
        ({"active": True, "email": "alice@ours.test"}, False),
        ({"active": True, "aud": US, "iss": "https://evil.example", "email": "alice@ours.test"}, False),
        ({"active": True, "aud": US, "exp": 1, "email": "alice@ours.test"}, False),
        ([], False),
    ],
)
def test_introspection_believes_the_issuer_alone(word: Any, is_let_in: bool) -> None:
    asked: list[tuple[str, bytes | None, str]] = []

    async def ask(url: str, *, form: bytes | None = None, authorization: str = "") -> bytes:
        asked.append((url, form, authorization))
        return json.dumps(word).encode()

    found = judge("opaque&token", ask=ask, keys=b"", introspection="https://login.example.org/ask")
    assert isinstance(found, Login) == is_let_in
    ((url, form, authorization),) = asked
    assert url == "https://login.example.org/ask"
    assert form == b"token=opaque%26token&token_type_hint=access_token"
    assert authorization.startswith("Basic ")


@pytest.mark.parametrize(("mechanism", "end"), [("OAUTHBEARER", b"\x01"), ("XOAUTH2", b"")])
def test_both_mechanisms_end_as_their_clients_expect(mechanism: str, end: bytes) -> None:
    async def story() -> None:
        made = logins.accounts()
        backend = TokenBackend(account(oauth=OAuth(issuer=ISSUER, audience=US)), silent, jwks=jwks(("one", KEY)))
        made.take(logins.directory({"many": backend._account.credential}), {}, [backend])

        def message(text: str) -> bytes:
            if mechanism == "XOAUTH2":
                return f"user=alice@ours.test\x01auth=Bearer {text}\x01\x01".encode()
            return f"n,a=alice@ours.test,\x01host=x\x01port=587\x01auth=Bearer {text}\x01\x01".encode()

        who = Session("192.0.2.1", listener="in", role=ListenerRole.SUBMISSION)
        exchange = made.authenticate(who, mechanism)
        assert not isinstance(exchange, Reply)
        answer = await exchange.respond(message(token()))
        assert isinstance(answer, Reply)
        assert answer.code == 235
        assert (who.credential, who.user) == ("many", "alice@ours.test")
        assert made.sender(who, "alice@ours.test") is None
        refused = made.sender(who, "bob@ours.test")
        assert refused is not None
        assert refused.code == 550
        exchange = made.authenticate(who, mechanism)
        assert not isinstance(exchange, Reply)
        challenge = await exchange.respond(message(token(OTHER)))
        assert isinstance(challenge, bytes)
        assert json.loads(challenge)["status"] in ("invalid_token", "401")
        answer = await exchange.respond(end)
        assert isinstance(answer, Reply)
        assert answer.code == 535

    asyncio.run(story())


# ---- Dovecot's socket


@asynccontextmanager
async def dovecot(path: Path, answer: Callable[[list[str]], str]) -> AsyncIterator[None]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\tx\nDONE\n")
        while line := await reader.readline():
            words = line.decode().rstrip("\n").split("\t")
            if words[0] == "AUTH":
                writer.write(answer(words).encode())
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield


@pytest.mark.parametrize(
    ("said", "user"),
    [("OK\t1\tuser=Alice@Ours.test\n", "alice@ours.test"), ("OK\t2\nFAIL\t1\tuser=alice\n", ""), ("FAIL\t1\n", "")],
)
def test_dovecot_is_asked_and_believed(tmp_path: Path, said: str, user: str) -> None:
    async def story() -> None:
        heard: list[list[str]] = []
        async with dovecot(tmp_path / "auth", lambda words: heard.append(words) or said):
            backend = DovecotBackend(account(dovecot=str(tmp_path / "auth")))
            found = await backend.check(Password("alice", "se\tcret\n"), WHO)
        assert (found.user if isinstance(found, Login) else "") == user
        resp = next(word for word in heard[0] if word.startswith("resp="))
        assert base64.b64decode(resp[5:]) == b"\0alice\0se\tcret\n"
        assert "secured" in heard[0]

    asyncio.run(story())


@pytest.mark.parametrize("said", ["FAIL\t1\ttemp\n", None])
def test_dovecots_trouble_is_no_refusal(tmp_path: Path, said: str | None) -> None:
    async def story() -> None:
        backend = DovecotBackend(account(dovecot=str(tmp_path / "auth")))
        async with AsyncExitStack() as stack:
            if said is not None:
                await stack.enter_async_context(dovecot(tmp_path / "auth", lambda words: said))
            with pytest.raises(Temporary):
                await backend.check(Password("alice", "x"), WHO)

    asyncio.run(story())


# ---- a directory


@asynccontextmanager
async def directory(code: int) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answers each bind (RFC 4511 4.2) with this result code."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            heard.append(data)
            if b"\x60" not in data[:8]:  # not a bind: the unbind
                break
            number = data[data.index(b"\x02") + 2]
            writer.write(bytes([0x30, 12, 2, 1, number, 0x61, 7, 0x0A, 1, code, 4, 0, 4, 0]))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heard


@pytest.mark.parametrize(("code", "is_let_in"), [(0, True), (49, False), (32, False)])
def test_a_directory_is_bound_to_as_the_user_and_nobody_else(code: int, is_let_in: bool) -> None:
    async def story() -> None:
        async with directory(code) as (port, heard):
            url = f"ldap://127.0.0.1:{port}"
            backend = LDAPBackend(account(ldap=LDAP(url=url, user_dn="uid={user},ou=people,dc=test")))
            found = await backend.check(Password("bob,ou=admins", "secret"), WHO)
            for name, password in (("bob", ""), ("bob ", "secret"), (" bob", "secret"), ("b  ob", "secret")):
                assert isinstance(await backend.check(Password(name, password), WHO), Refusal)
            backend.close()
        assert isinstance(found, Login) == is_let_in
        assert b"uid=bob\\,ou\\=admins,ou=people,dc=test" in heard[0]
        assert sum(b"dc=test" in one for one in heard) == 1  # nor an empty password, nor another writing of one name

    asyncio.run(story())


def test_a_directory_in_trouble_is_no_refusal() -> None:
    async def story() -> None:
        async with directory(52) as (port, _):  # unavailable
            backend = LDAPBackend(account(ldap=LDAP(url=f"ldap://127.0.0.1:{port}", user_dn="uid={user}")))
            with pytest.raises(Temporary):
                await backend.check(Password("bob", "secret"), WHO)
            backend.close()
        backend = LDAPBackend(account(ldap=LDAP(url=f"ldap://127.0.0.1:{port}", user_dn="uid={user}")))
        with pytest.raises(Temporary):  # nobody listens there any more
            await backend.check(Password("bob", "secret"), WHO)
        backend.close()

    asyncio.run(story())
