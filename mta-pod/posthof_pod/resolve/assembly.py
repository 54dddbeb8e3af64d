"""The resolver a worker, or `posthof explain`, uses: its parts put together as the configuration says."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from posthof_crds.engine import EngineConfig
from posthof_pod.replies import Failure
from posthof_pod.resolve import https, sts, stspolicy
from posthof_pod.resolve.cache import Cache
from posthof_pod.resolve.demands import Demands
from posthof_pod.resolve.hosts import HostsFile
from posthof_pod.resolve.mx import Resolver
from posthof_pod.resolve.own import Own
from posthof_pod.resolve.sts import Policies
from posthof_pod.resolve.stspolicy import Policy
from posthof_pod.resolve.validation import Validation
from posthof_pod.resolve.wire import Wire


class Watch(Protocol):
    """Who is told of what destinations publish and cannot be used."""

    def validates(self, holds: bool, why: str) -> None:
        """Whether the resolver validates DNSSEC is known now, or has changed."""

    def sts_failed(self, domain: str, kind: str, why: str) -> None:
        """An MTA-STS policy could not be had. `kind`: a result type of RFC 8460."""

    def sts_outside(self, policy: Policy, host: str) -> None:
        """An MX host that its domain's policy does not name."""


class Unwatched:
    """A Watch for those who only ask."""

    def validates(self, holds: bool, why: str) -> None: ...
    def sts_failed(self, domain: str, kind: str, why: str) -> None: ...
    def sts_outside(self, policy: Policy, host: str) -> None: ...


class Resolution(NamedTuple):
    """`resolver.route(destination, now)` is what delivery needs; `cache` has the counters and other look-ups;
    `policies` the MTA-STS policies, to be refreshed once in a while."""

    resolver: Resolver
    cache: Cache
    wire: Wire
    policies: Policies


def assemble(
    config: EngineConfig,
    *,
    rng: Callable[[], float],
    listeners: Iterable[tuple[str, int]] | None = None,
    policy_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    is_keeping: bool = False,
    watch: Watch | None = None,
) -> Resolution:
    """`rng`: random numbers in [0, 1). `listeners`: what is bound in truth, where the ports are not the config's.

    `policy_context`: what hosts of MTA-STS policies must prove. `is_keeping`: keep the policies beside the spool.
    """
    wire = Wire(config.resolver)
    cache = Cache(wire.query)
    watch = watch or Unwatched()
    if listeners is None:
        listeners = [(listener.host, listener.port) for listener in config.listeners]

    async def fetch(domain: str) -> bytes:
        """The content at a policy host. Raises https.Failed."""
        host = stspolicy.policy_host(domain)
        try:
            addresses = await resolver.addresses(host, time.time())
        except Failure as failure:
            raise https.Failed(https.Fault.FETCH, f"{host}: {failure.reason}") from None
        return await https.get(
            host,
            stspolicy.PATH,
            addresses,
            port=config.https_port,
            context=policy_context(),
            most=stspolicy.LARGEST,
        )

    shelf = sts.Shelf(Path(config.spool.path) / sts.FOLDER) if is_keeping else None
    policies = Policies(cache.lookup, fetch, shelf, failed=watch.sts_failed)
    demands = Demands(cache.lookup, validation=Validation(wire.query, watch.validates), policies=policies)
    resolver = Resolver(
        cache.lookup,
        own=Own((config.hostname,), listeners),
        rng=rng,
        direct_port=config.direct_port,
        search=lambda: (wire.settings.search, wire.settings.ndots),
        hosts=HostsFile(time.monotonic),
        peek=cache.peek,
        demands=demands,
        outside_policy=watch.sts_outside,
    )
    return Resolution(resolver, cache, wire, policies)
