"""Passwords as what can check them: a scrypt hash, and the keys of SCRAM-SHA-256. Pure; hashlib only.

Owns: SASLprep (RFC 4013), the texts of both verifiers, making and checking them. Workers import it.

Rules
- A password is prepared by SASLprep before it is hashed and before it is checked; what that forbids is no password.
- The text of a verifier is one or two lines, in any order:
      $scrypt$ln=14,r=8,p=1$<salt>$<hash>                      RFC 7914, base64 without padding
      SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey> RFC 5802, RFC 5803 section 3, base64
- Salts come from a key and a name (`salt_for`), so that equal input gives equal text on every machine, and so that a
  name nobody has shows a salt that is as steady as a real one.
- Every comparison is `hmac.compare_digest`. Nothing here prints, or stands in a repr.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import stringprep
import unicodedata
from typing import NamedTuple

SCRYPT_LN = 14  # N = 16384: 16 MiB and about 40 ms
SCRYPT_R = 8
SCRYPT_P = 1
ITERATIONS = 15_000  # of PBKDF2 for SCRAM; RFC 7677 section 4 asks for 4096 at least
SALT = 16
HASHED = ".hash"  # a Secret's key that ends so holds the verifier of the password at the key without it
UNHASHED = b"\0password\0"  # begins a password that stands in the place of its verifier, until it is hashed
MAX_PASSWORD = 1024  # octets
_MAX_COST = 1 << 20  # N times r times p: 128 MiB and half a second, what a foreign hash may cost us at most
_MAX_ITERATIONS = 1_000_000  # of a foreign SCRAM verifier: as much, and names that nobody has cost the same
_SCRYPT = re.compile(r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)")
_SCRAM = re.compile(r"SCRAM-SHA-256\$(\d{1,7}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


class BadVerifier(ValueError):
    """The text is no verifier; says why, and never what it holds."""


class Scrypt(NamedTuple):
    ln: int
    r: int
    p: int
    salt: bytes
    hash: bytes

    def __repr__(self) -> str:
        return f"Scrypt(ln={self.ln})"


class Scram(NamedTuple):
    """The keys of SCRAM-SHA-256 (RFC 5802 section 3)."""

    iterations: int
    salt: bytes
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"Scram(iterations={self.iterations})"


class Verifier(NamedTuple):
    """One of the two at least."""

    scrypt: Scrypt | None
    scram: Scram | None


def prepare(text: str) -> str:
    """SASLprep (RFC 4013) of a user name or password, as a stored string. ValueError: it holds what is forbidden."""
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if any(forbidden(char) for char in prepared for forbidden in _FORBIDDEN):
        raise ValueError("a character that SASLprep (RFC 4013) forbids")
    if any(map(stringprep.in_table_d1, prepared)):  # right to left: RFC 3454 section 6
        ends = prepared and stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not ends or any(map(stringprep.in_table_d2, prepared)):
            raise ValueError("text of both directions (RFC 3454 section 6)")
    return prepared


_FORBIDDEN = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def salt_for(key: bytes, name: str) -> bytes:
    """The salt of a name: the same for ever, and told by nothing but the key."""
    return hmac.digest(key, b"salt\0" + name.encode(), "sha256")[:SALT]


def make(password: str, salt: bytes) -> str:
    """The text of both verifiers of a password. ValueError: it is empty, too long, or SASLprep forbids it."""
    octets = _octets(password)
    hashed = Scrypt(SCRYPT_LN, SCRYPT_R, SCRYPT_P, salt, b"")
    scrypt = hashed._replace(hash=_scrypt(octets, hashed, 32))
    scram = scram_of(octets, salt)
    return (
        f"$scrypt$ln={scrypt.ln},r={scrypt.r},p={scrypt.p}${_b64(salt, '')}${_b64(scrypt.hash, '')}\n"
        f"SCRAM-SHA-256${scram.iterations}:{_b64(salt)}${_b64(scram.stored_key)}:{_b64(scram.server_key)}\n"
    )


def scram_of(octets: bytes, salt: bytes, iterations: int = ITERATIONS) -> Scram:
    """RFC 5802 section 3. `octets`: the prepared password."""
    salted = hashlib.pbkdf2_hmac("sha256", octets, salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return Scram(iterations, salt, hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256"))


def parse(text: str) -> Verifier:
    """Raises BadVerifier."""
    scrypt: Scrypt | None = None
    scram: Scram | None = None
    for line in filter(None, map(str.strip, text.splitlines())):
        if (hit := _SCRYPT.fullmatch(line)) is not None:
            scrypt = Scrypt(int(hit[1]), int(hit[2]), int(hit[3]), _bytes(hit[4]), _bytes(hit[5]))
            is_fit = 10 <= scrypt.ln <= 20 and scrypt.r >= 1 and scrypt.p >= 1
            if not is_fit or (scrypt.r * scrypt.p << scrypt.ln) > _MAX_COST:
                raise BadVerifier(f"scrypt with ln {scrypt.ln}, r {scrypt.r}, p {scrypt.p} is too weak or too dear")
            if len(scrypt.salt) < 8 or not 16 <= len(scrypt.hash) <= 64:
                raise BadVerifier("the salt or the hash of scrypt is too short")
        elif (hit := _SCRAM.fullmatch(line)) is not None:
            scram = Scram(int(hit[1]), _bytes(hit[2]), _bytes(hit[3]), _bytes(hit[4]))
            is_fit = 4096 <= scram.iterations <= _MAX_ITERATIONS
            if not is_fit or len(scram.stored_key) != 32 or len(scram.server_key) != 32:
                raise BadVerifier("SCRAM-SHA-256 needs 4096 to a million iterations, and keys of 32 octets")
        else:
            raise BadVerifier("a line is neither $scrypt$... nor SCRAM-SHA-256$...")
    if scrypt is None and scram is None:
        raise BadVerifier("there is no verifier in it")
    return Verifier(scrypt, scram)


def check(verifier: Verifier, password: str) -> bool:
    """Whether it is the password. Costs tens of milliseconds: not for the event loop."""
    try:
        octets, is_password = _octets(password), True
    except ValueError:
        octets, is_password = b"?", False  # the same work for what cannot be right
    scrypt, scram = verifier
    if scrypt is not None:
        is_right = hmac.compare_digest(_scrypt(octets, scrypt, len(scrypt.hash)), scrypt.hash)
    else:
        assert scram is not None
        found = scram_of(octets, scram.salt, scram.iterations)
        is_right = hmac.compare_digest(found.stored_key, scram.stored_key)
    return is_right and is_password


def nobody(key: bytes, name: str, like: Verifier | None) -> Verifier:
    """What stands for a name that nobody has: of the shape of `like` (None: as `make` makes them), fit for no
    password, and the same each time it is asked for."""
    salt = salt_for(key, name)
    noise = hmac.digest(key, b"nobody\0" + name.encode(), "sha256")
    scrypt = like.scrypt if like else Scrypt(SCRYPT_LN, SCRYPT_R, SCRYPT_P, salt, noise)
    scram = like.scram if like else Scram(ITERATIONS, salt, noise, noise)
    return Verifier(
        scrypt and scrypt._replace(salt=_sized(salt, len(scrypt.salt)), hash=_sized(noise, len(scrypt.hash))),
        scram and scram._replace(salt=_sized(salt, len(scram.salt)), stored_key=noise, server_key=noise),
    )


def _sized(octets: bytes, length: int) -> bytes:
    while len(octets) < length:
        octets += hashlib.sha256(octets).digest()
    return octets[:length]


def _octets(password: str) -> bytes:
    octets = prepare(password).encode()
    if not 0 < len(octets) <= MAX_PASSWORD:
        raise ValueError(f"a password has 1 to {MAX_PASSWORD} octets")
    return octets


def _scrypt(octets: bytes, how: Scrypt, length: int) -> bytes:
    n = 1 << how.ln
    memory = 128 * n * how.r + 128 * how.r * how.p + 1024 * 1024
    return hashlib.scrypt(octets, salt=how.salt, n=n, r=how.r, p=how.p, maxmem=memory, dklen=length)


def _b64(octets: bytes, padding: str = "=") -> str:
    text = base64.b64encode(octets).decode()
    return text if padding else text.rstrip("=")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except binascii.Error:
        raise BadVerifier("a part of it is not base64") from None
