"""Which MTA-STS policy of ours stands under which name, and what it is served with. wellknown.py serves it.

Rules of this file
- The text is `posthof_crds.policytext`'s, so its id is the one in DNS.
- No policy for a domain that asks for none, nor under another name than `mta-sts.<domain>`.
- `enforce` is served as `testing` while one of its MX hosts has not been seen to present a certificate that the world
  believes (mxproof.py).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from posthof_crds import names, policytext
from posthof_crds.engine import EngineConfig
from posthof_pod.listen.tls import Certificate, Pair, server_context

PREFIX = "mta-sts."


def policy_of(config: EngineConfig, unproven: Mapping[str, str], host: str) -> str | None:
    """The policy to serve at this host name; None: there is none. `unproven`: MX host -> why not enforced."""
    try:
        asked = names.to_ascii(host.partition(":")[0].rstrip("."))
    except ValueError:
        return None
    if not asked.startswith(PREFIX):
        return None
    domain = config.domains.get(asked.removeprefix(PREFIX))
    if domain is None or domain.mta_sts is None:
        return None
    hosts = policytext.hosts(domain.mta_sts, (config.hostname,))
    return policytext.text(domain.mta_sts, hosts, policytext.mode(domain.mta_sts, hosts, unproven))


def context_of(config: EngineConfig, pairs: Mapping[str, tuple[bytes, bytes]]) -> ssl.SSLContext | None:
    """What the policy server presents; None while it has no certificate. Raises BadPair."""
    server = config.policy_server
    having = [name for name in (server.certificates if server else ()) if name in pairs]
    if not having:
        return None
    served = [Certificate(config.certificates[name].dns_names, (Pair(*pairs[name]),)) for name in having]
    return server_context(served)
