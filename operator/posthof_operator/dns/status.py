"""What is told of a MailDomain's DNS: rows, columns, the proof, and DNSReady. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from posthof_crds.problems import sentence
from posthof_crds.reasons import Condition, Reason
from posthof_operator.conditions import Said, said
from posthof_operator.dns import proof
from posthof_operator.dns.rows import Row, Rows, Seen, State, Want
from posthof_operator.resources import Raw

LONGEST = 4000  # characters of one text of a row


def ready(want: Want, found: Rows, seen: Seen, hint: str = "") -> Said:
    """DNSReady. Its message has the texts to publish; `hint` is why nobody publishes them by itself."""
    one = _ready(want, found, seen, hint)
    return one._replace(message=sentence(one.message))


def _ready(want: Want, found: Rows, seen: Seen, hint: str) -> Said:
    judged = _judged(want, found)
    bad = [row for row in judged if row.state in (State.MISSING, State.DIFFERS)]
    if bad:
        reason = Reason.RECORDS_MISSING if any(row.state is State.MISSING for row in bad) else Reason.RECORDS_DIFFER
        return said(Condition.DNS_READY, False, reason, "; ".join([*map(_mend, bad), *filter(None, [hint])]))
    unanswered = [row for row in judged if row.state is State.UNKNOWN and row.note.startswith("DNS did not answer")]
    if unanswered:
        why = seen.troubles[0] if seen.troubles else "it has not been asked yet"
        return Said(Condition.DNS_READY, "Unknown", Reason.RESOLVER_FAILED, f"DNS did not answer: {why}")
    right = [row for row in judged if row.state is State.OK]
    unknown = "; ".join(f"{_title(row)} is not judged: {row.note}" for row in judged if row.state is State.UNKNOWN)
    if not right:
        return Said(Condition.DNS_READY, "Unknown", Reason.RECORDS_UNKNOWN, unknown or "nothing is to be checked")
    text = f"{', '.join(_title(row) for row in right)} {'is' if len(right) == 1 else 'are'} right"
    return said(Condition.DNS_READY, True, Reason.RECORDS_RIGHT, text + (f"; {unknown}" if unknown else ""))


def policy_ready(want: Want, found: Rows) -> Said | None:
    """MTASTSReady; None where no policy is asked for. What is wrong with records goes before what is waited for."""
    policy = want.policy
    if policy is None or found.sts is None or found.policy_host is None:
        return None
    asked = [found.sts, found.policy_host]
    bad = [row for row in asked if row.state in (State.MISSING, State.DIFFERS)]
    if bad:
        is_missing = any(row.state is State.MISSING for row in bad)
        reason = Reason.RECORDS_MISSING if is_missing else Reason.RECORDS_DIFFER
        return said(Condition.MTA_STS_READY, False, reason, sentence("; ".join(map(_mend, bad))))
    unknown = [row for row in asked if row.state is State.UNKNOWN]
    if unknown:
        text = "; ".join(f"{_title(row)} is not judged: {row.note}" for row in unknown)
        return Said(Condition.MTA_STS_READY, "Unknown", Reason.RECORDS_UNKNOWN, sentence(text))
    if policy.waits_for:
        hosts = ", ".join(policy.waits_for)
        text = f"The policy is published as testing until {hosts} presents a certificate that the world believes."
        return said(Condition.MTA_STS_READY, False, Reason.HOSTS_NOT_PROVEN, text)
    return said(Condition.MTA_STS_READY, True, Reason.RECORDS_RIGHT, f"The policy is published, mode {policy.mode}.")


def not_checked() -> Said:
    text = "DNS is not asked, because no MTA accepts the domain: see the condition Accepted."
    return Said(Condition.DNS_READY, "Unknown", Reason.NOT_CHECKED, text)


def fields(want: Want, found: Rows, keys: Sequence[Raw] = ()) -> Raw:
    """The other fields. `keys`: the records of DKIM keys, as their status has them."""
    columns = ((found.mx, "mx"), (found.spf, "spf"), (found.dmarc, "dmarc"), (found.sts, "mtaSts"))
    others = ((found.policy_host, "mtaStsHost"), (found.tls_rpt, "tlsRpt"), (found.proof, "proof"))
    told = [_row(row, purpose) for row, purpose in (*columns, *others) if row is not None]
    return {
        "dnsRecords": [*told, *(_row(row, "dane") for row in found.tlsa), *keys],
        "dns": {purpose: str(row.state) for row, purpose in columns if row is not None},
        "proof": {"name": proof.name_of(want.domain), "value": want.proof} if want.proof else None,
    }


def _judged(want: Want, found: Rows) -> list[Row]:
    """A proof counts only while nothing is received without it; without it nothing else counts yet."""
    if want.is_proof_needed and found.proof is not None and found.proof.state is not State.OK:
        return [found.proof]
    return [found.mx, found.spf, found.dmarc, *([found.tls_rpt] if found.tls_rpt is not None else []), *found.tlsa]


def _row(row: Row, purpose: str) -> Raw:
    texts = {"expected": row.expected[:LONGEST], "observed": row.observed[:LONGEST]}
    filled = {name: text for name, text in texts.items() if text}
    return {"type": row.type, "name": row.name, "purpose": purpose, **filled, "state": str(row.state)}


def _title(row: Row) -> str:
    if row.type in ("MX", "TLSA"):
        return row.type
    if row.name.startswith("_dmarc."):
        return "DMARC"
    for prefix, title in (("_mta-sts.", "MTA-STS"), ("mta-sts.", "the policy's host"), ("_smtp._tls.", "TLS-RPT")):
        if row.name.startswith(prefix):
            return title
    return "the proof" if row.name.startswith(proof.LABEL) else "SPF"


def _mend(row: Row) -> str:
    """What is wrong with a row, and what to publish."""
    lines = row.expected.splitlines()
    quoted = [f'"{text}"' if row.type == "TXT" else text for text in lines]
    publish = " and ".join(f"{row.name}. {row.type} {text}" for text in quoted)
    verb = "publish" if row.state is State.MISSING or row.type == "TXT" else "let it be"
    return f"{_title(row)}: {row.note}: {verb} {publish}" if publish else f"{_title(row)}: {row.note}"
