"""The listening sockets: bound by the supervisor, one per worker and address, listened on by the workers.

Why so: ports below 1024 are bound before the privileges go; a worker that dies takes no port with it; the kernel
spreads connections over the workers (SO_REUSEPORT).

Rules of this file
- `Ports` changes in two steps: `change` binds what is new and takes what is gone out of `of`; then `finish` closes
  it, or `undo` gives it back.
- The supervisor binds and keeps a copy; the worker calls listen(). A copy keeps the socket listening after the
  worker has gone: connections wait in its queue for the next one. `quieten` ends that (connections are refused).
- Only a port that was asked for by its number survives `quieten`: the kernel's choice is bound again by number.
- SO_REUSEPORT would let a second Posthof share our ports without a word, so an address is first bound without it.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from typing import NamedTuple

from posthof_crds.engine import EngineConfig, Listener
from posthof_pod.admin.channel import SocketInfo


class BindFailed(Exception):
    """The text names listener, address, what is wrong and what to do."""


class Address(NamedTuple):
    """What a listener means once names and ports are known."""

    listener: str
    family: int
    host: str
    port: int

    @property
    def info(self) -> SocketInfo:
        return SocketInfo(self.listener, self.host, self.port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def addresses(listener: Listener) -> list[Address]:
    """The addresses of a listener: all families for "" and names with several. Raises BindFailed."""
    if not listener.host:
        found = [Address(listener.name, socket.AF_INET, "0.0.0.0", listener.port)]
        if has_ipv6():
            found.append(Address(listener.name, socket.AF_INET6, "::", listener.port))
        return found
    host = listener.host.strip("[]")
    try:
        answers = socket.getaddrinfo(host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise BindFailed(
            f"listener {listener.name}: {listener.host!r} is no address of this machine: {error}"
        ) from error
    unique = dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in answers)
    return [Address(listener.name, family, host, listener.port) for family, host in unique]


def bind(address: Address, copies: int) -> tuple[Address, list[socket.socket]]:
    """`copies` sockets on one address, not listening yet; port 0 becomes the kernel's choice. Raises BindFailed."""
    bound: list[socket.socket] = []
    try:
        with _socket(address) as probe:
            probe.bind((address.host, address.port))
            address = address._replace(port=probe.getsockname()[1])
        for _ in range(copies):
            one = _socket(address)
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind((address.host, address.port))
    except OSError as error:
        for one in bound:
            one.close()
        raise BindFailed(_why(address, error)) from error
    return address, bound


def _socket(address: Address) -> socket.socket:
    one = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return one


def has_ipv6() -> bool:
    """Whether this machine has the second family at all."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _why(address: Address, error: OSError) -> str:
    what = f"listener {address.listener}: {address}"
    if error.errno == errno.EADDRINUSE:
        return f"{what} is in use: another mail server, or another posthof. `ss -ltnp` shows which"
    if error.errno == errno.EACCES:
        return (
            f"{what} needs a privilege that only a start as root has (with `user` in the MTA it is dropped then), "
            "or CAP_NET_BIND_SERVICE"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{what} is no address of this machine"
    return f"{what}: {error.strerror}"


def quieten(bound: socket.socket) -> None:
    """Stop listening, stay bound: connections are refused, those not accepted are reset; listen() wakes it again."""
    with contextlib.suppress(OSError):  # ENOTCONN: it did not listen
        bound.shutdown(socket.SHUT_RD)


class Change(NamedTuple):
    """What `Ports.change` did. Addresses as asked for."""

    added: list[Address]
    removed: dict[Address, Bound]


class Bound(NamedTuple):
    """An address as it is (port 0 resolved), and its sockets, one for each worker."""

    address: Address
    sockets: list[socket.socket]


class Ports:
    """All listening addresses of the house; `copies` sockets each."""

    def __init__(self, copies: int) -> None:
        self.copies = copies
        self._bound: dict[Address, Bound] = {}  # by the address as asked for

    @property
    def addresses(self) -> list[Address]:
        """Where mail is taken."""
        return [one.address for one in self._bound.values()]

    def of(self, number: int) -> dict[SocketInfo, socket.socket]:
        """The sockets of worker `number` (from 1)."""
        return {one.address.info: one.sockets[number - 1] for one in self._bound.values()}

    def change(self, config: EngineConfig) -> Change:
        """Bind what `config` wants and is not bound; give up what it does not want. Raises BindFailed: all of it."""
        wanted, problems = [], []
        for listener in config.listeners:
            try:
                wanted += addresses(listener)
            except BindFailed as error:
                problems.append(str(error))
        change = Change([], {asked: one for asked, one in self._bound.items() if asked not in wanted})
        for address in wanted:
            if address in self._bound:
                continue
            try:
                self._bound[address] = self._inherited(address, change) or Bound(*bind(address, self.copies))
                change.added.append(address)
            except BindFailed as error:
                problems.append(str(error))
        for asked in change.removed:
            del self._bound[asked]
        if problems:
            self.undo(change)
            raise BindFailed("\n".join(problems))
        return change

    def _inherited(self, wanted: Address, change: Change) -> Bound | None:
        """The sockets of a listener that goes away on the same address: it was only renamed."""
        for asked, old in change.removed.items():
            if asked[1:] == wanted[1:]:
                return Bound(old.address._replace(listener=wanted.listener), old.sockets)
        return None

    def finish(self, change: Change) -> None:
        """Everybody agreed: what was removed is closed."""
        self._close(list(change.removed.values()))

    def undo(self, change: Change) -> None:
        """As if nothing had been asked."""
        added = [self._bound.pop(asked) for asked in change.added]
        self._bound |= change.removed
        self._close(added)

    def quieten(self) -> None:
        """Nobody is let in any more."""
        for one in self._bound.values():
            for bound in one.sockets:
                quieten(bound)

    def close(self) -> None:
        gone, self._bound = list(self._bound.values()), {}
        self._close(gone)

    def _close(self, gone: list[Bound]) -> None:
        used = {id(one.sockets) for one in self._bound.values()}
        for bound in gone:
            if id(bound.sockets) not in used:  # else a listener of another name has them now
                for one in bound.sockets:
                    quieten(one)
                    one.close()
