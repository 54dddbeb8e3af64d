"""`posthof password`: what checks a password, for the key `password.hash` of a SMTPCredential's Secret.

The password is read from the terminal without being shown, or is the first line of standard input.
"""

from __future__ import annotations

import argparse
import getpass
import secrets
import sys
from typing import Any

from posthof_crds import verifiers


def add_parser(subparsers: Any) -> None:
    subparsers.add_parser("password", help="what checks a password, to put into a Secret in its place")


def run(args: argparse.Namespace) -> int:
    """Prints a scrypt and a SCRAM-SHA-256 verifier."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            print("posthof: the two are not the same", file=sys.stderr)
            return 1
    else:
        password = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    try:
        print(verifiers.make(password, secrets.token_bytes(verifiers.SALT)), end="")
    except ValueError as error:
        print(f"posthof: this is no password: {error}", file=sys.stderr)
        return 1
    return 0
