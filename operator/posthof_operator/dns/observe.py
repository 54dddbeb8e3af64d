"""Asking DNS everything that a MailDomain's rows are judged by.

Rules of this file
- One question that is not answered spoils its own part of `Seen` and no other.
- As few questions as will do: no addresses where names decide, no parents where the domain has its own DMARC record.
"""

from __future__ import annotations

import asyncio

from posthof_operator.dns import dmarc, proof, spf, transport
from posthof_operator.dns.rows import Seen, Want
from posthof_operator.dns.spf import Ask, Judged
from posthof_operator.dns.wire import MX, Unanswered

HOSTS = 6  # MX hosts of others whose addresses are compared with ours


async def observe(want: Want, ask: Ask) -> Seen:
    """What DNS says of `want.domain` now. Raises nothing that a server can cause."""
    looker = _Looker(want, ask)
    exchangers, texts, policies, challenge = await asyncio.gather(
        looker.mx(), looker.texts(want.domain), looker.policies(), looker.challenge()
    )
    sts, tls_rpt, policy_host, own_hosts = await looker.transport()
    foreign, own = await looker.addresses(exchangers or ())
    return Seen(
        mx=exchangers,
        foreign=foreign,
        own=own,
        txt=texts,
        spf=await looker.judged(texts),
        dmarc=policies,
        challenge=challenge,
        sts=sts,
        tls_rpt=tls_rpt,
        policy_host=policy_host,
        own_hosts=own_hosts,
        tlsa=await looker.tlsa(),
        troubles=tuple(sorted(looker.troubles)),
    )


class _Looker:
    def __init__(self, want: Want, ask: Ask) -> None:
        self._want, self._ask = want, ask
        self.troubles: set[str] = set()

    async def _values(self, name: str, kind: str) -> tuple[object, ...] | None:
        try:
            return (await self._ask(name, kind)).values
        except Unanswered as error:
            self.troubles.add(str(error))
            return None

    async def mx(self) -> tuple[MX, ...] | None:
        values = await self._values(self._want.domain, "MX")
        return None if values is None else tuple(value for value in values if isinstance(value, MX))

    async def texts(self, name: str) -> tuple[str, ...] | None:
        values = await self._values(name, "TXT")
        return None if values is None else tuple(str(value) for value in values)

    async def policies(self) -> dict[str, tuple[str, ...]] | None:
        """The tree walk, as far as it has to go."""
        found: dict[str, tuple[str, ...]] = {}
        if self._want.dmarc == "":
            return found
        names = dmarc.names(self._want.domain)
        for name in names if self._want.dmarc is None else names[:1]:
            texts = await self.texts(name)
            if texts is None:
                return None
            found[name] = texts
            if name == names[0] and not dmarc.needs_walk(texts):
                break
        return found

    async def challenge(self) -> tuple[str, ...] | None:
        return await self.texts(proof.name_of(self._want.domain)) if self._want.proof else ()

    async def transport(
        self,
    ) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None, tuple[str, ...] | None, tuple[str, ...]]:
        """What is published about TLS, of that which the MailDomain asks for: texts of MTA-STS and of TLS-RPT,
        addresses of the policy's host, and of our hosts to compare them with."""
        want = self._want
        reports = await self.texts(transport.reports_name(want.domain)) if want.tls_rpt else ()
        if want.policy is None:
            return (), reports, (), ()
        host = transport.host_name(want.domain)
        found = [await self._values(host, kind) for kind in ("A", "AAAA")]
        policy_host = None if None in found else tuple(str(one) for values in found for one in values or ())
        own = [address for ours in want.hosts for address in await self._addresses_of(ours)] if policy_host else []
        return await self.texts(transport.record_name(want.domain)), reports, policy_host, tuple(own)

    async def tlsa(self) -> dict[str, tuple[str, ...]]:
        """The TLSA records at each name that is asked for."""
        found = {name: await self._values(name, "TLSA") for name, texts in self._want.tlsa if texts}
        return {name: tuple(map(str, values)) for name, values in found.items() if values is not None}

    async def addresses(self, exchangers: tuple[MX, ...]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
        """Of the foremost MX hosts that are not ours by name, and of our own hosts to compare them with."""
        first = exchangers[0].preference if exchangers else 0
        hosts = [mx.host for mx in exchangers if mx.preference == first and mx.host]
        if not self._want.hosts or not hosts or any(host in self._want.hosts for host in hosts):
            return {}, ()
        foreign = {host: await self._addresses_of(host) for host in hosts[:HOSTS]}
        own = [address for host in self._want.hosts for address in await self._addresses_of(host)]
        return foreign, tuple(own)

    async def _addresses_of(self, host: str) -> tuple[str, ...]:
        found = await asyncio.gather(self._values(host, "A"), self._values(host, "AAAA"))
        return tuple(str(value) for values in found for value in values or ())

    async def judged(self, texts: tuple[str, ...] | None) -> dict[str, Judged]:
        """SPF for each address, where there is one record to judge."""
        if self._want.spf is not None or not texts or len(spf.records(texts)) != 1:
            return {}
        found: dict[str, Judged] = {}
        for address in self._want.egress:
            try:
                found[address] = await spf.check(address, self._want.domain, self._ask)
            except Unanswered as error:
                self.troubles.add(str(error))
        return found
