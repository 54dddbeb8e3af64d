"""What became of TLS, session by session, for the reports other domains ask for (TLS-RPT, RFC 8460 section 4).

Owns: the counts since they were last taken; reports/tlsrpt.py makes the reports. Counts and not sessions: a million
sessions a day with one provider are one row.

Rules
- Only mail that goes Direct counts: the policy domain is the recipient's.
- A session that came about counts once as a success, if it has what was demanded; what failed on the way to it (or
  instead of it) counts as a failure. Mail that then went in plain text is no success.
- What could not be found out before any session (a policy that cannot be fetched) is a failure too.
- Bounded: of more than `MOST` different rows the rest is not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from posthof_pod.deliver.opening import Fault
from posthof_pod.model import Destination, DestinationKind, Host, PolicyType, TLSFault
from posthof_pod.resolve.stspolicy import Policy

MOST = 20_000


class Way(msgspec.Struct, frozen=True, array_like=True):
    """How sessions failed. Empty where no session was tried."""

    kind: str  # RFC 8460 4.3
    mx: str = ""  # the host's name
    address: str = ""  # its address
    source: str = ""  # ours
    why: str = ""


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A session that had what was demanded, or a way in which one failed."""

    domain: str  # the recipient's: whom the report goes to
    type: str  # PolicyType
    text: tuple[str, ...]  # the policy
    mx: tuple[str, ...]  # its patterns
    failure: Way | None = None


class Ledger:
    """Counts. Take them with `take`."""

    def __init__(self) -> None:
        self._counts: Counter[Row] = Counter()

    def session(
        self, destination: Destination, host: Host, faults: Iterable[Fault], *, source: str, is_success: bool
    ) -> None:
        """A session was opened, or could not be. `faults`: what TLS did not do."""
        if destination.kind is not DestinationKind.DIRECT or destination.name.startswith("["):
            return
        demand = host.demand
        if demand is None:
            row = Row(destination.name, str(PolicyType.NONE), (), ())
        else:
            row = Row(destination.name, str(demand.policy), demand.text, demand.mx)
        if is_success:
            self._count(row)
        for fault in faults:
            way = Way(str(fault.kind), host.name, host.address, source, fault.why[:200])
            self._count(msgspec.structs.replace(row, failure=way))

    def policy_failed(self, domain: str, kind: str, why: str) -> None:
        """An MTA-STS policy could not be had (RFC 8460 4.3.2.2)."""
        self._count(Row(domain, str(PolicyType.STS), (), (), Way(kind, why=why[:200])))

    def outside(self, policy: Policy, host: str) -> None:
        """An MX host that the policy does not name."""
        way = Way(str(TLSFault.VALIDATION), host, why="the MX host is not in the policy")
        self._count(Row(policy.domain, str(PolicyType.STS), policy.lines(), policy.mx, way))

    def take(self) -> Counter[Row]:
        """The counts since the last time."""
        counts, self._counts = self._counts, Counter()
        return counts

    def _count(self, row: Row) -> None:
        if row in self._counts or len(self._counts) < MOST:
            self._counts[row] += 1
