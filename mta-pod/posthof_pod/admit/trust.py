"""What sender authentication found out about one message, and what follows from it: the admit stage of AccessPolicy.

Owns: the order of the checks (From, SPF, DKIM, ARC, DMARC), the Authentication-Results field, and `decide`, which is
pure.

Rules
- Everything is asked at the dot, SPF too: who is refused at MAIL is missing in the reports that domain owners get,
  and a signature may yet speak for a sender that SPF does not know (RFC 9989 7.1).
- Only what was proven is believed. A From that can be read in two ways belongs to nobody, whoever signed it.
- A check that breaks by our own fault says temperror and is told; it never loses a message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from posthof_crds.engine import Access, Forgery, OnTrouble, Suspicion
from posthof_pod.mailauth import fromline, results, spf
from posthof_pod.mailauth.arc.verify import NONE as NO_CHAIN
from posthof_pod.mailauth.arc.verify import ArcResult, verify_chain
from posthof_pod.mailauth.canon import Body, Field
from posthof_pod.mailauth.dkim.verify import Signature
from posthof_pod.mailauth.dkim.verify import verify as verify_signatures
from posthof_pod.mailauth.dmarc import NOT_ASKED, Aligned, evaluate
from posthof_pod.mailauth.dmarc import Verdict as Judged
from posthof_pod.mailauth.dmarc.row import Disposition, Failure, Row, is_wanted, published, wants_failure
from posthof_pod.mailauth.dns import Lookup
from posthof_pod.mailauth.fromline import Author
from posthof_pod.mailauth.results import Result
from posthof_pod.replies import Reply

QUARANTINE = "X-Posthof-Quarantine"
NO_SPF = spf.Verdict("none", "", False, "not asked")
_LIST_FIELDS = (b"list-id", b"list-post", b"list-unsubscribe", b"resent-from", b"resent-sender", b"mailing-list")
_AAR = b"arc-authentication-results"
_INSTANCE = re.compile(rb"\s*i\s*=\s*([0-9]{1,3})\s*;")
_PIECES = re.compile(rb"\\.|[^\\\"()]+|.", re.DOTALL)
_DMARC_PASSED = re.compile(rb";\s*dmarc\s*=\s*pass\b", re.IGNORECASE)
_SAFE = re.compile(r"[^ !#-\[\]-~]+")


class Question(NamedTuple):
    """A message, as far as its sender's authentication goes."""

    client: str  # "" = not known, or not its own: SPF has nothing to ask
    helo: str
    sender: str
    head: bytes  # the header block
    fields: Sequence[Field]
    body: Body | None  # None: nobody hashed it, signatures cannot be judged
    is_whole: bool = True  # the header block was read to its end


class Findings(msgspec.Struct, frozen=True):
    """What is so."""

    author: Author
    spf: spf.Verdict = NO_SPF
    signatures: tuple[Signature, ...] = ()
    arc: ArcResult = NO_CHAIN
    dmarc: Judged = NOT_ASKED


class Decision(NamedTuple):
    """What follows. `reply`: it is refused. `mark`: why it is quarantined, "" = it is not."""

    reply: Reply | None = None
    is_held: bool = False
    mark: str = ""
    overrides: tuple[tuple[str, str], ...] = ()  # why DMARC's wish was not done (RFC 9990 3.1.1.6)


FINE = Decision()


async def examine(
    question: Question, access: Access, lookup: Lookup, now: float, hostname: str = "unknown"
) -> Findings:
    """All checks that the policy wants. Raises nothing for what the message or DNS say. `hostname`: ours, for what a
    domain's owner explains (RFC 7208 6.2)."""
    fields, body = question.fields, question.body
    author = fromline.read(fields, question.head, is_whole=question.is_whole)
    sent = NO_SPF
    if access.spf.check and question.client:
        identity = spf.Identity(question.client, question.helo, question.sender)
        explains = access.spf.fail is Suspicion.REJECT
        sent = await spf.check(identity, lookup, explain=explains, receiver=hostname, now=now)
    signatures: tuple[Signature, ...] = ()
    chain = NO_CHAIN
    if body is not None:
        if access.dkim.check:
            signatures = await verify_signatures(fields, body, lookup, now)
        if access.arc.check:
            chain = await verify_chain(fields, body, lookup, now)
    judged = NOT_ASKED
    if access.dmarc.check:
        if author.problem:
            judged = Judged("permerror", "", None, Aligned(), author.problem)
        else:
            passed = [one.domain for one in signatures if one.result == "pass"]
            judged = await evaluate(author.domain, sent.domain if sent.result == "pass" else "", passed, lookup)
    return Findings(author, sent, signatures, chain, judged)


