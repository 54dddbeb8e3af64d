"""One message judged as a worker does, with a warm cache and no socket: SPF with its includes, one RSA-2048
signature, DMARC by tree walk. What it costs is a row of the bench and of a test."""

from __future__ import annotations

import asyncio
import time

from kit.dkim import signed, signing_key
from posthof_crds.engine import EngineConfig, ListenerRole, SpoolSettings
from posthof_pod.admit.auth import Checked, Means, SenderCheck
from posthof_pod.mailauth.dkim import keys
from posthof_pod.resolve.cache import Cache
from posthof_pod.resolve.lookup import CachedLookup, Failures
from posthof_pod.resolve.wire import Answer, Record
from posthof_pod.smtp.gate import Incoming, Session
from posthof_pod.smtp.grammar import MailParameters

KEY = signing_key("rsa2048")
CLIENT = "192.0.2.1"
TEXTS = {
    "a.example": b"v=spf1 include:_spf.a.example ip4:203.0.113.0/24 -all",
    "_spf.a.example": b"v=spf1 include:_n1.a.example include:_n2.a.example ~all",
    "_n1.a.example": b"v=spf1 " + b" ".join(b"ip4:10.%d.0.0/16" % n for n in range(20)) + b" ~all",
    "_n2.a.example": b"v=spf1 ip4:192.0.2.0/24 ~all",
    "_dmarc.a.example": b"v=DMARC1; p=reject; rua=mailto:d@a.example",
    f"{KEY.selector}._domainkey.a.example": keys.record(KEY.key).encode(),
}
HEAD = (
    b"Received: from x by y with ESMTPS id 1; Tue, 24 Nov 2026 01:00:00 +0000\r\nFrom: Ada <ada@a.example>\r\n"
    b"To: alice@ours.test\r\nSubject: one of many\r\nDate: Tue, 24 Nov 2026 01:00:00 +0000\r\n"
    b"Message-ID: <1@a.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
)
CONTENT = signed(HEAD + b"A line of ordinary text, as people write it in mails.\r\n" * 60, KEY)  # about 4 KiB


class Nobody:
    """Is told, and says nothing."""

    def sender_checked(self, spf: str, dkim: str, arc: str, dmarc: str) -> None: ...

    def internal_error(self, where: str, error: BaseException) -> None:
        raise error


async def _answer(name: str, kind: str) -> Answer:
    text = TEXTS.get(name) if kind == "TXT" else None
    if text is None:
        return Answer(False, (), 3600.0)
    return Answer(True, (Record(name, kind, 3600, text),), 3600.0)


class Judging:
    """`once()` judges the message anew. Made and used inside a loop."""

    def __init__(self) -> None:
        cache, failures = Cache(_answer), Failures()
        means = Means(lambda: CachedLookup(cache, time.time, failures), time.time, Nobody())
        config = EngineConfig(
            name="x",
            hostname="mx.house.test",
            listeners=(),
            spool=SpoolSettings(path="/nowhere"),
            mail_root="/nowhere",
            state_dir="/nowhere",
        )
        self._check = SenderCheck(config, means)
        self._session = Session(CLIENT, listener="mx", role=ListenerRole.MX)
        self._session.helo = "mail.a.example"

    async def once(self) -> Checked:
        size = len(CONTENT)
        mail = Incoming(self._session, "ada@a.example", MailParameters(), [], CONTENT, b"", size, False, "ESMTPS")
        return await self._check.check(mail, mail.header_block())


def microseconds(times: int = 300) -> float:
    """CPU of one, the best of five runs. AssertionError: the message did not pass."""

    async def run() -> float:
        judging = Judging()
        assert (await judging.once()).summary == "spf=pass dkim=pass dmarc=pass"
        best = 1.0
        for _ in range(5):
            begun = time.process_time()
            for _ in range(times // 5):
                await judging.once()
            best = min(best, (time.process_time() - begun) / (times // 5))
        return best * 1e6

    return asyncio.run(run())
