"""Addresses that we made up for senders, on their way back: SRS of what we forwarded, BATV marks of our own.

Owns: Returns, one per worker, given new secrets with each configuration.

Rules of this file
- SRS: a bounce (null sender) to an address of our making goes to the sender it stands for; anything else at such an
  address is refused, whatever the sender. Its hash is what keeps this from being a relay.
- BATV: a mark of our making is taken off; a false one is refused to bounces. Without a mark an address takes all
  mail, but no bounce from the world where marks are enforced; `postmaster` takes those too.
"""

from __future__ import annotations

from collections.abc import Callable

from posthof_crds import names
from posthof_crds.engine import Domain, EngineConfig, SecretRef
from posthof_crds.mailboxes import POSTMASTER
from posthof_pod.config.secrets import Secrets, lines
from posthof_pod.mailauth import batv, srs
from posthof_pod.replies import Reply

NOT_OURS = Reply(550, "5.7.1", "We never sent mail from this address")
TOO_LATE = Reply(550, "5.1.6", "This address is not valid any more")
NOT_YET = Reply(451, "4.3.5", "This address cannot be checked at the moment, try again later")


class Returns:
    """`clock`: unix seconds."""

    __slots__ = ("_clock", "_secrets")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._secrets: dict[SecretRef, tuple[bytes, ...]] = {}

    def take(self, config: EngineConfig, secrets: Secrets) -> None:
        """Secrets that are missing leave their domain's addresses unchecked: 451 until they come."""
        self._secrets = {}
        for domain in config.domains.values():
            outbound = domain.outbound
            for ref in (outbound.srs, outbound.batv) if outbound is not None else ():
                if ref is not None and ref not in self._secrets:
                    try:
                        self._secrets[ref] = lines(secrets, ref)
                    except LookupError:
                        continue  # the signer has told

    def real(self, domain: Domain, local: str, sender: str, *, is_world: bool) -> Reply | str | None:
        """See recipients.Returning."""
        outbound = domain.outbound
        if outbound is None:
            return None
        if outbound.srs is not None and srs.is_ours(local):
            return self._forwarded(self._secrets.get(outbound.srs), local, sender)
        if outbound.batv is not None:
            is_bounce = not sender and is_world
            return self._marked(self._secrets.get(outbound.batv), domain, local, is_bounce=is_bounce)
        return None

    def _forwarded(self, secrets: tuple[bytes, ...] | None, local: str, sender: str) -> Reply | str:
        if secrets is None:
            return NOT_YET
        if sender:
            return NOT_OURS
        try:
            return srs.reverse(local, secrets, self._clock())
        except srs.BadSRS as error:
            return TOO_LATE if "old" in str(error) else NOT_OURS

    def _marked(
        self, secrets: tuple[bytes, ...] | None, domain: Domain, local: str, *, is_bounce: bool
    ) -> Reply | str | None:
        outbound = domain.outbound
        if not batv.is_marked(local):
            is_enforced = outbound is not None and outbound.batv_enforced
            if is_enforced and is_bounce and names.fold(local) != POSTMASTER:
                return NOT_OURS
            return None
        if secrets is None:
            return NOT_YET
        plain = f"{batv.plain(local)}@{domain.domain}"
        if is_bounce and not batv.is_valid(f"{local}@{domain.domain}", secrets, self._clock()):
            return NOT_OURS
        return plain
