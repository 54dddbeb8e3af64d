"""The pairs that listeners serve: read from files, taken from Secrets, ordered (orders.py), or self-signed below the
state folder.

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
from posthof_crds.report import ServedCertificate
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


Pairs = dict[str, tuple[bytes, bytes]]  # TLSCert -> chain and key, PEM


def pairs(config: EngineConfig, secrets: Mapping[str, bytes]) -> Pairs:
    """Chain and key (PEM) of every certificate. Raises Unusable with everything that is wrong."""
    found, problems = usable(config, secrets, {})
    if problems:
        raise Unusable(problems)
    return found


def usable(config: EngineConfig, secrets: Mapping[str, bytes], last: Pairs) -> tuple[Pairs, list[str]]:
    """As many as can be served, and what is wrong with the others. `last`: what was served until now; it stands in
    for a newer one that cannot be used, or that has expired already while the last one has not."""
    found: Pairs = {}
    problems = []
    for name, certificate in config.certificates.items():
        try:
            found[name] = _pair(certificate, secrets, Path(config.state_dir))
            if name in last and _is_step_back(found[name][0], last[name][0]):
                raise tls.BadPair("the new certificate has expired")
        except (OSError, LookupError, tls.BadPair) as error:
            found.pop(name, None)
            problems.append(f"TLSCert/{name}: {_text(error)}")
            if name in last:
                found[name] = last[name]
                problems[-1] += "; the last good one is still served"
    return found, problems


def _pair(certificate: Certificate, secrets: Mapping[str, bytes], state_dir: Path) -> tuple[bytes, bytes]:
    if certificate.self_signed:
        pair = _self_signed(certificate, state_dir)
    elif certificate.acme is not None:
        pair = _ordered(certificate, state_dir)
    else:
        pair = _given(certificate, secrets)
    tls.server_context([tls.Certificate(certificate.dns_names, (pair,))])
    return pair.chain, pair.key


def _is_step_back(new: bytes, old: bytes) -> bool:
    now = time.time()
    return new != old and tls.expires(new) <= now < tls.expires(old)


def served(pairs: Pairs) -> dict[str, ServedCertificate]:
    """What clients get to see, by TLSCert. Slow the first time: it loads a library."""
    from cryptography import x509

    found = {}
    for name, (chain, _) in pairs.items():
        first = x509.load_pem_x509_certificate(chain)
        found[name] = ServedCertificate(
            serial=format(first.serial_number, "x"), not_after=first.not_valid_after_utc.timestamp()
        )
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
        for ref in (pair.cert_secret, pair.key_secret):
            if key(ref) not in secrets:
                raise LookupError(f"Secret {ref.name} has no {ref.key}, or it has not arrived yet")
        return tls.Pair(secrets[key(pair.cert_secret)], secrets[key(pair.key_secret)])
    return tls.Pair(Path(pair.cert_file).read_bytes(), Path(pair.key_file).read_bytes())


def _ordered(certificate: Certificate, state_dir: Path) -> tls.Pair:
    """What an ACME server gave, and until then a self-signed pair: a listener never waits for somebody else."""
    from posthof_pod.admin.orders import Orders  # slow to load, and for this kind alone

    found = Orders(state_dir).pair(certificate)
    return tls.Pair(found.chain, found.key) if found is not None else _self_signed(certificate, state_dir)


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
