"""The channel between supervisor and worker, both ends in one loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from posthof_pod.admin.channel import Channel, ChannelClosed, Refused, pair

Handler = Callable[[Any], Awaitable[Any]]


def with_channels(scenario: Callable[[Channel, Channel, list[Any]], Awaitable[None]], **handlers: Handler) -> None:
    """Run `scenario(asker, answerer, closed)`; `handlers` are the answerer's."""

    async def run() -> None:
        closed: list[Any] = []
        ours, theirs = pair()
        asker = Channel(ours, {}, on_close=lambda: closed.append("asker"))
        answerer = Channel(theirs, handlers, on_close=lambda: closed.append("answerer"))
        try:
            await asyncio.wait_for(scenario(asker, answerer, closed), 20)
        finally:
            asker.close()
            answerer.close()

    asyncio.run(run())


async def echo(payload: Any) -> Any:
    return payload


def test_an_answer_finds_its_question_when_several_are_open() -> None:
    async def slow_when_asked(payload: int) -> int:
        await asyncio.sleep(0.01 * (3 - payload))
        return payload * 10

    async def scenario(asker: Channel, answerer: Channel, closed: list[Any]) -> None:
        assert await asyncio.gather(*(asker.ask("work", n) for n in (1, 2, 3))) == [10, 20, 30]

    with_channels(scenario, work=slow_when_asked)


def test_a_payload_of_ten_mebibytes_passes_whole() -> None:
    async def scenario(asker: Channel, answerer: Channel, closed: list[Any]) -> None:
        big = os.urandom(10 * 1024 * 1024)
        assert await asker.ask("echo", big) == big

    with_channels(scenario, echo=echo)


def test_open_files_come_with_the_frame_they_belong_to() -> None:
    async def read_all(payload: dict[str, Any]) -> list[str]:
        texts = []
        for descriptor in payload["fds"]:
            texts.append(os.read(descriptor, 100).decode())
            os.close(descriptor)
        return [payload["label"], *texts]

    async def scenario(asker: Channel, answerer: Channel, closed: list[Any]) -> None:
        pipes = [os.pipe() for _ in range(3)]
        for number, (_, write_end) in enumerate(pipes):
            os.write(write_end, f"pipe {number}".encode())
        filler = "x" * 500_000
        answers = await asyncio.gather(
            asker.ask("echo", filler),
            asker.ask("read", {"label": "two", "big": filler}, fds=[pipes[0][0], pipes[1][0]]),
            asker.ask("read", {"label": "one"}, fds=[pipes[2][0]]),
        )
        assert answers[1:] == [["two", "pipe 0", "pipe 1"], ["one", "pipe 2"]]
        for ends in pipes:
            for end in ends:
                os.close(end)

    with_channels(scenario, read=read_all, echo=echo)


def test_a_handler_that_fails_fails_the_question_with_its_reason() -> None:
    async def refuse(payload: Any) -> None:
        raise Refused("not today")

    async def scenario(asker: Channel, answerer: Channel, closed: list[Any]) -> None:
        with pytest.raises(Refused, match="not today"):
            await asker.ask("refuse")
        with pytest.raises(Refused, match="nobody here answers"):
            await asker.ask("unheard of")
        assert await asker.ask("echo", 1) == 1

    with_channels(scenario, refuse=refuse, echo=echo)


def test_an_error_in_a_handler_is_reported_where_it_happened() -> None:
    async def run() -> None:
        reported: list[str] = []

        async def broken(payload: Any) -> None:
            raise KeyError("gone")

        ours, theirs = pair()
        asker = Channel(ours, {})
        answerer = Channel(theirs, {"broken": broken}, on_error=lambda where, error: reported.append(repr(error)))
        with pytest.raises(Refused, match="KeyError"):
            await asker.ask("broken")
        assert reported == ["KeyError('gone')"]
        asker.close()
        answerer.close()

    asyncio.run(run())


def test_what_is_told_arrives_in_order() -> None:
    heard: list[int] = []

    async def hear(payload: int) -> None:
        heard.append(payload)

    async def scenario(asker: Channel, answerer: Channel, closed: list[Any]) -> None:
        for number in range(1000):
            asker.tell("hear", number)
        await asker.ask("echo")
        await asyncio.sleep(0)
        assert heard == list(range(1000))

    with_channels(scenario, hear=hear, echo=echo)


def test_a_closed_end_fails_every_open_question_and_is_told_once() -> None:
    async def never(payload: Any) -> None:
        await asyncio.sleep(3600)

    async def scenario(asker: Channel, answerer: Channel, closed: list[Any]) -> None:
        question = asyncio.ensure_future(asker.ask("never"))
        await asker.ask("ping")
        answerer.close()
        with pytest.raises(ChannelClosed):
            await question
        with pytest.raises(ChannelClosed):
            await asker.ask("never")
        asker.tell("never")
        assert closed == ["answerer", "asker"]

    with_channels(scenario, never=never)


def test_a_question_nobody_answers_in_time_raises_timeout() -> None:
    async def never(payload: Any) -> None:
        await asyncio.sleep(3600)

    async def scenario(asker: Channel, answerer: Channel, closed: list[Any]) -> None:
        with pytest.raises(TimeoutError):
            await asker.ask("never", within=0.01)
        assert await asker.ask("echo", "still there") == "still there"

    with_channels(scenario, never=never, echo=echo)


def test_a_frame_of_absurd_length_closes_the_channel() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        closed = asyncio.Event()
        errors: list[BaseException] = []
        channel = Channel(ours, {}, on_close=closed.set, on_error=lambda where, error: errors.append(error))
        with theirs, contextlib.suppress(OSError):
            theirs.sendall(b"\xff\xff\xff\xff nonsense")
            await asyncio.wait_for(closed.wait(), 10)
        assert len(errors) == 1
        assert not channel.is_open

    asyncio.run(run())
