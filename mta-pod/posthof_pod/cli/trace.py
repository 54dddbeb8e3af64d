"""`posthof trace ID|ADDRESS`: the life of a message that is queued or recently left, in order."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from posthof_pod.admin import client
from posthof_pod.admin.waiting import QueueItem
from posthof_pod.cli.queue import details, named
from posthof_pod.observe.line import Line, readable, wants_colour


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("trace", help="the life of a message that is queued or recently left")
    client.add_arguments(parser)
    add_words(parser)
    parser.set_defaults(run=run)


def add_words(parser: argparse.ArgumentParser) -> None:
    """What is looked for: the same for one house and for all pods of an MTA."""
    parser.add_argument("wanted", metavar="ID|ADDRESS|@DOMAIN|MESSAGE-ID", help="what to look for")
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="at most N events (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")


def run(args: argparse.Namespace) -> int:
    """The exit status: 1 where nothing is known of it."""
    try:
        return ask(client.connect(args), args)
    except client.AdminError as error:
        print(error, file=sys.stderr)
        return 1


def ask(house: client.House, args: argparse.Namespace) -> int:
    """Search a house, or several as one. Raises AdminError."""
    answer = house.get("/api/v1/trace", {"q": args.wanted, "limit": args.limit})
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return 0
    found = False
    for line in lines(answer, time.time(), colour=wants_colour(1)):
        print(line)
        found = True
    if not found:
        print(f"nothing is known of {args.wanted}: not queued, and not among the latest events", file=sys.stderr)
    return 0 if found else 1


def lines(answer: dict[str, Any], now: float, *, colour: bool = False) -> Iterator[str]:
    """The events in order, then what is still queued."""
    for event in answer.get("events", []):
        yield readable(msgspec.convert(event, Line), colour=colour, date=True)
    queued = [msgspec.convert(item, QueueItem) for item in answer.get("queued", [])]
    for item in queued:
        yield ""
        yield from details(item, now)
    missing = answer.get("missing", [])
    if missing:
        yield f"no answer from {named(missing)}: what it knows is missing here"
