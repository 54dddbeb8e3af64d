"""A private Exim: unpacked below build/peers (it conflicts with Postfix as a package), or the machine's own binary.

It runs as the user Debian-exim from the start, never as root: no set-uid bit, no trusted configuration is needed. It
takes mail for `domain` into one Maildir (every address exists) and sends all other mail to `relay_to`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from kit import peers

USER = "Debian-exim"

CONFIG = """\
primary_hostname = {hostname}
exim_user = {user}
exim_group = {group}
never_users =
keep_environment = LD_LIBRARY_PATH
exim_path = {binary}
deliver_drop_privilege = true
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
pid_file_path = {folder}/exim.pid
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
host_lookup =
rfc1413_hosts =
dsn_advertise_hosts = *
chunking_advertise_hosts = *
smtputf8_advertise_hosts = *
acl_smtp_rcpt = check
acl_smtp_data = accept
message_size_limit = 100M
# The defaults of the next three would refuse parallel sessions, and park all but the first ten mails of a session
# until a queue runner comes by.
smtp_accept_max = 200
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
{main}
begin acl
check:
  require verify = recipient
  accept
begin routers
{routers}
begin transports
inbox:
  driver = appendfile
  maildir_format
  directory = {folder}/inbox
  create_directory
  delivery_date_add
  envelope_to_add
  return_path_add
  user = {user}
next_hop:
  driver = smtp
  allow_localhost
  hosts_try_dane =
  hosts_avoid_tls = {avoid_tls}
begin retry
* * F,1h,5s
"""

INBOX = """\
ours:
  driver = accept
  domains = {domain}
  transport = inbox
"""
NEXT_HOP = """\
theirs:
  driver = manualroute
  route_list = * {host}::{port} byname
  self = send
  transport = next_hop
"""


def is_there() -> bool:
    return (peers.UNPACKED / "exim/usr/sbin/exim4").exists() or peers.find("exim4") is not None


def binary(folder: Path) -> tuple[str, dict[str, str]]:
    """Exim's path and the environment it needs to find its libraries.

    What was unpacked is copied into `folder`: the user it runs as may have no way into the work tree.
    """
    unpacked = peers.UNPACKED / "exim/usr"
    if not (unpacked / "sbin/exim4").exists():
        return peers.find("exim4") or "exim4", {}
    libraries = folder / "lib"
    libraries.mkdir()
    for library in (unpacked / "lib").glob("*-linux-gnu*/*.so*"):
        shutil.copy(library, libraries)
    shutil.copy(unpacked / "sbin/exim4", folder)
    return str(folder / "exim4"), {"LD_LIBRARY_PATH": str(libraries)}


class Exim:
    """A running instance. `port` is its SMTP port on 127.0.0.1, `inbox` what arrived, with Exim's lines on top."""

    def __init__(
        self, folder: Path, port: int, *, hostname: str, domain: str = "", relay_to: str = "", main: str = ""
    ) -> None:
        self.folder = folder
        self.port = port
        self.hostname = hostname
        self._binary, self._env = binary(folder)
        self._config = folder / "exim.conf"
        self._program: peers.Program | None = None
        self.inbox = peers.Maildir(folder / "inbox", self.log)
        host, _, next_port = relay_to.rpartition(":")
        owner = pwd.getpwnam(USER)
        become = [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        self._command = ["setpriv", *become, self._binary, "-C", str(self._config)]
        for name in ("spool", "inbox"):
            (folder / name).mkdir()
            os.chown(folder / name, owner.pw_uid, owner.pw_gid)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        self._config.write_text(
            CONFIG.format(
                hostname=hostname,
                user=USER,
                group=owner.pw_gid,
                binary=self._binary,
                port=port,
                folder=folder,
                main=main or "tls_advertise_hosts =\n",
                avoid_tls="" if main else "*",
                routers=(INBOX.format(domain=domain) if domain else "")
                + (NEXT_HOP.format(host=host, port=next_port) if relay_to else ""),
            )
        )

    def start(self, wrap: Sequence[str] = ()) -> peers.Program:
        """Start the daemon in the foreground, with a queue runner every minute; `wrap` goes before the command."""
        command = [*wrap, *self._command, "-bdf", "-q1m"]
        self._program = peers.Program(command, self.folder / "exim.out", env=self._env)
        self._program.until(lambda: peers.listens(self.port), f"Exim listening on port {self.port}")
        return self._program

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()
            self._program = None

    def send(self, sender: str, recipient: str, message: bytes) -> None:
        """Give a mail to its own queue, as a program on the host does; it is sent at once."""
        self._run("-odf", "-oi", "-f", sender, recipient, given=message)

    def run_queue(self) -> None:
        self._run("-qff")

    def wait_for(self, recipient: str, count: int) -> list[bytes]:
        """The mails for one address, once there are `count`."""
        line = f"\nEnvelope-to: {recipient}\n".encode()

        def found() -> list[bytes]:
            mails = [one for one in self.inbox.mails() if line in one]
            return mails if len(mails) >= count else []

        return peers.wait_for(found, f"{count} mails for {recipient}", timeout=60)

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*log")))

    def _run(self, *arguments: str, given: bytes = b"") -> None:
        subprocess.run(
            [*self._command, *arguments],
            input=given,
            env={**os.environ, **self._env},
            check=True,
            capture_output=True,
            timeout=60,
        )


@contextlib.contextmanager
def exim(
    *, domain: str = "", relay_to: str = "", hostname: str = "exim.test", has_tls: bool = False
) -> Iterator[Exim]:
    """An Exim on a free loopback port; skips where it cannot run. `has_tls`: it offers STARTTLS, and uses it."""
    if not is_there() or shutil.which("setpriv") is None:
        peers.absent("exim4 not unpacked")
    peers.require_root()
    with peers.folder("exim") as folder:
        main = ""
        if has_tls:
            certificate, key = peers.pair(folder, hostname)
            main = f"tls_advertise_hosts = *\ntls_certificate = {certificate}\ntls_privatekey = {key}\n"
        instance = Exim(folder, peers.free_port(), hostname=hostname, domain=domain, relay_to=relay_to, main=main)
        try:
            instance.start()
            yield instance
        finally:
            instance.stop()
