"""How names are proven to an ACME server, where nothing of a cluster is needed for it.

Rules of this file
- `present` returns when the server would see the proofs; `remove` may fail and says so to `warn`, for a proof that
  stays proves nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from posthof_certs import zone
from posthof_certs.acme import Proof, Refused
from posthof_certs.zone import Record, Server, Unpublished


class ByHTTP:
    """Whoever serves the certificate answers from the account's thumbprint: there is nothing to do."""

    type = "http-01"

    def present(self, proofs: Sequence[Proof]) -> None:
        """They answer already."""

    def remove(self, proofs: Sequence[Proof]) -> None:
        """They go on answering."""


class ByUpdate:
    """TXT records by dynamic updates (RFC 2136), which every authoritative server has to show. `resolver`: who is
    asked for these servers; `port`: theirs."""

    type = "dns-01"

    def __init__(self, server: Server, resolver: Sequence[str], port: int, *, warn: Callable[[str], object]) -> None:
        self._server, self._resolver, self._port, self._warn = server, resolver, port, warn

    def present(self, proofs: Sequence[Proof]) -> None:
        shown = records(proofs)
        try:
            zone.add(self._server, shown)
            zone.await_seen(shown, self._resolver, port=self._port)
        except Unpublished as error:
            raise Refused(f"the proof cannot be published: {error}") from None

    def remove(self, proofs: Sequence[Proof]) -> None:
        if not proofs:
            return
        try:
            zone.remove(self._server, records(proofs))
        except Unpublished as error:
            self._warn(f"a proof stays in DNS: {error}")


def records(proofs: Sequence[Proof]) -> list[Record]:
    """The records that show them (RFC 8555 8.4)."""
    return [Record(f"_acme-challenge.{proof.name}", "TXT", proof.text) for proof in proofs]
