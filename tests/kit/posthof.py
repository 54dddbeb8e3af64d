"""Posthof as a black box: `posthof up -f DIR` as a child process, with everything it owns below one folder.

    with posthof(mail_domain("ours.test", "Maildir", recipients={"any": True})) as mta:
        mta.send("a@client.test", "b@ours.test", b"Subject: hi\\r\\n\\r\\nhello\\r\\n")
        mta.inbox("ours.test", "b").wait_for(1)

Rules
- Only what a user has is used: manifests, SMTP, HTTP, the command line, the log, the Maildirs, signals.
- Manifests are plain data here (camelCase, as in files), so that a wrong model cannot hide in the test.
- The log is JSON lines in `log`; `events()` reads it from the start each time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import smtplib
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kit import peers

Document = dict[str, Any]
Event = dict[str, Any]

API = "posthof.dev/v1alpha1"
ANYONE = {"recipients": {"any": True}}


def document(kind: str, name: str, spec: Mapping[str, Any]) -> Document:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


def mail_domain(domain: str, mode: str, **inbound: Any) -> Document:
    """A MailDomain; `inbound` in camelCase: `recipients={"list": [...]}`, `nextHops=[{"host": ...}]`."""
    return document("MailDomain", domain.replace(".", "-"), {"domain": domain, "inbound": {"mode": mode, **inbound}})


def relay_policy(name: str, action: Mapping[str, Any], **spec: Any) -> Document:
    """A RelayPolicy for what comes from loopback, unless `match` says otherwise."""
    return document("RelayPolicy", name, {"match": {"clients": ["127.0.0.0/8"]}, "action": dict(action), **spec})


def to_host(name: str, host: str, port: int, **spec: Any) -> Document:
    """A RelayPolicy that sends all mail from loopback to one smarthost."""
    return relay_policy(name, {"type": "Smarthost", "nextHops": [{"host": host, "port": port}]}, **spec)


def to_domain(domain: str, port: int, **spec: Any) -> Document:
    """A RelayPolicy that sends mail for one domain from loopback to a server on a loopback port."""
    match = {"clients": ["127.0.0.0/8"], "recipients": [f"*@{domain}"]}
    hops = [{"host": "127.0.0.1", "port": port}]
    return relay_policy(domain.replace(".", "-"), {"type": "Smarthost", "nextHops": hops}, match=match, **spec)


def direct(name: str = "direct", **spec: Any) -> Document:
    """A RelayPolicy that sends all mail from loopback to the recipients' MX hosts."""
    return relay_policy(name, {"type": "Direct"}, **spec)


