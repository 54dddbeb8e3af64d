"""sendmail(1)'s form: options, headers, exit codes, and mailq."""

from __future__ import annotations

import argparse
import email
import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from kit.listener import Server
from posthof_pod.admin.waiting import QueueItem, QueuePage, QueueRecipient
from posthof_pod.cli import mailq, send, sendmail


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTHOF_ORIGIN", "host.test")
    monkeypatch.setenv("NAME", "Cron Daemon")
    monkeypatch.setenv("LOGNAME", "root")


def run(server: Server, monkeypatch: pytest.MonkeyPatch, text: bytes, *words: str) -> int:
    monkeypatch.setenv("POSTHOF_SUBMIT", server.address)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    return sendmail.command(words)


def envelope(server: Server) -> tuple[str, list[str]]:
    sender = next(c for c in server.commands if c.startswith("MAIL")).partition("<")[2].partition(">")[0]
    return sender, [c.partition("<")[2].partition(">")[0] for c in server.commands if c.startswith("RCPT")]


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-t", "-i"], {"takes_header_recipients": True, "ends_at_dot": False}),
        (["-ti"], {"takes_header_recipients": True, "ends_at_dot": False}),
        (["-oi", "-t", "-odb", "-oem"], {"takes_header_recipients": True, "ends_at_dot": False}),
        (["-f", "a@b.test", "x@y.test"], {"sender": "a@b.test", "recipients": ("x@y.test",)}),
        (["-fa@b.test"], {"sender": "a@b.test"}),
        (["-r", "root"], {"sender": "root@host.test"}),
        (["-f", "<>"], {"sender": ""}),
        (["-f", ""], {"sender": ""}),
        (["-f", "Ann <a@b.test>"], {"sender": "a@b.test"}),
        (["-F", "Ann Example", "-t"], {"full_name": "Ann Example", "takes_header_recipients": True}),
        (["-FAnn"], {"full_name": "Ann"}),
        (["-bp"], {"mode": "p"}),
        (["-bs"], {"mode": "s"}),
        (["-bm"], {"mode": "m"}),
        (["-B", "8BITMIME", "-B8BITMIME", "x@y.test"], {"recipients": ("x@y.test",)}),
        (
            ["-N", "success,delay", "-R", "hdrs", "-V", "id1"],
            {"notify": "SUCCESS,DELAY", "ret": "HDRS", "envid": "id1"},
        ),
        (["-q", "-q30m", "-v", "-Ac", "-OTimeout=1", "-O", "x=y", "-G", "-n", "-L", "tag"], {"is_verbose": True}),
        (["--server=h:1"], {"server": "h:1"}),
        (["--server", "h:1", "--", "-odd@y.test"], {"server": "h:1", "recipients": ("-odd@y.test",)}),
        (["a@b.test, Carl <c@d.test>", "root"], {"recipients": ("a@b.test", "c@d.test", "root")}),
    ],
)
def test_options_mean_what_they_mean_to_sendmail(words: list[str], expected: dict[str, object]):
    assert sendmail.parse(words) == sendmail.Call()._replace(**expected)


@pytest.mark.parametrize(
    "words", [["-Z"], ["--nonsense"], ["-f"], ["-N", "sometimes"], ["-R", "half"], ["-bd"], ["-bv"]]
)
def test_what_is_no_option_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert sendmail.command(words) == send.EX_USAGE
    assert capsys.readouterr().err.startswith("sendmail: ")


def test_newaliases_has_nothing_to_do():
    assert sendmail.command(["-bi"]) == 0


def test_the_command_passes_its_options_through_argparse():
    parser = argparse.ArgumentParser()
    sub = parser.add_subparsers()
    sendmail.add_parser(sub)
    mailq.add_parser(sub)
    words = ["-t", "-i", "-f", "", "-oi", "-bp", "-F", "A B", "x@y.test"]
    assert parser.parse_args(["sendmail", *words]).arguments == words
    assert parser.parse_args(["mailq", "-v"]).arguments == ["-v"]


# ---------------------------------------------------------------- a message is sent


def test_what_cron_writes_is_sent(server: Server, monkeypatch: pytest.MonkeyPatch):
    text = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> job\n\nfailed\n"
    assert run(server, monkeypatch, text, "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root") == 0
    assert envelope(server) == ("root@host.test", ["root@host.test"])
    assert server.contents[0].startswith(text[:40].replace(b"\n", b"\r\n"))
    assert server.contents[0].endswith(b"\r\n\r\nfailed\r\n")


