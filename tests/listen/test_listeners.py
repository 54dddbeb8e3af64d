"""Both listeners over real sockets: the clean stop, TLS, PROXY, limits, time-outs, swaps."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from kit.dialogue import HOSTNAME, Client, House, PlainGate, Setting, client_tls
from posthof_crds.engine import TLSMode
from posthof_pod.listen import tls
from posthof_pod.listen.aiosmtpd import AiosmtpdListener
from posthof_pod.listen.native import NativeListener
from posthof_pod.replies import Reply
from posthof_pod.smtp.server import Incoming

BOTH = pytest.mark.parametrize("make", [NativeListener, AiosmtpdListener])
ENVELOPE = (b"MAIL FROM:<alice@example.test>\r\n", b"RCPT TO:<bob@example.test>\r\n")


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test, 60)

    uvloop.run(main())


async def until(is_met: Callable[[], bool]) -> None:
    """Waits for a condition, not for a time."""
    for _ in range(4000):
        if is_met():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError("the condition never came")


async def greet(client: Client) -> None:
    assert (await client.reply())[-1].startswith("220")
    assert (await client.ask(b"EHLO client.test\r\n")).startswith("250")


async def begin_data(client: Client) -> None:
    await greet(client)
    for command in ENVELOPE:
        assert (await client.ask(command)).startswith("250")
    assert (await client.ask(b"DATA\r\n")).startswith("354")


class SlowGate(PlainGate):
    """Takes mail when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = asyncio.Event()
        self.is_asked = asyncio.Event()

    async def accept(self, mail: Incoming) -> Reply:
        self.is_asked.set()
        await self.may_go_on.wait()
        return await super().accept(mail)


# ---- the clean stop


@BOTH
def test_a_stop_tells_idle_sessions_why(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting()) as house:
            idle, fresh = await house.connect(), await house.connect()
            await greet(idle)
            await fresh.reply()
            await house.listener.drain(5)
            for client in (idle, fresh):
                assert (await client.rest()).startswith(b"421 4.3.2 ")

    run(test())


@BOTH
def test_a_stop_lets_a_message_end_first(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting()) as house:
            client = await house.connect()
            await begin_data(client)
            stopping = asyncio.ensure_future(house.listener.drain(30))
            await asyncio.sleep(0.05)
            assert not stopping.done()
            assert (await client.ask(b"the end\r\n.\r\n")).startswith("250 2.0.0 Queued")
            assert (await client.rest()).startswith(b"421 4.3.2")
            await client.close()
            await stopping
            assert len(house.gate.mails) == 1

    run(test())


@BOTH
def test_a_stop_waits_for_the_answer_of_a_message(make: Any) -> None:
    async def test() -> None:
        gate = SlowGate()
        async with House(make, Setting(), gate) as house:
            client = await house.connect()
            await begin_data(client)
            await client.say(b"x\r\n.\r\n")
            await gate.is_asked.wait()
            stopping = asyncio.ensure_future(house.listener.drain(30))
            await asyncio.sleep(0.05)
            gate.may_go_on.set()
            assert (await client.reply())[-1].startswith("250 2.0.0 Queued")
            assert (await client.rest()).startswith(b"421 4.3.2")
            await client.close()
            await stopping

    run(test())


@BOTH
def test_a_stop_ends_within_its_grace(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting()) as house:
            client = await house.connect()
            await begin_data(client)
            await house.listener.drain(0.1)
            assert b"250" not in await client.rest()
            await until(lambda: house.listener.sessions == 0)

    run(test())


# ---- TLS


@BOTH
def test_implicit_tls_greets_after_the_handshake(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting(tls=TLSMode.IMPLICIT)) as house:
            client = await house.connect(ssl=client_tls(), server_hostname=HOSTNAME)
            await begin_data(client)
            assert (await client.ask(b"x\r\n.\r\n")).startswith("250")
            assert house.gate.mails[0].protocol == "ESMTPS"
            assert (await client.ask(b"QUIT\r\n")).startswith("221")
            await client.close()
            await until(lambda: bool(house.events.named("session_ended")))
            assert house.events.named("session_ended")[0].tls.startswith("TLSv1.3 TLS_")

    run(test())


