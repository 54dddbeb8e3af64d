"""What follows from what was found: every word of an AccessPolicy, asked of findings that are values."""

from __future__ import annotations

from typing import Any

import pytest

from posthof_crds.engine import (
    Access,
    ARCPolicy,
    DKIMPolicy,
    DMARCPolicy,
    Forgery,
    OnTrouble,
    SPFPolicy,
    Suspicion,
)
from posthof_pod.admit import trust
from posthof_pod.admit.trust import Decision, Findings, Question, decide, has_evidence
from posthof_pod.mailauth import spf
from posthof_pod.mailauth.arc.verify import ArcResult
from posthof_pod.mailauth.canon import fields
from posthof_pod.mailauth.dkim.verify import Signature
from posthof_pod.mailauth.dmarc import Aligned, Policy, Record, Verdict
from posthof_pod.mailauth.fromline import Author

HEAD = b"From: ada@a.example\r\nSubject: hi\r\n"
ME = Author("a.example", "ada@a.example")


def question(head: bytes = HEAD, *, sender: str = "ada@a.example") -> Question:
    return Question("192.0.2.1", "client.example", sender, head, fields(head), b"hello\r\n")


def sent(result: Any = "pass", domain: str = "a.example") -> spf.Verdict:
    return spf.Verdict(result, domain, False, "why")


def signature(result: Any, domain: str = "a.example") -> Signature:
    return Signature(domain=domain, selector="s", algorithm="rsa-sha256", identity="", result=result, reason="")


def dmarc(result: Any, wish: Any = "reject", *, testing: bool = False) -> Verdict:
    record = Record(p=wish, is_testing=testing, rua=("mailto:d@a.example",))
    return Verdict(result, "a.example", Policy("a.example", "a.example", record, wish), Aligned())


FORGED = Findings(ME, sent("fail"), (), trust.NO_CHAIN, dmarc("fail"))


def decided(access: Access, found: Findings, asked: Question | None = None) -> Decision:
    return decide(access, found, asked or question())


def test_what_is_fine_is_fine() -> None:
    strict = Access(
        name="x",
        spf=SPFPolicy(fail=Suspicion.REJECT),
        dkim=DKIMPolicy(unsigned=Suspicion.REJECT),
        dmarc=DMARCPolicy(reject=Forgery.REJECT),
    )
    found = Findings(ME, sent(), (signature("pass"),), trust.NO_CHAIN, dmarc("pass"))
    assert decided(strict, found) == trust.FINE


@pytest.mark.parametrize(
    ("reject", "code", "mark", "held"),
    [
        (Forgery.ACCEPT, 0, False, False),
        (Forgery.QUARANTINE, 0, True, False),
        (Forgery.HOLD, 0, True, True),
        (Forgery.EVIDENCE, 550, False, False),
        (Forgery.REJECT, 550, False, False),
    ],
)
def test_each_word_for_a_policy_of_reject(reject: Forgery, code: int, mark: bool, held: bool) -> None:
    found = decided(Access(dmarc=DMARCPolicy(reject=reject)), FORGED)
    assert (found.reply.code if found.reply else 0, bool(found.mark), found.is_held) == (code, mark, held)


@pytest.mark.parametrize(
    "head",
    [
        b"DKIM-Signature: v=1\r\n",
        b"ARC-Seal: i=1\r\n",
        b"List-Id: <x.example>\r\n",
        b"Resent-From: x@b.example\r\n",
        b"Received: from a\r\nReceived: from b\r\n",
    ],
)
def test_what_may_have_been_forwarded_is_no_evidence(head: bytes) -> None:
    assert has_evidence(FORGED, question())
    assert has_evidence(FORGED, question(b"Received: from a\r\n" + HEAD))
    assert not has_evidence(FORGED, question(head + HEAD))


def test_only_the_authors_own_organisation_gives_evidence() -> None:
    other = Findings(ME, sent("fail", "b.example"), (), trust.NO_CHAIN, dmarc("fail"))
    assert not has_evidence(other, question())
    below = Findings(ME, sent("fail", "bounce.a.example"), (), trust.NO_CHAIN, dmarc("fail"))
    assert has_evidence(below, question())
    unsure = Findings(ME, sent("softfail"), (), trust.NO_CHAIN, dmarc("fail"))
    assert not has_evidence(unsure, question())