class _Plain(yaml.SafeDumper):
    """Writes a value out each time it stands in a document: manifests have no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class Posthof:
    """One supervisor with its workers. On 127.0.0.1 `port` takes SMTP, `http_port` has health, metrics, the API."""

    def __init__(self, folder: Path, documents: Sequence[Document], *, mta: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.manifests = folder / "manifests"
        self.log = folder / "log"
        self.port = peers.free_port()
        self.http_port = peers.free_port()
        self.program: peers.Program | None = None
        self._files = 0
        self.manifests.mkdir()
        self.write("mta", self.mta(mta or {}))
        for one in documents:
            self.write(f"{one['kind'].lower()}-{one['metadata']['name']}", one)

    def mta(self, spec: Mapping[str, Any]) -> Document:
        """The MTA's manifest: short retries and two workers, unless `spec` says otherwise."""
        listener = {"name": "mx", "role": "Internal", "address": "127.0.0.1", "port": self.port}
        return document(
            "MTA",
            "test",
            {
                "hostname": "posthof.test",
                "listeners": [listener],
                "workers": 2,
                "spool": {"path": str(self.folder / "spool"), "reserve": "1Mi"},
                "mailRoot": str(self.folder / "mail"),
                "stateDir": str(self.folder / "state"),
                "http": {"port": self.http_port},
                "retry": {"intervals": ["1s"], "jitter": 0},
                **spec,
            },
        )

    def write(self, name: str, *documents: Document) -> Path:
        """Write a manifest file as an editor does: whole, by rename."""
        path = self.manifests / f"{name}.yaml"
        fresh = self.folder / f".{name}.new"
        fresh.write_text(yaml.dump_all(documents, Dumper=_Plain, sort_keys=False))
        fresh.rename(path)
        return path

    # ------------------------------------------------------------------ life

    def start(self, wrap: Sequence[str] = (), *, timeout: float = 60.0) -> peers.Program:
        """Run `posthof up` and wait until it is ready; `wrap` goes before the command."""
        self.program = peers.Program([*wrap, *command(), "up", "-f", self.manifests], self.log, cwd=self.folder)
        self.program.until(self.is_ready, "Posthof ready", timeout=timeout)
        return self.program

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM, and its exit status."""
        if self.program is None:
            return 0
        status = self.program.stop(timeout)
        self.program = None
        return status

    def kill(self) -> None:
        """kill -9 of the supervisor and of every worker at once: the power button, for processes."""
        assert self.program is not None
        for pid in (self.program.pid, *self.workers()):
            os.kill(pid, signal.SIGKILL)
        self.program.process.wait(10)
        self.program = None

    def reload(self) -> None:
        """SIGHUP: read the manifests now."""
        assert self.program is not None
        self.program.process.send_signal(signal.SIGHUP)

    def workers(self) -> list[int]:
        """Process ids of the workers, oldest first."""
        assert self.program is not None
        found = subprocess.run(
            ["pgrep", "-P", str(self.program.pid), "-f", "posthof_pod.worker"],
            capture_output=True,
            text=True,
            check=False,
        )
        return sorted(int(pid) for pid in found.stdout.split())

    def kill_worker(self, which: int = 0) -> int:
        """kill -9 one worker and return its process id."""
        pid = self.workers()[which]
        os.kill(pid, signal.SIGKILL)
        return pid

    # ------------------------------------------------------------------ looking

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of an HTTP GET; (0, b"") while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read()
        except OSError:
            return 0, b""

    def is_ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def metrics(self) -> dict[str, float]:
        """Samples by name with labels: {'posthof_queue_messages{state="ready"}': 3.0}."""
        lines = self.get("/metrics")[1].decode().splitlines()
        samples = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
        return {name: float(value) for name, value in samples}

    def metric(self, name: str) -> float:
        """The sum of a metric's samples over its labels; 0.0 where it has none."""
        return sum(value for key, value in self.metrics().items() if key.partition("{")[0] == name)

    def waiting(self) -> int:
        """Messages that are not done: by the spool's count, or the schedule's. -1 while nobody tells."""
        told = self.metrics()
        for name in ("posthof_spool_messages", "posthof_queue_messages"):
            samples = [value for key, value in told.items() if key.partition("{")[0] == name]
            if samples:
                return int(sum(samples))
        return -1

    def wait_until_empty(self, timeout: float = 60.0) -> None:
        peers.wait_for(lambda: self.waiting() == 0, "the queue empty", timeout=timeout)

    def events(self, event: str = "", **fields: Any) -> list[Event]:
        """Log lines so far, of one event, with these values; other lines (a traceback) are left out."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                one = json.loads(line)
                if (not event or one.get("event") == event) and all(one.get(k) == v for k, v in fields.items()):
                    found.append(one)
        return found

    def wait_for_event(self, event: str, *, timeout: float = 30.0, **fields: Any) -> Event:
        return peers.wait_for(lambda: self.events(event, **fields), f"event {event} {fields}", timeout=timeout)[-1]

    def wait_for_events(self, event: str, count: int, *, timeout: float = 30.0) -> list[Event]:
        """All lines of that event, once there are `count`."""
        what = f"{count} events {event}"
        peers.wait_for(lambda: len(self.events(event)) >= count, what, timeout=timeout)
        return self.events(event)

    def run(self, *arguments: str, check: bool = True) -> str:
        """`posthof ARGUMENTS` beside the running one, and what it prints."""
        result = subprocess.run(
            [*command(), *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=60,
            check=False,
            env={
                **os.environ,
                "POSTHOF_ADMIN": f"http://127.0.0.1:{self.http_port}",
                "POSTHOF_STATE": str(self.folder / "state"),
            },
        )
        if check and result.returncode:
            raise AssertionError(
                f"posthof {' '.join(arguments)}: {result.returncode}\n{result.stdout}{result.stderr}"
            )
        return result.stdout

    def queue(self) -> list[dict[str, Any]]:
        """The messages of `posthof queue list --json`."""
        page: dict[str, Any] = json.loads(self.run("queue", "list", "--json"))
        return list(page["items"])

    # ------------------------------------------------------------------ mail

    def connect(self) -> smtplib.SMTP:
        """A session that has said EHLO."""
        session = smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=60)
        session.ehlo()
        return session

    def send(self, sender: str, recipient: str, content: bytes, *, options: Sequence[str] = ()) -> None:
        """One mail by smtplib; raises what smtplib raises for a refusal."""
        with self.connect() as session:
            session.sendmail(sender, [recipient], content, mail_options=tuple(options))

    def inbox(self, domain: str, local: str) -> peers.Maildir:
        """The Maildir of one address (mode Maildir)."""
        return peers.Maildir(self.folder / "mail" / domain / urllib.parse.quote(local), self.tail)

    def tail(self) -> str:
        """The end of the log, for a failure's message."""
        return self.log.read_bytes()[-4000:].decode("utf-8", "replace")


def command() -> list[str]:
    """The command a user types, from the environment the tests run in."""
    return [str(Path(sys.executable).with_name("posthof"))]


@contextlib.contextmanager
def posthof(*documents: Document, mta: Mapping[str, Any] | None = None, start: bool = True) -> Iterator[Posthof]:
    """A running Posthof with these manifests; `mta` adds to or replaces parts of the MTA's spec.

    `start=False` leaves the start to the test, after it has changed manifests.
    """
    with peers.folder("posthof") as folder:
        instance = Posthof(folder, documents, mta=mta)
        try:
            if start:
                instance.start()
            yield instance
        finally:
            instance.stop()


def certificate(name: str, *dns_names: str) -> Document:
    """A self-signed TLSCert; the MTA's listener names it in tls.certRefs."""
    return document("TLSCert", name, {"dnsNames": list(dns_names), "issuer": {"selfSigned": {}}})
