"""What is to be done for a TLSCert now: a function of what is wished, what is there, and the time.

Rules of this file
- Pure. Each check is one small function that looks at one thing and answers with a `Finding` or None; their order is
  the order in which a person would mend things, and the first finding is the one that is told.
- The last good pair stays in force: nothing is replaced by a pair that could not be served.
- What was made is accepted by the same checks that asked for it, so a plan after its own issue has nothing to do.
- Messages hold names, dates and counts, never key material.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from cryptography import x509

from posthof_certs import issue, pair, renewal
from posthof_certs.pair import BadPair, Facts, Pair, time_text
from posthof_crds.reasons import Reason
from posthof_operator.certs.wish import Source, Wish

SLACK = 600.0  # seconds by which a certificate's length may differ from the one that was asked for


class Finding(NamedTuple):
    """`is_serious`: what is there does not do for the wish at all."""

    reason: Reason
    message: str
    is_serious: bool = True


WAITS = Finding(
    Reason.KEY_WAITS, "the next key waits until its TLSA records have stood for two TTLs: see status.tlsa"
)


class Ordered(NamedTuple):
    """What cert-manager says of the Certificate that was ordered from it."""

    is_current: bool  # the object says what the wish says
    is_ready: bool = False
    has_failed: bool = False
    message: str = ""


class Asking(NamedTuple):
    """How it stands with an ACME server or a signer. `obstacle`: what must be there before it can be asked;
    `failure`: why the last try came to nothing, of `failures` in a row; it is asked again at `again` (unix seconds).
    `advised`: when the server would like it to be renewed. `check`: when to look again at what somebody else does."""

    is_running: bool = False
    obstacle: Finding | None = None
    failure: Finding | None = None
    failures: int = 0
    again: float = 0.0
    advised: float | None = None
    check: float | None = None


class Snapshot(NamedTuple):
    """What is there. `source` is the CA's pair (ca), or the pair of the named Secret (secretRef); a Finding says why
    there is none. `ordered` is None while there is no Certificate object. `made_by`: who made the pair in the result
    Secret, "" where it is not known. `next_key`: PEM, of the next certificate."""

    wish: Wish
    current: Pair | None = None  # in the result Secret
    is_foreign: bool = False  # the result Secret is somebody else's
    source: Pair | Finding | None = None
    has_cert_manager: bool = True
    ordered: Ordered | None = None
    made_by: str = ""
    next_key: bytes | None = None
    asking: Asking = Asking()
    key_from: float = 0.0  # unix seconds: before it no certificate is made with another key than the present one


class Do(enum.Enum):
    NOTHING = "nothing"
    ISSUE = "issue"  # make a pair and store it
    COPY = "copy"  # store the source's pair
    ORDER = "order"  # apply the Certificate object
    STAGE = "stage"  # make the next certificate's key and store it
    ASK = "ask"  # begin an order at the ACME server, or make the request to the signer


class Plan(NamedTuple):
    do: Do
    why: Finding | None = None  # what led to `do`, or to what is waited for
    in_force: Facts | None = None  # the pair that pods get, if it can be served
    trouble: Finding | None = None  # why it is not Ready, and what mends it
    warning: str = ""  # Ready all the same, but somebody should know
    renewal: float | None = None  # unix seconds
    again: float | None = None  # unix seconds: look again then, whatever happens


class Made(NamedTuple):
    """A certificate made here that is to be judged, and by what."""

    wish: Wish
    facts: Facts
    certificate: x509.Certificate
    authority: issue.Authority | None
    now: float
    made_by: str = ""
    advised: float | None = None


Check = Callable[[Made], Finding | None]


def plan(snapshot: Snapshot, now: float) -> Plan:
    """The plan. `now`: unix seconds."""
    if snapshot.is_foreign:
        return Plan(Do.NOTHING, trouble=_foreign(snapshot.wish))
    match snapshot.wish.source:
        case Source.SELF_SIGNED | Source.CA:
            found = _plan_own(snapshot, now)
        case Source.SECRET:
            found = _plan_copy(snapshot, now)
        case Source.CERT_MANAGER:
            found = _plan_ordered(snapshot, now)
        case Source.ACME | Source.CSR:
            found = _plan_asked(snapshot, now)
    if found.do is Do.NOTHING and _lacks_next_key(snapshot, found):
        found = found._replace(do=Do.STAGE)
    return found._replace(again=_again(found, now))


def renewal_of(facts: Facts, wish: Wish, advised: float | None = None) -> float:
    """When a successor is made: in its time, or when its authority advises it, in a window."""
    due = renewal.due(facts.not_before, facts.not_after, wish.renew_before)
    wanted = due if advised is None else min(due, advised)
    return renewal.allowed(wanted, facts.not_before, facts.not_after, wish.windows)


def next_key_of(snapshot: Snapshot) -> bytes | None:
    """The key (PEM) that the next certificate gets, None: a fresh one is to be made."""
    wish, current = snapshot.wish, snapshot.current
    if wish.rotation == "Never" and current is not None and _is_of_kind(current.key, wish):
        return current.key
    key = snapshot.next_key
    if key is None or not _is_of_kind(key, wish):
        return None
    is_used = current is not None and wish.rotation != "Never" and _are_same(key, current.key)
    return None if is_used else key


def _is_of_kind(key: bytes, wish: Wish) -> bool:
    try:
        return pair.kind_of(key) == (wish.order.key.algorithm, wish.order.key.size)
    except BadPair:
        return False


def _are_same(one: bytes, other: bytes) -> bool:
    try:
        return pair.pin(one) == pair.pin(other)
    except BadPair:
        return False


def _lacks_next_key(snapshot: Snapshot, found: Plan) -> bool:
    """A staged key is there before it is needed: as soon as there is a certificate to follow."""
    makes_keys = snapshot.wish.source in (Source.SELF_SIGNED, Source.CA, Source.ACME, Source.CSR)
    is_staged = makes_keys and snapshot.wish.rotation == "Staged"
    return is_staged and found.in_force is not None and next_key_of(snapshot) is None


# -- made here -------------------------------------------------------------------------------------------------------


def _plan_own(snapshot: Snapshot, now: float) -> Plan:
    wish = snapshot.wish
    authority, trouble = _authority_of(snapshot, now)
    facts, finding = _judge(snapshot, authority, now)
    due = renewal_of(facts, wish) if facts else None
    if finding is None:
        warning = f"it cannot be renewed at {time_text(due)}: {trouble.message}" if trouble and due else ""
        return Plan(Do.NOTHING, in_force=facts, renewal=due, warning=warning)
    if trouble is None and facts is not None and now < snapshot.key_from:
        return _hindered(finding, WAITS, facts, due)._replace(again=snapshot.key_from)
    if trouble is None:
        return Plan(Do.ISSUE, finding, facts, renewal=due)
    return _hindered(finding, trouble, facts, due)


def _hindered(finding: Finding, trouble: Finding, facts: Facts | None, due: float | None) -> Plan:
    """Something is to be mended about the pair, and cannot be."""
    if finding.is_serious:
        return Plan(Do.NOTHING, finding, facts, trouble, renewal=due)
    return Plan(Do.NOTHING, finding, facts, renewal=due, warning=f"{finding.message}, but {trouble.message}")


def _authority_of(snapshot: Snapshot, now: float) -> tuple[issue.Authority | None, Finding | None]:
    wish, source = snapshot.wish, snapshot.source
    if wish.source is Source.SELF_SIGNED:
        return None, None
    if not isinstance(source, Pair):
        missing = Finding(Reason.ISSUER_MISSING, f"Secret {wish.secret} of the certificate authority is not there")
        return None, source or missing
    try:
        return issue.read_authority(source, now), None
    except BadPair as error:
        text = f"the certificate authority in Secret {wish.secret} cannot be used: {error.message}"
        return None, Finding(Reason.ISSUER_FAILED, text)


def _judge(snapshot: Snapshot, authority: issue.Authority | None, now: float) -> tuple[Facts | None, Finding | None]:
    """The facts of the pair in force, if it can be served, and the first thing that is to be mended about it."""
    wish = snapshot.wish
    if snapshot.current is None:
        return None, Finding(Reason.ISSUING, f"there is no certificate in Secret {wish.result} yet")
    try:
        facts = pair.read(snapshot.current)
    except BadPair as error:
        return None, Finding(Reason.ISSUING, f"the pair in Secret {wish.result} is damaged ({error.message})")
    leaf = pair.certificates(snapshot.current.chain)[0]
    made = Made(wish, facts, leaf, authority, now, snapshot.made_by, snapshot.asking.advised)
    finding = next((found for check in CHECKS if (found := check(made))), None)
    return (None if now >= facts.not_after else facts), finding


def _has_expired(made: Made) -> Finding | None:
    if made.now < made.facts.not_after:
        return None
    return Finding(Reason.RENEWING, f"the certificate ended at {time_text(made.facts.not_after)}")


def _has_wrong_names(made: Made) -> Finding | None:
    wanted, has = set(made.wish.order.names), set(made.facts.names)
    if wanted == has:
        return None
    lacking = sorted(wanted - has)
    if lacking:
        return Finding(Reason.RENEWING, f"dnsNames now has {pair.some(lacking)}, and the certificate has not")
    left = pair.some(sorted(has - wanted))
    return Finding(Reason.RENEWING, f"dnsNames has {left} no more, and the certificate has", is_serious=False)


def _has_wrong_key(made: Made) -> Finding | None:
    key, facts = made.wish.order.key, made.facts
    if (key.algorithm, key.size) == (facts.algorithm, facts.size):
        return None
    text = f"privateKey asks for {key.algorithm} {key.size}, and the certificate has {facts.algorithm} {facts.size}"
    return Finding(Reason.RENEWING, text, is_serious=False)


def maker(wish: Wish) -> str:
    """Who makes its pairs, as it is noted beside them."""
    if wish.acme is not None:
        return f"{wish.source} {wish.acme.directory}"
    return f"{wish.source} {wish.signer or wish.secret}".strip()


def _has_wrong_issuer(made: Made) -> Finding | None:
    wanted = maker(made.wish)
    if made.wish.source in (Source.ACME, Source.CSR):
        if made.made_by == wanted or not made.made_by:
            return None
        return Finding(Reason.RENEWING, f"issuer is {wanted} now, and it was {made.made_by}", is_serious=False)
    if made.wish.source is Source.SELF_SIGNED:
        if made.facts.is_self_signed:
            return None
        return Finding(Reason.RENEWING, "issuer asks for a self-signed certificate now", is_serious=False)
    if made.facts.is_self_signed:
        return Finding(Reason.RENEWING, f"issuer asks for the authority in {made.wish.secret} now", is_serious=False)
    if made.authority is None or pair.signed_by(made.certificate, made.authority.certificate):
        return None
    return Finding(Reason.RENEWING, f"Secret {made.wish.secret} holds another authority now", is_serious=False)


def _has_wrong_length(made: Made) -> Finding | None:
    """A new `duration` is obeyed at once, as far as the authority's own end allows. Others decide it themselves."""
    if made.wish.source in (Source.ACME, Source.CSR):
        return None
    facts, wanted = made.facts, made.wish.order.duration
    begins = facts.not_before + min(3600.0, wanted / 12)  # a certificate begins a little before it is made
    ends = begins + wanted
    if made.authority is not None:
        ends = min(ends, _end_of(made.authority))
    if abs(facts.not_after - ends) <= SLACK or (made.wish.source is Source.CA and made.authority is None):
        return None
    return Finding(Reason.RENEWING, "duration has changed", is_serious=False)


