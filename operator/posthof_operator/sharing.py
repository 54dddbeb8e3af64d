"""What an MTA's reconcile knows that others need: verdicts about objects, selections of pods, what pods report.

Rules of this file
- Whoever is concerned by a change is woken, and nobody else: ten thousand domains do not move for one.
"""

from __future__ import annotations

from collections.abc import Mapping

from posthof_crds.report import Report
from posthof_operator.assembly import Assembly
from posthof_operator.desired import Desired
from posthof_operator.resources import Key
from posthof_operator.world import Judged, Selections, World

ROOMS = {"MailDomain": "domains", "RelayPolicy": "policies", "AccessPolicy": "access", "SMTPCredential": "accounts"}
_NOTHING = Judged({}, {})


def share(world: World, key: Key, assembly: Assembly) -> None:
    """Verdicts, for the objects' own statuses. An MTA that never was right says nothing about anybody."""
    verdicts = {Key(one.kind, one.namespace, one.name): one for one in assembly.fleet.verdicts}
    old, fresh = world.judged.get(key), Judged(verdicts, assembly.generations)
    world.judged[key] = fresh
    if old is not None and old.verdicts == fresh.verdicts and old.generations == fresh.generations:
        return
    before = old or _NOTHING
    for one, generation in fresh.generations.items():
        is_new = before.generations.get(one) != generation or before.verdicts.get(one) != verdicts.get(one)
        if is_new and one.kind in ROOMS:
            world.enqueue(one, room=ROOMS[one.kind])


def share_selections(world: World, key: Key, want: Desired, assembly: Assembly) -> None:
    """Pods that rules are about, for the room that lists them."""
    fresh = Selections(want, assembly.fleet.selections)
    old = world.selections.get(key)
    world.selections[key] = fresh
    if old is None or old.pods != fresh.pods or old.want.uid != want.uid:
        world.enqueue(key, room="workloads")


def share_reports(world: World, key: Key, reports: Mapping[str, Report]) -> None:
    """What pods say, for the certificates' statuses."""
    old = world.reports.get(key, {})
    world.reports[key] = dict(reports)
    if _held(old) != _held(reports):
        for credential in list(world.store.keys("SMTPCredential")):
            world.enqueue(credential)
    if _served(old) != _served(reports):
        for cert in list(world.store.keys("TLSCert", key.namespace)):
            world.enqueue(cert)


def withdraw(world: World, key: Key) -> None:
    """The MTA is gone: what it said is said no more."""
    old = world.judged.pop(key, _NOTHING)
    for kind in ("Secret", "ConfigMap"):
        world.referred.pop((key, kind), None)
    world.selections.pop(key, None)
    share_reports(world, key, {})
    world.reports.pop(key, None)
    world.enqueue(key, room="workloads")
    for one in old.generations:
        if one.kind in ROOMS:
            world.enqueue(one, room=ROOMS[one.kind])


def _held(reports: Mapping[str, Report]) -> set[tuple[str, str]]:
    """The accounts whose mail is held, and why."""
    return {(name, use.held) for report in reports.values() for name, use in report.accounts.items() if use.held}


def _served(reports: Mapping[str, Report]) -> dict[str, tuple[dict[str, str], tuple[str, ...]]]:
    return {
        pod: ({name: one.serial for name, one in report.certificates.items()}, report.challenges)
        for pod, report in reports.items()
    }
