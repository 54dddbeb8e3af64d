"""`mailq`: the queue, in the form of mailq(1). `posthof queue list` is the form to work with.

The admin API is asked in `fetch` alone; the rest makes text of values.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import msgspec

from posthof_pod.admin import client
from posthof_pod.admin.waiting import QueueItem, QueuePage
from posthof_pod.cli.send import EX_OK, EX_UNAVAILABLE

LIMIT = 10_000  # messages that are listed
_HEAD = "-Queue ID-------  --Size-- ----Arrival Time---- -Sender/Recipient-------"
_MARKS = {"sending": "*", "held": "!"}


def fetch(arguments: Sequence[str] = ()) -> QueuePage:
    """What waits in the house. mailq's own options (-v, -A, -O) change nothing. Raises client.AdminError."""
    parser = argparse.ArgumentParser("mailq", add_help=False)
    client.add_arguments(parser)
    args, _ = parser.parse_known_args(list(arguments))
    return msgspec.convert(client.connect(args).get("/api/v1/queue", {"limit": LIMIT}), QueuePage)


def lines(page: QueuePage) -> list[str]:
    """The listing: a message a paragraph, with the last reply in brackets, and a sum."""
    if not page.items:
        return ["Mail queue is empty"]
    text = [_HEAD]
    for item in page.items:
        text += _message(item)
    total = sum(item.size for item in page.items)
    count = max(page.total, len(page.items))
    more = f" ({len(page.items)} shown)" if count > len(page.items) else ""
    text.append(f"-- {total // 1024} Kbytes in {count} Request{'s' if count != 1 else ''}{more}.")
    return text


def _message(item: QueueItem) -> list[str]:
    states = {one.state for one in item.waiting}
    mark = next((mark for state, mark in _MARKS.items() if state in states), " ")
    arrived = time.strftime("%a %b %d %H:%M:%S", time.localtime(item.arrived))
    text = [f"{item.id + mark:<17} {item.size:>8} {arrived:<20} {item.sender or 'MAILER-DAEMON'}"]
    if item.detail:
        text.append(f"{'(' + ' '.join(item.detail.split()) + ')':>78}")
    text += [f"{'':<48}{one.address}" for one in item.waiting]
    return [*text, ""]


def show(arguments: Sequence[str]) -> int:
    """Print it. 69 where nobody answers."""
    try:
        page = fetch(arguments)
    except client.AdminError as error:
        print(f"mailq: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    print("\n".join(lines(page)))
    return EX_OK


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`posthof mailq`."""
    parser = subparsers.add_parser("mailq", help="show the queue as mailq(1) does", prefix_chars="\0", add_help=False)
    parser.add_argument("arguments", nargs="*")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    return show(args.arguments)
