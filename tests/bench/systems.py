"""The mail servers that are compared: each accepts on a loopback port and relays everything to one sink.

Each keeps its own default durability (all of them sync before 250), its own default limits, and logs to a file.
Changed are addresses, what a relay on loopback needs, and limits that would keep it from being measured at all; each
change stands where it is made, and docs/performance.md lists them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml

from bench import accounting
from kit import exim, opensmtpd, peers, postfix
from kit.posthof import Document, Posthof, to_host

HOLDER = [sys.executable, "-S", "-E", str(Path(__file__).with_name("holder.py"))]
QUICKSTART = peers.REPOSITORY / "examples" / "quickstart"


class System(Protocol):
    """A mail server under measurement. `start` returns once it listens on `port`."""

    name: str
    port: int

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def cpu_seconds(self) -> float: ...
    def pss_bytes(self) -> int: ...


class Held:
    """The part all share: a process tree under holder.py."""

    port: int
    _program: peers.Program | None = None

    def cpu_seconds(self) -> float:
        """CPU of all its processes so far, the dead ones included."""
        assert self._program is not None
        return accounting.cpu_seconds(self._program.pid)

    def pss_bytes(self) -> int:
        assert self._program is not None
        return accounting.pss_bytes(self._program.pid)


class PosthofSystem(Held):
    """`posthof up` over the quickstart's manifests, with its ports, folders and limits changed, and a way out."""

    name = "posthof"

    def __init__(
        self,
        folder: Path,
        sink: int,
        *,
        documents: Sequence[Document] = (),
        listener_limits: dict[str, Any] | None = None,
        mta: dict[str, Any] | None = None,
    ) -> None:
        self.posthof = Posthof(folder, [])
        self.port = self.posthof.port
        ways_out = list(documents) or [to_host("out", "127.0.0.1", sink)]
        self._write(folder, ways_out, listener_limits or {}, mta or {})

    def _write(self, folder: Path, ways_out: list[Document], limits: dict[str, Any], changes: dict[str, Any]) -> None:
        """The quickstart's documents, addresses and limits replaced."""
        for path in self.posthof.manifests.iterdir():
            path.unlink()
        documents = [
            one for path in sorted(QUICKSTART.glob("*.y*ml")) for one in yaml.safe_load_all(path.read_text())
        ]
        for one in documents:
            if one and one["kind"] == "MTA":
                spec = one["spec"]
                listener = spec["listeners"][0]
                listener |= {"address": "127.0.0.1", "port": self.port, "limits": limits}
                spec["listeners"] = [listener]
                spec["http"] = {**spec.get("http", {}), "port": self.posthof.http_port}
                spec["spool"] = {**spec.get("spool", {}), "path": str(folder / "spool")}
                spec |= {"mailRoot": str(folder / "mail"), "stateDir": str(folder / "state"), **changes}
        self.posthof.write("all", *documents, *ways_out)

    def start(self) -> None:
        self._program = self.posthof.start(HOLDER, timeout=120)

    def stop(self) -> None:
        self.posthof.stop(timeout=60)


class PostfixSystem(Held):
    """Debian's Postfix: main.cf of tests/kit/postfix.py, limits as built in, maillog_file."""

    name = "postfix"

    def __init__(self, folder: Path, sink: int) -> None:
        self.port = peers.free_port()
        relay_to = f"[127.0.0.1]:{sink}"
        config = postfix.write_folder(folder, port=self.port, hostname="postfix.bench", relay_to=relay_to)
        self._postfix = postfix.Postfix(folder, config, self.port, "postfix.bench")

    def start(self) -> None:
        self._program = self._postfix.start(HOLDER)

    def stop(self) -> None:
        self._postfix.stop()


class EximSystem(Held):
    """Debian's Exim, delivering each mail as it arrives; see tests/kit/exim.py for three raised limits."""

    name = "exim"

    def __init__(self, folder: Path, sink: int) -> None:
        self.port = peers.free_port()
        self._exim = exim.Exim(folder, self.port, hostname="exim.bench", relay_to=f"127.0.0.1:{sink}")

    def start(self) -> None:
        self._program = self._exim.start(HOLDER)

    def stop(self) -> None:
        self._exim.stop()


class OpenSMTPDSystem(Held):
    """Debian's OpenSMTPD with its built-in limits."""

    name = "opensmtpd"

    def __init__(self, folder: Path, sink: int) -> None:
        self.port = peers.free_port()
        relay_to = f"127.0.0.1:{sink}"
        self._opensmtpd = opensmtpd.OpenSMTPD(folder, self.port, hostname="opensmtpd.bench", relay_to=relay_to)

    def start(self) -> None:
        self._program = self._opensmtpd.start(HOLDER)

    def stop(self) -> None:
        self._opensmtpd.stop()


SYSTEMS = {one.name: one for one in (PosthofSystem, PostfixSystem, EximSystem, OpenSMTPDSystem)}


def missing(name: str) -> str:
    """Why a system cannot be measured here; "" if it can."""
    if name == "posthof":
        return "" if any(QUICKSTART.glob("*.y*ml")) else "no quickstart to take the manifests from"
    if name == "postfix":
        return "" if peers.find(f"{postfix.SBIN}/master") else "not installed"
    if name == "exim":
        return "" if exim.is_there() else "not unpacked"
    return "" if opensmtpd.is_there() else "not unpacked, or no mount namespaces here"
