"""Every interleaving of three workers that freeze or die at any call, over the project's own protocol code.

The take-over is `Adopter.take`, giving away and claiming back are `Sharer.free` and `Sharer.claim_back`, commits and
compaction are `protocol.turn`, all on a modelled volume (tests/kit/search.py). Anyone may judge anyone dead at any
time: safety does not rest on it. In every reachable state

    P1  every promised message is on the volume, as the next replay would read it
    P2  who owns the lane by the protocol's own rule knows every promised message, at a place that exists
    P3  no two workers write one segment
    P4  a message that was done and promised to be stays done
    P5  a recipient that was done, and promised to be, does not wait again

Each mutant of the protocol must be caught.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from hashlib import blake2b
from typing import Any

import pytest

from kit.search import FOLDER, Asking, Files, Link, Note, Program, Search, Violation, choose
from posthof_pod.model import Envelope, Held, Recipient
from posthof_pod.spool import adopt, compact, layout, protocol, record, replay
from posthof_pod.spool.adopt import Adopter
from posthof_pod.spool.core import Callbacks, Core, Counters
from posthof_pod.spool.journal import Journal
from posthof_pod.spool.lane import Lane, LaneState
from posthof_pod.spool.layout import SegmentName
from posthof_pod.spool.liveness import FlockLiveness
from posthof_pod.spool.protocol import Look, Removal, Turned, Write
from posthof_pod.spool.record import Accept, Settle, Start
from posthof_pod.spool.share import Sharer

IS_ALL = os.environ.get("POSTHOF_CRASH") == "all"

pytestmark = [pytest.mark.crash, pytest.mark.timeout(0 if IS_ALL else 300)]

LANE = "x"
FIRST = "w0"


class ModelJournal:
    """What a take-over tells the journal."""

    is_fenced = False

    def resume(self, lane: Lane, start: Start, nonce: bytes, opened: tuple[int, int]) -> None:
        Journal.resume(self, lane, start, nonce, opened)  # type: ignore[arg-type]  # it uses nothing of itself


class ModelCore(Core):
    """The core of a worker, whose calls go to whoever runs the coroutine."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.journal = ModelJournal()  # type: ignore[assignment]  # what a take-over uses of it
        self.counters = Counters()
        self.callbacks = Callbacks(lambda lives: None, lambda refs: None, self._on_event)
        self.event = self._on_event
        self.lanes = {}
        self.by_name = {}
        self.open_lane = None
        self.live = 0
        self.disk = None  # type: ignore[assignment]  # nothing may use it directly
        self._slots = 0
        self._nonces = 0

    def _on_event(self, name: str, /, **fields: object) -> None:
        """Nobody listens."""

    def monotonic(self) -> float:  # type: ignore[override]  # a method where the engine has a field
        return 0.0

    def random(self, size: int) -> bytes:  # type: ignore[override]  # the same in every run
        self._nonces += 1
        return blake2b(f"{self.worker} {self._nonces}".encode(), digest_size=size).digest()

    def io(self, steps: Any) -> Any:
        return Asking(steps)

    def reading(self, act: Any) -> Any:
        assert isinstance(act, partial)
        assert act.func is protocol.run
        return Asking(act.args[1])

    def taking(self, steps: Any, late: Any) -> Any:
        return Asking(steps)

    def tidy(self, lane: Lane) -> None:
        """The test's own compaction lets segments go."""

    def drop_lane(self, lane: Lane) -> list[int]:
        lane.become(LaneState.GONE)
        self.by_name.pop(lane.name, None)
        return []


