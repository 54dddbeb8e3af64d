"""`posthof up -f DIR`: run the manifests of a folder in the foreground, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posthof_crds.engine import EngineConfig
    from posthof_pod.admin.compiled import Compiled
    from posthof_pod.admin.supervisor import Supervisor


STDOUT = 1


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("up", help="run the manifests of a folder, in the foreground")
    parser.add_argument("-f", "--folder", metavar="DIR", required=True, help="the folder of manifests")
    parser.add_argument("--log", metavar="FILE", default="", help="write the log there (default: standard output)")
    parser.add_argument("--workers", metavar="N", type=_count, default=0, help="processes (default: as the MTA says)")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 256):
        raise argparse.ArgumentTypeError("a number from 1 to 256")
    return int(text)


class FolderSource:
    """Configurations from a folder that is watched."""

    def __init__(self, folder: Path, base: Path) -> None:
        from posthof_pod.config.watch import FolderWatcher

        self._folder, self._base = folder, base
        self._watcher = FolderWatcher(folder)

    def load(self) -> Compiled:
        from posthof_pod.admin.compiled import compile_apart

        return compile_apart(self._folder, self._base)

    async def changed(self) -> None:
        await self._watcher.changed()


def run(args: argparse.Namespace) -> int:
    """The exit status: 0 a clean stop, 1 it could not start."""
    import uvloop

    from posthof_pod.admin.prepare import CannotStart, Prepared
    from posthof_pod.admin.privileges import CannotDrop

    folder = Path(args.folder)
    source = FolderSource(folder, Path.cwd())
    compiled = source.load()
    for warning in compiled.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if compiled.config is None:
        for error in compiled.errors:
            print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        output = _open_log(args.log, compiled.config.user)
        prepared = Prepared(compiled.config, compiled.secrets, args.workers)
    except (CannotStart, CannotDrop, OSError) as error:
        print(f"posthof cannot start: {error}", file=sys.stderr)
        return 1
    path = os.path.abspath(args.log) if args.log else ""
    return uvloop.run(_serve(prepared, source, output, path, args.folder))


def _open_log(path: str, user: str) -> int:
    """The descriptor lines go to. A file made here is the user's who will open it again after a rotation."""
    from posthof_pod.admin.privileges import account

    if not path:
        return STDOUT
    is_new = not os.path.exists(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    owner = account(user)
    if is_new and owner is not None:
        os.fchown(descriptor, owner.pw_uid, owner.pw_gid)
    return descriptor


async def _serve(prepared: Any, source: FolderSource, output: int, path: str, folder: str) -> int:
    from posthof_pod.admin.supervisor import Supervisor
    from posthof_pod.observe.events import Events
    from posthof_pod.observe.log import Log

    events = Events(Log(output, path))
    supervisor = Supervisor(
        prepared,
        source,
        events,
        output=output,
        log=path,
        on_settled=lambda supervisor: _say_how(supervisor, folder),
    )
    return await supervisor.run()


def _say_how(supervisor: Supervisor, folder: str) -> None:
    """How to send a first mail, and where to look."""
    for line in first_steps(supervisor.config, supervisor.http_address, folder):
        print(line, file=sys.stderr)


def first_steps(config: EngineConfig, http: str, folder: str) -> list[str]:
    """What to type next. Addresses as configured; nothing here where there is no listener in the clear."""
    lines = ["", f"  {config.hostname} is up. Ctrl-C stops it.", ""]
    listener = next((one for one in config.listeners if one.tls != "Implicit"), None)
    mailbox = _mailbox(config)
    if listener is not None and mailbox:
        host = listener.host if listener.host not in ("", "0.0.0.0", "::") else "127.0.0.1"
        server = f"{host}:{listener.port}"
        lines += [
            "  A first mail:",
            f"    swaks --server {server} --from you@example.org --to {mailbox}",
            f"    posthof send --server {server} --from you@example.org --to {mailbox}",
        ]
        folder_of = _folder_of(config, mailbox)
        if folder_of:
            lines.append(f"  It lands in:  {folder_of}/new/")
        lines += [f"  Its life:     posthof trace -f {folder} {mailbox}"]
    if any(one.outbound is not None and one.outbound.auto is not None for one in config.domains.values()):
        lines += [f"  DKIM records: posthof dkim -f {folder}"]
    lines += [
        f"  The queue:    posthof queue -f {folder} list",
        f"  Health:       http://{http}/readyz   http://{http}/metrics",
        "",
    ]
    return lines


def _mailbox(config: EngineConfig) -> str:
    """A recipient that a test mail may have."""
    for domain in config.domains.values():
        names = sorted(name for name in domain.recipients if name != "postmaster")
        if names and domain.mode in ("Maildir", "LMTP"):
            return f"{names[0]}@{domain.domain}"
    return ""


def _folder_of(config: EngineConfig, mailbox: str) -> str:
    local, _, name = mailbox.rpartition("@")
    domain = config.domains[name]
    if domain.mode != "Maildir":
        return ""
    path = Path(config.mail_root) / domain.maildir.format(domain=name, local=local)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
