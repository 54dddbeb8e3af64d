"""A certificate from an ACME server: account, order, proofs, the chain. One blocking call, made for a thread.

Rules of this file
- Certbot's client library speaks the protocol; here stands what we want of it, and what its errors mean for a person.
- Only here is `acme` imported. Nothing is stored: keys come in, a chain goes out.
- HTTP-01 needs no state with the servers: what they answer is the token and the account's thumbprint (`answer`), so a
  pod that knows the thumbprint answers for every order of the account. Whoever learns it gains nothing: an order
  needs the account's key.
Sources: RFC 8555, RFC 8737 is not used (TLS-ALPN needs port 443), RFC 9773 (renewal information), RFC 7638.
"""

from __future__ import annotations

import datetime
import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import requests
import requests.adapters
from acme import challenges, client, errors, messages
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from josepy.errors import Error as JoseError
from josepy.json_util import encode_b64jose
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC
from josepy.util import ComparableECKey

from posthof_certs import issue
from posthof_certs.pair import Pair

TIMEOUT = 20  # seconds for one request
PATIENCE = 120.0  # seconds from the answered challenges to the chain
TOKEN = re.compile(r"[A-Za-z0-9_-]{16,256}", re.ASCII)  # RFC 8555 8.3: base64url, 128 bits at least
AGENT = "posthof"