def test_without_evidence_it_is_as_for_quarantine_and_the_report_says_why() -> None:
    found = Findings(ME, sent("none"), (), trust.NO_CHAIN, dmarc("fail"))
    made = decided(Access(dmarc=DMARCPolicy(reject=Forgery.EVIDENCE, quarantine=Suspicion.HOLD)), found)
    assert made.is_held
    assert made.overrides[0][0] == "local_policy"


def test_a_known_list_is_forgiven_when_it_is_proven() -> None:
    access = Access(dmarc=DMARCPolicy(reject=Forgery.REJECT, known_lists=("lists.example",)))
    proven = Findings(ME, sent("pass", "bounce.lists.example"), (), trust.NO_CHAIN, dmarc("fail"))
    assert decided(access, proven) == Decision(overrides=(("mailing_list", "bounce.lists.example"),))
    signed = Findings(ME, sent("none"), (signature("pass", "lists.example"),), trust.NO_CHAIN, dmarc("fail"))
    assert decided(access, signed).reply is None
    claimed = Findings(ME, sent("fail", "lists.example"), (signature("fail", "lists.example"),), trust.NO_CHAIN)
    claimed = Findings(ME, claimed.spf, claimed.signatures, trust.NO_CHAIN, dmarc("fail"))
    assert decided(access, claimed).reply is not None


AAR = b"ARC-Authentication-Results: i=2; mx.fwd.example; spf=fail; dmarc=pass header.from=a.example\r\n"
OTHER = b"ARC-Authentication-Results: i=1; mx.x.example; dmarc=pass\r\n"


@pytest.mark.parametrize(
    ("chain", "head", "is_forgiven"),
    [
        (ArcResult(cv="pass", instances=2, sealers=("x.example", "mx.fwd.example")), AAR, True),
        (ArcResult(cv="fail", instances=2, sealers=("x.example", "mx.fwd.example")), AAR, False),
        (ArcResult(cv="pass", instances=2, sealers=("fwd.example", "evil.example")), AAR, False),
        (ArcResult(cv="pass", instances=2, sealers=("x.example", "notfwd.example")), AAR, False),
        (ArcResult(cv="pass", instances=2, sealers=("x.example", "fwd.example")), OTHER, False),
        (
            ArcResult(cv="pass", instances=2, sealers=("x.example", "fwd.example")),
            AAR.replace(b"dmarc=pass", b"dmarc=fail (; dmarc=pass (x))"),
            False,
        ),
        *(  # what a sealer repeats of a sender's words is not the sealer's word
            (
                ArcResult(cv="pass", instances=2, sealers=("x.example", "fwd.example")),
                AAR.replace(b"dmarc=pass", b"dmarc=fail " + words),
                False,
            )
            for words in (
                b'smtp.mailfrom="; dmarc=pass"@evil.example',
                b'reason="x\\" ; dmarc=pass"',
                b"(domain of \\) ; dmarc=pass)",
            )
        ),
    ],
)
def test_a_trusted_sealers_word_counts_and_no_others(chain: ArcResult, head: bytes, is_forgiven: bool) -> None:
    access = Access(dmarc=DMARCPolicy(reject=Forgery.REJECT), arc=ARCPolicy(trusted_sealers=("fwd.example",)))
    found = Findings(ME, sent("fail", "b.example"), (), chain, dmarc("fail"))
    made = decided(access, found, question(head + HEAD))
    assert (made.reply is None) == is_forgiven
    assert bool(made.overrides) == is_forgiven


def test_nobodys_mail_is_judged_by_bad_from_alone() -> None:
    found = Findings(Author("", "", "two of them"), sent(), (signature("pass"),), trust.NO_CHAIN)
    found = Findings(found.author, found.spf, found.signatures, found.arc, Verdict("permerror", ""))
    assert decided(Access(), found).mark == "no author: two of them"
    refusing = decided(Access(dmarc=DMARCPolicy(bad_from=Suspicion.REJECT)), found)
    assert refusing.reply is not None
    assert refusing.reply.code == 550
    assert decided(Access(dmarc=DMARCPolicy(bad_from=Suspicion.ACCEPT)), found) == trust.FINE


