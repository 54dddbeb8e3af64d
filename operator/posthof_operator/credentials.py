"""The status of a SMTPCredential, and the Secret of one whose password is made here.

Rules of this file
- A made password is written once, in one request that fails where the Secret is there already: nobody's password is
  replaced because two operators looked at the same time. A Secret of that name that is somebody else's stays.
- What is in a Secret is never read here.
"""

from __future__ import annotations

import base64
import datetime
import secrets
import string

from posthof_crds.reasons import Condition, Reason
from posthof_crds.report import AccountUse
from posthof_operator import bindings
from posthof_operator.api import ApiError
from posthof_operator.conditions import Said, said
from posthof_operator.domains import is_judged, verdicts_of
from posthof_operator.policies import resolved
from posthof_operator.resources import MANAGED_BY, MANAGER, PAUSED, Key, Raw, owner_reference
from posthof_operator.telling import Voice, tell
from posthof_operator.world import Requeue, World

LOOK = 60.0  # seconds between two looks at what was sent
_LETTERS = string.ascii_letters + string.digits
VOICE = Voice(
    fields=frozenset({"observedGeneration", "bindings", "username", "secretName", "lastUsed", "messagesToday"}),
    types=frozenset(
        {
            Condition.READY,
            Condition.ACCEPTED,
            Condition.RESOLVED_REFS,
            Condition.USABLE,
            Condition.UNSUSPICIOUS,
            Condition.RECONCILING,
            Condition.STALLED,
        }
    ),
)


class Credentials:
    """The reconciler of SMTPCredential."""

    room = "accounts"
    kind = "SMTPCredential"

    async def reconcile(self, key: Key, world: World) -> Requeue | None:
        raw = world.store.get(key)
        if raw is None or "deletionTimestamp" in raw["metadata"]:
            return None  # the Secret that was made for it goes with it: it is the owner
        is_paused = PAUSED in (raw["metadata"].get("annotations") or {})
        taken = None if is_paused else await self._generate(raw, key, world)
        if not is_judged(world, key, raw):
            return None
        verdicts = verdicts_of(world, key)
        accepted = bindings.accepted(verdicts)
        use = _use(world, key)
        says = [accepted, *([taken] if taken else resolved(verdicts)), _usable(raw, world.now()), _unsuspicious(use)]
        says = [bindings.ready(raw, says, {}), *says, *bindings.invalid(accepted)]
        fields = {
            "bindings": bindings.bound(raw, verdicts, world.now()) or None,
            "username": _username(raw) or None,
            "secretName": _secret(raw) or None,
            "lastUsed": _minute(use.last_used) if use.last_used else (raw.get("status") or {}).get("lastUsed"),
            "messagesToday": use.messages if use.last_used else None,
        }
        await tell(world, raw, says, fields, VOICE)
        return Requeue(LOOK, "Use")

    async def _generate(self, raw: Raw, key: Key, world: World) -> Said | None:
        """Make the Secret, where it is wanted and not there. Returns what stands in the way."""
        how = (raw.get("spec") or {}).get("generate")
        if not isinstance(how, dict):
            return None
        name = f"{key.name}-smtp"
        known = world.store.held(Key("Secret", key.namespace, name))
        if known is not None and known.labels.get(MANAGED_BY) == MANAGER:
            return None
        live = await world.api.get("Secret", key.namespace, name)
        if live is None:
            length = how.get("length", 32)
            try:
                await world.api.create(secret(raw, name, _username(raw), length if isinstance(length, int) else 32))
            except ApiError as error:
                if error.status != 409:  # somebody was quicker: the next look sees whose it is
                    raise
            return None
        owners = live["metadata"].get("ownerReferences") or ()
        if any(owner.get("uid") == raw["metadata"]["uid"] for owner in owners):
            return None
        text = f'Secret "{name}" is there and somebody else\'s. Remove it, or write secretRef: {{name: {name}}}.'
        return said(Condition.RESOLVED_REFS, False, Reason.SECRET_TAKEN, text)


def secret(raw: Raw, name: str, username: str, length: int) -> Raw:
    """The Secret of a made password."""
    password = "".join(secrets.choice(_LETTERS) for _ in range(max(16, min(length, 128))))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": raw["metadata"]["namespace"],
            "labels": {MANAGED_BY: MANAGER},
            "ownerReferences": [owner_reference(raw, "SMTPCredential")],
        },
        "type": "kubernetes.io/basic-auth",
        "data": {
            key: base64.b64encode(value.encode()).decode()
            for key, value in (("username", username), ("password", password))
        },
    }


def _username(raw: Raw) -> str:
    spec = raw.get("spec") or {}
    if "generate" not in spec and "secretRef" not in spec:
        return ""
    return str(spec.get("username") or raw["metadata"]["name"]).casefold()


def _secret(raw: Raw) -> str:
    spec = raw.get("spec") or {}
    if isinstance(spec.get("generate"), dict):
        return f"{raw['metadata']['name']}-smtp"
    return str((spec.get("secretRef") or {}).get("name") or "")


def _usable(raw: Raw, now: datetime.datetime) -> Said:
    text = str((raw.get("spec") or {}).get("expires") or "")
    try:
        is_over = bool(text) and datetime.datetime.fromisoformat(text) <= now
    except (ValueError, TypeError):  # Accepted says so
        is_over = False
    if is_over:
        words = f"It ended {text}. Write a later spec.expires, or remove the account."
        return said(Condition.USABLE, False, Reason.EXPIRED, words)
    return said(Condition.USABLE, True, Reason.USABLE, f"It ends {text}." if text else "It does not end.")


def _unsuspicious(use: AccountUse) -> Said:
    if not use.held:
        return said(Condition.UNSUSPICIOUS, True, Reason.SENDING_AS_USUAL, "It sends as it always did.")
    words = (
        f"Its mail is held: {use.held}. Look at it (posthof queue), release or delete it, and give the account a new "
        "password; or switch spec.guard off."
    )
    return said(Condition.UNSUSPICIOUS, False, Reason.SENDING_UNUSUALLY, words)


def _use(world: World, key: Key) -> AccountUse:
    """What the pods of all MTAs say together. Each pod knows the whole fleet's count: the largest is the newest."""
    name = f"{key.namespace}/{key.name}"
    found = [
        report.accounts[name]
        for reports in world.reports.values()
        for report in reports.values()
        if name in report.accounts
    ]
    return AccountUse(
        last_used=max((use.last_used for use in found), default=0.0),
        messages=max((use.messages for use in found), default=0),
        held=next((use.held for use in found if use.held), ""),
    )


def _minute(moment: float) -> str:
    """Moments to the minute: a status is not written for every message."""
    whole = datetime.datetime.fromtimestamp(moment // 60 * 60, datetime.UTC)
    return whole.isoformat().replace("+00:00", "Z")
