"""`posthof send` against a server that keeps what it was told."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit.listener import Server
from posthof_pod.cli import send


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    send.add_parser(parser.add_subparsers())
    args = parser.parse_args(["send", *words])
    return send.run(args)


def test_a_test_mail_is_sent_and_its_queue_id_shown(server: Server, capsys: pytest.CaptureFixture[str]):
    code = command(
        "--from", "a@a.test", "--to", "bob@quickstart.test", "--subject", "Grüße", "--server", server.address
    )
    assert code == 0
    assert "queue id: abc123lane-1" in capsys.readouterr().out
    assert [c for c in server.commands if c.startswith(("MAIL", "RCPT"))] == [
        f"MAIL FROM:<a@a.test> SIZE={len(server.contents[0])}",
        "RCPT TO:<bob@quickstart.test>",
    ]
    assert b"Subject: =?utf-8?" in server.contents[0]
    assert b"Message-ID: <" in server.contents[0]


def test_a_file_is_sent_as_it_is_with_crlf_line_ends(server: Server, tmp_path: Path):
    (tmp_path / "mail").write_bytes(b"Subject: x\n\n.dot\r\nlast line")
    assert command("--to", "b@b.test", "-f", str(tmp_path / "mail"), "--server", server.address) == 0
    assert server.contents == [b"Subject: x\r\n\r\n.dot\r\nlast line\r\n"]


def test_the_null_sender(server: Server):
    assert command("--from", "<>", "--to", "<b@b.test>", "--server", server.address) == 0
    assert any(c.startswith("MAIL FROM:<> ") for c in server.commands)


def test_dsn_and_utf_8_go_along_where_the_server_offers_them(server: Server):
    words = ("--from", "ä@a.test", "--to", "b@b.test", "--notify", "success,failure", "--ret", "hdrs", "--body", "ä")
    assert command(*words, "--server", server.address) == 0
    mail = next(c for c in server.commands if c.startswith("MAIL"))
    assert mail.startswith("MAIL FROM:<ä@a.test> SIZE=")
    assert mail.endswith(" SMTPUTF8 RET=HDRS")
    assert "RCPT TO:<b@b.test> NOTIFY=SUCCESS,FAILURE" in server.commands


def test_the_dialogue_is_shown_on_request(server: Server, capsys: pytest.CaptureFixture[str]):
    command("--to", "b@b.test", "-v", "--server", server.address)
    shown = capsys.readouterr().out
    assert "C: RCPT TO:<b@b.test>\nS: 250 2.1.5 ok\n" in shown


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ({"RCPT": "550 5.1.1 no such user"}, send.EX_NOUSER),
        ({"RCPT": "451 4.3.0 later"}, send.EX_TEMPFAIL),
        ({"MAIL": "550 5.7.1 no"}, send.EX_UNAVAILABLE),
        ({"MAIL": "452 4.3.1 full"}, send.EX_TEMPFAIL),
        ({"DATA": "554 5.5.1 no"}, send.EX_UNAVAILABLE),
        ({".": "554 5.6.0 no"}, send.EX_UNAVAILABLE),
        ({".": "451 4.3.0 later"}, send.EX_TEMPFAIL),
        ({"greeting": "421 busy"}, send.EX_TEMPFAIL),
        ({"greeting": "554 no"}, send.EX_UNAVAILABLE),
    ],
)
def test_a_refusal_is_shown_and_becomes_an_exit_code(
    answers: dict[str, str], code: int, capsys: pytest.CaptureFixture[str]
):
    server = Server(answers)
    try:
        assert command("--to", "b@b.test", "--server", server.address) == code
    finally:
        server.close()
    assert next(iter(answers.values())) in capsys.readouterr().err


def test_one_refused_recipient_means_that_nothing_is_sent():
    server = Server({"RCPT TO:<no@b.test>": "550 5.1.1 no such user"})
    try:
        code = command("--to", "b@b.test", "--to", "no@b.test", "--server", server.address)
    finally:
        server.close()
    assert code == send.EX_NOUSER
    assert not server.contents


def test_nobody_there_is_a_temporary_failure_with_a_hint(server: Server, capsys: pytest.CaptureFixture[str]):
    server.close()
    assert command("--to", "b@b.test", "--server", server.address) == send.EX_TEMPFAIL
    assert "posthof up" in capsys.readouterr().err


def test_a_server_without_smtputf8_gets_no_utf_8_address():
    server = Server(extensions=("8BITMIME",))
    try:
        assert command("--to", "ä@b.test", "--server", server.address) == send.EX_DATAERR
    finally:
        server.close()


def test_what_cannot_be_meant_is_refused_before_anything_is_sent(server: Server, capsys: pytest.CaptureFixture[str]):
    assert command("--to", "b@b.test", "--notify", "never,delay", "--server", server.address) == send.EX_USAGE
    assert command("--to", "b@b.test", "--server", "nonsense:x") == send.EX_USAGE
    assert command("--to", "b@b.test\r\nDATA", "--server", server.address) == send.EX_DATAERR
    assert not server.contents


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("127.0.0.1:2525", ("127.0.0.1", 2525)),
        ("mx.test", ("mx.test", 25)),
        ("[::1]:2525", ("::1", 2525)),
        ("[::1]", ("::1", 25)),
        ("::1", ("::1", 25)),
    ],
)
def test_the_ways_to_write_a_server(given: str, parts: tuple[str, int]):
    assert send.split(given) == parts
