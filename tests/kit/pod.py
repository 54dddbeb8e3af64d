"""`posthof pod` as a child process, with an API server of ours and mounts in a folder: a pod without a cluster.

    with ApiServer(tmp_path) as api, Pod(tmp_path, api) as pod:
        pod.configure(pod.config(domains=("ours.test",)))
        pod.until_ready()
        pod.send("b@ours.test")

Rules
- What the operator would write is written here, with the same functions (posthof_crds.shards).
- `mount` writes what a kubelet would.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import smtplib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from kit import peers
from kit.apiserver import ApiServer
from posthof_crds import shards
from posthof_crds.engine import (
    Certificate,
    Domain,
    EngineConfig,
    HTTPSettings,
    InboundMode,
    KeyPair,
    Listener,
    ListenerRole,
    RecipientCheck,
    Rule,
    SecretRef,
    SpoolSettings,
    TLSMode,
    content_hash,
)

MTA = "edge"
KEY = "the-report-key"


class Pod:
    """One pod. `spool`: a folder it may share with others."""

    def __init__(
        self, folder: Path, api: ApiServer | None = None, *, name: str = "edge-a", spool: Path | None = None
    ):
        self.folder = folder / name
        self.folder.mkdir()
        self.api, self.name = api, name
        self.volume = spool or folder / "volume"
        self.mounts = self.folder / "etc"
        for one in ("config", "keys", "pods", "report"):
            (self.mounts / one).mkdir(parents=True)
        (self.mounts / "report" / "token").write_text(KEY)
        self.state = self.folder / "run"
        self.public, self.admin, self.smtp = peers.free_port(), peers.free_port(), peers.free_port()
        self.log = self.folder / "log"
        self.program: subprocess.Popen[bytes] | None = None
        self.wrap: Sequence[str] = ()
        self.environment: dict[str, str] = {}
        self._stamp = 0.0

    # ------------------------------------------------------------------ configurations

    def config(
        self,
        *,
        domains: Sequence[str] = ("ours.test",),
        rules: Sequence[Rule] = (),
        role: str = "Internal",
        tls: bool = False,
        **more: Any,
    ) -> EngineConfig:
        """Maildirs for every address of `domains`; `tls`: STARTTLS with the certificate `edge`."""
        listener = Listener(
            name="in",
            role=ListenerRole(role),
            host="127.0.0.1",
            port=self.smtp,
            tls=TLSMode.STARTTLS if tls else TLSMode.OFF,
            certificates=("edge",) if tls else (),
        )
        secret = f"{'mail'}/edge-tls"
        pair = KeyPair(
            cert_secret=SecretRef(name=secret, key="tls.crt"), key_secret=SecretRef(name=secret, key="tls.key")
        )
        return EngineConfig(
            name=MTA,
            hostname="mx.edge.test",
            listeners=(listener,),
            spool=SpoolSettings(path=str(self.volume / "spool"), reserve_bytes=1024 * 1024),
            mail_root=str(self.volume / "mail"),
            state_dir=str(self.state),
            domains={
                name: Domain(name=f"mail/{name}", domain=name, mode=InboundMode.MAILDIR, check=RecipientCheck.ANY)
                for name in domains
            },
            rules=tuple(rules),
            certificates={"edge": Certificate(name="edge", dns_names=("mx.edge.test",), pair=pair)} if tls else {},
            http=HTTPSettings(host="127.0.0.1", port=self.admin),
            **{"workers": 2, **more},
        )

    def stamped(self, content: bytes, stamp: float = 0.0) -> bytes:
        self._stamp = stamp or self._stamp + 1.0
        return shards.stamped(content, self._stamp)

    def configure(self, config: EngineConfig, *, keys: Mapping[str, bytes] | None = None, stamp: float = 0.0) -> str:
        """What the operator writes; the revision."""
        assert self.api is not None
        if keys is not None:
            self.put_keys(keys)
        for n, shard in reversed(list(enumerate(shards.config_shards(config)))):
            self.api.put("configmaps", f"{MTA}-config-{n}", {"config": self.stamped(shard, stamp)})
        return content_hash(config)

    def put_keys(self, keys: Mapping[str, bytes]) -> None:
        assert self.api is not None
        for n, shard in enumerate(shards.key_shards(keys)):
            self.api.put("secrets", f"{MTA}-keys-{n}", {"keys": self.stamped(shard)})

    def put_pods(self, pods: Mapping[str, Sequence[str]]) -> None:
        assert self.api is not None
        self.api.put("configmaps", f"{MTA}-pods", {"pods": self.stamped(shards.pods_shard(pods))})

    def mount(self, config: EngineConfig, *, stamp: float = 0.0, keys: Mapping[str, bytes] | None = None) -> str:
        """What a kubelet would have written."""
        for n, shard in enumerate(shards.config_shards(config)):
            _write(self.mounts / "config" / str(n), self.stamped(shard, stamp))
        for n, shard in enumerate(shards.key_shards(keys or {})):
            _write(self.mounts / "keys" / str(n), self.stamped(shard, stamp))
        return content_hash(config)

    # ------------------------------------------------------------------ life

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment: no HOME, no user."""
        return {
            "PATH": os.environ["PATH"],
            "POSTHOF_MTA": MTA,
            "POSTHOF_NAMESPACE": "mail",
            "POSTHOF_POD": self.name,
            "POSTHOF_NODE": "node-a",
            "POSTHOF_PUBLIC": f"127.0.0.1:{self.public}",
            "POSTHOF_MOUNTS": str(self.mounts),
            "POSTHOF_REPORT_KEY": str(self.mounts / "report" / "token"),
            **(self.api.environment if self.api is not None else {}),
            **self.environment,
        }

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [*self.wrap, str(Path(sys.executable).with_name("posthof")), "pod"]
            self.program = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.variables, cwd="/"
            )

    def signal(self, number: int = signal.SIGTERM) -> None:
        assert self.program is not None
        self.program.send_signal(number)

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit status."""
        assert self.program is not None
        return self.program.wait(timeout)

    def kill(self) -> None:
        """As the power goes: the process, and its workers with it."""
        if self.program is None or self.program.poll() is not None:
            return
        children = descendants(self.program.pid)
        self.program.kill()
        self.program.wait(10)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # ------------------------------------------------------------------ looking

    def get(self, path: str, key: str = "", port: int = 0) -> tuple[int, Any]:
        """Status and JSON (or text) of a GET on the public port; (0, "") while nobody answers."""
        request = urllib.request.Request(f"http://127.0.0.1:{port or self.public}{path}")
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                status, body = reply.status, reply.read().decode()
        except urllib.error.HTTPError as refusal:
            status, body = refusal.code, refusal.read().decode()
        except OSError:
            return 0, ""
        return status, json.loads(body) if body.startswith(("{", "[")) else body

    def report(self) -> Any:
        status, told = self.get("/report", KEY)
        return told if status == 200 else {}

    def until(self, condition: Any, what: str, timeout: float = 60.0) -> Any:
        try:
            return peers.wait_for(condition, what, timeout=timeout)
        except peers.NotReady as error:
            tail = self.log.read_bytes()[-3000:].decode("utf-8", "replace") if self.log.exists() else ""
            raise AssertionError(f"{error}\n{self.get('/readyz')}\n{tail}") from None

    def until_ready(self) -> None:
        self.until(lambda: self.get("/readyz")[0] == 200, "the pod ready")

    def until_running(self, revision: str) -> float:
        """Seconds until all workers run it."""
        begun = time.monotonic()
        self.until(lambda: self.report().get("revision") == revision, f"revision {revision}")
        return time.monotonic() - begun

    def events(self, event: str = "") -> list[dict[str, Any]]:
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                one = json.loads(line)
                if not event or one.get("event") == event:
                    found.append(one)
        return found

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`posthof ARGUMENTS` as `kubectl exec` would run it."""
        environment = {**self.variables, "POSTHOF_ADMIN": f"http://127.0.0.1:{self.admin}"}
        environment["POSTHOF_STATE"] = str(self.state)
        command = [str(Path(sys.executable).with_name("posthof")), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd="/", timeout=60, check=False
        )

    # ------------------------------------------------------------------ mail

    def session(self) -> smtplib.SMTP:
        session = smtplib.SMTP("127.0.0.1", self.smtp, local_hostname="client.test", timeout=60)
        session.ehlo()
        return session

    def send(
        self, recipient: str, sender: str = "a@client.test", content: bytes = b"Subject: x\r\n\r\nx\r\n"
    ) -> None:
        with self.session() as session:
            session.sendmail(sender, [recipient], content)

    def mails(self, domain: str = "ours.test") -> int:
        """Mails in the Maildirs of a domain."""
        return len(list((self.volume / "mail" / domain).glob("*/new/*")))


@contextlib.contextmanager
def two_pods(folder: Path) -> Iterator[list[Pod]]:
    """`edge-a` and `edge-b` on one volume. Each has an API server of its own, for their ports and so configs differ;
    they have the Leases in common."""
    volume = folder / "volume"
    with contextlib.ExitStack() as stack:
        pods: list[Pod] = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            api = stack.enter_context(ApiServer(folder / name))
            if pods and pods[0].api is not None:
                api.leases = pods[0].api.leases
            pods.append(stack.enter_context(Pod(folder / name, api, name=f"edge-{name}", spool=volume)))
        yield pods


def replaced(config: EngineConfig, **fields: Any) -> EngineConfig:
    return msgspec.structs.replace(config, **fields)


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.rename(path)


def descendants(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [each for one in map(int, found) for each in (one, *descendants(one))]
