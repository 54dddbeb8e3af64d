"""`posthof check -f DIR`: are the manifests right, and what do they mean? Exit 1 with every error, 0 otherwise.

Reads the folder and nothing else: no port is bound, no name looked up, no file written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("check", help="validate the manifests and print what they mean")
    parser.add_argument("-f", "--folder", metavar="DIR", default=".", help="the folder of manifests (default: .)")
    parser.add_argument("-q", "--quiet", action="store_true", help="only errors and warnings")
    parser.add_argument("--all", action="store_true", help="every domain, not only the first 50")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    from posthof_crds.compile import compile as compile_manifests
    from posthof_crds.load import load
    from posthof_crds.problems import Invalid
    from posthof_pod.cli.effective import describe

    try:
        manifests = load(Path(args.folder))
    except Invalid as invalid:
        tell("error", invalid.errors)
        tell("warning", invalid.warnings)
        count = len(invalid.errors)
        print(f"{count} error{'s' if count > 1 else ''}: this configuration cannot be used.", file=sys.stderr)
        return 1
    config = compile_manifests(manifests, Path.cwd())
    if not args.quiet:
        print(describe(config, domains=len(config.domains) if args.all else 50), end="")
    tell("warning", manifests.warnings)
    return 0


def tell(word: str, problems: Any) -> None:
    """Problems to stderr, each under its word."""
    for problem in problems:
        print(f"{word}: {problem}", file=sys.stderr)
