"""The records of a MailDomain: what should be published, what is, and whether that will do.

Rules of this file
- Pure. `Want` says what to expect, `Seen` what DNS answered; a part of `Seen` that is None was not answered.
- `expected` is the exact text to publish, `observed` what was found, "" for nothing; several stand in lines.
- A record is right when it works, not when it is spelled like ours: other MX hosts behind ours, an SPF record that
  reaches our addresses by its own way, a DMARC record of a parent. Only a text that the MailDomain itself gives
  (`dns.spf`, `dns.dmarc`) has to be published as it is.
- MX is right when mail is tried at one of our hosts first. A host is ours by its name, or because it has one of our
  addresses: many domains give the MTA a name of their own.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from posthof_operator.dns import dmarc, proof, spf, transport
from posthof_operator.dns.transport import Policy
from posthof_operator.dns.wire import MX

PREFERENCE = 10
PROPOSED_DMARC = "v=DMARC1; p=none"


class State(enum.StrEnum):
    OK = "ok"
    MISSING = "missing"
    DIFFERS = "differs"
    UNKNOWN = "unknown"  # there is nothing to compare with, or DNS did not answer
    OFF = "off"  # the MailDomain asks for no check


class Want(NamedTuple):
    """What to expect for `domain`. `hosts`: hostnames of the MTAs that receive for it; `addresses`: theirs, as far as
    known; `egress`: what mail leaves from; `spf`, `dmarc`: texts of the MailDomain (None: none given, "": no check);
    `proof`: the value of the TXT proof, "" where none is asked for; `is_proof_needed`: nothing is received without
    it; `may_publish`: an MTA receives for it; `policy`: its MTA-STS policy; `tls_rpt`: the text of its TLS-RPT
    record, "" for none."""

    domain: str
    hosts: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    egress: tuple[str, ...] = ()
    spf: str | None = None
    dmarc: str | None = None
    proof: str = ""
    is_proof_needed: bool = False
    may_publish: bool = False
    policy: Policy | None = None
    tls_rpt: str = ""
    tlsa: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (name, texts): of the MX hosts, where they are asked for


class Seen(NamedTuple):
    """What DNS answered.

    `mx`: the hosts by preference. `foreign`: addresses of MX hosts that are not ours by name; `own`: of ours. `txt`:
    TXT records of the domain. `spf`: the judgement for each of our addresses. `dmarc`: TXT records by name, as far as
    the tree walk went. `challenge`: TXT records of the proof's name. `sts`, `tls_rpt`: those of MTA-STS and TLS-RPT;
    `policy_host`: addresses of the MTA-STS policy's host, `own_hosts`: of our hosts. `troubles`: what was not
    answered, and why.
    """

    mx: tuple[MX, ...] | None = None
    foreign: Mapping[str, tuple[str, ...]] = {}
    own: tuple[str, ...] = ()
    txt: tuple[str, ...] | None = None
    spf: Mapping[str, spf.Judged] = {}
    dmarc: Mapping[str, tuple[str, ...]] | None = None
    challenge: tuple[str, ...] | None = None
    sts: tuple[str, ...] | None = None
    tls_rpt: tuple[str, ...] | None = None
    policy_host: tuple[str, ...] | None = None
    own_hosts: tuple[str, ...] = ()
    tlsa: Mapping[str, tuple[str, ...]] = {}  # by name
    troubles: tuple[str, ...] = ()


class Row(NamedTuple):
    """`note` is for people: half a sentence on what is wrong."""

    type: str
    name: str
    expected: str
    observed: str
    state: State
    note: str = ""


class Rows(NamedTuple):
    mx: Row
    spf: Row
    dmarc: Row
    proof: Row | None = None
    sts: Row | None = None
    policy_host: Row | None = None
    tls_rpt: Row | None = None
    tlsa: tuple[Row, ...] = ()

    @property
    def all(self) -> list[Row]:
        return [*(row for row in self[:-1] if row is not None), *self.tlsa]


def rows(want: Want, seen: Seen) -> Rows:
    """The judgement."""
    return Rows(
        _mx(want, seen),
        _spf(want, seen),
        _dmarc(want, seen),
        _proof(want, seen) if want.proof else None,
        _sts(want, seen),
        _policy_host(want, seen),
        _tls_rpt(want, seen),
        tuple(_tlsa(name, texts, seen) for name, texts in want.tlsa),
    )


def remembered(old: Seen | None, new: Seen) -> Seen:
    """What is known after a look: a part that was not answered this time is as it was before."""
    if old is None or not new.troubles:
        return new
    parts = ("mx", "txt", "dmarc", "challenge", "sts", "tls_rpt", "policy_host")
    kept = {name: getattr(old, name) for name in parts if getattr(new, name) is None}
    return new._replace(
        **kept,
        spf={**old.spf, **new.spf},
        foreign={**old.foreign, **new.foreign},
        tlsa={**old.tlsa, **new.tlsa},
    )


def expected_mx(want: Want) -> str:
    return "\n".join(f"{PREFERENCE} {host}." for host in want.hosts)


def mx_text(exchangers: Sequence[MX]) -> str:
    return "\n".join(f"{preference} {host}." for preference, host in exchangers)


def is_ours(host: str, want: Want, seen: Seen) -> bool:
    """By name, or by an address."""
    ours = {*want.addresses, *seen.own}
    return host in want.hosts or any(address in ours for address in seen.foreign.get(host, ()))


def _mx(want: Want, seen: Seen) -> Row:
    row = Row("MX", want.domain, expected_mx(want), "", State.UNKNOWN)
    if seen.mx is None:
        return row._replace(note="DNS did not answer")
    row = row._replace(observed=mx_text(seen.mx))
    if not want.hosts:
        return row._replace(note="no MTA receives for it")
    if not seen.mx:
        return row._replace(state=State.MISSING, note="it is not published")
    first = seen.mx[0].preference
    ours = [mx for mx in seen.mx if is_ours(mx.host, want, seen)]
    if any(mx.preference == first for mx in ours):
        return row._replace(state=State.OK)
    if ours:
        others = ", ".join(mx.host for mx in seen.mx if mx.preference == first)
        return row._replace(state=State.DIFFERS, note=f"mail goes to {others} first")
    return row._replace(state=State.DIFFERS, note="mail goes elsewhere")


def _spf(want: Want, seen: Seen) -> Row:
    row = Row("TXT", want.domain, want.spf or "", "", State.UNKNOWN)
    found = None if seen.txt is None else spf.records(seen.txt)
    row = row._replace(observed="\n".join(found or ()))
    if want.spf == "":
        return row._replace(state=State.OFF)
    if want.spf is None:
        if not want.egress:
            return row._replace(note="the MTA says no egress.addresses")
        usable = found[0] if found and len(found) == 1 and _is_readable(found[0]) else ""
        row = row._replace(expected=spf.proposal(want.egress, usable))
    if found is None:
        return row._replace(note="DNS did not answer")
    if not found:
        return row._replace(state=State.MISSING, note="it is not published")
    if len(found) > 1:
        return row._replace(state=State.DIFFERS, note=f"there are {len(found)} SPF records, and may be one")
    if want.spf is not None:
        is_same = spf.same(found[0], want.spf)
        return (
            row._replace(state=State.OK) if is_same else row._replace(state=State.DIFFERS, note="it says otherwise")
        )
    return _spf_by_result(row, want, seen, found[0])


def _spf_by_result(row: Row, want: Want, seen: Seen, found: str) -> Row:
    """Whether every address mail leaves from passes."""
    judged = {address: seen.spf[address] for address in want.egress if address in seen.spf}
    broken = next((each.why for each in judged.values() if each.result is spf.Result.ERROR), "")
    if broken:
        return row._replace(state=State.DIFFERS, note=f"receivers cannot use it: {broken}")
    refused = [a for a, each in judged.items() if each.result not in (spf.Result.PASS, spf.Result.UNSURE)]
    if refused:
        return row._replace(state=State.DIFFERS, note=f"it does not let {', '.join(refused)} send")
    if any(each.result is spf.Result.UNSURE for each in judged.values()):
        return row._replace(note="whether it lets us send depends on the message (macros)")
    if len(judged) < len(want.egress):
        return row._replace(note="DNS did not answer for what it includes")
    return row._replace(state=State.OK, expected=found)


def _is_readable(text: str) -> bool:
    try:
        spf.parse(text)
    except spf.Broken:
        return False
    return True


def _dmarc(want: Want, seen: Seen) -> Row:
    name = f"_dmarc.{want.domain}"
    row = Row("TXT", name, want.dmarc or PROPOSED_DMARC, "", State.UNKNOWN)
    own = [text for text in (seen.dmarc or {}).get(name, ()) if dmarc.is_dmarc(text)]
    row = row._replace(observed="\n".join(own))
    if want.dmarc == "":
        return row._replace(state=State.OFF, expected="")
    if seen.dmarc is None:
        return row._replace(note="DNS did not answer")
    if want.dmarc is not None and len(own) == 1:
        is_same = dmarc.same(own[0], want.dmarc)
        return (
            row._replace(state=State.OK) if is_same else row._replace(state=State.DIFFERS, note="it says otherwise")
        )
    found = dmarc.discover(want.domain, seen.dmarc)
    if found.several:
        return row._replace(state=State.DIFFERS, note=f"there are {len(own)} DMARC records, so none counts")
    if found.record is None or (want.dmarc is not None and not own):
        return row._replace(state=State.MISSING, note="it is not published")
    observed = found.record.text if found.record.name == name else f"{found.record.name}: {found.record.text}"
    row = row._replace(observed=observed)
    if found.mistake:
        return row._replace(state=State.DIFFERS, note=f"receivers do not obey it: {found.mistake}")
    return row._replace(state=State.OK, expected=found.record.text)


def _proof(want: Want, seen: Seen) -> Row:
    row = Row("TXT", proof.name_of(want.domain), want.proof, "", State.UNKNOWN)
    if seen.challenge is None:
        return row._replace(note="DNS did not answer")
    if proof.holds(want.proof, seen.challenge):
        return row._replace(observed=want.proof, state=State.OK)
    if not seen.challenge:
        return row._replace(state=State.MISSING, note="it is not published")
    return row._replace(observed="\n".join(seen.challenge), state=State.DIFFERS, note="it is not this namespace's")


def _sts(want: Want, seen: Seen) -> Row | None:
    """RFC 8461 3.1: exactly one record of this version counts."""
    if want.policy is None:
        return None
    row = Row("TXT", transport.record_name(want.domain), want.policy.record, "", State.UNKNOWN)
    return _text_row(row, seen.sts, "v=STSv1")


def _tls_rpt(want: Want, seen: Seen) -> Row | None:
    if not want.tls_rpt:
        return None
    row = Row("TXT", transport.reports_name(want.domain), want.tls_rpt, "", State.UNKNOWN)
    return _text_row(row, seen.tls_rpt, "v=TLSRPTv1")


def _text_row(row: Row, texts: tuple[str, ...] | None, version: str) -> Row:
    """A record that has to say exactly what is expected; spaces do not count."""
    if texts is None:
        return row._replace(note="DNS did not answer")
    found = [text for text in texts if text.startswith(version)]
    row = row._replace(observed="\n".join(found))
    if not found:
        return row._replace(state=State.MISSING, note="it is not published")
    if len(found) > 1:
        return row._replace(state=State.DIFFERS, note=f"there are {len(found)} of them, so none counts")
    if _bare(found[0]) == _bare(row.expected):
        return row._replace(state=State.OK)
    return row._replace(state=State.DIFFERS, note="it says otherwise")


def _bare(text: str) -> str:
    return text.replace(" ", "").rstrip(";")


def _policy_host(want: Want, seen: Seen) -> Row | None:
    """The host that serves the policy leads to us."""
    if want.policy is None:
        return None
    expected = f"{want.hosts[0]}." if want.hosts else ""
    row = Row("CNAME", transport.host_name(want.domain), expected, "", State.UNKNOWN)
    if seen.policy_host is None:
        return row._replace(note="DNS did not answer")
    row = row._replace(observed="\n".join(seen.policy_host))
    if not seen.policy_host:
        return row._replace(state=State.MISSING, note="it is not published")
    ours = {*want.addresses, *seen.own_hosts}
    if not ours:
        return row._replace(note="no address of ours is known")
    if any(address in ours for address in seen.policy_host):
        return row._replace(state=State.OK)
    return row._replace(state=State.DIFFERS, note="it leads elsewhere")


def _tlsa(name: str, texts: tuple[str, ...], seen: Seen) -> Row:
    """Every key that may be served has to stand there; others may stand beside it."""
    row = Row("TLSA", name, "\n".join(texts), "", State.UNKNOWN)
    if not texts:
        return row._replace(note="no TLSCert of the listeners has dane.mode Staged")
    found = seen.tlsa.get(name)
    if found is None:
        return row._replace(note="DNS did not answer")
    row = row._replace(observed="\n".join(found))
    if not found:
        return row._replace(state=State.MISSING, note="it is not published")
    if set(texts) <= set(found):
        return row._replace(state=State.OK)
    return row._replace(state=State.DIFFERS, note="a key that is served, or will be, is not in it")
