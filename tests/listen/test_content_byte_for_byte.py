"""What a client sends comes out of the dialogue byte for byte, by DATA and by BDAT, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest
import uvloop

from kit.dialogue import Client, House, Setting, Talk
from kit.samples import everything
from posthof_pod.listen.aiosmtpd import AiosmtpdListener
from posthof_pod.listen.native import NativeListener

SAMPLES = everything()
ENVELOPE = b"MAIL FROM:<alice@example.test> BODY=8BITMIME\r\nRCPT TO:<bob@example.test>\r\n"


def stuffed(content: bytes) -> bytes:
    """As a client sends it after DATA (RFC 5321 4.5.2); content that lacks its last CRLF gets one."""
    ended = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    return (b"\r\n" + ended).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


def by_data() -> list[str]:
    """Names of the samples that DATA can carry unchanged."""
    return [name for name, content in SAMPLES.items() if content.endswith(b"\r\n")]


def test_there_are_samples() -> None:
    assert len(by_data()) > 20


@pytest.mark.parametrize("threshold", [100, 1 << 20])
def test_samples_come_out_of_data_unchanged(threshold: int) -> None:
    talk = Talk(Setting(blob_threshold=threshold))
    talk.say(b"EHLO client.test\r\n")
    for name in by_data():
        stream = ENVELOPE + b"DATA\r\n" + stuffed(SAMPLES[name])
        for at in range(0, len(stream), 701):
            talk.say(stream[at : at + 701])
        assert talk.gate.mails[-1].body == SAMPLES[name], name
        assert not talk.gate.mails[-1].has_binary, name


@pytest.mark.parametrize("threshold", [100, 1 << 20])
def test_samples_come_out_of_bdat_unchanged(threshold: int) -> None:
    talk = Talk(Setting(blob_threshold=threshold))
    talk.say(b"EHLO client.test\r\n")
    for name, content in SAMPLES.items():
        half = len(content) // 2
        talk.say(
            ENVELOPE
            + b"BDAT %d\r\n%sBDAT %d LAST\r\n%s" % (half, content[:half], len(content) - half, content[half:])
        )
        assert talk.gate.mails[-1].body == content, name


@pytest.mark.parametrize("make", [NativeListener, AiosmtpdListener])
def test_samples_come_out_of_a_listener_unchanged(make: Any) -> None:
    async def send(client: Client, content: bytes) -> None:
        await client.say(ENVELOPE)
        assert [(await client.reply())[-1][:3] for _ in range(2)] == ["250", "250"]
        assert (await client.ask(b"DATA\r\n")).startswith("354")
        assert (await client.ask(stuffed(content))).startswith("250")

    async def test() -> None:
        async with House(make, Setting()) as house:
            client = await house.connect()
            await client.reply()
            await client.ask(b"EHLO client.test\r\n")
            for name in by_data():
                await send(client, SAMPLES[name])
                assert house.gate.mails[-1].body == SAMPLES[name], name

    uvloop.run(test())