@pytest.mark.parametrize(
    ("policy", "found", "status"),
    [
        (SPFPolicy(fail=Suspicion.REJECT), sent("fail"), "5.7.23"),
        (SPFPolicy(soft_fail=Suspicion.REJECT), sent("softfail"), "5.7.23"),
        (SPFPolicy(perm_error=Suspicion.REJECT), sent("permerror"), "5.7.24"),
        (SPFPolicy(temp_error=OnTrouble.DEFER), sent("temperror"), "4.4.3"),
        (SPFPolicy(fail=Suspicion.REJECT), sent("softfail"), ""),
    ],
)
def test_each_word_for_spf(policy: SPFPolicy, found: spf.Verdict, status: str) -> None:
    made = decided(Access(spf=policy), Findings(ME, found))
    assert (made.reply.status if made.reply else "") == status


@pytest.mark.parametrize(
    ("policy", "signatures", "status"),
    [
        (DKIMPolicy(unsigned=Suspicion.REJECT), (), "5.7.20"),
        (DKIMPolicy(unsigned=Suspicion.REJECT), ("fail",), ""),
        (DKIMPolicy(fail=Suspicion.REJECT), ("fail", "neutral"), "5.7.20"),
        (DKIMPolicy(fail=Suspicion.REJECT), ("fail", "pass"), ""),
        (DKIMPolicy(fail=Suspicion.REJECT), ("fail", "temperror"), ""),
        (DKIMPolicy(temp_error=OnTrouble.DEFER), ("temperror",), "4.7.5"),
        (DKIMPolicy(temp_error=OnTrouble.DEFER), ("temperror", "pass"), ""),
        (DKIMPolicy(check=False, unsigned=Suspicion.REJECT), (), ""),
    ],
)
def test_each_word_for_dkim(policy: DKIMPolicy, signatures: tuple[str, ...], status: str) -> None:
    made = decided(Access(dkim=policy), Findings(ME, sent(), tuple(map(signature, signatures))))
    assert (made.reply.status if made.reply else "") == status


def test_a_refusal_comes_before_waiting_and_both_before_a_hold() -> None:
    access = Access(
        spf=SPFPolicy(temp_error=OnTrouble.DEFER), dmarc=DMARCPolicy(quarantine=Suspicion.HOLD, reject=Forgery.REJECT)
    )
    wants = Findings(ME, sent("temperror"), (), trust.NO_CHAIN, dmarc("fail"))
    refused = decided(access, wants)
    assert refused.reply is not None
    assert refused.reply.code == 550
    milder = Findings(ME, sent("temperror"), (), trust.NO_CHAIN, dmarc("fail", "quarantine"))
    waits = decided(access, milder)
    assert waits.reply is not None
    assert waits.reply.code == 451


def test_test_mode_is_told_in_reports() -> None:
    found = Findings(ME, sent("none"), (), trust.NO_CHAIN, dmarc("fail", "quarantine", testing=True))
    assert decided(Access(), found) == Decision(overrides=(("policy_test_mode", "t=y"),))


def test_a_row_counts_what_was_done() -> None:
    asked = question()
    row = trust.row(FORGED, decided(Access(), FORGED), asked)
    assert row is not None
    assert (row.disposition, row.dkim, row.spf, row.sender) == ("quarantine", False, False, "a.example")
    refused = decided(Access(dmarc=DMARCPolicy(reject=Forgery.REJECT)), FORGED)
    row = trust.row(FORGED, refused, asked)
    assert row is not None
    assert row.disposition == "reject"
    waiting = decided(
        Access(spf=SPFPolicy(temp_error=OnTrouble.DEFER)),
        Findings(ME, sent("temperror"), (), trust.NO_CHAIN, dmarc("fail", "none")),
    )
    assert trust.row(FORGED, waiting, asked) is None
