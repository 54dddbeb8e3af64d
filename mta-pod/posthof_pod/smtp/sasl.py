"""SASL mechanisms, the server's side, as generators over values: no socket, no clock, no secret kept.

Owns: PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login), SCRAM-SHA-256 and -PLUS (RFC 5802, 7677), OAUTHBEARER (RFC
7628), XOAUTH2, EXTERNAL (RFC 4422 appendix A). The AUTH command around them (RFC 4954) is server.py's.

Rules
- A mechanism yields `bytes` (a challenge; it is sent the response) or a Claim (it is sent whether it holds). It
  returns the last word: True, the client is who it claimed to be. What cannot be read raises Malformed (501 5.5.2).
- A mechanism never says why something does not hold, and does the same work for a name that nobody has.
- Who may act for another is nobody: an authorization identity is empty or the name itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from posthof_crds.verifiers import Scram, prepare
from posthof_pod.smtp.grammar import Malformed

PLAIN, LOGIN = "PLAIN", "LOGIN"
SCRAM, SCRAM_PLUS = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"
OAUTHBEARER, XOAUTH2, EXTERNAL = "OAUTHBEARER", "XOAUTH2", "EXTERNAL"
MECHANISMS = (SCRAM_PLUS, SCRAM, PLAIN, LOGIN, OAUTHBEARER, XOAUTH2, EXTERNAL)

NAME_MAX = 320  # characters of a user name
BINDING = "tls-server-end-point"


class Password(NamedTuple):
    """The client gave a password."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Password({self.username!r})"


class Proof(NamedTuple):
    """SCRAM: the client has proven that it knows the password, or has not. Neither is for the mechanism to believe
    alone: the account may have expired."""

    username: str
    is_right: bool


class Token(NamedTuple):
    """A bearer token. `username`: what the client says beside it, "" where it says nothing."""

    username: str
    token: str

    def __repr__(self) -> str:
        return f"Token({self.username!r})"


class Certificate(NamedTuple):
    """EXTERNAL: the certificate of the client's TLS. `username`: what it wants to be, "" = what that says."""

    username: str


Claim = Password | Proof | Token | Certificate
Mechanism = Generator[bytes | Claim, "bytes | bool", bool]
ScramKeys = Callable[[str], Scram]  # of a name, prepared; also for one that nobody has


def _response(sent: bytes | bool) -> bytes:
    assert isinstance(sent, bytes)
    return sent


def plain(initial: bytes | None) -> Mechanism:
    """RFC 4616: authorization identity NUL name NUL password."""
    message = _response((yield b"") if initial is None else initial)
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise Malformed(501, "5.5.2", "The response is no PLAIN message")
    authzid, name, password = map(_text, parts)
    username = _name(name)
    is_right = yield Password(username, password)
    return bool(is_right) and authzid in ("", name)


def login(initial: bytes | None) -> Mechanism:
    """Name and password, each asked for."""
    name = _response((yield b"Username:") if initial is None else initial)
    password = _response((yield b"Password:"))
    username = _name(_text(name))
    return bool((yield Password(username, _text(password))))


_FIRST = re.compile(
    r"(?P<gs2>(?P<flag>[ny]|p=[A-Za-z0-9.-]+),(?:a=(?P<authzid>[^,]*))?,)(?P<bare>n=(?P<name>[^,]*),r=(?P<nonce>[!-+\--~]{8,512})(?:,.*)?)",
    re.DOTALL,
)
_FINAL = re.compile(
    r"(?P<bare>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>[!-+\--~]+)(?:,[A-Za-z]=[^,]*)*),p=(?P<proof>[A-Za-z0-9+/=]+)"
)


