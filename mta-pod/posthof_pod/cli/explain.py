"""`posthof explain --from A --to B [--client IP]`: what would become of this mail, and why.

Asks the same code as a worker does (admit/policy, admit/recipients, admit/route, resolve/) and sends nothing: with
the manifests of the folder, or with `--running` (in a pod always) with what the house here runs. DNS is asked for the
hosts; `--no-dns` leaves that out. Exit 0: taken, 1: refused.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from posthof_crds import names
from posthof_crds.engine import ActionKind, EngineConfig, ListenerRole, RecipientCheck, TLSLevel
from posthof_pod.admin import client
from posthof_pod.admit.policy import CompiledPolicy, Explanation, Facts, Verdict, headers_of
from posthof_pod.admit.recipients import Recipients
from posthof_pod.admit.route import Routes
from posthof_pod.cli import check
from posthof_pod.cli.effective import action
from posthof_pod.model import Destination, DestinationKind, Envelope, Host, PolicyType, Recipient
from posthof_pod.replies import Failure, Reply

_TLS = {
    TLSLevel.NONE: "None: plain text, also where TLS is offered",
    TLSLevel.MAY: "May: used where it is offered, plain text otherwise",
    TLSLevel.ENCRYPT: "Encrypt: demanded, any certificate",
    TLSLevel.VERIFY: "Verify: demanded, with a certificate valid for the host's name",
    TLSLevel.DANE: "DANE: demanded, with a certificate that the host's TLSA records name",
    TLSLevel.MTASTS: "MTASTS: demanded, as the domain's MTA-STS policy says",
    TLSLevel.BEST: "Best: the strictest that the destination publishes",
}
_DNS_SECONDS = 20.0


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("explain", help="which rule decides about a mail, and where it would go")
    add_question(parser)
    parser.add_argument("--running", action="store_true", help="ask the running house and not a folder")
    client.add_arguments(parser)
    parser.set_defaults(run=run)


def add_question(parser: argparse.ArgumentParser) -> None:
    """What is asked: the same for manifests, a running house, and an MTA in a cluster."""
    parser.add_argument("--from", dest="sender", metavar="ADDRESS", default="", help="the sender; default: <>")
    parser.add_argument("--to", dest="recipient", metavar="ADDRESS", required=True, help="the recipient")
    parser.add_argument("--client", metavar="IP", default="", help="the client's address; default: not known")
    parser.add_argument("--credential", metavar="NAME", default="", help="the SMTPCredential it has logged in as")
    roles = ["MX", "Internal", "Submission", "Submissions"]
    parser.add_argument("--role", choices=roles, help="the listener's role; default: the first one's")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE", help="a header of the mail")
    parser.add_argument("--no-dns", action="store_true", help="do not look up hosts")


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    policy = _running(args) if args.running or _is_in_pod(args) else _of_folder(args)
    if policy is None:
        return 1
    facts = _facts(args, policy.config)
    doubted = facts.client if policy.is_doubtful(facts.role) else ""
    question = [*_question(facts, doubted), ""]
    facts = facts._replace(client="") if doubted else facts
    answer = _taken(policy, facts)
    for line in [*question, *_rules(policy.explain(facts, doubted=doubted), facts), ""]:
        print(line)
    if isinstance(answer, Reply):
        print(f"At RCPT TO it is refused: {answer}")
        return 1
    for line in asyncio.run(_ways(policy, facts, answer, with_dns=not args.no_dns)):
        print(line)
    return 0


def _is_in_pod(args: argparse.Namespace) -> bool:
    return bool(os.environ.get("POSTHOF_MTA")) and not args.folder


def _of_folder(args: argparse.Namespace) -> CompiledPolicy | None:
    """What the manifests of a folder say; None: they have errors, which are told."""
    from posthof_crds.compile import compile as compile_manifests
    from posthof_crds.load import load
    from posthof_crds.problems import Invalid

    try:
        return CompiledPolicy(compile_manifests(load(Path(args.folder or ".")), Path.cwd()))
    except Invalid as invalid:
        check.tell("error", invalid.errors)
        return None


def _running(args: argparse.Namespace) -> CompiledPolicy | None:
    """What runs, and in which selections of pods the client is."""
    try:
        house = client.connect(args)
        policy = CompiledPolicy(msgspec.convert(house.get("/api/v1/config")["config"], EngineConfig))
        if args.client:
            pods = house.get(f"/api/v1/client/{urllib.parse.quote(args.client, safe='')}")["pods"]
            policy.know_pods({args.client: tuple(pods)})
    except client.AdminError as error:
        print(error, file=sys.stderr)
        return None
    return policy


def _facts(args: argparse.Namespace, config: EngineConfig) -> Facts:
    role = args.role or str(config.listeners[0].role if config.listeners else ListenerRole.MX)
    block = "".join(f"{header}\r\n" for header in args.header).encode()
    wanted = {name.partition(":")[0].strip().lower() for name in args.header}
    headers = headers_of(block, wanted) if args.header else None
    sender, recipient = args.sender.strip("<>"), args.recipient.strip("<>")
    return Facts(role, args.client, sender, recipient, headers, credential=args.credential)


def _taken(policy: CompiledPolicy, facts: Facts) -> Reply | tuple[Recipient, ...]:
    """What RCPT TO would answer; callouts count as yes."""
    from posthof_pod.resolve.own import is_local_address

    answer = Recipients(policy, is_own=is_local_address).resolve(facts)
    assert isinstance(answer, Reply | tuple), "nothing is asked without a callout"
    return answer


def _question(facts: Facts, doubted: str) -> Iterator[str]:
    came = f"client {facts.client}" if facts.client else "a client without an address (--client)"
    yield f"From <{facts.sender}> to <{facts.recipient}>, {came}, listener role {facts.role}"
    if doubted:
        yield "No rule believes this address: mail to this role may come through a node's address translation"
        yield "(the MTA's condition ClientIPPreserved), so what looks like a trusted client may be anybody."


def _rules(explanation: Explanation, facts: Facts) -> Iterator[str]:
    decision = explanation.decision
    domain = names.split(facts.recipient)[1]
    if not domain:
        yield "The address has no domain: only postmaster is known that way, and always taken."
        return
    ours = f"ours: MailDomain {decision.domain.name}" if decision.domain else "not ours"
    yield f"{domain} is {ours}."
    if explanation.asked:
        yield "Rules, in the order they are asked:"
    for asked in explanation.asked:
        mark = "->" if asked.rule is decision.rule else "  "
        yield f"  {mark} {asked.rule.name} (priority {asked.rule.priority}, {asked.rule.action.kind}): {asked.why}"
    yield f"Decided by {_decided(explanation)}"
    if not decision.is_final:
        yield "A rule with headers may change this after DATA; give them with --header."


def _decided(explanation: Explanation) -> str:
    decision = explanation.decision
    if decision.rule is not None:
        return f"RelayPolicy {decision.rule.name}: {action(decision.rule)}"
    if decision.domain is not None:
        return f"MailDomain {decision.domain.name}: {decision.domain.mode}"
    if decision.verdict is Verdict.REFUSE:
        return "the built-in rule: no RelayPolicy lets this mail out"
    return "the built-in rule: mail of our own goes Direct"


async def _ways(
    policy: CompiledPolicy, facts: Facts, recipients: tuple[Recipient, ...], *, with_dns: bool
) -> list[str]:
    """One block for each recipient."""
    routes = Routes(policy)
    lines: list[str] = []
    resolver = None
    if with_dns:
        from posthof_pod.resolve.assembly import assemble

        resolver = assemble(policy.config, rng=random.random).resolver
    for recipient in recipients:
        came = f" (by {facts.recipient})" if recipient.original else ""
        lines.append(f"{recipient.address}{came}")
        ours = policy.domains.get(names.split(recipient.address)[1])
        if ours is not None and ours.check is RecipientCheck.CALLOUT:
            lines.append("    if the next hop says that it exists (callout)")
        kind = routes.disposition(recipient)
        if kind is ActionKind.DISCARD:
            lines.append("    accepted and forgotten")
            continue
        if kind is ActionKind.HOLD:
            lines.append("    kept in the queue until it is released; then:")
        envelope = Envelope("", facts.sender, recipients, 0.0, 0, facts.client, role=facts.role)
        destination = routes.destination(envelope, recipient)
        if destination is None:
            lines.append("    nowhere: it would wait with the reason NoRoute")
            continue
        if destination.rule:
            lines.append(f"    as RelayPolicy {destination.rule} says")
        lines += [f"    {line}" for line in _destination(destination, recipient, policy.config)]
        if destination.kind is not DestinationKind.LOCAL and resolver is not None:
            lines += [f"    {line}" for line in await _hosts(resolver, destination)]
    return lines


def _destination(destination: Destination, recipient: Recipient, config: EngineConfig) -> Iterator[str]:
    if destination.kind is DestinationKind.LOCAL:
        from posthof_pod.deliver.drop import folder_of

        folder = folder_of(config.domains[destination.name], recipient.address)
        yield f"into the Maildir {'/'.join((config.mail_root, *folder))}"
        return
    words = {
        DestinationKind.DIRECT: f"to the MX hosts of {destination.name}",
        DestinationKind.SMARTHOST: f"by SMTP to {', then '.join(hop.name for hop in destination.hops)}",
        DestinationKind.LMTP: f"by LMTP to {', then '.join(hop.name for hop in destination.hops)}",
    }
    yield words[destination.kind]
    yield f"TLS {_TLS[destination.tls]}"
    egress = destination.egress
    source = " or ".join(address for address in (egress.ipv4, egress.ipv6) if address)
    yield f"as {egress.helo or config.hostname}, from {source or 'the address the kernel chooses'}"
    if destination.username is not None:
        yield f"with the login in Secret {destination.username.name}"


async def _hosts(resolver: Any, destination: Destination) -> list[str]:
    """The hosts in the order of the tries, or why there are none."""
    try:
        async with asyncio.timeout(_DNS_SECONDS):
            route = await resolver.route(destination, time.time())
    except Failure as failure:
        return [f"no hosts: {failure.reason} ({failure.reply})"]
    except TimeoutError:
        return [f"no hosts: DNS did not answer within {_DNS_SECONDS:.0f} s"]
    lines = ["hosts, in the order of the tries:"]
    for number, host in enumerate(route.hosts, 1):
        place = f"[{host.address}]:{host.port}" if host.port else host.address
        line = f"  {number}. {host.name}{place}" if host.port else f"  {number}. {place}"
        lines.append(f"{line}, {_demanded(host)}" if host.demand is not None else line)
    return lines


def _demanded(host: Host) -> str:
    """What the destination publishes about TLS with this host."""
    demand = host.demand
    if demand is None or demand.policy is PolicyType.NONE:
        return "TLS as May: nothing is published"
    if demand.policy is PolicyType.STS:
        mode = "testing" if demand.is_testing else "enforced"
        return f"MTA-STS of {demand.domain} ({mode}): a certificate valid for the host's name"
    if demand.level is TLSLevel.DANE:
        return f"DANE: {'; '.join(text[:24] for text in demand.text)}"
    return "DANE: TLS, any certificate (no TLSA record can be used)"
