"""`posthof pod`: the house as a pod of a cluster. The operator writes its configuration; this follows it.

The environment (the operator sets it): POSTHOF_MTA, POSTHOF_NAMESPACE, POSTHOF_POD, POSTHOF_POD_UID, POSTHOF_NODE.
For tests and unusual set-ups: POSTHOF_PUBLIC (address and port of health, metrics and report; ":8080"),
POSTHOF_MOUNTS (the folder with the mounted `config`, `keys` and `pods`; /etc/posthof), POSTHOF_REPORT_KEY (the file
with the operator's key), POSTHOF_ACCOUNT (the folder with the service account's token and ca.crt).

Rules of this file
- Nothing is refused for want of a configuration: the pod is alive and not ready, says what it waits for, and begins
  when it comes. What cannot begin (a port, a volume, a bad configuration) is tried again.
- No shell, no home folder, no name for its user, nothing writable but the spool, the state folder and /tmp is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posthof_pod.admin.compiled import Compiled
    from posthof_pod.admin.fleet import Home
    from posthof_pod.admin.prepare import Prepared
    from posthof_pod.admin.public import Front
    from posthof_pod.cluster.api import ApiServer
    from posthof_pod.cluster.source import ClusterSource
    from posthof_pod.observe.events import Events

STDOUT = 1
AGAIN = 5.0  # seconds until a start that failed is tried again, unless something new comes earlier
UNLIMITED = 4  # workers at most where the container has no CPU limit: a node's 64 CPUs are not ours
STOP = 30.0  # seconds for a clean stop once the settling is over: a slow client may end its message


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("pod", help="run as a pod of a cluster; its operator says what")
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="processes (default: the CPU limit)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status: 0 a clean stop, 1 no worker can be started, 2 it is not in a pod."""
    import uvloop

    mta, namespace = os.environ.get("POSTHOF_MTA", ""), os.environ.get("POSTHOF_NAMESPACE", "")
    if not (mta and namespace):
        print("posthof pod runs in a cluster: POSTHOF_MTA and POSTHOF_NAMESPACE name its MTA", file=sys.stderr)
        return 2
    return uvloop.run(_serve(mta, namespace, args.workers))


async def _serve(mta: str, namespace: str, workers: int) -> int:
    from posthof_pod.admin.public import Front, identity, serve_front
    from posthof_pod.cluster.api import in_cluster
    from posthof_pod.cluster.source import ClusterSource
    from posthof_pod.observe.events import Events
    from posthof_pod.observe.log import Log

    events = Events(Log(STDOUT, ""))
    events.attach(asyncio.get_running_loop())
    front = Front(identity())
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(serve_front(front, _public_sockets()))
        api = in_cluster(namespace)
        if api is not None:
            await stack.enter_async_context(api)
        source = ClusterSource(mta, api, events, _folders())
        following = asyncio.ensure_future(source.run())
        try:
            home = _home(api, mta)
            return await _until_stopped(_Pod(source, front, events, workers, home), following)
        finally:
            following.cancel()
            events.flush()


def _home(api: ApiServer | None, mta: str) -> Home | None:
    """None: there is no API server to keep a Lease at, so flock says who lives."""
    from posthof_pod.admin.fleet import Home
    from posthof_pod.cluster.leases import Me

    given = os.environ.get
    pod = given("POSTHOF_POD", "")
    if api is None or not pod:
        return None
    return Home(api, Me(mta, pod, given("POSTHOF_POD_UID", ""), given("POSTHOF_NODE", "")))


def _public_sockets() -> list[Any]:
    from posthof_crds.engine import HTTPSettings
    from posthof_crds.ports import HEALTH
    from posthof_pod.admin.prepare import bind_public

    host, _, port = os.environ.get("POSTHOF_PUBLIC", f":{HEALTH}").rpartition(":")
    return bind_public(HTTPSettings(host=host, port=int(port)))


def _folders() -> Any:
    from posthof_pod.cluster.mounted import Folders

    base = Path(os.environ.get("POSTHOF_MOUNTS", "") or "/etc/posthof")
    return Folders(base / "config", base / "keys", base / "pods")


async def _until_stopped(pod: _Pod, following: asyncio.Future[None]) -> int:
    """The house's life, ended early by a signal before there is a house, or by the end of the following (a bug)."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, stopped.set)  # the supervisor takes them over
    begin = asyncio.ensure_future(pod.begin())
    if not await _first(begin, stopped.wait(), following):
        return 0
    return await pod.live(begin.result())


async def _first(wanted: asyncio.Future[Any], stop: Awaitable[Any], other: asyncio.Future[None]) -> bool:
    """Whether `wanted` came before a stop. Raises what `other` raises."""
    stopping = asyncio.ensure_future(stop)
    await asyncio.wait((wanted, stopping, other), return_when=asyncio.FIRST_COMPLETED)
    is_wanted = wanted.done() and not stopping.done()
    stopping.cancel()
    wanted.cancel()
    if other.done():
        other.result()
    return is_wanted


class _Pod:
    """From nothing to a house: supervisor.Source for it, over the cluster's."""

    def __init__(self, source: ClusterSource, front: Front, events: Events, workers: int, home: Home | None) -> None:
        self._source, self._front, self._events, self._workers = source, front, events, workers
        self._home = home
        self._revision = ""

    def load(self) -> Compiled:
        from posthof_pod.admin.compiled import Compiled

        found = self._source.load()
        return Compiled(
            found.config, found.secrets, found.errors, revision=found.revision, complaints=found.complaints
        )

    async def changed(self) -> None:
        await self._source.changed()

    async def begin(self) -> Prepared:
        """Wait for a configuration that can be begun with."""
        told = ""
        while True:
            prepared, why = await self._try()
            if prepared is not None:
                return prepared
            self._front.waiting, self._front.desired = why, self._source.desired
            if why != told and self._source.has_looked:
                told = why
                self._events.waiting(why)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._source.changed(), AGAIN)

    async def _try(self) -> tuple[Prepared | None, str]:
        from posthof_pod.admin.prepare import CannotStart, Prepared, VolumeRefused

        if not self._source.has_looked:
            return None, "the configuration is being asked for"
        compiled = await asyncio.to_thread(self.load)
        if compiled.config is None:
            return None, "; ".join(compiled.errors)
        try:
            prepared = await asyncio.to_thread(
                Prepared,
                compiled.config,
                compiled.secrets,
                self._workers,
                lenient=True,
                has_public=False,
                unlimited=UNLIMITED,
            )
        except CannotStart as error:
            self._front.is_volume_refused = isinstance(error, VolumeRefused)
            return None, "; ".join(error.problems)
        self._front.is_volume_refused = False
        prepared.complaints[:0] = compiled.complaints
        self._revision = compiled.revision
        return prepared, ""

    async def live(self, prepared: Prepared) -> int:
        """The house, until it is stopped."""
        from posthof_pod.admin.supervisor import Supervisor

        supervisor = Supervisor(
            prepared,
            self,
            self._events,
            output=STDOUT,
            stop_within=STOP,
            revision=self._revision,
            home=self._home,
        )
        self._front.house = supervisor
        pods = asyncio.ensure_future(self._tell_pods(supervisor))
        try:
            return await supervisor.run()
        finally:
            pods.cancel()

    async def _tell_pods(self, supervisor: Any) -> None:
        while True:
            supervisor.know_pods(self._source.pods)
            await self._source.pods_changed()
