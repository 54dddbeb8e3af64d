"""Asking the next hop: what it says, how long it is believed, and that it is asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import pytest

from kit.manifests import compiled, domain
from posthof_pod.admit.callout import FULL, NOT_KNOWN, Callout
from posthof_pod.admit.policy import CompiledPolicy
from posthof_pod.admit.recipients import NO_SUCH
from posthof_pod.admit.route import Routes
from posthof_pod.model import Destination
from posthof_pod.replies import Reply

CONFIG = compiled(
    domain(
        "box",
        "mode: LMTP\nnextHops: [{host: a}]\nrecipients: {callout: {positive: 100s, negative: 10s}}",
        place="münchen.example",
    )
)
(BOX,) = CONFIG.domains.values()


class Said(NamedTuple):
    code: int


class Hop:
    """A next hop that answers from a script: code by command, or an exception."""

    def __init__(self, rcpt: int = 250, mail: int = 250, *, fails: Exception | None = None) -> None:
        self.rcpt, self.mail, self.fails = rcpt, mail, fails
        self.sessions = 0
        self.heard: list[bytes] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def open(self, destination: Destination) -> Hop:
        self.sessions += 1
        assert destination.key == "lmtp:xn--mnchen-3ya.example:a:24"
        if self.fails:
            raise self.fails
        return self

    async def command(self, line: bytes) -> Said:
        self.heard.append(line)
        await self.may_answer.wait()
        return Said(self.mail if line.startswith(b"MAIL") else self.rcpt)

    async def quit(self) -> None:
        self.heard.append(b"QUIT")
        raise ConnectionResetError("peers do that")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def callout(hop: Hop, clock: Callable[[], float], **given: float) -> Callout:
    routes = Routes(CompiledPolicy(CONFIG))
    return Callout(hop.open, routes.of_domain, monotonic=clock, **given)  # type: ignore[arg-type]  # keywords


async def asked(house: Callout, address: str = "Bob@münchen.example") -> Reply | None:
    answer = house.ask(BOX, address)
    return await answer if isinstance(answer, asyncio.Future) else answer


@pytest.mark.parametrize(
    ("hop", "answer"),
    [
        (lambda: Hop(250), None),
        (lambda: Hop(251), None),
        (lambda: Hop(550), NO_SUCH),
        (lambda: Hop(553), NO_SUCH),
        (lambda: Hop(552), FULL),
        (lambda: Hop(450), NOT_KNOWN),
        (lambda: Hop(354), NOT_KNOWN),
        (lambda: Hop(250, mail=550), NOT_KNOWN),
        (lambda: Hop(250, mail=451), NOT_KNOWN),
        (lambda: Hop(fails=ConnectionRefusedError()), NOT_KNOWN),
        (lambda: Hop(fails=RuntimeError("a bug")), NOT_KNOWN),
    ],
)
def test_what_the_next_hop_says(hop: Callable[[], Hop], answer: Reply | None) -> None:
    async def scene() -> Reply | None:
        return await asked(callout(hop(), Clock()))

    assert asyncio.run(scene()) == answer
    assert str(NOT_KNOWN).startswith("451 4.4.3 ")


def test_the_question_is_a_null_sender_and_one_recipient() -> None:
    async def scene() -> list[bytes]:
        hop = Hop()
        house = callout(hop, Clock())
        await asked(house)
        await asked(house, "jürgen@münchen.example")
        return hop.heard

    assert asyncio.run(scene()) == [
        b"MAIL FROM:<>",
        b"RCPT TO:<Bob@xn--mnchen-3ya.example>",
        b"QUIT",
        b"MAIL FROM:<> SMTPUTF8",
        "RCPT TO:<jürgen@xn--mnchen-3ya.example>".encode(),
        b"QUIT",
    ]


@pytest.mark.parametrize(("rcpt", "believed"), [(250, 100.0), (550, 10.0), (450, 60.0)])
def test_answers_are_believed_for_a_while(rcpt: int, believed: float) -> None:
    async def scene() -> list[int]:
        hop, clock = Hop(rcpt), Clock()
        house = callout(hop, clock)
        sessions = []
        for now in (0.0, believed - 0.1, believed + 0.1):
            clock.now = now
            await asked(house, "BOB@MÜNCHEN.example")
            sessions.append(hop.sessions)
        house.forget()
        await asked(house)
        return [*sessions, hop.sessions]

    assert asyncio.run(scene()) == [1, 1, 2, 3]


def test_an_old_yes_counts_while_the_next_hop_is_away_and_an_old_no_does_not() -> None:
    async def scene() -> list[Reply | None]:
        clock, answers = Clock(), []
        for rcpt in (250, 550):
            hop = Hop(rcpt)
            house = callout(hop, clock)
            await asked(house)
            hop.fails = TimeoutError()
            clock.now += 1000.0
            answers.append(await asked(house))
        return answers

    assert asyncio.run(scene()) == [None, NOT_KNOWN]


def test_one_question_answers_all_who_wait_and_who_leaves_cancels_nothing() -> None:
    async def scene() -> tuple[int, list[Reply | None]]:
        hop = Hop(550)
        hop.may_answer.clear()
        house = callout(hop, Clock())
        waiting = [asyncio.ensure_future(asked(house)) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        hop.may_answer.set()
        answers = await asyncio.gather(*waiting[1:])
        return hop.sessions, answers

    assert asyncio.run(scene()) == (1, [NO_SUCH] * 4)


def test_a_silent_next_hop_is_given_up() -> None:
    async def scene() -> Reply | None:
        hop = Hop()
        hop.may_answer.clear()
        return await asked(callout(hop, Clock(), timeout=0.05))

    assert asyncio.run(scene()) == NOT_KNOWN


def test_a_stop_answers_who_waits() -> None:
    async def scene() -> Reply | None:
        hop = Hop()
        hop.may_answer.clear()
        house = callout(hop, Clock())
        waiting = asyncio.ensure_future(asked(house))
        await asyncio.sleep(0.01)
        await house.stop()
        return await waiting

    assert asyncio.run(scene()) == NOT_KNOWN


def test_the_memory_is_bounded() -> None:
    async def scene() -> int:
        house = callout(Hop(), Clock(), answers=10)
        for n in range(25):
            await asked(house, f"u{n}@münchen.example")
        return len(house._known)

    assert asyncio.run(scene()) == 10


def test_failures_reach_the_log() -> None:
    told: list[str] = []

    async def scene() -> None:
        house = Callout(
            Hop(fails=OSError("no route")).open,
            Routes(CompiledPolicy(CONFIG)).of_domain,
            monotonic=Clock(),
            on_failure=lambda address, error: told.append(f"{address}: {error}"),
        )
        await asked(house)

    asyncio.run(scene())
    assert told == ["Bob@münchen.example: no route"]