# ---- what follows


def decide(access: Access, found: Findings, question: Question) -> Decision:
    """The strictest of all that the policy says. Pure."""
    hits: list[tuple[Suspicion, Reply, str]] = []
    _hit_by_spf(hits, access, found)
    _hit_by_dkim(hits, access, found, question)
    overrides = _hit_by_dmarc(hits, access, found, question)
    trouble = _trouble(access, found)
    if not hits and trouble is None:
        return Decision(overrides=overrides) if overrides else FINE
    worst = max((hit[0] for hit in hits), key=_RANK.__getitem__, default=Suspicion.ACCEPT)
    first = next((hit for hit in hits if hit[0] is worst), None)
    if worst is Suspicion.REJECT and first is not None:
        return Decision(first[1], overrides=overrides)
    if trouble is not None:
        return Decision(trouble, overrides=overrides)
    mark = "; ".join(hit[2] for hit in hits)
    return Decision(None, worst is Suspicion.HOLD, mark, overrides)


_RANK = {Suspicion.ACCEPT: 0, Suspicion.QUARANTINE: 1, Suspicion.HOLD: 2, Suspicion.REJECT: 3}


def _hit_by_spf(hits: list[tuple[Suspicion, Reply, str]], access: Access, found: Findings) -> None:
    policy, sent = access.spf, found.spf
    wanted = {"fail": policy.fail, "softfail": policy.soft_fail, "permerror": policy.perm_error}
    action = wanted.get(sent.result, Suspicion.ACCEPT)
    if action is Suspicion.ACCEPT:
        return
    if sent.result == "permerror":
        reply = Reply(550, "5.7.24", f"The SPF record of {sent.domain} cannot be used")
    else:
        why = f". It explains: {_SAFE.sub(' ', sent.explanation)[:300]}" if sent.explanation else ""
        reply = Reply(550, "5.7.23", f"{sent.domain} does not let this client send for it (SPF){why}")
    hits.append((action, reply, f"spf={sent.result} for {sent.domain}"))


def _hit_by_dkim(
    hits: list[tuple[Suspicion, Reply, str]], access: Access, found: Findings, question: Question
) -> None:
    policy = access.dkim
    if not policy.check or question.body is None or any(one.result == "pass" for one in found.signatures):
        return
    if not found.signatures:
        if policy.unsigned is not Suspicion.ACCEPT:
            hits.append(
                (policy.unsigned, Reply(550, "5.7.20", "Mail must be signed here (DKIM)"), "no DKIM signature")
            )
    elif policy.fail is not Suspicion.ACCEPT and not _is_unsure(found):
        hits.append((policy.fail, Reply(550, "5.7.20", "No DKIM signature is good"), "no DKIM signature is good"))


def _is_unsure(found: Findings) -> bool:
    """No signature is good, and one could not be judged."""
    results_ = {one.result for one in found.signatures}
    return "temperror" in results_ and "pass" not in results_


def _hit_by_dmarc(
    hits: list[tuple[Suspicion, Reply, str]], access: Access, found: Findings, question: Question
) -> tuple[tuple[str, str], ...]:
    """Returns the overrides, for reports."""
    policy, judged = access.dmarc, found.dmarc
    if judged.result == "permerror" and found.author.problem:
        if policy.bad_from is not Suspicion.ACCEPT:
            reply = Reply(550, "5.7.1", f"Nobody can tell whose mail this is: {found.author.problem}")
            hits.append((policy.bad_from, reply, f"no author: {found.author.problem}"))
        return ()
    if judged.result != "fail" or judged.policy is None:
        return ()
    testing = (
        (("policy_test_mode", "t=y"),) if judged.policy.record.is_testing and judged.policy.wish != "none" else ()
    )
    if judged.wish == "none":
        return testing
    trusted = _trusted(access, found, question)
    if trusted is not None:
        return (trusted, *testing)
    action, why = _wished(access, found, question)
    text = f"{judged.author} wants mail that is not proven to be its own rejected (DMARC)"
    if action is not Suspicion.ACCEPT:
        hits.append((action, Reply(550, "5.7.1", text), f"dmarc=fail for {judged.author}, p={judged.wish}"))
    if judged.wish == "reject" and action is not Suspicion.REJECT:
        return (("local_policy", why), *testing)
    if judged.wish == "quarantine" and action is Suspicion.ACCEPT:
        return (("local_policy", "not obeyed here"), *testing)
    return testing


