"""A MailDomain's DKIM keys: made, changed for new ones and taken away as outbound.dkim.auto says; and DKIMReady.

Rules of this file
- What is to be done is posthof_certs.dkim.plan's to say; here the DKIMKeys are read and written.
- Keys that a person wrote are told of and never changed: ours carry the label MADE_FOR.
- A key's record leaves the zone before the object goes; while the server cannot be asked it stays.
"""

from __future__ import annotations

import datetime
import logging

from posthof_certs import dkim, zone
from posthof_certs.dkim import Auto, Drop, Held, Make, State, Step, Turn
from posthof_certs.zone import Record, Unpublished
from posthof_crds.maildomain import MailDomain
from posthof_crds.parts import MADE_FOR, read
from posthof_crds.reasons import Condition
from posthof_operator.api import ApiError
from posthof_operator.dkim import told
from posthof_operator.dkim.keys import Change, withdraw
from posthof_operator.dkim.told import Row
from posthof_operator.owned import owned
from posthof_operator.resources import GROUP, MANAGED_BY, MANAGER, PAUSED, RESOURCES, Key, Raw, owner_reference
from posthof_operator.telling import Voice, tell
from posthof_operator.world import Requeue, World

MADE = f"{GROUP}/dkim-made"  # and when it was made: by the clock that judges its age
SINCE = f"{GROUP}/dkim-since"  # annotation of a DKIMKey we made: when its state became so
LATER = 3600.0  # seconds: the longest wait for what time alone brings
RETRY = 60.0

VOICE = Voice(fields=frozenset({"dkim"}), types=frozenset({Condition.DKIM_READY}), manager=f"{MANAGER}-dkim")

log = logging.getLogger("posthof_operator.dkim")


