"""A private OpenSMTPD, unpacked below build/peers, for the benchmark alone: it relays everything to one next hop.

Its spool, its socket and its chroot are compiled in (/var/spool/smtpd, /run/smtpd.sock, /var/lib/opensmtpd/empty), so
it runs in a mount namespace of its own, with folders of ours bound over /var/spool, /var/lib and /run. Where that
is not allowed (a container without CAP_SYS_ADMIN) it cannot run.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kit import peers

BINARY = peers.UNPACKED / "opensmtpd/usr/sbin/smtpd"

CONFIG = """\
smtp limit max-mails 1000000
mta limit reconn-delay-route 0 max-conn-per-host 20 max-conn-per-route 20 max-conn-per-relay 20
listen on 127.0.0.1 port {port} hostname {hostname}
action "out" relay host smtp://{host}:{next_port} helo {hostname}
match from any for any action "out"
"""

NAMESPACE = """\
set -e
for place in var/spool var/lib run; do mount --bind "$0/root/$place" "/$place"; done
exec "$@"
"""


def is_there() -> bool:
    """Whether it is unpacked and a mount namespace can be had."""
    return (
        BINARY.exists()
        and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    )


class OpenSMTPD:
    """A running instance. `port` is its SMTP port on 127.0.0.1."""

    def __init__(self, folder: Path, port: int, *, hostname: str, relay_to: str) -> None:
        self.folder = folder
        self.port = port
        self._program: peers.Program | None = None
        for place in ("var/spool/smtpd", "var/lib/opensmtpd/empty", "run"):
            (folder / "root" / place).mkdir(parents=True)
        (folder / "root/var/spool/smtpd").chmod(0o711)
        # Its processes execute it again after they have dropped to a user who may have no way into the work tree.
        self._binary = folder / "smtpd"
        shutil.copy(BINARY, self._binary)
        host, _, next_port = relay_to.rpartition(":")
        self._config = folder / "smtpd.conf"
        self._config.write_text(CONFIG.format(port=port, hostname=hostname, host=host, next_port=next_port))

    def start(self, wrap: Sequence[str] = ()) -> peers.Program:
        """Start it in the foreground; `wrap` goes before the command."""
        command = [*wrap, "unshare", "-m", "sh", "-c", NAMESPACE, str(self.folder)]
        command += [str(self._binary), "-d", "-f", str(self._config)]
        self._program = peers.Program(command, self.folder / "log")
        self._program.until(lambda: peers.listens(self.port), f"OpenSMTPD listening on port {self.port}")
        return self._program

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()
            self._program = None