def _wished(access: Access, found: Findings, question: Question) -> tuple[Suspicion, str]:
    """What follows where the owner wants a failure quarantined or rejected, and why it is no more than that."""
    policy = access.dmarc
    if found.dmarc.wish == "quarantine":
        return policy.quarantine, ""
    if policy.reject is Forgery.EVIDENCE:
        if has_evidence(found, question):
            return Suspicion.REJECT, ""
        return policy.quarantine, "nothing but DMARC speaks against it (RFC 9989 7.4)"
    return Suspicion(policy.reject.value), "not obeyed to the letter here (RFC 9989 7.4)"


def has_evidence(found: Findings, question: Question) -> bool:
    """More than DMARC speaks against the message (RFC 9989 7.4): the author's own organisation says by SPF that this
    client may not send for it, and nothing shows that a list or a forwarder stands between."""
    sent, policy = found.spf, found.dmarc.policy
    if sent.result != "fail" or policy is None or not _is_below(sent.domain, policy.organisation):
        return False
    names = [name for name, _ in question.fields]
    return (
        not found.signatures
        and not any(name == b"dkim-signature" or name.startswith(b"arc-") or name in _LIST_FIELDS for name in names)
        and names.count(b"received") <= 1
    )


def _trusted(access: Access, found: Findings, question: Question) -> tuple[str, str] | None:
    """Whose word counts more than the failure: (type, comment) for reports."""
    lists = access.dmarc.known_lists
    if lists:
        proven = [one.domain for one in found.signatures if one.result == "pass"]
        if found.spf.result == "pass":
            proven.append(found.spf.domain)
        for domain in proven:
            if any(_is_below(domain, one) for one in lists):
                return "mailing_list", domain
    sealers = access.arc.trusted_sealers
    chain = found.arc
    if not sealers or chain.cv != "pass" or not chain.sealers:
        return None
    last = chain.sealers[-1]
    if any(_is_below(last, one) for one in sealers) and _sealer_saw_pass(question.fields, chain.instances):
        return "trusted_forwarder", f"arc=pass as[{chain.instances}].d={last}"
    return None


def _sealer_saw_pass(fields: Sequence[Field], instance: int) -> bool:
    """Whether the last set's results say that DMARC passed when the message came there (RFC 8617 7.2.1)."""
    for name, raw in fields:
        if name != _AAR:
            continue
        value = raw.partition(b":")[2].replace(b"\r\n", b"")
        found = _INSTANCE.match(value)
        if found is not None and int(found[1]) == instance:
            return _DMARC_PASSED.search(_unquoted(value)) is not None
    return False


def _unquoted(value: bytes) -> bytes:
    """Without comments and quoted strings (RFC 8601 2.2), which may hold what the message's sender made up; b"" where
    one does not end."""
    kept: list[bytes] = []
    depth, is_quoted = 0, False
    for piece in _PIECES.findall(value):
        if piece == b'"' and not depth:
            is_quoted = not is_quoted
        elif piece in (b"(", b")") and not is_quoted:
            depth += 1 if piece == b"(" else -1 if depth else 0
            kept.append(b" ")
        elif not depth and not is_quoted:
            kept.append(piece)
    return b"" if depth or is_quoted else b"".join(kept)


def _trouble(access: Access, found: Findings) -> Reply | None:
    """451, where the policy would rather wait for DNS."""
    if found.spf.result == "temperror" and access.spf.temp_error is OnTrouble.DEFER:
        return Reply(451, "4.4.3", f"DNS of {found.spf.domain} does not answer, try again later")
    if access.dkim.temp_error is OnTrouble.DEFER and _is_unsure(found):
        return Reply(451, "4.7.5", "The key of a signature cannot be had, try again later")
    if found.dmarc.result == "temperror" and access.dmarc.temp_error is OnTrouble.DEFER:
        return Reply(451, "4.7.24", f"The DMARC policy of {found.dmarc.author} cannot be had, try again later")
    return None


def _is_below(domain: str, parent: str) -> bool:
    return domain == parent or domain.endswith(f".{parent}")


# ---- what is written