def scram(
    initial: bytes | None, keys: ScramKeys, nonce: str, bindings: Sequence[bytes], *, is_plus: bool, has_plus: bool
) -> Mechanism:
    """RFC 5802 section 5 and 6. `nonce`: fresh and random. `bindings`: the tls-server-end-point values (RFC 5929
    section 4.1) this server may present. `is_plus`: the client chose the mechanism with channel binding; `has_plus`:
    it is offered."""
    first = _FIRST.fullmatch(_text(_response((yield b"") if initial is None else initial)))
    if first is None:
        raise Malformed(501, "5.5.2", "The response is no SCRAM message")
    flag, name = first["flag"], _saslname(first["name"])
    username = _name(name)
    is_honest = _saslname(first["authzid"] or "") in ("", name)
    if is_plus:
        is_honest &= flag == f"p={BINDING}"
    else:  # "y": the client could, and believes we cannot: somebody took the offer away (RFC 5802 section 6)
        is_honest &= flag == "n" or (flag == "y" and not has_plus)
    known = keys(username)
    whole_nonce = first["nonce"] + nonce
    server_first = f"r={whole_nonce},s={_b64(known.salt)},i={known.iterations}"
    final = _FINAL.fullmatch(_text(_response((yield server_first.encode()))))
    if final is None:
        raise Malformed(501, "5.5.2", "The response is no SCRAM message")
    auth_message = f"{first['bare']},{server_first},{final['bare']}".encode()
    is_right = _is_proven(known, auth_message, _octets(final["proof"]))
    is_right &= hmac.compare_digest(final["nonce"].encode(), whole_nonce.encode())
    is_right &= _is_bound(_octets(final["binding"]), first["gs2"].encode(), bindings if is_plus else (b"",))
    if not (yield Proof(username, is_right and is_honest)):
        return False
    signature = hmac.digest(known.server_key, auth_message, "sha256")
    yield f"v={_b64(signature)}".encode()
    return True


def _is_proven(known: Scram, auth_message: bytes, proof: bytes) -> bool:
    signature = hmac.digest(known.stored_key, auth_message, "sha256")
    if len(proof) != len(signature):
        return False
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), known.stored_key)


def _is_bound(said: bytes, gs2: bytes, bindings: Sequence[bytes]) -> bool:
    found = [hmac.compare_digest(said, gs2 + binding) for binding in bindings]  # all are looked at
    return any(found)


_GS2 = re.compile(r"[ny],(?:a=(?P<name>[^,]*))?,")


def oauthbearer(initial: bytes | None) -> Mechanism:
    """RFC 7628 section 3."""
    message = _text(_response((yield b"") if initial is None else initial))
    head, _, pairs = message.partition("\x01")
    header = _GS2.fullmatch(head)
    if header is None:
        raise Malformed(501, "5.5.2", "The response is no OAUTHBEARER message")
    name = _saslname(header["name"]) if header["name"] else ""
    if (yield Token(_name(name) if name else "", _bearer(pairs))):
        return True
    yield json.dumps({"status": "invalid_token"}).encode()  # the client answers with a %x01
    return False


def xoauth2(initial: bytes | None) -> Mechanism:
    """What Google and Microsoft called it before RFC 7628."""
    message = _text(_response((yield b"") if initial is None else initial))
    head, _, pairs = message.partition("\x01")
    if not head.startswith("user="):
        raise Malformed(501, "5.5.2", "The response is no XOAUTH2 message")
    if (yield Token(_name(head[5:]), _bearer(pairs))):
        return True
    yield json.dumps({"status": "401", "schemes": "bearer", "scope": ""}).encode()
    return False


def external(initial: bytes | None) -> Mechanism:
    """RFC 4422 appendix A."""
    name = _text(_response((yield b"") if initial is None else initial))
    return bool((yield Certificate(_name(name) if name else "")))


def _bearer(pairs: str) -> str:
    for pair in pairs.split("\x01"):
        key, _, value = pair.partition("=")
        scheme, _, token = value.partition(" ")
        if key == "auth" and scheme.lower() == "bearer" and token.strip().isascii() and token.strip().isprintable():
            return token.strip()
    raise Malformed(501, "5.5.2", "The response holds no bearer token")


def decode(text: bytes) -> bytes:
    """A base64 line of the client (RFC 4954 section 4). Malformed: it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Malformed(501, "5.5.2", "The response is not base64") from None


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise Malformed(501, "5.5.2", "The response is not UTF-8") from None


def _name(text: str) -> str:
    """A user name in its one form: prepared, without case."""
    try:
        name = prepare(text)
    except ValueError:
        name = ""
    if not 0 < len(name) <= NAME_MAX or not name.isprintable():
        raise Malformed(501, "5.5.2", "The response holds no user name")
    return name.casefold()


def _saslname(text: str) -> str:
    """RFC 5802 section 5.1."""
    if re.search("=(?!2C|3D)", text):
        raise Malformed(501, "5.5.2", "The response holds no user name")
    return text.replace("=2C", ",").replace("=3D", "=")


def _octets(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()
