"""The matrix: every way a peer can break, at every step, in every manner of speaking.

What holds in every cell
- each recipient has exactly one outcome, and the session never hangs;
- RELAYED only where the peer took the message and said 2xx to it;
- what the peer took is never DEFERRED or FAILED (that would be told to somebody, or sent again unmetered): UNCERTAIN;
- FAILED only where the peer said 5xx.
"""

import asyncio
from typing import NamedTuple

import pytest
import uvloop

from kit.peer import CLOSE, FULL, RESET, SILENCE, Endless, Peer, Say
from posthof_crds.engine import Timeouts, TLSLevel
from posthof_pod.deliver.connection import Connection, Outgoing, Unreachable
from posthof_pod.model import Destination, DestinationKind, Envelope, Host, Outcome, Reason, Recipient, Status

QUICK = Timeouts(connect=20.0, command=2.0, data=2.0, block=2.0, dot=2.0)  # a loaded machine pauses for one

TRACE = b"Received: by me.test\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 4 * 7000 + b"\r\n"
SMALL = b"Subject: small\r\n\r\n.dot\r\n"


class Manner(NamedTuple):
    name: str
    offers: tuple[str, ...]
    body: bytes
    is_lmtp: bool = False
    has_following: bool = False

    @property
    def is_chunked(self) -> bool:
        return "CHUNKING" in self.offers


MANNERS = [
    Manner("pipelined", FULL, SMALL),
    Manner("one by one", (), SMALL),
    Manner("at once by BDAT", (*FULL, "CHUNKING"), SMALL),
    Manner("BDAT one by one", ("CHUNKING",), SMALL),
    Manner("large", FULL, LARGE),
    Manner("large by BDAT", (*FULL, "CHUNKING"), LARGE),
    Manner("LMTP", FULL, SMALL, is_lmtp=True),
    Manner("with a message behind", FULL, SMALL, has_following=True),
    Manner("with a message behind BDAT", (*FULL, "CHUNKING"), SMALL, has_following=True),
]

BREAKS = {
    "reset": RESET,
    "close": CLOSE,
    "silence": SILENCE,
    "half a line, then close": Say(b"25", CLOSE),
    "half a line, then reset": Say(b"250 o", RESET),
    "half a line, then silence": Say(b"250 ok", SILENCE),
    "half a reply, then silence": Say(b"250-first\r\n", SILENCE),
    "half a reply, then close": Say(b"250-first\r\n", CLOSE),
    "endless line": Endless(b"x" * 4096),
    "endless reply": Endless(b"250-more and more\r\n" * 100),
    "garbage": Say(b"\x00\xff\x16\x03 garbage\r\n", SILENCE),
    "no number": Say(b"OK fine\r\n", SILENCE),
    "mixed codes": Say(b"250-yes\r\n550 no\r\n", SILENCE),
    "code 199": Say(b"199 what\r\n", SILENCE),
    "code 600": Say(b"600 what\r\n", SILENCE),
    "354": Say("354 go on", SILENCE),
    "421": Say("421 4.3.2 going down", CLOSE),
    "421 and silence": Say("421 4.3.2 going down", SILENCE),
    "4xx": "451 4.3.0 try later",
    "4xx, then reset": Say("451 4.3.0 try later", RESET),
    "5xx": "554 5.7.1 never",
    "5xx, then reset": Say("554 5.7.1 never", RESET),
}

OPENING = ["CONNECT", "BANNER", "EHLO"]
ENVELOPE = ["MAIL", "RCPT", "DATA"]


def outgoing(number: int, body: bytes) -> Outgoing:
    people = (Recipient(f"a{number}@b.test"), Recipient(f"c{number}@d.test"))
    envelope = Envelope(f"lane-{number}", "from@a.test", people, 0.0, len(body))
    return Outgoing(envelope, (0, 1), TRACE, body, lambda: True)


def destination(manner: Manner) -> Destination:
    kind = DestinationKind.LMTP if manner.is_lmtp else DestinationKind.DIRECT
    return Destination("test", kind, "peer.test", tls=TLSLevel.NONE)


