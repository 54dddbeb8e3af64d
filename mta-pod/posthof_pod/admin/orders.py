"""Certificates of one machine from an ACME server: ordered, renewed, kept below the state folder.

Owns `<state_dir>/acme/<account>.key` (the account's key, 0600) and, for each such TLSCert, below `<state_dir>/tls/`:
`<name>.acme.pem` (key and chain in one file: they change together or not at all), `<name>.next.key` (of the next
certificate) and `<name>.acme.json` (what is remembered, no secret).

Rules of this file
- What came is proven before it takes the place of what is there; a pair that is in order is never thrown away.
- After a failure it waits, longer each time, also over a restart.
- Called in threads: orders take seconds to minutes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from posthof_certs import acme, issue, pair, renewal, zone
from posthof_certs.acme import Account, Refused
from posthof_certs.issue import KeyKind
from posthof_certs.pair import BadPair, Facts, Pair, time_text
from posthof_certs.renewal import Window
from posthof_certs.solvers import ByHTTP, ByUpdate
from posthof_crds.engine import Certificate, DNSUpdate, EngineConfig
from posthof_pod.config.secrets import Secrets

ADVICE_AGAIN = 6 * 3600.0  # seconds until an authority that did not answer is asked for advice again

Warn = Callable[[str], object]


class Remembered(msgspec.Struct):
    """About a TLSCert. Times are unix seconds."""

    wish: str = ""  # what was asked for when it failed: another wish begins anew
    directory: str = ""  # who made the pair
    failures: int = 0
    again: float = 0.0
    failure: str = ""
    advised_for: str = ""  # serial
    advised: float = 0.0  # 0: no advice
    ask_advice: float = 0.0


class Unreadable(Exception):
    """A file is there and cannot be read; the text names it and the mend."""


class Orders:
    """`port`: of authoritative DNS servers, another one only in tests."""

    def __init__(self, state_dir: Path, *, port: int = 53) -> None:
        self._tls, self._accounts = state_dir / "tls", state_dir / "acme"
        self._port = port
        self._lock = threading.Lock()

    # ---- what there is

    def pair(self, certificate: Certificate) -> Pair | None:
        """The pair in force, if there is one that fits together."""
        with contextlib.suppress(OSError, BadPair):
            found = _split((self._tls / f"{certificate.name}.acme.pem").read_bytes())
            pair.read(found)
            return found
        return None

    def thumbprint(self, certificate: Certificate) -> str:
        """Of the account that orders it, "" before there is one."""
        if certificate.acme is None:
            return ""
        with contextlib.suppress(OSError, ValueError):
            return acme.thumbprint((self._accounts / f"{certificate.acme.account}.key").read_bytes())
        return ""

    # ---- once in a while

    def prepare(self, config: EngineConfig) -> None:
        """Make the accounts' keys, which the answers over HTTP need. OSError."""
        for certificate in _ordered(config):
            assert certificate.acme is not None
            self._key(self._accounts / f"{certificate.acme.account}.key", acme.account_key)

    def tend(self, config: EngineConfig, secrets: Mapping[str, bytes], now: float, warn: Warn) -> bool:
        """Order what is lacking or due. Returns whether other pairs are there now."""
        with self._lock:
            changed = [self._tend(one, config, Secrets(secrets), now, warn) for one in _ordered(config)]
        return any(changed)

    def _tend(self, wanted: Certificate, config: EngineConfig, secrets: Secrets, now: float, warn: Warn) -> bool:
        memory = self._recall(wanted.name)
        try:
            self._stage(wanted)
            account = self._account(wanted, secrets)
            current = self.pair(wanted)
            facts = pair.read(current) if current is not None else None
            advised = self._advised(account, memory, current, facts, now) if current and facts else None
            why = reason_to_order(wanted, facts, memory.directory, advised, now)
            wish = _wish(wanted)
            if not why or (now < memory.again and memory.wish == wish):
                return False
            if memory.wish != wish:
                memory.failures = 0
            memory.wish = wish
            solver = self._solver(wanted, config, secrets, warn)
            made = acme.obtain(account, wanted.dns_names, self._next_key(wanted, current), solver)
            pair.check_dates(pair.read(made), now)
            pair.check_names(pair.read(made), wanted.dns_names)
            self._keep(wanted, made)
            memory.failures, memory.again, memory.failure = 0, 0.0, ""
            memory.directory = account.directory
            self._stage(wanted)
        except (Refused, BadPair, LookupError, Unreadable, OSError, ValueError) as error:
            self._failed(wanted, memory, error, now, warn)
            return False
        finally:
            self._remember(wanted.name, memory)
        return True

    def _failed(self, wanted: Certificate, memory: Remembered, error: Exception, now: float, warn: Warn) -> None:
        memory.failures += 1
        memory.wish = _wish(wanted)
        memory.failure = str(error)
        memory.again = now + renewal.pause(memory.failures, getattr(error, "retry_after", 0.0))
        warn(f"TLSCert/{wanted.name}: {memory.failure}; it is tried again at {time_text(memory.again)}")

    # ---- what an order needs

    def _account(self, wanted: Certificate, secrets: Secrets) -> Account:
        order = wanted.acme
        assert order is not None
        key = self._key(self._accounts / f"{order.account}.key", acme.account_key)
        eab = (order.eab_id, secrets.text(order.eab_key).strip()) if order.eab_key is not None else None
        return Account(order.directory, key, order.contact, order.roots, eab)

    def _solver(self, wanted: Certificate, config: EngineConfig, secrets: Secrets, warn: Warn) -> acme.Solver:
        assert wanted.acme is not None
        update = wanted.acme.update
        if update is None:
            return ByHTTP()
        return ByUpdate(server_of(update, secrets), config.resolver, self._port, warn=warn)

    def _advised(self, account: Account, memory: Remembered, current: Pair, facts: Facts, now: float) -> float | None:
        if memory.advised_for != facts.serial or now >= memory.ask_advice:
            try:
                advice = acme.advice(account, current.chain)
                memory.advised, memory.ask_advice = advice.renew or 0.0, advice.ask_again
            except Refused:  # the authority is away: what it said last counts, and its own time does anyway
                if memory.advised_for != facts.serial:
                    memory.advised = 0.0
                memory.ask_advice = now + ADVICE_AGAIN
            memory.advised_for = facts.serial
        return memory.advised or None

    def _next_key(self, wanted: Certificate, current: Pair | None) -> bytes:
        kind = _kind(wanted)
        if wanted.key_rotation == "Never" and current is not None and pair.kind_of(current.key) == kind:
            return current.key
        path = self._tls / f"{wanted.name}.next.key"
        key = self._key(path, lambda: issue.pem_key(kind))
        if pair.kind_of(key) == kind and (current is None or pair.pin(key) != pair.pin(current.key)):
            return key
        path.unlink()
        return self._key(path, lambda: issue.pem_key(kind))

    def _stage(self, wanted: Certificate) -> None:
        """With rotationPolicy Staged the next key is there as soon as there is a certificate to follow."""
        current = self.pair(wanted)
        if wanted.key_rotation == "Staged" and current is not None:
            self._next_key(wanted, current)

    # ---- files

    def _key(self, path: Path, make: Callable[[], bytes]) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            made = make()
            _write(path, made)
            return made

    def _keep(self, wanted: Certificate, made: Pair) -> None:
        _write(self._tls / f"{wanted.name}.acme.pem", made.key + made.chain)
        if wanted.key_rotation != "Staged":
            (self._tls / f"{wanted.name}.next.key").unlink(missing_ok=True)

    def _recall(self, name: str) -> Remembered:
        with contextlib.suppress(OSError, msgspec.DecodeError):  # what is forgotten is asked for once more
            return msgspec.json.decode((self._tls / f"{name}.acme.json").read_bytes(), type=Remembered)
        return Remembered()

    def _remember(self, name: str, memory: Remembered) -> None:
        path = self._tls / f"{name}.acme.json"
        fresh = msgspec.json.encode(memory)
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() == fresh:
                return
        _write(path, fresh)