@BOTH
def test_what_follows_starttls_in_its_packet_is_dropped_and_the_session_ends(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting(tls=TLSMode.STARTTLS)) as house:
            client = await house.connect()
            await greet(client)
            await client.say(b"STARTTLS\r\nMAIL FROM:<evil@example.test>\r\n")
            said = await client.rest()
            assert said.startswith(b"421 4.7.0")
            assert said.count(b"\r\n") == 1

    run(test())


@BOTH
def test_junk_instead_of_a_handshake_ends_the_session(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting(tls=TLSMode.STARTTLS)) as house:
            client = await house.connect()
            await greet(client)
            assert (await client.ask(b"STARTTLS\r\n")).startswith("220")
            await client.say(b"EHLO client.test\r\n")
            assert b"250" not in await client.rest()
            await client.close()
            await until(lambda: house.listener.sessions == 0)

    run(test())


def test_a_new_certificate_serves_the_next_session() -> None:
    async def test() -> None:
        async with House(NativeListener, Setting(tls=TLSMode.STARTTLS)) as house:
            pair = tls.self_signed([HOSTNAME], 1000.0, 1_900_000_000.0)
            fresh = tls.server_context([tls.Certificate((HOSTNAME,), (pair,))])
            old = await house.connect()
            await greet(old)
            house.listener.desk.contexts = lambda: fresh
            new = await house.connect()
            await greet(new)
            assert (await new.ask(b"STARTTLS\r\n")).startswith("220")
            trusting = ssl.create_default_context()
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            await new.writer.start_tls(trusting)
            served = new.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            assert served == ssl.PEM_cert_to_DER_cert(pair.chain.decode())
            assert (await old.ask(b"NOOP\r\n")).startswith("250")

    run(test())


# ---- PROXY


@BOTH
@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 25\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\x7f\0\0\x01\x12\x67\0\x19",
    ],
)
def test_a_trusted_proxy_names_the_client(make: Any, header: bytes) -> None:
    async def test() -> None:
        async with House(make, Setting(proxy=("127.0.0.0/8",))) as house:
            client = await house.connect()
            await client.say(header)
            await begin_data(client)
            assert (await client.ask(b"x\r\n.\r\n")).startswith("250")
            assert house.gate.mails[0].client == "198.51.100.7"

    run(test())


@BOTH
def test_a_trusted_proxy_must_send_a_header(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting(proxy=("127.0.0.0/8",))) as house:
            client = await house.connect()
            await client.say(b"EHLO client.test\r\n")
            assert b"250" not in await client.rest()

    run(test())


@BOTH
def test_a_stranger_is_served_without_a_header_and_not_with_one(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting(proxy=("192.0.2.0/24",))) as house:
            plain = await house.connect()
            await greet(plain)
            liar = await house.connect()
            assert (await liar.ask(b"")).startswith("220")
            assert (await liar.ask(b"PROXY TCP4 192.0.2.1 127.0.0.1 1 25\r\n"))[:1] in "45"

    run(test())


