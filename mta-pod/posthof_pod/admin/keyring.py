"""DKIM keys of one machine: made below the state folder, watched in DNS, changed for new ones in time.

Owns `<state_dir>/dkim/<domain>/`: `keys.json` (what there is, no secret) and `<selector>.pem` (0600).

Rules of this file
- A key signs once every authoritative server of the zone answers with its record; until then mail leaves without it.
  `posthof dkim` shows what to publish. Nothing is published from here.
- A key file is written before the list names it; a list that cannot be read is an error, never a reason for new keys.
- The workers get keys as one secret (KEYS), beside the configuration.
Called in threads: DNS and RSA take their time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from posthof_certs import dkim
from posthof_certs.zone import Record, Unpublished, lacking
from posthof_crds.engine import AutoDKIM, Domain, EngineConfig
from posthof_pod.sign.keyring import KEYS, StateKey, packed


class Kept(msgspec.Struct):
    """A key in keys.json."""

    selector: str
    algorithm: str
    bits: int
    state: str
    made: float
    since: float
    seen: float = 0.0


class Shown(msgspec.Struct):
    """A key and its record, for people."""

    domain: str
    selector: str
    algorithm: str
    name: str  # of the record
    text: str
    state: str  # "waits for DNS", "signs", "retired", "revoked"
    lacking: tuple[str, ...] = ()  # servers that do not show it


class Unreadable(Exception):
    """A keys.json is there and cannot be read; the text names it and the mend."""


class KeyRing:
    """`port`: of authoritative servers, another one only in tests."""

    def __init__(self, state_dir: Path, *, port: int = 53) -> None:
        self._folder = state_dir / "dkim"
        self._port = port
        self._lock = threading.Lock()

    # ---- for the workers

    def complete(self, config: EngineConfig, secrets: dict[str, bytes]) -> dict[str, bytes]:
        """The secrets, with the keys that sign. Makes none and asks nobody."""
        found: list[StateKey] = []
        for domain in _with_keys(config):
            try:
                keys = self._read(domain.domain)
            except Unreadable:
                continue  # `tend` tells
            named = {key.selector for key in domain.outbound.dkim if key.secret is None} if domain.outbound else set()
            for held in _signing(keys, named, domain):
                with contextlib.suppress(OSError):
                    pem = (self._folder / domain.domain / f"{held.selector}.pem").read_bytes()
                    found.append(StateKey(domain.domain, held.selector, pem))
        others = {name: value for name, value in secrets.items() if name != KEYS}
        return others | ({KEYS: packed(found)} if found else {})

    # ---- once in a while

    def tend(self, config: EngineConfig, now: float, warn: Callable[[str], object]) -> bool:
        """Make what is lacking, look for records that were not seen yet, turn what is old. Returns whether other
        keys sign now."""
        with self._lock:
            changed = [self._tend(domain, config, now, warn) for domain in _with_keys(config)]
        return any(changed)

    async def tend_apart(self, config: EngineConfig, now: float, warn: Callable[[str], object]) -> bool:
        """The same in a thread of its own that no stop waits for: DNS may take its time. `warn` is called there."""
        if next(_with_keys(config), None) is None:
            return False
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()

        def tell(result: bool, error: Exception | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        def run() -> None:
            result, error = False, None
            try:
                result = self.tend(config, now, warn)
            except Exception as failed:  # the loop's to tell
                error = failed
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, result, error)

        threading.Thread(target=run, name="dkim", daemon=True).start()
        return await done

    def make(self, config: EngineConfig, now: float) -> None:
        """Only what is lacking, without a look at DNS. Unreadable, OSError."""
        with self._lock:
            for domain in _with_keys(config):
                keys = self._read(domain.domain)
                self._make_named(domain, keys, now)
                self._follow_plan(domain, keys, now)
                self._write(domain.domain, keys)

    def _tend(self, domain: Domain, config: EngineConfig, now: float, warn: Callable[[str], object]) -> bool:
        try:
            keys = self._read(domain.domain)
            before = [key.selector for key in keys if key.state == "Active" and key.seen]
            self._make_named(domain, keys, now)
            for key in keys:
                if key.state == "Active" and not key.seen and not self._missing(domain.domain, key, config, warn):
                    key.seen = now
            self._follow_plan(domain, keys, now)
            self._write(domain.domain, keys)
        except (Unreadable, OSError) as error:
            warn(f"DKIM keys of {domain.domain}: {error}")
            return False
        return before != [key.selector for key in keys if key.state == "Active" and key.seen]

    def _make_named(self, domain: Domain, keys: list[Kept], now: float) -> None:
        """DKIMKeys whose key nobody gave."""
        having = {key.selector for key in keys}
        wanted = [each for each in (domain.outbound.dkim if domain.outbound else ()) if each.secret is None]
        lacking_keys = [each for each in wanted if each.selector not in having]
        keys += [self._made(domain.domain, one.selector, one.algorithm, one.bits, now) for one in lacking_keys]

    def _follow_plan(self, domain: Domain, keys: list[Kept], now: float) -> None:
        auto = domain.outbound.auto if domain.outbound else None
        if auto is None:
            return
        for step in dkim.plan([_held(key) for key in keys], _auto(auto), now):
            if isinstance(step, dkim.Make):
                selector = dkim.new_selector(step.algorithm, now)
                keys.append(self._made(domain.domain, selector, step.algorithm, step.bits, now))
            elif isinstance(step, dkim.Turn):
                key = next(key for key in keys if key.selector == step.name)
                key.state, key.since = str(step.state), now
            else:
                keys[:] = [key for key in keys if key.selector != step.name]
                (self._folder / domain.domain / f"{step.name}.pem").unlink(missing_ok=True)

    def _made(self, domain: str, selector: str, algorithm: str, bits: int, now: float) -> Kept:
        path = self._folder / domain / f"{selector}.pem"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write(path, dkim.make(algorithm, bits))
        return Kept(selector, algorithm, bits, "Active", now, now)

    def _missing(self, domain: str, key: Kept, config: EngineConfig, warn: Callable[[str], object]) -> list[str]:
        """Servers that do not show the record, or why they cannot be asked."""
        try:
            record = Record(dkim.name_of(key.selector, domain), "TXT", self._text(domain, key))
            return lacking([record], config.resolver, port=self._port)
        except (Unpublished, dkim.BadKey) as error:
            return [str(error)]

    # ---- for people

    def shown(self, config: EngineConfig, *, is_asking: bool = False) -> Iterator[Shown]:
        """Every key with its record. `is_asking`: ask DNS which servers lack it. Unreadable, OSError."""
        words = {"Active": "waits for DNS", "Retired": "retired", "Revoked": "revoked"}
        for domain in _with_keys(config):
            for key in self._read(domain.domain):
                is_signing = key.state == "Active" and key.seen > 0
                missing = self._missing(domain.domain, key, config, print) if is_asking else []
                yield Shown(
                    domain.domain,
                    key.selector,
                    key.algorithm,
                    dkim.name_of(key.selector, domain.domain),
                    self._text(domain.domain, key),
                    "signs" if is_signing else words[key.state],
                    tuple(missing),
                )

    def _text(self, domain: str, key: Kept) -> str:
        if key.state == "Revoked":
            return dkim.REVOKED
        return dkim.record((self._folder / domain / f"{key.selector}.pem").read_bytes())

    # ---- the files

    def _read(self, domain: str) -> list[Kept]:
        path = self._folder / domain / "keys.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=list[Kept])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as error:
            raise Unreadable(f"{path} cannot be read ({error}): restore it, or remove it for new keys") from None

    def _write(self, domain: str, keys: list[Kept]) -> None:
        if keys != self._read(domain):
            _write(self._folder / domain / "keys.json", msgspec.json.format(msgspec.json.encode(keys)))


def _with_keys(config: EngineConfig) -> Iterator[Domain]:
    """Domains with keys of the state folder."""
    for domain in config.domains.values():
        out = domain.outbound
        if out is not None and (out.auto is not None or any(key.secret is None for key in out.dkim)):
            yield domain


def _signing(keys: list[Kept], named: set[str], domain: Domain) -> list[dkim.Held]:
    """Those that were named and seen, and those that were made for the domain."""
    held = [_held(key) for key in keys]
    if domain.outbound is not None and domain.outbound.auto is not None:
        return dkim.signing(held)
    return [key for key in held if key.selector in named and key.seen and key.state is dkim.State.ACTIVE]


def _held(key: Kept) -> dkim.Held:
    state = dkim.State(key.state)
    return dkim.Held(key.selector, key.selector, key.algorithm, state, key.made, key.since, key.seen, key.bits)


def _auto(auto: AutoDKIM) -> dkim.Auto:
    return dkim.Auto(auto.algorithms, auto.bits, auto.interval, auto.overlap)


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
