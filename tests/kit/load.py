"""Clients that keep a server busy, and remember what they were promised.

Every mail has a number. `accepted` are those that were answered 250: none of them may be lost. A session that breaks
(a killed worker, a restart) is opened anew and its mail sent again, so duplicates are possible and losses are not.
"""

from __future__ import annotations

import contextlib
import itertools
import smtplib
import threading
import time
from collections.abc import Iterator, Sequence

from kit import peers
from kit.mails import mail

BROKEN = (smtplib.SMTPServerDisconnected, smtplib.SMTPConnectError, ConnectionError, TimeoutError, OSError)


class Clients:
    """`sessions` threads that send mail to `recipients` in turn until they are stopped."""

    def __init__(self, port: int, recipients: Sequence[str], *, sessions: int = 4, pause: float = 0.0) -> None:
        self.accepted: set[int] = set()
        self.drops = 0  # sessions that broke
        self.refusals: list[str] = []  # answers other than 250 and 421
        self._port = port
        self._recipients = recipients
        self._pause = pause
        self._numbers = itertools.count(1)
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(sessions)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every session finish its mail."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, count: int, timeout: float = 60.0) -> None:
        """Until `count` more mails were accepted from now on."""
        goal = len(self.accepted) + count
        peers.wait_for(lambda: len(self.accepted) >= goal, f"{count} more mails accepted", timeout=timeout)

    def _work(self) -> None:
        while not self._is_over.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self._port, local_hostname="client.test", timeout=30) as session:
                    self._talk(session)
            except BROKEN:
                with self._lock:
                    self.drops += 1
                time.sleep(0.02)

    def _talk(self, session: smtplib.SMTP) -> None:
        while not self._is_over.is_set():
            number = next(self._numbers)
            recipient = self._recipients[number % len(self._recipients)]
            try:
                session.sendmail("load@client.test", [recipient], mail(number))
            except smtplib.SMTPResponseException as refusal:
                if refusal.smtp_code == 421:
                    raise smtplib.SMTPServerDisconnected("421") from refusal
                with self._lock:
                    self.refusals.append(f"{refusal.smtp_code} {refusal.smtp_error!r}")
            except smtplib.SMTPRecipientsRefused as refusal:
                with self._lock:
                    self.refusals.append(str(refusal.recipients))
            else:
                with self._lock:
                    self.accepted.add(number)
            time.sleep(self._pause)


@contextlib.contextmanager
def clients(port: int, *recipients: str, sessions: int = 4, pause: float = 0.0) -> Iterator[Clients]:
    """Clients at work; stopped at the end at the latest."""
    busy = Clients(port, recipients, sessions=sessions, pause=pause)
    busy.start()
    try:
        yield busy
    finally:
        busy.stop()
