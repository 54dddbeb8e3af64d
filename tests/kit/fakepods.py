"""Pods of an MTA as the operator sees them: each has an address on loopback and answers GET /report with the key.

A pod takes the configuration that stands in the ConfigMaps of the API server beside it, at once, unless it is told to
`lag` or to `refuse`.

    async with FakePods(server) as pods:
        pods.deploy("edge", "ns")        # as many as the Deployment wants, ready
"""

from __future__ import annotations

import base64

import msgspec
from aiohttp import web

from kit.fakeapi import FakeApi
from posthof_crds.report import ClientCounts, Load, QueueCounts, Report, ServedCertificate, SpoolState, TakeOver
from posthof_crds.shards import Incomplete, revision_of


class FakePods:
    """`port` is the one to ask on; `lag`: pods that stay at a revision; `refuse`: pod -> why."""

    def __init__(self, server: FakeApi) -> None:
        self._server = server
        self.lag: dict[str, str] = {}
        self.refuse: dict[str, str] = {}
        self.queue: dict[str, QueueCounts] = {}
        self.spool: dict[str, SpoolState] = {}
        self.load: dict[str, Load] = {}
        self.take_overs: dict[str, tuple[TakeOver, ...]] = {}
        self.certificates: dict[str, ServedCertificate] = {}
        self.clients: ClientCounts | None = None
        self.silent: set[str] = set()
        self.asked = 0
        self._ips: dict[str, tuple[str, str]] = {}  # ip -> pod, MTA's namespace/name

    async def __aenter__(self) -> FakePods:
        app = web.Application()
        app.router.add_get("/report", self._report)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def deploy(self, name: str, namespace: str, *, node: str = "node-a") -> list[str]:
        """Play the Deployment's controller and the kubelets. Returns the pods' names."""
        ips = {
            pod: await self._address(pod, f"{namespace}/{name}") for pod in self._server.wanted_pods(name, namespace)
        }
        return self._server.deployed(name, namespace, ips=ips, node=node)

    async def _address(self, pod: str, mta: str) -> str:
        for ip, known in self._ips.items():
            if known == (pod, mta):
                return ip
        ip = f"127.0.0.{10 + len(self._ips)}"
        self._ips[ip] = (pod, mta)
        await web.TCPSite(self._runner, ip, self.port).start()
        return ip

    def token(self, mta: str) -> str:
        namespace, _, name = mta.partition("/")
        secret = self._server.get("Secret", f"{name}-report", namespace)
        assert secret is not None
        return base64.b64decode(secret["data"]["token"]).decode()

    def revision(self, mta: str) -> str:
        namespace, _, name = mta.partition("/")
        found = {n: self._server.get("ConfigMap", f"{name}-config-{n}", namespace) for n in range(8)}
        shards = {n: base64.b64decode(raw["binaryData"]["config"]) for n, raw in found.items() if raw}
        try:
            return revision_of(shards)
        except Incomplete:
            return ""

    async def _report(self, http: web.Request) -> web.Response:
        ip = http.transport.get_extra_info("sockname")[0]
        if ip not in self._ips:
            return web.Response(status=503)  # it has no address of its own yet
        pod, mta = self._ips[ip]
        self.asked += 1
        if pod in self.silent:
            return web.Response(status=503)
        if http.headers.get("Authorization") != f"Bearer {self.token(mta)}":
            return web.Response(status=401)
        newest = self.revision(mta)
        report = Report(
            pod=pod,
            node="node-a",
            version="0.1.0",
            revision=self.lag.get(pod, newest),
            desired=newest,
            refused=(self.refuse[pod],) if pod in self.refuse else (),
            ready=True,
            queue=self.queue.get(pod, QueueCounts()),
            spool=self.spool.get(pod, SpoolState()),
            load=self.load.get(pod, Load()),
            take_overs=self.take_overs.get(pod, ()),
            certificates=self.certificates,
            clients=self.clients,
        )
        return web.Response(body=msgspec.json.encode(report), content_type="application/json")
