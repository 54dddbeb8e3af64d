"""The pairs that listeners serve: read from files, taken from Secrets, or self-signed below the state folder.

Rules of this file
- A pair is proven before a worker gets it: OpenSSL loads it here first.
- Self-signed pairs live in `<state_dir>/tls/<name>.crt` and `.key` (0600). They are made anew when names change or
  a third of their life is left; clients pin nothing on them, they are for trying and for opportunistic TLS.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from posthof_crds.engine import Certificate, EngineConfig
from posthof_pod.config.secrets import key
from posthof_pod.listen import tls


class Unusable(Exception):
    """`problems`: one text for each certificate that cannot be served."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Made(msgspec.Struct):
    """What is remembered beside a self-signed pair."""

    names: tuple[str, ...]
    renew: float  # unix seconds


def pairs(config: EngineConfig, secrets: Mapping[str, bytes]) -> dict[str, tuple[bytes, bytes]]:
    """Chain and key (PEM) of every certificate. Raises Unusable with everything that is wrong."""
    found: dict[str, tuple[bytes, bytes]] = {}
    problems = []
    for name, certificate in config.certificates.items():
        try:
            pair = _self_signed(certificate, Path(config.state_dir)) if certificate.self_signed else None
            pair = pair or _given(certificate, secrets)
            tls.server_context([tls.Certificate(certificate.dns_names, (pair,))])
            found[name] = (pair.chain, pair.key)
        except (OSError, LookupError, tls.BadPair) as error:
            problems.append(f"TLSCert/{name}: {_text(error)}")
    if problems:
        raise Unusable(problems)
    return found


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error.args[0]) if error.args else str(error)


def _given(certificate: Certificate, secrets: Mapping[str, bytes]) -> tls.Pair:
    pair = certificate.pair
    if pair is None:
        raise LookupError("it names no files and no Secret")
    if pair.cert_secret is not None and pair.key_secret is not None:
        return tls.Pair(secrets[key(pair.cert_secret)], secrets[key(pair.key_secret)])
    return tls.Pair(Path(pair.cert_file).read_bytes(), Path(pair.key_file).read_bytes())


def _self_signed(certificate: Certificate, state_dir: Path) -> tls.Pair:
    folder = state_dir / "tls"
    chain, key, about = (folder / f"{certificate.name}.{end}" for end in ("crt", "key", "json"))
    now = time.time()
    with contextlib.suppress(OSError, msgspec.DecodeError):
        made = msgspec.json.decode(about.read_bytes(), type=Made)
        if made.names == certificate.dns_names and now < made.renew:
            return tls.Pair(chain.read_bytes(), key.read_bytes())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    pair = tls.self_signed(certificate.dns_names, certificate.duration, now)
    about.unlink(missing_ok=True)  # a crash between these writes makes the pair anew
    _write(key, pair.key)
    _write(chain, pair.chain)
    _write(about, msgspec.json.encode(Made(certificate.dns_names, now + certificate.duration * 2 / 3)))
    return pair


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
    fresh.rename(path)
