"""What outgoing sessions found out about TLS, told to the log, the counters and the ledger of reports.

It is the `Watch` of resolve/assembly.py, and hears of every session that was opened or refused.
"""

from __future__ import annotations

from typing import Protocol

from posthof_pod.deliver.connection import Connection, Unreachable
from posthof_pod.deliver.tlsledger import Ledger
from posthof_pod.model import Destination, Host, TLSFault
from posthof_pod.resolve.stspolicy import Policy


class Teller(Protocol):
    """observe.events.Events, as far as this speaks to it."""

    def tls_fallback(self, relay: str, why: str) -> None: ...
    def tls_failed(self, kind: str) -> None: ...
    def dnssec(self, holds: bool, why: str) -> None: ...
    def sts_failed(self, domain: str, kind: str, why: str) -> None: ...


class OutboundTLS:
    """One per worker."""

    def __init__(self, events: Teller) -> None:
        self._events = events
        self.ledger = Ledger()

    # --- sessions

    def opened(self, host: Host, destination: Destination, connection: Connection) -> None:
        """A session stands."""
        if connection.tls_failure:
            self._events.tls_fallback(connection.peer, connection.tls_failure)
        for fault in connection.faults:
            self._events.tls_failed(fault.kind)
        is_success = bool(connection.tls) and not connection.tls_failure
        source = connection.source
        self.ledger.session(destination, host, connection.faults, source=source, is_success=is_success)

    def refused(self, host: Host, destination: Destination, error: Unreachable) -> None:
        """No session came about; only what TLS had to do with it counts."""
        for fault in error.faults:
            self._events.tls_failed(fault.kind)
        if error.faults:
            self.ledger.session(destination, host, error.faults, source="", is_success=False)

    # --- before any session

    def validates(self, holds: bool, why: str) -> None:
        self._events.dnssec(holds, why)

    def sts_failed(self, domain: str, kind: str, why: str) -> None:
        self._events.sts_failed(domain, kind, why)
        self.ledger.policy_failed(domain, kind, why)

    def sts_outside(self, policy: Policy, host: str) -> None:
        self._events.sts_failed(
            policy.domain, TLSFault.VALIDATION, f"{host} is not in the policy, mode {policy.mode}"
        )
        self.ledger.outside(policy, host)