def written(hostname: str, access: Access, found: Findings, question: Question, mark: str) -> bytes:
    """Our fields for the top of the message."""
    made = results.field(hostname, answers(access, found, question))
    if mark:
        made += f"{QUARANTINE}: {_SAFE.sub('?', mark)[:900]}\r\n".encode("ascii", "replace")
    return made


def answers(access: Access, found: Findings, question: Question) -> list[Result]:
    """In the words of RFC 8601."""
    made: list[Result] = []
    if access.spf.check:
        sent = found.spf
        who = ("smtp.mailfrom", question.sender) if question.sender else ("smtp.helo", question.helo)
        made.append(Result("spf", sent.result, (who,), "" if sent.result in ("pass", "none") else sent.reason))
    if access.dkim.check:
        made += [_of_signature(one) for one in found.signatures]
        if not found.signatures:
            made.append(Result("dkim", "none") if question.body is not None else _NOT_HASHED)
    if found.arc.cv != "none":
        oldest = str(found.arc.oldest_pass) if found.arc.oldest_pass else ""
        made.append(Result("arc", found.arc.cv, (("header.oldest-pass", oldest),), found.arc.reason))
    if access.dmarc.check:
        made.append(_of_dmarc(found))
    return made


_NOT_HASHED = Result("dkim", "neutral", (), "not judged")


def _of_signature(one: Signature) -> Result:
    comment = f"{one.uncovered} octets at the end are not signed" if one.uncovered else ""
    properties = (("header.d", one.domain), ("header.s", one.selector), ("header.a", one.algorithm))
    return Result("dkim", one.result, (*properties, ("header.b", one.mark)), one.reason, comment)


def _of_dmarc(found: Findings) -> Result:
    judged = found.dmarc
    policy = judged.policy
    if policy is None:
        return Result("dmarc", judged.result, (("header.from", judged.author),), judged.reason)
    properties = (("header.from", judged.author), ("polrec.p", policy.wish), ("polrec.domain", policy.domain))
    return Result("dmarc", judged.result, properties, judged.reason, "t=y" if policy.record.is_testing else "")


def summary(found: Findings) -> str:
    """For the log: "spf=pass dkim=pass dmarc=fail"."""
    signed = [one.result for one in found.signatures]
    dkim = "pass" if "pass" in signed else signed[0] if signed else "none"
    arc = f" arc={found.arc.cv}" if found.arc.cv != "none" else ""
    return f"spf={found.spf.result} dkim={dkim}{arc} dmarc={found.dmarc.result}"


def row(found: Findings, decision: Decision, question: Question) -> Row | None:
    """What the message leaves for its domain owner's report; None where nobody asks for one."""
    judged = found.dmarc
    if judged.policy is None or not is_wanted(judged) or not question.client:
        return None
    if decision.reply is not None and decision.reply.code < 500:
        return None  # it comes again
    disposition: Disposition = "none"
    if judged.result == "pass":
        disposition = "pass"
    elif decision.reply is not None:
        disposition = "reject"
    elif decision.mark or decision.is_held:
        disposition = "quarantine"
    sent = found.spf
    return Row(
        published(judged.policy),
        question.client,
        disposition,
        bool(judged.aligned.dkim),
        judged.aligned.spf,
        judged.author,
        (question.sender.rpartition("@")[2] or question.helo).lower(),
        tuple([(one.domain, one.selector, one.result) for one in found.signatures if one.domain]),
        sent.domain or question.helo.lower(),
        "helo" if sent.is_helo else "mfrom",
        sent.result,
        decision.overrides,
    )


def failure(hostname: str, access: Access, found: Findings, decision: Decision, question: Question) -> Failure | None:
    """The message as a failure report tells of it; None where nobody asks for one. Never about mail without a sender:
    it may be a report itself."""
    judged = found.dmarc
    if judged.policy is None or not question.sender or not question.client:
        return None
    if not wants_failure(judged, found.spf.result, [one.result for one in found.signatures]):
        return None
    aligned = [name for name, is_so in (("dkim", judged.aligned.dkim), ("spf", judged.aligned.spf)) if is_so]
    delivery = "reject" if decision.reply is not None else "policy" if decision.mark else "delivered"
    return Failure(
        published(judged.policy),
        judged.author,
        question.client,
        question.sender,
        results.field(hostname, answers(access, found, question)),
        delivery,
        tuple(aligned),
        question.head,
    )
