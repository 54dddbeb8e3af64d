"""Rounds of faults on a volume that several mounts share, and a ledger on both sides of it.

Workers are real processes (tests/shared_fs/worker.py), two on each mount. A round is one fault under load, what heals
it, and then rest until every mail that got its 250 is delivered. Sent, accepted and delivered are counted from what
the workers said; duplicated are deliveries of one transaction beyond the first; metered is what the survivors of a
crash read from the spool, and what workers said of themselves before they ended.

Rules
- Lost is what was accepted and is not delivered when nothing is left to wait for. It must be 0.
- Duplicated must not be more than metered, added up over the rounds.
- A transaction without a reply, or with a 451, is nobody's promise: it may be delivered or not, and a crash may leave
  a record of it whose content is not there.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from posthof_pod.spool import Volume

from .juicefs import Shared
from .ledger import read_spool

WORKER = Path(__file__).resolve().parents[1] / "shared_fs" / "worker.py"
LIMIT = 90.0  # seconds until a condition has failed
GOES_ON = 30  # mails accepted: it works
FENCED, NO_VOLUME = 3, 4  # exit statuses of a worker that was judged dead, and of one that could not start


class Failed(AssertionError):
    """A condition was not reached, or a promise was broken."""


class Row(NamedTuple):
    """One round."""

    fault: str
    sent: int
    accepted: int
    delivered: int
    duplicated: int
    metered: int
    lost: int
    took: float  # seconds from the fault until others had the lanes, 0 where nobody lost any
    seconds: float


class Counts:
    """What all workers said, added up. Lines come from one thread per worker."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sent: set[str] = set()
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self.delivered: Counter[str] = Counter()
        self.metered: dict[str, int] = {}
        self.promised: set[str] = set()  # ids of what was accepted
        self.bad: list[tuple[str, str]] = []
        self.events: list[tuple[float, str, str, dict[str, Any]]] = []

    def add(self, player: str, kind: str, *fields: Any) -> None:
        with self.lock:
            match kind:
                case "send":
                    self.sent.add(fields[0])
                case "ack":
                    self.accepted.add(fields[0])
                    self.promised.add(fields[1])
                case "refuse":
                    self.refused.add(fields[0])
                case "dot":
                    self.delivered[fields[0]] += 1
                case "metered":
                    self.metered[player] = fields[0]
                case "bad":
                    self.bad.append((fields[0], f"{player}: {fields[1]}"))
                case "event":
                    self.events.append((time.monotonic(), player, fields[0], fields[1]))

    def missing(self) -> set[str]:
        with self.lock:
            return {label for label in self.accepted if not self.delivered[label]}

    def totals(self) -> tuple[int, int, int, int, int]:
        """sent, accepted, delivered, duplicated, metered"""
        with self.lock:
            delivered = [times for times in self.delivered.values() if times]
            again = sum(delivered) - len(delivered)
            return len(self.sent), len(self.accepted), len(delivered), again, sum(self.metered.values())