class Worker(Program):
    """`begin` ("take" or "out"), then any of its actions, each as often as it says, in any order."""

    def __init__(self, worker: str, begin: str, **actions: int) -> None:
        self.worker = worker
        self._begin = begin
        self._left = actions
        self._core = ModelCore(worker)
        self._adopter = Adopter(self._core, FlockLiveness(), max_live=10**9)
        self._sharer = Sharer(self._core, self._adopter)
        self._sharer._announce = self._hush  # type: ignore[method-assign]  # nobody listens

    async def _hush(self, lane: Lane) -> None:
        return

    @property
    def _lane(self) -> Lane | None:
        return self._core.by_name.get(LANE)

    def known(self) -> tuple[int, dict[int, str]] | None:
        lane = self._lane
        if lane is None or lane.state is not LaneState.CLOSED:
            return None
        return lane.claim, {lane.numbers[row]: self._path(lane, row) for row in lane.rows()}

    @staticmethod
    def _path(lane: Lane, row: int) -> str:
        return layout.segment(LANE, *lane.segment_at(lane.ordinals[row]).name)

    def digest(self) -> object:
        lane = self._lane
        state: tuple[object, ...] = ()
        if lane is not None:
            segments = tuple((one.name, one.position, one.nonce) for one in lane.segments)
            rows = tuple(sorted((lane.numbers[row], self._path(lane, row)) for row in lane.rows()))
            standing = tuple((lane.numbers[row], bytes(states)) for row, states in sorted(lane.multi.items()))
            state = (lane.state, lane.claim, lane.next_number, segments, rows, standing)
        fenced = frozenset(self._adopter._fenced)
        return state, tuple(sorted(self._left.items())), fenced, self._core._nonces

    def may(self, action: str) -> bool:
        return self._left.get(action, 0) > 0

    # -- what it does -----------------------------------------------------------------------------------------------

    async def main(self) -> None:
        if self._begin == "take":
            await self._take()
        while True:
            options = self._options()
            if not options:
                return
            chosen = await choose(*options)
            self._left[chosen] -= 1
            if not await getattr(self, f"_{chosen}")():
                return

    def _options(self) -> list[str]:
        lane = self._lane
        if lane is None:
            able = {"take"}
        elif lane.state is LaneState.OFFERED:
            able = {"claim_back"}
        else:
            able = {"accept", "settle", "part", "compact", "release"}
        return [name for name, left in self._left.items() if left and name in able]

    async def _take(self) -> bool:
        holding = await Asking(protocol.find(LANE))
        if holding is not None:
            await self._adopter.take(LANE, holding, is_proven=True)
        return True

    async def _accept(self) -> bool:
        lane = self._owned()
        number = lane.next_number
        lane.next_number += 1
        return await self._turn(accepts=[(number, record.accept_meta(number, Accept(envelope(number), 0)), 0)])

    async def _settle(self) -> bool:
        """The oldest message is done."""
        lane = self._owned()
        rows = sorted(lane.rows(), key=lambda row: lane.numbers[row])
        return not rows or await self._turn(done=rows[0])

    async def _part(self) -> bool:
        """The first of two recipients of the oldest message is done."""
        lane = self._owned()
        rows = sorted(lane.rows(), key=lambda row: lane.numbers[row])
        return not rows or lane.counts[rows[0]] < 2 or await self._turn(part=rows[0])

    async def _compact(self) -> bool:
        """Write what is live in the old segments again as it stands, and let these go, oldest first."""
        lane = self._owned()
        old = [segment for segment in lane.segments if segment is not lane.current]
        accepts = []
        for row in sorted(lane.rows(), key=lambda row: lane.numbers[row]):
            if lane.segment_at(lane.ordinals[row]) in old:
                number = lane.numbers[row]
                old_accept = Accept(envelope(number, lane.counts[row]), 0)
                states = compact._states(lane, row, old_accept, None) if row in lane.multi else b""
                copy = Accept(old_accept.envelope, 0, None, states)
                accepts.append((number, record.accept_meta(number, copy), record.COPY))
        return not old or await self._turn(accepts=accepts, removed=[segment.name for segment in old])

    async def _release(self) -> bool:
        lane = self._owned()
        if await Asking(protocol.look(self.worker)) is not Look.OPEN:
            return False
        await self._sharer.free(lane, 0)
        return True

    async def _claim_back(self) -> bool:
        lane = self._lane
        assert lane is not None
        await self._sharer.claim_back(lane)
        return True

    def _owned(self) -> Lane:
        lane = self._lane
        assert lane is not None
        return lane

    # -- one group commit -------------------------------------------------------------------------------------------

    async def _turn(
        self,
        accepts: list[tuple[int, bytes, int]] | None = None,
        done: int | None = None,
        part: int | None = None,
        removed: list[SegmentName] | None = None,
    ) -> bool:
        """False: this worker is fenced and ends."""
        lane = self._owned()
        segment = lane.current
        assert segment is not None
        assert segment.log is not None
        parts: list[bytes] = []
        places = []
        position = segment.position
        for number, meta, flags in accepts or []:
            one = record.frame(segment.nonce, record.ACCEPT, flags, meta)
            places.append((number, position, len(meta)))
            position += sum(map(len, one))
            parts += one
        notes = [Note("ack", number) for number, _, flags in accepts or [] if not flags & record.COPY]
        if done is not None:
            number = lane.numbers[done]
            parts += record.frame(segment.nonce, record.SETTLE, record.DONE, record.NUMBER.pack(number))
            notes = [Note("done", number)]
            await Asking(_note(Note("settle", number)))
        if part is not None:
            number = lane.numbers[part]
            states = bytes(record.pack_states((Held(1, 0.0, 0),), 2))
            parts += record.frame(segment.nonce, record.SETTLE, 0, record.settle_meta(number, Settle(states)))
            notes = [Note("part", number)]
        write = Write(segment.log, segment.position, parts, True)
        removals = [
            Removal(LANE, partial(protocol.remove_segment, LANE, name, is_kept=False), lambda error: None)
            for name in removed or []
        ]

        def tell(turned: Turned) -> None:
            if turned.look is not Look.OPEN or turned.failures:
                notes.clear()
                return
            segment.position += sum(map(len, parts))
            ordinal = lane.first + lane.segments.index(segment)
            rows = {lane.numbers[row]: row for row in lane.rows()}
            for number, offset, length in places:
                if number in rows:
                    lane.move(rows[number], ordinal, offset, length)
                else:
                    lane.add(number, (ordinal, offset, length), 1, 0)
            if done is not None:
                lane.drop(done)
            if part is not None:
                lane.multi[part] = bytearray(states)
            promised.append(turned)

        promised: list[Turned] = []
        steps = protocol.turn(self.worker, [write], [], removals, tell=tell, now=lambda: 0.0)
        turned = await Asking(_noting(steps, promised, notes))
        if turned.look is not Look.OPEN or turned.failures:
            return False
        for name in removed or []:
            assert lane.segments[0].name == name
            lane.segments.pop(0)
            lane.first += 1
        return True


