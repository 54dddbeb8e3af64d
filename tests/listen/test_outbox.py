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

    def close(self) -> None:
        self.closing = True
        self.log.append((self.name, None))

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


def test_an_end_comes_behind_what_was_said_before_and_nothing_behind_it() -> None:
    async def main() -> None:
        log: list[tuple[str, object]] = []
        outbox = outbox_of(asyncio.get_running_loop())
        one, two = Paper(log, "one"), Paper(log, "two")
        put(outbox, one, b"bye")
        outbox.close(cast(asyncio.WriteTransport, one))
        put(outbox, one, b"late")
        put(outbox, two, b"a")
        await asyncio.sleep(0)
        assert log == [("one", b"bye"), ("one", None), ("two", b"a")]

    asyncio.run(main())


def test_a_session_whose_write_fails_costs_the_others_nothing() -> None:
    class Torn(Paper):
        def write(self, data: bytes) -> None:
            raise RuntimeError("the handler is closed")

        def abort(self) -> None:
            self.closing = True

    async def main() -> None:
        log: list[tuple[str, object]] = []
        told: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        outbox = outbox_of(loop)
        torn = Torn(log, "torn")
        put(outbox, torn, b"a")
        put(outbox, Paper(log, "whole"), b"b")
        await asyncio.sleep(0)
        assert log == [("whole", b"b")]
        assert len(told) == 1
        assert torn.closing

    asyncio.run(main())
