"""What the trace costs a message. The number is printed (pytest -s); the bound only catches a change of kind."""

from __future__ import annotations

import time

from posthof_pod.admit import headers

HEAD = b"".join(b"X-Field-%d: %b\r\n" % (n, b"v" * 40) for n in range(8)) + b"Message-ID: <1@example.org>\r\n"
BODY = HEAD + b"\r\n" + b"x" * 4096


def test_scan_and_received_cost_microseconds():
    best = float("inf")
    for _ in range(5):
        start = time.thread_time()
        for n in range(1000):
            headers.scan(headers.block(BODY))
            headers.received(
                helo="client.example.org",
                client="192.0.2.1",
                protocol="ESMTP",
                hostname="mx.test",
                queue_id=f"lane-{n}",
                recipient="bob@quickstart.test",
                now=1.79e9,
            )
        best = min(best, (time.thread_time() - start) * 1000)
    print(f"trace: {best:.2f} us a message")
    assert best < 60
