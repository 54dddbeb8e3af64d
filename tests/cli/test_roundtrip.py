"""`posthof roundtrip`: a mail goes through a house and comes back, or it is told how far it came."""

from __future__ import annotations

import argparse

import pytest

from kit import peers
from kit.listener import Server
from kit.posthof import mail_domain, posthof
from posthof_pod.cli import roundtrip


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    roundtrip.add_parser(parser.add_subparsers())
    return roundtrip.run(parser.parse_args(["roundtrip", *words]))


@pytest.mark.interop
def test_a_mail_comes_back_through_a_house_that_relays_to_us(capsys: pytest.CaptureFixture[str]) -> None:
    port = peers.free_port()
    hops = [{"host": "127.0.0.1", "port": port}]
    with posthof(mail_domain("back.test", "Relay", nextHops=hops, recipients={"list": ["found"]})) as house:
        server = f"127.0.0.1:{house.port}"
        code = command("--server", server, "--to", "found@back.test", "--listen", f"127.0.0.1:{port}")
    out = capsys.readouterr().out
    assert code == 0, out
    assert "it came back after" in out
    assert "Received: from" in out


def test_a_refusal_that_stays_is_told_in_the_peers_words(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server({"RCPT": "550 5.7.1 relaying denied"})
    listen = f"127.0.0.1:{peers.free_port()}"
    try:
        code = command("--server", server.address, "--to", "a@b.test", "--listen", listen, "--timeout", "1s")
    finally:
        server.close()
    assert code == 67
    assert "550 5.7.1 relaying denied" in capsys.readouterr().err


def test_a_mail_that_stays_away_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server()
    try:
        code = command(
            "--server", server.address, "--to", "a@b.test", "--listen", f"{peers.free_port()}", "--timeout", "1s"
        )
    finally:
        server.close()
    assert code == 75
    said = capsys.readouterr()
    assert "took it after" in said.out
    assert "did not come back within 1 s" in said.err


@pytest.mark.parametrize("words", [["--timeout", "soon"], ["--listen", "here"], ["--server", "a:b"]])
def test_wrong_words_are_told_at_once(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--server", "127.0.0.1:9", "--to", "a@b.test", *words) == 64
    assert "roundtrip:" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "number"), [("90", 90.0), ("45s", 45.0), ("3m", 180.0)])
def test_times_are_written_as_people_write_them(text: str, number: float) -> None:
    assert roundtrip.seconds(text) == number


def test_content_that_is_not_ours_is_not_the_mail() -> None:
    sink = roundtrip.Sink("<ours@test>")
    sink.take(b"Message-ID: <other@test>\r\n\r\n")
    assert not sink.found.is_set()
    sink.take(b"Message-ID: <ours@test>\r\n\r\n")
    assert sink.found.is_set()
