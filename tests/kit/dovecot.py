"""A private Dovecot that speaks LMTP on a socket and on a TCP port, and keeps Maildirs.

`users` exist, everybody else is refused at RCPT; a user in `full` has no room left (552 5.2.2 after the content).
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator, Sequence
from pathlib import Path

from kit import peers

OWNER = "nobody"

CONFIG = """\
protocols = lmtp
listen = 127.0.0.1
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
ssl = no
mail_location = maildir:{folder}/mail/%n
mail_plugins = quota
first_valid_uid = 1
first_valid_gid = 1
auth_username_format = %Ln
recipient_delimiter = +
lmtp_save_to_detail_mailbox = no
passdb {{
  driver = passwd-file
  args = username_format=%n {folder}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%n {folder}/users
}}
plugin {{
  quota = maildir:User quota
}}
protocol lmtp {{
  postmaster_address = postmaster@dovecot.test
}}
service auth {{
  unix_listener auth-submission {{
    mode = 0666
  }}
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""


class Dovecot:
    """A running instance: LMTP on `socket` and on 127.0.0.1 at `port`."""

    def __init__(self, folder: Path, users: Sequence[str], full: Sequence[str]) -> None:
        self.folder = folder
        self.port = peers.free_port()
        self.socket = folder / "run" / "lmtp"
        self.auth = folder / "run" / "auth-submission"  # every user's password is x
        self._program: peers.Program | None = None
        owner = pwd.getpwnam(OWNER)
        for name in ("run", "state", "mail"):
            (folder / name).mkdir()
        os.chown(folder / "mail", owner.pw_uid, owner.pw_gid)
        (folder / "users").write_text(
            "".join(
                f"{user}:{{PLAIN}}x:{owner.pw_uid}:{owner.pw_gid}::{folder}/mail/{user}::"
                f"{'userdb_quota_rule=*:bytes=1' if user in full else ''}\n"
                for user in (*users, *full)
            )
        )
        self._config = folder / "dovecot.conf"
        self._config.write_text(CONFIG.format(folder=folder, port=self.port))

    def start(self) -> None:
        self._program = peers.Program(["dovecot", "-F", "-c", self._config], self.folder / "dovecot.out")
        self._program.until(lambda: peers.listens(self.port), f"Dovecot listening on port {self.port}")

    def stop(self) -> None:
        if self._program is not None:
            self._program.stop()
            self._program = None

    def inbox(self, user: str) -> peers.Maildir:
        """The user's mails, with Dovecot's own lines on top, newlines as stored (LF)."""
        return peers.Maildir(self.folder / "mail" / user, self.log)

    def log(self) -> str:
        path = self.folder / "dovecot.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextlib.contextmanager
def dovecot(*users: str, full: Sequence[str] = ()) -> Iterator[Dovecot]:
    """A Dovecot with these users; skips where it cannot run."""
    peers.require("dovecot", "/usr/lib/dovecot/lmtp")
    peers.require_root()
    with peers.folder("dovecot") as folder:
        instance = Dovecot(folder, users, full)
        try:
            instance.start()
            yield instance
        finally:
            instance.stop()
