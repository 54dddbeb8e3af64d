"""What is told of DKIM keys: conditions and fields of a DKIMKey, and DKIMReady of a MailDomain. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from posthof_certs.dkim import State, quoted
from posthof_crds.problems import sentence
from posthof_crds.reasons import Condition, Reason
from posthof_operator.conditions import Said, said
from posthof_operator.resources import Raw

LONGEST = 4000

Seen = Literal["ok", "missing", "unknown"]


class Look(NamedTuple):
    """What became of a key until now.

    `trouble`: why there is no key (then nothing else is known). `lacking`: servers without the record, or why they
    cannot be asked; None: not looked yet. `publishing`: why the record cannot be put there, "".
    """

    state: State
    domain: str = ""
    secret: str = ""
    name: str = ""  # of the record
    text: str = ""
    plain: str = ""  # the text of the key itself, where `text` revokes it
    trouble: tuple[Reason, str] | None = None
    lacking: Sequence[str] | None = None
    is_asked: bool = True  # False: DNS itself could not be asked
    publishing: str = ""
    active_since: str = ""  # RFC 3339, "" = never yet

    @property
    def is_seen(self) -> bool:
        return self.lacking is not None and not self.lacking

    @property
    def signs(self) -> bool:
        return self.trouble is None and self.state is State.ACTIVE and bool(self.active_since)


def phase(look: Look) -> str:
    if look.trouble is not None:
        return "Pending"
    if look.state is State.ACTIVE:
        return "Active" if look.active_since else "Publishing"
    return "Retiring" if look.state is State.RETIRED else "Revoked"


def fields(look: Look) -> Raw:
    record: Raw | None = None
    if look.text:
        state = "unknown" if look.lacking is None or not look.is_asked else "missing" if look.lacking else "ok"
        record = {
            "type": "TXT",
            "name": look.name,
            "purpose": "dkim",
            "expected": look.text[:LONGEST],
            "state": state,
        }
    return {
        "phase": phase(look),
        "domain": look.domain or None,
        "secretName": look.secret or None,
        "record": record,
        "activeSince": look.active_since or None,
    }


def conditions(look: Look) -> list[Said]:
    if look.trouble is not None:
        reason, text = look.trouble
        return [
            said(Condition.READY, False, Reason.NOT_READY, sentence(text)),
            said(Condition.GENERATED, False, reason, sentence(text)),
        ]
    made = f"The private key is in Secret {look.secret}."
    found = [said(Condition.GENERATED, True, Reason.KEY_MADE, made), _published(look)]
    if look.state is State.ACTIVE:
        return [*found, *_active(look)]
    if look.state is State.RETIRED:
        reason, text = Reason.RETIRED, "It signs no more; its record stays for what is on its way."
        special = Condition.RETIRING
    else:
        reason, text = Reason.REVOKED, "It signs no more, and its record says so."
        special = Condition.REVOKED
    return [
        *found,
        said(Condition.ACTIVE, False, reason, text),
        said(special, True, reason, text),
        said(Condition.READY, True, reason, text),
    ]


def _active(look: Look) -> list[Said]:
    if look.active_since:
        text = f"Mail from {look.domain} is signed with it since {look.active_since}."
        is_right = look.is_seen or look.lacking is None or not look.is_asked
        ready = said(Condition.READY, True, Reason.SIGNING, text)
        if not is_right:
            ready = said(Condition.READY, False, Reason.NOT_READY, _published(look).message)
        return [said(Condition.ACTIVE, True, Reason.SIGNING, text), ready]
    text = "It signs when every authoritative server of the zone shows its record. " + _published(look).message
    return [
        said(Condition.ACTIVE, False, Reason.KEYS_WAIT, text),
        said(Condition.READY, False, Reason.KEYS_WAIT, text),
        said(Condition.RECONCILING, True, Reason.PROGRESSING, "It waits for DNS."),
    ]


def _published(look: Look) -> Said:
    if look.publishing:
        return said(Condition.PUBLISHED, False, Reason.PUBLISH_FAILED, sentence(look.publishing))
    publish = f"publish {look.name}. TXT {quoted(look.text)}"
    if look.lacking is None:
        return Said(Condition.PUBLISHED, "Unknown", Reason.RECORDS_MISSING, f"Not looked yet: {publish}.")
    if not look.is_asked:
        text = f"{look.lacking[0]}: {publish}." if look.lacking else "DNS did not answer."
        return Said(Condition.PUBLISHED, "Unknown", Reason.RESOLVER_FAILED, text)
    if look.lacking:
        text = f"{'; '.join(look.lacking[:3])}: {publish}."
        return said(Condition.PUBLISHED, False, Reason.RECORDS_MISSING, text)
    return said(
        Condition.PUBLISHED, True, Reason.RECORDS_RIGHT, "Every authoritative server of the zone shows the record."
    )


class Row(NamedTuple):
    """A DKIMKey, as its MailDomain tells of it."""

    key: str
    algorithm: str
    name: str
    phase: str
    mend: str = ""  # the message of its Ready condition while it waits


def of_domain(wanted: Sequence[str], rows: Sequence[Row], *, unnamed: str = "") -> tuple[Said, Raw]:
    """DKIMReady and status.dkim. `wanted`: one entry for each signature a message should get, named by its algorithm
    or its DKIMKey; empty: none. `unnamed`: an MTA of another namespace that is given no keys, because the MailDomain
    does not name it."""
    if not wanted:
        text = "outbound.dkim is not there: mail of the domain is not signed."
        return Said(Condition.DKIM_READY, "Unknown", Reason.NOT_SIGNED, text), {"state": "off"}
    active = [row for row in rows if row.phase == "Active"]
    lacking = [one for one in wanted if not any(one in (row.algorithm, row.key) for row in active)]
    records = [{"key": row.key, "name": row.name, "state": row.phase} for row in rows][:64]
    if unnamed:
        text = f"MTA {unnamed} is of another namespace, and keys go only where they are sent: name it in mtaRef."
        return said(Condition.DKIM_READY, False, Reason.NOT_ALLOWED, text), {"state": "missing", "records": records}
    if not lacking:
        text = f"Mail is signed by {', '.join(row.key for row in active)}."
        return said(Condition.DKIM_READY, True, Reason.SIGNING, text), {"state": "ok", "records": records}
    mends = [row.mend for row in rows if row.phase != "Active" and row.mend]
    text = f"No key signs yet for {', '.join(lacking)}. {' '.join(mends[:2])}".strip()
    fields: Raw = {"state": "waiting" if active else "missing", "records": records}
    return said(Condition.DKIM_READY, False, Reason.KEYS_WAIT, text), {k: v for k, v in fields.items() if v}