class Domains:
    """The reconciler of a MailDomain's DKIM."""

    room = "dkim-domains"
    kind = "MailDomain"

    def __init__(self, *, remove: Change = zone.remove) -> None:
        self._remove = remove

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        raw = world.store.get(key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            return None
        if PAUSED in (raw["metadata"].get("annotations") or {}):
            return None
        keys = {each.name: world.store.get(each) for each in owned(world.store).of(key.namespace, key.name)}
        own = {name: one for name, one in keys.items() if one is not None}
        is_asked = bool(((raw.get("spec") or {}).get("outbound") or {}).get("dkim"))
        if not own and not is_asked and "dkim" not in (raw.get("status") or {}):
            return None  # nearly all of ten thousand: not even read
        model, flaws = read("MailDomain", raw)
        if not isinstance(model, MailDomain) or flaws:
            return None  # the other rooms say so
        made = [_held(one) for one in own.values() if (one["metadata"].get("labels") or {}).get(MADE_FOR) == key.name]
        auto = _auto(model)
        now = world.now()
        again = LATER
        for step in dkim.plan(made, auto, now.timestamp()):
            if not await self._take(step, key, raw, model, world):
                again = RETRY
        condition, status = told.of_domain(
            _wanted(model), [_row(name, one) for name, one in sorted(own.items())], unnamed=_unnamed(raw, model)
        )
        await tell(world, raw, [condition], {"dkim": status}, VOICE)
        wait = dkim.due(made, auto, now.timestamp())
        return Requeue(min(again, max(1.0, wait)) if wait is not None else again, "Rotation")

    async def _take(self, step: Step, key: Key, raw: Raw, model: MailDomain, world: World) -> bool:
        """One step. False: it has to be tried again."""
        log.info("%s: %s", key, step)
        now = world.now()
        if isinstance(step, Make):
            selector = dkim.new_selector(step.algorithm, now.timestamp())
            held = Held("", selector, step.algorithm, State.ACTIVE, 0.0, 0.0, bits=step.bits)
            world.store.put("DKIMKey", await world.api.create(_key(key, raw, held, now)))
            return True
        there = world.store.get(Key("DKIMKey", key.namespace, step.name))
        if there is None:
            return True
        if isinstance(step, Turn):
            body = _key(key, raw, _held(there)._replace(state=step.state), now)
            body["metadata"]["name"] = step.name
            made = (there["metadata"].get("annotations") or {}).get(MADE)
            body["metadata"]["annotations"] |= {MADE: made} if made else {}
            world.store.put("DKIMKey", await world.api.apply(body))
            return True
        return await self._drop(step, key, there, model, world)

    async def _drop(self, step: Drop, key: Key, there: Raw, model: MailDomain, world: World) -> bool:
        name = dkim.name_of(there["spec"]["selector"], model.spec.domain)
        try:
            shown = str(((there.get("status") or {}).get("record") or {}).get("expected") or dkim.REVOKED)
            records = [Record(name, "TXT", text) for text in dict.fromkeys((dkim.REVOKED, shown))]
            await withdraw(key.namespace, model, records, world, self._remove)
            await world.api.delete(Key("DKIMKey", key.namespace, step.name), uid=there["metadata"]["uid"])
        except (Unpublished, ApiError) as error:
            log.warning("%s: the record of %s is not taken out of the zone yet: %s", key, step.name, error)
            return False
        return True


def _auto(model: MailDomain) -> Auto | None:
    part = model.spec.outbound.dkim.auto if model.spec.outbound.dkim else None
    if part is None:
        return None
    return Auto(tuple(part.algorithms), part.size, part.rotation.interval, part.rotation.overlap)


def _unnamed(raw: Raw, model: MailDomain) -> str:
    """An MTA of another namespace that takes the domain by a selector: it is given no keys (posthof_crds.fleet)."""
    metadata = raw["metadata"]
    bindings = (raw.get("status") or {}).get("bindings") or ()
    foreign = [f"{one['namespace']}/{one['mta']}" for one in bindings if one["namespace"] != metadata["namespace"]]
    return foreign[0] if foreign and model.spec.mta_ref is None else ""


def _wanted(model: MailDomain) -> list[str]:
    """A name for each signature a message should get."""
    part = model.spec.outbound.dkim
    if part is None:
        return []
    return list(part.auto.algorithms) if part.auto else [ref.name for ref in part.key_refs or ()]


def _held(raw: Raw) -> Held:
    spec, metadata = raw["spec"], raw["metadata"]
    annotations = metadata.get("annotations") or {}
    made = _time(annotations.get(MADE)) or _time(metadata.get("creationTimestamp"))
    since = _time(annotations.get(SINCE)) or made
    seen = _time((raw.get("status") or {}).get("activeSince"))
    bits = int(spec.get("size", 2048))
    state = State(spec.get("state", "Active"))
    return Held(metadata["name"], spec["selector"], spec.get("algorithm", "RSA"), state, made, since, seen, bits)


def _row(name: str, raw: Raw) -> Row:
    status, spec = raw.get("status") or {}, raw["spec"]
    ready: Raw = next((one for one in status.get("conditions") or () if one["type"] == Condition.READY), {})
    mend = str(ready.get("message", "")) if ready.get("status") != "True" else ""
    record = str((status.get("record") or {}).get("name") or f"{spec['selector']}._domainkey")
    return Row(name, spec.get("algorithm", "RSA"), record, str(status.get("phase") or "Pending"), mend)


def _time(text: object) -> float:
    if not isinstance(text, str) or not text:
        return 0.0
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def _key(key: Key, owner: Raw, held: Held, now: datetime.datetime) -> Raw:
    """The object of a key that is made, or comes into another state. Its name follows from its selector."""
    algorithm, selector, state, bits = held.algorithm, held.selector, held.state, held.bits
    spec: Raw = {"domainRef": {"name": key.name}, "selector": selector, "algorithm": algorithm, "state": str(state)}
    if algorithm == "RSA":
        spec["size"] = bits
    moment = now.astimezone(datetime.UTC).isoformat(timespec="seconds")
    return {
        "apiVersion": RESOURCES["DKIMKey"].api_version,
        "kind": "DKIMKey",
        "metadata": {
            "namespace": key.namespace,
            "name": f"{key.name}-{selector}",
            "labels": {"app.kubernetes.io/name": "posthof", MANAGED_BY: MANAGER, MADE_FOR: key.name},
            "annotations": {MADE: moment, SINCE: moment},
            "ownerReferences": [owner_reference(owner, "MailDomain")],
        },
        "spec": spec,
    }
