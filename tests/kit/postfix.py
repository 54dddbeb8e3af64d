"""A private Postfix: its own configuration, queue, data and log folder; the machine's own instance is never touched.

Two parts it plays
- next hop: it takes mail for `domain` into one Maildir (virtual(8)), every address exists;
- client: mail given to it for other domains leaves through its own queue to `relay_to` ("[host]:port").
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from kit import peers

SBIN = "/usr/lib/postfix/sbin"
QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "saved", "trace")
OWNER = 65534  # nobody: owns the Maildir

# Chroot off, so that no copy of /etc is needed below the queue; what nobody uses here is left out.
MASTER = """\
{listeners}pickup    unix  n  -  n  60    1  pickup
cleanup   unix  n  -  n  -     0  cleanup
qmgr      unix  n  -  n  300   1  qmgr
tlsmgr    unix  -  -  n  1000? 1  tlsmgr
rewrite   unix  -  -  n  -     -  trivial-rewrite
bounce    unix  -  -  n  -     0  bounce
defer     unix  -  -  n  -     0  bounce
trace     unix  -  -  n  -     0  bounce
verify    unix  -  -  n  -     1  verify
flush     unix  n  -  n  1000? 0  flush
proxymap  unix  -  -  n  -     -  proxymap
proxywrite unix -  -  n  -     1  proxymap
smtp      unix  -  -  n  -     -  smtp
relay     unix  -  -  n  -     -  smtp
showq     unix  n  -  n  -     -  showq
error     unix  -  -  n  -     -  error
retry     unix  -  -  n  -     -  error
discard   unix  -  -  n  -     -  discard
virtual   unix  -  n  n  -     -  virtual
lmtp      unix  -  -  n  -     -  lmtp
anvil     unix  -  -  n  -     1  anvil
scache    unix  -  -  n  -     1  scache
postlog   unix-dgram n - n -   1  postlogd
"""

MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/postfix.log
maillog_file_prefixes = {folder}
myhostname = {hostname}
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
disable_dns_lookups = yes
smtpd_peername_lookup = no
append_dot_mydomain = no
biff = no
"""


def write_folder(
    folder: Path,
    *,
    port: int,
    hostname: str,
    relay_to: str = "",
    domain: str = "",
    extra: dict[str, str] | None = None,
    address: str = "127.0.0.1",
) -> Path:
    """Lay out a Postfix instance below `folder` and return its configuration folder."""
    config = folder / "postfix"
    config.mkdir()
    _make_queue(folder / "queue")
    data = folder / "data"
    data.mkdir()
    shutil.chown(data, "postfix")
    main = MAIN.format(folder=folder, hostname=hostname)
    if relay_to:
        main += f"relayhost = {relay_to}\n"
    if domain:
        mail = folder / "mail"
        mail.mkdir()
        os.chown(mail, OWNER, OWNER)
        main += textwrap.dedent(f"""\
            virtual_mailbox_domains = {domain}
            virtual_mailbox_base = {mail}
            virtual_mailbox_maps = static:inbox/
            virtual_uid_maps = static:{OWNER}
            virtual_gid_maps = static:{OWNER}
            virtual_mailbox_limit = 0
            """)
    main += "".join(f"{name} = {value}\n" for name, value in (extra or {}).items())
    (config / "main.cf").write_text(main)
    _age(config / "main.cf")
    (config / "master.cf").write_text(MASTER.format(listeners=f"{address}:{port} inet n - n - - smtpd\n"))
    return config


def _age(path: Path) -> None:
    """Postfix' programs wait until main.cf has been still for two seconds: make it look so."""
    long_ago = time.time() - 60
    os.utime(path, (long_ago, long_ago))


def _make_queue(queue: Path) -> None:
    """What `postfix start` would make in two seconds of shell: the queue's folders with their owners and modes."""
    queue.mkdir()
    (queue / "pid").mkdir()
    for name in (*QUEUES, "private"):
        (queue / name).mkdir(mode=0o700)
        shutil.chown(queue / name, "postfix")
    for name, mode in (("maildrop", 0o730), ("public", 0o710)):
        (queue / name).mkdir()
        (queue / name).chmod(mode)
        shutil.chown(queue / name, "postfix", "postdrop")


class Postfix:
    """A running instance. `port` is its SMTP port on 127.0.0.1, `inbox` what arrived, with Postfix' lines on top."""

    def __init__(self, folder: Path, config: Path, port: int, hostname: str, address: str = "127.0.0.1") -> None:
        self.folder = folder
        self.port = port
        self.hostname = hostname
        self.address = address
        self._config = config
        self._program: peers.Program | None = None
        self.inbox = peers.Maildir(folder / "mail" / "inbox", self.log)

    def start(self, wrap: Sequence[str] = ()) -> peers.Program:
        """Start master(8) in the foreground; `wrap` goes before the command."""
        command = [*wrap, f"{SBIN}/master", "-c", str(self._config), "-d"]
        self._program = peers.Program(command, self.folder / "postfix.out")
        self._program.until(lambda: peers.listens(self.port, self.address), f"Postfix listening on port {self.port}")
        return self._program

    def stop(self) -> None:
        """master(8), as the leader of its process group, ends its children itself at SIGTERM."""
        if self._program is not None:
            self._program.stop()
            self._program = None

    def queue(self) -> str:
        """Its queue as JSON lines, "" when empty (postqueue -j)."""
        listing = subprocess.run(
            ["postqueue", "-c", str(self._config), "-j"], capture_output=True, text=True, check=False
        )
        return listing.stdout

    def set(self, name: str, value: str) -> None:
        """Change a parameter; processes that start from now on use it, running smtpd(8) ones end."""
        with (self._config / "main.cf").open("a") as main:
            main.write(f"{name} = {value}\n")
        _age(self._config / "main.cf")
        assert self._program is not None
        self._program.process.send_signal(signal.SIGHUP)

    def flush(self) -> None:
        subprocess.run(["postqueue", "-c", str(self._config), "-f"], capture_output=True, check=True)

    def log(self) -> str:
        path = self.folder / "postfix.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextlib.contextmanager
def postfix(
    *,
    relay_to: str = "",
    domain: str = "",
    hostname: str = "postfix.test",
    extra: dict[str, str] | None = None,
    address: str = "127.0.0.1",
    port: int = 0,
    has_tls: bool = False,
) -> Iterator[Postfix]:
    """A Postfix on a loopback port (0: any free one); skips where it cannot run. `has_tls`: it offers STARTTLS."""
    peers.require(f"{SBIN}/master", "postqueue")
    peers.require_root()
    with peers.folder("postfix") as folder:
        port = port or peers.free_port()
        settings = dict(extra or {})
        if has_tls:
            certificate, key = peers.pair(folder, hostname)
            settings |= {"smtpd_tls_cert_file": str(certificate), "smtpd_tls_key_file": str(key)}
            settings |= {"smtpd_tls_security_level": "may", "smtpd_tls_loglevel": "1"}
        config = write_folder(
            folder, port=port, hostname=hostname, relay_to=relay_to, domain=domain, extra=settings, address=address
        )
        instance = Postfix(folder, config, port, hostname, address)
        try:
            instance.start()
            yield instance
        finally:
            instance.stop()
