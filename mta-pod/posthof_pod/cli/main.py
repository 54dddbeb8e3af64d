"""`posthof`: one command, a file for each of its verbs.

Only the verb that is asked for is imported, so that `posthof queue list` starts in 50 ms and `posthof check` alone
loads the models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

COMMANDS = {
    "up": "run the manifests of a folder, in the foreground",
    "pod": "run as a pod of a cluster; its operator says what",
    "check": "validate the manifests and print what they mean",
    "explain": "which rule decides about a mail, and where it would go",
    "queue": "what waits, and why; flush, hold, release, delete",
    "status": "is the running house well, what does it run, what waits",
    "trace": "the life of a message that is queued or recently left",
    "send": "send a test mail",
    "roundtrip": "send a mail and wait until it comes back",
    "sendmail": "take a message as sendmail(1) does",
    "mailq": "show the queue as mailq(1) does",
    "spool": "look into a spool: verify it, read its records",
    "password": "what checks a password, to put into a Secret in its place",
    "dkim": "the DKIM keys of a house, and the records to publish",
    "mtasts": "the MTA-STS policies of our domains, and the records to publish",
    "reports": "what other houses report about our domains",
    "api": "one raw question to the admin API",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["version"]:
        arguments = ["--version"]
    parser = argparse.ArgumentParser("posthof", description="A mail transfer agent that runs from manifests.")
    parser.add_argument("--version", action="version", version=f"posthof {_version()}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = next((word for word in arguments if not word.startswith("-")), "")
    if wanted in COMMANDS:
        import_module(f"posthof_pod.cli.{wanted}").add_parser(subparsers)
    else:
        for name, text in COMMANDS.items():
            subparsers.add_parser(name, help=text)
    args = parser.parse_args(arguments)
    try:
        return int(import_module(f"posthof_pod.cli.{args.command}").run(args))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `posthof queue list | head`
        sys.stderr.close()
        return 0


def _version() -> str:
    try:
        return version("posthof")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
