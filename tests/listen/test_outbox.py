"""Writes of one turn of the loop: together at its end, in order, and not to what is gone."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from posthof_pod.outbox import Outbox, outbox_of


class Paper:
    """A transport that writes down what it is given."""

    def __init__(self, log: list[tuple[str, object]], name: str) -> None:
        self.log, self.name, self.closing = log, name, False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.log.append((self.name, data))

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.log.append((self.name, b"|".join(pieces)))


def put(outbox: Outbox, paper: Paper, data: Any) -> None:
    outbox.put(cast(asyncio.WriteTransport, paper), data)


def test_all_is_written_at_the_end_of_the_turn_in_order() -> None:
    async def main() -> None:
        log: list[tuple[str, object]] = []
        outbox = outbox_of(asyncio.get_running_loop())
        one, two = Paper(log, "one"), Paper(log, "two")
        put(outbox, one, b"a")
        put(outbox, two, (b"b", b"c"))
        put(outbox, one, b"d")
        assert log == []
        await asyncio.sleep(0)
        assert log == [("one", b"a"), ("two", b"b|c"), ("one", b"d")]
        put(outbox, two, b"e")
        await asyncio.sleep(0)
        assert log[3:] == [("two", b"e")]

    asyncio.run(main())


def test_a_flush_writes_at_once_and_what_closed_gets_nothing() -> None:
    async def main() -> None:
        log: list[tuple[str, object]] = []
        outbox = outbox_of(asyncio.get_running_loop())
        one, two = Paper(log, "one"), Paper(log, "two")
        put(outbox, one, b"a")
        put(outbox, two, b"b")
        two.closing = True
        outbox.flush()
        assert log == [("one", b"a")]
        await asyncio.sleep(0)
        assert log == [("one", b"a")]

    asyncio.run(main())