def _is_due(made: Made) -> Finding | None:
    due = renewal_of(made.facts, made.wish, made.advised)
    if made.now < due or not _gains_by_renewal(made):
        return None
    return Finding(Reason.RENEWING, f"it was to be renewed at {time_text(due)}", is_serious=False)


def _gains_by_renewal(made: Made) -> bool:
    """Not when the authority ends with the certificate: renewing would make the same again, faster and faster."""
    return made.authority is None or _end_of(made.authority) > made.facts.not_after + SLACK


CHECKS: tuple[Check, ...] = (
    _has_expired,
    _has_wrong_names,
    _has_wrong_issuer,
    _has_wrong_key,
    _has_wrong_length,
    _is_due,
)


def _end_of(authority: issue.Authority) -> float:
    return authority.certificate.not_valid_after_utc.timestamp()


# -- asked of an ACME server or a signer -----------------------------------------------------------------------------


def _plan_asked(snapshot: Snapshot, now: float) -> Plan:
    """One try at a time, with patience after those that failed; the pair before it stays in force."""
    asking = snapshot.asking
    facts, finding = _judge(snapshot, None, now)
    due = renewal_of(facts, snapshot.wish, asking.advised) if facts else None
    if finding is None:
        return Plan(Do.NOTHING, in_force=facts, renewal=due, again=asking.check)
    if asking.is_running:
        return Plan(Do.NOTHING, finding, facts, renewal=due, trouble=_waiting(asking, facts), again=asking.check)
    if asking.obstacle is not None:
        return _hindered(finding, asking.obstacle, facts, due)._replace(again=asking.check)
    if asking.failure is not None and now < asking.again:
        text = f"{asking.failure.message}; it is tried again at {time_text(asking.again)}"
        failure = asking.failure._replace(message=text)
        return _hindered(finding, failure, facts, due)._replace(again=asking.again)
    if facts is not None and now < snapshot.key_from:
        return _hindered(finding, WAITS, facts, due)._replace(again=snapshot.key_from)
    do = Do.STAGE if next_key_of(snapshot) is None else Do.ASK
    return Plan(do, finding, facts, renewal=due)


