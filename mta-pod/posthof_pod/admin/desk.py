"""What a worker answers to `posthof queue` and `posthof trace`: questions about its messages, and changes to them.

Rules
- Long lists are walked in slices, so that mail flows on while someone looks.
- The schedule knows states and times; addresses stand in the spool and are read only where a question needs them.
- A change that must outlive a restart (hold, release, delete) goes to the spool as a settle: on the volume within its
  settle_delay.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from posthof_pod.admin.waiting import (
    QueueFilter,
    QueueItem,
    QueuePage,
    QueueRecipient,
    filter_of,
    item_test,
)
from posthof_pod.deliver.site import SiteStatus
from posthof_pod.flow import FOREVER, Mta
from posthof_pod.model import Envelope, Held, Reason, Settlement
from posthof_pod.schedule.backlog import Row, State
from posthof_pod.spool.cache import Stored
from posthof_pod.spool.lane import Gone
from posthof_pod.spool.record import Damaged

SLICE = 1000
_STATES = {State.READY: "ready", State.DEFERRED: "deferred", State.HELD: "held", State.TAKEN: "sending"}
_BY_NAME = {name: state for state, name in _STATES.items()}

Handler = Callable[[Any], Awaitable[Any]]


class Desk:
    """The handlers of one worker's channel that speak of queued mail."""

    def __init__(self, mta: Mta, worker: str) -> None:
        self._mta = mta
        self._worker = worker

    def handlers(self) -> dict[str, Handler]:
        return {
            "queue.list": self.page,
            "queue.show": self.show,
            "queue.content": self.content,
            "queue.flush": self.flush,
            "queue.hold": self.hold,
            "queue.release": self.release,
            "queue.delete": self.delete,
            "trace.search": self.trace,
        }

    # ---- questions

    async def page(self, payload: Any) -> Any:
        """QueueFilter -> QueuePage: the oldest `limit` messages, and how many there are."""
        wanted = filter_of(payload)
        found = [(arrived, ref) async for arrived, ref in self._candidates(wanted)]
        if not (wanted.sender or wanted.recipient):
            oldest = heapq.nsmallest(wanted.limit, found)
            items = [item for _, ref in oldest if (item := await self._item(ref)) is not None]
            return msgspec.to_builtins(QueuePage(items, len(found)))
        test, total = item_test(wanted), 0
        items = []
        for _, ref in sorted(found):
            item = await self._item(ref)
            if item is None or not test(item):
                continue
            total += 1
            if len(items) < wanted.limit:
                items.append(item)
        return msgspec.to_builtins(QueuePage(items, total))

    async def show(self, payload: Any) -> Any:
        """{"id"} -> QueueItem | None, with the peer's last words."""
        ref = self._mta.spool.find(payload["id"])
        item = None if ref is None else await self._item(ref)
        if ref is None or item is None:
            return None
        state = await self._mta.spool.state(ref)
        item.detail = state.detail
        down = next((status for row in self._rows(ref) if (status := self._down(row)) is not None), None)
        if down is not None and down.last is not None:
            item.detail = f"{down.last.host}: {down.last.reply}" if down.last.host else down.last.reply
        return msgspec.to_builtins(item)

    async def content(self, payload: Any) -> bytes | None:
        """{"id"} -> the message as it would leave, None where it is not here."""
        ref = self._mta.spool.find(payload["id"])
        if ref is None:
            return None
        stored = await self._read(ref)
        body = stored.body if isinstance(stored.body, bytes) else b"".join([c async for c in stored.body.chunks()])
        return stored.trace + body

    async def trace(self, payload: Any) -> list[bytes]:
        return self._mta.events.trace(payload["wanted"], int(payload.get("limit", 1000)))

    # ---- changes

    async def flush(self, payload: Any) -> dict[str, int]:
        """Deferred mail is tried now."""
        backlog, now = self._mta.backlog, self._mta.clock()

        async def one(ref: int, rows: list[Row], envelope: Envelope) -> bool:
            flushed = [row for row in rows if backlog.flush(row.unit, now)]
            if flushed:
                self._mta.events.flushed(envelope, _recipients(flushed))
            return bool(flushed)

        return await self._change(payload, one)

    async def hold(self, payload: Any) -> dict[str, int]:
        """Waiting mail stays until it is released, over restarts too."""
        backlog, mta = self._mta.backlog, self._mta

        async def one(ref: int, rows: list[Row], envelope: Envelope) -> bool:
            held = [row for row in rows if backlog.hold(row.unit)]
            if not held:
                return False
            waiting = tuple(Held(n, FOREVER, row.attempts, row.notified) for row in held for n in row.recipients)
            self._mta.spool.settle(ref, Settlement(done=(), waiting=waiting, reason=Reason.OPERATOR_HOLD))
            mta.events.stopped_by_hand(envelope, _recipients(held))
            return True

        return await self._change(payload, one)

    async def release(self, payload: Any) -> dict[str, int]:
        """Held mail goes on."""
        mta, now = self._mta, self._mta.clock()

        async def one(ref: int, rows: list[Row], envelope: Envelope) -> bool:
            free = [row for row in rows if mta.backlog.release(row.unit, now)]
            if not free:
                return False
            waiting = tuple(Held(n, now, row.attempts, row.notified) for row in free for n in row.recipients)
            self._mta.spool.settle(ref, Settlement(done=(), waiting=waiting, reason=Reason.OPERATOR_RELEASE))
            mta.events.released(envelope, _recipients(free))
            return True

        return await self._change(payload, one)

    async def delete(self, payload: Any) -> dict[str, int]:
        """Mail is gone, without a report. What is being sent at this moment stays: its try decides."""
        mta = self._mta

        async def one(ref: int, rows: list[Row], envelope: Envelope) -> bool:
            rows = [row for row in rows if row.state is not State.TAKEN]
            gone = [row for row in rows if mta.backlog.remove(row.unit)]
            if not gone:
                return False
            self._mta.spool.settle(ref, Settlement(done=_recipients(gone), reason=""))
            mta.events.deleted(envelope, _recipients(gone))
            return True

        return await self._change(payload, one)

    # ---- how

    async def _change(
        self, payload: Any, one: Callable[[int, list[Row], Envelope], Awaitable[bool]]
    ) -> dict[str, int]:
        wanted = filter_of(payload)
        if wanted.is_empty and not wanted.all:
            raise ValueError("an empty filter changes nothing: say which messages, or all")
        test = item_test(wanted)
        count = 0
        for ref in [ref async for _, ref in self._candidates(wanted)]:
            rows = self._rows(ref)
            item = await self._item(ref) if wanted.sender or wanted.recipient else None
            if not rows or (item is not None and not test(item)):
                continue
            envelope = await self._mta.spool.envelope(ref)
            count += await one(ref, self._narrow(rows, envelope, wanted), envelope)
        self._mta.pool.kick()
        return {"count": count}

    def _narrow(self, rows: list[Row], envelope: Envelope, wanted: QueueFilter) -> list[Row]:
        """Of a message's units those that the filter means."""
        if wanted.state:
            rows = [row for row in rows if _STATES[row.state] == wanted.state]
        if not (wanted.recipient or wanted.destination):
            return rows
        narrow = QueueFilter(recipient=wanted.recipient, destination=wanted.destination)
        test = item_test(narrow)
        return [row for row in rows if test(self._describe(row.ref, envelope, [row]))]

    async def _candidates(self, wanted: QueueFilter) -> Any:
        """(arrived, ref) of messages that may meet the filter, as far as the schedule can tell, each once."""
        if wanted.ids:
            for one in wanted.ids:
                ref = self._mta.spool.find(one)
                if ref is not None and (rows := self._rows(ref)):
                    yield rows[0].arrived, ref
            return
        states = [_BY_NAME[wanted.state]] if wanted.state in _BY_NAME else None
        is_wanted = item_test(QueueFilter(destination=wanted.destination))
        seen: set[int] = set()
        keys: dict[str, bool] = {}
        for n, row in enumerate(self._mta.backlog.rows(states=states)):
            if n % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            key = row.destination.key
            if key not in keys:
                probe = QueueItem("", "", 0.0, 0, [QueueRecipient("", "", destination=key)])
                keys[key] = is_wanted(probe)
            if keys[key] and row.ref not in seen:
                seen.add(row.ref)
                yield row.arrived, row.ref

    def _rows(self, ref: int) -> list[Row]:
        return [self._mta.backlog.row(unit) for unit in self._mta.backlog.find(ref)]

    async def _item(self, ref: int) -> QueueItem | None:
        rows = self._rows(ref)
        if not rows:
            return None
        try:
            envelope = await self._mta.spool.envelope(ref)
            item = self._describe(ref, envelope, rows)
            if any(row.reason is Reason.REPLAYED for row in rows):
                await self._recall(ref, item)
        except (Damaged, Gone):
            return None
        return item

    async def _recall(self, ref: int, item: QueueItem) -> None:
        """Mail read back at a start waits for what its last settle says."""
        state = await self._mta.spool.state(ref)
        for waiting in item.waiting:
            if state.reason and waiting.reason == Reason.REPLAYED:
                waiting.reason = state.reason

    def _describe(self, ref: int, envelope: Envelope, rows: list[Row]) -> QueueItem:
        waiting = [recipient for row in rows for recipient in self._waiting(row, envelope)]
        return QueueItem(
            id=envelope.id,
            sender=envelope.sender,
            arrived=envelope.arrived,
            size=envelope.size,
            waiting=waiting,
            message_id=envelope.message_id,
            client=envelope.client,
            client_name=envelope.client_name,
            role=envelope.role,
            recipients=len(envelope.recipients),
            worker=self._worker,
        )

    def _waiting(self, row: Row, envelope: Envelope) -> Iterator[QueueRecipient]:
        due = row.due if row.state is State.DEFERRED else 0.0
        reason = row.reason
        down = self._down(row)
        if down is not None:  # ready, but for a site that answers nobody: it waits for the next probe
            due, reason = down.next_probe, Reason.SITE_DOWN
        for n in row.recipients:
            recipient = envelope.recipients[n]
            yield QueueRecipient(
                address=recipient.address,
                state=_STATES[row.state],
                due=due,
                attempts=row.attempts,
                reason=reason,
                destination=row.destination.key,
                rule=recipient.rule,
            )

    def _down(self, row: Row) -> SiteStatus | None:
        """The site of a ready unit, where it is down."""
        status = self._mta.pool.status(row.destination.key) if row.state is State.READY else None
        return status if status is not None and status.is_down else None

    async def _read(self, ref: int) -> Stored:
        stored = self._mta.spool.read(ref)
        return stored if isinstance(stored, Stored) else await stored


def _recipients(rows: list[Row]) -> tuple[int, ...]:
    return tuple(n for row in rows for n in row.recipients)
