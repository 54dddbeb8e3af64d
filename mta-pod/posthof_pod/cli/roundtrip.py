"""`posthof roundtrip`: send a mail through a house and wait until it comes out again at a port of ours.

For a house that relays the recipient's domain to where this command listens: the chart's `helm test` makes one so. It
goes the whole way that mail goes (Service, listener, spool, queue, DNS, delivery) and needs no rights in the house.

Rules of this file
- Nothing but the mail itself proves the way: a mail without our Message-ID is taken and not counted.
- What may still be under way when it begins is tried again until the time is over: the house's name, its port, the
  domain. A refusal that stays is told in the peer's words.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator

from posthof_pod.cli.send import EX_TEMPFAIL, EX_USAGE, Mail, NotSent, check, compose, split, submit

AGAIN = 1.0  # seconds between two tries to hand the mail over
ANSWER = 20.0  # seconds for an answer; a mail sent twice does no harm here
LIMIT = 1024 * 1024  # bytes of a mail; larger ones are not ours


class Sink:
    """A port that takes every mail, and tells when the one with this Message-ID came."""

    def __init__(self, message_id: str) -> None:
        self.message_id = message_id.encode()
        self.found = threading.Event()
        self.content = b""

    def take(self, content: bytes) -> None:
        if self.message_id in content:
            self.content = content
            self.found.set()

    @contextlib.contextmanager
    def listen(self, host: str, port: int) -> Iterator[int]:
        """Take mail while the block runs; gives the port. An empty host: all addresses of both families."""
        server = _Server(host, port, self)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, host: str, port: int, sink: Sink) -> None:
        self.sink = sink
        if (not host and socket.has_dualstack_ipv6()) or ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Session)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6 and not self.server_address[0]:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Session(socketserver.StreamRequestHandler):
    """As much of RFC 5321 as a client of ours needs: 4.5.1's minimum without VRFY."""

    timeout = 60.0
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # a peer that goes away has told all it wanted
            self._say(220, "roundtrip")
            while line := self.rfile.readline(1024):
                verb = line[:4].upper()
                if verb == b"DATA":
                    self._say(354, "go on")
                    self._content()
                elif verb == b"QUIT":
                    self._say(221, "bye")
                    return
                elif verb in (b"EHLO", b"HELO", b"MAIL", b"RCPT", b"RSET", b"NOOP"):
                    self._say(250, "OK")
                else:
                    self._say(502, "not here")

    def _content(self) -> None:
        content = bytearray()
        while (line := self.rfile.readline(LIMIT)) and line != b".\r\n":
            if len(content) <= LIMIT:
                content += line[1:] if line.startswith(b".") else line
        self.server.sink.take(bytes(content))
        self._say(250, "taken")

    def _say(self, code: int, text: str) -> None:
        self.wfile.write(b"%d %s\r\n" % (code, text.encode()))


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`posthof roundtrip`."""
    parser = subparsers.add_parser(
        "roundtrip",
        help="send a mail and wait until it comes back",
        description="Send a mail to a house that relays the recipient's domain to us, and wait until it arrives.",
    )
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="the house")
    parser.add_argument("--to", dest="recipient", required=True, metavar="A", help="an address that is relayed to us")
    parser.add_argument("--from", dest="sender", default="", metavar="A", help="default: the null sender")
    parser.add_argument("--listen", default="2525", metavar="[HOST:]PORT", help="where it comes back; default: 2525")
    parser.add_argument("--timeout", default="2m", metavar="TIME", help="30s, 2m; default: %(default)s")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when the mail came back; else an exit code of sysexits.h."""
    try:
        limit = seconds(args.timeout)
        host, port = split(args.listen) if ":" in args.listen else ("", int(args.listen))
        split(args.server)
        sender, recipient = args.sender.strip("<>"), args.recipient.strip("<>")
        check(sender, recipient)
    except (NotSent, ValueError) as error:
        print(f"roundtrip: {error}", file=sys.stderr)
        return EX_USAGE
    mail = Mail(sender, [recipient], compose(sender, [recipient], "roundtrip", "A mail that comes back."))
    return roundtrip(args.server, mail, host, port, limit)


def roundtrip(server: str, mail: Mail, host: str, port: int, limit: float) -> int:
    """Send `mail` until it is taken, wait until it is here, `limit` seconds in all. The exit code."""
    began = time.monotonic()
    sink = Sink(message_id_of(mail.content))
    with sink.listen(host, port):
        try:
            taken = _hand_over(server, mail, began + limit)
        except NotSent as error:
            print(f"not sent within {limit:g} s: {error}", file=sys.stderr)
            return error.exit_code
        at = time.monotonic()
        print(f"{server} took it after {at - began:.1f} s: {taken}", flush=True)
        if not sink.found.wait(max(0.0, began + limit - at)):
            print(f"it did not come back within {limit:g} s; it waits in the queue", file=sys.stderr)
            return EX_TEMPFAIL
    print(f"it came back after {time.monotonic() - at:.1f} s:")
    print(sink.content.decode("utf-8", "replace").partition("\r\n\r\n")[0].replace("\r\n", "\n"))
    return 0


def _hand_over(server: str, mail: Mail, until: float) -> str:
    """What the server said to it. NotSent: what it said last."""
    while True:
        try:
            accepted = submit(server, mail, timeout=max(1.0, min(ANSWER, until - time.monotonic())))
            return f"{accepted.code} {accepted.text}"
        except NotSent:
            if time.monotonic() + AGAIN >= until:
                raise
        time.sleep(AGAIN)


def message_id_of(content: bytes) -> str:
    """The Message-ID of a mail that `compose` made."""
    head = content.partition(b"\r\n\r\n")[0].decode("ascii", "replace")
    found = next(line for line in head.split("\r\n") if line.lower().startswith("message-id:"))
    return found.partition(":")[2].strip()


def seconds(text: str) -> float:
    """`90`, `90s`, `2m` -> seconds. ValueError for anything else."""
    number, factor = (text[:-1], {"s": 1, "m": 60}[text[-1]]) if text[-1:] in ("s", "m") else (text, 1)
    if not number.isdigit() or not int(number):
        raise ValueError(f"{text!r} is no time; it looks like 2m")
    return float(int(number) * factor)