def _note(note: Note) -> Generator[Any, Any, None]:
    yield note


def _noting(steps: Any, promised: list[Turned], notes: list[Note]) -> Generator[Any, Any, Turned]:
    """The promises of a turn are given when it tells of them, before it removes anything."""
    answer: Any = None
    error: OSError | None = None
    while True:
        try:
            request = steps.throw(error) if error is not None else steps.send(answer)
        except StopIteration as stop:
            if promised:
                yield from notes
                notes.clear()
            turned: Turned = stop.value
            return turned
        if promised:
            yield from notes
            notes.clear()
        error = None
        try:
            answer = yield request
        except OSError as raised:
            error = raised


# -- the volume at the start -----------------------------------------------------------------------------------------


def envelope(number: int, recipients: int = 1) -> Envelope:
    return Envelope(f"{LANE}-{number}", "a@x", tuple(Recipient(f"{n}@x") for n in range(recipients)), 0.0, 1)


def files(*workers: str, recipients: int = 1) -> Files:
    """A lane of a dead worker with one message, promised long ago."""
    made: Files = dict.fromkeys(layout.FOLDERS, FOLDER)
    made[""] = FOLDER
    for worker in (*workers, "w9"):
        made[layout.worker(worker)] = FOLDER
        made[layout.latch(worker)] = layout.open_text(worker)
    made[layout.lane(LANE)] = FOLDER
    made[layout.own(LANE, 1)] = Link("w9")
    nonce = b"nonce 9!"
    parts = protocol.open_parts(Start(LANE, 1, 1, "w9"), nonce)
    meta = record.accept_meta(1, Accept(envelope(1, recipients), 0))
    made[layout.segment(LANE, 1, 1)] = b"".join([*parts, *record.frame(nonce, record.ACCEPT, 0, meta)])
    return made


class Old(Program):
    """The dead worker's message stays promised."""

    worker = "w9"

    async def _main(self) -> None:
        await Asking(_note(Note("ack", 1)))

    def main(self) -> Coroutine[Any, Any, None]:
        return self._main()

    def digest(self) -> object:
        return 0

    def known(self) -> tuple[int, dict[int, str]] | None:
        return None


def search(*workers: Callable[[], Worker], is_strict: bool = True) -> Search:
    """The first worker has taken the lane already; what it did stands on the volume."""
    made_once = [make() for make in workers]
    names = [one.worker for one in made_once]
    recipients = 2 if any(one.may("part") for one in made_once) else 1
    made = Search([*workers, Old], files(*names, recipients=recipients), LANE, is_strict=is_strict)
    state = made.first
    while type(state[1][0].request).__name__ != "Choice":
        (state,) = [after for label, after in made._steps(state) if label.startswith(names[0])]
    made.first = state
    return made


