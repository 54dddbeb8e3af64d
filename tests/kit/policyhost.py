"""An HTTPS server for MTA-STS policies, on a loopback address, in threads of its own.

`answers`: host name -> the whole answer (status line, headers, body), or a callable that gives it; without one the
answer is 404. `asked` counts the requests by host.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from typing import Self

from kit.pki import Files


def text(body: str, kind: str = "text/plain") -> bytes:
    """A 200 with this body."""
    content = body.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class PolicyHost:
    def __init__(self, certificate: Files, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.answers: dict[str, bytes | Callable[[], bytes]] = {}
        self.asked: Counter[str] = Counter()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        self._listener = socket.create_server((host, port), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._is_open = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while self._is_open:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            with self._context.wrap_socket(connection, server_side=True) as wrapped:
                request = b""
                while b"\r\n\r\n" not in request and (data := wrapped.recv(4096)):
                    request += data
                host = next(line[5:].strip() for line in request.split(b"\r\n") if line.lower().startswith(b"host:"))
                name = host.decode()
                self.asked[name] += 1
                found = self.answers.get(name, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                wrapped.sendall(found() if callable(found) else found)
                wrapped.unwrap()
