"""The parent process of the house: starts the workers, passes signals and configurations on, answers for all of them.

Its life
  prepare   read and compile the manifests; bind the ports; make the folders; lock the state folder; leave root
  run       token, HTTP, workers; then: signals, the watched folder, certificates that change; at last a clean stop
It never touches a message: a busy supervisor delays no mail. With it gone, the workers drain and leave.

Signals: SIGTERM and SIGINT stop (a second one kills), SIGHUP reads the manifests again and reopens the log.

A stop begins with "not ready", and goes on serving for `drain_settle` seconds, so that a balancer has time to send
nobody here any more; then the workers say 421 to new sessions, end what runs, and leave.

A configuration is swapped whole or refused whole: what does not compile, bind or load, or what one worker refuses,
leaves everything as it was. `RESTART` names the parts that only a start can change; the rest takes effect at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec

from posthof_crds.engine import EngineConfig, content_hash
from posthof_crds.policytext import mx_hosts
from posthof_crds.report import ServedCertificate
from posthof_pod.admin import certificates, systemd, token
from posthof_pod.admin.authorities import Authorities
from posthof_pod.admin.compiled import Compiled
from posthof_pod.admin.crew import Crew, Keys, Pods
from posthof_pod.admin.fleet import PROOFS, Fleet, Home
from posthof_pod.admin.mxproof import Proof, asker
from posthof_pod.admin.policies import context_of
from posthof_pod.admin.prepare import CannotStart, Prepared, refuse_egress, refuse_roles
from posthof_pod.admin.sockets import Address, BindFailed
from posthof_pod.deliver.tls import ClientTLS
from posthof_pod.observe.events import Events

RESTART = ("spool", "state_dir", "workers", "http", "public_http", "policy_server", "user")
STOP = 15.0  # seconds for a clean stop, all in all
CERTIFICATES = 60.0  # seconds between looks at the certificates' files
DKIM = 30.0  # seconds between looks at DKIM keys of the state folder
WORKER = "posthof_pod.worker"


class Source(Protocol):
    """Where configurations come from."""

    def load(self) -> Compiled:
        """Read everything anew. Slow; called in a thread."""

    async def changed(self) -> None:
        """Returns when there is something new to load."""


class Supervisor:
    """`on_settled(supervisor)` once, when every worker is ready for the first time. `home`: its cluster, in a pod."""

    def __init__(
        self,
        prepared: Prepared,
        source: Source,
        events: Events,
        *,
        output: int | None = None,
        log: str = "",
        module: str = WORKER,
        stop_within: float = STOP,
        on_settled: Callable[[Supervisor], object] | None = None,
        revision: str = "",
        home: Home | None = None,
    ) -> None:
        self.config = prepared.config  # what the workers run
        self.desired = self.newest = revision or content_hash(self.config)  # what the manifests say
        self.refused: list[str] = []  # why the newest manifests are not in use
        self.complaints = prepared.complaints  # what is wrong in those that are
        self.revision = self.desired  # of what the workers run
        self.restart_for: list[str] = []  # changed fields that wait for a start
        self.events = events
        self.token = ""
        self.started = time.monotonic()
        self.crew: Crew
        self.fleet: Fleet
        self.ports = prepared.ports
        self.volume = prepared.volume
        self._told: list[Address] = []
        self._prepared, self._source = prepared, source
        self._keys = prepared.keys
        self.proof = Proof(lambda: mx_hosts(self.config), events.warned)  # of the hosts in our MTA-STS policies
        self._policy_pairs: certificates.Pairs | None = None
        self._policy_context: ssl.SSLContext | None = None
        self._served: dict[str, ServedCertificate] = {}
        self._served_of: certificates.Pairs | None = None
        self._home = home
        self._output = sys.stdout.fileno() if output is None else output
        self._log, self._module = log, module
        self._stop_within, self._on_settled = stop_within, on_settled
        self._stopping, self._killed = asyncio.Event(), asyncio.Event()
        self._reloading = asyncio.Lock()
        self._swapped = asyncio.Event()
        self.authorities = Authorities(
            lambda: (self.config, self._keys.secrets),
            prepared.orders,
            prepared.challenges,
            renewed=lambda: self._refresh("certificates"),
            warn=events.warned,
            is_pod=home is not None,
        )
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def is_healthy(self) -> bool:
        """Some worker lives."""
        return bool(self.crew.workers)

    @property
    def is_ready(self) -> bool:
        """All were ready once, one is now, something of the limits is ours, and no stop was asked for."""
        is_begun = self.crew.settled.is_set() and bool(self.crew.ready)
        return is_begun and self.fleet.has_share and not self.is_stopping

    async def served(self) -> dict[str, ServedCertificate]:
        """Serial and end of each certificate that sessions get, by TLSCert."""
        pairs = self._keys.certificates
        if self._served_of is not pairs:
            self._served = await asyncio.to_thread(certificates.served, pairs)
            self._served_of = pairs
        return self._served

    async def _prove_hosts(self) -> None:
        """What our MTA-STS policies may demand. From when our own listeners answer."""
        tls = ClientTLS()
        await self.crew.settled.wait()
        await self.proof.run(lambda: asker(self.config, tls))

    def policy_context(self) -> ssl.SSLContext | None:
        """What our MTA-STS policies are served with; None: nothing yet."""
        pairs = self._keys.certificates
        if self._policy_pairs is not pairs:
            self._policy_pairs, self._policy_context = pairs, context_of(self.config, pairs)
        return self._policy_context

    @property
    def http_address(self) -> str:
        host, port = self._prepared.http[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    # ------------------------------------------------------------------ its life

    async def run(self) -> int:
        """From the first worker to the last. Returns the exit status."""
        from posthof_pod.admin.http import serve
        from posthof_pod.admin.public import serve_public
        from posthof_pod.admin.wellknown import serve_policies

        loop = asyncio.get_running_loop()
        self.events.attach(loop)
        self._signals(loop)
        self.token = token.make(Path(self.config.state_dir))
        self.crew = Crew(self.events, self.ports, module=self._module, output=self._output, log=self._log)
        found = self.volume
        self.events.volume_tried(f"{found.file_system} ({found.options})", found.sync_p99, found.warnings)
        self._join_fleet()
        self._tell_of_listeners()
        self.crew.start(self.config, self._keys, self.revision)
        keeping = asyncio.ensure_future(self._guarded(self.fleet.run()))
        policies = serve_policies(self, self._prepared.policies)
        async with serve(self, self._prepared.http), serve_public(self, self._prepared.public), policies:
            self._run(self._prove_hosts())
            self._run(self._settle())
            self._run(self._follow())
            self._run(self._renew())
            self._run(self._tend_keys())
            self._run(self.authorities.run())
            status = await self._until_stopped()
            if not status:
                await self._let_settle()
            await self._stop()
        keeping.cancel()
        await self.fleet.leave()
        return status

    def _join_fleet(self) -> None:
        """One of the pods on its spool, or all there is."""
        proofs = Path(self.config.state_dir) / PROOFS
        if self._home is not None:
            self.crew.pod, self.crew.proofs = self._home.me.pod, str(proofs)
        self.fleet = Fleet(self.crew, self.events, self._home, proofs, Path(self.config.spool.path), stop=self.stop)
        self.fleet.begin()

    def know_pods(self, pods: Pods) -> None:
        """Which address is in which selections of pods, for the rules of all workers."""
        self.crew.know_pods(pods)

    def stop(self, why: str) -> None:
        """Begin a clean stop; the second call kills."""
        if self.is_stopping:
            self._killed.set()
            self.crew.kill()
            return
        self.events.stopping(why)
        self._stopping.set()

    async def _settle(self) -> None:
        await self.crew.settled.wait()
        systemd.notify("READY=1", f"STATUS={len(self.crew.ready)} workers")
        self.events.started(f"{self.config.hostname}: {len(self.crew.ready)} workers, configuration {self.desired}")
        if self._on_settled is not None:
            self._on_settled(self)

    async def _until_stopped(self) -> int:
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stopping, self.crew.hopeless)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()
        if self._stopping.is_set():
            return 0
        self.events.stopping("no worker can be started: the log above says why")
        self._stopping.set()
        return 1

    async def _let_settle(self) -> None:
        """Not ready and still serving, until nobody is sent here any more."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._killed.wait(), self.config.drain_settle)

    async def _stop(self) -> None:
        begin = time.monotonic()
        systemd.notify("STOPPING=1")
        for task in list(self._tasks):
            task.cancel()
        await self.crew.stop(self._stop_within)
        self.events.stopped(time.monotonic() - begin)
        self.events.flush()

    def _signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self.stop, one.name)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def _hang_up(self) -> None:
        self.events.reopen()
        self.crew.tell_all("reopen")
        self._run(self.reload())

    def _tell_of_listeners(self) -> None:
        """What came and what went since the last time."""
        now = self.ports.addresses
        for address in now:
            if address not in self._told:
                role = next((str(one.role) for one in self.config.listeners if one.name == address.listener), "")
                self.events.listener_bound(address.listener, str(address), role)
        for address in self._told:
            if address not in now:
                self.events.listener_closed(address.listener, str(address))
        self._told = now

    # ------------------------------------------------------------------ a new configuration

    async def _follow(self) -> None:
        while True:
            await self._source.changed()
            await self.reload()

    async def _renew(self) -> None:
        """Certificates change beside the manifests: somebody else renews the files, we the self-signed ones."""
        while True:
            await asyncio.sleep(CERTIFICATES)
            await self._refresh("certificates")

    async def _refresh(self, what: str) -> None:
        """The same configuration with the keys that are there now."""
        async with self._reloading:
            keys, _ = await self._usable(self.config, self._keys.secrets)  # problems are told at the next reload
            if keys != self._keys:
                await self._swap(self.config, keys, [what], self.revision)

    async def _tend_keys(self) -> None:
        """DKIM keys of the state folder are made, begin to sign once DNS has their records, and grow old."""
        told: set[str] = set()

        def warn(text: str) -> None:
            if text not in told:
                told.add(text)
                self.events.warned(text)

        while True:
            if await self._prepared.keyring.tend_apart(self.config, time.time(), warn):
                await self._refresh("DKIM keys")
            with contextlib.suppress(TimeoutError):  # another configuration may want other keys
                await asyncio.wait_for(self._swapped.wait(), DKIM)
            self._swapped.clear()

    async def reload(self) -> list[str]:
        """Read the manifests and take them into use. Returns why not; the old configuration stays then."""
        async with self._reloading:
            systemd.reloading()
            try:
                compiled = await asyncio.to_thread(self._source.load)
                self.refused = await self._take(compiled)
            except Exception as error:
                self.events.internal_error("reload", error)
                self.refused = [f"internal error: {error}"]
            finally:
                systemd.notify("READY=1")
            if self.refused:
                self.events.config_refused(self.refused)
            return self.refused

    async def _take(self, compiled: Compiled) -> list[str]:
        self.newest = compiled.revision or self.newest
        if compiled.config is None:
            return compiled.errors
        wanted = compiled.config
        fixed = {name: getattr(self.config, name) for name in RESTART}
        config = msgspec.structs.replace(wanted, **fixed)
        try:
            refuse_roles(config)
            refuse_egress(config)
        except CannotStart as error:
            return error.problems
        keys, problems = await self._usable(config, compiled.secrets)
        if problems and not self._prepared.lenient:
            return problems
        self._complain([*compiled.complaints, *problems])
        waits = [name for name in RESTART if getattr(wanted, name) != fixed[name]]
        self._tell_of_restart(waits)
        self.desired = self.newest = compiled.revision or content_hash(wanted)
        revision = content_hash(config) if waits else self.desired
        if config == self.config and keys == self._keys:
            self.revision = revision
            self.events.config_unchanged(self.desired)
            return []
        for warning in compiled.warnings:
            self.events.warned(warning)
        return await self._swap(config, keys, changed_parts(self.config, config, keys != self._keys), revision)

    async def _usable(self, config: EngineConfig, secrets: dict[str, bytes]) -> tuple[Keys, list[str]]:
        """The pairs that can be served, and what is wrong with others; the last good one serves on for them."""
        last = self._keys.certificates
        pairs, problems = await asyncio.to_thread(certificates.usable, config, secrets, last)
        complete = await asyncio.to_thread(self._prepared.logins.complete, config, secrets)
        complete = await asyncio.to_thread(self._prepared.keyring.complete, config, complete)
        return Keys(complete, pairs), problems

    def _complain(self, complaints: list[str]) -> None:
        for one in complaints:
            if one not in self.complaints:
                self.events.warned(one)
        self.complaints = complaints

    def _tell_of_restart(self, fields: list[str]) -> None:
        if fields and fields != self.restart_for:
            self.events.restart_needed(fields)
        self.restart_for = fields

    async def _swap(self, config: EngineConfig, keys: Keys, changed: list[str], revision: str) -> list[str]:
        """Bind what is new, tell the workers, close what is gone; or undo it all and say why."""
        try:
            change = self.ports.change(config)
        except BindFailed as error:
            return str(error).splitlines()
        problems = await self.crew.swap(config, keys, revision)
        if problems:
            self.ports.undo(change)
            for problem in await self.crew.swap(self.config, self._keys, self.revision):
                self.events.warned(f"the old configuration could not be restored: {problem}")
            return problems
        self.ports.finish(change)
        self.config, self._keys, self.revision = config, keys, revision
        self._swapped.set()
        self.authorities.poke()
        self.proof.poke()
        self._tell_of_listeners()
        self.events.config_swapped(revision, changed)
        return []

    def _run(self, work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception as error:
            self.events.internal_error("supervisor", error)


def changed_parts(old: EngineConfig, new: EngineConfig, is_keys: bool) -> list[str]:
    """The names of the fields that differ, for the log."""
    fields = [name for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name)]
    return fields + (["secrets or certificates"] if is_keys else [])
