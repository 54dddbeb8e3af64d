"""What comes before the first worker: everything that needs root or may fail, in one place, all problems at once.

In this order: ports bound, folders made for `user`, root left, folders proven writable, state folder locked, the
spool's volume tried out, pairs of the certificates made or read and proven. After `drop` there is no way back.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from posthof_crds.engine import SUBMISSION, EngineConfig, HTTPSettings, TLSMode
from posthof_pod.admin import certificates, privileges
from posthof_pod.admin.crew import Keys
from posthof_pod.admin.keyring import KeyRing
from posthof_pod.admin.logins import Logins
from posthof_pod.admin.orders import Orders
from posthof_pod.admin.sockets import BindFailed, Ports, has_ipv6
from posthof_pod.config import egress
from posthof_pod.resolve.own import is_local_address
from posthof_pod.spool.probe import Findings, probe


class CannotStart(Exception):
    """`problems`: one text each, with what to do."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class VolumeRefused(CannotStart):
    """The spool's volume breaks a promise that mail rests on."""


class Prepared:
    """Everything that needs privileges or may fail before there is a loop.

    `unlimited`: see `cpus`.
    `has_public`: whether to serve `public_http` here; in a pod it is served before there is a configuration.
    `lenient`: a certificate that cannot be served yet is left out and told of in `complaints`: in a cluster it may
    come later, and mail must not wait for it. On one machine it is a mistake to mend before the start.
    """

    def __init__(
        self,
        config: EngineConfig,
        secrets: dict[str, bytes],
        workers: int = 0,
        *,
        lenient: bool = False,
        has_public: bool = True,
        unlimited: int = 0,
    ) -> None:
        self.config = config
        self.workers = workers or config.workers or cpus(unlimited)
        self.ports = Ports(self.workers)
        self.http: list[socket.socket] = []
        self.public: list[socket.socket] = []
        self.policies: list[socket.socket] = []
        self.challenges: dict[int, list[socket.socket]] = {}
        self.lock = -1
        self.volume: Findings
        self.keys = Keys(secrets, {})
        self.logins = Logins(Path(config.state_dir))
        self.keyring = KeyRing(Path(config.state_dir))
        self.orders = Orders(Path(config.state_dir))
        self.complaints: list[str] = []
        self.lenient, self._has_public = lenient, has_public
        try:
            self._prepare(secrets)
        except BaseException:
            self.close()
            raise

    def _prepare(self, secrets: dict[str, bytes]) -> None:
        config = self.config
        refuse_roles(config)
        refuse_egress(config)
        try:
            owner = privileges.account(config.user)
            self._bind()
            folders = [Path(config.state_dir), Path(config.spool.path), Path(config.mail_root)]
            privileges.make_folders(folders, owner)
            if owner is not None:
                privileges.drop(owner)
            if problems := privileges.unusable(folders):
                raise CannotStart(problems)
            self.lock = lock(Path(config.state_dir))
            self.volume = probed(config.spool.path)
            pairs, self.complaints = certificates.usable(config, secrets, {})
            if self.complaints and not self.lenient:
                raise certificates.Unusable(self.complaints)
            self.orders.prepare(config)
            self.keys = Keys(self.keyring.complete(config, self.logins.complete(config, secrets)), pairs)
        except (BindFailed, privileges.CannotDrop) as error:
            raise CannotStart([str(error)]) from error
        except certificates.Unusable as error:
            raise CannotStart(error.problems) from error
        except OSError as error:
            raise CannotStart([f"{error.filename or 'start'}: {error.strerror}"]) from error

    def _bind(self) -> None:
        problems = []
        try:
            self.ports.change(self.config)
        except BindFailed as error:
            problems.append(str(error))
        try:
            self.http = [bind_http(self.config.http.host, self.config.http.port)]
            if self.config.public_http is not None and self._has_public:
                self.public = bind_public(self.config.public_http)
            if (server := self.config.policy_server) is not None:
                self.policies = bind_public(HTTPSettings(host=server.host, port=server.port))
            if not self.lenient:  # a pod's ports need no privileges, and its configuration may come later
                for port in http01_ports(self.config):
                    self.challenges[port] = bind_public(HTTPSettings(host="", port=port))
        except BindFailed as error:
            problems.append(str(error))
        if problems:
            raise CannotStart(problems)

    def close(self) -> None:
        self.ports.close()
        challenges = [one for some in self.challenges.values() for one in some]
        for one in (*self.http, *self.public, *self.policies, *challenges):
            one.close()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def probed(path: str) -> Findings:
    """What the spool's volume does. Raises VolumeRefused, OSError."""
    found = probe(path)
    if found.broken:
        raise VolumeRefused([f"{path} cannot hold a spool ({found.file_system}): {one}" for one in found.broken])
    return found


def refuse_egress(config: EngineConfig) -> None:
    """CannotStart where sessions cannot leave with an address the configuration names."""
    if problems := egress.unusable(config, is_local_address):
        raise CannotStart(problems)


def refuse_roles(config: EngineConfig) -> None:
    """Nobody logs in in the clear."""
    wrong = [one for one in config.listeners if one.role in SUBMISSION and one.tls is TLSMode.OFF]
    if wrong:
        raise CannotStart(
            [f"listener {one.name}: role {one.role} needs TLS: nobody logs in in the clear" for one in wrong]
        )


def http01_ports(config: EngineConfig, shift: Callable[[int], int] = int) -> list[int]:
    """The ports where an ACME server's questions are answered; `shift` gives the one to bind for the one asked."""
    return sorted({shift(one.http01_port) for one in config.certificates.values() if one.http01_port})


def cpus(unlimited: int = 0, cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many workers a house has that is told nothing: as many as the CPUs it may use, in a container its limit.
    `unlimited`: at most so many where there is no limit; 0: all."""
    count = len(os.sched_getaffinity(0))
    try:
        quota, period = cpu_max.read_text("ascii").split()
        return max(1, min(count, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no cgroup of version 2, or no limit ("max")
        return min(count, unlimited or count)


def bind_public(settings: HTTPSettings) -> list[socket.socket]:
    """The sockets for health, metrics and reports; "" is every address, of both families where there are two."""
    if settings.host:
        return [bind_http(settings.host, settings.port)]
    bound = [bind_http("0.0.0.0", settings.port)]
    if has_ipv6():
        bound.append(bind_http("::", bound[0].getsockname()[1]))
    return bound


def bind_http(host: str, port: int) -> socket.socket:
    """The socket of the admin API; port 0 is the kernel's choice. Raises BindFailed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind((host.strip("[]"), port))
        found.listen(64)
        found.setblocking(False)
    except OSError as error:
        found.close()
        raise BindFailed(f"HTTP cannot be served on {host or '*'}:{port}: {error.strerror}") from error
    return found


def lock(state_dir: Path) -> int:
    """The lock that makes this supervisor the only one with this state folder. Raises CannotStart, OSError."""
    path = state_dir / "supervisor.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise CannotStart([f"{state_dir} is in use: another posthof runs with it (pid {pid or 'unknown'})"]) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