class Player:
    """A worker process on one mount."""

    def __init__(self, fleet: Fleet, name: str, mount: int) -> None:
        self.fleet, self.name, self.mount = fleet, name, mount
        self.worker = ""  # its id on the volume
        self.accepted = self.refused = 0
        self.expected = True  # an end that nobody brought about is a failure
        folder = fleet.shared.path(mount) / "spool"
        self.errors = (fleet.shared.folder / f"{name}.errors").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), name, *fleet.dead],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                kind, *fields = json.loads(line)
            except ValueError:
                continue  # the last line of one that was killed
            if kind == "born":
                self.worker = fields[0]
            self.accepted += kind == "ack"
            self.refused += kind == "refuse"
            self.fleet.counts.add(self.name, kind, *fields)

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def tell(self, *order: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            return  # it has ended: who waits for it will see

    def ended(self) -> int:
        """Wait for its end, and for the last line it said."""
        code = self.process.wait(LIMIT)
        self._thread.join(LIMIT)
        self.errors.close()
        return code

    def said(self) -> str:
        return Path(self.errors.name).read_text(errors="replace")[-2000:]


class Fleet:
    """Players on all mounts, kept at their number."""

    def __init__(self, shared: Shared, *, mounts: int = 2, each: int = 2, seed: int = 0) -> None:
        self.shared = shared
        self.chance = random.Random(seed)
        self.counts = Counts()
        self.dead: list[str] = []
        self.players: list[Player] = []
        self._born = 0
        self.wanted = [mount for mount in range(mounts) for _ in range(each)]
        self.unusable: set[int] = set()  # mounts nobody may be started on

    def __enter__(self) -> Fleet:
        self.keep()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        for player in self.players:
            if player.is_running:
                player.process.kill()
                player.process.send_signal(signal.SIGCONT)
        for player in self.players:
            player.ended()

    # -- players ----------------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """Note who has ended, tell the others, and start as many as are missing."""
        for player in [one for one in self.players if not one.is_running]:
            code = player.ended()
            if code not in (0, FENCED, NO_VOLUME, -signal.SIGKILL):
                raise Failed(f"{player.name} ended with {code}: {player.said()}")
            self.players.remove(player)
            self.tell_dead(player, "proven")
        for mount in set(self.wanted) - self.unusable:
            for _ in range(self.wanted.count(mount) - len(self.on(mount))):
                self._born += 1
                self.players.append(Player(self, f"p{self._born}", mount))

    def on(self, mount: int) -> list[Player]:
        return [player for player in self.players if player.mount == mount]

    def tell_dead(self, player: Player, how: str) -> None:
        if not player.worker:
            return  # it never came to have a lane
        if how == "proven" and player.worker not in self.dead:
            self.dead.append(player.worker)
        for other in self.players:
            if other is not player and other.is_running:
                other.tell("dead", player.worker, how)

    def pick(self) -> Player:
        return self.chance.choice([player for player in self.players if player.worker])

    # -- waiting ----------------------------------------------------------------------------------------------------

    def until(self, what: str, condition: Callable[[], object], seconds: float = LIMIT) -> None:
        ends = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > ends:
                said = {one.name: (one.is_running, one.worker, one.accepted, one.refused) for one in self.players}
                raise Failed(f"waited {seconds:.0f} s until {what}: {said}, last {self.counts.events[-5:]}")
            self.keep()
            time.sleep(0.01)

    def goes_on(self, *players: Player, mails: int = GOES_ON) -> None:
        """All of these (or everyone there is) accept so many more mails."""
        self.until("all workers are started", lambda: all(one.worker for one in self.players))
        before = {one: one.accepted for one in players or self.players}
        self.until(
            f"{mails} more mails are accepted",
            lambda: all(one.accepted >= count + mails or not one.is_running for one, count in before.items()),
        )

    def fenced(self, *players: Player) -> Callable[[], bool]:
        """Whether somebody has shut the latches of these."""
        workers = {one.worker for one in players}

        def told() -> bool:
            seen = {fields.get("worker") for _, _, name, fields in self.counts.events if name == "fenced_other"}
            return workers <= seen

        return told

    def gone(self, *players: Player) -> None:
        self.until("they have ended", lambda: not any(one.is_running or one in self.players for one in players))

    # -- rounds -----------------------------------------------------------------------------------------------------

    def round(self, fault: Callable[[Fleet], float]) -> Row:
        """One fault under load, then rest until all is delivered."""
        before, began = self.counts.totals(), time.monotonic()
        self.goes_on(mails=5)
        took = fault(self)
        self.goes_on(mails=5)
        lost = self.rest()
        sent, accepted, delivered, again, metered = (
            now - then for now, then in zip(self.counts.totals(), before, strict=True)
        )
        name = fault.__name__
        row = Row(name, sent, accepted, delivered, again, metered, lost, took, time.monotonic() - began)
        for player in self.players:
            player.tell("work")
        return row

    def rest(self, seconds: float = LIMIT) -> int:
        """No new mail until all that was accepted is delivered. What is not by then is lost."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for player in self.players:
                player.tell("rest")
            self.keep()
            if not self.counts.missing():
                break
            time.sleep(0.05)
        return len(self.counts.missing())

    def end(self) -> None:
        """All stop cleanly; afterwards nothing that was promised may be left on the volume."""
        self.rest()
        self.unusable = set(self.wanted)
        for player in self.players:
            player.tell("end")
        self.gone(*self.players)
        left = read_spool(Volume(self.shared.path(0) / "spool"))
        labels = {found.content.partition(b"Subject: ")[2].partition(b"\r\n")[0].decode() for found in left.values()}
        if again := labels & self.counts.accepted:
            raise Failed(f"delivered mail is still there: {sorted(again)[:5]}")
        bad = [(message, why) for message, why in self.counts.bad if message in self.counts.promised]
        if bad:
            raise Failed(f"mail has changed: {bad[:5]}")


# -- the faults: each returns the seconds until others had the lanes ------------------------------------------------


def a_worker_is_killed(fleet: Fleet) -> float:
    """Its supervisor reaps it and says so."""
    player = fleet.pick()
    player.process.kill()
    began = time.monotonic()
    fleet.gone(player)
    fleet.until("its latch is shut", fleet.fenced(player))
    return time.monotonic() - began


def a_worker_is_frozen_and_wakes(fleet: Fleet) -> float:
    """Judged dead without proof, its lanes are taken; then it goes on where it stood."""
    player = fleet.pick()
    player.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    fleet.tell_dead(player, "unproven")
    fleet.until("its latch is shut", fleet.fenced(player))
    took = time.monotonic() - began
    time.sleep(fleet.chance.choice((0.0, 0.5, 3.0)))  # before and after its lanes are read
    player.process.send_signal(signal.SIGCONT)
    fleet.gone(player)
    return took


def a_worker_is_judged_dead_wrongly(fleet: Fleet) -> float:
    player = fleet.pick()
    began = time.monotonic()
    fleet.tell_dead(player, "unproven")
    fleet.gone(player)
    return time.monotonic() - began


def a_worker_stops_cleanly(fleet: Fleet) -> float:
    """A drain: its lanes are free for others."""
    player = fleet.pick()
    player.tell("end")
    began = time.monotonic()
    fleet.gone(player)
    return time.monotonic() - began


def the_metadata_server_is_killed(fleet: Fleet) -> float:
    fleet.shared.kill_metadata()
    time.sleep(fleet.chance.choice((0.2, 1.0, 3.0)))
    fleet.shared.start_metadata()
    return 0.0


def a_client_is_frozen_and_wakes(fleet: Fleet) -> float:
    """All I/O of one mount stands still; what its workers owned is taken by the others; then it goes on."""
    mount = fleet.chance.choice(sorted(set(fleet.wanted)))
    players = [one for one in fleet.on(mount) if one.worker]
    fleet.unusable.add(mount)
    fleet.shared.signal(mount, signal.SIGSTOP)
    began = time.monotonic()
    try:
        for player in players:
            fleet.tell_dead(player, "unproven")
        fleet.until("their latches are shut", fleet.fenced(*players))
        took = time.monotonic() - began
        time.sleep(fleet.chance.choice((0.0, 2.5)))
    finally:
        fleet.shared.signal(mount, signal.SIGCONT)
    fleet.gone(*players)
    fleet.unusable.discard(mount)
    return took


def a_client_is_killed(fleet: Fleet) -> float:
    """The mount is dead under its workers; a probe would end them, and the kubelet mount it anew."""
    mount = fleet.chance.choice(sorted(set(fleet.wanted)))
    players = fleet.on(mount)
    fleet.unusable.add(mount)
    fleet.shared.kill(mount)
    time.sleep(0.5)
    for player in players:
        player.process.kill()
    began = time.monotonic()
    fleet.gone(*players)
    fleet.until("their latches are shut", fleet.fenced(*[one for one in players if one.worker]))
    took = time.monotonic() - began
    fleet.shared.mount_anew(mount)
    fleet.unusable.discard(mount)
    return took


def a_mount_is_taken_away(fleet: Fleet) -> float:
    """Unmounted while it is used: its workers find no latch, promise nothing more, and end."""
    mount = fleet.chance.choice(sorted(set(fleet.wanted)))
    players = fleet.on(mount)
    fleet.unusable.add(mount)
    fleet.shared.detach(mount)
    began = time.monotonic()
    fleet.gone(*players)
    fleet.until("their latches are shut", fleet.fenced(*[one for one in players if one.worker]))
    took = time.monotonic() - began
    fleet.shared.mount_anew(mount)
    fleet.unusable.discard(mount)
    return took


def the_disk_is_full(fleet: Fleet) -> float:
    """Mail is refused, nothing that was promised is lost; then there is room again."""
    mount = fleet.chance.choice(sorted(set(fleet.wanted)))
    players = fleet.on(mount)
    refused = {one: one.refused for one in players}
    fleet.shared.fill(mount)
    try:
        fleet.until(
            "mail is refused",
            lambda: any(one.refused > count or not one.is_running for one, count in refused.items()),
        )
        time.sleep(fleet.chance.choice((0.0, 1.0)))
    finally:
        fleet.shared.empty(mount)
    return 0.0


FAULTS: tuple[Callable[[Fleet], float], ...] = (
    a_worker_is_killed,
    a_worker_is_frozen_and_wakes,
    a_worker_is_judged_dead_wrongly,
    a_worker_stops_cleanly,
    the_metadata_server_is_killed,
    a_client_is_frozen_and_wakes,
    a_client_is_killed,
    a_mount_is_taken_away,
    the_disk_is_full,
)


def verdict(rows: list[Row]) -> list[str]:
    """What is wrong with these rounds, as sentences."""
    wrong = [f"{row.fault}: {row.lost} lost" for row in rows if row.lost]
    again, metered = sum(row.duplicated for row in rows), sum(row.metered for row in rows)
    if again > metered:
        wrong.append(f"{again} duplicated, and only {metered} metered")
    return wrong
