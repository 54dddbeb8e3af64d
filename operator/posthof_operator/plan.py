"""What shall be so, about one MTA: its children, and what is left over. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from posthof_crds.engine import EngineConfig
from posthof_crds.shards import TooLarge, key_shards
from posthof_operator import children
from posthof_operator.desired import Desired, needs_restart
from posthof_operator.placement import Placement, place
from posthof_operator.resources import Key, Raw, key_of
from posthof_operator.settings import Settings
from posthof_operator.snapshot import Seen

_json = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`children` in the order they are applied; `leftovers` are ours and wanted no more."""

    want: Desired
    placement: Placement
    children: tuple[Raw, ...]
    leftovers: tuple[Key, ...]
    too_large: str = ""


def decide(seen: Seen, settings: Settings, *, count: int | None = None) -> Plan:
    """Everything that shall be there. Only for a Seen whose assembly is usable. `count`: how many pods, where that is
    not what spec.replicas says."""
    assembly, spec = seen.assembly, seen.spec
    config = assembly.fleet.config
    assert config is not None
    assert spec is not None
    asked = spec if count is None else spec.model_copy(update={"replicas": count})
    placement = place(asked, _access_modes(seen))
    too_large = assembly.too_large
    try:
        keys = tuple(key_shards(assembly.keys))
    except TooLarge as error:
        keys, too_large = (), str(error)
    want = Desired(
        namespace=seen.key.namespace,
        name=seen.key.name,
        uid=seen.uid,
        spec=spec,
        spec_text=_json(assembly.mta["spec"]).decode(),
        image=spec.pod_template.image or settings.pod_image,
        replicas=placement.replicas,
        is_one_node=placement.is_one_node,
        restart=hashlib.sha256(_json(needs_restart(config))).hexdigest()[:16],
        config=assembly.shards,
        keys=keys,
        token=seen.token,
        has_pod_monitors=seen.has_pod_monitors,
        has_keda=seen.has_keda,
        web=web_ports(config),
        is_draining=seen.is_deleting,
    )
    made = tuple(children.build(want))
    return Plan(
        want=want,
        placement=placement,
        children=made,
        leftovers=leftovers(seen, want, made, are_keys_known=bool(keys)),
        too_large=too_large,
    )


def web_ports(config: EngineConfig) -> tuple[int, ...]:
    """Where the world asks something else than mail."""
    ports = {one.http01_port for one in config.certificates.values() if one.http01_port}
    return tuple(sorted(ports | ({config.policy_server.service_port} if config.policy_server else set())))


def leftovers(seen: Seen, want: Desired, made: tuple[Raw, ...], *, are_keys_known: bool = True) -> tuple[Key, ...]:
    """Ours by label and by owner, and not among those wanted. A claim is never one: mail is in it. Neither is the
    list of pods, which has a room of its own."""
    wanted = {key_of(child) for child in made}
    kept = {want.pods_name} | (set() if are_keys_known else {want.keys_name(n) for n in range(8)})
    return tuple(
        key
        for key, held in seen.children.items()
        if key not in wanted
        and key.kind != "PersistentVolumeClaim"
        and key.name not in kept
        and held.owner == seen.uid
    )


def _access_modes(seen: Seen) -> tuple[str, ...]:
    """Of the claim that is there, or that will be."""
    if seen.claim is not None:
        return tuple(seen.claim["spec"].get("accessModes", ()))
    assert seen.spec is not None
    return () if seen.spec.spool.existing_claim else (str(seen.spec.spool.access_mode),)
