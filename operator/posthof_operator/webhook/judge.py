"""May this object be? One answer for one review, by the rules that conditions are told by.

Rules of this file
- Pure but for the view. The verdicts are those of posthof_crds.fleet, over the few objects that matter: the
  MailDomains of one domain, one rule, one MTA.
- Refused is what would be wrong whatever comes after it. What somebody may be about to mend, or what only this object
  makes mendable, is a warning: a MailDomain without its proof must exist, because its status says what to publish; an
  object may come before the MTA, the Secret or the permission that it needs.
- What changes nothing of the spec passes: labels, finalizers and deletion must work on an object that is wrong.
- An object that one MTA accepts passes, whatever others say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from posthof_crds.fleet import Verdict, assemble
from posthof_crds.parts import Flaw, Part, part_of, read
from posthof_crds.reasons import Reason
from posthof_operator.resources import OURS, Key, Raw, key_of
from posthof_operator.webhook.view import View

LONGEST = 250  # characters of a warning: clients cut longer ones


class Answer(NamedTuple):
    """`message` says why not, and what to do."""

    is_allowed: bool = True
    message: str = ""
    warnings: tuple[str, ...] = ()


_FINAL = frozenset({Reason.INVALID, Reason.OPEN_RELAY, Reason.NEXT_HOP_NOT_ALLOWED})


def judge(request: Raw, view: View) -> Answer:
    """The answer to the `request` of an AdmissionReview."""
    kind = request.get("kind", {}).get("kind", "")
    operation = request.get("operation", "")
    if operation == "DELETE":
        return _deleted(kind, request.get("namespace", ""), request.get("name", ""), request.get("oldObject"), view)
    raw, old = request.get("object") or {}, request.get("oldObject")
    if kind not in OURS or operation not in ("CREATE", "UPDATE") or request.get("subResource"):
        return Answer()
    raw = {**raw, "kind": kind, "metadata": {"namespace": request.get("namespace", ""), **raw.get("metadata", {})}}
    raw["metadata"].setdefault("name", request.get("name") or raw["metadata"].get("generateName", "") + "x")
    is_same = old is not None and old.get("spec") == raw.get("spec") and _labels(old) == _labels(raw)
    if is_same or "deletionTimestamp" in raw["metadata"]:
        return Answer()
    if kind == "MTA":
        return _mta(raw, view)
    part = part_of(kind, raw)
    if part.flaws:
        return Answer(False, _flaws(part.flaws))
    if kind in ("TLSCert", "DKIMKey"):
        return Answer()
    return _config(part, view)


# -- MailDomain, RelayPolicy -----------------------------------------------------------------------------------------


def _config(part: Part, view: View) -> Answer:
    """What each MTA would say of it."""
    others: list[Part] = []
    proven: dict[str, set[str]] = {}
    if part.domain is not None:
        others = [one for one in view.claims(part.domain.domain) if one.key != part.key]
        proven = view.proven(part.domain.domain)
    namespaces = view.namespaces()
    verdicts: list[tuple[Verdict, bool]] = []
    for _, mta in view.mtas():
        fleet = assemble(mta, [part, *others], namespaces=namespaces, proven=proven)
        said = {(one.namespace, one.name): one for one in fleet.verdicts}
        verdict = said.get((part.namespace, part.name))
        if verdict is not None:
            winners = [one for one in others if (known := said.get((one.namespace, one.name))) and known.accepted]
            verdicts.append((verdict, _is_final(verdict, part, mta, winners, proven)))
    if any(verdict.accepted for verdict, _ in verdicts):
        return Answer(warnings=_shadows(verdict for verdict, _ in verdicts))
    refused = [verdict for verdict, is_final in verdicts if is_final]
    if refused:
        return Answer(False, f"{refused[0].reason}: {refused[0].message}")
    if not verdicts:
        return Answer(warnings=_cut([f"no MTA selects {part.kind} {part.name} yet: nothing happens until one does"]))
    return Answer(warnings=_cut(f"{verdict.reason}: {verdict.message}" for verdict, _ in verdicts))


def _is_final(verdict: Verdict, part: Part, mta: Raw, winners: list[Part], proven: dict[str, set[str]]) -> bool:
    """Whether it cannot become right without changing this object, or the one that stands in its way."""
    if verdict.reason in _FINAL:
        return True
    if part.domain is None:
        return False
    domain = part.domain.domain
    if verdict.reason is Reason.NOT_ALLOWED:
        return bool(domain == str(mta.get("spec", {}).get("hostname", "")).lower())
    if verdict.reason is not Reason.DOMAIN_TAKEN:
        return False
    homes = (part.namespace, mta["metadata"].get("namespace", ""))
    return any(one.namespace in homes or one.full in proven.get(domain, ()) for one in winners)


def _shadows(verdicts: Iterable[Verdict]) -> tuple[str, ...]:
    return _cut(
        f"{one.name} is never asked: {one.shadowed_by} takes all of its mail" for one in verdicts if one.shadowed_by
    )


# -- MTA -------------------------------------------------------------------------------------------------------------


def _mta(raw: Raw, view: View) -> Answer:
    _, flaws = read("MTA", raw)
    if flaws:
        return Answer(False, _flaws(flaws))
    key = key_of(raw)
    clash = _clash(raw, key, view)
    if clash:
        return Answer(False, clash)
    named = {
        ref["name"]
        for listener in raw["spec"].get("listeners", ())
        for ref in (listener.get("tls") or {}).get("certRefs", ())
    }
    missing = sorted(named - view.certificates(key.namespace))
    return Answer(
        warnings=_cut(f"TLSCert {name} is not there yet: TLS begins when it is" for name in missing),
    )


def _clash(raw: Raw, key: Key, view: View) -> str:
    """Two MTAs that would have the same child, or the same spool."""
    claim = (raw["spec"].get("spool") or {}).get("existingClaim")
    for other, held in view.mtas():
        if other.namespace != key.namespace or other.name == key.name:
            continue
        longer, shorter = sorted((other.name, key.name), key=len, reverse=True)
        if longer == f"{shorter}-internal":
            return (
                f"MTA {shorter} has a Service {longer}, and MTA {longer} would have one of that name: choose another"
            )
        theirs = (held.get("spec", {}).get("spool") or {}).get("existingClaim") or f"{other.name}-spool"
        if theirs == (claim or f"{key.name}-spool"):
            return f"MTA {other.name} keeps its mail on the claim {theirs}: two MTAs cannot share one spool"
    return ""


# -- deletions -------------------------------------------------------------------------------------------------------


def _deleted(kind: str, namespace: str, name: str, old: Raw | None, view: View) -> Answer:
    """Never refused: somebody may want it so. Told is what follows."""
    if kind == "TLSCert":
        users = view.users_of_certificate(namespace, name)
        return Answer(warnings=_cut(f"listeners of MTA {user} name TLSCert {name}, and lose TLS" for user in users))
    if kind == "Secret":
        users = view.users_of_secret(namespace, name)
        return Answer(
            warnings=_cut(f"{user} refers to Secret {name}: what needs it waits or fails" for user in users)
        )
    if kind == "MTA":
        return Answer(warnings=_cut([_of_the_mail(name, old or {})]))
    return Answer()


def _of_the_mail(name: str, old: Raw) -> str:
    spool = _below(_below(old, "spec"), "spool")
    claim = spool.get("existingClaim") or f"{name}-spool"
    policy = spool.get("deletionPolicy", "Retain")
    if policy == "Delete":
        return f"spool.deletionPolicy is Delete: the claim {claim} and all mail in it go too"
    if policy == "Drain":
        return f"the pods of MTA {name} deliver what is queued first; the claim {claim} stays"
    return f"the mail of MTA {name} stays on the claim {claim}; an MTA of the same name goes on with it"


# -- texts -----------------------------------------------------------------------------------------------------------


def _below(raw: object, name: str) -> Raw:
    """An object inside another; empty where there is none."""
    found = raw.get(name) if isinstance(raw, dict) else None
    return found if isinstance(found, dict) else {}


def _flaws(flaws: Iterable[Flaw]) -> str:
    return " ".join(map(str, flaws))


def _labels(raw: Raw) -> object:
    return _below(raw, "metadata").get("labels")


def _cut(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..." for text in texts)
