"""`posthof status`: is a running house well, what does it run, what waits. In a pod also before there is a house.

`--json` prints the report that pods give to the operator (posthof_crds.report).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from posthof_crds.ports import HEALTH
from posthof_crds.report import Report
from posthof_pod.admin import client
from posthof_pod.observe.line import size_text, span_text


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("status", help="is the running house well, what does it run, what waits")
    client.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status: 0 it is ready, 1 it is not, or nobody answers."""
    try:
        told = msgspec.convert(ask(args), Report)
    except client.AdminError as error:
        print(error, file=sys.stderr)
        return 1
    if args.json:
        print(msgspec.json.encode(told).decode())
    else:
        for line in lines(told, time.time()):
            print(line)
    return 0 if told.ready else 1


def ask(args: argparse.Namespace) -> Any:
    """The report; in a pod that has no house yet one that says what it waits for. Raises AdminError."""
    try:
        return client.connect(args).get("/api/v1/report")
    except client.AdminError as error:
        if not os.environ.get("POSTHOF_MTA"):
            raise
        given = os.environ.get("POSTHOF_PUBLIC", f":{HEALTH}")
        front = client.AdminClient(f"http://127.0.0.1{given}" if given.startswith(":") else f"http://{given}")
        try:
            why = msgspec.json.decode(front.exchange("GET", "/readyz")[1])["why"]
        except (client.AdminError, msgspec.DecodeError, KeyError):
            raise error from None
        return {"pod": os.environ.get("POSTHOF_POD", ""), "refused": [why]}


def lines(told: Report, now: float) -> Iterator[str]:
    """For people."""
    state = "ready" if told.ready else "stopping" if told.draining else "NOT READY"
    yield f"{told.pod}  {state}, {told.workers} workers, up {span_text(told.uptime_seconds)}, {told.version}"
    newest = "" if told.desired == told.revision else f"; the newest is {told.desired}"
    yield f"configuration  {told.revision or 'none yet'}{newest}"
    for text in told.refused:
        yield f"  {text}"
    queue = told.queue
    oldest = f", oldest ready {span_text(queue.oldest_ready_seconds)}" if queue.ready else ""
    yield f"queue          {queue.ready} ready, {queue.deferred} deferred, {queue.held} held{oldest}"
    yield f"sessions       {told.sessions}"
    spool = told.spool
    health = "healthy" if spool.healthy else spool.reason
    yield f"spool          {health}, {size_text(spool.used_bytes)} used, {size_text(spool.free_bytes)} free"
    for name, one in sorted(told.certificates.items()):
        yield f"certificate    {name}: serial {one.serial}, {ends(one.not_after, now)}"


def ends(not_after: float, now: float) -> str:
    """ "ends 2027-01-19 (in 12d)", "expired 2026-01-19"."""
    day = time.strftime("%Y-%m-%d", time.gmtime(not_after))
    return f"ends {day} (in {span_text(not_after - now)})" if not_after > now else f"expired {day}"
