"""Every message that waits, as units: some recipients of one message that share a destination.

Owns: the state of each unit (ready, deferred, held, taken), the order in which ready ones leave, and when deferred
ones become ready. Knows nothing of sessions, sites or why a try failed.

Rules
- One message has one unit per destination, more where `recipients_per_transaction` is exceeded.
- `take` hands a unit out once. Whoever took it says how it ended, exactly once: `done`, `defer` or `give_back`.
- Choosing the next unit costs the same for 1 and for 1,000,000 (schedule/line.py: a ring per destination and sender).
- At most 150 bytes a unit, all in (a test measures it): one slot in packed arrays, freed slots are used again.
- A ref is `lane slot << 32 | generation << 24 | row`, and rows of a lane are dense: an array per lane finds the units
  of a ref. A row that is used again (another generation) shares its place with what is left of the one before.
- `now` and `due` are unix seconds; `due` = inf means held.

What an operator asks of a unit that is being tried counts when the try ends: hold makes `defer` hold it, remove and
forget make its end silent.
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from posthof_pod.model import Destination, Reason, Taken
from posthof_pod.schedule.agenda import PAGES_PER_SECOND, Agenda, page_of
from posthof_pod.schedule.line import NOBODY, Line, link, unlink

FOREVER = float("inf")

_MANY = 0xFFFFFFFF  # in _recipient: the tuple stands in _tuples
_ROW = 0xFFFFFF  # of a ref
_MORE = 1024  # slots made at once
_ROWS = 256  # rows of a lane made room for at once
_SPARSE = 65536  # a row this far beyond what a lane's array holds goes to a dict

_IS_TRIED = 1
_IS_NOTIFIED = 2
_TO_HOLD = 4  # held when the try ends
_IS_GONE = 8  # removed while a try runs: its dot is not to be sent
_IS_LEAVING = 16  # its lane goes to a peer: the try that runs may end, then the unit goes
_ENDS = _IS_GONE | _IS_LEAVING

_REASONS = tuple(Reason)
_NUMBERS = {reason: n for n, reason in enumerate(_REASONS)}
_RECEIVED = _NUMBERS[Reason.RECEIVED]
_STALE_ALLOWED = 4096


class State(enum.IntEnum):
    FREE = 0  # no unit: the slot waits for one
    READY = 1
    DEFERRED = 2
    HELD = 3
    TAKEN = 4


_FREE, _READY, _DEFERRED, _HELD, _TAKEN = (int(state) for state in State)
_NO_ROWS = array("i", [NOBODY] * _ROWS)
_new = tuple.__new__  # a Taken without the cost of its keyword handling


class Row(NamedTuple):
    """A unit, for `posthof queue`."""

    unit: int
    ref: int
    recipients: tuple[int, ...]
    destination: Destination
    state: State
    due: float  # DEFERRED: when it becomes ready; READY: since when it is; HELD: inf; TAKEN: since when
    attempts: int
    arrived: float
    notified: bool
    reason: Reason  # why it waits


class Counts(NamedTuple):
    """One destination's units, or all of them."""

    ready: int
    deferred: int
    held: int
    taken: int
    oldest_ready: float  # since when the longest waiting ready unit is ready; inf: none is


