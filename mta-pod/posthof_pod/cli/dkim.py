"""`posthof dkim -f DIR`: the DKIM keys of a house on one machine, their records for the zone, and who shows them.

Where no house runs with the state folder, keys that are lacking are made, so that the records may be published before
the first start. Keys of a running house are its own to make. In a cluster `kubectl get dkim` says the same.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posthof_crds.engine import EngineConfig
    from posthof_pod.admin.keyring import Shown


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("dkim", help="the DKIM keys of a house, and the records to publish")
    parser.add_argument("-f", "--folder", metavar="DIR", default=".", help="the folder of manifests (default: .)")
    parser.add_argument("--zone", action="store_true", help="nothing but the records, as lines of a zone file")
    parser.add_argument("--check", action="store_true", help="ask every authoritative server; 1 where one lacks it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """The exit status."""
    from posthof_crds.compile import compile as compile_manifests
    from posthof_crds.load import load
    from posthof_crds.problems import Invalid
    from posthof_pod.admin.keyring import KeyRing, Unreadable
    from posthof_pod.cli.check import tell

    try:
        config = compile_manifests(load(Path(args.folder)), Path.cwd())
    except Invalid as invalid:
        tell("error", invalid.errors)
        return 1
    ring = KeyRing(Path(config.state_dir))
    try:
        _make(config, ring)
        keys = list(ring.shown(config, is_asking=args.check))
    except (OSError, Unreadable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not keys:
        print("no keys: no MailDomain here asks for outbound.dkim.auto, or the house has not made them yet")
        return 0
    print("\n".join(zone_lines(keys) if args.zone else told(keys)))
    return 1 if any(key.lacking for key in keys) else 0


def _make(config: EngineConfig, ring: Any) -> None:
    """Unless a house runs."""
    from posthof_pod.admin.prepare import CannotStart, lock

    state = Path(config.state_dir)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        held = lock(state)
    except CannotStart:
        return
    try:
        ring.make(config, time.time())
        _hand_over(state, config.user)
    finally:
        os.close(held)


def _hand_over(state: Path, user: str) -> None:
    """What root makes here belongs to the user who will run the house."""
    from posthof_pod.admin.privileges import account

    owner = account(user)
    if owner is None or os.geteuid() != 0:
        return
    for path in (state, state / "supervisor.lock", state / "dkim", *(state / "dkim").rglob("*")):
        if path.exists():
            os.chown(path, owner.pw_uid, owner.pw_gid)


def zone_lines(keys: Iterable[Shown]) -> list[str]:
    from posthof_certs.dkim import quoted

    return [f"{key.name}. 3600 IN TXT {quoted(key.text)}" for key in keys]


def told(keys: Iterable[Shown]) -> list[str]:
    lines: list[str] = []
    for key in keys:
        lines += ["", f"{key.domain}  {key.algorithm}  {key.state}", *(f"  {line}" for line in zone_lines([key]))]
        lines += [f"  ! {one}" for one in key.lacking]
    return [*lines[1:], ""]