async def converse(peer: Peer, manner: Manner) -> list[list[Outcome]]:
    connection = await Connection.open(
        Host("peer.test", "127.0.0.1", peer.port), destination(manner), hostname="me.test", timeouts=QUICK
    )
    mails = [outgoing(n, manner.body) for n in range(2 if manner.has_following else 1)]
    all_outcomes = []
    for n, mail in enumerate(mails):
        following = mails[n + 1] if n + 1 < len(mails) else None
        all_outcomes.append(await asyncio.wait_for(connection.send(mail, following), 20))
    connection.abort()
    return all_outcomes


def check(peer: Peer, all_outcomes: list[list[Outcome]], *, said_5xx: bool) -> None:
    taken = {address for message in peer.messages if message.code // 100 == 2 for address in message.recipients}
    held = {address for message in peer.messages for address in message.recipients}
    for number, outcomes in enumerate(all_outcomes):
        assert [outcome.recipient for outcome in outcomes] == [0, 1]
        for outcome, address in zip(outcomes, (f"a{number}@b.test", f"c{number}@d.test"), strict=True):
            assert outcome.host == f"peer.test[127.0.0.1]:{peer.port}"
            assert outcome.reply
            if outcome.status is Status.RELAYED:
                assert address in taken
            elif address in taken:
                assert outcome.status is Status.UNCERTAIN, outcome
            if outcome.status is Status.UNCERTAIN:
                assert outcome.code == 0
            if outcome.status is Status.FAILED:
                assert said_5xx
                assert outcome.code >= 500
            if outcome.status is Status.DEFERRED:
                assert address not in held or outcome.code, "a message seen whole was deferred without a reply"
    for message in peer.messages:
        assert message.content in {TRACE + SMALL, TRACE + LARGE}


def steps(manner: Manner) -> list[str]:
    if not manner.is_chunked:
        return ["MAIL", "RCPT", "DATA", "BODY", "DOT"]
    return ["MAIL", "RCPT", "BDAT", "LAST"] if manner.body is LARGE else ["MAIL", "RCPT", "LAST"]


def entry(step: str, broken: str):
    if step == "BODY" and broken in {"4xx", "5xx"}:
        return Say(BREAKS[broken], CLOSE)  # one reply a message: who refuses it before its end is done with it
    return BREAKS[broken]


async def break_everywhere(manner: Manner) -> list[str]:
    """All steps and breaks of a manner side by side; gives the cells that did not hold."""
    cells = [(step, broken) for step in steps(manner) for broken in BREAKS]

    async def cell(step: str, broken: str) -> str:
        with Peer({step: entry(step, broken)}, offers=manner.offers, lmtp=manner.is_lmtp) as peer:
            try:
                all_outcomes = await converse(peer, manner)
            except (Unreachable, TimeoutError) as error:
                return f"{manner.name}, {step}, {broken}: {error!r}"
        try:  # the peer has stopped: it did all it wanted to do
            check(peer, all_outcomes, said_5xx="5xx" in broken)
            check_cell(manner, step, broken, all_outcomes)
        except AssertionError as error:
            return f"{manner.name}, {step}, {broken}: {error}"
        return ""

    return [fault for fault in await asyncio.gather(*[cell(*each) for each in cells]) if fault]


def check_cell(manner: Manner, step: str, broken: str, all_outcomes: list[list[Outcome]]) -> None:
    """What exactly must come out, where the peer's last words cannot be lost with the connection."""
    statuses = {outcome.status for outcome in all_outcomes[0]}
    if step in {"DOT", "LAST"} and "xx" not in broken and "421" not in broken:
        assert statuses == {Status.UNCERTAIN}, all_outcomes
    elif step in {"DOT", "LAST"} and "reset" not in broken and not manner.is_lmtp:
        assert statuses == {Status.FAILED if "5xx" in broken else Status.DEFERRED}, all_outcomes
    elif step in ENVELOPE and "xx" not in broken and "BDAT" not in manner.name and (step, broken) != ("DATA", "354"):
        assert statuses == {Status.DEFERRED}, all_outcomes
    if "421" in broken and step in ENVELOPE:
        assert {outcome.code for outcome in all_outcomes[0]} == {421}, all_outcomes
    if broken in {"4xx", "5xx"} and step in {"MAIL", "RCPT", "DATA"}:
        assert statuses == {Status.FAILED if broken == "5xx" else Status.DEFERRED}, all_outcomes


@pytest.mark.parametrize("manner", MANNERS, ids=lambda manner: manner.name)
def test_a_peer_that_breaks_at_any_step_loses_and_doubles_nothing(manner):
    faults = uvloop.run(break_everywhere(manner))
    assert not faults, "\n".join(faults)


REASONS = {
    "reset": Reason.PEER_CLOSED,
    "close": Reason.PEER_CLOSED,
    "silence": Reason.PEER_TIMEOUT,
    "half a line, then close": Reason.PEER_CLOSED,
    "half a line, then reset": Reason.PEER_CLOSED,
    "half a line, then silence": Reason.PEER_TIMEOUT,
    "half a reply, then silence": Reason.PEER_TIMEOUT,
    "half a reply, then close": Reason.PEER_CLOSED,
    "endless line": Reason.PEER_BROKEN,
    "endless reply": Reason.PEER_BROKEN,
    "garbage": Reason.PEER_BROKEN,
    "no number": Reason.PEER_BROKEN,
    "mixed codes": Reason.PEER_BROKEN,
    "code 199": Reason.PEER_BROKEN,
    "code 600": Reason.PEER_BROKEN,
    "354": Reason.PEER_BROKEN,
}


async def refuse_everywhere() -> list[str]:
    cells = [(step, broken) for step in OPENING for broken in BREAKS]

    async def cell(step: str, broken: str) -> str:
        if step == "CONNECT" and broken in {"4xx", "5xx"}:
            return ""  # the banner then is a second, unasked one: see below
        with Peer({step: BREAKS[broken], "HELO" if step == "EHLO" else "": BREAKS[broken]}) as peer:
            try:
                await converse(peer, MANNERS[0])
            except Unreachable as failure:
                return "" if is_right(failure, step, broken) else f"{step}, {broken}: {failure!r} {failure.reason}"
        return f"{step}, {broken}: a session came about"

    return [fault for fault in await asyncio.gather(*[cell(*each) for each in cells]) if fault]


def is_right(failure: Unreachable, step: str, broken: str) -> bool:
    assert failure.host.startswith("peer.test[127.0.0.1]:")
    assert failure.reply
    if "reset" in broken and failure.reason in {Reason.PEER_CLOSED, Reason.CONNECT_FAILED}:
        return failure.code == 0  # the reset may destroy the reply before it, or the connection as it is made
    refused = Reason.EHLO_REFUSED if step == "EHLO" else Reason.GREETING_REFUSED
    code = {"421": 421, "421 and silence": 421, "4xx": 451, "5xx": 554}.get(broken.partition(",")[0], 0)
    is_permanent = "5xx" in broken
    return (failure.reason, failure.code, failure.is_permanent) == (REASONS.get(broken, refused), code, is_permanent)


def test_a_session_that_does_not_come_about_says_why():
    faults = uvloop.run(refuse_everywhere())
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("unasked", ["250 what you did not ask\r\n", "250 hal", "220 again\r\n"])
@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("manner", [MANNERS[0], MANNERS[1]], ids=lambda manner: manner.name)
def test_a_reply_before_its_command_never_counts(manner, step, unasked):
    """The worst of them: a 250 right behind the 354 would pass for the reply to the dot."""
    healthy = {"MAIL": "250 ok", "RCPT": "250 ok", "DATA": "354 go"}[step]
    script = {step: healthy.encode() + b"\r\n" + unasked.encode()}
    with Peer(script, offers=manner.offers) as peer:
        [outcomes] = uvloop.run(converse(peer, manner))
    check(peer, [outcomes], said_5xx=False)
    if step == "DATA":
        assert {o.status for o in outcomes} == {Status.DEFERRED}
        assert {o.reason for o in outcomes} == {Reason.PEER_BROKEN}
        assert peer.messages == []


def test_replies_before_the_banner_was_answered_end_the_session():
    with Peer({"BANNER": b"220 peer.test\r\n250 too early\r\n"}) as peer, pytest.raises(Unreachable) as caught:
        uvloop.run(converse(peer, MANNERS[0]))
    assert caught.value.reason is Reason.PEER_BROKEN