def _waiting(asking: Asking, facts: Facts | None) -> Finding | None:
    """What is waited for, where nothing is in force meanwhile and somebody has to do something."""
    return asking.obstacle if facts is None else None


# -- from a Secret ---------------------------------------------------------------------------------------------------


def _plan_copy(snapshot: Snapshot, now: float) -> Plan:
    """The named Secret's pair is served once it has passed; until then, and if it does not, the one before."""
    wish, source = snapshot.wish, snapshot.source
    in_force = _served(snapshot.current, now)
    where = f"Secret {wish.secret}"
    if not isinstance(source, Pair):
        missing = Finding(Reason.SECRET_MISSING, f"{where} is not there: create it with kubectl create secret tls")
        return Plan(Do.NOTHING, in_force=in_force, trouble=_and_before(source or missing, in_force))
    try:
        facts = pair.read(source)
        pair.check_dates(facts, now)
        pair.check_names(facts, wish.order.names)
    except BadPair as error:
        trouble = Finding(error.reason, f"{where} cannot be served: {error.message}")
        return Plan(Do.NOTHING, in_force=in_force, trouble=_and_before(trouble, in_force), again=_begin_of(source))
    warning = ""
    if now >= renewal.due(facts.not_before, facts.not_after, wish.renew_before):
        warning = f"it ends at {time_text(facts.not_after)}, and {where} still holds no successor"
    if source == snapshot.current:
        return Plan(Do.NOTHING, in_force=facts, warning=warning)
    why = Finding(Reason.RENEWING if in_force else Reason.ISSUING, f"{where} holds a new pair", is_serious=False)
    return Plan(Do.COPY, why, facts, warning=warning)