def worker(name: str, begin: str = "out", **actions: int) -> Callable[[], Worker]:
    return lambda: Worker(name, begin, **actions)


SCENARIOS: dict[str, list[Callable[[], Worker]]] = {
    "accept, compaction, two take-overs": [
        worker(FIRST, "take", accept=1, compact=1),
        worker("w1", take=1, accept=1),
        worker("w2", take=1),
    ],
    "settle, compaction, two take-overs": [
        worker(FIRST, "take", settle=1, compact=1),
        worker("w1", take=1, compact=1),
        worker("w2", take=1),
    ],
    "part, compaction, two take-overs": [
        worker(FIRST, "take", part=1, compact=1),
        worker("w1", take=1, compact=1),
        worker("w2", take=1),
    ],
    "accept, release, claim back, one taker": [
        worker(FIRST, "take", accept=1, release=1, claim_back=1),
        worker("w1", take=1, accept=1),
    ],
    "release, claim back, two takers": [
        worker(FIRST, "take", release=1, claim_back=1),
        worker("w1", take=1, accept=1),
        worker("w2", take=1),
    ],
}
LONG: dict[str, list[Callable[[], Worker]]] = {
    "accept, release, claim back, two takers": [
        worker(FIRST, "take", accept=1, release=1, claim_back=1),
        worker("w1", take=1, accept=1),
        worker("w2", take=1),
    ],
    "everyone accepts, two compact": [
        worker(FIRST, "take", accept=1, compact=1),
        worker("w1", take=1, accept=1, compact=1),
        worker("w2", take=1, accept=1),
    ],
    "release and take again, two workers": [
        worker(FIRST, "take", accept=2, release=1, claim_back=1, take=1),
        worker("w1", take=2, accept=1, release=1),
    ],
    "release and take again, three workers": [
        worker(FIRST, "take", release=1, take=1),
        worker("w1", take=1, accept=1, release=1),
        worker("w2", take=1),
    ],
    "part and release, two compact": [
        worker(FIRST, "take", part=1, compact=1, release=1, claim_back=1),
        worker("w1", take=1, settle=1, compact=1),
        worker("w2", take=1),
    ],
    "settle and accept, two compact": [
        worker(FIRST, "take", accept=1, settle=1, compact=1),
        worker("w1", take=1, settle=1, compact=1),
        worker("w2", take=1),
    ],
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A taker that does not see all of a lane given free asks once."""
    monkeypatch.setattr(adopt, "WAIT", 0)
    monkeypatch.setattr(adopt, "COMPLETE_TRIES", 1)


def walk(workers: list[Callable[[], Worker]], *, is_strict: bool) -> Search:
    """Search all, and see that everyone really came to do what it may."""
    found = search(*workers, is_strict=is_strict)
    assert found.run() > 1000
    for make, nodes in zip(workers, found.nodes(), strict=False):
        made = make()
        notes = {note.kind for node in nodes for note in node.notes}
        kinds = {"accept": {"ack"}, "settle": {"settle", "done"}, "part": {"part"}}
        assert notes == set().union(*(kinds[action] for action in kinds if made.may(action)))
    return found


# Whether written bytes reach the volume with the sync (a network client), or at once (one machine).
LOCAL = ("accept, compaction, two take-overs", "accept, release, claim back, one taker")
WALKED = [(name, True) for name in SCENARIOS] + [(name, False) for name in LOCAL]
if IS_ALL:
    WALKED = [(name, is_strict) for name in SCENARIOS | LONG for is_strict in (True, False)]


@pytest.mark.parametrize(
    ("name", "is_strict"), WALKED, ids=[f"{name}-{'network' if strict else 'local'}" for name, strict in WALKED]
)
def test_no_interleaving_breaks_a_promise(name: str, is_strict: bool) -> None:
    walk((SCENARIOS | LONG)[name], is_strict=is_strict)


# -- mutants: each breaks one rule, and is caught --------------------------------------------------------------------

LOOK, TURN, FENCE, CLAIM, CUT = protocol.look, protocol.turn, protocol.fence, protocol.claim, protocol.cut
MERGE, LIST, REMOVE = replay.merge, protocol.list_lower, protocol.remove_segment


def no_look(patch: pytest.MonkeyPatch) -> None:
    def look(worker: str) -> Generator[Any, Any, Look]:
        yield from ()
        return Look.OPEN

    patch.setattr(protocol, "look", look)


def look_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    def turn(worker: str, writes: Any, blobs: Any, removals: Any, **more: Any) -> Generator[Any, Any, Turned]:
        looked = yield from LOOK(worker)
        if looked is Look.OPEN:
            no_look(patch)
        try:
            return (yield from TURN(worker, writes, blobs, removals, **more))
        finally:
            patch.setattr(protocol, "look", LOOK)

    patch.setattr(protocol, "turn", turn)


def replay_before_the_latch(patch: pytest.MonkeyPatch) -> None:
    def fence(holder: str, by: str) -> Generator[Any, Any, None]:
        yield from ()

    def cut(lane: str, start: Start, nonce: bytes) -> Generator[Any, Any, tuple[int, int]]:
        yield from FENCE(FIRST, start.worker)
        return (yield from CUT(lane, start, nonce))

    patch.setattr(protocol, "fence", fence)
    patch.setattr(protocol, "cut", cut)


def unlink_without_a_look(patch: pytest.MonkeyPatch) -> None:
    def turn(worker: str, writes: Any, blobs: Any, removals: Any, **more: Any) -> Generator[Any, Any, Turned]:
        turned = yield from TURN(worker, writes, blobs, [], **more)
        for removal in removals:
            yield from removal.steps()
        return turned

    patch.setattr(protocol, "turn", turn)


def claim_not_exclusive(patch: pytest.MonkeyPatch) -> None:
    def claim(lane: str, number: int, worker: str) -> Generator[Any, Any, bool]:
        beside = f"{layout.LANES}/.{worker}"
        yield protocol.Call("symlink", (worker, beside))
        yield protocol.Call("rename", (beside, layout.own(lane, number)))
        return True

    patch.setattr(protocol, "claim", claim)


def first_copy_wins(patch: pytest.MonkeyPatch) -> None:
    def merge(scans: Any, blobs: Any = ()) -> replay.Replay:
        found = MERGE(scans, blobs)
        for ordinal, scan in reversed(list(enumerate(found.scans))):
            for raw in reversed(scan.records):
                if raw.kind == record.ACCEPT and raw.end <= scan.cut and raw.number in found.messages:
                    found.messages[raw.number] = replay.Message(raw.number, ordinal, raw, raw.meta)
        return found

    patch.setattr(replay, "merge", merge)


def cut_of_a_later_claim(patch: pytest.MonkeyPatch) -> None:
    def set_cuts(scans: list[replay.Scan]) -> None:
        for newer in scans:
            named = {SegmentName(claim, k): size for claim, k, size in newer.start.lower} if newer.start else {}
            for older in scans:
                if older.name in named:
                    older.cut = min(older.cut, named[older.name])

    patch.setattr(protocol, "list_lower", lambda lane, number: LIST(lane, 1 << 30))
    patch.setattr(replay, "set_cuts", set_cuts)


def newest_segment_leaves_first(patch: pytest.MonkeyPatch) -> None:
    def turn(worker: str, writes: Any, blobs: Any, removals: Any, **more: Any) -> Generator[Any, Any, Turned]:
        return (yield from TURN(worker, writes, blobs, removals[::-1], **more))

    patch.setattr(protocol, "turn", turn)


def copies_without_state(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(compact, "_states", lambda lane, row, old, settle: b"")


MUTANTS: dict[Callable[[pytest.MonkeyPatch], None], tuple[str, str]] = {
    no_look: ("P", "accept, compaction, two take-overs"),
    look_before_the_sync: ("P", "accept, compaction, two take-overs"),
    replay_before_the_latch: ("P", "accept, compaction, two take-overs"),
    unlink_without_a_look: ("P", "accept, compaction, two take-overs"),
    claim_not_exclusive: ("P", "accept, compaction, two take-overs"),
    first_copy_wins: ("P", "accept, compaction, two take-overs"),
    cut_of_a_later_claim: ("P", "accept, compaction, two take-overs"),
    newest_segment_leaves_first: ("P4", "settle, compaction, two take-overs"),
    copies_without_state: ("P5", "part, compaction, two take-overs"),
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_each_mutant_of_the_protocol_is_caught(
    monkeypatch: pytest.MonkeyPatch, mutant: Callable[[pytest.MonkeyPatch], None]
) -> None:
    rule, scenario = MUTANTS[mutant]
    mutant(monkeypatch)
    with pytest.raises(Violation) as caught:
        search(*SCENARIOS[scenario]).run()
    assert caught.value.what.startswith(rule)