def test_recipients_are_read_from_the_header_and_bcc_is_not_sent(server: Server, monkeypatch: pytest.MonkeyPatch):
    text = (
        b"To: Ann <ann@a.test>, \n\tbob@b.test\nCc: Team: carl@c.test, dora@d.test;\n"
        b"Bcc: secret@s.test,\n more@s.test\nSubject: x\n\nbody\n"
    )
    assert run(server, monkeypatch, text, "-t", "-f", "me@m.test", "eve@e.test", "ann@a.test") == 0
    sender, recipients = envelope(server)
    assert sender == "me@m.test"
    assert recipients == [
        "eve@e.test",
        "ann@a.test",
        "bob@b.test",
        "carl@c.test",
        "dora@d.test",
        "secret@s.test",
        "more@s.test",
    ]
    assert b"s.test" not in server.contents[0]
    assert b"To: Ann <ann@a.test>, \r\n\tbob@b.test\r\nCc: " in server.contents[0]


def test_a_message_sent_again_goes_to_its_resent_recipients_only(server: Server, monkeypatch: pytest.MonkeyPatch):
    text = b"Resent-To: new@n.test\nResent-Bcc: hidden@h.test\nTo: old@o.test\nSubject: x\n\nbody\n"
    assert run(server, monkeypatch, text, "-t") == 0
    assert envelope(server)[1] == ["new@n.test", "hidden@h.test"]
    assert b"hidden" not in server.contents[0]


def test_missing_fields_are_added_and_present_ones_kept(server: Server, monkeypatch: pytest.MonkeyPatch):
    assert run(server, monkeypatch, b"Subject: x\n\nbody\n", "-f", "me@m.test", "b@b.test") == 0
    message = email.message_from_bytes(server.contents[0])
    assert message["From"] == "Cron Daemon <me@m.test>"
    assert message["Message-ID"].endswith("@host.test>")
    assert message["Date"]
    assert message.get_payload() == "body\r\n"
    text = b"From: x@y.test\nDate: then\nMessage-Id: <1@y.test>\n\nbody\n"
    assert run(server, monkeypatch, text, "b@b.test") == 0
    assert server.contents[1] == text.replace(b"\n", b"\r\n")


def test_text_without_a_header_gets_one(server: Server, monkeypatch: pytest.MonkeyPatch):
    assert run(server, monkeypatch, b"just words\nSubject: no field\n", "b@b.test") == 0
    head, _, body = server.contents[0].partition(b"\r\n\r\n")
    assert body == b"just words\r\nSubject: no field\r\n"
    assert b"Subject" not in head


def test_a_forgotten_empty_line_is_put_in(server: Server, monkeypatch: pytest.MonkeyPatch):
    assert run(server, monkeypatch, b"Subject: x\njust words\n", "b@b.test") == 0
    assert server.contents[0].endswith(b"\r\n\r\njust words\r\n")


def test_the_line_of_an_mbox_file_is_dropped(server: Server, monkeypatch: pytest.MonkeyPatch):
    assert run(server, monkeypatch, b"From a@b Mon Nov 23\nSubject: x\n\ny\n", "b@b.test") == 0
    assert b"From a@b" not in server.contents[0]


def test_a_lone_dot_ends_the_message_unless_told_otherwise(server: Server, monkeypatch: pytest.MonkeyPatch):
    text = b"Subject: x\n\n..\nbefore\n.\nafter\n"
    assert run(server, monkeypatch, text, "b@b.test") == 0
    assert server.contents[0].endswith(b"\r\n\r\n..\r\nbefore\r\n")
    for option in ("-i", "-oi"):
        assert run(server, monkeypatch, text, option, "b@b.test") == 0
        assert server.contents[-1].endswith(b"..\r\nbefore\r\n.\r\nafter\r\n")


def test_any_line_end_becomes_crlf(server: Server, monkeypatch: pytest.MonkeyPatch):
    assert run(server, monkeypatch, b"Subject: x\r\n\na\rb\r\nc", "b@b.test") == 0
    assert server.contents[0].endswith(b"\r\n\r\na\r\nb\r\nc\r\n")


def test_a_full_name_beyond_ascii_is_encoded(server: Server, monkeypatch: pytest.MonkeyPatch):
    assert run(server, monkeypatch, b"\nbody\n", "-F", "Jürgen, M.", "-f", "j@m.test", "b@b.test") == 0
    head = server.contents[0].partition(b"\r\n\r\n")[0]
    assert b"From: =?utf-8?" in head
    assert head.isascii()


