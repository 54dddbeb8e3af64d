"""Who is to be asked again when something in the store changed. Takes note only; the queue does the rest.

What is wanted of an MTA is made of nearly everything, so nearly every change wakes the MTAs; what nothing new follows
from costs one look at a memo (assembly.py).
"""

from __future__ import annotations

from posthof_operator.owned import domain_of, owned
from posthof_operator.resources import MTA_LABEL, Key
from posthof_operator.store import Change
from posthof_operator.world import World

TOGETHER = 0.05  # seconds in which changes of several objects are taken as one
CONFIG = ("MailDomain", "RelayPolicy", "AccessPolicy", "SMTPCredential", "DKIMKey", "TLSCert")
CHILDREN = (
    "Deployment",
    "Service",
    "PersistentVolumeClaim",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PodMonitor",
    "HorizontalPodAutoscaler",
    "ScaledObject",
)


def follow(world: World) -> None:
    """From now on, changes in the store wake who they concern."""
    world.store.listeners.append(lambda key, change: _wake(world, key, change))


def _wake(world: World, key: Key, change: Change) -> None:
    if change is Change.NONE:
        return
    is_meant = change is Change.MEANING
    if key.kind == "MTA":
        if is_meant:
            world.enqueue(key)
    elif key.kind in CONFIG:
        _wake_config(world, key, is_meant)
    elif key.kind == "Namespace":
        if is_meant:
            world.enqueue_all("MTA", TOGETHER)
    elif key.kind == "Pod":
        _wake_pod(world, key)
    elif key.kind in CHILDREN:
        _wake_owner(world, key)
    elif key.kind in ("Secret", "ConfigMap"):  # known by their metadata: any new version may be a new content
        _wake_owner(world, key)
        _wake_referrers(world, key)


def _wake_referrers(world: World, key: Key) -> None:
    """Whose configuration is made of it, also while it is not there; and every TLSCert beside a Secret."""
    name = f"{key.namespace}/{key.name}"
    for (mta, kind), names in list(world.referred.items()):
        if kind == key.kind and name in names:
            world.enqueue(mta, TOGETHER, room="mta")
    if key.kind == "Secret":
        for cert in list(world.store.keys("TLSCert", key.namespace)):
            world.enqueue(cert)
        account = Key("SMTPCredential", key.namespace, key.name.removesuffix("-smtp"))
        if key.name.endswith("-smtp") and world.store.held(account) is not None:
            world.enqueue(account, TOGETHER)  # its password was removed, or is there now


def _wake_config(world: World, key: Key, is_meant: bool) -> None:
    if key.kind in ("DKIMKey", "MailDomain"):
        _wake_signers(world, key, is_meant)
    if is_meant:
        world.enqueue(key)
        world.enqueue_all("MTA", TOGETHER)
    elif key.kind == "MailDomain":
        world.enqueue(key, room="domains")  # its DNSReady, written by the other room, is part of Ready
        world.enqueue(key, room="dns")  # and that one goes by the bindings
        if "dkim-domains" in world.rooms:
            world.enqueue(key, room="dkim-domains")  # and so does this one
    elif key.kind == "TLSCert":
        world.enqueue_all("MTA", TOGETHER, room="mta")  # CertificatesReady


def _wake_signers(world: World, key: Key, is_meant: bool) -> None:
    """A key's phase says whether pods may sign with it, and its MailDomain tells of it."""
    if key.kind == "DKIMKey":
        raw = world.store.get(key)
        if raw is not None:
            domain = Key("MailDomain", key.namespace, domain_of(raw))
            for room in ("dkim-domains", "dns"):
                if room in world.rooms:
                    world.enqueue(domain, TOGETHER, room=room)
        elif "dkim-domains" in world.rooms:  # gone: its MailDomain may want another
            for domain in list(world.store.keys("MailDomain", key.namespace)):
                world.enqueue(domain, TOGETHER, room="dkim-domains")
        if not is_meant:
            world.enqueue_all("MTA", TOGETHER)
    elif is_meant:
        for each in owned(world.store).of(key.namespace, key.name):
            world.enqueue(each, TOGETHER)


def _wake_pod(world: World, key: Key) -> None:
    _wake_owner(world, key)
    world.enqueue_all("MTA", TOGETHER, room="workloads")


def _wake_owner(world: World, key: Key) -> None:
    """The MTA that a child or a pod is labelled with; when it is gone, all of that namespace."""
    held = world.store.held(key)
    names = [held.labels.get(MTA_LABEL, "")] if held else [mta.name for mta in world.store.keys("MTA", key.namespace)]
    for name in names:
        owner = Key("MTA", key.namespace, name)
        if name and world.store.held(owner) is not None:
            world.enqueue(owner, TOGETHER, room="mta")