class Refused(Exception):
    """No certificate this time. `retry_after`: seconds before which the server wants no other try; 0: it did not say.
    The text says what the server said, and what to do where that is known."""

    def __init__(self, message: str, retry_after: float = 0.0, *, is_limited: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.is_limited = is_limited


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks, and where. `key`: PEM, ECDSA P-256. `contact`: addresses, or none. `roots`: PEM certificates that the
    server's own certificate may chain to beside the usual ones. `eab`: key id and MAC key (base64url), or None."""

    directory: str
    key: bytes = field(repr=False)
    contact: tuple[str, ...] = ()
    roots: str = ""
    eab: tuple[str, str] | None = field(default=None, repr=False)


class Proof(NamedTuple):
    """What has to be seen by the server before a challenge is answered. `text`: the body for HTTP-01, the TXT record
    at `_acme-challenge.<name>` for DNS-01."""

    name: str
    token: str
    text: str


class Solver(Protocol):
    """How names are proven to be ours."""

    type: str  # "http-01" or "dns-01"

    def present(self, proofs: Sequence[Proof]) -> None:
        """Return when the server would see them. Raises Refused."""

    def remove(self, proofs: Sequence[Proof]) -> None:
        """They have served their purpose, whatever came of it."""


class Advice(NamedTuple):
    """What the server says about a renewal (RFC 9773). Unix seconds; `renew` is None where it says nothing."""

    renew: float | None
    ask_again: float


def account_key() -> bytes:
    """A fresh key for an account, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def thumbprint(key: bytes) -> str:
    """Of an account's key (RFC 7638), base64url. ValueError: it is not a key of ours."""
    return encode_b64jose(_jwk(key).thumbprint())


def answer(token: str, account_thumbprint: str) -> str | None:
    """The body at /.well-known/acme-challenge/TOKEN (RFC 8555 8.3), None: that is no token."""
    return f"{token}.{account_thumbprint}" if TOKEN.fullmatch(token) else None


def obtain(account: Account, names: Sequence[str], key: bytes, solver: Solver) -> Pair:
    """The chain for `names` and the key (PEM) it was asked for with. Raises Refused."""
    with _talking(account) as server:
        order = server.new_order(issue.request(tuple(names), key))
        proofs, answers = _challenges(order, _jwk(account.key), solver.type)
        try:
            solver.present(proofs)
            for challenge, response in answers:
                server.answer_challenge(challenge, response)
            deadline = datetime.datetime.now() + datetime.timedelta(seconds=PATIENCE)
            order = server.poll_and_finalize(order, deadline)
        finally:
            solver.remove(proofs)
        return Pair(str(order.fullchain_pem).encode(), key)


def advice(account: Account, chain: bytes) -> Advice:
    """When the server would like this certificate to be renewed. Raises Refused."""
    with _talking(account, registers=False) as server:
        renew, ask_again = server.renewal_time(chain)
        return Advice(renew.timestamp() if renew is not None else None, ask_again.timestamp())


# -- the conversation ------------------------------------------------------------------------------------------------


@contextmanager
def _talking(account: Account, *, registers: bool = True) -> Iterator[client.ClientV2]:
    jwk = _jwk(account.key)
    net = client.ClientNetwork(jwk, alg=ES256, user_agent=AGENT, timeout=TIMEOUT)
    waits: list[float] = []
    net.session.hooks["response"].append(lambda response, *_, **__: _note_wait(response, waits))
    if account.roots:
        net.session.mount("https://", _Trusting(account.roots))
    try:
        server = client.ClientV2(client.ClientV2.get_directory(account.directory, net), net)
        if registers:
            _register(server, account, jwk)
        yield server
    except errors.ValidationError as error:
        raise Refused(_validation(error)) from None
    except errors.IssuanceError as error:
        raise Refused(_problem(error.error)) from None
    except messages.Error as error:
        is_limited = error.code == "rateLimited"
        raise Refused(_problem(error), waits[-1] if waits else 0.0, is_limited=is_limited) from None
    except errors.TimeoutError:
        raise Refused(f"{account.directory} did not finish the order within {PATIENCE:.0f} s") from None
    except (errors.Error, requests.RequestException, JoseError, ValueError) as error:
        raise Refused(f"{account.directory}: {_words(error)}", waits[-1] if waits else 0.0) from None
    finally:
        net.session.close()


def _register(server: client.ClientV2, account: Account, jwk: JWK) -> None:
    """Make the account, or find it: the key is who we are (RFC 8555 7.3.1)."""
    binding = None
    if account.eab is not None:
        binding = messages.ExternalAccountBinding.from_data(jwk.public_key(), *account.eab, server.directory)
    elif server.external_account_required():
        text = "it gives certificates to its customers only: name their key in issuer.acme.externalAccount"
        raise Refused(f"{account.directory}: {text}")
    wanted = messages.NewRegistration(
        contact=tuple(f"mailto:{one}" for one in account.contact),
        terms_of_service_agreed=True,
        external_account_binding=binding,
    )
    try:
        server.new_account(wanted)
    except errors.ConflictError as found:
        known = messages.RegistrationResource(uri=found.location, body=messages.Registration())
        server.net.account = known


Answers = list[tuple[messages.ChallengeBody, challenges.KeyAuthorizationChallengeResponse]]


def _challenges(order: messages.OrderResource, jwk: JWK, type_: str) -> tuple[list[Proof], Answers]:
    """What is to be presented and answered; names the server knows to be ours already are not asked again."""
    proofs: list[Proof] = []
    answers: Answers = []
    for authorization in order.authorizations:
        body = authorization.body
        if body.status == messages.STATUS_VALID:
            continue
        name = body.identifier.value
        offered = {one.chall.typ: one for one in body.challenges if isinstance(one.chall.typ, str)}  # known ones
        if type_ not in offered:
            kinds = ", ".join(sorted(offered))
            raise Refused(f"for {name} the server offers {kinds} and not {type_}: choose another issuer.acme.solver")
        challenge = offered[type_]
        response, text = challenge.chall.response_and_validation(jwk)
        proofs.append(Proof(name, challenge.chall.encode("token"), text))
        answers.append((challenge, response))
    return proofs, answers


def _jwk(key: bytes) -> JWK:
    private = load_pem_private_key(key, password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
        raise ValueError("the account's key is not an ECDSA key of 256 bits")
    return JWKEC(key=ComparableECKey(private))


class _Trusting(requests.adapters.HTTPAdapter):
    """Also trusts the roots that were given."""

    def __init__(self, roots: str) -> None:
        self._context = ssl.create_default_context()
        self._context.load_verify_locations(cadata=roots)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)


# -- what went wrong, in words ---------------------------------------------------------------------------------------


def _note_wait(response: requests.Response, waits: list[float], clock: Callable[[], float] = time.time) -> None:
    """Retry-After of an answer that is an error: seconds, or a date (RFC 9110 10.2.3)."""
    value = response.headers.get("Retry-After", "")
    if response.status_code < 400 or not value:
        return
    if value.isdecimal():
        waits.append(float(value))
        return
    with suppress(ValueError):
        when = datetime.datetime.strptime(value, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=datetime.UTC)
        waits.append(max(0.0, when.timestamp() - clock()))


def _validation(error: errors.ValidationError) -> str:
    said = [
        f"{authorization.body.identifier.value} ({one.chall.typ}): {one.error.detail}"
        for authorization in error.failed_authzrs
        for one in authorization.body.challenges
        if one.error is not None
    ]
    return f"the server could not see that the names are ours: {'; '.join(said)}"


def _problem(error: messages.Error) -> str:
    """An ACME error: its type's last word and its text; the texts of single names where there are some."""
    parts = [f"{one.identifier.value}: {one.detail}" for one in error.subproblems or () if one.identifier]
    text = "; ".join(parts) or str(error.detail or error.title or "")
    return f"the server refused it ({error.code or error.typ}): {text}"


def _words(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted: give its root in issuer.acme.caBundle"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "it cannot be reached"
    if isinstance(error, requests.exceptions.Timeout):
        return f"it did not answer within {TIMEOUT} s"
    return str(error) or type(error).__name__