def reason_to_order(
    wanted: Certificate, facts: Facts | None, directory: str, advised: float | None, now: float
) -> str:
    """Why a certificate is to be ordered now, "": there is no reason. Pure."""
    if facts is None:
        return "there is none"
    if now >= facts.not_after:
        return "it has ended"
    if set(facts.names) != set(wanted.dns_names):
        return "its names are others"
    if (facts.algorithm, facts.size) != _kind(wanted):
        return "its key is of another kind"
    if wanted.acme is not None and directory != wanted.acme.directory:
        return "another authority made it"
    windows = [Window(frozenset(one.days), one.start, one.length) for one in wanted.windows]
    due = renewal.due(facts.not_before, facts.not_after, wanted.renew_before)
    at = renewal.allowed(min(due, advised or due), facts.not_before, facts.not_after, windows)
    return "its time has come" if now >= at else ""


def server_of(update: DNSUpdate, secrets: Secrets) -> zone.Server:
    """Where updates go. LookupError: the key is not there."""
    key = zone.Key(update.key_name, update.key_algorithm, secrets.text(update.key_secret).strip())
    return zone.Server(update.server, key, update.zone, update.ttl)


def _ordered(config: EngineConfig) -> list[Certificate]:
    """Those that some listener presents."""
    named = {name for listener in config.listeners for name in listener.certificates}
    return [one for one in config.certificates.values() if one.acme is not None and one.name in named]


def _kind(wanted: Certificate) -> KeyKind:
    return KeyKind(wanted.key_algorithm, wanted.key_size)


def _wish(wanted: Certificate) -> str:
    return msgspec.json.encode(wanted, order="deterministic").decode()


def _split(text: bytes) -> Pair:
    key, mark, rest = text.partition(b"-----BEGIN CERTIFICATE-----")
    return Pair(mark + rest, key)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, for the owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