def _begin_of(source: Pair) -> float | None:
    """When a pair that may be in order all the same begins to be valid."""
    try:
        return pair.read(source).not_before
    except BadPair:
        return None


def _served(current: Pair | None, now: float) -> Facts | None:
    """The facts of the pair in the result Secret, None: it cannot be served."""
    try:
        facts = pair.read(current) if current else None
    except BadPair:
        return None
    return facts if facts and now < facts.not_after else None


def _and_before(trouble: Finding, in_force: Facts | None) -> Finding:
    if in_force is None:
        return trouble
    before = f"{trouble.message}. The pair before it, valid until {time_text(in_force.not_after)}, stays in force"
    return trouble._replace(message=before)


# -- by cert-manager -------------------------------------------------------------------------------------------------


def _plan_ordered(snapshot: Snapshot, now: float) -> Plan:
    """cert-manager fills the result Secret; what it says when it cannot is passed on."""
    wish, ordered = snapshot.wish, snapshot.ordered
    in_force = _served(snapshot.current, now)
    if not snapshot.has_cert_manager:
        text = "this cluster has no cert-manager.io/v1: install cert-manager, or choose another issuer"
        return Plan(Do.NOTHING, in_force=in_force, trouble=_and_before(_missing_cert_manager(text), in_force))
    do = Do.NOTHING if ordered and ordered.is_current else Do.ORDER
    if do is Do.ORDER or ordered is None:
        why = Finding(Reason.RENEWING if in_force else Reason.ISSUING, "a certificate is ordered from cert-manager")
        return Plan(Do.ORDER, why, in_force, None if in_force else why)
    said = f": {ordered.message}" if ordered.message else ""
    if in_force is not None:
        try:
            pair.check_names(in_force, wish.order.names)
        except BadPair as error:
            why = Finding(Reason.RENEWING, f"cert-manager's certificate does not fit yet: {error.message}{said}")
            return Plan(do, why, in_force, Finding(error.reason, why.message))
        waiting = None if ordered.is_ready else Finding(Reason.RENEWING, f"cert-manager is at work{said}", False)
        return Plan(do, waiting, in_force, renewal=renewal_of(in_force, wish))
    if ordered.has_failed:
        issuer = f"{wish.issuer.kind} {wish.issuer.name}" if wish.issuer else "the issuer"
        return Plan(do, trouble=Finding(Reason.ISSUER_FAILED, f"cert-manager could not issue by {issuer}{said}"))
    why = Finding(Reason.ISSUING, f"cert-manager has not issued it yet{said}")
    return Plan(do, why, trouble=why)


def _missing_cert_manager(text: str) -> Finding:
    return Finding(Reason.CERT_MANAGER_MISSING, text)


def _foreign(wish: Wish) -> Finding:
    return Finding(
        Reason.SECRET_TAKEN,
        f"Secret {wish.result} is there and not ours, so nothing is written to it: remove it, or name it in "
        "issuer.secretRef of a TLSCert with another name",
    )


# -- when to look again ----------------------------------------------------------------------------------------------


def _again(found: Plan, now: float) -> float | None:
    """Nothing tells when a date passes, so the next one is waited for; dates in the past ask for nothing more."""
    dates = [found.renewal or 0.0, found.again or 0.0]
    if found.in_force is not None:
        lifetime = found.in_force.not_after - found.in_force.not_before
        dates += [found.in_force.not_after, found.in_force.not_before + lifetime * 2 / 3]
    coming = [date for date in dates if date > now]
    return min(coming) if coming else None
