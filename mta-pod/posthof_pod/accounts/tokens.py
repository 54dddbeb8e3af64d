"""Bearer tokens of an issuer: JWT checked with its keys (RFC 7519, 7517), or its word about each (RFC 7662).

Rules
- Only signatures with public keys count (no `none`, no HMAC: a public key must not become a shared secret).
- A token must name the issuer, be for our audience, and have a time at which it ends.
- Keys are fetched every KEYS seconds, and once a minute at most for a key that is not known. Those known stay in
  force while the issuer does not answer.
- The user is what one claim says; the name a client gives beside the token must be the same, where it gives one.
- A token stands in no log. What an issuer said of one is remembered for a minute, by a hash.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import jwt
import msgspec

from posthof_crds.verifiers import prepare
from posthof_pod.accounts.directory import Account
from posthof_pod.accounts.exchange import Login, Refusal
from posthof_pod.accounts.issuer import Ask, Unanswered
from posthof_pod.accounts.passwords import BUSY
from posthof_pod.replies import Temporary
from posthof_pod.smtp.gate import Session
from posthof_pod.smtp.sasl import Claim, Token

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
KEYS = 600.0  # seconds for which keys are fresh
AGAIN = 60.0  # seconds between two looks for a key that is not known
WORD = 60.0  # seconds for which an issuer's word is believed
LEEWAY = 30.0  # seconds by which clocks may differ
REMEMBERED = 10_000
LONGEST = 16 * 1024


class TokenBackend:
    """accounts.Backend. `jwks`: the issuer's keys, where they are given; `login`: what we are at introspection."""

    def __init__(
        self,
        account: Account,
        ask: Ask,
        *,
        jwks: bytes = b"",
        login: tuple[str, str] = ("", ""),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert account.credential.oauth is not None
        self._account, self._settings = account, account.credential.oauth
        self._ask, self._login, self._clock = ask, login, clock
        self._keys = _keys(jwks) if jwks else {}
        self._fetched = self._looked = -1e9
        self._fetching: asyncio.Task[None] | None = None
        self._words: OrderedDict[bytes, tuple[float, dict[str, Any]]] = OrderedDict()

    async def check(self, claim: Claim, session: Session) -> Login | Refusal | None:
        if not isinstance(claim, Token):
            return None
        if len(claim.token) > LONGEST:
            return Refusal("the token is too long")
        try:
            claims = await (
                self._introspected(claim.token) if self._settings.introspection else self._jwt(claim.token)
            )
        except jwt.PyJWTError as error:
            return Refusal(f"the token does not hold: {error}")
        except Unanswered as error:
            raise Temporary(BUSY, str(error)) from None
        return self._whose(claims, claim.username)

    def _whose(self, claims: dict[str, Any], username: str) -> Login | Refusal:
        said = claims.get(self._settings.claim)
        try:
            user = prepare(said).casefold() if isinstance(said, str) else ""
        except ValueError:
            user = ""
        if not user or len(user) > 320 or not user.isprintable():
            return Refusal(f"the token names nobody in {self._settings.claim}")
        if self._settings.claim == "email" and claims.get("email_verified", True) not in (True, "true"):
            return Refusal("the token's address is not verified")
        if username and username != user:
            return Refusal(f"the token is {user}'s")
        if self._settings.users and user not in self._settings.users:
            return Refusal(f"{user} is none of the users")
        return Login(self._account, user)

    # ---- JWT

    async def _jwt(self, token: str) -> dict[str, Any]:
        kid = str(jwt.get_unverified_header(token).get("kid") or "")
        await self._refresh(kid)
        keys = [self._keys[kid]] if kid in self._keys else [] if kid else list(self._keys.values())
        if not keys:
            raise jwt.InvalidKeyError("its key is not known")
        trouble: jwt.PyJWTError = jwt.InvalidTokenError("no key fits")
        for key in keys:
            try:
                return dict(
                    jwt.decode(
                        token,
                        key,
                        algorithms=ALGORITHMS,
                        audience=self._settings.audience,
                        issuer=self._settings.issuer,
                        leeway=LEEWAY,
                        options={"require": ["exp", "iss", "aud"]},
                    )
                )
            except jwt.PyJWTError as error:
                trouble = error
        raise trouble

    async def _refresh(self, kid: str) -> None:
        if not self._settings.jwks_url:
            return
        now = self._clock()
        is_unknown = (kid not in self._keys if kid else not self._keys) and now - self._looked > AGAIN
        if now - self._fetched < KEYS and not is_unknown:
            return
        if self._fetching is None or self._fetching.done():
            self._looked = now
            self._fetching = asyncio.ensure_future(self._fetch())
        if kid not in self._keys:  # else what is known serves meanwhile
            try:
                await asyncio.shield(self._fetching)
            except Unanswered:
                if not self._keys:
                    raise

    async def _fetch(self) -> None:
        try:
            self._keys = _keys(await self._ask(self._settings.jwks_url))
            self._fetched = self._clock()
        except (ValueError, jwt.PyJWTError) as error:
            raise Unanswered(f"the keys of {self._settings.issuer} cannot be read: {error}") from None

    # ---- introspection

    async def _introspected(self, token: str) -> dict[str, Any]:
        now, print_ = self._clock(), hashlib.sha256(token.encode()).digest()
        until, claims = self._words.get(print_, (0.0, {}))
        if now >= until:
            claims = await self._word(token)
            self._words[print_] = (now + WORD, claims)
            self._words.move_to_end(print_)
            if len(self._words) > REMEMBERED:
                self._words.popitem(last=False)
        if claims.get("active") is not True:
            raise jwt.InvalidTokenError("it is not active")
        ends, issuer, audience = claims.get("exp"), claims.get("iss"), claims.get("aud")
        if isinstance(ends, int | float) and ends + LEEWAY < time.time():
            raise jwt.ExpiredSignatureError("it has ended")
        if issuer is not None and issuer != self._settings.issuer:
            raise jwt.InvalidIssuerError("it is another issuer's")
        if self._settings.audience not in (audience if isinstance(audience, list) else [audience]):
            raise jwt.InvalidAudienceError("it is for another service")
        return claims

    async def _word(self, token: str) -> dict[str, Any]:
        name, secret = self._login
        basic = base64.b64encode(f"{quote(name, safe='')}:{quote(secret, safe='')}".encode()).decode()
        form = f"token={quote(token, safe='')}&token_type_hint=access_token".encode()
        asked = self._ask(self._settings.introspection, form=form, authorization=f"Basic {basic}")
        try:
            found = msgspec.json.decode(await asked)
        except msgspec.DecodeError as error:
            raise Unanswered(f"{self._settings.issuer} answered no JSON: {error}") from None
        return found if isinstance(found, dict) else {}


def _keys(text: bytes) -> dict[str, Any]:
    """Public keys by `kid`; a number stands for one without. Symmetric keys are left out."""
    found: dict[str, Any] = {}
    for n, key in enumerate(jwt.PyJWKSet.from_json(text.decode()).keys):
        if key.key_type in ("RSA", "EC", "OKP") and key.public_key_use in (None, "sig"):
            found[key.key_id or f"#{n}"] = key
    return found
