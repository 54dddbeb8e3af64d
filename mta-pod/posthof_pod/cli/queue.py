"""`posthof queue list|show|flush|hold|release|delete`: what waits in a running house, and why."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from posthof_pod.admin import client
from posthof_pod.admin.waiting import STATES, QueueFilter, QueueItem, QueuePage, QueueRecipient
from posthof_pod.observe.line import printable, size_text, span_text

SHOWN = 100
_CHANGES = {
    "flush": "try deferred mail now",
    "hold": "keep mail back until it is released",
    "release": "let held mail go on",
    "delete": "remove mail, without a report to its sender",
}
_DONE = {"flush": "flushed", "hold": "held", "release": "released", "delete": "deleted"}


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("queue", help="what waits, and why; flush, hold, release, delete")
    client.add_arguments(parser)
    for action in add_actions(parser):
        client.add_arguments(action, again=True)
    parser.set_defaults(run=run)


def add_actions(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """list, show, flush ...: the same for one house and for all pods of an MTA."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the oldest messages that wait")
    _add_filter(listing)
    listing.add_argument("--limit", type=int, default=SHOWN, metavar="N", help=f"show at most N (default: {SHOWN})")
    listing.add_argument("--json", action="store_true", help="print the answer as JSON")
    show = actions.add_parser("show", help="one message: recipients, tries, the peer's words")
    show.add_argument("id", metavar="ID")
    show.add_argument("--content", action="store_true", help="print the message itself")
    show.add_argument("--json", action="store_true", help="print the answer as JSON")
    for name, text in _CHANGES.items():
        change = actions.add_parser(name, help=text)
        change.add_argument("ids", metavar="ID", nargs="*", help="messages by their ids")
        _add_filter(change)
        change.add_argument("--all", action="store_true", help="every message")
    return list(actions.choices.values())


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="sender", metavar="GLOB", default="", help='sender; "<>" is the null sender')
    parser.add_argument("--to", dest="recipient", metavar="GLOB", default="", help="a recipient that waits")
    parser.add_argument("--destination", metavar="GLOB", default="", help="where it goes, as `list` shows it")
    parser.add_argument("--state", choices=STATES, default="", help="how it waits")


def run(args: argparse.Namespace) -> int:
    """The exit status: 1 where nothing was found or the house does not answer."""
    try:
        return ask(client.connect(args), args)
    except client.AdminError as error:
        print(error, file=sys.stderr)
        return 1


def ask(house: client.House, args: argparse.Namespace) -> int:
    """Do what the arguments say with a house, or several as one. Raises AdminError."""
    if args.action == "list":
        return _list(house, args)
    if args.action == "show":
        return _show(house, args)
    return _change(house, args)


def _list(house: client.House, args: argparse.Namespace) -> int:
    query = {name: getattr(args, name) for name in ("sender", "recipient", "destination", "state", "limit")}
    answer = house.get("/api/v1/queue", query)
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return 0
    for line in table(msgspec.convert(answer, QueuePage), time.time()):
        print(line)
    return 0


def _show(house: client.House, args: argparse.Namespace) -> int:
    if args.content:
        sys.stdout.buffer.write(house.request("GET", f"/api/v1/queue/{args.id}/content"))
        return 0
    answer = house.get(f"/api/v1/queue/{args.id}")
    if args.json:
        print(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return 0
    for line in details(msgspec.convert(answer, QueueItem), time.time()):
        print(line)
    return 0


def _change(house: client.House, args: argparse.Namespace) -> int:
    wanted = QueueFilter(
        ids=args.ids,
        sender=args.sender,
        recipient=args.recipient,
        destination=args.destination,
        state=args.state,
        all=args.all,
    )
    if wanted.is_empty and not wanted.all:
        print(f"which messages? Name ids, or a filter, or --all: posthof queue {args.action} --help", file=sys.stderr)
        return 2
    answer = house.post(f"/api/v1/queue/{args.action}", wanted)
    count = int(answer.get("count", 0))
    print(f"{_DONE[args.action]} {count} message{'' if count == 1 else 's'}")
    return 0 if count else 1


def table(page: QueuePage, now: float) -> list[str]:
    """One line a message: id, age, size, sender, recipient, state, next try, tries, reason."""
    if not page.items:
        return ["Nothing is queued." if not page.total else "No message meets the filter."]
    rows: list[tuple[str, ...]] = [("ID", "AGE", "SIZE", "FROM", "TO", "STATE", "NEXT", "TRIES", "REASON")]
    rows += [_row(item, now) for item in page.items]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if page.total > len(page.items):
        lines.append(f"... and {page.total - len(page.items)} more (--limit)")
    if page.missing:
        lines.append(f"no answer from {named(page.missing)}: its messages are missing here")
    return lines


def named(missing: list[str]) -> str:
    """ "worker 2", "pod edge-x"."""
    return ", ".join(one if " " in one else f"worker {one}" for one in missing)


def _row(item: QueueItem, now: float) -> tuple[str, ...]:
    first = min(item.waiting, key=lambda one: one.due or float("inf")) if item.waiting else QueueRecipient("", "")
    more = f" +{len(item.waiting) - 1}" if len(item.waiting) > 1 else ""
    return (
        item.id,
        span_text(now - item.arrived),
        size_text(item.size),
        printable(item.sender or "<>"),
        printable(first.address) + more,
        first.state,
        span_text(max(first.due - now, 0)) if first.due else "-",
        str(first.attempts),
        first.reason,
    )


def details(item: QueueItem, now: float) -> Iterator[str]:
    """Everything about one message."""
    arrived = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item.arrived))
    yield f"id          {item.id}"
    yield f"from        {printable(item.sender or '<>')}"
    yield f"arrived     {arrived}, {span_text(now - item.arrived)} ago"
    yield f"size        {size_text(item.size)}"
    if item.message_id:
        yield f"message id  {printable(item.message_id)}"
    if item.client:
        yield f"client      {printable(item.client_name)} [{item.client}] ({item.role})"
    yield f"recipients  {len(item.waiting)} of {item.recipients} wait"
    for one in item.waiting:
        due = f", next try in {span_text(max(one.due - now, 0))}" if one.due else ""
        tries = f", {one.attempts} tries so far" if one.attempts else ""
        yield f"  {printable(one.address)}: {one.state}{due}{tries}"
        rule = f" (rule {one.rule})" if one.rule else ""
        yield f"    to {one.destination}{rule}: {one.reason}"
    if item.detail:
        yield f"last reply  {printable(item.detail)}"