class Backlog:
    """All units of a worker."""

    def __init__(self) -> None:
        self._ref = array("Q")
        self._due = array("d")
        self._arrived = array("d")
        self._after = array("i")  # links of the ring the unit stands in; of a free slot: the next free one
        self._before = array("i")
        self._sibling = array("i")  # the next unit of the same message
        self._line = array("I")
        self._sender = array("I")
        self._recipient = array("I")
        self._attempts = array("H")
        self._state = array("B")
        self._flags = array("B")
        self._reason = array("B")
        self._tuples: dict[int, tuple[int, ...]] = {}
        self._free = NOBODY
        self._units = 0
        self._lanes: dict[int, array[int]] = {}  # lane slot -> row -> first unit
        self._sparse: dict[
            tuple[int, int], int
        ] = {}  # lane slot, row -> first unit, where an array would be mostly holes
        self._lines: list[Line | None] = []
        self._by_key: dict[str, Line] = {}
        self._agenda = Agenda()
        self._now = 0.0  # the latest time we were told
        self.woken: list[Line] = []  # lines with a unit that became ready since the last `drain_woken`

    # --- in and out -------------------------------------------------------------------------------------------

    def add(
        self,
        ref: int,
        recipients: tuple[int, ...],
        destination: Destination,
        *,
        now: float,
        due: float = 0.0,
        attempts: int = 0,
        arrived: float | None = None,
        sender: str = "",
        is_tried: bool = False,
        notified: bool = False,
        reason: Reason = Reason.RECEIVED,
    ) -> int:
        """Add recipients of one message that go to one destination. Returns the (first) unit.

        `due` in the past: ready now; inf: held. `recipients` are indices in envelope.recipients, at least one.
        """
        line = self._by_key.get(destination.key)
        if line is None or line.destination is not destination:
            line = self.line(destination)
        most = destination.limits.recipients_per_transaction
        if len(recipients) > most > 0:
            chunks = [recipients[n : n + most] for n in range(0, len(recipients), most)]
        else:
            chunks = [recipients]
        bucket = hash(sender) & 0xFFFFFFFF
        flags = (_IS_TRIED if is_tried else 0) | (_IS_NOTIFIED if notified else 0)
        number = _RECEIVED if reason is Reason.RECEIVED else _NUMBERS[reason]
        first = NOBODY
        for chunk in chunks:
            unit = self._slot()
            self._ref[unit] = ref
            self._arrived[unit] = now if arrived is None else arrived
            self._line[unit] = line.number
            self._sender[unit] = bucket
            self._attempts[unit] = attempts if attempts < 65535 else 65535
            self._flags[unit] = flags
            self._reason[unit] = number
            if len(chunk) == 1:
                self._recipient[unit] = chunk[0]
            else:
                self._set_recipients(unit, chunk)
            if first == NOBODY:
                first = unit
            self._enlist(unit, ref)
            if due <= now:
                self._make_ready(unit, line, now)
            else:
                self._now = now
                self._put_off(unit, line, due)
        return first

    def take(self, line: Line, now: float) -> Taken | None:
        """The next ready unit of a destination, or None. It is the caller's until done, defer or give_back."""
        if not line.ready:
            return None
        unit = line.first(self._after, self._before)
        self._state[unit] = _TAKEN
        self._due[unit] = now
        line.ready -= 1
        line.taken += 1
        flags = self._flags[unit]
        recipient = self._recipient[unit]
        return _new(
            Taken,
            (
                unit,
                self._ref[unit],
                (recipient,) if recipient != _MANY else self._tuples[unit],
                line.destination,
                self._attempts[unit],
                self._arrived[unit],
                flags & _IS_NOTIFIED != 0,
                flags & _IS_TRIED != 0,
            ),
        )

    def done(self, unit: int) -> None:
        """Every recipient of a taken unit has its outcome: the unit ends."""
        if self._state[unit] != _TAKEN:
            raise ValueError(f"unit {unit} is not taken")
        line = self._lines[self._line[unit]]
        if line is not None:  # as it always is while a unit names it
            line.taken -= 1
        self._end(unit)

    def defer(
        self,
        unit: int,
        due: float,
        attempts: int,
        notified: bool,
        *,
        recipients: tuple[int, ...] | None = None,
        reason: Reason = Reason.INTERNAL,
    ) -> None:
        """A taken unit waits for another try at `due` (inf: held), for `recipients` only where they are given."""
        if self._state[unit] != _TAKEN:
            raise ValueError(f"unit {unit} is not taken")
        line = self._line_of(unit)
        line.taken -= 1
        flags = self._flags[unit]
        if flags & _ENDS:
            self._end(unit)
            return
        if flags & _TO_HOLD:
            due = FOREVER
            reason = Reason.OPERATOR_HOLD
        if recipients is not None:
            self._set_recipients(unit, recipients)
        self._attempts[unit] = min(attempts, 65535)
        self._flags[unit] = _IS_NOTIFIED if notified else 0
        self._reason[unit] = _NUMBERS[reason]
        self._put_off(unit, line, due)

    def give_back(self, unit: int) -> None:
        """A taken unit was not tried: it is ready again, before the others of its sender."""
        if self._state[unit] != _TAKEN:
            raise ValueError(f"unit {unit} is not taken")
        line = self._line_of(unit)
        line.taken -= 1
        flags = self._flags[unit]
        if flags & _ENDS:
            self._end(unit)
        elif flags & _TO_HOLD:
            self._flags[unit] = flags & ~_TO_HOLD
            self._reason[unit] = _NUMBERS[Reason.OPERATOR_HOLD]
            self._put_off(unit, line, FOREVER)
        else:
            self._state[unit] = _READY
            line.ready += 1
            line.rejoin(unit, self._sender, self._after, self._before)
            self._wake(line)

    def move(self, unit: int, destination: Destination, now: float) -> None:
        """Give a unit another destination (the configuration changed). A taken one becomes ready there."""
        state = self._state[unit]
        due = self._due[unit]
        self._leave(unit)
        line = self.line(destination)
        self._line[unit] = line.number
        if self._flags[unit] & _ENDS:
            self._end(unit)
        elif state in (_DEFERRED, _HELD):
            self._put_off(unit, line, due)
        else:
            self._make_ready(unit, line, now)

    # --- time ---------------------------------------------------------------------------------------------------

    def wake_due(self, now: float, limit: int = 2000) -> int:
        """Make ready what is due, page by page, until about `limit` units are. Returns how many."""
        self._now = now
        count = 0
        while count < limit and (torn := self._agenda.take(now)) is not None:
            page, units = torn
            for unit in units:
                if self._state[unit] == _DEFERRED and self._due[unit] * PAGES_PER_SECOND == page:
                    self._ready_again(unit, now)
                    count += 1
                else:
                    self._agenda.stale -= 1
        return count

    # --- what an operator asks ------------------------------------------------------------------------------------

    def flush(self, unit: int, now: float, *, reason: Reason = Reason.OPERATOR_FLUSH) -> bool:
        """Make a deferred unit ready now. False: it was not deferred."""
        if self._state[unit] != _DEFERRED:
            return False
        self._agenda.stale += 1
        self._reason[unit] = _NUMBERS[reason]
        self._ready_again(unit, now)
        self._tidy_agenda()
        return True

    def flush_line(self, line: Line, now: float, limit: int = 2000) -> int:
        """Flush up to `limit` deferred units of one destination. Returns how many: fewer than `limit` was the end."""
        count = 0
        while line.deferred and count < limit:
            self.flush(line.deferred_head, now)
            count += 1
        return count

    def wake_line(self, line: Line, reasons: frozenset[Reason], now: float, limit: int = 2000) -> int:
        """Make ready what one destination's units wait for no longer: those deferred for one of `reasons`."""
        numbers = {_NUMBERS[reason] for reason in reasons}
        units = []
        unit = line.deferred_head
        for _ in range(line.deferred):
            if self._reason[unit] in numbers:
                units.append(unit)
                if len(units) == limit:
                    break
            unit = self._after[unit]
        for unit in units:
            self.flush(unit, now, reason=_REASONS[self._reason[unit]])
        return len(units)

    def hold(self, unit: int, reason: Reason = Reason.OPERATOR_HOLD) -> bool:
        """Keep a unit back until `release`; one that is being tried is held when the try ends without success."""
        state = self._state[unit]
        if state in (_FREE, _HELD):
            return False
        if state == _TAKEN:
            self._flags[unit] |= _TO_HOLD
            return True
        line = self._leave(unit)
        self._reason[unit] = _NUMBERS[reason]
        self._put_off(unit, line, FOREVER)
        return True

    def release(self, unit: int, now: float) -> bool:
        """Make a held unit ready. False: it was not held."""
        state = self._state[unit]
        if state == _TAKEN and self._flags[unit] & _TO_HOLD:
            self._flags[unit] &= ~_TO_HOLD
            return True
        if state != _HELD:
            return False
        self._reason[unit] = _NUMBERS[Reason.OPERATOR_RELEASE]
        self._ready_again(unit, now)
        return True

    def remove(self, unit: int) -> bool:
        """Delete a unit. True: it is gone; False: it is being tried and goes when that ends."""
        if self._state[unit] == _TAKEN:
            self._flags[unit] |= _IS_GONE
            return False
        if self._state[unit] != _FREE:
            self._leave(unit)
            self._end(unit)
        return True

    def forget(self, refs: Iterable[int]) -> int:
        """Drop the units of these messages (their lane goes to a peer). Returns how many are still being tried: they
        go when that ends, and until when a dot may be sent for them is the spool's to say."""
        running = 0
        for ref in refs:
            for unit in self.find(ref):
                if self._state[unit] == _TAKEN:
                    self._flags[unit] |= _IS_LEAVING
                    running += 1
                else:
                    self.remove(unit)
        return running

    def close_lane(self, slot: int) -> bool:
        """Give back the table of a lane whose messages were all forgotten: four bytes a row. False: some are left."""
        firsts = self._lanes.get(slot)
        if firsts is not None and firsts.count(NOBODY) < len(firsts):
            return False
        self._lanes.pop(slot, None)
        return True

    # --- questions ------------------------------------------------------------------------------------------------

    def line(self, destination: Destination) -> Line:
        """The line before a destination, made if it is new. The newest value of one key counts."""
        line = self._by_key.get(destination.key)
        if line is None:
            number = next((n for n, old in enumerate(self._lines) if old is None), len(self._lines))
            line = Line(destination, number)
            if number == len(self._lines):
                self._lines.append(line)
            else:
                self._lines[number] = line
            self._by_key[destination.key] = line
        line.destination = destination
        return line

    def find_line(self, key: str) -> Line | None:
        """The line of a destination's key, if it has one."""
        return self._by_key.get(key)

    def lines(self) -> list[Line]:
        """All lines."""
        return list(self._by_key.values())

    def drop_empty_lines(self, is_needed: Callable[[Line], bool]) -> int:
        """Forget lines without units that nobody needs. Returns how many."""
        gone = [line for line in self._by_key.values() if line.is_empty and not line.is_woken and not is_needed(line)]
        for line in gone:
            del self._by_key[line.destination.key]
            self._lines[line.number] = None
        return len(gone)

    def drain_woken(self) -> list[Line]:
        """The lines with units that became ready since the last call."""
        woken = self.woken
        self.woken = []
        for line in woken:
            line.is_woken = False
        return woken

    def recipients(self, unit: int) -> tuple[int, ...]:
        """Indices in envelope.recipients."""
        recipient = self._recipient[unit]
        return self._tuples[unit] if recipient == _MANY else (recipient,)

    def state(self, unit: int) -> State:
        return State(self._state[unit])

    def is_still(self, taken: Taken, state: State) -> bool:
        """Whether this unit of this message is in `state`. A slot that ended may hold another message by now."""
        return self._state[taken.unit] == state and self._ref[taken.unit] == taken.ref

    def is_wanted(self, unit: int) -> bool:
        """False for a taken unit that was removed meanwhile: no dot may be sent for it."""
        return not self._flags[unit] & _IS_GONE

    def find(self, ref: int) -> list[int]:
        """The units of a message."""
        return [unit for unit in self._chain(self._first_of(ref)) if self._ref[unit] == ref]

    def counts(self, line: Line) -> Counts:
        """One destination's units."""
        oldest = min((self._due[unit] for unit in line.heads()), default=FOREVER)
        return Counts(line.ready, line.deferred, line.held, line.taken, oldest)

    def totals(self) -> Counts:
        """All units."""
        every = [self.counts(line) for line in self._by_key.values()]
        return Counts(
            sum(counts.ready for counts in every),
            sum(counts.deferred for counts in every),
            sum(counts.held for counts in every),
            sum(counts.taken for counts in every),
            min((counts.oldest_ready for counts in every), default=FOREVER),
        )

    def __len__(self) -> int:
        return self._units

    def row(self, unit: int) -> Row:
        """What is known of a unit."""
        return Row(
            unit,
            self._ref[unit],
            self.recipients(unit),
            self._line_of(unit).destination,
            State(self._state[unit]),
            self._due[unit],
            self._attempts[unit],
            self._arrived[unit],
            self._flags[unit] & _IS_NOTIFIED != 0,
            _REASONS[self._reason[unit]],
        )

    def rows(
        self, *, line: Line | None = None, states: Iterable[State] | None = None, start: int = 0
    ) -> Iterator[Row]:
        """Units from slot `start` on. It stays valid while units change, so a caller may pause between rows."""
        wanted = bytes(states) if states is not None else bytes(range(1, len(State)))
        unit = start
        while unit < len(self._state):
            if line is not None:
                try:
                    unit = self._line.index(line.number, unit)
                except ValueError:
                    return
            if self._state[unit] in wanted:
                yield self.row(unit)
            unit += 1

    # --- inside ---------------------------------------------------------------------------------------------------

    def _slot(self) -> int:
        """A free slot; where there is none, some more are made."""
        unit = self._free
        if unit == NOBODY:
            unit = self._grow()
        self._free = self._after[unit]
        self._units += 1
        return unit

    def _grow(self) -> int:
        """Free slots at the end: the first of them."""
        first = len(self._state)
        for octets in (self._state, self._flags, self._reason):
            octets.frombytes(bytes(_MORE))
        self._attempts.frombytes(bytes(2 * _MORE))
        for numbers in (self._before, self._sibling, self._line, self._sender, self._recipient):
            numbers.frombytes(bytes(4 * _MORE))
        for wide in (self._ref, self._due, self._arrived):
            wide.frombytes(bytes(8 * _MORE))
        self._after.extend(range(first + 1, first + _MORE))
        self._after.append(NOBODY)
        return first

    def _set_recipients(self, unit: int, recipients: tuple[int, ...]) -> None:
        if len(recipients) == 1:
            if self._recipient[unit] == _MANY:
                self._tuples.pop(unit, None)
            self._recipient[unit] = recipients[0]
        elif recipients:
            self._recipient[unit] = _MANY
            self._tuples[unit] = recipients
        else:
            raise ValueError("a unit without recipients")

    def _line_of(self, unit: int) -> Line:
        line = self._lines[self._line[unit]]
        if line is None:
            raise ValueError(f"unit {unit} has no line")
        return line

    def _wake(self, line: Line) -> None:
        if not line.is_woken:
            line.is_woken = True
            self.woken.append(line)

    def _make_ready(self, unit: int, line: Line, now: float) -> None:
        self._state[unit] = _READY
        self._due[unit] = now
        line.ready += 1
        line.join(unit, self._sender, self._after, self._before)
        if not line.is_woken:
            line.is_woken = True
            self.woken.append(line)

    def _put_off(self, unit: int, line: Line, due: float) -> None:
        """Deferred until `due`, or held."""
        if due == FOREVER:
            self._state[unit] = _HELD
            self._due[unit] = due
            line.held += 1
            line.held_head = link(line.held_head, unit, self._after, self._before)
            return
        page = page_of(due, self._now)
        self._state[unit] = _DEFERRED
        self._due[unit] = page / PAGES_PER_SECOND
        line.deferred += 1
        line.deferred_head = link(line.deferred_head, unit, self._after, self._before)
        self._agenda.put(unit, page)

    def _ready_again(self, unit: int, now: float) -> None:
        """From the deferred or held ones to the ready ones."""
        line = self._line_of(unit)
        self._unlink(unit, line)
        self._make_ready(unit, line, now)

    def _unlink(self, unit: int, line: Line) -> None:
        if self._state[unit] == _DEFERRED:
            line.deferred -= 1
            line.deferred_head = unlink(line.deferred_head, unit, self._after, self._before)
        else:
            line.held -= 1
            line.held_head = unlink(line.held_head, unit, self._after, self._before)

    def _leave(self, unit: int) -> Line:
        """Take a unit out of whatever list it stands in."""
        line = self._line_of(unit)
        state = self._state[unit]
        if state == _READY:
            line.ready -= 1
            line.leave(unit, self._sender, self._after, self._before)
        elif state == _TAKEN:
            line.taken -= 1
        else:
            self._agenda.stale += state == _DEFERRED
            self._unlink(unit, line)
            self._tidy_agenda()
        return line

    def _end(self, unit: int) -> None:
        """Free the slot of a unit that stands in no list."""
        if self._recipient[unit] == _MANY:
            del self._tuples[unit]
            self._recipient[unit] = 0
        ref = self._ref[unit]
        firsts = self._lanes.get(ref >> 32)
        row = ref & _ROW
        if firsts is not None and row < len(firsts) and firsts[row] == unit:
            firsts[row] = self._sibling[unit]
        else:
            self._delist(unit, ref)
        self._state[unit] = _FREE
        self._after[unit] = self._free
        self._free = unit
        self._units -= 1

    def _tidy_agenda(self) -> None:
        """Write the agenda anew when most of its entries mean nothing."""
        agenda = self._agenda
        if agenda.stale <= _STALE_ALLOWED or agenda.stale <= self._units:
            return
        agenda.clear()
        for line in self._by_key.values():
            unit = line.deferred_head
            for _ in range(line.deferred):
                agenda.put(unit, int(self._due[unit] * PAGES_PER_SECOND))
                unit = self._after[unit]

    def _first_of(self, ref: int) -> int:
        firsts = self._lanes.get(ref >> 32)
        row = ref & _ROW
        if firsts is not None and row < len(firsts) and firsts[row] != NOBODY:
            return firsts[row]
        return self._sparse.get((ref >> 32, row), NOBODY) if self._sparse else NOBODY

    def _chain(self, unit: int) -> list[int]:
        """A unit and its siblings behind it."""
        units = []
        while unit != NOBODY:
            units.append(unit)
            unit = self._sibling[unit]
        return units

    def _set_first(self, ref: int, unit: int) -> None:
        firsts = self._lanes.get(ref >> 32)
        if firsts is None:
            firsts = self._lanes[ref >> 32] = array("i")
        row = ref & _ROW
        room = len(firsts)
        place = (ref >> 32, row)
        if self._sparse and place in self._sparse:
            if unit == NOBODY:
                del self._sparse[place]
            else:
                self._sparse[place] = unit
        elif row < room:
            firsts[row] = unit
        elif row >= 2 * room + _SPARSE:
            self._sparse[place] = unit
        else:
            firsts.extend(_NO_ROWS * ((row - room) // _ROWS + 1))
            firsts[row] = unit

    def _enlist(self, unit: int, ref: int) -> None:
        """Make the unit findable by its ref."""
        firsts = self._lanes.get(ref >> 32)
        row = ref & _ROW
        if firsts is not None and row < len(firsts) and firsts[row] == NOBODY and not self._sparse:
            firsts[row] = unit
            self._sibling[unit] = NOBODY
            return
        self._sibling[unit] = self._first_of(ref)
        self._set_first(ref, unit)

    def _delist(self, unit: int, ref: int) -> None:
        other = self._first_of(ref)
        if other == unit:
            self._set_first(ref, self._sibling[unit])
            return
        while self._sibling[other] != unit:
            other = self._sibling[other]
        self._sibling[other] = self._sibling[unit]
