"""`posthof mtasts`: the MTA-STS and TLS-RPT side of our own domains, as the running house publishes it: policy, mode,
and the DNS records to publish. In a cluster the MailDomain's status says the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from posthof_crds import policytext
from posthof_crds.engine import EngineConfig
from posthof_pod.admin import client


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("mtasts", help="the MTA-STS policies of our domains, and the records to publish")
    parser.add_argument("--zone", action="store_true", help="nothing but the records, as lines of a zone file")
    client.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status: 1 where a policy that shall be enforced is not."""
    try:
        house = client.connect(args)
        config = msgspec.convert(house.get("/api/v1/config")["config"], EngineConfig)
        unproven = house.get("/api/v1/report").get("unproven") or {}
    except client.AdminError as error:
        print(error, file=sys.stderr)
        return 1
    found = list(zone(config, unproven) if args.zone else told(config, unproven))
    print("\n".join(found) if found else "no MailDomain asks for dns.mtaSts")
    return 1 if any(_waits(config, unproven)) else 0


def zone(config: EngineConfig, unproven: Mapping[str, str]) -> Iterator[str]:
    """Lines of a zone file."""
    for domain, text in _texts(config, unproven):
        yield f'_mta-sts.{domain}. 3600 IN TXT "{policytext.record(text)}"'
        yield f"mta-sts.{domain}. 3600 IN CNAME {config.hostname}."


def told(config: EngineConfig, unproven: Mapping[str, str]) -> Iterator[str]:
    """For people."""
    for domain, text in _texts(config, unproven):
        asked = config.domains[domain].mta_sts
        mode = next(line.partition(": ")[2] for line in text.splitlines() if line.startswith("mode: "))
        wanted = asked.mode if asked is not None else mode
        yield f"{domain}: {mode}" + ("" if mode == wanted else f", and {wanted} is asked for")
        yield f'  _mta-sts.{domain}. TXT "{policytext.record(text)}"'
        yield f"  mta-sts.{domain}. CNAME {config.hostname}."
    for host, why in sorted(unproven.items()):
        yield f"{host} does not prove itself: {why}"
    if config.policy_server is None and any(domain.mta_sts for domain in config.domains.values()):
        yield "The MTA has no mtaSts: something else has to serve the policies."


def _texts(config: EngineConfig, unproven: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, domain in config.domains.items():
        if domain.mta_sts is not None:
            hosts = policytext.hosts(domain.mta_sts, (config.hostname,))
            mode = policytext.mode(domain.mta_sts, hosts, unproven)
            yield name, policytext.text(domain.mta_sts, hosts, mode)


def _waits(config: EngineConfig, unproven: Mapping[str, str]) -> Iterator[str]:
    for name, text in _texts(config, unproven):
        asked = config.domains[name].mta_sts
        if asked is not None and f"mode: {asked.mode}\r\n" not in text:
            yield name
