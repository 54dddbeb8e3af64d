"""A server that says what it is told to and keeps what it heard: for commands that send mail.

Plain blocking code in a thread, one session after another; tests/kit/peer.py is the one for the engine's client.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Server:
    """A server of its own in a thread: answers as told, keeps commands and content. One session after another."""

    def __init__(self, answers: dict[str, str] | None = None, extensions: tuple[str, ...] = ()) -> None:
        self.answers = {
            "RCPT": "250 2.1.5 ok",
            "MAIL": "250 2.1.0 ok",
            "DATA": "354 go on",
            ".": "",
            **(answers or {}),
        }
        self.extensions = extensions or ("SIZE 1000000", "8BITMIME", "SMTPUTF8", "DSN")
        self.commands: list[str] = []
        self.contents: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
                    self._session(connection, lines)

    def _session(self, connection: socket.socket, lines: Iterator[bytes]) -> None:
        def say(text: str) -> None:
            connection.sendall(text.encode() + b"\r\n")

        say(self.answers.get("greeting", "220 mx.test"))
        for line in lines:
            text = line.decode().rstrip("\r\n")
            self.commands.append(text)
            verb = text.partition(" ")[0].upper()
            if verb == "EHLO":
                for one in ("mx.test", *self.extensions[:-1]):
                    say(f"250-{one}")
                say(f"250 {self.extensions[-1]}")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                answer = self.answers.get(text) or self.answers.get(verb, "250 ok")
                say(answer)
                if verb == "DATA" and answer.startswith("354"):
                    self.contents.append(self._content(lines))
                    say(self.answers["."] or f"250 2.0.0 queued as abc123lane-{len(self.contents)}")

    def _content(self, lines: Iterator[bytes]) -> bytes:
        kept = []
        for line in lines:
            if line == b".\r\n":
                break
            kept.append(line[1:] if line.startswith(b".") else line)
        return b"".join(kept)
