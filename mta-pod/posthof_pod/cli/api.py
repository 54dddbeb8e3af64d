"""`posthof api GET|POST PATH`: one raw question to the admin API of the house here.

For `kubectl posthof`, which runs it in every pod of an MTA. It prints `{"status": ..., "body": ...}`, whatever the
answer is. A POST's body is standard input.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import msgspec

from posthof_pod.admin import client


class Answer(msgspec.Struct):
    """`body`: JSON as it came; `content`: what is no JSON."""

    status: int
    body: msgspec.Raw = msgspec.Raw(b"null")
    content: bytes = b""


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("api", help="one raw question to the admin API")
    client.add_arguments(parser)
    parser.add_argument("method", choices=("GET", "POST"))
    parser.add_argument("path", metavar="PATH")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status: 0 an answer came."""
    body = sys.stdin.buffer.read() if args.method == "POST" else None
    try:
        status, content = client.connect(args).exchange(args.method, args.path, body)
    except client.AdminError as error:
        print(error, file=sys.stderr)
        return 1
    is_json = content[:1] in (b"{", b"[")
    answer = Answer(status, msgspec.Raw(content)) if is_json else Answer(status, content=content)
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    return 0
