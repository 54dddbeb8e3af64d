"""The gate the listeners ask: the present Admission's opinion, the spool's room, the flow's accept.

It holds no opinion of its own. The Admission is swapped whole, between two questions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from posthof_crds.engine import ListenerRole
from posthof_pod.admit.judge import Admission
from posthof_pod.admit.recipients import Answer
from posthof_pod.admit.strain import Strainer
from posthof_pod.replies import Reply
from posthof_pod.smtp.data import BodySink
from posthof_pod.smtp.gate import Exchange, Incoming, Session
from posthof_pod.smtp.grammar import MailParameters, RecipientParameters
from posthof_pod.spool.blob import Blob

_INTERNAL = ListenerRole.INTERNAL
FULL = Reply(452, "4.3.1", "Insufficient system storage, try again later")


class Store(Protocol):
    """What the gate needs of spool.store.Spool."""

    def room(self, size: int) -> bool: ...
    def blob(self) -> Blob: ...


class Accounts(Protocol):
    """What the gate needs of accounts.accounts.Accounts."""

    def knows(self, session: Session, /) -> bool: ...
    def authenticate(self, session: Session, mechanism: str, /) -> Exchange | Reply: ...
    def sender(self, session: Session, address: str, /) -> Reply | None: ...


class HouseGate:
    """smtp.gate.Gate for one worker."""

    __slots__ = ("_accounts", "_admission", "_has_room", "_store", "accept", "authenticate", "knows", "recipient")

    def __init__(
        self,
        admission: Admission,
        store: Store,
        accept: Callable[[Incoming], Coroutine[Any, Any, Reply]],
        accounts: Accounts,
    ) -> None:
        self.recipient: Callable[[Session, str, str, RecipientParameters], Answer | Awaitable[Answer]]
        self.admission = admission
        self._store = store
        self._has_room = store.room
        self._accounts = accounts
        self.knows, self.authenticate = accounts.knows, accounts.authenticate
        self.accept = accept  # as it is: no call between the last dot and the flow

    @property
    def admission(self) -> Admission:
        return self._admission

    @admission.setter
    def admission(self, admission: Admission) -> None:
        self._admission = admission
        self.recipient = admission.recipient  # as it is, too

    def sender(self, session: Session, address: str, parameters: MailParameters, /) -> Reply | None:
        if session.credential or session.role is _INTERNAL:
            return self._accounts.sender(session, address)
        return None  # who may send what is decided with each recipient

    def room(self, size: int, /) -> Reply | None:
        return None if self._has_room(size) else FULL

    def blob(self, session: Session, /) -> BodySink:
        blob = self._store.blob()
        if session.credential or self._admission.checks_senders(session):
            blob.strainer = Strainer(self._admission.config.hostname)
        return blob