def test_reports_can_be_asked_for(server: Server, monkeypatch: pytest.MonkeyPatch):
    words = ("-N", "success", "-R", "full", "-V", "my id+1", "b@b.test")
    assert run(server, monkeypatch, b"\nbody\n", *words) == 0
    assert any(c.endswith(" RET=FULL ENVID=my+20id+2B1") for c in server.commands)
    assert "RCPT TO:<b@b.test> NOTIFY=SUCCESS" in server.commands


# ---------------------------------------------------------------- a message is not sent


def test_nobody_to_send_to(server: Server, monkeypatch: pytest.MonkeyPatch):
    assert run(server, monkeypatch, b"Subject: x\n\ny\n", "-t") == send.EX_DATAERR
    assert run(server, monkeypatch, b"Subject: x\n\ny\n") == send.EX_USAGE
    assert not server.commands


def test_a_server_that_is_away_means_try_again(server: Server, monkeypatch: pytest.MonkeyPatch):
    server.close()
    assert run(server, monkeypatch, b"\nbody\n", "b@b.test") == send.EX_TEMPFAIL


def test_an_unknown_recipient(monkeypatch: pytest.MonkeyPatch):
    server = Server({"RCPT": "550 5.1.1 no such user"})
    try:
        assert run(server, monkeypatch, b"\nbody\n", "b@b.test") == send.EX_NOUSER
    finally:
        server.close()


def test_without_a_word_the_next_well_known_port_is_tried(server: Server, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.delenv("POSTHOF_SUBMIT", raising=False)
    monkeypatch.setattr(sendmail, "SERVERS", (nobody, server.address))
    call = sendmail.parse(["b@b.test"])
    assert sendmail.deliver(call, io.BytesIO(b"\nbody\n")).server == server.address


def test_smtp_on_standard_input_and_output(server: Server):
    done = subprocess.run(
        [sys.executable, "-m", "posthof_pod.cli.sendmail", "-bs", "--server", server.address],
        input=b"EHLO x\r\nQUIT\r\n",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"220 mx.test\r\n")
    assert done.stdout.endswith(b"221 bye\r\n")
    assert server.commands == ["EHLO x", "QUIT"]


# ---------------------------------------------------------------- mailq


ITEM = QueueItem(
    id="abc123lane-7",
    sender="a@a.test",
    arrived=1_790_000_000.0,
    size=4321,
    waiting=[QueueRecipient("b@b.test", "deferred", reason="ConnectFailed"), QueueRecipient("c@b.test", "held")],
    detail="connect to mx.b.test:\r\nrefused",
)


def test_mailq_lists_messages_with_reason_and_recipients():
    shown = mailq.lines(QueuePage([ITEM], total=1))
    assert shown[0].startswith("-Queue ID-")
    assert shown[1].startswith("abc123lane-7!")
    assert shown[1].endswith(" a@a.test")
    assert shown[2].strip() == "(connect to mx.b.test: refused)"
    assert [line.strip() for line in shown[3:5]] == ["b@b.test", "c@b.test"]
    assert shown[-1] == "-- 4 Kbytes in 1 Request."


def test_mailq_of_nothing():
    assert mailq.lines(QueuePage([])) == ["Mail queue is empty"]


def test_mailq_names_the_null_sender_and_what_is_not_shown():
    shown = mailq.lines(QueuePage([QueueItem("l-1", "", 0.0, 10, [])], total=7))
    assert "MAILER-DAEMON" in shown[1]
    assert shown[-1] == "-- 0 Kbytes in 7 Requests (1 shown)."


def test_mailq_asks_the_admin_api(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    asked: list[str] = []

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(
                {"items": [{"id": "l-1", "sender": "a@a", "arrived": 0, "size": 1, "waiting": []}]}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    api = HTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=api.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("POSTHOF_ADMIN", f"http://127.0.0.1:{api.server_port}")
    try:
        assert sendmail.command(["-bp"]) == 0
        assert mailq.show(["-v"]) == 0
    finally:
        api.shutdown()
        api.server_close()
        thread.join(10)
    assert asked[0].startswith("/api/v1/queue?limit=")
    assert capsys.readouterr().out.count("l-1") == 2
    assert mailq.show([]) == send.EX_UNAVAILABLE
