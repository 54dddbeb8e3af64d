"""The gate the listeners ask: the present Admission's opinion, the spool's room, the flow's accept.

It holds no opinion of its own. The Admission is swapped whole, between two questions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from posthof_pod.admit.judge import Admission
from posthof_pod.admit.recipients import Answer
from posthof_pod.replies import Reply
from posthof_pod.smtp.data import BodySink
from posthof_pod.smtp.gate import Incoming, Session
from posthof_pod.smtp.grammar import MailParameters, RecipientParameters

FULL = Reply(452, "4.3.1", "Insufficient system storage, try again later")


class Store(Protocol):
    """What the gate needs of spool.store.Spool."""

    def room(self, size: int) -> bool: ...
    def blob(self) -> BodySink: ...


class HouseGate:
    """smtp.gate.Gate for one worker."""

    __slots__ = ("_admission", "_has_room", "_store", "accept", "recipient")

    def __init__(
        self, admission: Admission, store: Store, accept: Callable[[Incoming], Coroutine[Any, Any, Reply]]
    ) -> None:
        self.recipient: Callable[[Session, str, str, RecipientParameters], Answer | Awaitable[Answer]]
        self.admission = admission
        self._store = store
        self._has_room = store.room
        self.accept = accept  # as it is: no call between the last dot and the flow

    @property
    def admission(self) -> Admission:
        return self._admission

    @admission.setter
    def admission(self, admission: Admission) -> None:
        self._admission = admission
        self.recipient = admission.recipient  # as it is, too

    def sender(self, session: Session, address: str, parameters: MailParameters, /) -> Reply | None:
        return None  # who may send what is decided with each recipient

    def room(self, size: int, /) -> Reply | None:
        return None if self._has_room(size) else FULL

    def blob(self) -> BodySink:
        return self._store.blob()