def test_a_proxy_header_comes_before_implicit_tls() -> None:
    async def test() -> None:
        async with House(NativeListener, Setting(tls=TLSMode.IMPLICIT, proxy=("127.0.0.0/8",))) as house:
            # The header and the beginning of the handshake in one packet.
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            end = client_tls().wrap_bio(incoming, outgoing, server_hostname=HOSTNAME)
            client = await house.connect()
            with pytest.raises(ssl.SSLWantReadError):
                end.do_handshake()
            await client.say(b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 25\r\n" + outgoing.read())
            said = b""
            while not said:
                incoming.write(await client.reader.read(65536))
                try:
                    end.do_handshake()
                    said = end.read(1000)
                except ssl.SSLWantReadError:
                    pass
                await client.say(outgoing.read())
            assert said.startswith(b"220 ")

    run(test())


def test_proxied_clients_are_counted_apart() -> None:
    async def test() -> None:
        async with House(NativeListener, Setting(proxy=("127.0.0.0/8",), limits={"client_sessions": 1})) as house:
            first, second, third = [await house.connect() for _ in range(3)]
            assert (await first.ask(b"PROXY TCP4 198.51.100.7 127.0.0.1 1 25\r\n")).startswith("220")
            assert (await second.ask(b"PROXY TCP4 198.51.100.8 127.0.0.1 1 25\r\n")).startswith("220")
            assert (await third.ask(b"PROXY TCP4 198.51.100.7 127.0.0.1 1 25\r\n")).startswith("421 4.7.0")

    run(test())


# ---- limits and time-outs


@BOTH
@pytest.mark.parametrize("limit", ["client_sessions", "client_session_rate", "sessions"])
def test_a_flood_beyond_a_limit_is_told_in_two_lines(make: Any, limit: str) -> None:
    async def test() -> None:
        async with House(make, Setting(limits={limit: 1})) as house:
            house.events.attach(asyncio.get_running_loop())
            first = await house.connect()
            await greet(first)
            for _ in range(6):
                other = await house.connect()
                assert (await other.rest()).startswith(b"421 ")
                await other.close()
            assert house.events.stats()['posthof_refused_total{stage="connect",code="421"}'] == 6
            house.events.close()
            assert [line.count for line in house.events.named("refused")] == [-1, 5]
            await first.close()

    run(test())


@BOTH
def test_a_client_with_too_many_sessions_gets_421(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting(limits={"client_sessions": 2})) as house:
            first, second, third = [await house.connect() for _ in range(3)]
            await greet(first)
            await greet(second)
            assert (await third.rest()).startswith(b"421 4.7.0")
            assert house.events.named("refused")[0].stage == "connect"
            await first.close()
            await until(lambda: house.listener.sessions == 1)
            await greet(await house.connect())

    run(test())


@BOTH
def test_a_silent_client_is_told_and_sent_away(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting(limits={"timeout": 0.3, "stress_timeout": 0.3})) as house:
            client = await house.connect()
            await greet(client)
            assert (await client.rest()).startswith(b"421 4.4.2")
            await client.close()
            await until(lambda: bool(house.events.named("session_ended")))
            assert house.events.named("session_ended")[0].reason == "timeout"

    run(test())


def test_a_client_that_trickles_a_command_is_sent_away() -> None:
    async def test() -> None:
        async with House(NativeListener, Setting(limits={"timeout": 0.3, "stress_timeout": 0.3})) as house:
            client = await house.connect()
            await greet(client)
            rest = asyncio.ensure_future(client.rest())
            while not rest.done():
                await client.say(b"N")
                await asyncio.sleep(0.05)
            assert rest.result().startswith(b"421 4.4.2")

    run(test())


def test_patience_is_short_under_stress() -> None:
    async def test() -> None:
        limits = {"timeout": 300, "stress_timeout": 0.3, "sessions": 2, "client_sessions": 0}
        async with House(NativeListener, Setting(limits=limits)) as house:
            first, second = await house.connect(), await house.connect()
            await greet(first)
            await greet(second)
            assert (await first.rest()).startswith(b"421 4.4.2")
            assert (await second.rest()).startswith(b"421 4.4.2")

    run(test())


def test_a_session_that_waits_for_us_is_not_timed_out() -> None:
    async def test() -> None:
        gate = SlowGate()
        async with House(NativeListener, Setting(limits={"timeout": 0.3, "stress_timeout": 0.3}), gate) as house:
            client = await house.connect()
            await begin_data(client)
            await client.say(b"x\r\n.\r\n")
            await asyncio.sleep(1.0)
            gate.may_go_on.set()
            assert (await client.reply())[-1].startswith("250")

    run(test())


def test_messages_a_minute_are_limited() -> None:
    async def test() -> None:
        async with House(NativeListener, Setting(limits={"client_message_rate": 1})) as house:
            client = await house.connect()
            await begin_data(client)
            assert (await client.ask(b".\r\n")).startswith("250")
            assert (await client.ask(ENVELOPE[0])).startswith("450 4.7.1")

    run(test())


# ---- sessions as events


@BOTH
def test_a_probe_is_counted_and_not_told(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting()) as house:
            client = await house.connect()
            await client.reply()
            await client.close()
            await until(lambda: house.events.probes == 1)
            assert house.events.lines == []

    run(test())


@BOTH
def test_a_session_is_told_when_it_ends(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting()) as house:
            client = await house.connect()
            await begin_data(client)
            await client.ask(b".\r\n")
            await client.ask(b"QUIT\r\n")
            await client.close()
            await until(lambda: bool(house.events.named("session_ended")))
            (line,) = house.events.named("session_ended")
            assert (line.client, line.client_name, line.listener, line.count) == ("127.0.0.1", "client.test", "in", 1)

    run(test())


@BOTH
def test_a_refusal_is_told_with_its_stage(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting()) as house:
            client = await house.connect()
            await greet(client)
            await client.ask(ENVELOPE[0])
            await client.ask(b"RCPT TO:<nobody@example.test>\r\n")
            (line,) = house.events.named("refused")
            assert (line.stage, line.dsn, line.client) == ("rcpt", "5.1.1", "127.0.0.1")

    run(test())


# ---- what clients do


@BOTH
def test_a_configuration_is_swapped_without_dropping_sessions(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting()) as house:
            client = await house.connect()
            await greet(client)
            other = PlainGate()
            listener = Setting(limits={"message_size": 100}).listener()
            house.listener.swap(listener, "new.posthof.test", other)
            for command in (*ENVELOPE, b"DATA\r\n", b"x\r\n.\r\n"):
                assert (await client.ask(command))[:1] in "23"
            assert (len(house.gate.mails), len(other.mails)) == (0, 1)
            fresh = await house.connect()
            assert "new.posthof.test" in (await fresh.reply())[0]

    run(test())


@BOTH
def test_a_client_that_goes_away_in_data_leaves_nothing(make: Any) -> None:
    async def test() -> None:
        async with House(make, Setting(blob_threshold=1000)) as house:
            client = await house.connect()
            await begin_data(client)
            await client.say(b"x" * 5000)
            await asyncio.sleep(0.02)
            await client.close()
            await until(lambda: house.listener.sessions == 0)
            assert house.gate.mails == []
            assert all(sink.is_aborted for sink in house.gate.sinks)

    run(test())


def test_a_client_that_talks_and_closes_in_one_breath_gets_its_answers() -> None:
    async def test() -> None:
        async with House(NativeListener, Setting()) as house:
            for last, answer in ((b"NOOP\r\n", b"250 2.0.0 OK\r\n"), (b"QUIT\r\n", b"221 2.0.0 Bye\r\n")):
                client = await house.connect()
                await client.reply()
                client.writer.write(b"EHLO client.test\r\n" + last)
                client.writer.write_eof()
                assert (await client.reader.read()).endswith(answer)

    run(test())


def test_a_half_closed_client_still_gets_its_answers() -> None:
    async def test() -> None:
        gate = SlowGate()
        async with House(NativeListener, Setting(), gate) as house:
            client = await house.connect()
            await begin_data(client)
            await client.say(b"x\r\n.\r\n")
            client.writer.write_eof()
            await gate.is_asked.wait()
            await asyncio.sleep(0.02)
            gate.may_go_on.set()
            assert await client.rest() == b"250 2.0.0 Queued\r\n"

    run(test())


def test_a_client_that_goes_away_before_its_answer_does_no_harm() -> None:
    async def test() -> None:
        gate = SlowGate()
        async with House(NativeListener, Setting(), gate) as house:
            client = await house.connect()
            await begin_data(client)
            await client.say(b"x\r\n.\r\n")
            await gate.is_asked.wait()
            raw = client.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.writer.transport.abort()
            await until(lambda: house.listener.sessions == 0)
            gate.may_go_on.set()
            await until(lambda: len(gate.mails) == 1)
            assert not house.events.named("internal_error")

    run(test())


def test_the_last_reply_reaches_a_client_that_is_still_sending() -> None:
    async def test() -> None:
        async with House(NativeListener, Setting(limits={"errors": 1})) as house:
            client = await house.connect()
            await greet(client)
            rest = asyncio.ensure_future(client.rest())
            await client.say(b"FOO\r\n", *[b"BAR\r\n" * 1000] * 20)
            assert (await rest).startswith(b"500 5.5.1")

    run(test())


def test_what_is_pipelined_behind_a_slow_answer_is_not_piled_up() -> None:
    async def test() -> None:
        gate = SlowGate()
        async with House(NativeListener, Setting(), gate) as house:
            client = await house.connect()
            await begin_data(client)
            await client.say(b"x\r\n.\r\n")
            await gate.is_asked.wait()
            pushed = asyncio.ensure_future(client.say(*[b"NOOP " + b"x" * 1000 + b"\r\n"] * 20_000))
            await asyncio.sleep(0.3)
            assert not pushed.done()
            (connection,) = house.listener.connections
            assert connection._dialogue.waiting < 2_000_000
            gate.may_go_on.set()
            said = await client.rest()
            assert said.startswith(b"250 2.0.0 Queued\r\n250 2.0.0 OK")
            pushed.cancel()

    run(test())


def test_ten_thousand_octets_of_replies_are_not_piled_up_for_a_client_that_does_not_read() -> None:
    async def test() -> None:
        async with House(NativeListener, Setting(limits={"errors": 0})) as house:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", house.port))
            sending = asyncio.ensure_future(loop.sock_sendall(sock, b"HELP\r\n" * 3_000_000))
            await asyncio.sleep(0.5)
            assert not sending.done()
            (connection,) = house.listener.connections
            assert connection._transport.get_write_buffer_size() < 8_000_000
            sending.cancel()
            sock.close()

    run(test())


def test_a_fault_of_ours_ends_one_session_only() -> None:
    async def test() -> None:
        async with House(NativeListener, Setting()) as house:
            broken, other = await house.connect(), await house.connect()
            await greet(broken)
            await greet(other)
            connection = next(
                one
                for one in house.listener.connections
                if one._dialogue.session.client_port == broken.writer.get_extra_info("sockname")[1]
            )
            connection._dialogue.terms = None
            await broken.say(b"NOOP\r\n")
            assert (await broken.rest()).startswith(b"421 4.3.0")
            assert (await other.ask(b"NOOP\r\n")).startswith("250")
            assert house.events.named("internal_error")

    run(test())


def test_a_large_message_does_not_cost_its_size() -> None:
    class Counting(PlainGate):
        """Its sink counts and keeps nothing."""

        def blob(self, session: Any) -> Any:
            return Drain()

        async def accept(self, mail: Incoming) -> Reply:
            taken.append(mail.size)
            return self.answer

    class Drain:
        pending = 0

        def write(self, data: bytes) -> None:
            self.pending += len(data)

        async def drain(self) -> None:
            await asyncio.sleep(0)
            self.pending = 0

        def abort(self) -> None:
            raise AssertionError("not aborted")

    taken: list[int] = []

    async def test() -> None:
        import tracemalloc

        async with House(NativeListener, Setting(limits={"message_size": 60 << 20}), Counting()) as house:
            client = await house.connect()
            await begin_data(client)
            line = b"0123456789abcde\r\n" * 4096
            tracemalloc.start()
            for _ in range(700):
                client.writer.write(line)
                await client.writer.drain()
            assert (await client.ask(b".\r\n")).startswith("250")
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert taken == [len(line) * 700]
            assert peak < 12 << 20

    run(test())
