"""A web server that answers an ACME server's questions from one thumbprint, as pods do."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator

from posthof_certs import acme


@contextlib.contextmanager
def answering(port: int, thumbprint: str) -> Iterator[list[str]]:
    """On loopback; gives the paths that were asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = (acme.answer(self.path.rpartition("/")[2], thumbprint) or "").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """It is told by `asked`."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
